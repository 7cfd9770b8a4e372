"""COCO's results: a JSON list of detections, by ids of images and categories of another file.

    [{"image_id": 1, "category_id": 3, "segmentation": RLE or polygons, "score": .9}, ...]

As `loadRes` of pycocotools reads it, and Detectron2, MMDetection and others write it. What the ids
mean is said by the data set's annotation file. One file is meant: that which has all images and
categories of the list. The list is about all images of this file: those without a detection are not
named. An object without pixels is none.

A whole file, with images and categories of its own, may hold predictions, too: `annotations` with
`score`, as FiftyOne writes them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.errors import Problems, boxes_only
from converters.files.json_lists import JsonList, scan_list
from converters.formats.coco.documents import Annotations, Document, Id, Record, normal_id
from converters.formats.coco.files import annotation_files
from converters.formats.coco.names import labels_of
from converters.formats.coco.reading import CocoReader
from converters.formats.coco.shapes import NoPixelsError, decode_segmentations
from converters.masks import CropMask
from converters.types import LabelSpace

# Bytes.
_FEW = 64


@dataclass(frozen=True)
class CocoResults:
    """A list of results; its entries stay in the file.

    Attributes:
        path: the file.
        annotations: the annotation file whose ids it has.
        keys: of all images of that file.
        classes: of those that are asked for the ones that a detection is of.
        has_scores: whether a detection has one.
    """

    path: Path
    annotations: Path
    keys: tuple[str, ...]
    classes: frozenset[str]
    has_scores: bool
    _entries: JsonList | Annotations
    _places: Mapping[str, Sequence[int]]
    _labels: Mapping[Id, str]

    @classmethod
    def open_all(
        cls,
        paths: Sequence[Path],
        root: Path,
        labels: LabelSpace,
        *,
        images: Path | None = None,
        annotations: Path | None = None,
    ) -> list[CocoResults]:
        """Find out what the ids of lists mean; of several an empty one is left out.

        Args:
            paths: the lists.
            root: the data set's folder.
            labels: the classes; categories are found by name or alias.
            images: a folder with the data set's images, where they do not lie with it.
            annotations: the annotation file whose ids are meant; None finds it.

        Raises:
            ValueError: no list of results, a data set that is not COCO's, or ids of no one of its
                files, or of several.
        """
        given = [path for path in paths if len(paths) == 1 or not _is_empty(path)]
        scanned = [(path, *_scan(path)) for path in given]
        # Annotation files may be large: they are read once.
        known = read_ids(given[0], root, labels, images, annotations) if given else []
        return [cls._of(*one, root, known, labels) for one in scanned]

    @classmethod
    def _of(
        cls,
        path: Path,
        entries: JsonList,
        numbers: Sequence[Id],
        categories: Sequence[Id],
        has_scores: bool,
        root: Path,
        known: Sequence[tuple[Document, dict[Id, str]]],
        labels: LabelSpace,
    ) -> CocoResults:
        document, keys = _meant(path, root, known, set(numbers), set(categories))
        places: dict[str, array[int]] = {}
        for place, number in enumerate(numbers):
            places.setdefault(keys[number], array("L")).append(place)
        named = labels_of(document, labels, Problems(root))
        classes = frozenset(named[number] for number in set(categories) if number in named)
        own = tuple(keys.values())
        return cls(path, document.path, own, classes, has_scores, entries, places, named)

    @classmethod
    def of_document(
        cls, document: Document, keys: Mapping[Id, str], labels: Mapping[Id, str]
    ) -> CocoResults:
        """Take the annotations of a file for detections.

        Args:
            document: the file.
            keys: id -> key, of all its images.
            labels: id -> class, of the categories that are asked for.

        Raises:
            ValueError: annotations of boxes, or of another task; or one of no image or category of
                the file.
        """
        every = document.annotations
        if task := "COCO panoptic" if document.is_panoptic else document.other_task:
            raise ValueError(
                f"{document.path}: expected objects with polygons or run-length codes, found {task}"
            )
        if document.is_of_boxes:
            raise ValueError(f"{document.path}: {boxes_only(len(every))}")
        places: dict[str, array[int]] = {}
        for place, (number, own) in enumerate(zip(every.images, every.categories, strict=True)):
            key = None if number is None else keys.get(number)
            if key is None or not own <= document.categories.keys():
                what = "an image" if key is None else "a category"
                raise ValueError(
                    f"{document.path}: annotation at place {place}: expected {what} of this file, "
                    "found another id"
                )
            places.setdefault(key, array("L")).append(place)
        classes = frozenset(label for number, label in labels.items() if every.uses[number])
        path, own_keys, has_scores = document.path, tuple(keys.values()), "score" in every.members
        return cls(path, path, own_keys, classes, has_scores, every, places, labels)

    @property
    def keys_found(self) -> tuple[str, ...]:
        """Of the images that have a detection."""
        return tuple(self._places)

    def detections(self, key: str, size_hw: tuple[int, int]) -> list[tuple[str, float, CropMask]]:
        """Return the detections of an image, of the classes that are asked for.

        Args:
            key: of the image.
            size_hw: its height and width.

        Returns:
            (class, score from 0 to 1, mask of at least one pixel) each; 1 where no score is
            written.

        Raises:
            ValueError: one without an outline or a code, of another size, or with a score that is
                none; names its place in the list.
        """
        places = self._places.get(key, ())
        own: list[tuple[int, str, Record]] = []
        for place, entry in zip(places, self._entries.read(places), strict=True):
            number = normal_id(entry.get("category_id"))
            if number is not None and number in self._labels:
                own.append((place, self._labels[number], entry))
        shapes = decode_segmentations([e.get("segmentation") for _, _, e in own], size_hw)
        found: list[tuple[str, float, CropMask]] = []
        for (place, label, entry), shape in zip(own, shapes, strict=True):
            where = f"detection at place {place} ('{label}')"
            try:
                score = _score(entry)
                if not isinstance(shape, ValueError):
                    found.append((label, score, shape.mask))
                elif not isinstance(shape, NoPixelsError):
                    raise shape
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        return found


def _is_empty(path: Path) -> bool:
    # Not read whole to see that.
    return path.stat().st_size < _FEW and path.read_bytes().split() in ([b"[]"], [b"[", b"]"])


def read_ids(
    path: Path, root: Path, labels: LabelSpace, images: Path | None, annotations: Path | None
) -> list[tuple[Document, dict[Id, str]]]:
    """Return a data set's annotation files, and what their ids of images stand for: keys.

    Args:
        path: the list of results, for errors.
        root: the data set's folder.
        labels: the classes; categories are found by name or alias.
        images: a folder with the data set's images, where they do not lie with it.
        annotations: the one annotation file; None takes all.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    files = [annotations] if annotations else annotation_files(root)
    if not files:
        raise ValueError(
            f"{path}: COCO's results name images and classes by the ids of an annotation file: "
            f"expected a COCO data set, found none in {root}: zoo convert {root} --to coco "
            "writes one"
        )
    problems = Problems(root)
    found = CocoReader(root, labels, problems, images).keys(files)
    problems.check()
    return found


