"""Instance networks as ONNX: they find what they find in torch, alone and fused with others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import torch
from safetensors.torch import save_file
from without_torch import without_torch

from converters.files.provenance import write_provenance
from converters.splits.split import Split
from converters.types import LabelSpace
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.contract import PredictOptions
from zoo.data.reading import NetworkInput
from zoo.export.conversion import BoxShape, _unlikeness, convert_boxes
from zoo.export.description import FILE, BoxEntry, QueryEntry, read_description
from zoo.export.exported import Exported
from zoo.families import load_family
from zoo.inference.instances import predict_queries, to_prediction
from zoo.serve.metrics import Metrics
from zoo.serve.workers import Limits, Workers

pytestmark = pytest.mark.slow

NAMES = ("mask2former", "oneformer", "eomt", "rfdetr")
every = pytest.mark.parametrize("name", NAMES)
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make_run_of(configure: Make, toys: Any) -> Make:
    """Write a run whose network has learned nothing, and finds something."""

    def make(
        path: Path, name: str, seed: int = 0, fold: tuple[Split, int] | None = None, **changes: Any
    ) -> Path:
        config = configure(name, conf=0.0, device="cpu", seed=seed, **changes)
        torch.manual_seed(seed)
        network = load_family(name).build(config, len(toys.labels))
        (path / "checkpoints").mkdir(parents=True)
        keys = {"family": name, **config.model_dump(mode="json")}
        (path / "config.yaml").write_text(yaml.safe_dump(keys))
        load_family(name).describe(path, network)
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        save_file(weights, path / "checkpoints/best.safetensors")
        if fold:
            split, number = fold
            split.save(path / "split.json")
            write_provenance(path, "test", {"fold": number}, 0, split.digest)
        return path

    return make


@pytest.fixture
def images(toys: Any) -> tuple[object, ...]:
    return ("--data", toys.folder, "--from", "images", "--subset", "test")


def compare(ours: Prediction, theirs: Prediction) -> int:
    """Make sure that two predictions hold the same objects; return their number."""
    assert (ours.key, ours.kind, ours.size_hw) == (theirs.key, theirs.kind, theirs.size_hw)
    assert set(ours.masks) == set(theirs.masks)
    count = 0
    for label, evidence in theirs.masks.items():
        pairs = zip(ours.masks[label], evidence, strict=True)
        for (score, mask), (expected, true) in pairs:
            assert score == pytest.approx(expected, abs=1e-4)
            window = (0, 0, *theirs.size_hw[::-1])
            off = mask.render(window).astype(int) - true.render(window)
            assert np.abs(off).max() <= 3, (theirs.key, label)
            count += 1
    return count


def compare_stores(ours: Path, theirs: Path) -> int:
    pairs = zip(PredictionStore(ours), PredictionStore(theirs), strict=True)
    return sum(compare(*pair) for pair in pairs)


# --- the choice of instances


@pytest.mark.parametrize("once", [True, False])
@every
def test_arrays_find_what_tensors_find(
    build: Make, draw: Make, find: Make, label_file: Make, name: str, once: bool
) -> None:
    file = label_file(once=once)
    network, drawn = build(name, conf=0.0, labels=file).eval(), draw()
    labels = LabelSpace.load(file)
    found = find(network, drawn.images)
    with torch.no_grad():
        scores, masks = (part.numpy() for part in network.queries(drawn.images))
    assert any(found)
    for number, instances in enumerate(found):
        frame = NetworkInput(str(number), (90, 120), np.zeros((64, 96), np.uint8))
        theirs = to_prediction(frame, instances, labels)
        ours = predict_queries(frame, scores[number], masks[number], labels, 0.0)
        assert compare(ours, theirs) == sum(map(len, instances.values()))


# --- exported runs


@pytest.mark.parametrize(
    ("name", "further"),
    [
        *((name, {}) for name in NAMES),
        ("eomt", {"encoder": "dinov3"}),
        ("rfdetr", {"in_channels": 3}),
        ("maskrcnn", {}),
        ("maskrcnn", {"in_channels": 3}),
    ],
)
@pytest.mark.parametrize("once", [False, True])
def test_an_exported_network_finds_the_same(
    make_run_of: Make,
    label_file: Make,
    images: Any,
    zoo: Make,
    tmp_path: Path,
    capsys: Any,
    name: str,
    further: dict[str, Any],
    once: bool,
) -> None:
    labels = label_file(once=once, of_toys=True)
    run = make_run_of(tmp_path / "run", name, labels=labels, **further)
    zoo("export", run, "--out", tmp_path / "out", "--time", "1")
    told = capsys.readouterr().out
    number = "1" if name == "maskrcnn" else "any number"
    assert f"images of 96 x 64, {number} at a time" in told
    assert "threads: torch " in told
    found = read_description(tmp_path / "out")
    (entry,) = found.sources
    assert (entry.size, found.kind) == ((96, 64), "instance")
    if name == "maskrcnn":
        assert isinstance(entry, BoxEntry)
        assert (entry.boxes, entry.cells) == (9 if once else 100, 14)
    else:
        assert isinstance(entry, QueryEntry)
        assert (entry.queries, entry.conf) == (12, 0.0)
    assert found.difference < 1e-4
    zoo("predict", run, *images, "--out", tmp_path / "torch")
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    assert PredictionStore(tmp_path / "onnx").manifest.kind == "instance"
    assert compare_stores(tmp_path / "onnx", tmp_path / "torch") > 12


class Boxes(torch.nn.Module):
    """Finds twenty boxes, or none, by how bright an image is, and one of them elsewhere."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.boxes = torch.nn.Parameter(torch.rand(1, 40, 4) * 20)
        self.scores = torch.nn.Parameter((torch.arange(40) < count).float()[None] * 0.9)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zero = images.mean() * 0
        labels = torch.ones(1, 40) + zero
        return self.boxes + zero, self.scores + zero, labels, self.boxes[..., :1, None] / 20 + zero


