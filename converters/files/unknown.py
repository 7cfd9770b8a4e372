"""What lies in a folder that is not what was expected, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from converters.errors import OUTLINE
from converters.files import git_lfs
from converters.files.images import is_image
from converters.files.json_files import load_json

# What annotations lie in, mostly; how many such files are named; and how UTF-16 begins.
_ANNOTATIONS = frozenset(
    {".json", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".zip", ".gz", ".jsonl"}
)
_SHOWN = 3
# How far below a folder things are looked for that were meant.
_DEPTHS = ("*", "*/*")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CITYSCAPES, _ADE20K = "gtFine", ("_atr.txt", "_parts_1.png")
# How many files are looked into at most, and how far; a box has so many numbers.
_LOOKED_AT, _HEAD_BYTES, _BOX = 50, 1 << 12, 4
_OPAQUE = 255
# Words of annotations that are not read -> what is said of them.
_BOXES = f"nothing but boxes (detection): {OUTLINE}"
_FOREIGN = (
    (
        (b"<annotation", b"<polygon>"),
        'XML of LabelMe\'s website, which is not read: import it into CVAT as "LabelMe 3.0", and '
        "export it as COCO",
    ),
    ((b"<annotation", b"<bndbox>"), _BOXES),
    ((b'"coordinates"', b'"label"'), _BOXES),
    ((b'"assets"', b'"tags"', b'"boundingBox"'), _BOXES),
    (
        (b'"schema_ref"', b"darwin"),
        "V7's JSON (Darwin), which is not read: export as COCO",
    ),
    (
        (b'"predicted_iou"', b'"stability_score"'),
        "masks of Segment Anything, which have no classes: give them some, as COCO's annotations",
    ),
)
# What darknet's and Label Studio's labels of YOLO have in place of a YAML file.
_NEEDED_BY_YOLO = (
    ": labels of YOLO need a data.yaml with 'names' and 'train', see "
    "https://docs.ultralytics.com/datasets, or a classes.txt with a class a line"
)
_NAMES_OF_YOLO = ("classes.txt", "obj.names", "obj.data")
_VOLUMES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")


def folders_with(folder: Path, name: str) -> list[Path]:
    """Return the folders one or two levels below that hold a file of this name, sorted."""
    return sorted(path.parent for depth in _DEPTHS for path in folder.glob(f"{depth}/{name}"))


def name_first(paths: Sequence[Path], between: str) -> str:
    """Return the first paths, for a message.

    >>> name_first([Path("a"), Path("b"), Path("c"), Path("d")], ", ")
    'a, b, c ...'
    """
    return between.join(map(str, paths[:_SHOWN])) + (" ..." if len(paths) > _SHOWN else "")


def describe_files(data: Path, is_results: Callable[[object], bool]) -> str:
    """Name the first files that look like annotations, and why they may not be known.

    Args:
        data: the folder.
        is_results: tells by its content whether a JSON file is COCO's list of results.
    """
    folders = [folder for folder in (data, data / "annotations") if folder.is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    told: list[str] = []
    for path in [p for p in files if p.suffix.lower() in _ANNOTATIONS][:_SHOWN]:
        with path.open("rb") as file:
            head = file.read(2)
        why = " (empty)" if not head else " (UTF-16: save it as UTF-8)" if head in _UTF_16 else ""
        why = why or _why_no_json(path, is_results)
        told.append(f"{path.relative_to(data).as_posix()}{why}")
    return f" among {', '.join(told)}" if told else ""


def _why_no_json(path: Path, is_results: Callable[[object], bool]) -> str:
    """What is wrong with a JSON file, or that it is COCO's list of results; "" for others."""
    if path.suffix.lower() != ".json":
        return ""
    try:
        content = load_json(path)
    except ValueError as error:
        return f" ({error})"
    return " (COCO results, which are predictions)" if is_results(content) else ""


