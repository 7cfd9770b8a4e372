"""Exported models predict as their runs do, without torch, and broken ones are refused."""

from __future__ import annotations

import json
import shutil
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

from converters.files.provenance import read_provenance
from fusion.metrics.scores import dice
from fusion.sources.store import PredictionStore
from zoo.export import command, conversion
from zoo.export.conversion import (
    NetworkShape,
    QueryShape,
    convert,
    convert_queries,
    sample_images,
)
from zoo.export.description import FILE, digest_of, is_exported, read_description
from zoo.export.session import OnnxNetwork
from zoo.inference.arrays import activate

pytestmark = pytest.mark.slow


def masks_of(path):
    store = PredictionStore(path)
    labels = store.label_space()
    return {p.key: {n: p.binary(n) for n in labels.names} for p in store}


def check_same(ours: Path, theirs: Path) -> None:
    found, wanted = masks_of(ours), masks_of(theirs)
    assert list(found) == list(wanted)
    areas = 0
    for key, masks in wanted.items():
        for label, mask in masks.items():
            assert dice(found[key][label], mask) > 0.999, (key, label)
            areas += mask.area > 100
    # Of nothing all are alike.
    assert areas > len(wanted)


@pytest.fixture
def run(exported: tuple[Path, Path]) -> Path:
    return exported[0]


@pytest.fixture
def model(exported: tuple[Path, Path]) -> Path:
    return exported[1]


@pytest.fixture
def images(toys: Any) -> tuple[object, ...]:
    return ("--data", toys.folder, "--from", "images", "--subset", "test")


def test_what_a_folder_says_of_itself(model, run, toys):
    found = read_description(model)
    assert is_exported(model)
    assert not is_exported(run)
    assert found.labels == toys.labels
    assert found.opset == conversion.OPSET
    assert 0 < found.difference < found.tolerance == 1e-3
    (source,) = found.sources
    assert (source.name, source.family, source.size, source.channels) == (
        "alone",
        "smp",
        (64, 64),
        1,
    )
    assert (source.fold, len(source.split)) == (1, 64)
    (network,) = source.networks
    assert network.sha256 == digest_of((model / network.file).read_bytes())
    assert (network.batch, network.size) == (None, None)
    assert [entry.version for entry in onnx.load(model / network.file).opset_import] == [18]
    assert {path.name for path in model.iterdir()} == {FILE, network.file, "provenance.json"}


def test_nothing_tells_where_or_of_whom_it_was_made(model, run, toys):
    text = (model / FILE).read_text() + json.dumps(read_provenance(model))
    assert "own.safetensors" in text
    for secret in ("somebody", str(run.parent), toys.samples[0].key):
        assert secret not in text


