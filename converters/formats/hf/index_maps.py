"""Hugging Face data sets of others: a column of images, and one of class numbers.

So are the example for semantic segmentation of transformers, and the Hub's `scene_parse_150` and
`sidewalk-semantic`. Numbers are those of `id2label.json`, if that lies in the folder, as it does in
a model's repository; names that the label space ignores are no class. Without it the numbers are
taken for the classes in their order, from 0; or from 1, where there is one more number than
classes, so that 0 must be none (what transformers' `do_reduce_labels` is for). 255 is none in
either case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.errors import Problems
from converters.files.json_files import read_json
from converters.formats.mask_pixels import VOID, read_mask_pixels
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
        names: what `id2label.json` says; None without it.
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
        image = next((name for name in _IMAGES if columns.get(name)), None)
        label = next((name for name in _LABELS if columns.get(name)), None)
        if image is None or label is None:
            raise ValueError(
                f"{root}: expected columns of images, one of {', '.join(_IMAGES)} and one of "
                f"{', '.join(_LABELS)}; found {', '.join(columns):.200}: rename the two columns"
            )
        return cls(root, image, label, labels, read_names(root))

    def instances(
        self, png: bytes | None, size_hw: tuple[int, int], key: str
    ) -> tuple[Instance, ...]:
        """Return an object for each number but 255; its label is the number, for `named`.

        Raises:
            ValueError: not a map of numbers of this size.
        """
        if png is None:
            self._unlabelled.append(key)
            return ()
        pixels = read_mask_pixels(png, size_hw)
        if pixels.values.ndim != 2:
            raise ValueError(
                f"{self.label}: expected class numbers, a grey image or one with a palette, found "
                f"{pixels.describe()}"
            )
        numbers = np.flatnonzero(np.bincount(pixels.values.ravel())).tolist()
        kept = [number for number in numbers if number != VOID or self._is_class(VOID)]
        for number in kept:
            self._uses.setdefault(number, key)
        return tuple(Instance(str(n), outline(crop(pixels.values == n))) for n in kept)

    def _is_class(self, number: int) -> bool:
        return number in self.names if self.names else len(self.labels) > number

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
        count = len(self.labels)
        others = [n for n in self._uses if n > count]
        first = 1 if count in self._uses else 0
        if others:
            problems.add(
                self.label,
                f"expected class numbers 0 to {count - 1}, or 1 to {count} and 0 for none, of the "
                f"classes of '{self.labels.name}'; found {min(others)} in "
                f"'{self._uses[min(others)]}': write {self.root.name}/id2label.json, such as "
                '{"0": "background", "1": "..."}, and add what is no class to the label space\'s '
                "'ignored'",
            )
            return {}
        none = "0 and 255 for none" if first else "255 for none"
        problems.note(
            f"{self.label}: there is no id2label.json; the numbers {first} to {first + count - 1} "
            f"are taken for the classes of '{self.labels.name}' in their order "
            f"({first} is '{self.labels.names[0]}'), {none}"
        )
        return {first + place: name for place, name in enumerate(self.labels.names)}

    def _named_classes(self, names: Mapping[int, str], problems: Problems) -> dict[int, str]:
        classes: dict[int, str] = {}
        for number, key in sorted(self._uses.items()):
            name = names.get(number)
            label = self.labels.canonical(name) if name is not None else None
            if label:
                classes[number] = label
            elif name is None:
                known = f"{min(names)} to {max(names)}"
                problems.add(
                    self.label,
                    f"expected a number of id2label.json ({known}), found {number} in '{key}'",
                )
            elif name not in self.labels.ignored:
                problems.add(
                    self.label,
                    f"number {number} is '{name}' in id2label.json: expected a class of "
                    f"'{self.labels.name}', an alias, or one of its 'ignored' names, found another "
                    f"one in '{key}'",
                )
        return classes


def read_names(root: Path) -> dict[int, str] | None:
    """Return what `id2label.json` says; None without it; raises ValueError if it is broken."""
    path = root / "id2label.json"
    if not path.is_file():
        return None
    record = read_json(path, "numbers with class names")
    try:
        names = {int(number): name for number, name in record.items()}
    except (AttributeError, ValueError):
        names = {}
    if not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{path}: expected numbers with class names, found {record!r:.80}")
    return names