def test_boxes_are_compared_with_their_likes(tmp_path: Path) -> None:
    shape = BoxShape(1, 2, (32, 48), 40, 1)
    for count in (20, 0):
        entry = convert_boxes(Boxes(count), shape, tmp_path, "a.onnx")
        assert (entry.batch, entry.size, entry.difference) == (1, (32, 48), 0)
    ours = [part.detach().numpy()[0] for part in Boxes(20)(torch.zeros(1, 1, 32, 48))]
    theirs = [part[::-1] for part in ours]
    assert _unlikeness(ours, theirs, 48).tolist() == [0.0] * 20
    # A box that only one side has is as far as can be from what the other one has.
    theirs[1] = np.where(np.arange(40) == 39, 0, theirs[1])
    assert (_unlikeness(ours, theirs, 48) > 1e-3).tolist() == [True] + [False] * 19
    other = [*ours[:2], ours[2] + 1, ours[3]]
    assert np.isinf(_unlikeness(ours, other, 48)).all()


def test_labels_that_are_no_class_are_refused(
    make_run_of: Make, images: Any, zoo: Make, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    run = make_run_of(tmp_path / "run", "maskrcnn")
    zoo("export", run, "--out", tmp_path / "model")
    monkeypatch.setattr("zoo.export.session.OnnxBoxes.run", beyond)
    zoo("predict", tmp_path / "model", *images, "--out", tmp_path / "a", code=2)
    assert "expected boxes in pixels with labels of 1 to 9, found others" in capsys.readouterr().err


def beyond(self: Any, values: Any) -> list[Any]:
    count = len(values)
    return [
        np.zeros((count, 9, 4), np.float32),
        np.ones((count, 9), np.float32),
        np.full((count, 9), 10, np.float32),
        np.zeros((count, 9, 14, 14), np.float32),
    ]


@pytest.fixture(scope="module")
def model(make_run_of: Make, zoo: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("queries")
    zoo("export", make_run_of(folder / "run", "eomt"), "--out", folder / "model")
    return folder / "model"


def test_no_torch_is_imported(model: Path, images: Any, zoo: Make, tmp_path: Path) -> None:
    done = without_torch("predict", model, *images, "--out", tmp_path / "apart")
    assert done.returncode == 0, done.stderr
    zoo("predict", model, *images, "--out", tmp_path / "here")
    assert compare_stores(tmp_path / "apart", tmp_path / "here") > 6


def test_options_that_such_networks_lack(
    model: Path, images: Any, zoo: Make, tmp_path: Path, capsys: Any
) -> None:
    for option in (("--tta", "hflip"), ("--window", "64"), ("--average", "logits")):
        zoo("predict", model, *images, "--out", tmp_path / "a", *option, code=2)
        assert "the family 'eomt' predicts without" in capsys.readouterr().err
    zoo("predict", model, *images, "--out", tmp_path / "a", "--size", "64", code=2)
    assert "exported for 96 x 64 pixels, asked for are 64 x 64" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    zoo("predict", model, *images, "--out", tmp_path / "a", "--size", "96x64", "--batch", "4")


def test_a_folder_that_says_another_number_of_queries(
    model: Path, images: Any, zoo: Make, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / FILE
    file.write_text(file.read_text().replace('"queries": 12', '"queries": 13'))
    zoo("predict", tmp_path / "model", *images, "--out", tmp_path / "a", code=2)
    assert "scores (2, 12, 9), expected (2, 13, 9)" in capsys.readouterr().err


def test_an_image_at_a_time(model: Path, toys: Any, tmp_path: Path) -> None:
    """What a server does, and networks whose file holds one image."""
    exported = Exported.open(model)
    at_once = list(exported.predict(toys.samples, PredictOptions(batch=len(toys.samples))))
    workers = Workers(exported, PredictOptions(), Limits(), Metrics())
    for sample, wanted in zip(toys.samples, at_once, strict=True):
        (alone,) = exported.predict([sample], PredictOptions())
        assert compare(alone, wanted) == len(wanted.masks) > 0
        found = json.loads(workers.answer(sample.image.read_bytes(), "coco")[0])
        assert found["images"][0]["width"] == sample.size_hw[1]
        assert len(found["annotations"]) <= len(wanted.masks)


def test_a_cross_validation_and_a_network_fused(
    make_run: Make,
    make_run_of: Make,
    cut_toys: Make,
    toys: Any,
    images: Any,
    zoo: Make,
    tmp_path: Path,
) -> None:
    home, split = tmp_path / "work" / "runs", cut_toys(3)
    make_run(home / "net", seed=3)
    for number in range(2):
        fold = split, number
        path = home / "finder" / f"fold-{number}"
        make_run_of(path, "rfdetr", seed=number, fold=fold, labels=str(toys.labels_file))
    rule = tmp_path / "work" / "fusion.yaml"
    rule.write_text(yaml.safe_dump({"method": "mean"}))
    zoo("export", tmp_path / "work", "--out", tmp_path / "out")
    found = read_description(tmp_path / "out")
    assert found.kind == "semantic"
    assert {(s.name, s.kind, len(s.networks)) for s in found.sources} == {
        ("net", "semantic", 1),
        ("finder", "queries", 2),
    }
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    stores = [tmp_path / "stores" / name for name in ("net", "finder")]
    for store in stores:
        zoo("predict", home / store.name, *images, "--out", store)
    zoo("fuse", *stores, "--config", rule, "--format", "store", "--out", tmp_path / "torch")
    pairs = zip(
        PredictionStore(tmp_path / "onnx"), PredictionStore(tmp_path / "torch"), strict=True
    )
    for ours, theirs in pairs:
        window = (0, 0, *theirs.size_hw[::-1])
        for label, ((_, mask),) in theirs.masks.items():
            seen = ours.masks[label][0][1].render(window)
            off = np.abs(seen.astype(int) - mask.render(window)) > 3
            assert off.mean() < 0.01, (ours.key, label)
