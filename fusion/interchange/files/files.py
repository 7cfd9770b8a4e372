"""Which form another program's predictions are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import converters
from fusion.interchange.files.array_files import are_maps, match_arrays
from fusion.interchange.files.arrays import Activation, open_arrays
from fusion.interchange.files.class_masks import find_class_masks, open_class_masks
from fusion.interchange.files.coco_results import open_results
from fusion.interchange.files.content import ARRAYS, TABLES, FolderContent
from fusion.interchange.files.data_sets import open_data_set, open_tables
from fusion.interchange.files.index_maps import choose_maps, open_index_maps
from fusion.interchange.files.label_files import choose_labels, open_label_files
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.sources.manifest import FILE as MANIFEST

FORMS = (
    "COCO results (JSON), a table of run-length codes (CSV), arrays of probabilities (NPY, NPZ), a "
    "folder with such files, with label files of YOLO, index maps or masks of classes (PNG), or a "
    "data set"
)
"""What is known, in words."""


def open_written(
    path: Path,
    known: KnownImages,
    root: Path,
    *,
    data_format: str | None = None,
    images: Path | None = None,
    annotations: Path | None = None,
    activation: Activation | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> WrittenPredictions:
    """Open predictions of another program.

    Args:
        path: a file or a folder.
        known: the data set's images.
        root: the data set's folder.
        data_format: the format of predictions that are a data set; None recognises it.
        images: a folder with the data set's images, where they do not lie with it.
        annotations: the annotation file whose ids COCO's results have; None finds it.
        activation: what makes probabilities of arrays of logits; None where they are probabilities.
        note: told of what has to be said.

    Raises:
        ValueError: none of these, files that are broken or of other images, or an activation of
            other than arrays.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected predictions, found nothing")
    if (path / MANIFEST).is_file():
        raise ValueError(f"{path}: expected another program's predictions, found a store already")
    if data_format is not None and not path.is_dir():
        raise ValueError(f"--from {data_format}: expected a folder with it, found {path}")
    opening = _Opening(path, known, root, images, annotations, note)
    if activation is not None:
        return opening.logits(activation)
    if data_format is not None:
        return open_data_set(path, data_format, known, note)
    return opening.folder() if path.is_dir() else opening.file()


