"""Hugging Face data sets of others: a column of images, and one of class numbers.

So are the example for semantic segmentation of transformers, and the Hub's `scene_parse_150` and
`sidewalk-semantic`. Numbers are those of `id2label.json`, or of a column's classes if these have
one for the background (`converters.formats.hf.class_names`); names that the label space ignores are
no class, and neither is 255 without a name.

Without names the numbers are taken for the classes in their order, from 0; or from 1, where there
is one more number than classes, so that 0 must be none (what transformers' `do_reduce_labels` is
for). A map of 0 and 255 alone is that of a single class, which is 255. If nobody has named any
class, each number is one that is called by it, as in PASCAL VOC's masks without a table of colours;
so it is where a label space knows its classes by numbers, as aliases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.errors import Problems
from converters.formats.hf.class_names import column_names, has_no_class, read_names
from converters.formats.hf.map_pixels import read_numbers
from converters.formats.hf.rows import scan_rows
from converters.formats.mask_pixels import VOID, used_values
from converters.masks import crop, outline
from converters.types import Instance, LabelSpace, Sample

_IMAGES = ("image", "pixel_values", "img")
_LABELS = (
    *("label", "labels", "annotation", "annotations", "mask", "masks", "segmentation"),
    *("segmentation_mask", "semantic_mask", "semantic_segmentation", "label_image"),
)
_SHOWN = 4


@dataclass
class IndexMaps:
    """Reads class numbers first, and gives them names when all are known.

    Attributes:
        root: the data set's folder.
        image: the column of images.
        label: the column of class numbers.
        labels: the classes.
        names: what `id2label.json` or a column says; None without.
    """

    root: Path
    image: str
    label: str
    labels: LabelSpace
    names: Mapping[int, str] | None
    _uses: dict[int, str] = field(default_factory=dict)
    _unlabelled: list[str] = field(default_factory=list)

    @classmethod
    def of_columns(cls, root: Path, columns: Mapping[str, bool], labels: LabelSpace) -> IndexMaps:
        """Choose the columns.

        Args:
            root: the data set's folder.
            columns: name -> whether it holds images.
            labels: the classes.

        Raises:
            ValueError: there are no such columns, or `id2label.json` is not one.
        """
        image, label = _choose(root, columns)
        names = read_names(root)
        if names is None and has_no_class(listed := column_names(root)):
            names = dict(enumerate(listed))
        return cls(root, image, label, labels, names)

    def instances(
        self, png: bytes | None, size_hw: tuple[int, int], key: str
    ) -> tuple[Instance, ...]:
        """Return an object for each number; its label is the number, for `named`.

        Raises:
            ValueError: not a map of numbers of this size.
        """
        if png is None:
            self._unlabelled.append(key)
            return ()
        values = read_numbers(png, self.label, size_hw)
        numbers = np.flatnonzero(np.bincount(values.ravel())).tolist()
        for number in numbers:
            self._uses.setdefault(number, key)
        return tuple(Instance(str(n), outline(crop(values == n))) for n in numbers)

    def named(self, samples: Sequence[Sample], problems: Problems) -> list[Sample]:
        """Return the samples with the classes' names; what no class has is a problem."""
        classes = self._classes(problems)
        if self._unlabelled:
            problems.note(
                f"{self.label}: {len(self._unlabelled)} images without a map are taken for images "
                f"without objects ({self._unlabelled[0]}, ...)"
            )
        return [
            replace(
                sample,
                instances=tuple(
                    Instance(label, instance.geometry)
                    for instance in sample.instances
                    if (label := classes.get(int(instance.label)))
                ),
            )
            for sample in samples
        ]

    def _classes(self, problems: Problems) -> dict[int, str]:
        """Number -> class; those that mean no class are left out."""
        if not self._uses:
            return {}
        if self.names is not None:
            return self._named_classes(self.names, problems)
        if _knows_numbers(self.labels):
            return self._numbered_classes(problems)
        if len(self.labels) == 1 and _are_binary(self._uses):
            self._note_order(VOID, "0 for none", problems)
            return {VOID: self.labels.names[0]}
        return self._ordered_classes(problems)

    def _ordered_classes(self, problems: Problems) -> dict[int, str]:
        count = len(self.labels)
        used = [n for n in self._uses if n != VOID or count > VOID]
        first = 1 if count in used else 0
        if used and max(used) > count:
            other = min(n for n in used if n > count)
            problems.add(
                self.label,
                f"expected class numbers 0 to {count - 1}, or 1 to {count} and 0 for none, of the "
                f"classes of '{self.labels.name}'; found {other} in '{self._uses[other]}': write "
                f'{self.root.name}/id2label.json, such as {{"0": "background", "1": "..."}}, and '
                "add what is no class to the label space's 'ignored'",
            )
            return {}
        self._note_order(first, "0 and 255 for none" if first else "255 for none", problems)
        return {first + place: name for place, name in enumerate(self.labels.names)}

    def _note_order(self, first: int, none: str, problems: Problems) -> None:
        problems.note(
            f"{self.label}: there is no id2label.json; the numbers {first} to "
            f"{first + len(self.labels) - 1} are taken for the classes of '{self.labels.name}' in "
            f"their order ({first} is '{self.labels.names[0]}'), {none}"
        )

    def _numbered_classes(self, problems: Problems) -> dict[int, str]:
        found = {n: self.labels.canonical(str(n)) for n in sorted(self._uses)}
        classes = {number: label for number, label in found.items() if label}
        others = [n for n in found if n not in classes and n not in (0, VOID)]
        none = "0" if VOID in classes else "0 and 255"
        said = (
            f"{self.label}: there is no id2label.json; numbers are taken for classes of their own"
        )
        problems.note(f"{said}, {none} for none")
        if others:
            shown = ", ".join(map(str, others[:_SHOWN])) + ", ..." * (len(others) > _SHOWN)
            what = f"left out numbers that are no class of '{self.labels.name}': {shown}"
            problems.note(f"{self.label}: {what}")
        return classes

    def _named_classes(self, names: Mapping[int, str], problems: Problems) -> dict[int, str]:
        classes: dict[int, str] = {}
        for number, key in sorted(self._uses.items()):
            name = names.get(number)
            label = self.labels.canonical(name) if name is not None else None
            if label:
                classes[number] = label
            elif name is None and number not in (0, VOID):  # 0 without a name is no class
                known = f"{min(names)} to {max(names)}"
                problems.add(
                    self.label,
                    f"expected a number of id2label.json ({known}), found {number} in '{key}'",
                )
            elif name is not None and name not in self.labels.ignored:
                problems.add(
                    self.label,
                    f"number {number} is '{name}' in id2label.json: expected a class of "
                    f"'{self.labels.name}', an alias, or one of its 'ignored' names, found another "
                    f"one in '{key}'",
                )
        return classes


