"""Tables and stacks in files: the same numbers as in memory, and nothing left behind."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fusion.fit import spill, stacks
from fusion.fit.counted import Counted, count_evidence
from fusion.fit.hybrid import HybridFit
from fusion.fit.objective import Objective
from fusion.fit.plain import WeightedFit
from fusion.fit.spill import GoalFile
from fusion.fit.stacks import Stack
from fusion.fit.weights import Mixture
from fusion.rules.calibration import SourceReliability
from fusion.rules.evidence import SOFT_EDGE, ZONES

pytestmark = pytest.mark.slow

UNTOUCHED = SourceReliability((None,) * 3)


@pytest.fixture
def train(world, flaw):
    return world([flaw(2.0), flaw(2.5), flaw(3.0, kind="instance", misses=0.1)], 12)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def nothing_kept(folder, monkeypatch):
    monkeypatch.setattr(spill, "KEPT_TABLES", 0)
    monkeypatch.setattr(spill, "KEPT_STACKS", 0)
    return folder


def count(images, labels, overlaps=True):
    found = (count_evidence(seen, labels, SOFT_EDGE, overlaps=overlaps) for seen in images)
    return Counted.of(found, labels, 3)


def same(a, b):
    assert np.array_equal(a.levels, b.levels)
    assert np.array_equal(a.zones, b.zones)
    assert np.array_equal(a.inside, b.inside)
    assert np.array_equal(a.other, b.other)
    assert (a.missed, a.scores.tolist()) == (b.missed, b.scores.tolist())
    assert a.overlaps.tolist() == b.overlaps.tolist()
    assert (a.shared is None) == (b.shared is None)
    if a.shared is not None:
        assert np.array_equal(a.shared.hit, b.shared.hit)
        assert np.array_equal(a.shared.claimed, b.shared.claimed)
        assert a.shared.truth == b.shared.truth


@pytest.mark.parametrize("overlaps", [True, False])
def test_tables_are_read_as_they_were_written(train, labels, folder, monkeypatch, overlaps):
    kept = count(train, labels, overlaps)
    assert not list(folder.iterdir())
    # Some images are counted before it is too much.
    monkeypatch.setattr(spill, "KEPT_TABLES", 40_000)
    filed = count(train, labels, overlaps)
    (file,) = folder.iterdir()
    assert file.stat().st_size > 40_000
    other = pickle.loads(pickle.dumps(filed))
    for found in (filed, other, filed.only([3, 0])):
        places = [3, 0] if len(found) == 2 else range(len(train))
        for name, tables in kept.tables.items():
            for table, place in zip(found.tables[name], places, strict=True):
                same(table, tables[place])
    assert filed.overlapping == kept.overlapping
    del filed, found, tables, table
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "fitting",
    [HybridFit(), HybridFit(objective=Objective(0.5, 0.3, outlines=0.2)), WeightedFit()],
    ids=["dice", "mixture", "plain"],
)
def test_the_fit_is_the_same(train, labels, folder, monkeypatch, fitting):
    def fit():
        counted = Counted.of((fitting.count(seen, labels) for seen in train), labels, 3)
        return fitting.solve(counted, ["a", "b", "c"], labels)

    kept = fit()
    monkeypatch.setattr(spill, "KEPT_TABLES", 0)
    monkeypatch.setattr(spill, "KEPT_STACKS", 0)
    filed = fit()
    assert (filed.rule, filed.held_out, filed.report) == (kept.rule, kept.held_out, kept.report)
    assert not list(folder.iterdir())


def test_blocks_are_summed_alike_in_memory_and_in_a_file(train, labels, monkeypatch):
    tables = count(train, labels).tables["wrist_2"]
    whole = Stack.of(tables, UNTOUCHED, "carpals")
    monkeypatch.setattr(stacks, "BLOCK_ROWS", 64)
    assert len(whole.design) > 3 * 64
    divided = Stack.of(tables, UNTOUCHED, "carpals")
    goal = Mixture(((0.5, divided), (0.5, divided.near_outlines())))
    parameters = np.random.default_rng(0).random(4 * len(ZONES) + 1)
    file = GoalFile()
    filed = [file.put(each) for each in (divided, goal, divided)]
    for filed_goal, expected in zip(filed, (divided, goal, divided), strict=True):
        loss, slope = filed_goal.soft_loss(parameters)
        assert loss == expected.soft_loss(parameters)[0]
        assert np.array_equal(slope, expected.soft_loss(parameters)[1])
        logits = filed_goal.logits(parameters)
        assert np.array_equal(logits, whole.logits(parameters))
        assert filed_goal.mean_dice_above(logits, 0.2) == expected.mean_dice_above(logits, 0.2)
    assert divided.soft_loss(parameters)[1] == pytest.approx(
        whole.soft_loss(parameters)[1], rel=1e-4, abs=1e-7
    )


def test_a_file_of_tables_ends_with_them(train, labels, nothing_kept):
    assert Path(tempfile.gettempdir()) == nothing_kept
    counted = count(train[:4], labels)
    assert len(list(nothing_kept.iterdir())) == 1
    half = counted.only([0, 1])
    del counted
    assert len(list(nothing_kept.iterdir())) == 1
    del half
    assert not list(nothing_kept.iterdir())


def test_a_process_that_ends_just_after_the_file_is_made_leaves_none(folder, monkeypatch):
    real = spill.os.open

    def open_and_end(path, flags, mode):
        number = real(path, flags, mode)
        made.append(path)
        spill.os.close(number)
        raise SystemExit(129)

    made = []
    monkeypatch.setattr(spill.os, "open", open_and_end)
    with pytest.raises(SystemExit):
        spill.TableFile()
    monkeypatch.undo()
    assert [Path(path).parent for path in made] == [folder]
    assert not list(folder.iterdir())
