"""The command, and small data sets: overlapping rectangles to train on, and moved hands."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import box

import converters
from converters.masks import crop, encode_rle, rasterize, rasterize_labels, union
from converters.splits.split import VERSION, Split
from converters.types import Instance, LabelSpace, Sample
from fusion.sources import submission
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.contract import TrainJob

HEIGHT, WIDTH = 96, 64
# Nine classes: two bytes a pixel.
NAMES = ("sheet", *(f"tile-{i}" for i in range(1, 9)))
TINY_SMP = {
    "size": [64, 64],
    "epochs": 1,
    "batch": 2,
    "encoder": "tu-lcnet_035",
    "options": {"decoder_channels": [16, 16, 8, 8, 8]},
}
# So much surer than a network that has learned nothing.
SURE = 30


@dataclass(frozen=True)
class Toys:
    labels: LabelSpace
    labels_file: Path
    folder: Path
    samples: tuple[Sample, ...]


def _draw(folder: Path, number: int) -> Sample:
    """A sheet over most of the image, with eight tiles that lie on it: every tile overlaps it."""
    generator = np.random.default_rng(number)
    left, top = generator.integers(2, 8, 2).tolist()
    outlines = [box(left, top, left + 48, top + 80)]
    for i in range(8):
        x, y = left + 4 + 22 * (i % 2), top + 4 + 19 * (i // 2)
        outlines.append(box(x, y, x + 16, y + 13))
    image = generator.normal(40, 4, (HEIGHT, WIDTH))
    for i, outline in enumerate(outlines):
        x0, y0, x1, y1 = map(int, outline.bounds)
        image[y0 : y1 + 1, x0 : x1 + 1] += 25 if i == 0 else 15 * i
    path = folder / f"toy_{number}_L.png"
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
    instances = tuple(Instance(n, o) for n, o in zip(NAMES, outlines, strict=True))
    return Sample(path.stem, path, (HEIGHT, WIDTH), instances, group=str(number // 2))


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    folder = tmp_path_factory.mktemp("toys")
    labels_file = folder / "toys.yaml"
    labels_file.write_text(yaml.safe_dump({"name": "toys", "names": list(NAMES)}))
    samples = tuple(_draw(folder, i) for i in range(6))
    return Toys(LabelSpace.load(str(labels_file)), labels_file, folder, samples)


@pytest.fixture(scope="session", autouse=True)
def _one_precision() -> Iterator[None]:
    """Compute in float32 on every processor, but where a test asks for another precision.

    What is computed in this process is compared to its last digits.
    """
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torch"):
            patch.setattr("zoo.machine.devices.multiplies_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A system's Chromium without a window, moved by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("expected a browser named chromium, found none: pages are not tested")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def zoo() -> Callable[..., None]:
    """Return a function: run the command, expect an exit code."""
    from zoo.cli import main

    def run(*arguments: object, code: int = 0) -> None:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        assert (stop.value.code or 0) == code

    return run


@pytest.fixture(scope="session")
def shift_truth() -> Callable[[Sample, int], Prediction]:
    """Return a function: a sample's truth, so many pixels to the right, as a prediction."""

    def shift(sample: Sample, shift_px: int) -> Prediction:
        masks = {}
        for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
            box = (mask.x + shift_px, *mask.box_xywh[1:])
            masks[name] = ((1.0, SoftMask(box, mask.pixels * np.uint8(255))),)
        return Prediction(sample.key, sample.size_hw, "semantic", masks)

    return shift


