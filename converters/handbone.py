"""The hand-bone competition's tree: PNG images and one JSON file of polygons for each.

    DATA/train/DCM/ID001/image1661130828152_R.png
    DATA/train/outputs_json/ID001/image1661130828152_R.json
    DATA/test/DCM/ID040/image1661319116107.png
    DATA/truth/outputs_json/ID040/image1661319116107.json    (where the test's answers are known)
    DATA/meta_data.xlsx                                      (optional)

An image and its JSON belong together by folder and stem. What the JSON says about the image (a name
ending in .jpg, a size of 3060) is not true and is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import MultiPolygon, Polygon

from converters.errors import DataError
from converters.images import is_image, read_size_hw
from converters.types import Instance, LabelSpace, Sample

LOSES: frozenset[str] = frozenset({"holes"})
_ANNOTATIONS = {"train": ("train", "outputs_json"), "test": ("truth", "outputs_json")}


def matches(root: Path) -> bool:
    """Tell whether a folder is a competition tree."""
    return any((root / subset / "DCM").is_dir() for subset in _ANNOTATIONS)


def read(root: Path, *, subset: str, labels: LabelSpace) -> list[Sample]:
    """Read the samples of a competition tree.

    A sample's key is the image's path below `root` without its suffix, its group the folder
    `IDxxx`. Polygons of the same label become one instance. Attributes are the patient's row of
    `meta_data.xlsx`: age, sex, weight, height, note, as far as it has them.

    Args:
        root: folder that holds `train` and/or `test`.
        subset: `train`, `test` or `all`.
        labels: the classes that may occur.

    Returns:
        Samples, sorted by key. A test sample has instances only where the truth is there.

    Raises:
        DataError: files that are broken or have no counterpart, all in one error.
        ValueError: the subset is not there.
    """
    subsets = [name for name in _ANNOTATIONS if subset in (name, "all")]
    present = [name for name in subsets if (root / name / "DCM").is_dir()]
    if not present:
        raise ValueError(f"{root}: expected a folder {subset}/DCM with images, found none")
    reader = _Reader(root, labels)
    patients = reader.patients()
    samples = [sample for name in present for sample in reader.samples(name, patients)]
    if reader.problems:
        raise DataError(root, sorted(reader.problems))
    return sorted(samples, key=lambda sample: sample.key)


@dataclass
class _Reader:
    """Goes on after a problem, so that all of them can be reported at once."""

    root: Path
    labels: LabelSpace
    problems: list[str] = field(default_factory=list)

    def _report(self, path: Path, problem: str) -> None:
        self.problems.append(f"{path.relative_to(self.root).as_posix()}: {problem}")

    def samples(self, subset: str, patients: Mapping[str, Any]) -> Iterator[Sample]:
        images = self._by_place(self.root / subset / "DCM", is_image)
        annotations = self.root.joinpath(*_ANNOTATIONS[subset])
        files = self._by_place(annotations, _is_json)
        for place in sorted(set(files) - set(images)):
            self._report(files[place], "expected an image of this name, found none")
        for place, image in images.items():
            if place not in files and subset == "train":
                self._report(image, "expected a JSON file of this name, found none")
                continue
            size_hw = self._size(image)
            instances = self._instances(files[place]) if place in files else ()
            if size_hw is not None and instances is not None:
                key = image.relative_to(self.root).with_suffix("").as_posix()
                group = Path(place).parts[0]
                yield Sample(key, image, size_hw, instances, group, patients.get(group, {}))

    def _by_place(self, folder: Path, wanted: Callable[[Path], bool]) -> dict[str, Path]:
        """Files below a folder by their path in it, without suffix."""
        found: dict[str, Path] = {}
        for path in sorted(folder.glob("*/*")):
            if not wanted(path):
                continue
            place = path.relative_to(folder).with_suffix("").as_posix()
            if place in found:
                self._report(
                    path, f"expected one file of this name, found also {found[place].name}"
                )
            found.setdefault(place, path)
        return found

    def _size(self, image: Path) -> tuple[int, int] | None:
        try:
            return read_size_hw(image)
        except ValueError as error:
            self._report(image, str(error))
            return None

    def _instances(self, path: Path) -> tuple[Instance, ...] | None:
        try:
            record = json.loads(path.read_bytes())
        except ValueError as error:
            self._report(path, f"expected JSON, found a broken file ({error})")
            return None
        annotations = record.get("annotations") if isinstance(record, dict) else None
        if not isinstance(annotations, list):
            self._report(path, "expected a list 'annotations', found none")
            return None
        parts: dict[str, list[Polygon]] = {}
        for number, annotation in enumerate(annotations):
            try:
                label, polygon = _polygon(annotation, self.labels)
            except ValueError as error:
                self._report(path, f"annotation {number}: {error}")
                continue
            parts.setdefault(label, []).append(polygon)
        return tuple(
            Instance(
                label, parts[label][0] if len(parts[label]) == 1 else MultiPolygon(parts[label])
            )
            for label in self.labels.names
            if label in parts
        )

    def patients(self) -> dict[str, dict[str, Any]]:
        path = self.root / "meta_data.xlsx"
        if not path.is_file():
            return {}
        try:
            return read_patients(path)
        except ValueError as error:
            self._report(path, str(error))
            return {}


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json" and not path.name.startswith(".")


def _polygon(annotation: object, labels: LabelSpace) -> tuple[str, Polygon]:
    if not isinstance(annotation, dict):
        raise ValueError(f"expected an object, found {annotation!r:.40}")
    label = annotation.get("label")
    if not isinstance(label, str) or label not in labels.index:
        raise ValueError(f"expected a label of '{labels.name}', found {label!r:.40}")
    kind = annotation.get("type", "poly_seg")
    if kind != "poly_seg":
        raise ValueError(f"'{label}': expected type 'poly_seg', found {kind!r:.40}")
    try:
        points = np.array(annotation.get("points"), dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise ValueError(f"'{label}': expected points [x, y], found shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"'{label}': expected finite points, found NaN or infinity")
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    if len(points) < 3:
        raise ValueError(f"'{label}': expected at least 3 points, found {len(points)}")
    return label, Polygon(points)


# --- meta_data.xlsx

# The first heading that contains one of the words; the real notes have no heading at all.
_HEADINGS = {
    "age": ("age", "나이", "연령"),
    "sex": ("sex", "gender", "성별"),
    "weight": ("weight", "체중", "몸무게"),
    "height": ("height", "신장", "키"),
    "note": ("unnamed", "note", "비고"),
}
_SEXES = {"남": "M", "남자": "M", "남성": "M", "여": "F", "여자": "F", "여성": "F"}
# Control characters, also in the way that spreadsheets spell them: _x0008_.
_CONTROL = re.compile(r"_x00[01][0-9A-Fa-f]_|[\x00-\x1f]")


def read_patients(path: Path) -> dict[str, dict[str, Any]]:
    """Read the table of patients.

    Returns:
        `IDxxx` -> age (years), sex (`M` or `F`), weight (kg), height (cm), note; only the entries
        that the table has. A row that is no patient is left out.

    Raises:
        ValueError: not a spreadsheet, or one without a column `ID`.
    """
    rows = _rows(path)
    headings = [_text(value).lower() or "unnamed" for value in rows[0]] if rows else []
    if "id" not in headings:
        raise ValueError(f"expected a column 'ID', found {headings}")
    columns = {
        name: next((i for i, h in enumerate(headings) if any(w in h for w in words)), None)
        for name, words in _HEADINGS.items()
    }
    patients: dict[str, dict[str, Any]] = {}
    for row in rows[1:]:
        patient = _patient(row[headings.index("id")])
        if patient is None:
            continue
        values = {n: _value(n, row[i]) for n, i in columns.items() if i is not None}
        patients[patient] = {n: value for n, value in values.items() if value is not None}
    return patients


def _rows(path: Path) -> list[tuple[Any, ...]]:
    from zipfile import BadZipFile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            return list(book.worksheets[0].iter_rows(values_only=True))
        finally:
            book.close()
    # What a damaged archive raises depends on where it is cut.
    except (
        BadZipFile,
        InvalidFileException,
        OSError,
        LookupError,
        SyntaxError,
        TypeError,
        ValueError,
    ):
        raise ValueError("expected a spreadsheet, found a file that is not one") from None


def _text(value: object) -> str:
    return "" if value is None else _CONTROL.sub("", str(value)).strip()


def _patient(value: object) -> str | None:
    """The folder's name of an ID, which may be 1, 1.0, "1" or "ID001"."""
    number = re.fullmatch(r"(?:ID)?0*(\d+)(?:\.0)?", _text(value), flags=re.IGNORECASE)
    return f"ID{int(number[1]):03d}" if number else None


def _value(name: str, value: object) -> str | float | None:
    text = _text(value)
    if not text:
        return None
    if name == "note":
        return text
    if name == "sex":
        return _SEXES.get(text, text.upper())
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