def _choose(root: Path, columns: Mapping[str, bool]) -> tuple[str, str]:
    image = next((name for name in _IMAGES if columns.get(name)), None)
    label = next((name for name in _LABELS if columns.get(name)), None)
    if image is None or label is None:
        raise ValueError(
            f"{root}: expected columns of images, one of {', '.join(_IMAGES)} and one of "
            f"{', '.join(_LABELS)}; found {', '.join(columns):.200}: rename the two columns"
        )
    return image, label


def _knows_numbers(labels: LabelSpace) -> bool:
    """Tell whether a label space is of `find_numbers`, or has numbers for aliases."""
    is_found = "0" in labels.ignored and all(map(str.isdecimal, labels.names))
    return is_found or any(map(str.isdecimal, labels.aliases))


def _are_binary(numbers: Collection[int]) -> bool:
    return VOID in numbers and set(numbers) <= {0, VOID}


def find_numbers(
    root: Path, splits: Mapping[str, Sequence[Path]], columns: Mapping[str, bool]
) -> LabelSpace | None:
    """Return a class for each number in the maps that means one; None without any.

    Args:
        root: the data set's folder.
        splits: their files.
        columns: name -> whether it holds images.

    Raises:
        ValueError: there are no such columns.
    """
    image, label = _choose(root, columns)
    numbers: set[int] = set()
    for file in (file for files in splits.values() for file in files):
        # What is broken in files and rows is said when they are read.
        with suppress(OSError, ValueError):
            for row in scan_rows(file, image, [label]):
                with suppress(ValueError):
                    content = (row[label] or {}).get("bytes") or b""
                    numbers |= set(used_values(read_numbers(content, label)))
    has_void = VOID in numbers and max(numbers) == VOID and not _are_binary(numbers)
    none = {0, VOID} if has_void else {0}
    names = tuple(str(number) for number in sorted(numbers - none))
    ignored = tuple(str(number) for number in sorted(none))
    return LabelSpace(root.resolve().name or "mine", names, ignored=ignored) if names else None
