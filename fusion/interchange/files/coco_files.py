"""COCO's files of predictions, which bring their own images and categories.

    {"images": [{"id": 1, "file_name": "a.png", ...}, ...], "categories": [{"id": 1, "name": ...}],
     "annotations": [{"image_id": 1, "category_id": 1, "segmentation": ..., "score": .9}, ...]}

FiftyOne, label tools and `zoo fuse --format coco` write them. Images are those of the data set that
are called so, by path or name, and need not lie beside the file; ids are the file's own. Where no
score is written it is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from converters.files.names import ends_of, plain_path
from converters.formats.coco.documents import (
    Document,
    Id,
    Record,
    category_names,
    entry_id,
)
from converters.formats.coco.files import annotation_files, has_scores
from converters.formats.coco.images import shown_name
from converters.formats.coco.results import CocoResults
from fusion.interchange.files.coco_results import of_results
from fusion.interchange.files.written import KnownImages, WrittenPredictions, one_key


def choose_documents(
    files: Sequence[Path],
    root: Path,
    annotations: Path | None,
    note: Callable[[str], None],
) -> list[Path]:
    """Return those of a folder's COCO files that are predictions.

    The data set's own annotations, or a copy of these, are none where others are there; neither are
    files without scores beside such with them.

    Args:
        files: COCO's.
        root: the data set's folder.
        annotations: the data set's annotation file; None finds it.
        note: told which are left out.
    """
    own = own_annotations(files, root, annotations)
    kept = [path for path in files if path not in own] or own
    kept = [path for path in kept if has_scores(path)] or kept
    for path in files:
        if path not in kept:
            what = "the data set's own annotations" if path in own else "objects without scores"
            note(f"{path}: left out {what}, as {kept[0]} has predictions")
    return kept


def own_annotations(
    files: Sequence[Path], root: Path, annotations: Path | None = None
) -> list[Path]:
    """Return the files that are annotation files of a data set, or copies of these.

    Args:
        files: that may be.
        root: the data set's folder.
        annotations: its annotation file; None finds all.
    """
    own = [annotations] if annotations else annotation_files(root)
    return [path for path in files if any(_are_same(path, other) for other in own)]


def _are_same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    return one.samefile(other) or one.read_bytes() == other.read_bytes()


def open_coco_files(
    path: Path, files: Sequence[Path], known: KnownImages, note: Callable[[str], None]
) -> WrittenPredictions:
    """Open COCO's files.

    Args:
        path: the file, or the folder with all of them.
        files: the files; several have objects of other images each, as those of folds.
        known: the data set's images.
        note: told of classes that are left out, or are never there.

    Raises:
        ValueError: a broken file, one with an image that is not of the data set or has another
            size, or without a class that is asked for; or two with objects of one image.
    """
    found: list[CocoResults] = []
    stated: set[str] = set()
    for file in files:
        try:
            document = Document.load(file)
            keys = _keys(document, known)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        labels = _labels(document, known, note)
        stated.update(labels.values())
        found.append(CocoResults.of_document(document, keys, labels))
    spoken = known.spoken(path, stated, note)
    return of_results("a COCO file", found, known, spoken)


def _labels(document: Document, known: KnownImages, note: Callable[[str], None]) -> dict[Id, str]:
    """The classes of a file's categories; of those that are not asked for there is none."""
    # Roboflow names the group of all others, too.
    named = set(category_names(document.path))
    uses = document.annotations.uses
    own = {n: name for n, name in document.categories.items() if uses[n] or name in named}
    if not own:
        return {}
    found = known.take_names(document.path, own.values(), note)
    return {number: label for number, label in zip(own, found, strict=True) if label}


def _keys(document: Document, known: KnownImages) -> dict[Id, str]:
    """Return id -> key, of a file's images."""
    keys: dict[Id, str] = {}
    owners: dict[str, object] = {}
    for entry in document.images:
        number, name = entry_id(entry, "image"), shown_name(entry)
        try:
            if number in keys:
                raise ValueError(f"expected an id of its own, found {number!r} twice")
            key = next(filter(None, (one_key(known.stems, one) for one in _names(entry))), None)
            if key is None:
                raise ValueError("expected an image of the data set, found none of that name")
            if key in owners:
                raise ValueError(f"expected one image '{key}', found {owners[key]!r:.80} too")
            _check_size(entry, known.samples[key].size_hw)
        except ValueError as error:
            raise ValueError(f"image {name!r:.80}: {error}") from None
        keys[number] = key
        owners[key] = name
    return keys


def _names(entry: Record) -> Iterator[str]:
    """Yield what the image of an entry may be called, the most exact name first."""
    own = entry.get("sample")
    if isinstance(own, Mapping) and isinstance(own.get("key"), str):
        yield own["key"]
    name = shown_name(entry)
    for end in ends_of(plain_path(name)) if isinstance(name, str) else ():
        yield end
        yield PurePosixPath(end).with_suffix("").as_posix()


def _check_size(entry: Record, size_hw: tuple[int, int]) -> None:
    said = tuple(entry.get(name) for name in ("height", "width"))
    if None not in said and said != tuple(size_hw):
        raise ValueError(
            f"expected height and width {tuple(size_hw)}, as in the data set, found {said!r:.80}"
        )
