"""A data set with an odd name in it, two stores, and a submission that lacks a class."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from converters.types import LabelSpace
from fusion.sources import submission
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, soft_mask

GRID = 48
ODD = "<img src=x onerror=alert(1)> _b_ $x$"


def predict(sample, seed: int, grid: int = GRID) -> Prediction:
    """The truth, moved a little class by class, as a network of a coarse grid shows it."""
    generator = np.random.default_rng(seed)
    height, width = sample.size_hw
    masks = {}
    for name, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        shift = np.float32([[1, 0, 0], [0, 1, 0]])
        shift[:, 2] = generator.normal(0, 0.02 * width, 2)
        plane = cv2.warpAffine(mask.full(sample.size_hw).astype(np.float32), shift, (width, height))
        small = cv2.resize(plane, (grid, grid), interpolation=cv2.INTER_AREA)
        prob = np.rint(255 * cv2.GaussianBlur(small, (0, 0), 0.8)).astype(np.uint8)
        if found := soft_mask(prob, (0.0, 0.0, float(width), float(height))):
            masks[name] = ((float(prob.max()) / 255, found),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


def write_store(path, samples, labels, seed, grid: int = GRID) -> None:
    entries = {s.key: (*s.size_hw, s.file_name) for s in samples}
    manifest = Manifest(
        "semantic", labels.name, labels.names, entries, space=labels, images_per_part=2
    )
    with StoreWriter(path, manifest) as writer:
        for number, sample in enumerate(samples):
            writer.append(predict(sample, seed + number, grid))


@pytest.fixture(scope="session")
def show(toys, tmp_path_factory) -> SimpleNamespace:
    """`data` (COCO, 6 images of 3 patients), `stores` a and b, `csv` without the last class."""
    folder = tmp_path_factory.mktemp("show")
    names = (ODD, *toys.labels.names[1:])
    groups = {"large": names[:1], "small": names[1:]}
    labels = LabelSpace("odd", names, groups)
    samples = [
        replace(
            sample,
            key=f"train/{sample.group}/{sample.key}",
            instances=[
                replace(one, label=names[toys.labels.index[one.label]]) for one in sample.instances
            ],
        )
        for sample in toys.samples
    ]
    converters.write(samples, folder / "data", format="coco", labels=labels)
    space = folder / "odd.yaml"
    labels.save(space)
    read = converters.read(folder / "data", labels=labels)
    for seed, name in enumerate("ab"):
        write_store(folder / name, read, labels, 100 * seed)
    rows = [
        row
        for number, sample in enumerate(read)
        for row in submission.encode(predict(sample, 300 + number), sample.file_name, names[:-1])
    ]
    submission.write(folder / "c.csv", rows)
    return SimpleNamespace(
        folder=folder,
        data=folder / "data",
        labels=labels,
        space=space,
        samples={sample.key: sample for sample in read},
        stores=(folder / "a", folder / "b"),
        csv=folder / "c.csv",
        write_store=write_store,
        predict=predict,
        odd=ODD,
        paths=[folder / "data", folder / "a", folder / "b", folder / "c.csv"],
    )
