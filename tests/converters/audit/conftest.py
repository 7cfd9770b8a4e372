"""Sound phantom hands, and ways to spoil a sample without touching its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
def hands(tmp_path_factory: pytest.TempPathFactory, labels: LabelSpace) -> list[Sample]:
    """Forty sound hands of twenty people, without rings and the like."""
    data = tmp_path_factory.mktemp("hands") / "data"
    config = PhantomConfig(people=20, test_people=0, size=256, seed=5, artefacts=0)
    write_phantom(data, config)
    return converters.read(data, labels=labels)


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
