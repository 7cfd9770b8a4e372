"""Metadata of the hand competition's workbook, from a command to a store."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from converters.formats.handbone_patients import read_patients
from converters.types import LabelSpace
from fusion.sources.store import PredictionStore
from zoo.contract import PredictOptions
from zoo.families.smp.family import FAMILY
from zoo.metadata.columns import Columns
from zoo.metadata.network import tallied
from zoo.metadata.reading import rows_of_run
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.run_files.checkpoints import BEST, RESUME, load_weights
from zoo.runs.run import Run, subset_samples
from zoo.runs.soup import make_soup
from zoo.source import DataSource

pytestmark = pytest.mark.slow
Zoo = Callable[..., None]

PROGRAM = """
import sys
from pathlib import Path
from zoo.runs.train import train
from zoo.source import DataSource

if __name__ == "__main__":
    config, data, split, out = (Path(argument) for argument in sys.argv[1:5])
    train("smp", str(config), DataSource.open(data), out, split_path=split, fold=0, changes=[],
          command=["zoo", "train"], report=lambda done, total, note: None)
"""
SMALL = ["size=[64,64]", "epochs=1", "batch=2", "workers=0", "device=cpu", "precision=32-true"]
SMALL += ["encoder=tu-lcnet_035", "encoder_weights=null", "options.decoder_channels=[16,16,16,8,8]"]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hands")
    write_phantom(root / "data", PhantomConfig(people=4, test_people=1, size=256))
    return root


@pytest.fixture(scope="module")
def split(hands: Path, zoo: Zoo) -> Path:
    zoo("split", hands / "data", "--out", hands / "split.json", "--folds", 2)
    return hands / "split.json"


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _train(zoo: Zoo, hands: Path, split: Path, out: Path, *changes: str, code: int = 0) -> None:
    given = ("--data", hands / "data", "--split", split, "--fold", 0, "--out", out)
    zoo("train", "smp", "--config", "unet_resnet34_metadata", *given, *SMALL, *changes, code=code)


@pytest.fixture(scope="module")
def trained(hands: Path, split: Path, zoo: Zoo) -> Path:
    _train(zoo, hands, split, hands / "runs" / "one", "metadata.use=both")
    return hands / "runs" / "one"


def test_the_shipped_config_learns_from_the_workbook(trained: Path) -> None:
    (row,) = _rows(trained)
    names = ["val_age_mae", "val_sex_accuracy", "val_height_mae", "val_weight_mae"]
    assert list(row)[6:10] == names
    assert 0 <= float(row["val_sex_accuracy"]) <= 1
    # Untrained, it is as far off as the people are apart: years, cm and kg.
    assert 1 < float(row["val_age_mae"]) < 60
    age, sex, height, weight = Columns.load(trained).columns
    assert sex.categories == ("F", "M")
    assert (19 <= age.mean <= 70, 140 < height.mean < 190, 40 < weight.mean < 100) == (True,) * 3


def test_images_of_nobody_known_are_predicted(
    trained: Path, hands: Path, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for part in ("train", "test"):
        (plain / part).symlink_to(hands / "data" / part)
    for data, name in ((hands / "data", "known"), (plain, "unknown")):
        capsys.readouterr()
        given = (trained, "--data", data, "--out", tmp_path / name)
        zoo("predict", *given, "--subset", "test", "--device", "cpu")
        told = " ".join(capsys.readouterr().err.split())
        assert ("found no age, sex, height, weight of any of" in told) is (name == "unknown")
    # A table that is asked for, of the test images' patients alone.
    people = read_patients(hands / "data" / "meta_data.xlsx")
    cells = [
        (who, *(p[n] for n in ("age", "sex", "height", "weight"))) for who, p in people.items()
    ]
    text = [",".join(map(str, row)) for row in (("who", "age", "sex", "height", "weight"), *cells)]
    (tmp_path / "people.csv").write_text("\n".join(text))
    given = (trained, "--data", plain, "--out", tmp_path / "told", "--metadata")
    zoo("predict", *given, tmp_path / "people.csv", "--subset", "test", "--device", "cpu")
    stores = {n: list(PredictionStore(tmp_path / n)) for n in ("known", "unknown", "told")}
    assert len(stores["known"]) == 2
    for store in stores.values():
        assert [p.key for p in store] == [p.key for p in stores["known"]]
    told, known = (stores[n] for n in ("told", "known"))
    for a, b in zip(told, known, strict=True):
        assert a.masks.keys() == b.masks.keys()
        for name in a.masks:
            assert np.array_equal(a.masks[name][0][1].prob, b.masks[name][0][1].prob)


@pytest.mark.parametrize("is_known", [True, False])
def test_an_exported_run_reads_the_workbook(
    trained: Path, hands: Path, zoo: Zoo, tmp_path: Path, is_known: bool
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    data = hands / "data"
    if not is_known:
        data = tmp_path / "plain"
        data.mkdir()
        for part in ("train", "test"):
            (data / part).symlink_to(hands / "data" / part)
    zoo("export", trained, "--out", tmp_path / "model")
    for path, name in ((trained, "torch"), (tmp_path / "model", "onnx")):
        given = ("--data", data, "--out", tmp_path / name, "--subset", "test", "--device", "cpu")
        zoo("predict", path, *given)
    stores = [PredictionStore(tmp_path / name) for name in ("onnx", "torch")]
    compared = 0
    for ours, theirs in zip(*stores, strict=True):
        for label, ((_, mask),) in theirs.masks.items():
            window = (0, 0, *theirs.size_hw[::-1])
            seen = ours.masks[label][0][1].render(window).astype(int)
            assert np.abs(seen - mask.render(window)).max() <= 3
            compared += 1
    assert compared > 20


def test_what_cannot_be_used_is_said_in_a_line(
    hands: Path, split: Path, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _train(zoo, hands, split, tmp_path / "run", "metadata.columns=[gender]", code=2)
    told = capsys.readouterr().err
    assert "'gender': expected an attribute of the data set's images, found age, height" in told
    assert not (tmp_path / "run").exists()
    _train(zoo, hands, split, tmp_path / "run", "metadata.file=gone.csv", code=2)
    assert (
        "gone.csv: expected a table (CSV in UTF-8), found: No such file" in capsys.readouterr().err
    )


def test_a_soup_is_shown_what_its_runs_are(
    trained: Path, hands: Path, split: Path, zoo: Zoo, tmp_path: Path
) -> None:
    _train(zoo, hands, split, tmp_path / "two", "metadata.use=both", "seed=1", "metadata.weight=1")
    data = DataSource.open(hands / "data")
    options = PredictOptions(device="cpu")
    for norms in ("mean", "recompute"):
        soup = make_soup(
            [trained, tmp_path / "two"],
            data,
            tmp_path / norms,
            way="uniform",
            norms=norms,
            options=options,
        )
        assert soup.dice > 0
        assert Columns.load(tmp_path / norms) == Columns.load(trained)
    _train(zoo, hands, split, tmp_path / "other", "metadata.use=input")
    with pytest.raises(ValueError, match=r"'metadata\.use' 'both', found 'input'"):
        make_soup([trained, tmp_path / "other"], data, tmp_path / "none", options=options)


def test_folds_predict_as_one(hands: Path, split: Path, zoo: Zoo, tmp_path: Path) -> None:
    given = ("--data", hands / "data", "--split", split, "--folds", "all", "--out", tmp_path / "cv")
    zoo("train", "smp", "--config", "unet_resnet34_metadata", *given, *SMALL)
    # Each fold has the scales of its own training images.
    first, second = (Columns.load(tmp_path / "cv" / f"fold-{n}") for n in (0, 1))
    assert first.columns[0] != second.columns[0]
    given = (tmp_path / "cv", "--data", hands / "data", "--out", tmp_path / "test")
    zoo("predict", *given, "--subset", "test", "--device", "cpu")
    assert len(list(PredictionStore(tmp_path / "test"))) == 2


@pytest.mark.long
def test_two_processes_score_the_task_together(hands: Path, split: Path, tmp_path: Path) -> None:
    raw: dict[str, Any] = {
        "size": [64, 64],
        "epochs": 2,
        "batch": 1,
        "encoder": "tu-lcnet_035",
        "options": {"decoder_channels": [16, 16, 16, 8, 8]},
        "metadata": {"columns": ["age", "sex", "height"], "use": "both"},
        "device": "cpu",
        "devices": 2,
        "strategy": "ddp",
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "train.py").write_text(PROGRAM)
    places = (tmp_path / "tiny.yaml", hands / "data", split, tmp_path / "run")
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *map(str, (tmp_path / "train.py", *places))]
    done = subprocess.run(
        command, env=variables, check=False, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = Run.load(tmp_path / "run")
    torch.load(run.path / RESUME, weights_only=True)
    config: Any = run.config
    network: Any = FAMILY.rebuild(run.path, config, len(config.labels))
    load_weights(network, run.path / BEST)
    network.eval()
    labels = LabelSpace.load("hand_bones")
    samples = subset_samples(run, DataSource.open(hands / "data"), "val", labels)
    rows = rows_of_run(run.path, config.metadata, samples)
    assert rows is not None
    from zoo.families.settings import plan_scoring
    from zoo.inference.frames import read_frames
    from zoo.inference.predict import predict_semantic

    frames = read_frames(samples, config.image_size, metadata=rows)
    with tallied(network) as tally:
        assert len(list(predict_semantic(network, frames, labels, plan_scoring(config)))) == 4
    best = max(_rows(run.path), key=lambda row: float(row["val_dice"]))
    found = [float(best[name]) for name in network.score_names]
    assert found == pytest.approx((tally[:, 0] / tally[:, 1]).tolist(), rel=1e-4)
    assert np.all(tally[:, 1].numpy() == 4)
