"""How Datumaro's items become samples; `converters.formats.datumaro` says which are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import Problems
from converters.files.below import files_below
from converters.files.images import is_image, read_size_hw, turn_remedy
from converters.files.json_files import are_numbers
from converters.files.json_lists import JsonList, scan_list
from converters.files.names import normal_name
from converters.formats.coco.shapes import ShapePart, joined
from converters.formats.datumaro.shapes import is_beside_outline, shape_parts
from converters.formats.plausible import are_normalised, normalised_message
from converters.formats.writing import load_index, read_index, record_fields
from converters.types import Instance, LabelSpace, Sample

Record = Mapping[str, Any]

# Where an item or `images.json` says whose pixels the polygons of an image hold, if not ours.
DRAWN, COCO = "drawn", "coco"
# What files of COCO's have, and Datumaro's have not.
_COCO = frozenset({"images", "annotations"})


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
        self._index = {normal_name(key): fields for key, fields in read_index(root).items()}
        self._drawn = {
            normal_name(key)
            for key, record in (load_index(root) or {}).items()
            if record.get(DRAWN) == COCO
        }
        self._ends = _ends(self._index)
        self._images = _Images(root / "images")
        self._homes: dict[str, Path] = {}
        self._uses: dict[Path, str] = {}
        self._beside = 0
        self._broken: set[str] = set()

    def samples(self, path: Path) -> Iterator[Sample]:
        """Yield the samples of one annotation file."""
        try:
            record, items = scan_list(path, "items", lambda item: None)
            if isinstance(record, Mapping) and set(record) >= _COCO:
                self._problems.note(f"annotations/{path.name}: left out, it is in COCO's form")
                return
            names = label_names(record)
            if not isinstance(record.get("items"), list):
                raise ValueError(f"expected a list 'items', found {record.get('items')!r:.60}")
        except ValueError as error:
            self._problems.add(path, f"expected Datumaro's JSON: {error}")
            self._broken.add(path.stem)
            return
        yield from self._samples(path, items, names)

    def _samples(self, path: Path, items: JsonList, names: Sequence[str]) -> Iterator[Sample]:
        for number in range(len(items)):
            try:
                (item,) = items.read([number])
            except ValueError as error:
                self._problems.add(path, f"item {number}: {error}")
                self._broken.add(path.stem)
                continue
            if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
                self._problems.add(path, f"item {number}: expected an 'id', found {item!r:.60}")
                continue
            yield from self._sample(path, item, names)

    def finish(self) -> None:
        """Say what was left out, when all files are read: images without items, and boxes."""
        if self._beside:
            self._problems.note(
                f"annotations: {self._beside} boxes and points left out that lie beside the "
                "polygons or masks of the same objects"
            )
        by_folder: dict[str, list[Path]] = {}
        for image in self._images.paths:
            by_folder.setdefault(self._images.subset(image), []).append(image)
        for subset, images in by_folder.items():
            unused = [image for image in images if image not in self._uses]
            place = f"images/{subset}" if subset else "images"
            if subset in self._broken:
                continue
            if len(unused) == len(images):
                self._problems.add(
                    place,
                    f"expected items of its {len(images)} images in annotations/"
                    f"{subset or 'default'}.json, found none: put the file back, or take the "
                    "images away",
                )
            elif unused:
                name = unused[0].relative_to(self._root / "images").as_posix()
                self._problems.note(
                    f"{place}: {len(unused)} images left out that have no item ({name}, ...)"
                )

    def _sample(self, path: Path, item: Record, names: Sequence[str]) -> Iterator[Sample]:
        fields: dict[str, Any] = {"key": item["id"]}
        try:
            fields, is_known, is_ours = self._fields(item)
            self._check_new(path, fields["key"])
            image = self._image(path.stem, item, fields["key"])
            size_hw = read_size_hw(image)
            _check_size(item, image, size_hw)
            shapes = _shapes(item)
            if not is_known and are_normalised(_written_values(shapes), size_hw):
                raise ValueError(normalised_message(size_hw))
            instances = self._instances(item["id"], shapes, names, size_hw, fields, is_ours)
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

    def _fields(self, item: Record) -> tuple[dict[str, Any], bool, bool]:
        """What we know of a sample beside its pixels, from our index, from the item, or by its id.

        Then whether it was written by us, and whether its polygons hold the pixels of ours.
        """
        name = normal_name(str(item["id"]))
        name = name if name in self._index else self._ends.get(name, name)
        found = self._index.get(name)
        attributes = item.get("attr")
        own = attributes.get("sample") if isinstance(attributes, Mapping) else None
        own = own if isinstance(own, Mapping) and "key" in own else {}
        fields = dict(found) if found else record_fields(own or {"key": item["id"]})
        is_drawn = name in self._drawn if found else own.get(DRAWN) == COCO
        is_known = bool(found or own)
        return fields, is_known, is_known and not is_drawn

    def _image(self, subset: str, item: Record, key: str) -> Path:
        image = item.get("image")
        name = image.get("path") if isinstance(image, Mapping) else None
        for place in filter(None, (name, item["id"], key)):
            for candidate in (f"{subset}/{place}", str(place)):
                if found := self._images.find(candidate):
                    if other := self._uses.get(found):
                        raise ValueError(
                            f"expected an image of its own, found that of item '{other}': "
                            f"{found.relative_to(self._root).as_posix()}"
                        )
                    self._uses[found] = item["id"]
                    return found
        raise ValueError(
            f"expected an image '{name or item['id']}' in images/{subset}, found none: export with "
            "images, or put the annotations beside the images that they were made from"
        )

    def _instances(
        self,
        item: str,
        shapes: Sequence[Any],
        names: Sequence[str],
        size_hw: tuple[int, int],
        fields: Record,
        is_ours: bool,
    ) -> tuple[Instance, ...]:
        """Objects in the order of their first shapes; broken shapes are taken down."""
        objects: dict[tuple[str, object], list[ShapePart]] = {}
        for number, shape in enumerate(shapes):
            try:
                if is_beside_outline(shape, shapes, size_hw):
                    self._beside += 1
                elif parts := shape_parts(shape, size_hw, is_ours):
                    # Shapes without a group are alone.
                    group = shape.get("group") or f"alone-{number}"
                    objects.setdefault((self._label(shape, names), group), []).extend(parts)
            except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
                what = error if isinstance(error, ValueError) else f"not a shape: {error!r}"
                where = f"{item}, annotation {number}"
                self._problems.add(where, what, key=fields["key"], group=fields.get("group", ""))
        return tuple(joined(label, parts) for (label, _), parts in objects.items())

    def _label(self, shape: Record, names: Sequence[str]) -> str:
        number = shape.get("label_id")
        if type(number) is not int or not 0 <= number < len(names):
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


class _Images:
    """The images below a folder, by all names by which an item may mean them.

    Args:
        folder: whose images they are; nothing outside can be found, whatever a path says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.paths = list(filter(is_image, files_below(folder)))
        # With the suffix or without, with the subset or without: whoever says more, means more.
        self._levels: list[dict[str, list[Path]]] = [{} for _ in range(4)]
        for path in self.paths:
            parts = path.relative_to(folder).parts
            for skipped in (0, 1):
                name = normal_name("/".join(parts[skipped:]))
                for level, known in enumerate((name, name.removesuffix(path.suffix))):
                    if known:
                        level_of = self._levels[2 * skipped + level]
                        level_of.setdefault(known, []).append(path)

    def subset(self, image: Path) -> str:
        """Return the folder in which an image lies, which its subset has its name from."""
        parts = image.relative_to(self._folder).parts
        return parts[0] if len(parts) > 1 else ""

    def find(self, name: str) -> Path | None:
        """Return the image of a name; None where there is none.

        Raises:
            ValueError: several images may be meant.
        """
        for level in self._levels:
            if found := level.get(normal_name(name)):
                if len(found) > 1:
                    places = [image.relative_to(self._folder).as_posix() for image in found]
                    what = f"expected one image '{name}', found {' and '.join(places)}"
                    raise ValueError(f"{what}: say which by its path, or take one away")
                return found[0]
        return None


