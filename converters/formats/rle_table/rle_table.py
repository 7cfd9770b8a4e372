"""A table of run-length codes beside a folder of images, as competitions hand them out.

    DATA/train.csv, ...       an image and a code in each row: ImageId,ClassId,EncodedPixels
    DATA/**/NAME.png          the images, wherever they lie; or in a folder that the user names
    DATA/rle_table.yaml       (optional) what the table does not show
    DATA/images.json          (written by us) train/NAME -> key, group, size, attributes, frame

A row is an object; objects of an image may overlap. An empty code, -1 or nan says that an image has
none. Columns are found by their names, in capitals or not: those of Airbus, Severstal (also one
column `ImageId_ClassId`), Data Science Bowl 2018, SIIM, HuBMAP, Sartorius (whose width and height
are compared), Understanding Clouds, and our own submissions. The image is called by its path or
its name, with or without suffix. `*submission*.csv` is not read, nor is a table in the
form of our submissions where there are others; a folder with nothing but such tables is only
recognised by `rle_table.yaml` or by the format's name.

A code is `start length start length ...`. Competitions mostly count pixels column by column, from
1; our submissions row by row. The codes often show it (`detection.py`); what they do not show is
taken so, and said. `rle_table.yaml` settles it:

    order: columns | rows
    first_pixel: 1 | 0
    relative: true | false          a start counts from the end of the run before, as SIIM has it
    image, class, rle: NAME         what the columns are called
    classes: [NAME, ...] | {ID: NAME, ...}
    object: NAME                    the class of all objects of a table without classes

Layouts: `columns` and `rows` count from 1, `columns0` and `rows0` from 0; their header is
ImageId,ClassId,EncodedPixels. As single competitions want it, column by column from 1:

    dsb2018       ImageId,EncodedPixels: one class; images without their suffix
    airbus        ImageId,EncodedPixels: one class
    severstal     ImageId_ClassId,EncodedPixels: a row an image and class, classes counted from 1
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from converters.errors import ImageError, Problems
from converters.files.images import PutImage, image_suffix, read_size_hw
from converters.files.json_files import dump_json
from converters.files.provenance import atomic_write_text, read_provenance
from converters.formats.label_spaces import folder_space, natural, relabel
from converters.formats.rle_table.detection import Code, find_coding
from converters.formats.rle_table.images import ImageIndex
from converters.formats.rle_table.options import OPTIONS, Options, read_options
from converters.formats.rle_table.runs import Coding, decode_runs, encode_runs, parse_runs
from converters.formats.rle_table.table import (
    NO_NAME,
    Row,
    Table,
    find_submissions,
    find_tables,
)
from converters.formats.writing import (
    INDEX,
    WriteTarget,
    check_labels,
    file_names,
    read_index,
    sample_record,
)
from converters.loss import ConversionLoss, joined_objects, lossless
from converters.masks import EMPTY, CropMask, class_masks, outlines, rasterize
from converters.subsets.keys import as_test_key, is_test_key, of_test
from converters.subsets.names import part_of
from converters.types import Instance, LabelSpace, Sample

_CODINGS = {
    "columns": Coding(),
    "rows": Coding(by_columns=False),
    "columns0": Coding(first=0),
    "rows0": Coding(by_columns=False, first=0),
    "dsb2018": Coding(),
    "airbus": Coding(),
    "severstal": Coding(),
}
LOSES = {
    layout: frozenset({"subpixels", "objects"} if layout == "severstal" else {"subpixels"})
    for layout in _CODINGS
}
_HEADER = ("ImageId", "ClassId", "EncodedPixels")
_HEADERS = {
    "dsb2018": ("ImageId", "EncodedPixels"),
    "airbus": ("ImageId", "EncodedPixels"),
    "severstal": ("ImageId_ClassId", "EncodedPixels"),
}
_OF_ONE_CLASS = ("dsb2018", "airbus")


def matches(root: Path) -> bool:
    """Tell whether a folder holds tables of run-length codes."""
    kind = read_provenance(root).get("kind")
    if kind is not None:
        return bool(kind == "rle_table")
    try:
        has_options = (root / OPTIONS).is_file()
        tables = find_tables(root, read_options(root))
        # A submission often lies in the folder of a data set of another format.
        return has_options or any(not table.is_submission for table in tables)
    except ValueError:
        return True  # `read` says what is wrong with the options


def annotation_files(root: Path) -> list[Path]:
    """Return the tables of a folder, sorted; none where its `rle_table.yaml` is broken."""
    try:
        return [table.path for table in find_tables(root, read_options(root))]
    except ValueError:
        return []


# --- writing

# What a cell holds in Excel.
_CELL = 32767


def write(samples: Sequence[Sample], target: WriteTarget) -> ConversionLoss:
    """Write samples as tables; nothing is lost at the level of pixels, but objects in `severstal`.

    An instance without a pixel in the image has no row.

    Raises:
        ValueError: several classes, in a layout of one.
    """
    coding, names = _CODINGS[target.layout], target.labels.names
    if target.layout in _OF_ONE_CLASS and len(names) > 1:
        raise ValueError(
            f"--layout {target.layout}: expected one class, as it names none, found {len(names)}: "
            f"choose one (--labels {names[0]}), or another layout"
        )
    tasks = [
        (sample, f"{target.subset_of(sample)}/{name}")
        for sample, name in zip(samples, file_names(samples), strict=True)
    ]
    encode = partial(_write_sample, target.folder, target.labels, target.layout, target.put_image)
    texts = {subset: io.StringIO() for subset in target.subsets}
    # Python's writer does not quote a carriage return, at which its reader ends a row.
    is_odd = "\r" in "".join(target.labels.names)
    new_writer = partial(csv.writer, lineterminator="\n")
    writers = {
        subset: new_writer(text, quoting=csv.QUOTE_ALL if is_odd else csv.QUOTE_MINIMAL)
        for subset, text in texts.items()
    }
    for writer in writers.values():
        writer.writerow(_HEADERS.get(target.layout, _HEADER))
    for (_, place), rows in zip(tasks, target.each(encode, tasks), strict=True):
        writers[place.split("/")[0]].writerows(rows)
    for subset, text in texts.items():
        atomic_write_text(target.folder / f"{subset}.csv", text.getvalue())
    index = {place: sample_record(sample) for sample, place in tasks}
    atomic_write_text(target.folder / INDEX, dump_json(index))
    options: dict[str, Any] = {
        "order": "columns" if coding.by_columns else "rows",
        "first_pixel": coding.first,
        "relative": False,
    }
    if target.layout in _OF_ONE_CLASS:
        options["object"] = names[0]
    elif target.layout == "severstal":
        options["classes"] = {number: name for number, name in enumerate(names, 1)}
    else:
        options["classes"] = list(names)
    said = yaml.safe_dump(options, sort_keys=False, allow_unicode=True)
    atomic_write_text(target.folder / OPTIONS, said)
    if target.layout == "severstal":
        return sum((joined_objects(one, target.labels) for one in samples), ConversionLoss())
    return sum(map(lossless, samples), ConversionLoss())


def _write_sample(
    folder: Path, labels: LabelSpace, layout: str, put: PutImage, task: tuple[Sample, str]
) -> list[tuple[str, ...]]:
    sample, place = task
    coding = _CODINGS[layout]
    check_labels(sample, labels)
    image = folder / (place + image_suffix(sample))
    put(sample, image)
    if layout == "severstal":
        masks = class_masks(sample.instances, sample.size_hw, labels, with_background=False)
        return [
            (f"{image.name}_{number}", encode_runs(masks.get(name, EMPTY), sample.size_hw, coding))
            for number, name in enumerate(labels.names, 1)
        ]
    codes = [
        (instance.label, encode_runs(mask, sample.size_hw, coding))
        for instance in sample.instances
        if (mask := rasterize(instance.geometry, sample.size_hw)).area
    ]
    if layout in _OF_ONE_CLASS:
        name = image.stem if layout == "dsb2018" else image.name
        return [(name, code) for _, code in codes or [("", "")]]
    return [(image.name, label, code) for label, code in codes or [("", "")]]


# --- reading


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of `rle_table.yaml` and of the rows; None without any.

    Raises:
        ValueError: a broken `rle_table.yaml`, no table, or none that can be read.
    """
    options = read_options(root)
    found: set[str] = set()
    broken: list[str] = []
    for table in _tables(root, options):
        try:
            found |= {row.label for row in table.rows() if isinstance(row, Row)}
        except ValueError as error:
            broken.append(f"{table.path}: {error}")
    named = dict.fromkeys(options.names.values())
    names = (*named, *natural(found - set(named) - {""}))
    if broken and not names:
        raise ValueError(broken[0])
    return folder_space(root, names) if names else None