# Image -> where its true cells of 20 x 20 px begin; of the first they touch each other.
CELLS = {"row_1": (10, 30, 50, 70), "two_2": (10, 60), "two_3": (20, 70)}
CELLS_HW = (40, 120)


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` (COCO), and two stores of the same pixels: `apart` knows the cells, `plain` does not.

    On `row_1` they have all pixels, on `two_2` they lie 5 px beside the truth.
    """
    root = tmp_path_factory.mktemp("cells")
    labels, samples = LabelSpace("cells", ("cell",)), []
    for key, lefts in CELLS.items():
        cv2.imwrite(str(root / f"{key}.png"), np.full(CELLS_HW, 90, np.uint8))
        drawn = [Instance("cell", box(left, 10, left + 19, 29)) for left in lefts]
        samples.append(Sample(key, root / f"{key}.png", CELLS_HW, drawn))
    converters.write(samples, root / "data", format="coco", labels=labels)
    read = converters.read(root / "data")
    images = {sample.key: (*CELLS_HW, sample.file_name) for sample in read}
    for name, kind in (("apart", "instance"), ("plain", "semantic")):
        manifest = Manifest(kind, "cells", labels.names, images, space=labels)
        with StoreWriter(root / name, manifest) as writer:
            for sample in read:
                moved = 5 if sample.file_name == "two_2.png" else 0
                masks = [rasterize(one.geometry, CELLS_HW) for one in sample.instances]
                masks = masks if kind == "instance" else [reduce(union, masks)]
                found = [
                    (0.9, SoftMask((m.x + moved, *m.box_xywh[1:]), m.pixels * np.uint8(255)))
                    for m in masks
                ]
                writer.append(Prediction(sample.key, CELLS_HW, kind, {"cell": tuple(found)}))
    return root


@pytest.fixture(scope="session")
def cut_toys(toys: Toys) -> Callable[[int], Split]:
    """Return a function: a split of the toys into the first so many, and the others."""
    keys = tuple(sample.key for sample in toys.samples)

    def cut(at: int) -> Split:
        return Split(VERSION, 0, "given", (keys[:at], keys[at:]), {key: key for key in keys})

    return cut


@pytest.fixture(scope="session")
def write_hands(
    zoo: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a function: write phantom hands, and submissions of their truth moved downward.

    It takes the number of patients with hidden truth, and the pixels that each submission is moved
    by; `data` and the submissions `NAME.csv` lie in the folder that it returns.
    """
    from zoo.source import DataSource

    def write(test_people: int, **shifts_px: int) -> Path:
        folder = tmp_path_factory.mktemp("hands")
        people = ("--people", 1, "--test-people", test_people)
        zoo("phantom", folder / "data", *people, "--size", 256)
        found = DataSource.open(folder / "data").annotated(LabelSpace.load("hand_bones"), "test")
        for name, shift_px in shifts_px.items():
            rows = []
            for sample in found.values():
                for label, mask in rasterize_labels(sample.instances, sample.size_hw).items():
                    moved = crop(np.roll(mask.full(sample.size_hw), shift_px, axis=0))
                    code = encode_rle(moved, sample.size_hw)
                    rows.append(submission.RleRow(sample.file_name, label, code))
            submission.write(folder / f"{name}.csv", rows)
        return folder

    return write


@pytest.fixture
def make_job(toys: Toys, tmp_path: Path) -> Callable[..., TrainJob]:
    def make(
        name: str = "run",
        train: Sequence[Sample] | None = None,
        val: Sequence[Sample] | None = None,
        **further: Any,
    ) -> TrainJob:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        return TrainJob(
            out=out,
            labels=toys.labels,
            train=toys.samples[:4] if train is None else train,
            val=toys.samples[4:] if val is None else val,
            data=toys.folder,
            data_format="handbone",
            **further,
        )

    return make


@pytest.fixture
def tiny_smp(toys: Toys) -> Callable[..., Any]:
    """A U-Net that takes about a tenth of a second a step, with augmentation."""
    from zoo.config import check_config
    from zoo.families.smp.config import SmpConfig

    def make(**changes: Any) -> SmpConfig:
        raw = {
            "labels": str(toys.labels_file),
            "size": [96, 64],
            "epochs": 3,
            "batch": 2,
            "encoder": "tu-lcnet_035",
            "options": {"decoder_channels": [32, 24, 16, 16, 8]},
            "optim": {"lr": 3e-3, "warmup_steps": 2},
            "augment": [
                {"name": "HorizontalFlip", "p": 0.5},
                {"name": "Affine", "rotate": [-10, 10], "p": 0.5},
            ],
        }
        return check_config(SmpConfig, raw | changes, "test")

    return make


@pytest.fixture(scope="session")
def make_run(toys: Any) -> Callable[..., Path]:
    """Return a function: write a run folder with random weights."""

    import torch

    from converters.files.provenance import write_provenance
    from zoo.config import check_config
    from zoo.families import load_family
    from zoo.run_files.checkpoints import BEST, save_weights
    from zoo.run_files.licences import write_licences

    def make(
        path: Path,
        *,
        seed: int = 0,
        split: Split | None = None,
        fold: int = 0,
        family: str = "smp",
        labels: Any = None,
        licence: Any = None,
        **changes: Any,
    ) -> Path:
        raw = {"labels": labels or toys.labels.record(), **TINY_SMP, "seed": seed} | changes
        config = check_config(load_family(family).Config, raw, "test")
        torch.manual_seed(seed)
        network = load_family(family).build(config, len(config.labels)).eval()
        with torch.no_grad():
            list(network.parameters())[-2].mul_(SURE)
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump({"family": family, **raw}))
        save_weights(network, path / BEST)
        write_licences(path, [licence] if licence else [])
        if split:
            split.save(path / "split.json")
            write_provenance(path, "test", {"fold": fold}, seed, split.digest)
        return path

    return make


@pytest.fixture(scope="session")
def exported(
    make_run: Callable[..., Path],
    cut_toys: Callable[[int], Split],
    zoo: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A run of random weights, and what it was exported to."""
    from zoo.run_files.licences import WeightSource

    folder = tmp_path_factory.mktemp("exported")
    licence = WeightSource("/home/somebody/own.safetensors", "CC-BY-NC-4.0", is_non_commercial=True)
    run = make_run(folder / "alone", split=cut_toys(4), fold=1, licence=licence)
    zoo("export", run, "--out", folder / "model")
    return run, folder / "model"