def test_the_screen_says_how_near_it_is(run, zoo, tmp_path, capsys):
    zoo("export", run, "--out", tmp_path / "out", "--time", 2)
    told = capsys.readouterr().out
    assert "1 network, ONNX opset 18; largest difference of a probability from torch's " in told
    assert "images of any size, any number at a time" in told
    assert "not for commercial use: own.safetensors (CC-BY-NC-4.0)" in told
    assert "threads: torch " in told


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--tta", "hflip,scale:1.5", "--average", "logits"),
        ("--window", "64", "--overlap", "0.25", "--batch", "3"),
        ("--size", "96x64"),
    ],
    ids=["plain", "forms", "windows", "size"],
)
def test_the_store_is_that_of_torch(options, model, run, images, zoo, tmp_path):
    zoo("predict", run, *images, "--out", tmp_path / "torch", *options)
    zoo("predict", model, *images, "--out", tmp_path / "onnx", *options)
    check_same(tmp_path / "onnx", tmp_path / "torch")
    ours, theirs = (PredictionStore(tmp_path / name).manifest for name in ("onnx", "torch"))
    for name in ("images", "space", "split", "fold", "subset", "kind"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_no_torch_is_imported(model, run, images, zoo, tmp_path):
    done = without_torch("predict", model, *images, "--out", tmp_path / "onnx", "--tta", "hflip")
    assert done.returncode == 0, done.stderr
    zoo("predict", run, *images, "--out", tmp_path / "torch", "--tta", "hflip")
    check_same(tmp_path / "onnx", tmp_path / "torch")


def test_one_label_a_pixel_in_colour(make_run, images, toys, zoo, tmp_path):
    labels = {**toys.labels.record(), "exclusive": "large_first"}
    path = make_run(tmp_path / "run", labels=labels, in_channels=3, window=[32, 64], size=[96, 64])
    zoo("export", path, "--out", tmp_path / "out")
    zoo("predict", path, *images, "--out", tmp_path / "torch")
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    check_same(tmp_path / "onnx", tmp_path / "torch")


def test_the_mean_of_all_folds(make_run, cut_toys, images, zoo, tmp_path):
    split = cut_toys(3)
    for fold in range(2):
        make_run(tmp_path / "cv" / f"fold-{fold}", seed=fold, split=split, fold=fold)
    zoo("export", tmp_path / "cv", "--out", tmp_path / "out")
    (source,) = read_description(tmp_path / "out").sources
    assert (source.name, len(source.networks), source.fold) == ("cv", 2, None)
    zoo("predict", tmp_path / "cv", *images, "--out", tmp_path / "torch")
    zoo("predict", tmp_path / "out", *images, "--out", tmp_path / "onnx")
    check_same(tmp_path / "onnx", tmp_path / "torch")


def test_an_ensemble_with_its_fusion(make_run, images, zoo, tmp_path):
    runs = [
        make_run(tmp_path / "work" / "runs" / name, seed=seed, size=size)
        for seed, (name, size) in enumerate({"b": [64, 64], "a": [96, 64]}.items())
    ]
    rule = tmp_path / "work" / "fusion.yaml"
    rule.write_text(yaml.safe_dump({"method": "weighted", "sources": ["b", "a"], **WEIGHTS}))
    zoo("export", tmp_path / "work", "--out", tmp_path / "out")
    assert {s.name for s in read_description(tmp_path / "out").sources} == {"a", "b"}
    for path in runs:
        zoo("predict", path, *images, "--out", path / "test")
    stores = [path / "test" for path in runs]
    wanted, found = tmp_path / "torch", tmp_path / "onnx"
    zoo("fuse", *stores, "--config", rule, "--format", "store", "--out", wanted)
    zoo("predict", tmp_path / "out", *images, "--out", found)
    check_same(found, wanted)


WEIGHTS = {"weights": {"b": 3.0, "a": 1.0}}


def test_single_objects_together_are_the_masks(model, run, images, toys, zoo, tmp_path, capsys):
    zoo("predict", model, *images, "--out", tmp_path / "masks")
    zoo("predict", model, *images, "--out", tmp_path / "objects", "--objects")
    pair = [PredictionStore(tmp_path / name) for name in ("masks", "objects")]
    assert [store.manifest.kind for store in pair] == ["semantic", "instance"]
    several = 0
    for whole, apart in zip(*pair, strict=True):
        for label in whole.masks:
            mask = whole.binary(label).full(whole.size_hw)
            objects = [m.binary(whole.size_hw) for _, m in apart.masks.get(label, ())]
            several += len(objects) > 1
            assert np.array_equal(sum(o.full(whole.size_hw) for o in objects), mask)
    assert several
    zoo("predict", run, *images, "--out", tmp_path / "no", "--objects", code=2)
    assert "--objects: expected an exported model" in capsys.readouterr().err


# --- refusals


def test_several_runs_need_a_rule(run, zoo, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "other")
    zoo("export", run, tmp_path / "other", "--out", tmp_path / "out", code=2)
    assert "expected --fusion with several runs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_said(run, zoo, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(command, "_EXPORTABLE", ())
        zoo("export", run, "--out", tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert "found the family 'smp'" in error
    assert len(error.splitlines()) == 1
    zoo("export", run, "--to", "tflite", "--out", tmp_path / "out", code=2)
    assert "expected onnx" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_a_network_that_differs(run, zoo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conversion, "_RUNGS", conversion._RUNGS[:1])
    zoo("export", run, "--out", tmp_path / "out", "--tolerance", "1e-12", code=2)
    error = capsys.readouterr().err
    assert "probabilities that differ from torch's by up to" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_asked_for_by_name_is_not_exchanged(model, images, zoo, tmp_path, capsys):
    data, out = images[:2], ("--out", tmp_path / "store")
    zoo("predict", model, *data, "--subset", "val", *out, "--from", "handbone", code=2)
    assert "expected --subset test or all, found val" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("subset", ["val", "train"])
def test_folds_are_not_known(subset, model, toys, zoo, tmp_path, capsys):
    from zoo.contract import PredictOptions
    from zoo.export.predict import predict_exported
    from zoo.source import DataSource

    data = DataSource.open(toys.folder, "images")
    with pytest.raises(ValueError, match="expected --subset test or all, found"):
        predict_exported(
            model,
            data,
            tmp_path / "out",
            subset=subset,
            options=PredictOptions(),
            command=(),
            report=lambda done, total, note: None,
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--metadata", "t.csv"), "metadata: the family 'exported' predicts without"),
        (("--device", "tpu"), "device 'tpu': an exported model computes on the cpu"),
        (("--size", "50"), "multiples of 32, asked for are 50 x 50"),
        (("--compare", "hflip"), "expected --out STORE for an exported model"),
    ],
)
def test_options_that_it_lacks(options, expected, model, images, zoo, tmp_path, capsys):
    zoo("predict", model, *images, "--out", tmp_path / "out", *options, code=2)
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1


def spoil_network(folder):
    path = folder / "network-0.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def drop_network(folder):
    (folder / "network-0.onnx").unlink()


def spoil_json(folder):
    (folder / FILE).write_text("{")


def change(**changes):
    def do(folder):
        record = json.loads((folder / FILE).read_text())
        source = record["sources"][0]
        network = source["networks"][0]
        for key, value in changes.items():
            next(part for part in (network, source, record) if key in part)[key] = value
        (folder / FILE).write_text(json.dumps(record))

    return do


def rewrite(edit):
    """Change the ONNX file, and the digest with it, as somebody who means ill would."""

    def do(folder):
        path = folder / "network-0.onnx"
        model = onnx.load(path)
        edit(model)
        path.write_bytes(model.SerializeToString())
        change(sha256=digest_of(path.read_bytes()))(folder)

    return do


def weights_elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")


def foreign_operator(model):
    model.graph.node[0].domain = "com.somebody"
    model.opset_import.add(domain="com.somebody", version=1)


def unknown_operator(model):
    model.graph.node[0].op_type = "RunShell"


def no_model(folder):
    (folder / "network-0.onnx").write_bytes(b"no model")
    change(sha256=digest_of(b"no model"))(folder)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_network, "network-0.onnx: expected the file that was exported, found another"),
        (drop_network, "network-0.onnx: expected the file that model.json names, found: No such"),
        (spoil_json, "model.json: expected the description of an exported model"),
        (change(format="other"), "model.json: expected 'format': 'maskzoo-export'"),
        (change(file="../../etc/passwd"), "model.json"),
        (change(labels="hand_bones"), "expected a label space, with all that it has"),
        (change(channels=3), "mean, deviation: expected"),
        (change(fold="one"), "model.json"),
        (rewrite(weights_elsewhere), "expected weights inside the file"),
        (rewrite(foreign_operator), "expected ONNX's own operators, found those of"),
        (rewrite(unknown_operator), "expected an ONNX network that onnxruntime"),
        (no_model, "expected an ONNX file"),
    ],
)
def test_a_broken_folder(spoil, expected, model, images, zoo, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    spoil(folder)
    zoo("predict", folder, *images, "--out", tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# --- conversion


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, 2, 1)

    def forward(self, images):
        return self.conv(images)


class OfItsSize(Plain):
    """Adds a number of its own to each place, as networks with embedded places do."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 3, 16, 24))

    def forward(self, images):
        return super().forward(images) + self.place


class Frozen(Plain):
    """Its number of cells is no tensor: a tracer takes it for a constant."""

    def forward(self, images):
        cells = int(np.prod([int(side) for side in images.shape[-2:]]))
        return super().forward(images) * (cells / 1536 * 3)


SHAPE = NetworkShape(1, 3, (32, 48), 32, "sigmoid")


@pytest.mark.parametrize(
    ("network", "size"), [(Plain(), None), (OfItsSize(), (32, 48)), (Frozen(), (32, 48))]
)
def test_sizes_that_a_network_takes(network, size, tmp_path):
    entry = convert(network, SHAPE, tmp_path, "a.onnx")
    assert (entry.size, entry.batch) == (size, None)
    opened = OnnxNetwork(tmp_path, entry, 1, 3)
    images = sample_images(SHAPE, 4, (32, 48))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(opened(images), wanted, atol=1e-5)
    if size:
        with pytest.raises(ValueError, match="expected a network for images of 64 x 64 pixels"):
            opened(sample_images(SHAPE, 1, (64, 64)))


def test_networks_of_one_image_at_a_time(tmp_path):
    entry = convert(Plain(), SHAPE, tmp_path, "a.onnx")
    opened = OnnxNetwork(tmp_path, entry, 1, 3)
    one = OnnxNetwork(tmp_path, entry.model_copy(update={"batch": 2}), 1, 3)
    images = sample_images(SHAPE, 5, (32, 48))
    np.testing.assert_allclose(one(images), opened(images), atol=1e-6)


class Asking(Plain):
    """Each channel of its masks is a query of two classes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 40, 3, 2, 1)
        self.extra = torch.zeros(1, 40, 1, 1)

    def forward(self, images):
        masks = self.conv(images) + self.extra
        means = masks.mean((2, 3)).sigmoid()
        return torch.stack([means, 1 - means], 2), masks


@pytest.mark.parametrize(("off", "is_alike"), [(0, True), (2, True), (3, False)])
def test_of_twenty_queries_one_may_differ(off, is_alike, tmp_path):
    network, shape = Asking(), QueryShape(1, 2, (32, 48), 40)
    entry = convert_queries(network, shape, tmp_path, "a.onnx")
    assert (entry.size, entry.batch) == ((32, 48), None)
    network.extra[:, :off] = 1
    difference = conversion._compare_queries(network, shape, tmp_path, entry)
    assert (difference < 1e-5) is is_alike
    network.extra[:, :off] = torch.nan
    difference = conversion._compare_queries(network, shape, tmp_path, entry)
    assert (difference == float("inf")) is not is_alike


def test_probabilities_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "_RUNGS", conversion._RUNGS[:1])
    monkeypatch.setattr(conversion, "activate", lambda values, kind: activate(values * 0, kind))
    assert convert(Plain(), SHAPE, tmp_path, "a.onnx").difference == 0
    monkeypatch.setattr(conversion, "activate", lambda values, kind: values * np.nan)
    with pytest.raises(ValueError, match="differ from torch's by up to inf"):
        convert(Plain(), SHAPE, tmp_path, "b.onnx")
