"""A small data set whose sources all make the same mistake, and what a run is told of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import Point

from converters.masks import class_masks
from converters.splits.split import VERSION, Split
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.config import check_config
from zoo.contract import TrainJob
from zoo.families.refiner.config import RefinerConfig

HEIGHT, WIDTH, CELL = 96, 128, 4
SHIFT_PX = 3
NAMES = ("egg", "yolk", "plate")


@dataclass(frozen=True)
class Eggs:
    """Twelve images of six patients: a yolk lies on each egg; the first image has no plate."""

    labels: LabelSpace
    samples: tuple[Sample, ...]
    split: Split
    stores: tuple[str, ...]


def _draw(folder: Path, number: int) -> Sample:
    generator = np.random.default_rng(number)
    x, y = generator.uniform((40, 40), (56, 54))
    egg = affinity.scale(Point(x, y).buffer(1, quad_segs=32), *generator.uniform(22, 30, 2))
    shapes = {"egg": egg, "yolk": Point(x + 6, y + 3).buffer(11)}
    if number:
        shapes["plate"] = Point(101, 60).buffer(float(generator.uniform(13, 18)))
    instances = tuple(Instance(name, shape) for name, shape in shapes.items())
    image = generator.normal(60, 5, (HEIGHT, WIDTH))
    for mask in class_masks(instances, (HEIGHT, WIDTH), LabelSpace("eggs", NAMES)).values():
        rows, cols = mask.pixels.shape
        image[mask.y : mask.y + rows, mask.x : mask.x + cols] += 50 * mask.pixels
    path = folder / f"egg_{number:02d}.png"
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
    return Sample(path.stem, path, (HEIGHT, WIDTH), instances, group=str(number // 2))


def predict_wrongly(sample: Sample, labels: LabelSpace, seed: int) -> Prediction:
    """Return the truth, coarse and unsure, three pixels to the right, as every source has it."""
    generator = np.random.default_rng([seed, len(sample.key), int(sample.key[-2:])])
    masks = {}
    for name, mask in class_masks(sample.instances, sample.size_hw, labels).items():
        plane = np.roll(mask.full(sample.size_hw).astype(np.float32), SHIFT_PX, axis=1)
        cells = cv2.resize(plane, (WIDTH // CELL, HEIGHT // CELL), interpolation=cv2.INTER_AREA)
        noisy = 4 * (2 * cells - 1) + generator.normal(0, 0.3, cells.shape)
        prob = np.rint(255 / (1 + np.exp(-noisy))).astype(np.uint8)
        masks[name] = ((1.0, SoftMask((0, 0, WIDTH, HEIGHT), prob)),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


def write_store(
    out: Path, samples: Sequence[Sample], labels: LabelSpace, seed: int, **about: Any
) -> str:
    """Write what a source says of samples."""
    images = {s.key: (*s.size_hw, s.file_name) for s in samples}
    manifest = Manifest("semantic", labels.name, labels.names, images, space=labels, **about)
    with StoreWriter(out, manifest) as writer:
        for sample in samples:
            writer.append(predict_wrongly(sample, labels, seed))
    return str(out)


@pytest.fixture(scope="session")
def eggs(tmp_path_factory: pytest.TempPathFactory) -> Eggs:
    folder = tmp_path_factory.mktemp("eggs")
    labels = LabelSpace("eggs", NAMES)
    samples = tuple(_draw(folder, number) for number in range(12))
    keys = [sample.key for sample in samples]
    folds = tuple(tuple(keys[at : at + 4]) for at in (0, 4, 8))
    split = Split(VERSION, 0, "given", folds, {s.key: s.patient for s in samples})
    about = {"split": split.digest, "subset": "val"}
    stores = tuple(
        write_store(folder / "val" / name, samples, labels, seed, **about)
        for seed, name in enumerate(("left", "right"))
    )
    return Eggs(labels, samples, split, stores)


@pytest.fixture
def configure_refiner(eggs: Eggs) -> Callable[..., RefinerConfig]:
    """Return a function: a config that trains in seconds, with changes."""

    def make(**changes: Any) -> RefinerConfig:
        raw = {
            "labels": eggs.labels.record(),
            "sources": list(eggs.stores),
            "start": "mean",
            "size": [32, 32],
            "epochs": 6,
            "batch": 16,
            "patches_per_image": 16,
            "validate_every": 100,
            "width": 8,
            "device": "cpu",
            "optim": {"name": "adamw", "lr": 4e-3, "schedule": "cosine", "warmup_steps": 5},
        }
        return check_config(RefinerConfig, raw | changes, "test")

    return make


@pytest.fixture
def refine_job(eggs: Eggs, tmp_path: Path) -> Callable[..., TrainJob]:
    """Return a function: a job that holds out the first fold."""

    def make(name: str = "run", **changes: Any) -> TrainJob:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        job = TrainJob(
            out, eggs.labels, eggs.samples[4:], eggs.samples[:4], tmp_path, "coco", split=eggs.split
        )
        return replace(job, **changes)

    return make
