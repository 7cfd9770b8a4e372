"""How Datumaro's items become samples; `converters.formats.datumaro` says which are read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely.geometry import MultiPolygon, Polygon

from converters.errors import Problems
from converters.files.images import is_image, read_size_hw
from converters.formats.writing import read_index, record_fields
from converters.masks import decode_coco_rle, outline
from converters.types import Instance, LabelSpace, Sample

Record = Mapping[str, Any]

_WITHOUT_PIXELS = frozenset({"label", "caption"})
_DIGITS = 2


class DatumaroReader:
    """Reads the items of one data set.

    Args:
        root: the data set's folder.
        labels: the classes.
        problems: takes down what is wrong.

    Raises:
        ValueError: `images.json` is there, but not one.
    """

    def __init__(self, root: Path, labels: LabelSpace, problems: Problems) -> None:
        self._root, self._labels, self._problems = root, labels, problems
        self._index = read_index(root)
        self._ends = _ends(self._index)
        self._images = _find_images(root / "images")
        self._homes: dict[str, Path] = {}

    def samples(self, path: Path) -> Iterator[Sample]:
        """Yield the samples of one annotation file."""
        try:
            record = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_compact)
            names = _label_names(record)
            items = list(record["items"])
        except (OSError, AttributeError, KeyError, TypeError, RecursionError, ValueError) as error:
            self._problems.add(path, f"expected Datumaro's JSON, found: {error!r:.200}")
            return
        for number, item in enumerate(items):
            if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
                self._problems.add(path, f"item {number}: expected an 'id', found {item!r:.60}")
                continue
            yield from self._sample(path, item, names)

    def _sample(self, path: Path, item: Record, names: Sequence[str]) -> Iterator[Sample]:
        fields: dict[str, Any] = {"key": item["id"]}
        try:
            fields = self._fields(item)
            self._check_new(path, fields["key"])
            image = self._image(path.stem, item, fields["key"])
            size_hw = read_size_hw(image)
            _check_size(item, size_hw)
            instances = self._instances(item, names, size_hw, fields)
            yield Sample(image=image, size_hw=size_hw, instances=instances, **fields)
        except ValueError as error:
            where = f"{path.relative_to(self._root).as_posix()}, item '{item['id']}'"
            self._problems.add(where, error, key=fields["key"], group=fields.get("group", ""))

    def _check_new(self, path: Path, key: str) -> None:
        if home := self._homes.get(key):
            raise ValueError(
                f"expected an image once, found it in {home.name} already: remove the item, or the "
                "file, that is out of date"
            )
        self._homes[key] = path

    def _fields(self, item: Record) -> dict[str, Any]:
        """What we know of a sample beside its pixels: from our index, from the item, or its id."""
        name = str(item["id"])
        found = self._index.get(name) or self._index.get(self._ends.get(name, ""))
        attributes = item.get("attr")
        own = attributes.get("sample") if isinstance(attributes, Mapping) else None
        return dict(found) if found else record_fields(own or {"key": name})

    def _image(self, subset: str, item: Record, key: str) -> Path:
        image = item.get("image")
        name = image.get("path") if isinstance(image, Mapping) else None
        for place in filter(None, (name, item["id"], key)):
            for candidate in (f"{subset}/{place}", str(place)):
                # Only what lies in the folder can be found, whatever a path says.
                if found := self._images.get(candidate):
                    return found
        raise ValueError(
            f"expected an image '{name or item['id']}' in images/{subset}, found none: export with "
            "images, or put the annotations beside the images that they were made from"
        )

    def _instances(
        self, item: Record, names: Sequence[str], size_hw: tuple[int, int], fields: Record
    ) -> tuple[Instance, ...]:
        """Objects in the order of their first shapes; broken shapes are taken down."""
        objects: dict[tuple[str, object], list[Polygon]] = {}
        shapes = item.get("annotations") or []
        if not isinstance(shapes, list):
            raise ValueError(f"expected a list of annotations, found {shapes!r:.40}")
        for number, shape in enumerate(shapes):
            try:
                if parts := _parts(shape, size_hw):
                    # Shapes without a group are alone.
                    group = shape.get("group") or f"alone-{number}"
                    objects.setdefault((self._label(shape, names), group), []).extend(parts)
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
                what = error if isinstance(error, ValueError) else f"not a shape: {error!r}"
                where = f"{item['id']}, annotation {number}"
                self._problems.add(where, what, key=fields["key"], group=fields.get("group", ""))
        return tuple(
            Instance(label, parts[0] if len(parts) == 1 else MultiPolygon(parts))
            for (label, _), parts in objects.items()
        )

    def _label(self, shape: Record, names: Sequence[str]) -> str:
        number = shape.get("label_id")
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise ValueError(f"expected a label from 0 to {len(names) - 1}, found {number!r}")
        label = self._labels.canonical(names[number])
        if label is None:
            raise ValueError(f"expected a label of '{self._labels.name}', found '{names[number]}'")
        return label


# --- files


def _ends(keys: Mapping[str, Any]) -> dict[str, str]:
    """Each end of a key, from a folder on, that only one key has -> the key."""
    found: dict[str, set[str]] = {}
    for key in keys:
        parts = key.split("/")
        for start in range(1, len(parts)):
            found.setdefault("/".join(parts[start:]), set()).add(key)
    return {end: next(iter(owners)) for end, owners in found.items() if len(owners) == 1}


def _find_images(folder: Path) -> dict[str, Path]:
    """All names by which an item may mean an image: with or without the subset, or the suffix."""
    paths = [path for path in sorted(folder.rglob("*")) if is_image(path)]
    images: dict[str, Path] = {}
    for skipped in (0, 1):
        for path in paths:
            name = "/".join(path.relative_to(folder).parts[skipped:])
            images.setdefault(name, path)
            images.setdefault(name.removesuffix(path.suffix), path)
    images.pop("", None)
    return images


def _compact(record: dict[str, Any]) -> dict[str, Any]:
    """Hold a polygon's numbers as an array: a fifth of the memory of a list."""
    if record.get("type") == "polygon" and isinstance(record.get("points"), list):
        # What is no list of numbers is found when the shape is read.
        with suppress(OverflowError, TypeError, ValueError):
            record["points"] = np.array(record["points"], np.float64)
    return record


