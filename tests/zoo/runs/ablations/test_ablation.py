"""One change at a time: what is trained, what is not trained again, and what the table says."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import configs
from converters.files.provenance import read_provenance
from fusion.metrics.intervals import Estimate
from zoo.config import RunConfig, StrictModel
from zoo.run_files.metrics import MetricsFile
from zoo.runs.ablations.ablation import Ablation, AblationRun, resolve, run_ablation
from zoo.runs.ablations.changes import Change, check_changes, load_changes, parse_change
from zoo.runs.ablations.held_out import FILE, read_held_out
from zoo.runs.ablations.table import ALL, Outcome, describe, outcomes, write_tables
from zoo.runs.table import find_runs, tabulate
from zoo.source import DataSource


class Killed(BaseException):
    """Stands for a process that ends at once."""


class Rates(StrictModel):
    lr: float = 1.0


class FakeConfig(RunConfig):
    optim: Rates = Rates()
    shift: int = 8
    epochs: int = 3
    device: str = "cpu"


class FakeFamily:
    """Predicts the truth, `shift` and some pixels by the seed to the right; lr above 5 diverges."""

    kind, Config = "semantic", FakeConfig

    def __init__(self, shift_truth: Callable[..., Any]) -> None:
        self.trained: list[str] = []
        self._shift = shift_truth

    def train(self, config: FakeConfig, job: Any) -> None:
        file = MetricsFile(job.out / "metrics.csv", ("epoch", "seconds", "val_dice"))
        for epoch in range(len(file.rows) + 1, config.epochs + 1):
            if config.optim.lr > 5:
                raise ValueError("the loss is nan")
            self.trained.append(f"{job.out.relative_to(job.out.parents[2])} {epoch}")
            score = 0.9 - 0.01 * config.shift + 0.001 * epoch
            file.append({"epoch": epoch, "seconds": epoch, "val_dice": score})
            (job.out / "checkpoints").mkdir(exist_ok=True)
            (job.out / "checkpoints" / "last.ckpt").touch()
            job.progress(epoch, config.epochs, "")

    def predict(
        self, run: Path, config: FakeConfig, samples: Sequence[Any], options: Any
    ) -> Iterator[Any]:
        for number, sample in enumerate(samples):
            yield self._shift(sample, config.shift + config.seed + number % 2)


@pytest.fixture(scope="module")
def data(zoo: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ablation")
    zoo("phantom", root / "data", "--people", 6, "--test-people", 0, "--size", 256)
    zoo("split", root / "data", "--out", root / "split.json", "--folds", 3)
    return root


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, shift_truth: Callable[..., Any]) -> FakeFamily:
    family = FakeFamily(shift_truth)
    for module in ("zoo.runs.ablations.ablation", "zoo.runs.train", "zoo.runs.run"):
        monkeypatch.setattr(f"{module}.load_family", lambda name: family)
    return family


@pytest.fixture
def base(tmp_path: Path) -> str:
    path = tmp_path / "fake.yaml"
    path.write_text("shift: 8\n")
    return str(path)


BETTER, WORSE = parse_change("shift=2"), Change("further", {"shift": 14, "note": "it gets worse"})


def _run(
    data: Path, out: Path, base: str, *changes: Change, kill_at: int = 0, **further: Any
) -> list[AblationRun]:
    calls = 0

    def report(done: int, total: int, text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed

    found, _ = run_ablation(
        Ablation("fake", base, changes or (BETTER, WORSE), **further),
        DataSource.open(data / "data"),
        out,
        split_path=data / "split.json",
        command=["zoo"],
        report=report,
    )
    return found


def _outcomes(runs: list[AblationRun], data: Path, **further: Any) -> dict[str, Outcome]:
    labels = DataSource.open(data / "data").classes
    return {one.change: one for one in outcomes(runs, labels, **further)}


# --- changes


def test_a_change_takes_the_place_of_all_that_the_key_had() -> None:
    raw = {"loss": {"bce": 0.5, "dice": 0.5}, "optim": {"lr": 1, "name": "sgd"}}
    assert parse_change("loss={dice: 1}").apply(raw)["loss"] == {"dice": 1}
    changed = Change("two", {"optim.lr": 0.1, "augment": []}).apply(raw)
    assert changed["optim"] == {"lr": 0.1, "name": "sgd"}
    assert changed["augment"] == []
    assert raw["optim"] == {"lr": 1, "name": "sgd"}


def test_a_key_below_a_value() -> None:
    with pytest.raises(ValueError, match=r"'optim\.schedule\.power': expected keys below 'schedul"):
        parse_change("optim.schedule.power=2").apply({"optim": {"schedule": "cosine"}})


def test_no_two_changes_share_a_folder() -> None:
    names = ["a b", "a-b", "a/b", "a", "loss={dice: 1}", "loss={dice: 2}", "..", "x" * 60, "é"]
    folders = [Change(name).folder for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder and "/" not in folder and folder[0] != "." for folder in folders)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "expected one or more --change"),
        ([Change("a"), Change("a")], "'a': expected a name of its own"),
        ([Change("base")], "'base': expected a name of its own"),
    ],
)
def test_changes_that_cannot_be_told_apart(changes: list[Change], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_changes(changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: 1", "'a': expected keys"), ("a: {}", "'a': expected keys"), ("[1]", "a mapping of keys")],
)
def test_files_that_hold_no_changes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_changes(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(configs.names("ablation")))
def test_shipped_changes_fit_the_baseline(name: str) -> None:
    changes = load_changes(name)
    assert len(resolve(Ablation("smp", "unet_resnet34", changes), None)) == len(changes) + 1


def test_what_changes_nothing_is_left_out(
    fake: FakeFamily, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    same = parse_change("optim.lr=1.0")
    found = resolve(Ablation("fake", base, (same, BETTER)), None)
    assert [variant.change.name for variant in found] == ["base", "shift=2"]
    assert "the same config as 'base'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="differ from the base, found none"):
        resolve(Ablation("fake", base, (same,)), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "further", "message"),
    [
        (parse_change("shft=1"), {}, r"change 'shft=1': unknown key 'shft' \(did you mean 'shift'"),
        (parse_change("shift=much"), {}, r"change 'shift=much': 'shift'"),
        (parse_change("seed=1"), {"seeds": (0, 1)}, "expected no seed beside --seeds"),
        (BETTER, {"folds": (0, 3)}, "--folds 3: expected 0 to 2"),
    ],
)
def test_nothing_is_trained_where_something_is_wrong(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path, change: Any, further: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _run(data, tmp_path / "a", base, change, **further)
    assert fake.trained == []
    assert not (tmp_path / "a").exists()


# --- runs


@pytest.mark.slow
def test_each_change_is_trained_alone(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    _run(data, out, base, given=("optim.lr=0.5",), seeds=(1, 2), folds=(0, 2))
    found = {run.name: run for run in find_runs([out])}
    assert len(found) == 3 * 2 * 2
    for name, run in found.items():
        change, seed, fold = name.split("/")
        shift = {"base": "8", "shift=2": "2", "further": "14"}[change]
        assert run.settings["shift"] == shift
        assert run.settings["optim.lr"] == "0.5"
        assert (f"seed-{run.settings['seed']}", f"fold-{run.settings['fold']}") == (seed, fold)
    columns, rows = tabulate(list(found.values()))
    assert columns[-1] == "note"
    assert {row[-1] for row in rows if row[0].startswith("further")} == {"it gets worse"}
    assert {row[-1] for row in rows if not row[0].startswith("further")} == {""}


@pytest.mark.slow
def test_a_killed_ablation_goes_on(fake: FakeFamily, data: Path, base: str, tmp_path: Path) -> None:
    whole = _run(data, tmp_path / "whole", base, folds=(0, 1))
    once = sorted(fake.trained)
    assert len(once) == len(set(once)) == 3 * 2 * 3
    fake.trained.clear()
    # In the second epoch of the second run, and in the first of the one after the next.
    for kill_at in (5, 6):
        with pytest.raises(Killed):
            _run(data, tmp_path / "killed", base, kill_at=kill_at, folds=(0, 1))
    assert 0 < len(fake.trained) < len(once)
    killed = _run(data, tmp_path / "killed", base, folds=(0, 1))
    # No epoch twice, none left out.
    assert sorted(fake.trained) == once
    tables = [_outcomes(runs, data) for runs in (whole, killed)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_what_is_finished_is_not_trained_again(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    _run(data, tmp_path / "a", base, BETTER)
    assert len(fake.trained) == 2 * 3
    fake.trained.clear()
    scores = tmp_path / "a" / "base" / "seed-0" / "fold-0" / FILE
    before = scores.stat().st_mtime_ns
    _run(data, tmp_path / "a", base, BETTER, WORSE)
    assert {line.split("/")[0] for line in fake.trained} == {"further"}
    assert scores.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_note_is_no_part_of_what_a_run_is(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    run = tmp_path / "a" / "further" / "seed-0" / "fold-0"
    notes = []
    for text in ("it gets worse", "it did get worse\nby much", ""):
        _run(data, tmp_path / "a", base, Change("further", {"shift": 14, "note": text}))
        notes.append(read_provenance(run)["note"])
    assert notes == ["it gets worse", "it did get worse\nby much", "it did get worse\nby much"]
    assert "note" not in yaml.safe_load((run / "config.yaml").read_text())
    assert len(fake.trained) == 2 * 3
    assert {found.note for found in find_runs([run])} == {"it did get worse by much"}


@pytest.mark.slow
def test_another_base_is_not_mixed_in(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    _run(data, tmp_path / "a", base)
    with pytest.raises(ValueError, match="expected the same base and split to continue"):
        _run(data, tmp_path / "a", base, given=("optim.lr=0.5",))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").touch()
    with pytest.raises(ValueError, match="found other files"):
        _run(data, tmp_path / "full", base)


@pytest.mark.slow
def test_a_run_may_fail(fake: FakeFamily, data: Path, base: str, tmp_path: Path) -> None:
    high = parse_change("optim.lr=9")
    found = _outcomes(_run(data, tmp_path / "a", base, high, BETTER), data)
    assert (found["optim.lr=9"].failed, found["optim.lr=9"].runs) == (1, 0)
    assert found["optim.lr=9"].error == "ValueError: the loss is nan"
    assert found["shift=2"].differences[ALL].mean > 0
    labels = DataSource.open(data / "data").classes
    assert "failed: optim.lr=9: ValueError: the loss" in describe(
        list(found.values()), labels, tmp_path, "patients"
    )
    with pytest.raises(ValueError, match="all 2 runs failed, the first with: ValueError: the loss"):
        _run(data, tmp_path / "b", base, parse_change("shift=1"), given=("optim.lr=9",))


@pytest.mark.slow
def test_an_address_is_not_written_down(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def open_url(request: Any, timeout: float) -> Any:
        told.append(request.full_url)
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", open_url)
    _run(data, tmp_path / "a", base, BETTER, given=("notice.url=https://secret.example/T1",))
    assert set(told) == {"https://secret.example/T1"}
    written = [p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert written
    assert not any(b"secret.example" in text for text in written)


# --- the table


@pytest.mark.slow
def test_differences_are_of_the_same_images(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    runs = _run(data, out, base, folds=(0, 1, 2), seeds=(0, 1))
    labels = DataSource.open(data / "data").classes
    found = _outcomes(runs, data)
    rows: dict[tuple[str, str], list[list[float]]] = {}
    patients = set()
    for run in runs:
        with (run.path / FILE).open(newline="") as lines:
            for row in csv.DictReader(lines):
                dice = [float(row[name]) for name in labels.names]
                rows.setdefault((run.change, row["image"]), []).append(dice)
                patients.add(row["patient"])
    images = {image for _, image in rows}
    assert all(len(seeds) == 2 for seeds in rows.values())
    assert len(images) == 12
    for change in ("shift=2", "further"):
        expected = np.mean(
            [np.mean(np.subtract(rows[change, i], rows["base", i]), axis=0) for i in images], axis=0
        )
        one = found[change]
        assert one.units == len(patients) == 6
        assert one.differences[ALL].mean == pytest.approx(expected.mean())
        for name, value in zip(labels.names, expected, strict=True):
            assert one.differences[name].mean == pytest.approx(value)
        carpals = [labels.names.index(name) for name in labels.groups["carpals"]]
        assert one.differences["carpals"].mean == pytest.approx(expected[carpals].mean())
    assert found["shift=2"].differences[ALL].is_gain
    assert found["further"].differences[ALL].is_sure
    assert not found["further"].differences[ALL].is_gain
    assert found["base"].differences == {}
    assert found["base"].score == pytest.approx(0.9 - 0.08 + 0.003)


@pytest.mark.slow
def test_intervals_over_runs_need_several(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    one = _outcomes(_run(data, tmp_path / "a", base, BETTER), data, over="runs")["shift=2"]
    assert (one.units, one.differences[ALL].interval) == (1, None)
    runs = _run(data, tmp_path / "a", base, BETTER, seeds=(0, 1, 5))
    several = _outcomes(runs, data, over="runs")["shift=2"]
    assert several.units == 3
    gains = []
    for seed in (0, 1, 5):
        folders = (tmp_path / "a" / c / f"seed-{seed}" / "fold-0" for c in ("base", "shift=2"))
        pair = [read_held_out(folder) for folder in folders]
        old, new = (np.mean([*found.dice.values()]) for found in pair if found)
        gains.append(new - old)
    estimate = several.differences[ALL]
    assert estimate.mean == pytest.approx(np.mean(gains))
    # Three draws of the same run are the widest that a bootstrap of three reaches.
    assert estimate.interval == pytest.approx((min(gains), max(gains)))


@pytest.mark.slow
def test_public_scores_stand_beside(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    runs = _run(data, tmp_path / "a", base, seeds=(0, 1))
    scores = {"base": (0.8, 0.9), "shift=2": (0.85, 0.99)}
    public = {r.path: scores[r.change][r.seed] for r in runs if r.change in scores}
    found = _outcomes(runs, data, public=public)
    assert found["shift=2"].public == pytest.approx(0.92)
    assert found["shift=2"].public_difference == pytest.approx(0.07)
    assert found["further"].public is None
    labels = DataSource.open(data / "data").classes
    text = describe(list(found.values()), labels, tmp_path, "patients").splitlines()
    assert text[1].startswith("base")
    assert text[2].startswith("shift=2")
    assert text[2].endswith("0.9200  +0.0700")


def test_a_column_that_is_not_there(
    fake: FakeFamily, data: Path, base: str, tmp_path: Path
) -> None:
    runs = _run(data, tmp_path / "a", base, BETTER)
    with pytest.raises(
        ValueError, match=r"--score val_iou: expected a column of metrics\.csv: epoch"
    ):
        _outcomes(runs, data, score="val_iou")


@pytest.mark.slow
def test_tables_hold_every_class(fake: FakeFamily, data: Path, base: str, tmp_path: Path) -> None:
    out = tmp_path / "a"
    found = _outcomes(_run(data, out, base), data)
    labels = DataSource.open(data / "data").classes
    write_tables(list(found.values()), labels, out)
    with (out / "classes.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 3 * (1 + len(labels.groups) + len(labels))
    lunate = next(r for r in rows if (r["change"], r["class"]) == ("further", "Lunate"))
    estimate: Estimate = found["further"].differences["Lunate"]
    assert float(lunate["difference"]) == pytest.approx(estimate.mean, abs=1e-6)
    with (out / "changes.csv").open(newline="") as lines:
        assert [row["change"] for row in csv.DictReader(lines)] == ["base", "shift=2", "further"]


# --- the command

TINY: tuple[str, ...] = (
    "size=[32,32]",
    "batch=2",
    "epochs=2",
    "validate_every=1",
    "init=null",
    "device=cpu",
)
TINY += ("encoder=tu-lcnet_035", "options.decoder_channels=[16,16,8,8,8]")


@pytest.mark.long
@pytest.mark.slow
def test_the_command(
    zoo: Callable[..., None], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    public = tmp_path / "public.csv"
    where = ("--config", "demo", "--data", data / "data", "--split", data / "split.json")
    what = ("--change", "augment=[]", "--change", "loss={dice: 1}", "--folds", "0,1")
    zoo("ablate", "smp", *where, *what, "--out", out, *TINY)
    said = capsys.readouterr().out
    assert "loss={dice: 1}" in said
    assert "2 changes were tried" in said
    run = out / Change("loss={dice: 1}").folder / "seed-0" / "fold-1"
    assert yaml.safe_load((run / "config.yaml").read_text())["loss"] == {"dice": 1}
    assert read_provenance(out)["kind"] == "ablation"
    last = run / "checkpoints" / "last.safetensors"
    before = last.stat().st_mtime_ns
    public.write_text("run,score\nbase/seed-0/fold-0,.5\nbase/seed-0/fold-1,.7\n")
    further = ("--jobs", 2, "--public", public, "--over", "runs")
    zoo("ablate", "smp", *where, *what, "--change", "clip=0", *further, "--out", out, *TINY)
    assert last.stat().st_mtime_ns == before
    said = capsys.readouterr().out
    assert "0.6000" in said
    assert "clip=0" in said
    zoo("predict", run, "--data", data / "data", "--out", tmp_path / "val")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.slow
def test_the_command_on_a_cluster(
    zoo: Callable[..., None], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    # Relative paths, which another machine's processes would not find.
    monkeypatch.chdir(data)
    where = ("--config", "demo", "--data", "data", "--split", "split.json", "--change", "clip=0")
    zoo("ablate", "smp", *where, "--out", tmp_path / "here", *TINY)
    on = ("--out", tmp_path / "there", "--on", "ray")
    command = [sys.executable, "-m", "zoo", "ablate", "smp", *map(str, (*where, *on)), *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Ray did not start" in done.stderr:
        pytest.skip("Ray does not start on a machine as busy as this one")
    assert done.returncode == 0, done.stderr
    tables = []
    for name in ("here", "there"):
        with (tmp_path / name / "changes.csv").open(newline="") as lines:
            tables.append(list(csv.DictReader(lines)))
    for here, there in zip(*tables, strict=True):
        assert (here["change"], here["runs"]) == (there["change"], there["runs"])
        # Another number of threads may round otherwise.
        assert float(there["dice"]) == pytest.approx(float(here["dice"]), abs=0.02)