def _shapes(item: Record) -> list[Any]:
    """Shapes whose polygons' numbers are arrays; what is no list of numbers is left as it is."""
    shapes = item.get("annotations", [])
    if not isinstance(shapes, list):
        raise ValueError(f"expected a list of annotations, found {shapes!r:.40}")
    return [_with_array(shape) if isinstance(shape, Mapping) else shape for shape in shapes]


def _with_array(shape: Record) -> Record:
    points = shape.get("points")
    if shape.get("type") == "polygon" and isinstance(points, list) and are_numbers(points):
        with suppress(OverflowError, TypeError, ValueError):
            return {**shape, "points": np.array(points, np.float64)}
    return shape


def _written_values(shapes: Sequence[Any]) -> Iterator[list[float]]:
    """The coordinates of all polygons."""
    for shape in shapes:
        points = shape.get("points") if isinstance(shape, Mapping) else None
        if isinstance(points, np.ndarray) and points.ndim == 1 and shape.get("type") == "polygon":
            yield points.tolist()


def label_names(record: Any) -> list[str]:
    """Return the names of a document's labels, by their numbers; raises ValueError without."""
    categories = record.get("categories") if isinstance(record, Mapping) else None
    if not isinstance(categories, Mapping):
        found = f"the keys {sorted(record)}" if isinstance(record, Mapping) else repr(record)
        raise ValueError(f"expected an object with 'categories' and 'items', found {found:.80}")
    try:
        labels = categories.get("label") or {"labels": []}
        return [str(label["name"]) for label in labels["labels"]]
    except (KeyError, TypeError):
        raise ValueError(
            f"expected 'categories' to have 'label' with 'labels' and their names, found "
            f"{categories!r:.60}"
        ) from None


def _check_size(item: Record, image: Path, size_hw: tuple[int, int]) -> None:
    stated = item.get("image")
    said = stated.get("size") if isinstance(stated, Mapping) else None
    if said and (not isinstance(said, list) or tuple(said) != size_hw):
        said = tuple(said) if isinstance(said, list) else said
        remedy = turn_remedy(image, said, size_hw) if isinstance(said, tuple) else ""
        raise ValueError(f"expected an image of {said} (height, width), found {size_hw}{remedy}")
