"""Soups: which runs go in, what their mean is, and that it is a run like any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import converters
from converters.files.provenance import PROVENANCE, read_provenance, write_provenance
from converters.splits.split import VERSION, Split
from converters.types import Sample
from fusion.sources.store import PredictionStore
from fusion.types import Prediction
from zoo.config import RunConfig, check_config, dump_config
from zoo.contract import PredictOptions
from zoo.data.batches import normalize
from zoo.data.items import SampleItems
from zoo.data.reading import resize_image
from zoo.families import load_family
from zoo.run_files.checkpoints import (
    BEST,
    LAST,
    find_weights,
    read_about,
    read_weights,
    write_weights,
)
from zoo.runs.batch_norms import has_statistics
from zoo.runs.predict import predict
from zoo.runs.run import Run
from zoo.runs.soup import Soup, Total, make_soup
from zoo.runs.table import read_run
from zoo.source import DataSource

pytestmark = pytest.mark.slow

CPU = PredictOptions(device="cpu")


class Shifting:
    """Predicts the truth, so many pixels to the right as its only weight says, rounded."""

    kind, Config = "semantic", RunConfig
    stops_after = -1

    def __init__(self, shift_truth: Callable[[Sample, int], Prediction]) -> None:
        self.shift_truth = shift_truth

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        shift = round(float(read_weights(find_weights(run))["shift"]))
        for sample in samples:
            if self.stops_after == 0:
                raise KeyboardInterrupt
            self.stops_after -= 1
            yield self.shift_truth(sample, shift)


@pytest.fixture(scope="module")
def data(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("soup") / "data"
    converters.write(toys.samples, folder, format="coco", labels=toys.labels)
    return DataSource.open(folder)


@pytest.fixture
def write_run(cut_toys: Callable[[int], Split], tmp_path: Path) -> Callable[..., Path]:
    """Write what `zoo train` leaves, with given weights."""

    def write(
        name: str, family: str, config: Any, weights: Any, fold: int | None = 0, cut: int = 2
    ) -> Path:
        path = tmp_path / name
        path.mkdir()
        split = cut_toys(cut)
        split.save(path / "split.json")
        (path / "config.yaml").write_text(f"family: {family}\n{dump_config(config)}")
        settings = {**config.model_dump(mode="json"), "fold": fold}
        write_provenance(path, ["zoo", "train"], settings, config.seed, split.digest)
        row = {"source": name, "licence": "MIT"}
        (path / "licences.json").write_text(json.dumps([{"source": "common"}, row]))
        write_weights(weights, path / BEST, {"epochs": "1", "license": "MIT"})
        return path

    return write


@pytest.fixture
def shifting(
    shift_truth: Callable[[Sample, int], Prediction], monkeypatch: pytest.MonkeyPatch
) -> Shifting:
    family = Shifting(shift_truth)
    monkeypatch.setattr("zoo.runs.run.load_family", lambda name: family)
    return family


@pytest.fixture
def write_shifts(toys: Any, write_run: Any, shifting: Any) -> Callable[..., list[Path]]:
    def write(*shifts: float) -> list[Path]:
        config = RunConfig(labels=str(toys.labels_file))
        return [
            write_run(f"run_{n}", "shifting", config, {"shift": torch.tensor(float(shift))})
            for n, shift in enumerate(shifts)
        ]

    return write


def noisy(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.01 * torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else value + seed
        for name, value in network.state_dict().items()
    }


# --- the mean


def test_the_mean_is_taken_in_float64_and_keeps_dtypes() -> None:
    generator = np.random.default_rng(0)
    values = [generator.normal(0, 10.0**n, (3, 5)).astype(np.float32) for n in (6, 0, -6)]
    values.append(-values[0])
    weights = [
        {
            "a": torch.from_numpy(value),
            "half": torch.from_numpy(value / 1e3).half(),
            "count": torch.tensor(n),
        }
        for n, value in enumerate(values)
    ]
    total = Total.of(weights[0])
    for more in weights[1:]:
        total = total.plus(more)
    found = total.mean()
    expected = np.mean([v.astype(np.float64) for v in values], axis=0).astype(np.float32)
    np.testing.assert_array_equal(found["a"].numpy(), expected)
    assert found["half"].dtype == torch.float16
    assert (found["count"].dtype, int(found["count"])) == (torch.int64, 0)


def test_the_mean_is_torchs_average_of_networks() -> None:
    networks = [nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)) for _ in range(3)]
    average = torch.optim.swa_utils.AveragedModel(networks[0], use_buffers=True)
    total = Total.of(networks[0].state_dict())
    average.update_parameters(networks[0])
    for network in networks[1:]:
        average.update_parameters(network)
        total = total.plus(network.state_dict())
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(total.mean()[name], value)


# --- which runs go in


@pytest.mark.parametrize(
    ("way", "shifts", "kept", "mean"),
    [
        ("greedy", (2, -3, 5, -1), (-1, 2), 0.5),
        ("uniform", (2, -3, 5, -1), (-1, 2, -3, 5), 0.75),
        ("greedy", (4, 4.2, 9), (4, 4.2), 4.1),  # the score stays as it is: kept
        ("greedy", (7, 1, 8), (1,), 1),  # nothing helps
        ("greedy", (4, -2, -1), (-1,), -1),  # -1.5 and 1.5 are rounded away from 0
    ],
)
def test_runs_that_do_not_lower_the_score_go_in(
    way: Any,
    shifts: tuple[float, ...],
    kept: tuple[float, ...],
    mean: float,
    write_shifts: Any,
    data: DataSource,
    tmp_path: Path,
) -> None:
    paths = write_shifts(*shifts)
    made = make_soup(paths, data, tmp_path / "soup", way=way)
    found = [Path(step.run).name for step in made.steps if step.is_kept]
    assert found == [f"run_{shifts.index(shift)}" for shift in kept]
    alone = [step.alone for step in made.steps]
    assert alone == sorted(alone, reverse=True)
    weight = read_weights(tmp_path / "soup" / BEST)["shift"]
    assert float(weight) == pytest.approx(mean)
    assert made.images == 2
    assert made.dice >= made.steps[0].alone or way == "uniform"


def test_a_soup_says_what_it_is_made_of(
    write_shifts: Any, data: DataSource, tmp_path: Path
) -> None:
    paths, out = write_shifts(2, -3, -1), tmp_path / "soup"
    seen: list[tuple[int, int, str]] = []
    made = make_soup(
        paths, data, out, command=["zoo", "soup"], report=lambda *step: seen.append(step)
    )
    assert seen[-1][:2] == (10, 10)  # three runs and two means, two images each
    record = read_provenance(out)
    assert (record["kind"], record["command"]) == ("soup", ["zoo", "soup"])
    assert [step["run"] for step in record["soup"]["steps"]] == [str(paths[n]) for n in (2, 0, 1)]
    assert record["soup"]["dice"] == made.dice == 1
    assert record["split"] == read_provenance(paths[0])["split"]
    licences = json.loads((out / "licences.json").read_text())
    assert [row["source"] for row in licences] == ["common", "run_2", "run_0", "run_1"]
    about = read_about(out / BEST)
    assert (about["soup"], about["license"], about["val_dice"]) == ("2", "MIT", "1.000000")
    told = read_run(out, "soup")
    assert (told.best, told.settings["fold"]) == (1.0, "0")
    lines = made.describe().splitlines()
    assert len(lines) == 5
    assert lines[1].endswith("kept")
    assert lines[3].endswith("left out")
    assert "2 of 3 runs: validation Dice 1.0000 on 2 images" in lines[4]
    names = {p.name for p in out.iterdir()}
    expected = {"config.yaml", "split.json", PROVENANCE, "licences.json", "metrics.csv"}
    assert names == expected | {"checkpoints"}
    assert {p.name for p in (out / "checkpoints").iterdir()} == {Path(BEST).name, Path(LAST).name}
    assert not list(tmp_path.glob("*.partial"))


def test_soups_go_into_soups(write_shifts: Any, data: DataSource, tmp_path: Path) -> None:
    paths = write_shifts(2, -1, -4)
    make_soup(paths[:2], data, tmp_path / "first")
    made = make_soup([tmp_path / "first", paths[2]], data, tmp_path / "second")
    assert [step.is_kept for step in made.steps] == [True, False]


# --- what is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fold": 1}, "the fold of .*first, 0, found 1: each has learned what the other held out"),
        ({"cut": 3}, "the split of .*: each has learned what the other held out"),
        ({"fold": None}, "expected a run with split.json and a fold"),
        ({"config": {"architecture": "fpn", "options": {}}}, "'architecture' 'unet', found 'fpn'"),
        ({"config": {"encoder": "tu-lcnet_050"}}, "'encoder' 'tu-lcnet_035', found 'tu-lcnet_050'"),
        ({"weights": {"a": torch.zeros(3)}}, r"'a': expected \(2,\), found \(3,\)"),
        ({"weights": {"b": torch.zeros(2)}}, "'a' is missing"),
        ({"family": "segformer"}, "'family' 'smp', found 'segformer'"),
    ],
)
def test_runs_that_do_not_go_together(
    change: Any, said: str, write_run: Any, tiny_smp: Any, data: DataSource, tmp_path: Path
) -> None:
    weights = {"a": torch.zeros(2)}
    first = write_run("first", "smp", tiny_smp(), weights)
    config = tiny_smp(**change.pop("config", {}))
    if change.get("family") == "segformer":
        config = check_config(load_family("segformer").Config, SEGFORMER | _common(config), "test")
    given = {"family": "smp", "config": config, "weights": weights} | change
    second = write_run("second", **given)
    with pytest.raises(ValueError, match=said):
        make_soup([first, second], data, tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_other_dimensions_of_a_pretrained_network_are_named(
    write_shifts: Any, data: DataSource, tmp_path: Path
) -> None:
    paths = write_shifts(1, 2)
    for path, strides, version in zip(paths, ([4, 2], [2, 2]), "12", strict=True):
        record = {"strides": strides, "transformers_version": version, "_name_or_path": version}
        (path / "network.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"'network.json: strides' \[4, 2\], found \[2, 2\]"):
        make_soup(paths, data, tmp_path / "soup")


def test_what_is_no_soup_is_refused(
    write_shifts: Any, data: DataSource, tmp_path: Path, shifting: Shifting
) -> None:
    first, second = write_shifts(1, 2)
    with pytest.raises(ValueError, match="expected at least 2 runs, found 1"):
        make_soup([first], data, tmp_path / "soup")
    with pytest.raises(ValueError, match="expected each run once, found it twice"):
        make_soup([first, second, first / "."], data, tmp_path / "soup")
    with pytest.raises(ValueError, match="--norms anew: expected one of mean, recompute"):
        make_soup([first, second], data, tmp_path / "soup", norms="anew")  # type: ignore[arg-type]
    for word in ("recompute", "again"):
        with pytest.raises(ValueError, match=f"--norms {word}: the family 'shifting' learns from"):
            make_soup([first, second], data, tmp_path / "soup", norms=word)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a result of 'soup' to replace"):
        make_soup([first, second], data, first)
    (second / BEST).unlink()
    with pytest.raises(ValueError, match="train the run first"):
        make_soup([first, second], data, tmp_path / "soup")
    # Nothing was predicted in vain.
    assert shifting.stops_after == -1


def test_a_split_that_was_exchanged_is_refused(
    write_shifts: Any, data: DataSource, tmp_path: Path
) -> None:
    paths = write_shifts(1, 2)
    split = Split.load(paths[1] / "split.json")
    Split(VERSION, 1, "given", split.folds, split.groups).save(paths[1] / "split.json")
    with pytest.raises(ValueError, match=r"split\.json is not the one that the run learned with"):
        make_soup(paths, data, tmp_path / "soup")


@pytest.mark.parametrize("images", [1, 5, 8])
def test_a_stopped_soup_leaves_what_was_there(
    images: int, write_shifts: Any, data: DataSource, tmp_path: Path, shifting: Shifting
) -> None:
    paths, out = write_shifts(2, -1, -4), tmp_path / "soup"
    for has_before in (False, True):
        if has_before:
            make_soup(paths[:2], data, out)
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
        shifting.stops_after = images
        with pytest.raises(KeyboardInterrupt):
            make_soup(paths, data, out)
        shifting.stops_after = -1
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
        assert out.exists() == has_before
        assert not list(tmp_path.glob("soup.*"))


# --- families

SEGFORMER: dict[str, Any] = {
    "network": {
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
    },
}


def _common(config: Any) -> dict[str, Any]:
    return {key: getattr(config, key) for key in ("labels", "size", "epochs", "batch")}


@pytest.fixture
def tiny(tiny_smp: Any) -> Callable[[str], Any]:
    def make(family: str) -> Any:
        if family == "smp":
            return tiny_smp()
        special: dict[str, Any] = {
            "segformer": SEGFORMER,
            "maskrcnn": {
                "architecture": "maskrcnn_resnet50_fpn",
                "backbone": "resnet18",
                "channels": 8,
                "hidden": 8,
                "mask_cells": 8,
            },
        }
        if family == "yolo":
            raw = {"labels": tiny_smp().labels, "imgsz": 64, "batch": 2, "epochs": 1}
            raw |= {"model": "yolov8n-seg.yaml", "depth": 0.3, "width": 0.1}
        else:
            raw = special[family] | _common(tiny_smp())
        return check_config(load_family(family).Config, raw, "test")

    return make


def _network(family: str, config: Any, classes: int) -> nn.Module:
    torch.manual_seed(0)
    if family == "yolo":
        from zoo.families.yolo.network import build_network

        return build_network(config, classes)
    network: nn.Module = load_family(family).build(config, classes)  # type: ignore[attr-defined]
    return network


@pytest.mark.parametrize("family", ["smp", "segformer", "maskrcnn", "yolo"])
def test_the_mean_predicts_in_every_kind_of_family(
    family: str, write_run: Any, tiny: Any, toys: Any, data: DataSource, tmp_path: Path
) -> None:
    config = tiny(family)
    network = _network(family, config, len(toys.labels))
    paths = [write_run(f"run_{n}", family, config, noisy(network, n)) for n in (1, 2)]
    if family == "segformer":
        for path in paths:
            load_family(family).describe(path, network)  # type: ignore[attr-defined]
    out = tmp_path / "soup"
    made = make_soup(paths, data, out, way="uniform", options=CPU)
    best = read_weights(Path(made.steps[0].run) / BEST)
    other = read_weights(Path(made.steps[1].run) / BEST)
    for name, value in read_weights(out / BEST).items():
        expected = best[name]
        if value.is_floating_point():
            expected = ((best[name].double() + other[name].double()) / 2).to(value.dtype)
        assert torch.equal(value, expected), name
    manifest = predict(
        *(Run.load(out), data, tmp_path / "store"),
        subset="val",
        options=CPU,
        command=[],
        report=lambda done, total, note: None,
    )
    assert list(manifest.images) == [sample.key for sample in toys.samples[:2]]
    assert manifest.fold == 0
    assert len(list(PredictionStore(tmp_path / "store"))) == 2


def test_statistics_of_batch_norms_are_those_of_the_mean(
    write_run: Any, tiny_smp: Any, toys: Any, data: DataSource, tmp_path: Path
) -> None:
    config = tiny_smp(augment=[], batch=4)
    network = _network("smp", config, len(toys.labels))
    paths = [write_run(f"run_{n}", "smp", config, noisy(network, n)) for n in (1, 2)]
    out = tmp_path / "soup"
    made = make_soup(paths, data, out, way="uniform", norms="recompute", options=CPU)
    assert made.norms == "recompute"
    found = read_weights(out / BEST)
    network.load_state_dict(found)
    name, norm = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d))
    given: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach()))
    # The images that the runs have not held out.
    items = SampleItems(toys.samples[2:], toys.labels)
    images = [torch.from_numpy(resize_image(items[i].image, config.size)) for i in range(4)]
    with torch.no_grad():
        network.train()(normalize(torch.stack(images)[:, None]))
    mean, variance = given[0].mean((0, 2, 3)), given[0].var((0, 2, 3))
    torch.testing.assert_close(found[f"{name}.running_mean"], mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[f"{name}.running_var"], variance, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.SyncBatchNorm(3), True),
        (nn.BatchNorm2d(3, track_running_stats=False), False),
        (nn.GroupNorm(1, 3), False),
        (nn.InstanceNorm2d(3, track_running_stats=True), False),  # update_bn passes it over
    ],
)
def test_which_norms_keep_statistics(norm: nn.Module, expected: bool) -> None:
    assert has_statistics(nn.Sequential(nn.Conv2d(1, 3, 1), norm)) == expected


def test_training_leaves_a_soup_alone(
    write_run: Any, tiny_smp: Any, toys: Any, data: DataSource, tmp_path: Path, make_job: Any
) -> None:
    config = tiny_smp()
    network = _network("smp", config, len(toys.labels))
    paths = [write_run(f"run_{n}", "smp", config, noisy(network, n)) for n in (1, 2)]
    make_soup(paths, data, tmp_path / "soup", options=CPU)
    before = (tmp_path / "soup" / BEST).read_bytes()
    load_family("smp").train(config, make_job("soup"))
    assert (tmp_path / "soup" / BEST).read_bytes() == before


def test_the_command(
    zoo: Callable[..., None],
    write_shifts: Any,
    data: DataSource,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths, out = write_shifts(2, -3, -1), tmp_path / "soup"
    given = ("soup", *paths, "--data", data.path, "--device", "cpu")
    zoo(*given, "--out", out)
    assert "greedy soup of 2 of 3 runs: validation Dice 1.0000" in capsys.readouterr().out
    zoo(*given, "--uniform", "--out", paths[0], code=2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_table_of_a_soup_that_gains_nothing(
    write_shifts: Any, data: DataSource, tmp_path: Path
) -> None:
    made: Soup = make_soup(write_shifts(0, 9), data, tmp_path / "soup")
    assert made.describe().splitlines()[-1] == (
        "nothing was gained by averaging: the soup is the best run"
    )
