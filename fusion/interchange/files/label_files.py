"""Label files as Ultralytics' `predict` writes them with `save_txt`, and `save_conf`.

    FOLDER/NAME.txt, FOLDER/labels/NAME.txt     CLASS x y x y ... [SCORE], a line an object

Points are shares of the image's width and height; a score makes the numbers behind the class odd.
An image in which nothing was found has no file. Those of `track` have the object's number at the
end of each line, and are not read. Source: Ultralytics 8.3, `Results.save_txt`.
"""

from __future__ import annotations

from pathlib import Path

from converters.formats.yolo.pairing import NO_LABELS
from converters.formats.yolo.reading import outline_of, parse_line, read_lines
from converters.masks import rasterize
from fusion.interchange.files.written import KnownImages, WrittenPredictions, match_files
from fusion.interchange.objects import MaskObject, predict_objects
from fusion.types import Prediction

_LABELS, _SUFFIX = "labels", ".txt"
# What lies beside label files and is none.
_OTHERS = NO_LABELS | {"args", "log"}


def label_files(folder: Path) -> list[Path]:
    """Return the label files in a folder's `labels`, else in the folder, sorted."""
    return sorted(
        path
        for path in _home(folder).rglob("*")
        if path.suffix.lower() == _SUFFIX and path.stem.lower() not in _OTHERS and path.is_file()
    )


def open_label_files(folder: Path, known: KnownImages) -> WrittenPredictions:
    """Open a folder of label files.

    Raises:
        ValueError: a file of no image of the data set, or of several; or two of one.
    """
    files = match_files(_home(folder), label_files(folder), known)

    def predict(key: str) -> Prediction:
        size_hw = known.samples[key].size_hw
        found = _objects(files[key], known, size_hw) if key in files else []
        return predict_objects(key, size_hw, found, known.labels)

    return WrittenPredictions("label files of YOLO", "instance", files, False, predict)


def _home(folder: Path) -> Path:
    return folder / _LABELS if (folder / _LABELS).is_dir() else folder


def _objects(path: Path, known: KnownImages, size_hw: tuple[int, int]) -> list[MaskObject]:
    found: list[MaskObject] = []
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for line, text in enumerate(lines, 1):
        try:
            if text.strip() and (own := _object(text, known, size_hw)):
                found.append(own)
        except ValueError as error:
            raise ValueError(f"{path}: line {line}: {error}") from None
    return found


def _object(text: str, known: KnownImages, size_hw: tuple[int, int]) -> MaskObject | None:
    number, values = parse_line(text)
    score = values.pop() if len(values) % 2 else 1.0
    if not 0 <= score <= 1:
        raise ValueError(f"expected a score from 0 to 1, found {score:g}")
    if not number.is_integer():
        raise ValueError(f"expected the number of a class, found {number:g}")
    outline, label = outline_of(values, size_hw), known.label_of(int(number))
    return MaskObject(label, score, rasterize(outline, size_hw)) if label else None
