"""By which ids of an annotation file a list of COCO's results calls images and classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import Problems
from converters.files.json_files import read_member
from converters.formats.coco.documents import Document, Id, Record, entry_id
from converters.formats.coco.names import labels_of
from converters.formats.coco.results import read_ids
from converters.masks import CropMask, crop, encode_coco_rle, tight_box
from converters.types import LabelSpace


@dataclass(frozen=True)
class ResultIds:
    """The ids of one annotation file, as they are written there.

    Attributes:
        annotations: the file.
        images: key of a sample -> id.
        categories: class -> id; of several categories of a class the first.
        sizes_hw: key -> height and width as they are written there; results have to have these,
            also where a file is a pixel larger or smaller.
    """

    annotations: Path
    images: Mapping[str, Any]
    categories: Mapping[str, Any]
    sizes_hw: Mapping[str, tuple[int, int]]

    @classmethod
    def read(
        cls,
        path: Path,
        root: Path,
        labels: LabelSpace,
        keys: Collection[str],
        classes: Collection[str],
        *,
        images: Path | None = None,
        annotations: Path | None = None,
    ) -> ResultIds:
        """Find the annotation file that has all images and classes.

        Args:
            path: the list of results to be, for errors.
            root: the data set's folder.
            labels: the classes; categories are found by name or alias.
            keys: of the images that results are about.
            classes: those that results may have.
            images: a folder with the data set's images, where they do not lie with it.
            annotations: the annotation file; None finds it.

        Raises:
            ValueError: no annotation file, none that has all of them, or several.
        """
        lacking: list[str] = []
        found: list[ResultIds] = []
        for document, own in read_ids(path, root, labels, images, annotations):
            ids = cls._of(document, own, labels)
            gone = ids._gone(root, keys, classes)
            lacking += gone
            if not gone:
                found.append(ids)
        if len(found) == 1:
            return found[0]
        if not found:
            raise ValueError(
                f"{path}: COCO's results have the ids of one annotation file: expected one that "
                f"has all images and classes: {'; '.join(lacking)}"
            )
        listed = ", ".join(ids.annotations.relative_to(root).as_posix() for ids in found)
        raise ValueError(
            f"{path}: COCO's results have the ids of one annotation file, found several that have "
            f"all images and classes: {listed}: say which one is meant: --data FOLDER/FILE.json"
        )

    @classmethod
    def _of(cls, document: Document, own: Mapping[Id, str], labels: LabelSpace) -> ResultIds:
        names = labels_of(document, labels, Problems(document.path))
        numbers: dict[str, Any] = {}
        for entry in read_member(document.path, "categories"):
            if (number := entry_id(entry, "category")) in names:
                # As it is written: programs compare ids as they are.
                numbers.setdefault(names[number], entry["id"])
        entries = {
            own[number]: entry
            for entry in document.images
            if (number := entry_id(entry, "image")) in own
        }
        sizes = {
            key: (entry["height"], entry["width"])
            for key, entry in entries.items()
            if type(entry.get("height")) is type(entry.get("width")) is int
        }
        images = {key: entry["id"] for key, entry in entries.items()}
        return cls(document.path, images, numbers, sizes)

    def _gone(self, root: Path, keys: Collection[str], classes: Collection[str]) -> list[str]:
        place = self.annotations.relative_to(root).as_posix()
        return [
            f"{place} lacks {len(gone)} of the {what}, such as {gone[0]}"
            for what, gone in (
                ("images", [key for key in keys if key not in self.images]),
                ("classes", [name for name in classes if name not in self.categories]),
            )
            if gone
        ]

    def entry(
        self, key: str, label: str, score: float, mask: CropMask, size_hw: tuple[int, int]
    ) -> Record:
        """Return a detection as results list it.

        Args:
            key: of its image.
            label: its class.
            score: 0 to 1.
            mask: its pixels; at least one.
            size_hw: height and width of the image.
        """
        written_hw = self.sizes_hw.get(key, size_hw)
        if written_hw != size_hw:
            height, width = written_hw
            inside = mask.full((max(height, size_hw[0]), max(width, size_hw[1])))
            mask, size_hw = crop(np.ascontiguousarray(inside[:height, :width])), written_hw
        return {
            "image_id": self.images[key],
            "category_id": self.categories[label],
            "segmentation": encode_coco_rle(mask, size_hw),
            "bbox": list(map(float, tight_box(mask))),
            "score": round(score, 6),
        }