def _label_names(record: Record) -> list[str]:
    labels = record["categories"].get("label") or {"labels": []}
    return [str(label["name"]) for label in labels["labels"]]


def _check_size(item: Record, size_hw: tuple[int, int]) -> None:
    image = item.get("image")
    said = image.get("size") if isinstance(image, Mapping) else None
    if said and tuple(said) != size_hw:
        raise ValueError(f"expected an image of {tuple(said)} (height, width), found {size_hw}")


# --- shapes


def _parts(shape: Record, size_hw: tuple[int, int]) -> list[Polygon]:
    """Polygons in our pixels of a shape; none where it has no pixels."""
    kind = shape.get("type")
    if kind == "polygon":
        return [Polygon(_ring(shape["points"]))]
    if kind == "mask":
        return _mask_parts(shape["rle"], size_hw)
    if kind in _WITHOUT_PIXELS:
        return []
    raise ValueError(
        f"expected a polygon or a mask, found a shape of type '{kind}': draw it as one of them, "
        "or delete it"
    )


def _ring(points: object) -> npt.NDArray[np.float64]:
    if not isinstance(points, np.ndarray) or points.ndim != 1:
        raise ValueError(f"expected points as a list of numbers x, y, found {points!r:.60}")
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"expected at least 3 points x, y, found {len(points)} numbers")
    if not np.isfinite(points).all():
        raise ValueError("expected finite coordinates, found NaN or infinity")
    return np.round(points.reshape(-1, 2) - 0.5, _DIGITS)


def _mask_parts(code: Record, size_hw: tuple[int, int]) -> list[Polygon]:
    if tuple(code["size"]) != size_hw:
        raise ValueError(f"expected a mask of {size_hw}, found one of {tuple(code['size'])}")
    mask = decode_coco_rle(code)
    if not mask.area:
        return []
    geometry = outline(mask)
    return [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