@dataclass(frozen=True)
class _Opening:
    """What is opened; see `open_written`."""

    path: Path
    known: KnownImages
    root: Path
    images: Path | None
    annotations: Path | None
    note: Callable[[str], None]

    def file(self) -> WrittenPredictions:
        """Open a file."""
        suffix = self.path.suffix.lower()
        if suffix == ".json":
            return self._lists([self.path])
        if suffix in TABLES:
            return self._tables([self.path])
        if suffix in ARRAYS:
            return self._arrays([self.path])
        raise ValueError(f"{self.path}: expected {FORMS}, found another file")

    def logits(self, activation: Activation) -> WrittenPredictions:
        """Open arrays, whatever else is there."""
        if self.path.is_dir():
            arrays = FolderContent.look(self.path).arrays
        else:
            arrays = tuple(path for path in [self.path] if path.suffix.lower() in ARRAYS)
        if not arrays:
            raise ValueError(
                f"--activation {activation}: expected arrays (NPY, NPZ) of logits, or a folder "
                f"with them, found {self.path}"
            )
        return self._arrays(arrays, activation)

    def folder(self) -> WrittenPredictions:
        """Open a folder by what lies in it; what is left out and may be meant is said."""
        path, known, note = self.path, self.known, self.note
        found = FolderContent.look(path)
        data_format = converters.recognise(path) if converters.is_data_set(path) else ""
        has_images = bool(found.named(found.images, known))
        labels = choose_labels(path, found.texts)
        are_labels = bool(found.named(labels, known))
        are_labels &= not data_format or (data_format == "yolo" and not has_images)
        if found.lists and not (data_format == "coco" and has_images):
            try:
                lists = self._lists(found.lists)
            except ValueError as error:
                # As Ultralytics' val writes both, with names in the place of ids.
                if not are_labels:
                    raise
                note(f"left out a list of COCO results: {error}")
            else:
                self._say_left_out(found, "lists of COCO results", found.lists)
                return lists
        if are_labels:
            self._say_left_out(found, "label files", [*labels, *found.lists])
            return open_label_files(path, labels, known, note)
        if data_format and _is_set(data_format, has_images, found, known):
            return open_data_set(path, data_format, known, note)
        return self._pixels(found) or self._rows(found, labels)

    def _pixels(self, found: FolderContent) -> WrittenPredictions | None:
        """Open arrays, maps or masks; None where there are none."""
        path, known, note = self.path, self.known, self.note
        maps = choose_maps(path, found.maps)
        arrays = found.own_arrays
        if found.named(arrays, known) or (arrays and not maps):
            self._say_left_out(found, "arrays", arrays)
            return self._arrays(arrays)
        if not maps:
            return None
        read = [*maps, *found.arrays]
        try:
            files = match_files(path, maps, known)
        except ValueError:
            masks = find_class_masks(path, maps, known)
            if masks is None and found.tables and not found.named(maps, known):
                return None
            self._say_left_out(found, "maps", read)
            if masks is None:
                raise
            return open_class_masks(path, masks, known, note)
        self._say_left_out(found, "maps", read)
        return open_index_maps(path, files, known, note)

    def _rows(self, found: FolderContent, labels: Sequence[Path]) -> WrittenPredictions:
        """Open tables; where there are none, say what there is instead."""
        if found.tables:
            self._say_left_out(found, "tables of run-length codes", found.tables)
            return self._tables(found.tables)
        if documents := [*found.boxes, *found.others]:
            return self._lists(documents[:1])
        if labels:
            return open_label_files(self.path, labels, self.known, self.note)
        raise ValueError(f"{self.path}: expected {FORMS}, found none of them")

    def _lists(self, files: Sequence[Path]) -> WrittenPredictions:
        return open_results(
            self.path, files, self.known, self.root, self.images, self.annotations, self.note
        )

    def _arrays(
        self, files: Sequence[Path], activation: Activation | None = None
    ) -> WrittenPredictions:
        folder = self.path if self.path.is_dir() else self.path.parent
        arrays = match_arrays(folder, files, self.known)
        if are_maps(folder, arrays.values(), self.known):
            if activation is not None:
                raise ValueError(
                    f"--activation {activation}: expected logits, found whole numbers in one plane "
                    f"in {self.path}: numbers of classes want none"
                )
            return open_index_maps(folder, arrays, self.known, self.note)
        return open_arrays(folder, arrays, self.known, self.note, activation)

    def _tables(self, files: Sequence[Path]) -> WrittenPredictions:
        return open_tables(self.path, files, self.images or self.root, self.known, self.note)

    def _say_left_out(self, found: FolderContent, form: str, read: Iterable[Path]) -> None:
        """Say which files may be predictions, too, but are not read."""
        taken = set(read)
        folders = {path.parent for path in taken}
        boxes = [path for path in found.boxes if path.parent not in folders]
        maps = choose_maps(self.path, found.maps)
        named = found.named([*found.arrays, *maps, *found.texts], self.known)
        others = [*found.lists, *boxes, *found.tables, *named]
        if left := [path for path in others if path not in taken]:
            self.note(
                f"{self.path}: {form} are read; left out what may be predictions, too (files: "
                f"{len(left)}, such as {left[0]}): where these are meant, name their folder"
            )


def _is_set(data_format: str, has_images: bool, found: FolderContent, known: KnownImages) -> bool:
    """Tell a data set from predictions in such a one's tree."""
    if data_format == "rle_table":
        return has_images
    if data_format == "handbone":
        return bool(found.others)
    return has_images or not found.named(found.own_arrays, known)