def describe_foreign(data: Path) -> str:
    """Say which annotations of others lie in a folder that are not read; "" where none do."""
    for depth in (*_DEPTHS, "*/*/*"):
        for path in islice(sorted(data.glob(depth)), _LOOKED_AT):
            if not path.name.startswith(".") and (told := _describe_foreign(path)):
                return f": {path.relative_to(data).as_posix()}: {told}"
    return ""


def describe_pointers(data: Path) -> str:
    """Name a file in a folder that Git LFS has not fetched; "" where the first ones are there."""
    for depth in (*_DEPTHS, "*/*/*"):
        for path in islice(filter(is_image, sorted(data.glob(depth))), _LOOKED_AT):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                if git_lfs.is_pointer(file.read(_HEAD_BYTES)):
                    return f": {path.relative_to(data).as_posix()} is {git_lfs.WHAT}"
    return ""


def describe_lack(data: Path) -> str:
    """Say what is nearly a data set in a folder, and what it lacks; "" where nothing is."""
    if masks := _describe_odd_masks(data / "masks"):
        return masks
    if any((data / name).is_file() for name in _NAMES_OF_YOLO):
        return _NEEDED_BY_YOLO
    if (data / "labelsTr").is_dir() and (data / "imagesTr").is_dir():
        if volume := next(filter(_is_volume, sorted((data / "labelsTr").iterdir())), None):
            return (
                f": labelsTr/{volume.name}: volumes are not read: save their slices as PNG, which "
                "'file_ending' in dataset.json then says"
            )
        return (
            ": nnU-Net's imagesTr/ and labelsTr/ need a dataset.json beside them with 'labels' "
            "(names and numbers) and 'file_ending'"
        )
    if (data / "labels.yaml").is_file():
        return ""
    if (data / "masks").is_dir():
        return (
            ": masks/ needs a labels.yaml beside it with 'name' and 'names', and a masks.yaml "
            "with 'layout: index' where they are class numbers"
        )
    return ""


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(_VOLUMES)


def _describe_odd_masks(folder: Path) -> str:
    """Say of masks in a folder that they are of a kind that is not read; "" of others."""
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    if not files:
        return ""
    first = files[0]
    if first.suffix.lower() in (".npy", ".npz", ".mat") or _is_volume(first):
        return f": masks/{first.name}: masks are read from PNG, TIFF, BMP or GIF: save them so"
    try:
        with Image.open(first) as image:
            alpha = image.getchannel("A").getextrema() if image.mode in ("RGBA", "LA") else ()
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    what = "a mask with transparency, whose colours count for nothing there"
    is_seen_through = any(level != _OPAQUE for level in alpha)
    told = f": masks/{first.name}: {what}: save masks without an alpha channel"
    return told if is_seen_through else ""


def _describe_foreign(path: Path) -> str:
    """Say what annotations of others are that are not read, and what to do; "" for others."""
    if path.name == _CITYSCAPES and path.is_dir():
        return (
            "Cityscapes needs leftImg8bit/ with its images beside it, and for each image "
            "*_instanceIds.png or *_labelIds.png"
        )
    if path.name.endswith(_ADE20K):
        return (
            "ADE20K's colours are numbers of classes and of objects: take its index maps "
            "(ADEChallengeData2016)"
        )
    if path.suffix.lower() not in (".xml", ".json") or not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for signs, told in _FOREIGN:
        if all(sign in head for sign in signs):
            return told
    return ""


def describe_labels(data: Path) -> str:
    """Say what label files of YOLO lack that lie anywhere below a folder; "" where none do."""
    texts = (p for depth in ("*.txt", "*/*.txt", "*/*/*.txt") for p in sorted(data.glob(depth)))
    for path in islice(texts, _LOOKED_AT):
        try:
            with path.open(encoding="utf-8-sig") as file:
                values = list(map(float, file.readline().split()))
        except (OSError, ValueError):
            continue
        if len(values) > _BOX and values[0].is_integer() and all(0 <= v <= 1 for v in values[1:]):
            return _NEEDED_BY_YOLO
    return ""