def read(
    root: Path,
    *,
    subset: str,
    labels: LabelSpace,
    problems: Problems,
    images: Path | None = None,
) -> list[Sample]:
    """Read tables of run-length codes.

    Args:
        root: the data set's folder.
        subset: `test` is what lies in a folder of that name, or is named by a table that is called
            so; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down rows and images that are broken.
        images: a folder with the images, where they do not lie with the tables.

    Returns:
        Samples, an instance a row; keys and groups are those of `images.json`, else the images'
        paths, and no group.

    Raises:
        ValueError: no table, or a broken `rle_table.yaml` or `images.json`.
    """
    reader = _Reader(root, labels, problems, read_index(root), images or root)
    options = read_options(root)
    tables = _tables(root, options, images)
    if others := find_submissions(root, options):
        what = "left out tables in the form of our submissions"
        problems.note(f"{root}: {what}: {', '.join(table.path.name for table in others)}")
    for table in tables:
        try:
            reader.read(table)
        except ValueError as error:
            problems.add(table.path, error)
    reader.finish(subset)
    return [
        sample
        for sample, is_test in reader.samples
        if subset == "all" or is_test == (subset == "test")
    ]


def read_table(
    path: Path,
    images: Path,
    labels: LabelSpace,
    problems: Problems,
    options_folder: Path | None = None,
) -> list[Sample]:
    """Read one table of run-length codes, whatever else lies beside it but `rle_table.yaml`.

    Args:
        path: the table. Where it has no column of classes, all objects are of the only class.
        images: the folder with the images, keys are their paths there.
        labels: the classes, found by name or alias; rows of others are left out.
        problems: takes down rows and images that are broken.
        options_folder: with the `rle_table.yaml`; None is the table's.

    Raises:
        ValueError: no table, one without any of the classes, or a broken `rle_table.yaml`.
    """
    options = read_options(options_folder or path.parent)
    if not options.object and len(labels) == 1:
        options = replace(options, object=labels.names[0])
    table = Table(path, options)
    if not table.is_one:
        raise ValueError(
            f"{path}: expected columns such as ImageId and EncodedPixels, found "
            f"{', '.join(table.header) or 'none':.80}: say in {OPTIONS} what they are called "
            "('image', 'class', 'rle')"
        )
    try:
        named = {row.label for row in table.rows() if isinstance(row, Row) and row.code}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not (table.has_classes or options.object):
        raise ValueError(
            f"{path}: expected a column of classes, found none in {', '.join(table.header):.80}: "
            f"choose one class (--labels {labels.names[0]}), or say 'object: NAME' in {OPTIONS}"
        )
    own = LabelSpace(path.name, natural(named) or labels.names)
    if not any(labels.canonical(name) for name in own.names):
        raise ValueError(
            f"{path}: expected classes of {labels.listed()}, found "
            f"{', '.join(own.names):.80}: say in {OPTIONS} beside it what they are called: "
            f"'classes: {{{own.names[0]}: {labels.names[0]}}}'"
        )
    reader = _Reader(path.parent, own, problems, {}, images, is_divided=False)
    reader.read(table)
    return relabel([sample for sample, _ in reader.samples], own, labels, problems)


