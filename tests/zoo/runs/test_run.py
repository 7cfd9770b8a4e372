"""What a run held out: known, or refused; never all images instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import converters
from converters.files.provenance import write_provenance
from converters.splits.split import Split
from fusion.types import Prediction
from zoo.config import dump_config
from zoo.contract import DivergedError
from zoo.runs.run import Run, subset_samples
from zoo.runs.train import train
from zoo.source import DataSource


@pytest.fixture(scope="module")
def data(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "data"
    converters.write(toys.samples, folder, format="handbone", labels=toys.labels)
    return folder


@pytest.fixture
def split(data: Path, toys: Any) -> Split:
    keys = tuple(s.key for s in DataSource.open(data).read(toys.labels))
    return Split(1, 0, "given", (keys[:2], keys[2:]), {key: key for key in keys})


@pytest.fixture
def run(tmp_path: Path, tiny_smp: Any, split: Split) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"family: smp\n{dump_config(tiny_smp())}")
    split.save(folder / "split.json")
    write_provenance(folder, ["zoo"], {"fold": 0}, 0, split.digest)
    return folder


def test_subsets_are_those_of_the_split(run: Path, data: Path, split: Split, toys: Any) -> None:
    opened, source = Run.load(run), DataSource.open(data)
    found = {name: subset_samples(opened, source, name, toys.labels) for name in ("val", "train")}
    assert {s.key for s in found["val"]} == set(split.val(0))
    assert {s.key for s in found["train"]} == set(split.train(0))


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text(text)


def change(**entries: Any) -> Callable[[Path], object]:
    def edit(run: Path) -> None:
        file = run / "provenance.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | entries))

    return edit


def other_split(run: Path) -> None:
    file = run / "split.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 7}))


UNKNOWN = {
    "no provenance": (lambda run: (run / "provenance.json").unlink(), "found no provenance.json"),
    "broken": (write("provenance.json", '{"config": {'), "provenance.json: expected the record"),
    "empty": (write("provenance.json", ""), "found an empty file"),
    "not UTF-8": (lambda r: (r / "provenance.json").write_bytes(b"\xff{}"), "expected UTF-8"),
    "a list": (write("provenance.json", "[]"), "expected an object, found a list"),
    "a text": (write("provenance.json", '"fold 0"'), "expected an object, found a str"),
    "a number": (write("provenance.json", "0"), "expected an object, found a int"),
    "null": (write("provenance.json", "null"), "expected an object"),
    "config is a list": (change(config=[0]), "no 'config.fold'"),
    "no fold": (change(config={}), "no 'config.fold'"),
    "fold is a text": (change(config={"fold": "0"}), "no 'config.fold'"),
    "fold is true": (change(config={"fold": True}), "no 'config.fold'"),
    "fold too large": (change(config={"fold": 2}), "fold 2: expected 0 to 1"),
    "no digest": (change(split=None), "split.json is not the one that the run learned with"),
    "other split": (other_split, "split.json is not the one that the run learned with"),
    "no split": (lambda run: (run / "split.json").unlink(), "found no split.json"),
}


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["val", "train"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_fold_is_refused(
    zoo: Any, run: Path, data: Path, case: str, subset: str, tmp_path: Path, capsys: Any
) -> None:
    spoil, said = UNKNOWN[case]
    spoil(run)
    out = tmp_path / "store"
    zoo("predict", run, "--data", data, "--subset", subset, "--out", out, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not out.exists()


def test_held_out_images_that_are_not_there_are_refused(
    zoo: Any, run: Path, data: Path, toys: Any, tmp_path: Path, capsys: Any
) -> None:
    fewer = tmp_path / "fewer"
    converters.write(toys.samples[1:], fewer, format="handbone", labels=toys.labels)
    zoo("predict", run, "--data", fewer, "--subset", "val", "--out", tmp_path / "s", code=2)
    said = capsys.readouterr().err
    assert "1 of its images are not in the data" in said
    assert not (tmp_path / "s").exists()


def test_a_data_set_with_a_broken_record_is_refused(
    zoo: Any, run: Path, data: Path, tmp_path: Path, capsys: Any
) -> None:
    # It says which images were left out, and around which classes crops were cut.
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (other / "provenance.json").write_text("[")
    zoo("predict", run, "--data", other, "--out", tmp_path / "s", code=2)
    assert f"{other}/provenance.json: expected the record" in capsys.readouterr().err


class Diverging:
    """A family whose training fails after a checkpoint was written."""

    kind = "semantic"

    def __init__(self, config: Any) -> None:
        self.Config, self.is_good = config, False

    def train(self, config: Any, job: Any) -> None:
        (job.out / "checkpoints").mkdir(exist_ok=True)
        (job.out / "checkpoints" / "last.ckpt").write_bytes(b"1")
        if not self.is_good:
            raise DivergedError("epoch 2: the loss is nan")

    def predict(self, *_: Any) -> list[Prediction]:
        return []


def test_a_run_that_diverged_is_marked(
    data: Path, split: Split, tiny_smp: Any, toys: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    family = Diverging(type(tiny_smp()))
    monkeypatch.setattr("zoo.runs.train.load_family", lambda name: family)
    (tmp_path / "c.yaml").write_text(dump_config(tiny_smp()))
    split.save(tmp_path / "split.json")
    out = tmp_path / "run"

    def start() -> Any:
        return train(
            *("smp", str(tmp_path / "c.yaml"), DataSource.open(data), out),
            split_path=tmp_path / "split.json",
            fold=0,
            changes=(),
            command=["zoo"],
            report=lambda *_: None,
        )

    with pytest.raises(DivergedError):
        start()
    record = json.loads((out / "provenance.json").read_text())
    assert record["failed"] == "epoch 2: the loss is nan"
    assert (out / "checkpoints" / "last.ckpt").exists()
    family.is_good = True
    start()
    assert "failed" not in json.loads((out / "provenance.json").read_text())


def test_what_is_no_run_says_what_it_is(run: Path, tmp_path: Path) -> None:
    (tmp_path / "hand.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    cases = {
        tmp_path: f"a folder of others: give one of {run}",
        tmp_path / "hand.png": "a file; images are given by --data",
        tmp_path / "nowhere": "no such folder",
        tmp_path / "empty": "a folder without",
    }
    for path, said in cases.items():
        with pytest.raises(ValueError, match=r"expected a run with config\.yaml") as error:
            Run.load(path)
        assert str(error.value).endswith(f"found {said}")
