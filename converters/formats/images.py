"""Images without any annotation: test images, to be predicted (read).

    DATA/**/NAME.png       or any other kind that is read, DICOM too

A folder is known as such only if no other format knows it, and nothing in it looks like an
annotation: no JSON, XML, YAML, NumPy, table of rows or of codes, no text of an image's name, no
folder called masks, labels, annotations or the like. What lies in hidden folders, and what we wrote
into folders below (converted sets, pages), is another thing.

All of them are test images: nothing can be learned from them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from converters.errors import Problems
from converters.files.below import files_below
from converters.files.images import is_image, read_size_hw
from converters.files.lines import TABLE_SUFFIXES
from converters.types import LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
NO_CLASSES = (
    "expected annotations, found only images, of which nothing can be learned: predict them (zoo "
    "predict RUN --data FOLDER), or give --labels and --subset test to convert them; masks are "
    "found in masks/ beside images/, as NAME_mask.png beside NAME.png, or by a table with the "
    "columns image and mask"
)
_ANNOTATIONS = frozenset(
    {".json", ".xml", ".yaml", ".yml", ".npy", ".npz", ".mat", ".arrow", ".parquet"}
)
# What may hold annotations, but is in no form that is read.
_UNREAD = frozenset(
    {".csv", ".tsv", ".zip", ".gz", ".tar", ".tgz", ".7z", ".rar", ".jsonl", ".ndjson", ".geojson"}
    | {".pkl", ".pickle", ".h5", ".hdf5", ".xls", ".xlsx"}
    # Images of other kinds.
    | {".jp2", ".j2k", ".heic", ".avif", ".exr", ".nii", ".nrrd", ".mha", ".mhd", ".svs", ".czi"}
)
# What the columns of tables of run-length codes are called.
_CODES = re.compile(rb"(?<![a-z])rle|encoded_?pixels", re.I)
_LINE_BYTES = 1 << 12
_FOLDERS = re.compile(
    r"(.*[_-])?(masks?|labels?(tr|ts)?|annotations?|segmentations?\w*|gt(fine|coarse)?|truth"
    r"|instances?|semantic)",
    re.I,
)
# A mask that lies beside its image.
_MASK = re.compile(r"(.+)[_-](masks?|seg|segmentation|labels?|lbl|gt|annotation|anno)", re.I)
# ADE20K's tables of what its colours mean.
_ATTRIBUTES = "_atr.txt"


def matches(root: Path) -> bool:
    """Tell whether a folder holds images, and nothing that looks like annotations."""
    stems: set[str] = set()
    texts: set[str] = set()
    for path in files_below(root):
        if path.suffix.lower() in TABLE_SUFFIXES and _looks_like_codes(path):
            return False
        inner = path.relative_to(root).parts[:-1]
        if path.suffix.lower() in _ANNOTATIONS or any(map(_FOLDERS.fullmatch, inner)):
            return False
        if path.suffix.lower() == ".txt":
            if path.name.endswith(_ATTRIBUTES):
                return False
            texts.add(path.stem)
        elif is_image(path):
            stems.add(path.stem)
    masks = filter(None, map(_MASK.fullmatch, stems))
    return bool(stems) and stems.isdisjoint(texts) and all(mask[1] not in stems for mask in masks)


def _looks_like_codes(path: Path) -> bool:
    """Tell whether a table is empty, or its first line speaks of codes, however it is written."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LINE_BYTES)
    except OSError:
        return False
    return not first or bool(_CODES.search(first.replace(b"\0", b"")))


def label_space(root: Path) -> LabelSpace | None:
    """Return None: images name no classes."""
    return None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read a folder's images.

    Args:
        root: the folder.
        subset: `test` or `all`.
        labels: any; there are no objects.
        problems: takes down images that are broken.

    Returns:
        Samples without instances. A key is the image's path below `root` without its suffix; of
        two that differ in nothing else, with it.

    Raises:
        ValueError: the subset `train`.
    """
    if subset == "train":
        raise ValueError(f"{root}: {NO_CLASSES}")
    samples: list[Sample] = []
    for key, image in keys_of(root, list(filter(is_image, files_below(root)))):
        try:
            samples.append(Sample(key, image, read_size_hw(image)))
        except ValueError as error:
            problems.add(image, error, key=key)
    if others := [path for path in files_below(root) if path.suffix.lower() in _UNREAD]:
        first = others[0].relative_to(root).as_posix()
        problems.note(f"{root}: left out {len(others)} files that are not read ({first})")
    return samples


def keys_of(root: Path, images: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield images with their keys, each its own."""
    stems = [image.relative_to(root).with_suffix("").as_posix() for image in images]
    times = Counter(stems)
    for stem, image in zip(stems, images, strict=True):
        yield (stem if times[stem] == 1 else image.relative_to(root).as_posix()), image
