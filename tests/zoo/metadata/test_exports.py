"""Exported networks are shown what their runs are, and say the same; servers know of nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import torch
from torch import nn
from without_torch import without_torch

from converters.files.provenance import write_provenance
from converters.splits.split import VERSION, Split
from converters.types import Sample
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.contract import PredictOptions
from zoo.export import conversion
from zoo.export.conversion import NetworkShape, convert, sample_rows
from zoo.export.description import FILE, Description, read_description
from zoo.export.exported import Exported
from zoo.export.session import OnnxNetwork
from zoo.families.smp.family import FAMILY
from zoo.metadata.columns import Column, Columns
from zoo.metadata.network import add_metadata
from zoo.run_files.checkpoints import BEST, save_weights

pytestmark = pytest.mark.slow
Make = Callable[..., Any]
TABLE = "patients.csv"
COLUMNS = Columns((Column("age", (), 42.5, 18.0), Column("sex", ("F", "M"))))
# Nothing is known of the first, one has a sex that was never learned, one no age; one is not there.
TOLD = {"P00": ("", "n/a"), "P01": ("70", "divers"), "P02": ("", "F"), "P03": None}


@pytest.fixture
def make_seeing(configure: Make, people: list[Sample]) -> Make:
    """Return a function: write a run with random weights, on which metadata have an effect."""

    def make(
        path: Path,
        use: str | None = "input",
        columns: Columns = COLUMNS,
        file: str = TABLE,
        seed: int = 0,
        fold: int | None = None,
        **changes: Any,
    ) -> Path:
        metadata = {"columns": columns.names, "use": use, "file": file or None} if use else {}
        config = configure(metadata, seed=seed, **changes)
        torch.manual_seed(seed)
        network = FAMILY.build(config, len(config.labels))
        with torch.no_grad():
            list(network.parameters())[-2].mul_(30)
        if use:
            network = add_metadata(network, columns, config.metadata, (1, 1, 64, 64))
            if network.film is not None:
                torch.nn.init.normal_(network.film.layers[-1].weight, 0, 0.3)
        path.mkdir(parents=True)
        keys = {"family": "smp", **config.model_dump(mode="json")}
        (path / "config.yaml").write_text(yaml.safe_dump(keys))
        FAMILY.describe(path, network)
        save_weights(network, path / BEST)
        if fold is not None:
            keys = tuple(sample.key for sample in people)
            split = Split(VERSION, 0, "given", (keys[:6], keys[6:]), {key: key for key in keys})
            split.save(path / "split.json")
            write_provenance(path, "test", {"fold": fold}, seed, split.digest)
        return path

    return make


@pytest.fixture
def data(people: list[Sample], tmp_path: Path) -> Path:
    """Images, and a table beside them that lacks some values."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["image,age,sex"]
    for sample in people:
        shutil.copy(str(sample.image), folder)
        known = sample.attributes["age"], sample.attributes["sex"]
        if cells := TOLD.get(sample.key, known):
            lines.append(",".join(map(str, (sample.file_name, *cells))))
    (folder / TABLE).write_text("\n".join(lines))
    return folder


