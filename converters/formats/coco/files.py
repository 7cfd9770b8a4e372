"""Which JSON files of a folder are COCO's annotations, broken ones among them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from converters.files.json_files import load_json
from converters.formats.coco.documents import is_results
from converters.subsets.names import part_of

_JSON = "*.[jJ][sS][oO][nN]"
_IMAGES = re.compile(rb'"images"\s*:\s*[\[{]')
_OBJECTS = re.compile(rb'"(?:annotations|categories)"\s*:\s*[\[{]')
_KEYS = ("images", "annotations", "categories")
# What COCO calls its files: by task, before the name of the subset.
INSTANCES = "instances_"
_OTHER_TASKS = ("person_keypoints_", "keypoints_", "captions_", "stuff_", "panoptic_", "labels_")
_NAMES = (INSTANCES, "image_info_", "person_keypoints_")
# How names of annotation files begin, end, or are.
_USUAL = re.compile(
    r"(^|[_.-])(annotations?|instances|coco|(train|val|valid|validation|test)(\d{4})?)([_.-]|$)",
    re.IGNORECASE,
)
# How a list of results begins; so much of it is read.
_RESULT, _HEAD = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\{"), 1 << 16
_SCORE = re.compile(rb'"score"\s*:\s*[-.\d]')
_PLACES = frozenset({"annotation", "annotations"})
# What programs leave beside data, and write with comments or in dialects.
_SETTINGS = re.compile(
    r"(package(-lock)?|settings|[jt]sconfig|config|launch|tasks|extensions|composer|manifest"
    r"|provenance|split)\.json",
    re.IGNORECASE,
)


def annotation_files(root: Path) -> list[Path]:
    """Return the JSON files in a folder and directly below it that look like COCO's, sorted.

    Beside a file `instances_*` those for other tasks (captions, keypoints) of the same images are
    not meant.
    """
    return _for_instances([path for path in _json_files(root) if is_annotation_file(path)])


def broken_files(root: Path, files: Collection[Path], results: Collection[Path] = ()) -> list[Path]:
    """Return the JSON files that should be among the annotation files, but cannot be read as such.

    A file that is no JSON at all should be one if it lies beside annotation files or in
    `annotations`, or has a usual name. One that is JSON of another form should be one if COCO
    names its files so, if it has some of COCO's keys, or if it is an empty one, or a list of
    objects, in such a place.

    Args:
        root: the data set's folder.
        files: those that `annotation_files` finds.
        results: those that `lists_of_results` finds, which are none of them.
    """
    beside, known = {path.parent for path in files}, {*files, *results}
    others = [p for p in _json_files(root) if p not in known and not is_annotation_file(p)]
    meant = [path for path in others if _is_meant(path, path.parent in beside)]
    return [path for path in _for_instances([*files, *meant]) if path in meant]


def lists_of_results(root: Path, files: Collection[Path]) -> list[Path]:
    """Return the lists of results (predictions) beside annotation files, of other names than these.

    Args:
        root: the data set's folder.
        files: those that `annotation_files` finds.
    """
    if not files:
        return []
    return [
        path
        for path in _json_files(root)
        if path not in files
        and not _has_coco_name(path)
        and path.parent.name.lower() not in _PLACES
        and head_of_results(path)
    ]


def head_of_results(path: Path) -> bytes:
    """Return the first bytes of a list of results; of another file, or a broken link, none."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return b""
    return head if _RESULT.match(head) and b'"image_id"' in head else b""


def is_annotation_file(path: Path) -> bool:
    """Tell whether a file looks like COCO's, with images and objects or categories."""
    return _mentions(path, _IMAGES, _OBJECTS)


def has_scores(path: Path) -> bool:
    """Tell whether a file of COCO's has scores of objects, as predictions have them."""
    return _mentions(path, _SCORE)


def matches(root: Path) -> bool:
    """Tell whether a folder holds COCO's annotation files, or files that are called so."""
    return any(is_annotation_file(p) or _has_coco_name(p) for p in _json_files(root))


def is_test(root: Path, file: Path) -> bool:
    """Tell by its name or its folder's whether a file is about test images.

    >>> is_test(Path("data"), Path("data/test/_annotations.coco.json"))
    True
    >>> is_test(Path("data"), Path("data/latest/instances_train2017.json"))
    False
    """
    return part_of(file.relative_to(root).as_posix()) == "test"


def names_no_part(root: Path, file: Path) -> bool:
    """Tell whether a file may be about test images and others, by its name and its folder's.

    Then the folders of its images say which are which.
    """
    return not part_of(file.relative_to(root).as_posix())


def _json_files(root: Path) -> Iterator[Path]:
    found = [*root.glob(_JSON), *root.glob(f"*/{_JSON}")]
    deeper = [] if found else [*root.glob(f"annotations/*/{_JSON}")]
    # Some have one folder more below `annotations` (LIVECell); several are of folds, or old.
    for path in sorted(deeper if len({path.parent for path in deeper}) == 1 else found):
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _for_instances(files: list[Path]) -> list[Path]:
    named = {path for path in files if path.name.startswith(INSTANCES)}
    return [path for path in files if _instances_beside(path) not in named]


def _instances_beside(path: Path) -> Path | None:
    """Where the objects of the images are that a file for another task is about."""
    for task in _OTHER_TASKS:
        if path.name.startswith(task):
            return path.with_name(INSTANCES + path.name.removeprefix(task))
    return None


def _mentions(path: Path, *patterns: re.Pattern[bytes]) -> bool:
    """Tell whether a file has all of these; one that cannot be opened has none."""
    try:
        if not path.is_file() or not path.stat().st_size:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(pattern.search(text) for pattern in patterns)
    except OSError:
        return False


def _has_coco_name(path: Path) -> bool:
    return path.name.startswith(_NAMES) or path.name.endswith(".coco.json")


def _is_meant(path: Path, is_beside: bool) -> bool:
    if _has_coco_name(path):
        return True
    is_in_place = path.parent.name.lower() in _PLACES
    has_place = is_in_place or bool(_USUAL.search(path.stem))
    try:
        content = load_json(path)
    except ValueError:
        return has_place or (is_beside and not _SETTINGS.fullmatch(path.name))
    if is_results(content):
        return True
    if isinstance(content, dict) and content:
        return has_place and any(key in content for key in _KEYS)
    is_table = isinstance(content, list) and any(isinstance(entry, dict) for entry in content)
    return is_in_place or (has_place and (is_table or not content))
