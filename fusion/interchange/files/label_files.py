"""Label files as Ultralytics' `predict` writes them with `save_txt`, and `save_conf`.

    FOLDER/NAME.txt, FOLDER/labels/NAME.txt     CLASS x y x y ... [SCORE], a line an object
    FOLDER/classes.txt, FOLDER/data.yaml        (optional) the network's own classes, from 0 on

Points are shares of the image's width and height; a score makes the numbers behind the class odd.
An image in which nothing was found has no file. Those of `track` have the object's number at the
end of each line, which is left out. Source: Ultralytics 8.3, `Results.save_txt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.formats.yolo.config import NAMES, YoloConfig, config_file, listed_names
from converters.formats.yolo.pairing import NO_LABELS
from converters.formats.yolo.reading import outline_of, parse_line, read_lines
from converters.masks import rasterize
from fusion.interchange.files.content import nearest_file
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction

_LABELS = "labels"
# So few lines may all end at an image's edge.
_FEW = 3
# What lies beside label files and is none.
_OTHERS = NO_LABELS | {"args", "log"}


def choose_labels(folder: Path, texts: Sequence[Path]) -> list[Path]:
    """Return those of a folder's texts that are label files: in folders `labels`, else all."""
    found = [path for path in texts if path.stem.lower() not in _OTHERS]
    inside = [path for path in found if _LABELS in path.relative_to(folder).parts[:-1]]
    return inside or found


def open_label_files(
    folder: Path,
    labels: Sequence[Path],
    known: KnownImages,
    note: Callable[[str], None] = lambda text: None,
) -> WrittenPredictions:
    """Open a folder of label files.

    Args:
        folder: with the files.
        labels: the files, in the folder or below it.
        known: the images that they may be of, and the classes where the folder names none.
        note: told which number is which class, and which are left out.

    Raises:
        ValueError: a file of no image of the data set, or of several; or two of one; or names of
            classes none of which is asked for.
    """
    given, known = known, _numbered(folder, labels, known, note)
    is_named = known is not given
    files = match_files(folder, labels, known)

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        found = _objects(files[key], known, size_hw, is_tracked) if key in files else []
        return predict_objects(key, size_hw, found, known.labels)

    ends = [line for path in files.values() for line in _ends_of_lines(path)]
    # Nothing else goes beyond 1; where each image has one object, its number is 1 in all lines.
    is_tracked = any(last.isdecimal() and int(last) > 1 for _, last, _ in ends)
    is_tracked |= len(ends) >= _FEW and all(last == "1" for _, last, _ in ends)
    numbers = {int(first) for first, _, _ in ends if first.isdecimal()}
    named = known.numbers if is_named else numbers & known.numbers.keys()
    classes = set(filter(None, map(known.label_of, named)))
    spoken = known.spoken(folder, classes, note)
    # A class, points of two numbers each, then a score, and an object's number at last.
    has_any = any((count - is_tracked) % 2 == 0 for _, _, count in ends)
    return WrittenPredictions(
        "label files of YOLO", "instance", files, False, predict, spoken, gives_scores=has_any
    )


def _numbered(
    folder: Path, labels: Sequence[Path], known: KnownImages, note: Callable[[str], None]
) -> KnownImages:
    """Return what is known, with the classes' numbers that the folder itself states."""
    if path := nearest_file(folder, labels, NAMES):
        own = dict(enumerate(listed_names(path)))
    elif path := config_file(folder):
        own = dict(YoloConfig.load(folder).names)
    else:
        note(
            f"{folder}: numbers are taken for the data set's classes, {known.list_numbers()}: a "
            "classes.txt there would say otherwise"
        )
        return known
    known.take_names(path, own.values(), note)
    return replace(known, numbers=own)


def _ends_of_lines(path: Path) -> list[tuple[str, str, int]]:
    """Return the first and the last word of each line, and how many there are.

    What is broken is told when it is read.
    """
    try:
        lines = [text.split() for text in read_lines(path)]
    except ValueError:
        return []
    return [(words[0], words[-1], len(words)) for words in lines if words]


def _objects(
    path: Path, known: KnownImages, size_hw: tuple[int, int], is_tracked: bool
) -> list[MaskObject]:
    found: list[MaskObject] = []
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for line, text in enumerate(lines, 1):
        try:
            if text.strip() and (own := _object(text, known, size_hw, is_tracked)):
                found.append(own)
        except ValueError as error:
            raise ValueError(f"{path}: line {line}: {error}") from None
    return found


def _object(
    text: str, known: KnownImages, size_hw: tuple[int, int], is_tracked: bool
) -> MaskObject | None:
    number, values = parse_line(text)
    if is_tracked and values and values[-1] >= 1 and values[-1].is_integer():
        values.pop()
    score = values.pop() if len(values) % 2 else 1.0
    if not 0 <= score <= 1:
        raise ValueError(f"expected a score from 0 to 1, found {score:g}")
    if not number.is_integer():
        raise ValueError(f"expected the number of a class, found {number:g}")
    outline, label = outline_of(values, size_hw), known.label_of(int(number))
    return MaskObject(label, score, rasterize(outline, size_hw)) if label else None
