"""Which form another program's predictions are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import converters
from fusion.interchange.files.arrays import Activation, array_files, open_arrays
from fusion.interchange.files.class_masks import find_class_masks, open_class_masks
from fusion.interchange.files.coco_results import open_results
from fusion.interchange.files.data_sets import open_data_set, open_tables
from fusion.interchange.files.index_maps import map_files, open_index_maps
from fusion.interchange.files.label_files import are_results, open_label_files
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.sources.manifest import FILE as MANIFEST

FORMS = (
    "COCO results (JSON), a table of run-length codes (CSV), a folder of label files of YOLO, of "
    "index maps or masks of classes (PNG), or of arrays of probabilities (NPY, NPZ), or a data set"
)
"""What is known, in words."""
# Of a file it is enough to see its first entry.
_HEAD = 1 << 16
_JSON, _TABLES = (".json",), (".csv", ".tsv")


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
    if activation is not None:
        if path.is_dir() and not map_files(path) and (arrays := array_files(path)):
            return open_arrays(path, arrays, known, note, activation)
        raise ValueError(
            f"--activation {activation}: expected a folder of arrays (NPY, NPZ) of logits, "
            f"found {path}"
        )
    if (path / MANIFEST).is_file():
        raise ValueError(f"{path}: expected another program's predictions, found a store already")
    is_free = data_format is None and path.is_dir()
    if is_free and (lists := _lists(path)) and not converters.is_data_set(path):
        return open_results(path, lists, known, root, images, annotations, note)
    if not path.is_dir():
        if data_format is not None:
            raise ValueError(f"--from {data_format}: expected a folder with it, found {path}")
        suffix = path.suffix.lower()
        if suffix in _JSON:
            return open_results(path, [path], known, root, images, annotations, note)
        if suffix in _TABLES:
            return open_tables(path, [path], images or root, known, note)
        raise ValueError(f"{path}: expected {FORMS}, found another file")
    if data_format is not None:
        return open_data_set(path, data_format, known, note)
    is_data_set = converters.is_data_set(path)
    if are_results(path, is_data_set):
        return open_label_files(path, known, note)
    if is_data_set:
        return open_data_set(path, converters.recognise(path), known, note)
    maps, arrays = map_files(path), array_files(path)
    if arrays and not maps:
        return open_arrays(path, arrays, known, note)
    if not maps:
        # As folds have them, one each.
        folders = sorted(one for one in path.iterdir() if one.is_dir())
        if lists := [file for folder in folders for file in _lists(folder)]:
            return open_results(path, lists, known, root, images, annotations, note)
        if tables := [file for folder in (path, *folders) for file in _of_kind(folder, _TABLES)]:
            return open_tables(path, tables, images or root, known, note)
    try:
        files = match_files(path, maps, known)
    except ValueError:
        masks = find_class_masks(path, maps, known)
        if masks is None:
            raise
        return open_class_masks(path, masks, known, note)
    return open_index_maps(path, files, known, note)


def _lists(folder: Path) -> list[Path]:
    """Return the lists of COCO results in a folder, sorted.

    Of several they are those with outlines: MMDetection writes `NAME.bbox.json`, `NAME.segm.json`.
    """
    heads = {path: _head(path) for path in _of_kind(folder, _JSON)}
    found = [path for path, head in heads.items() if head.startswith(b"[")]
    return [one for one in found if len(found) == 1 or b'"segmentation"' in heads[one]]


def _of_kind(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file()
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD).lstrip(b"\xef\xbb\xbf \t\r\n")
