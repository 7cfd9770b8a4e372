"""Flags and refinements around a rule, from the file to what is written beside the result."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.files.images import read_pixels
from converters.masks import crop
from converters.types import LabelSpace
from fusion import Mean
from fusion.checks.adjacency import Adjacency
from fusion.rules.crf import DenseCrf
from fusion.rules.file import dump_rule, read_rule
from fusion.rules.flagged import FlaggedRule, flags_of
from fusion.rules.refine import Refine, Refined, Steps
from fusion.types import Prediction, SoftMask
from zoo.results import chunks, fuse
from zoo.results.sources import GreyImages, give_images

PLACES = {"a_1": (30, 30), "b-2": (70, 25), "c": (110, 35), "d": (40, 75), "e": (95, 80)}
LABELS = LabelSpace("dots", tuple(PLACES), once=True)
SIZE_HW = (110, 150)


def draw(seed: int, moved: dict[str, tuple[int, int]] | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    planes = {}
    for name, (x, y) in (PLACES | (moved or {})).items():
        plane = np.zeros(SIZE_HW, np.uint8)
        dx, dy = rng.integers(-2, 3, 2)
        cv2.circle(plane, (x + int(dx), y + int(dy)), 9, 255, -1)
        planes[name] = plane
    return planes


def predict(planes: dict[str, np.ndarray], key: str = "x_1") -> Prediction:
    whole = (0, 0, SIZE_HW[1], SIZE_HW[0])
    masks = {name: ((1.0, SoftMask(whole, plane)),) for name, plane in planes.items()}
    return Prediction(key, SIZE_HW, "semantic", masks)


@pytest.fixture(scope="module")
def adjacency() -> Adjacency:
    seen = [({n: crop(p) for n, p in draw(i).items()}, f"p{i // 2}") for i in range(24)]
    return Adjacency.learn(seen, LABELS)


def test_a_watched_rule_changes_nothing(adjacency: Adjacency) -> None:
    sources = [predict(draw(1)), predict(draw(2))]
    fused, watched = Mean()(sources, LABELS), FlaggedRule(Mean(), adjacency)(sources, LABELS)
    assert all(fused.binary(n).area == watched.binary(n).area for n in LABELS.names)
    assert FlaggedRule(Mean(("p", "q")), adjacency).sources == ("p", "q")


def test_what_nobody_watches_is_not_flagged(adjacency: Adjacency) -> None:
    torn = predict({n: p for n, p in draw(3).items() if n != "c"})
    assert [str(f) for f in flags_of(FlaggedRule(Mean(), adjacency), torn, LABELS)] == [
        "missing: c: expected in every image, found none"
    ]
    assert flags_of(Mean(), torn, LABELS) == []
    assert flags_of(FlaggedRule(Mean(), adjacency), predict(draw(4)), LABELS) == []


def test_of_several_objects_all_are_watched(adjacency: Adjacency) -> None:
    """The second half of a bone lies far away; only where all objects count it is seen."""
    planes = draw(4)
    masks = dict(predict(planes).masks)
    far = SoftMask((118.0, 78.0, 18.0, 18.0), np.full((1, 1), 255, np.uint8))
    masks["a_1"] = (*masks["a_1"], (0.9, far))
    found = Prediction("x_1", SIZE_HW, "instance", masks)
    rule = FlaggedRule(Mean(), adjacency)
    assert flags_of(rule, found, LABELS) == []
    flags = flags_of(rule, found, replace(LABELS, once=False))
    assert "a_1" in {flag.label for flag in flags}


def test_flags_travel_with_their_chunk(adjacency: Adjacency, tmp_path: Path) -> None:
    exchanged = draw(5, {"a_1": PLACES["e"], "e": PLACES["a_1"]})
    images = [predict(draw(4)), predict(exchanged)]
    chunk = chunks.Chunk(0, (images,), ("one.png", "two_2.png"))
    rule = FlaggedRule(Mean(), adjacency)
    coded = chunks.fuse_to_rows(rule, LABELS, LABELS.names, 0.0, False, False, chunk)
    assert {name for name, *_ in coded.flags} == {"two_2.png"}
    assert {kind for *_, kind, _ in coded.flags} <= {"swapped", "displaced"}
    folder = chunks.ChunkFolder(tmp_path / "out.csv", {"version": 1})
    folder.save(0, coded)
    assert folder.load(0) == coded


def test_flags_are_listed_beside_the_result(tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    path = fuse._write_flags(out, [("x_1.png", "a_1", "missing", 'none, "at all"')])
    assert path == tmp_path / "a.flags.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [list(fuse.FLAG_HEADER), ["x_1.png", "a_1", "missing", 'none, "at all"']]
    # Those of a result that was replaced would be wrong.
    assert fuse._write_flags(out, []) is None
    assert not path.exists()


def test_what_stands_around_a_rule_survives_its_file(adjacency: Adjacency, tmp_path: Path) -> None:
    rule = FlaggedRule(Refined(Mean(("p", "q")), Refine(Steps(threshold=0.4))), adjacency)
    path = tmp_path / "rule.yaml"
    path.write_text(dump_rule(rule), encoding="utf-8")
    assert read_rule(path) == rule


# --- rules that look at images

CRF = Refined(Mean(), Refine(Steps(crf=DenseCrf())))


def test_images_reach_the_rule_that_looks_at_them(toys, work, adjacency: Adjacency) -> None:
    samples = {s.key: s for s in toys.samples}
    given = give_images(FlaggedRule(CRF, adjacency), samples)
    key = toys.samples[0].key
    assert np.array_equal(given.rule.read_grey(key), read_pixels(samples[key]))
    assert not any(s.instances for s in given.rule.read_grey.samples.values())
    assert given == FlaggedRule(CRF, adjacency)


@pytest.mark.parametrize("rule", [Mean(), Refined(Mean(), Refine(Steps(threshold=0.4)))])
def test_other_rules_need_no_images(rule) -> None:
    assert give_images(rule, None) is rule


def test_a_crf_without_images_is_refused(adjacency: Adjacency) -> None:
    for rule in (CRF, FlaggedRule(CRF, adjacency)):
        with pytest.raises(ValueError, match="CRF, which looks at images: expected --data"):
            give_images(rule, None)


def test_grey_images_forget_annotations(toys) -> None:
    found = GreyImages.of({s.key: s for s in toys.samples})
    assert found == GreyImages({s.key: replace(s, instances=()) for s in toys.samples})
