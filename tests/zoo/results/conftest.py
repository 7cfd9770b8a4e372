"""A data set, three stores of its images, and a submission of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import converters
from converters.masks import rasterize_labels
from converters.types import Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import StoreWriter
from fusion.types import Prediction, SoftMask
from zoo.results import chunks


def predict(sample: Sample, seed: tuple[int, int]) -> Prediction:
    """Blurred truth with holes that differ from source to source; half the resolution."""
    rng, (height, width) = np.random.default_rng(seed), sample.size_hw
    masks = {}
    for label, mask in rasterize_labels(sample.instances, sample.size_hw).items():
        plane = cv2.blur(mask.full(sample.size_hw) * np.uint8(255), (5, 5))
        plane[rng.integers(0, height, 9), rng.integers(0, width, 9)] = 0
        plane = cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        masks[label] = ((1.0, SoftMask((0, 0, width, height), plane)),)
    return Prediction(sample.key, sample.size_hw, "semantic", masks)


@pytest.fixture(scope="session")
def work(toys: Any, zoo: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuse")
    converters.write(toys.samples, root / "data", format="handbone", labels=toys.labels)
    images = {s.key: (*s.size_hw, s.file_name) for s in toys.samples}
    manifest = Manifest(
        "semantic", str(toys.labels_file), toys.labels.names, images, split="x", subset="val"
    )
    for seed, name in enumerate("abc"):
        with StoreWriter(root / name, manifest) as writer:
            for number, sample in enumerate(toys.samples):
                writer.append(predict(sample, (seed, number)))
        zoo("fuse", root / name, "--out", root / "csv" / f"{name}.csv", "--method", "mean")
    return root


@pytest.fixture(scope="session")
def stores(work: Path) -> list[Path]:
    return [work / name for name in "abc"]


@pytest.fixture(scope="session")
def files(work: Path) -> list[Path]:
    return [work / "csv" / f"{name}.csv" for name in "abc"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images are three chunks."""
    monkeypatch.setattr(chunks, "IMAGES", 2)


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[str]]:
    """Return a function: what is unfinished in a folder."""

    def find(folder: Path) -> list[str]:
        return [p.name for p in folder.iterdir() if p.suffix in (".fusing", ".partial", ".tmp")]

    return find


@pytest.fixture(scope="session")
def fused(zoo: Callable[..., None], leftovers: Callable[[Path], list[str]]) -> Callable[..., bytes]:
    """Return a function: fuse sources into a submission, and give its bytes."""

    def fuse(sources: list[Path], out: Path, *options: object, method: str = "vote") -> bytes:
        zoo("fuse", *sources, "--out", out, "--method", method, *options)
        assert leftovers(out.parent) == []
        return out.read_bytes()

    return fuse


@pytest.fixture(scope="session")
def voted(
    stores: list[Path], fused: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The vote of the three stores."""
    return fused(stores, tmp_path_factory.mktemp("voted") / "out.csv")
