"""A refiner leaves with the runs whose answers it mends, and says what it says in torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import torch
from without_torch import without_torch

from converters.files.provenance import write_provenance
from converters.splits.split import Split
from fusion.sources.store import PredictionStore
from zoo.config import check_config
from zoo.export.conversion import RefinerShape, convert_refiner
from zoo.export.description import RefinerEntry, read_description
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.family import FAMILY
from zoo.families.refiner.network import ExportableRefiner, Refiner
from zoo.run_files.checkpoints import LAST, save_weights

pytestmark = pytest.mark.slow
WEIGHTED = {"method": "weighted", "sources": ["b", "a"], "weights": {"b": 3.0, "a": 1.0}}
MEAN = {"method": "mean", "sources": ["b", "a"]}
ALL = {"method": "mean", "sources": ["a", "refiner", "b"]}
Predict = Callable[..., dict[str, dict[str, np.ndarray]]]


def shake(network: Refiner, seed: int) -> Refiner:
    """Give a new network, which changes nothing, something to say, to each class another thing."""
    generator = torch.Generator().manual_seed(seed)
    classes = [] if network.classes is None else [network.classes.weight]
    with torch.no_grad():
        for weight in (network.answer.weight, *classes):
            weight.copy_(2 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def write_refiner(
    path: Path, toys: Any, rule: dict[str, Any], seed: int = 0, **changes: Any
) -> Path:
    """Write a run of random weights that mends what `a` and `b` say."""
    raw = {
        "labels": toys.labels.record(),
        "sources": ["val/b", "val/a"],
        "size": [32, 32],
        "width": 4,
        "epochs": 1,
        "batch": 3,
        "seed": seed,
        "device": "cpu",
    } | changes
    config = check_config(RefinerConfig, raw, "test")
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"family": "refiner", **raw}))
    (path / "start.yaml").write_text(yaml.safe_dump(rule))
    torch.manual_seed(seed)
    save_weights(shake(FAMILY.build(config, len(config.labels)), seed), path / LAST)
    return path


@pytest.fixture
def runs(make_run: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Two runs of random weights, of several sizes."""
    sizes = {"a": [96, 64], "b": [64, 64]}
    return [
        make_run(tmp_path / name, seed=seed, size=size)
        for seed, (name, size) in enumerate(sizes.items())
    ]


@pytest.fixture
def predict(toys: Any, zoo: Callable[..., None], tmp_path: Path) -> Predict:
    """Return a function: what a model says of the toys, as image -> class -> pixels."""

    def make(model: Path, name: str, *options: object) -> dict[str, dict[str, np.ndarray]]:
        out = tmp_path / "stores" / name
        images = ("--data", toys.folder, "--from", "images", "--subset", "test")
        zoo("predict", model, *images, "--out", out, *options)
        store = PredictionStore(out)
        names = store.label_space().names
        return {p.key: {n: p.binary(n).full(p.size_hw) for n in names} for p in store}

    return make


