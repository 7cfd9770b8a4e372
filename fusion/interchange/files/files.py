"""Which form another program's predictions are in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import converters
from converters.formats.coco.files import has_scores, head_of_results, is_annotation_file
from fusion.interchange.files.array_files import are_maps, match_arrays
from fusion.interchange.files.arrays import Activation, open_arrays
from fusion.interchange.files.class_masks import find_class_masks, open_class_masks
from fusion.interchange.files.coco_files import (
    choose_documents,
    open_coco_files,
    own_annotations,
)
from fusion.interchange.files.coco_results import open_results
from fusion.interchange.files.content import (
    ARRAYS,
    TABLES,
    FolderContent,
    is_called_as_image,
)
from fusion.interchange.files.data_sets import open_data_set, open_tables
from fusion.interchange.files.index_maps import choose_maps, open_index_maps
from fusion.interchange.files.label_files import choose_labels, open_label_files
from fusion.interchange.files.tiff import is_tiff
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.sources.manifest import FILE as MANIFEST

FORMS = (
    "COCO results or a COCO file (JSON), a table of run-length codes (CSV), arrays of "
    "probabilities (NPY, NPZ), a folder with such files, with label files of YOLO, index maps or "
    "masks of classes (PNG, TIFF), or a data set"
)
"""What is known, in words."""
_REMEDY = (
    ": save what other files hold, such as NIfTI, as NPY by numpy.save, (classes, H, W) an image, "
    "each called as its image"
)


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
            if is_annotation_file(self.path) and not head_of_results(self.path):
                return self._documents([self.path])
            return self._lists([self.path])
        if suffix in TABLES:
            return self._tables([self.path])
        if suffix in ARRAYS:
            return self._arrays([self.path])
        if is_tiff(self.path):
            return self._arrays([self.path])
        raise ValueError(f"{self.path}: expected {FORMS}, found another file{_REMEDY}")

    def logits(self, activation: Activation) -> WrittenPredictions:
        """Open arrays, whatever else is there."""
        if self.path.is_dir():
            found = FolderContent.look(self.path)
            arrays = found.arrays or found.tiffs
        else:
            is_array = self.path.suffix.lower() in ARRAYS or is_tiff(self.path)
            arrays = (self.path,) if is_array else ()
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
        if not has_images or any(map(has_scores, found.documents)):
            if found.documents and not found.named(found.own_arrays, known):
                return self._coco(found)
        elif data_format == "coco" and self._has_own_annotations(found):
            data_format = ""
        if data_format and _is_set(data_format, has_images, found, known):
            self._say_own(found.documents)
            return open_data_set(path, data_format, known, note)
        return self._pixels(found) or self._rows(found, labels)

    def _coco(self, found: FolderContent) -> WrittenPredictions:
        """Open COCO's files of a folder; PNGs beside them may be the images."""
        documents = choose_documents(found.documents, self.root, self.annotations, self.note)
        self._say_left_out(replace(found, maps=()), "COCO files", found.documents)
        return self._documents(documents)

    def _has_own_annotations(self, found: FolderContent) -> bool:
        """Tell whether maps lie beside a copy of the data set's annotations, without its images."""
        own = own_annotations(found.documents, self.root, self.annotations)
        maps = found.named([*found.maps, *found.tiffs], self.known)
        if not maps or len(own) < len(found.documents) or self._is_image(maps[0]):
            return False
        self.note(f"{own[0]}: left out the data set's own annotations, as maps have predictions")
        return True

    def _is_image(self, path: Path) -> bool:
        """Tell whether a map is an image of the data set."""
        content = path.read_bytes()
        keys = self.known.stems.get(path.stem, [])
        images = (Path(str(self.known.samples[key].image)) for key in keys)
        return any(image.is_file() and image.read_bytes() == content for image in images)

    def _pixels(self, found: FolderContent) -> WrittenPredictions | None:
        """Open arrays, maps or masks; None where there are none."""
        path, known, note = self.path, self.known, self.note
        maps = choose_maps(path, found.maps)
        arrays = found.own_arrays
        if found.named(arrays, known) or (arrays and not maps):
            self._say_left_out(found, "arrays", arrays)
            return self._arrays(arrays)
        if found.tiffs and not self._are_ours(maps):
            return self._tiffs(found)
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

    def _are_ours(self, maps: list[Path]) -> bool:
        """Tell whether maps, or masks of classes, are called as images are; plots are not."""
        is_named = any(is_called_as_image(self.path, path, self.known) for path in maps)
        return is_named or find_class_masks(self.path, maps, self.known) is not None

    def _tiffs(self, found: FolderContent) -> WrittenPredictions:
        """Open TIFFs: masks of classes, or planes or numbers as arrays."""
        path, known = self.path, self.known
        self._say_left_out(found, "TIFFs", found.tiffs)
        try:
            match_files(path, found.tiffs, known)
        except ValueError:
            if masks := find_class_masks(path, list(found.tiffs), known):
                return open_class_masks(path, masks, known, self.note)
            raise
        return self._arrays(found.tiffs)

    def _rows(self, found: FolderContent, labels: Sequence[Path]) -> WrittenPredictions:
        """Open tables; where there are none, say what there is instead."""
        if found.tables:
            self._say_left_out(found, "tables of run-length codes", found.tables)
            return self._tables(found.tables)
        if documents := [*found.boxes, *found.others]:
            return self._lists(documents[:1])
        if labels:
            return open_label_files(self.path, labels, self.known, self.note)
        raise ValueError(f"{self.path}: expected {FORMS}, found {_list_files(found.files)}")

    def _lists(self, files: Sequence[Path]) -> WrittenPredictions:
        return open_results(
            self.path, files, self.known, self.root, self.images, self.annotations, self.note
        )

    def _documents(self, files: Sequence[Path]) -> WrittenPredictions:
        self._say_own(files)
        return open_coco_files(self.path, files, self.known, self.note)

    def _say_own(self, files: Sequence[Path]) -> None:
        """Say which files that are taken are the data set's own; of all of it others say so."""
        if self.path.resolve() != self.root.resolve():
            for path in own_annotations(files, self.root, self.annotations):
                self.note(f"{path}: the data set's own annotations are taken for predictions")

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
        named = found.named([*found.arrays, *maps, *found.texts, *found.tiffs], self.known)
        if named and found.tiffs and self._is_image(found.tiffs[0]):
            named = [path for path in named if path not in found.tiffs]
        documents = filter(has_scores, found.documents)
        others = [*found.lists, *documents, *boxes, *found.tables, *named]
        if left := [path for path in others if path not in taken]:
            self.note(
                f"{self.path}: {form} are read; left out what may be predictions, too (files: "
                f"{len(left)}, such as {left[0]}): where these are meant, name their folder"
            )


def _list_files(files: Sequence[Path]) -> str:
    """Say how many files there are instead, and what to do with them."""
    if not files:
        return "no file"
    return f"none of them among {len(files)} files, such as {files[0].name}{_REMEDY}"


def _is_set(data_format: str, has_images: bool, found: FolderContent, known: KnownImages) -> bool:
    """Tell a data set from predictions in such a one's tree."""
    if data_format == "rle_table":
        return has_images
    if data_format == "handbone":
        return bool(found.others)
    return has_images or not found.named(found.own_arrays, known)