@pytest.fixture
def predict(zoo: Make, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Make:
    """Return a function: predict the images, return the store and what was said of metadata."""

    def run(path: Path, name: str, *options: object) -> tuple[Path, list[str]]:
        capsys.readouterr()
        forget()
        given = ("--data", data, "--from", "images", "--subset", "test", "--out", tmp_path / name)
        zoo("predict", path, *given, *options)
        told = capsys.readouterr().err.splitlines()
        return tmp_path / name, [line for line in told if "metadata" in line]

    return run


def forget() -> None:
    """Let notes be said again, as by a new process."""
    from zoo import progress

    progress._said.clear()


def rasters(store: Path) -> list[np.ndarray]:
    return [raster(prediction) for prediction in PredictionStore(store)]


def raster(prediction: Prediction) -> np.ndarray:
    best = prediction.best("half")
    window = (0, 0, *prediction.size_hw[::-1])
    shape = prediction.size_hw
    return best[1].render(window).astype(int) if best else np.zeros(shape, int)


def off(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> int:
    """The largest difference of a probability, of 255."""
    return max(int(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def networks_of(description: Description) -> list[Any]:
    return [network for source in description.sources for network in source.networks]


# --- exported runs


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--tta", "hflip,scale:1.5", "--average", "logits"),
        ("--window", "64", "--size", "96x80", "--batch", "3"),
    ],
    ids=["plain", "forms", "windows"],
)
@pytest.mark.parametrize("use", ["input", "both"])
def test_the_store_is_that_of_torch(
    use: str,
    options: tuple[str, ...],
    make_seeing: Make,
    predict: Make,
    data: Path,
    zoo: Make,
    tmp_path: Path,
) -> None:
    run = make_seeing(tmp_path / "run", use, file=str(data / TABLE))
    zoo("export", run, "--out", tmp_path / "model")
    wanted, said = predict(run, "torch", *options)
    found, told = predict(tmp_path / "model", "onnx", *options)
    assert off(rasters(found), rasters(wanted)) <= 3
    assert (len(rasters(found)), told) == (12, said)
    assert said == [
        "zoo: note: metadata: 'sex': no training image has 'divers': it is shown as missing"
    ]
    # It does matter what is known of an image.
    (data / TABLE).unlink()
    nothing, _ = predict(tmp_path / "model", "nothing", *options)
    by_image = [off([a], [b]) for a, b in zip(rasters(found), rasters(nothing), strict=True)]
    assert [number for number, most in enumerate(by_image) if most <= 3] == [0, 3]


def test_no_torch_is_imported(
    make_seeing: Make, predict: Make, data: Path, zoo: Make, tmp_path: Path
) -> None:
    run = make_seeing(tmp_path / "run")
    zoo("export", run, "--out", tmp_path / "model")
    given = ("--data", data, "--from", "images", "--subset", "test", "--out", tmp_path / "onnx")
    done = without_torch("predict", tmp_path / "model", *given)
    assert done.returncode == 0, done.stderr
    assert "no training image has 'divers'" in done.stderr
    wanted, _ = predict(run, "torch", "--metadata", data / TABLE)
    assert off(rasters(tmp_path / "onnx"), rasters(wanted)) <= 3


def test_what_a_folder_says_of_columns(
    make_seeing: Make, zoo: Make, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_seeing(tmp_path / "run", "both", file=str(data / TABLE))
    zoo("export", run, "--out", tmp_path / "model", "--time", "1")
    told = capsys.readouterr().out
    assert "images of any size, any number at a time, and age, sex of each" in told
    assert "threads: torch " in told
    text = (tmp_path / "model" / FILE).read_text()
    (network,) = json.loads(text)["sources"][0]["networks"]
    assert network["metadata"] == {
        "file": TABLE,
        "columns": [
            {"name": "age", "mean": 42.5, "deviation": 18.0},
            {"name": "sex", "categories": ["F", "M"]},
        ],
    }
    assert str(tmp_path) not in text
    assert "P05" not in text
    assert networks_of(read_description(tmp_path / "model"))[0].metadata == replace(
        COLUMNS, file=TABLE
    )


@pytest.mark.parametrize("use", ["both", "task"])
def test_what_is_predicted_of_people_is_not_exported(
    use: str, make_seeing: Make, predict: Make, data: Path, zoo: Make, tmp_path: Path
) -> None:
    run = make_seeing(tmp_path / "run", use, file=str(data / TABLE))
    zoo("export", run, "--out", tmp_path / "model")
    graph = onnx.load(tmp_path / "model" / "network-0.onnx").graph
    assert [output.name for output in graph.output] == ["logits"]
    inputs = {"both": ["image", "metadata"], "task": ["image"]}[use]
    assert [given.name for given in graph.input] == inputs
    names = [weight.name for weight in graph.initializer]
    assert not [name for name in names if name.startswith(("head", "plain.head"))]
    assert any(name.startswith("film") for name in names) is (use == "both")
    assert ('"metadata"' in (tmp_path / "model" / FILE).read_text()) is (use == "both")
    wanted, found = (predict(run, "torch")[0], predict(tmp_path / "model", "onnx")[0])
    assert off(rasters(found), rasters(wanted)) <= 3


def test_folds_have_their_own_scales(
    make_seeing: Make, predict: Make, data: Path, zoo: Make, tmp_path: Path
) -> None:
    scales = [(42.5, 18.0), (30.0, 5.0)]
    for fold, (mean, deviation) in enumerate(scales):
        columns = Columns((Column("age", (), mean, deviation), Column("sex", ("F", "M", "X"))))
        path = tmp_path / "cv" / f"fold-{fold}"
        make_seeing(path, "input", columns, str(data / TABLE), seed=fold, fold=fold)
    zoo("export", tmp_path / "cv", "--out", tmp_path / "model")
    networks = networks_of(read_description(tmp_path / "model"))
    kept = [network.metadata.columns[0] for network in networks]
    assert [(column.mean, column.deviation) for column in kept] == scales
    wanted, _ = predict(tmp_path / "cv", "torch")
    found, _ = predict(tmp_path / "model", "onnx")
    assert off(rasters(found), rasters(wanted)) <= 3


def test_one_network_of_an_ensemble_is_shown_metadata(
    make_seeing: Make, predict: Make, data: Path, zoo: Make, tmp_path: Path
) -> None:
    home, table = tmp_path / "work" / "runs", ("--metadata", data / TABLE)
    make_seeing(home / "seeing", file="")
    make_seeing(home / "plain", None, seed=1)
    rule = tmp_path / "work" / "fusion.yaml"
    rule.write_text(yaml.safe_dump({"method": "mean"}))
    zoo("export", tmp_path / "work", "--out", tmp_path / "model")
    found = [network.metadata for network in networks_of(read_description(tmp_path / "model"))]
    assert sorted(columns is None for columns in found) == [False, True]
    stores = [predict(home / "plain", "plain")[0], predict(home / "seeing", "seeing", *table)[0]]
    wanted = tmp_path / "torch"
    zoo("fuse", *stores, "--config", rule, "--format", "store", "--out", wanted)
    fused, _ = predict(tmp_path / "model", "onnx", *table)
    assert off(rasters(fused), rasters(wanted)) <= 3
    unknown, told = predict(tmp_path / "model", "unknown")
    assert off(rasters(fused), rasters(unknown)) > 3
    assert told == [
        "zoo: note: metadata: found no age, sex of any of 12 images (the data set's own "
        "attributes): the network is shown them as missing"
    ]


# --- tables


def test_a_table_is_missed_as_by_the_run(
    make_seeing: Make, predict: Make, data: Path, zoo: Make, tmp_path: Path
) -> None:
    run = make_seeing(tmp_path / "run")
    zoo("export", run, "--out", tmp_path / "model")
    (data / TABLE).rename(tmp_path / "elsewhere.csv")
    wanted, said = predict(run, "torch")
    found, told = predict(tmp_path / "model", "onnx")
    assert off(rasters(found), rasters(wanted)) <= 3
    nothing = f"found no age, sex of any of 12 images ({TABLE} is not there): the network is"
    assert told == said == [f"zoo: note: metadata: {nothing} shown them as missing"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "bad.csv: expected a table (CSV in UTF-8), found: No such file"),
        (
            "image,age\nP00.png,3",
            "bad.csv: expected a column 'sex' in the first line, found image, age",
        ),
        ("image,age,sex\nP00.png,old,F", "'age': expected a number, found 'old' of 'P00'"),
    ],
)
def test_a_bad_table_is_refused_as_by_the_run(
    text: str | None,
    expected: str,
    make_seeing: Make,
    data: Path,
    zoo: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, table = make_seeing(tmp_path / "run"), tmp_path / "bad.csv"
    zoo("export", run, "--out", tmp_path / "model")
    if text is not None:
        table.write_text(text)
    (data / TABLE).unlink()
    capsys.readouterr()
    errors = []
    for path in (run, tmp_path / "model"):
        given = ("--data", data, "--from", "images", "--subset", "test", "--metadata", table)
        zoo("predict", path, *given, "--out", tmp_path / f"of-{path.name}", code=2)
        errors.append(capsys.readouterr().err)
        assert not (tmp_path / f"of-{path.name}").exists()
    assert errors[0] == errors[1]
    assert expected in errors[1]
    assert len(errors[1].splitlines()) == 1


# --- folders that are others


def change(**changes: Any) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        record = json.loads((folder / FILE).read_text())
        record["sources"][0]["networks"][0]["metadata"] |= changes
        (folder / FILE).write_text(json.dumps(record))

    return do


def leave_out(folder: Path) -> None:
    record = json.loads((folder / FILE).read_text())
    del record["sources"][0]["networks"][0]["metadata"]
    (folder / FILE).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (change(file="../secret.csv"), "expected a table's name, without folders, found '../sec"),
        (change(columns=[]), "expected columns of metadata, found"),
        (change(columns=[{"name": "age"}]), "expected a column's name and categories or scale"),
        (change(columns=[{"name": "sex", "categories": ["F"]}]), "and metadata (?, 2) to logits"),
        (leave_out, "expected a network of image (?, 1, ?, ?) to logits (?, 1, ?, ?), found"),
    ],
)
def test_a_folder_that_says_something_else(
    spoil: Callable[[Path], None],
    expected: str,
    make_seeing: Make,
    data: Path,
    zoo: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zoo("export", make_seeing(tmp_path / "run"), "--out", tmp_path / "model")
    spoil(tmp_path / "model")
    given = ("--data", data, "--from", "images", "--subset", "test", "--out", tmp_path / "out")
    zoo("predict", tmp_path / "model", *given, code=2)
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_models_of_images_alone_are_described_as_ever(
    exported: tuple[Path, Path], toys: Any, zoo: Make, tmp_path: Path, capsys: Any
) -> None:
    text = (exported[1] / FILE).read_text()
    assert '"metadata"' not in text
    assert networks_of(read_description(exported[1]))[0].metadata is None
    given = ("--data", toys.folder, "--from", "images", "--subset", "test", "--out", tmp_path / "a")
    zoo("predict", exported[1], *given, "--metadata", "t.csv", code=2)
    assert "metadata: the family 'exported' predicts without; found t.csv" in (
        capsys.readouterr().err
    )


# --- the comparison with torch


def test_networks_are_compared_on_rows_that_lack_values() -> None:
    rows = sample_rows(COLUMNS, 5)
    assert (rows.shape, rows.dtype) == ((5, 5), np.float32)
    # Of age and of sex, whether they are missing.
    assert rows[:, [1, 4]].tolist() == [[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]
    assert np.array_equal(rows[1], COLUMNS.missing)
    assert rows[0, 0] != rows[4, 0]
    assert np.array_equal(rows, sample_rows(COLUMNS, 5))


class Shifting(nn.Module):
    """Adds how old one is to each pixel, or a number that a tracer takes for a constant."""

    def __init__(self, place: int | None = None) -> None:
        super().__init__()
        self.conv, self.place = nn.Conv2d(1, 3, 3, 2, 1), place

    def forward(self, images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = self.conv(images) + rows[:, 0, None, None, None]
        return moved if self.place is None else moved + float(rows[-1, self.place])


SHAPE = NetworkShape(1, 3, (32, 48), 32, "sigmoid", COLUMNS)


@pytest.mark.parametrize("rung", range(len(conversion._RUNGS)))
def test_each_way_of_torch_takes_rows(rung: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(conversion, "_RUNGS", conversion._RUNGS[rung : rung + 1])
    network = Shifting()
    entry = convert(network, SHAPE, tmp_path, "a.onnx")
    opened, given = OnnxNetwork(tmp_path, entry, 1, 3), SHAPE.samples(5, (32, 48)).values()
    with torch.inference_mode():
        wanted = network(*map(torch.from_numpy, given)).numpy()
    np.testing.assert_allclose(opened(*given), wanted, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_row_that_became_a_constant_is_seen(place: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(conversion, "_RUNGS", conversion._RUNGS[:1])
    with pytest.raises(ValueError, match="probabilities that differ from torch's by up to"):
        convert(Shifting(place), SHAPE, tmp_path, "a.onnx")


# --- a server


def test_a_server_says_that_it_knows_of_nothing(
    make_seeing: Make,
    predict: Make,
    data: Path,
    zoo: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    uvicorn: Any = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from zoo.serve.metrics import Metrics
    from zoo.serve.workers import Limits, Workers

    zoo("export", make_seeing(tmp_path / "run"), "--out", tmp_path / "model")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    capsys.readouterr()
    forget()
    zoo("serve", tmp_path / "model", "--port", 0)
    assert capsys.readouterr().err.splitlines() == [
        "zoo: note: metadata: images come without age, sex: the networks are shown them as missing"
    ]
    # A table that lies where it was started is of other images.
    monkeypatch.chdir(data)
    workers = Workers(Exported.open(tmp_path / "model"), PredictOptions(), Limits(), Metrics())
    codes = json.loads(workers.answer((data / "P05.png").read_bytes(), "rle")[0])["masks"]
    assert capsys.readouterr().err == ""
    monkeypatch.chdir(tmp_path)
    (data / TABLE).unlink()
    store, _ = predict(tmp_path / "model", "nothing")
    zoo("fuse", store, "--method", "mean", "--out", tmp_path / "all.csv")
    lines = (tmp_path / "all.csv").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("P05")]
    assert line.split(",")[-1].strip('"') == codes["half"]["rle"] != ""
