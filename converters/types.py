"""What an annotated image is: label space, instances, samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import shapely
import yaml
from shapely.geometry import MultiPolygon, Polygon

import configs


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of class names and named groups of them.

    Attributes:
        name: such as `hand_bones`.
        names: class names; a class's index is its place here.
        groups: group name -> class names; a class is in at most one group.

    Raises:
        ValueError: a name comes twice, or a group holds an unknown or already grouped class.

    >>> LabelSpace.load("hand_bones").index["Pisiform"]
    26
    """

    name: str
    names: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"label space '{self.name}': expected at least one class, found none")
        if len(set(self.names)) != len(self.names):
            twice = sorted({n for n in self.names if self.names.count(n) > 1})
            raise ValueError(f"label space '{self.name}': class names come twice: {twice}")
        grouped = [n for members in self.groups.values() for n in members]
        if unknown := sorted(set(grouped) - set(self.names)):
            raise ValueError(f"label space '{self.name}': groups hold unknown classes {unknown}")
        if len(set(grouped)) != len(grouped):
            raise ValueError(f"label space '{self.name}': a class is in two groups")
        object.__setattr__(self, "index", {n: i for i, n in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def group_of(self, label: str) -> str | None:
        """Return the group that holds `label`, or None."""
        return next((g for g, members in self.groups.items() if label in members), None)

    @classmethod
    def load(cls, name: str) -> LabelSpace:
        """Read a shipped label space by name, or one from a YAML file with the same keys."""
        path = configs.find("labels", name)
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or not {"name", "names"} <= set(raw):
            raise ValueError(
                f"{path}: expected keys 'name', 'names' and 'groups', found {raw!r:.80}"
            )
        groups = {g: tuple(members) for g, members in (raw.get("groups") or {}).items()}
        return cls(str(raw["name"]), tuple(raw["names"]), groups)


@dataclass(frozen=True)
class Instance:
    """One annotated object: a class name and its outline in pixel coordinates.

    Attributes:
        label: class name.
        geometry: shapely Polygon or MultiPolygon; x right, y down, a pixel's centre at whole
            numbers. Rings may cross themselves: pixels follow OpenCV's even-odd rule.

    Raises:
        ValueError: an empty geometry, another type, or coordinates that are not finite.
    """

    label: str
    geometry: Polygon | MultiPolygon

    def __post_init__(self) -> None:
        if not isinstance(self.geometry, Polygon | MultiPolygon):
            found = type(self.geometry).__name__
            raise ValueError(f"'{self.label}': expected Polygon or MultiPolygon, found {found}")
        if self.geometry.is_empty:
            raise ValueError(f"'{self.label}': expected an outline, found an empty geometry")
        if not np.isfinite(shapely.get_coordinates(self.geometry)).all():
            raise ValueError(f"'{self.label}': expected finite coordinates, found NaN or infinity")

    @property
    def parts(self) -> tuple[Polygon, ...]:
        """The polygons of which the object consists."""
        if isinstance(self.geometry, Polygon):
            return (self.geometry,)
        return tuple(self.geometry.geoms)


@dataclass(frozen=True)
class Sample:
    """One image and what is annotated on it.

    Attributes:
        key: the image's path below the data set, with `/`, without its suffix; unique there.
        image: where the image file is.
        size_hw: height and width in pixels, as the image file says.
        instances: the annotated objects; empty where nothing is annotated.
        group: what must not be torn apart by a split, such as the patient.
        attributes: whatever else is known (age, posture, ...); never interpreted here.

    Raises:
        ValueError: an empty or absolute key, or a size that is not positive.
    """

    key: str
    image: Path
    size_hw: tuple[int, int]
    instances: tuple[Instance, ...] = ()
    group: str = ""
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.key).parts
        if not self.key or self.key.startswith("/") or ".." in parts:
            raise ValueError(f"sample key: expected a relative path, found '{self.key}'")
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise ValueError(
                f"{self.key}: expected a positive (height, width), found {self.size_hw}"
            )

    @property
    def file_name(self) -> str:
        """The image's base name with its suffix, as submissions name it."""
        return self.image.name
