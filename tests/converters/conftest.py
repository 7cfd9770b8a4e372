"""Hand-made samples, and trees in the competition's format, small enough to think about."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import MultiPolygon, Polygon, box

from converters.types import Instance, LabelSpace, Sample


@pytest.fixture(scope="session")
def labels() -> LabelSpace:
    return LabelSpace.load("hand_bones")


def write_image(path: Path, size_hw: tuple[int, int], seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size_hw, np.uint8)
    cv2.imwrite(str(path), pixels)
    return path


# --- one sample of each kind that formats get wrong


@dataclass(frozen=True)
class Case:
    """What is drawn, and which of the things that a format may lose it has."""

    instances: tuple[Instance, ...]
    has: frozenset[str] = frozenset()
    size_hw: tuple[int, int] = (48, 48)
    key: str = "train/DCM/ID001/image1661130828152"


RING = Polygon(box(8, 8, 30, 30).exterior, [box(14, 12, 20, 26).exterior])
TWO_HOLES = Polygon(
    [(3, 3), (40, 5), (44, 40), (6, 42)],
    [box(10, 10, 15, 30).exterior, box(22, 12, 30, 33).exterior],
)
TWO_PARTS = MultiPolygon([box(3, 4, 12, 15), Polygon([(25, 20), (40, 22), (30, 41)])])
ISLAND = MultiPolygon([RING, box(16, 15, 18, 20)])
TRIANGLE = Polygon([(5, 6), (33, 11), (19, 37)])

CASES = {
    "plain": Case((Instance("Radius", TRIANGLE),)),
    "hole": Case((Instance("Radius", RING),), frozenset({"holes"})),
    "two holes": Case((Instance("Radius", TWO_HOLES),), frozenset({"holes"})),
    "two parts": Case((Instance("Radius", TWO_PARTS),), frozenset({"parts"})),
    "island in a hole": Case((Instance("Radius", ISLAND),), frozenset({"holes", "parts"})),
    "parts that overlap": Case(
        (Instance("Radius", MultiPolygon([box(5, 5, 20, 20), box(12, 12, 30, 30)])),)
    ),
    "overlap": Case(
        (Instance("Triquetrum", box(8, 8, 30, 30)), Instance("Pisiform", box(20, 18, 40, 35))),
        frozenset({"overlaps"}),
    ),
    "the same place": Case(
        (Instance("finger-1", TRIANGLE), Instance("Ulna", TRIANGLE)), frozenset({"overlaps"})
    ),
    "crosses itself": Case((Instance("Lunate", Polygon([(5, 5), (30, 30), (30, 5), (5, 30)])),)),
    "empty": Case(()),
    "full": Case(
        tuple(Instance(name, box(0, 0, 47, 47)) for name in ("finger-1", "finger-19", "Ulna")),
        frozenset({"overlaps"}),
    ),
    "wide": Case((Instance("Radius", box(40, 3, 60, 20)),), size_hw=(24, 64)),
    "tall": Case((Instance("Radius", box(3, 40, 20, 60)),), size_hw=(64, 24)),
    "stem with _": Case((Instance("Ulna", TRIANGLE),), key="train/DCM/ID_7/image_1_R.v2_L"),
    "border": Case((Instance("Ulna", Polygon([(47, 10), (47, 47), (0, 47), (20, 20)])),)),
    "beyond the border": Case((Instance("Ulna", Polygon([(-9, 20), (30, -12), (70, 80)])),)),
    "one pixel": Case((Instance("Pisiform", Polygon([(7, 9), (7, 9), (7, 9)])),)),
    "the first pixel": Case((Instance("Pisiform", Polygon([(0, 0), (0, 0), (0, 0)])),)),
    "floats": Case((Instance("Pisiform", Polygon([(7.4, 9.6), (30.5, 12.2), (11.1, 31.9)])),)),
}


def make_sample(root: Path, case: Case, seed: int = 0) -> Sample:
    image = write_image(root / (case.key + ".png"), case.size_hw, seed)
    return Sample(case.key, image, case.size_hw, case.instances, Path(case.key).parts[-2])


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Case, Sample]]:
    """All cases with a sample of each; the samples have keys of their own."""
    root = tmp_path_factory.mktemp("drawn")
    made = {}
    for number, (kind, case) in enumerate(sorted(CASES.items())):
        named = replace(case, key=f"train/DCM/ID{number:03d}/image{number}")
        made[kind] = (named, make_sample(root, named))
    return made


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def sample(case: Case, tmp_path: Path) -> Sample:
    return make_sample(tmp_path / "source", case)


@pytest.fixture
def draw(tmp_path: Path) -> Callable[[str], Sample]:
    """Make the sample of a case by its name."""
    return lambda name: make_sample(tmp_path / "source", CASES[name])


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Six samples of three patients."""
    kinds = ["plain", "hole", "two parts", "overlap", "empty", "border"]
    keys = [f"train/DCM/ID{1 + i // 2:03d}/image166113082815{i}" for i in range(6)]
    chosen = [Case(CASES[k].instances, key=key) for k, key in zip(kinds, keys, strict=True)]
    return [make_sample(tmp_path / "source", case, seed) for seed, case in enumerate(chosen)]


# --- the competition's tree

Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Tree:
    """Writes a competition tree file by file."""

    root: Path

    def image(self, place: str, subset: str = "train", size_hw: tuple[int, int] = (40, 60)) -> Path:
        return write_image(self.root / subset / "DCM" / f"{place}.png", size_hw)

    def annotate(
        self, place: str, *bones: tuple[str, Points], folder: str = "train", **more: Any
    ) -> Path:
        stem = place.split("/")[-1]
        annotations: list[Mapping[str, Any]] = [
            {"id": f"a{i}", "type": "poly_seg", "attributes": {}, "points": points, "label": label}
            for i, (label, points) in enumerate(bones)
        ]
        record = {
            "annotations": annotations,
            "attributes": {},
            "file_id": "f1",
            "filename": f"{stem}.jpg",
            "parent_path": "/DCM",
            "last_modifier_id": "someone",
            "metadata": {"height": 3060, "width": 3060},
            "last_workers": {},
        }
        path = self.root / folder / "outputs_json" / f"{place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**record, **more}), encoding="utf-8")
        return path

    def hand(self, place: str, *bones: tuple[str, Points]) -> None:
        self.image(place)
        self.annotate(place, *bones)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "data")
