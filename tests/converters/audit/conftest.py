"""Sound phantom hands, and ways to spoil a sample without touching its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from shapely.geometry import MultiPolygon, Polygon

import converters
from converters.types import Instance, LabelSpace, Sample
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom


@pytest.fixture(scope="session")
def labels() -> LabelSpace:
    return LabelSpace.load("hand_bones")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty sound hands of thirty people, without rings and the like, and six test hands."""
    data = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(data, PhantomConfig(people=30, test_people=3, size=256, seed=5, artefacts=0))
    return data


@pytest.fixture(scope="session")
def hands(phantom: Path, labels: LabelSpace) -> list[Sample]:
    """Forty of the sound hands, of twenty people."""
    return converters.read(phantom, labels=labels)[:40]


class Spoil:
    """Changes annotations of a sample."""

    def polygons(self, sample: Sample, label: str) -> list[Polygon]:
        return [part for i in sample.instances if i.label == label for part in i.parts]

    def redraw(self, sample: Sample, label: str, *parts: Polygon) -> Sample:
        """Put polygons in the place of a label's; none take it away."""
        kept = [i for i in sample.instances if i.label != label]
        geometry = parts[0] if len(parts) == 1 else MultiPolygon(parts)
        new = [Instance(label, geometry)] if parts else []
        return replace(sample, instances=(*kept, *new))

    def rename(self, sample: Sample, names: Mapping[str, str]) -> Sample:
        instances = [Instance(names.get(i.label, i.label), i.geometry) for i in sample.instances]
        return replace(sample, instances=tuple(instances))


@pytest.fixture(scope="session")
def spoil() -> Spoil:
    return Spoil()