def _tables(root: Path, options: Options, images: Path | None = None) -> list[Table]:
    if tables := find_tables(root, options, images):
        return tables
    raise ValueError(
        f"{root}: expected a CSV file with columns such as ImageId and EncodedPixels, found "
        f"none: say in {OPTIONS} what they are called ('image', 'class', 'rle')"
    )


@dataclass
class _Entry:
    """What a table says of an image."""

    path: Path
    table: Path
    size_hw: tuple[int, int]
    fields: dict[str, Any]
    objects: list[tuple[str, Code]] = field(default_factory=list)

    def sample(self, instances: Sequence[Instance]) -> Sample:
        return Sample(image=self.path, size_hw=self.size_hw, instances=instances, **self.fields)


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    index: Mapping[str, Mapping[str, Any]]
    home: Path  # of the images
    is_divided: bool = True  # whether tables are of the part that their names speak of
    samples: list[tuple[Sample, bool]] = field(default_factory=list)
    _images: ImageIndex = field(init=False)
    _entries: dict[Path, _Entry] = field(default_factory=dict)
    _named: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._images = ImageIndex(self.home)

    def read(self, table: Table) -> None:
        """Read a table; raises ValueError where it is none, or its codes contradict each other."""
        entries: dict[str, _Entry | None] = {}
        full: list[Row] = []
        longest = 0
        for row in table.rows():
            if isinstance(row, ValueError):
                self.problems.add(table.path, row)
                continue
            longest = max(longest, len(row.code))
            full += [row] if len(row.code) == _CELL else []
            try:
                self._add(table.path, row, entries)
            except ImageError as error:
                self.problems.add(table.path, error, key=row.image)
            except ValueError as error:
                self.problems.add(table.path, f"row {row.line}: {error}", key=row.image)
        for row in full if longest == _CELL else ():
            what = f"expected a whole code, found one that ends after {_CELL} characters, as Excel "
            what += "cuts them off, and no longer one in the table: take the table as it was before"
            if entry := entries.get(row.image):
                self._report(table.path, entry, row.line, what)
        say = f"{self.root}: {table.path.name}: "
        if elsewhere := self._images.elsewhere:
            self.problems.note(
                f"{say}{len(elsewhere)} images were found by the last part of their path, such as "
                f"'{elsewhere[0]:.80}'"
            )
            elsewhere.clear()
        if not (table.has_classes or table.options.object):
            self.problems.note(
                f"{say}has no column of classes, all objects are called '{NO_NAME}': say 'object: "
                f"NAME' in {OPTIONS}, or 'class: COLUMN' if it has one"
            )
        # A table may call an image by several names.
        found = list({entry.path: entry for entry in entries.values() if entry}.values())
        codes = [code for entry in found for _, code in entry.objects]
        usual = Coding(by_columns=not table.is_submission)
        coding = find_coding(
            codes, table.options.said, usual, lambda text: self.problems.note(say + text)
        )
        is_test = part_of(table.path.stem) == "test"
        for entry in found:
            sample = self._sample(table.path, entry, coding)
            self.samples.append((sample, is_test or is_test_key(sample.key)))

    def _add(self, table: Path, row: Row, entries: dict[str, _Entry | None]) -> None:
        if row.image not in entries:
            entries[row.image] = None
            entries[row.image] = self._entry(table, row.image)
        entry = entries[row.image]
        if entry is None:
            return  # said, in the row before
        height, width = entry.size_hw
        for what, said, size in zip(("height", "width"), row.size_hw, entry.size_hw, strict=True):
            if said and said.removesuffix(".0") != str(size):
                self._report(
                    table, entry, row.line, f"expected an image of {what} {said:.20}, found {size}"
                )
                return
        if not row.code:
            return
        if row.label not in self.labels.index:
            raise ValueError(f"expected a class of '{self.labels.name}', found '{row.label}'")
        try:
            code = Code(row.line, (height, width), parse_runs(row.code))
        except ValueError as error:
            self._report(table, entry, row.line, error)
            return
        entry.objects.append((row.label, code))

    def _entry(self, table: Path, name: str) -> _Entry:
        path = self._images.find(name, table, part_of(table.stem) if self.is_divided else "")
        self._named.add(path)
        if path not in self._entries:
            self._entries[path] = self._new_entry(path, table)
        entry = self._entries[path]
        if entry.table != table:
            raise ValueError(
                f"expected '{name:.80}' in one table, found it in {entry.table.name} too: keep one "
                "of the tables"
            )
        return entry

    def _new_entry(self, path: Path, table: Path) -> _Entry:
        place = path.relative_to(self.home).with_suffix("").as_posix()
        is_test = table != path and part_of(table.stem) == "test"
        key = of_test(place) if is_test else as_test_key(place)
        fields = dict(self.index.get(place) or {"key": key})
        return _Entry(path, table, read_size_hw(path), fields)

    def _key(self, path: Path) -> str:
        return as_test_key(path.relative_to(self.home).with_suffix("").as_posix())

    def _sample(self, table: Path, entry: _Entry, coding: Coding) -> Sample:
        kept: list[tuple[str, CropMask]] = []
        for label, code in entry.objects:
            try:
                kept.append((label, decode_runs(code.runs, entry.size_hw, coding)))
            except ValueError as error:
                self._report(table, entry, code.row, error)
        shapes = outlines([mask for _, mask in kept])
        instances = [Instance(label, shape) for (label, _), shape in zip(kept, shapes, strict=True)]
        return entry.sample(instances)

    def _report(self, table: Path, entry: _Entry, row: int, error: object) -> None:
        key, group = entry.fields["key"], entry.fields.get("group", "")
        self.problems.add(table, f"row {row}: {error}", key=key, group=group)

    def finish(self, subset: str) -> None:
        """Take the test images that no table names, and say which others are left out.

        Call it when all tables are read.
        """
        left = []
        for path in self._images.paths:
            if path in self._named:
                continue
            if not is_test_key(self._key(path)):
                left.append(path)
            elif subset != "train":
                try:
                    self.samples.append((self._new_entry(path, path).sample(()), True))
                except ValueError as error:
                    self.problems.add(path, error, key=self._key(path))
        if left:
            first = left[0].relative_to(self.home).as_posix()
            self.problems.note(
                f"{self.home}: left out {len(left)} images that no table names ({first}): a row "
                "without a code keeps one, as an image without objects"
            )