def count_unlike(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[int, int]:
    """Return how many pixels differ, and how many are set."""
    assert list(ours) == list(theirs)
    pairs = [(ours[key][n], theirs[key][n]) for key in theirs for n in theirs[key]]
    return sum(int((a != b).sum()) for a, b in pairs), sum(int(b.sum()) for _, b in pairs)


def check_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    unlike, pixels = count_unlike(ours, theirs)
    assert unlike <= pixels // 1000
    assert pixels > 1000


def predict_sources(predict: Predict, runs: Sequence[Path]) -> str:
    for run in runs:
        predict(run, run.name)
    # Stores lie where the fixture puts them.
    return ",".join(str(runs[0].parent / "stores" / run.name) for run in runs)


@pytest.mark.parametrize(
    "changes", [{}, {"inputs": ["image"], "in_channels": 3}, {"places": "crops"}]
)
def test_its_answer_is_that_of_torch(
    changes: dict[str, Any],
    runs: list[Path],
    toys: Any,
    predict: Predict,
    zoo: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refiner = write_refiner(tmp_path / "refiner", toys, WEIGHTED, **changes)
    zoo("export", *runs, refiner, "--out", tmp_path / "out", "--time", 1)
    told = capsys.readouterr()
    assert "taken: the answer of refiner, which mends what the others say" in told.out + told.err
    assert "network-2.onnx: refiner, patches of 32 x 32, any number at a time" in told.out
    sources = predict_sources(predict, runs)
    wanted = predict(refiner, "torch", "--sources", sources)
    check_same(predict(tmp_path / "out", "onnx"), wanted)
    # It did mend something.
    zoo("export", *runs, "--fusion", refiner / "start.yaml", "--out", tmp_path / "plain")
    unlike, pixels = count_unlike(predict(tmp_path / "plain", "plain"), wanted)
    assert unlike > pixels // 50


def test_a_fusion_hears_it_as_one_more_source(
    runs: list[Path], toys: Any, predict: Predict, zoo: Callable[..., None], tmp_path: Path
) -> None:
    refiner = write_refiner(tmp_path / "refiner", toys, MEAN)
    rule = tmp_path / "fusion.yaml"
    rule.write_text(yaml.safe_dump(ALL))
    out = tmp_path / "out"
    zoo("export", refiner, *runs, "--fusion", rule, "--out", out)
    sources = predict_sources(predict, runs)
    predict(refiner, "refiner", "--sources", sources)
    stores = [*sources.split(","), tmp_path / "stores" / "refiner"]
    zoo("fuse", *stores, "--config", rule, "--format", "store", "--out", tmp_path / "fused")
    store = PredictionStore(tmp_path / "fused")
    names = toys.labels.names
    wanted = {p.key: {n: p.binary(n).full(p.size_hw) for n in names} for p in store}
    check_same(predict(out, "onnx"), wanted)
    images = ("--data", toys.folder, "--from", "images", "--subset", "test")
    done = without_torch("predict", out, *images, "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr


def test_the_mean_of_folds_each_of_which_starts_from_its_own_rule(
    runs: list[Path],
    toys: Any,
    cut_toys: Callable[[int], Split],
    predict: Predict,
    zoo: Callable[..., None],
    tmp_path: Path,
) -> None:
    split = cut_toys(2)
    for fold, rule in enumerate((MEAN, WEIGHTED)):
        path = write_refiner(tmp_path / "cv" / f"fold-{fold}", toys, rule, seed=fold)
        split.save(path / "split.json")
        write_provenance(path, "test", {"fold": fold}, fold, split.digest)
    zoo("export", *runs, tmp_path / "cv", "--out", tmp_path / "out")
    (entry,) = read_description(tmp_path / "out").refiners
    assert isinstance(entry, RefinerEntry)
    assert (len(entry.networks), len({rule.sha256 for rule in entry.rules})) == (2, 2)
    sources = predict_sources(predict, runs)
    wanted = predict(tmp_path / "cv", "torch", "--sources", sources)
    check_same(predict(tmp_path / "out", "onnx"), wanted)


def test_what_it_mends_has_to_come_along(
    runs: list[Path],
    toys: Any,
    zoo: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refiner = write_refiner(tmp_path / "refiner", toys, MEAN)
    zoo("export", runs[0], refiner, "--out", tmp_path / "out", code=2)
    told = capsys.readouterr().err
    assert "the runs whose answers it mends beside it (b, a), found none of 'b'" in told
    assert not (tmp_path / "out").exists()
    shutil.copytree(runs[0], tmp_path / "c")
    zoo("export", *runs, tmp_path / "c", refiner, "--out", tmp_path / "out", code=2)
    told = capsys.readouterr().err
    assert "expected --fusion, or but the runs whose answers it mends (b, a), found 'c' too" in told
    assert not (tmp_path / "out").exists()


CHANGES: tuple[dict[str, Any], ...] = (
    {"sources": ["a"]},
    {"sources": ["a", "b", "b"]},
    {"sources": []},
    {"rules": []},
    {"size": [20, 32]},
    {"inputs": ["sources"]},
    {"places": "anywhere"},
)


def test_a_changed_description_is_refused(
    runs: list[Path],
    toys: Any,
    zoo: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refiner = write_refiner(tmp_path / "refiner", toys, MEAN)
    out = tmp_path / "out"
    zoo("export", *runs, refiner, "--out", out)
    raw = json.loads((out / "model.json").read_text())
    images = ("--data", toys.folder, "--from", "images", "--subset", "test")
    for change in CHANGES:
        *others, entry = raw["sources"]
        (out / "model.json").write_text(json.dumps(raw | {"sources": [*others, entry | change]}))
        capsys.readouterr()
        zoo("predict", out, *images, "--out", tmp_path / "store", code=2)
        assert len(capsys.readouterr().err.strip().splitlines()) == 1, change
        assert not (tmp_path / "store").exists()


def test_what_differs_is_refused(toys: Any, tmp_path: Path) -> None:
    raw = {"labels": toys.labels.record(), "sources": ["a", "b"], "size": [32, 32], "width": 4}
    raw |= {"epochs": 1, "batch": 1}
    config = check_config(RefinerConfig, raw, "test")
    network = ExportableRefiner(shake(Refiner(config, len(toys.labels)), 0))
    shape = RefinerShape(7, len(toys.labels), (32, 32))
    assert convert_refiner(network, shape, tmp_path, "good.onnx").difference < 1e-4
    with pytest.raises(ValueError, match=r"probabilities that differ from torch's by up to"):
        convert_refiner(network, shape, tmp_path, "bad.onnx", tolerance=1e-12)
