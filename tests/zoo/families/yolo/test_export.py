"""YOLO runs as ONNX: they find what they find in torch, alone and fused with other networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("ultralytics")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import torch
from safetensors.torch import save_file

from converters.files.provenance import write_provenance
from converters.splits.split import Split
from fusion.metrics.scores import dice
from fusion.sources.store import PredictionStore
from zoo.export.description import DetectorEntry, read_description
from zoo.families.yolo.config import YoloConfig
from zoo.families.yolo.network import build_network

pytestmark = pytest.mark.slow

SMALL = {"depth": 0.33, "width": 0.125, "max_channels": 128, "imgsz": 64, "batch": 2}


def make_yolo(
    path: Path,
    labels_file: Path,
    classes: int,
    fold: tuple[Split, int] | None = None,
    **changes: Any,
) -> Path:
    """Write a run whose network has learned nothing, and finds something of every class."""
    keys = {"labels": str(labels_file), "device": "cpu", "conf": 0.0, **SMALL, **changes}
    torch.manual_seed(keys.pop("seed", 1))
    network = build_network(YoloConfig(**keys), classes)
    head: Any = network.model[-1]
    for branch in (head.cv3, head.cv4):
        for level in branch:
            torch.nn.init.normal_(level[-1].weight, std=0.1)
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"family": "yolo", **keys}))
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, path / "checkpoints/best.safetensors")
    if fold:
        split, number = fold
        split.save(path / "split.json")
        write_provenance(path, "test", {"fold": number}, 0, split.digest)
    return path


@pytest.fixture
def images(toys: Any) -> tuple[object, ...]:
    return ("--data", toys.folder, "--from", "images", "--subset", "test")


def compare(ours: Path, theirs: Path) -> int:
    """Make sure that two stores hold the same objects; return their number."""
    count = 0
    for found, wanted in zip(PredictionStore(ours), PredictionStore(theirs), strict=True):
        assert (found.key, found.kind) == (wanted.key, wanted.kind)
        assert set(found.masks) == set(wanted.masks)
        for label, evidence in wanted.masks.items():
            pairs = zip(found.masks[label], evidence, strict=True)
            for (score, mask), (expected, true) in pairs:
                assert score == pytest.approx(expected, abs=1e-4)
                pair = [m.binary(wanted.size_hw) for m in (mask, true)]
                assert dice(*pair) > 0.98, (found.key, label)
                count += 1
    return count


@pytest.mark.parametrize("model", ["yolov8n-seg.yaml", "yolo11n-seg.yaml", "yolo26n-seg.yaml"])
def test_an_exported_detector_finds_the_same(model, toys, images, zoo, tmp_path, capsys):
    run = make_yolo(tmp_path / "run", toys.labels_file, len(toys.labels), model=model)
    zoo("export", run, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "AGPL-3.0: Ultralytics yolo" in said
    (entry,) = read_description(tmp_path / "out").sources
    assert isinstance(entry, DetectorEntry)
    assert entry.imgsz == 64
    assert entry.licences[-1].licence == "AGPL-3.0"
    zoo("predict", run, *images, "--out", tmp_path / "torch")
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    assert PredictionStore(tmp_path / "onnx").manifest.kind == "instance"
    assert compare(tmp_path / "onnx", tmp_path / "torch") > 6


def test_options_that_detectors_lack(toys, images, zoo, tmp_path, capsys):
    run = make_yolo(tmp_path / "run", toys.labels_file, len(toys.labels))
    zoo("export", run, "--out", tmp_path / "out")
    for option in (("--size", "96"), ("--tta", "hflip"), ("--window", "64")):
        zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "a", *option, code=2)
        assert "the family 'yolo' predicts without" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_a_folder_that_says_another_number_of_values(toys, images, zoo, tmp_path, capsys):
    run = make_yolo(tmp_path / "run", toys.labels_file, len(toys.labels))
    zoo("export", run, "--out", tmp_path / "out")
    file = tmp_path / "out/model.json"
    file.write_text(file.read_text().replace('"prototypes": 32', '"prototypes": 31'))
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "a", code=2)
    assert "expected a network of image (?, 3, ?, ?) to detections" in capsys.readouterr().err


def test_a_detector_and_a_network_fused(make_run, cut_toys, toys, images, zoo, tmp_path):
    home = tmp_path / "work" / "runs"
    make_run(home / "net", seed=3)
    split, classes = cut_toys(3), len(toys.labels)
    folds = [
        make_yolo(home / "yolo" / f"fold-{n}", toys.labels_file, classes, fold=(split, n), seed=n)
        for n in range(2)
    ]
    rule = tmp_path / "work" / "fusion.yaml"
    rule.write_text(yaml.safe_dump({"method": "mean"}))
    zoo("export", tmp_path / "work", "--out", tmp_path / "out")
    description = read_description(tmp_path / "out")
    assert {(s.name, s.kind, len(s.networks)) for s in description.sources} == {
        ("net", "semantic", 1),
        ("yolo", "instance", len(folds)),
    }
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    for name in ("net", "yolo"):
        zoo("predict", home / name, *images, "--out", tmp_path / "stores" / name)
    stores = [tmp_path / "stores" / name for name in ("net", "yolo")]
    zoo("fuse", *stores, "--config", rule, "--format", "store", "--out", tmp_path / "torch")
    for found, wanted in zip(
        PredictionStore(tmp_path / "onnx"), PredictionStore(tmp_path / "torch"), strict=True
    ):
        window = (0, 0, *wanted.size_hw[::-1])
        for label, ((_, mask),) in wanted.masks.items():
            ours = found.masks[label][0][1].render(window)
            off = np.abs(ours.astype(int) - mask.render(window)) > 3
            assert off.mean() < 0.01, (found.key, label)