def _scan(path: Path) -> tuple[JsonList, list[Id], list[Id], bool]:
    """Return the entries, their ids of images and of categories, and whether one has a score."""
    numbers: list[Id] = []
    categories: list[Id] = []
    has_scores = False

    def take(entry: object) -> None:
        nonlocal has_scores
        if not isinstance(entry, Mapping):
            raise ValueError(f"expected detections, found {entry!r:.40} at place {len(numbers)}")
        for found, name in ((numbers, "image_id"), (categories, "category_id")):
            number = normal_id(entry.get(name))
            if number is None:
                raise ValueError(
                    f"detection at place {len(numbers)}: expected '{name}' to be an id, found "
                    f"{entry.get(name)!r:.40}"
                )
            found.append(number)
        has_scores = has_scores or "score" in entry

    try:
        content, entries = scan_list(path, None, take)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if content != [] or not numbers:
        found = "an empty list" if content == [] else "another JSON file"
        raise ValueError(f"{path}: expected COCO's results, a list of detections, found {found}")
    return entries, numbers, categories, has_scores


def _place(document: Document, root: Path) -> str:
    return document.path.relative_to(root).as_posix()


def _meant(
    path: Path,
    root: Path,
    known: Sequence[tuple[Document, dict[Id, str]]],
    images: set[Id],
    categories: set[Id],
) -> tuple[Document, dict[Id, str]]:
    """Return the one annotation file that has all these ids."""
    fitting = [
        (document, keys)
        for document, keys in known
        if images <= keys.keys() and categories <= document.categories.keys()
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        listed = ", ".join(_place(document, root) for document, _ in fitting)
        raise ValueError(
            f"{path}: expected ids of one annotation file, found that several have them: {listed}: "
            "say which one is meant: --data FOLDER/FILE.json"
        )
    lacking = list(_lacking(root, known, images, categories))
    raise ValueError(
        f"{path}: expected ids of one annotation file, found none that has all of them: "
        + "; ".join(lacking)
    )


def _lacking(
    root: Path,
    known: Sequence[tuple[Document, dict[Id, str]]],
    images: set[Id],
    categories: set[Id],
) -> Iterator[str]:
    for document, keys in known:
        for what, gone in (
            ("images", images - keys.keys()),
            ("categories", categories - document.categories.keys()),
        ):
            if gone:
                first = min(gone, key=str)
                place = _place(document, root)
                yield f"{place} lacks {len(gone)} of the {what}, such as {first!r:.40}"


def _score(entry: Record) -> float:
    score = entry.get("score", 1.0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        is_percent = isinstance(score, int | float) and 1 < score <= 100
        remedy = ": divide all of them by 100" if is_percent else ""
        raise ValueError(
            f"expected 'score' to be a number from 0 to 1, found {score!r:.40}{remedy}"
        )
    return float(score)
