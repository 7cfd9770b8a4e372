"""Images on the disk that no annotation file of COCO's names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from converters.errors import Problems
from converters.files.below import is_result
from converters.files.images import is_image
from converters.formats.coco.documents import Document
from converters.formats.coco.files import is_test
from converters.formats.coco.images import ANNOTATIONS, ImageFinder, folders_in
from converters.subsets.keys import test_samples
from converters.subsets.names import part_of
from converters.types import Sample

_SUBSET = re.compile(r"(train|val|valid|validation|minival|default)\d*", re.IGNORECASE)
_SHOWN = 3


def is_part(name: str) -> bool:
    """Tell whether a folder is called as a part of a data set is, or as its annotations are.

    >>> is_part("train2017"), is_part("test"), is_part("hospital_b")
    (True, True, False)
    """
    small = name.lower()
    return bool(_SUBSET.fullmatch(name)) or "test" in small or small.startswith("annotation")


def report_unnamed(
    root: Path,
    subset: str,
    named: Collection[Path],
    *,
    others: Iterable[Path],
    spoken_of: Collection[Path],
    problems: Problems,
) -> None:
    """Say which images of a subset are not read because no annotation file names them.

    A whole folder of a subset such as train2017, of which no file speaks, is a problem: its file
    is gone. Test images have no annotations.

    Args:
        root: the data set's folder.
        subset: `train`, `test` or `all`.
        named: images that the files which were read name.
        others: annotation files of the other subset.
        spoken_of: folders of files that name images which are not there.
        problems: takes down folders of which no file speaks, and notes the other images.
    """
    if not unnamed_images(root, named):
        return
    known = {*named, *(image for path in others for image in _images_of(root, path))}
    forgotten: dict[Path, list[Path]] = {}
    left_out: list[Path] = []
    for folder, images in unnamed_images(root, known).items():
        is_of_test = is_test(root, folder)
        if subset != "all" and is_of_test != (subset == "test"):
            continue
        place = None if is_of_test else forgotten_folder(folder, root, known)
        if place and place not in spoken_of:
            forgotten.setdefault(place, []).extend(images)
        else:
            left_out += images
    for place, images in forgotten.items():
        problems.add(
            place,
            f"expected an annotation file that names its images, found none for {len(images)} such "
            f"as {images[0].name}: add it, or move the folder away",
        )
    if left_out:
        first = ", ".join(image.relative_to(root).as_posix() for image in left_out[:_SHOWN])
        problems.note(
            f"{root}: left out {len(left_out)} images that no annotation file names: {first}"
            f"{', ...' if len(left_out) > _SHOWN else ''}"
        )


def has_test_folder(root: Path) -> bool:
    """Tell whether a folder of test images is below a folder."""
    return any(part_of(folder.name) == "test" for folder, _ in _walk(root, set()) if folder != root)


def test_images(
    root: Path, named: Collection[Path], others: Iterable[Path], problems: Problems
) -> list[Sample]:
    """Return the images of folders of test images that no annotation file names.

    Args:
        root: the data set's folder.
        named: the images that the files which were read name.
        others: all other annotation files.
        problems: takes down images that are broken.
    """
    found = unnamed_images(root, named)
    images = [image for folder, own in found.items() if is_test(root, folder) for image in own]
    # To know what large files name takes as long as to read them.
    if images:
        known = _places(image for path in others for image in _images_of(root, path))
        images = [i for i in images if (os.path.realpath(i.parent), i.name) not in known]
    return test_samples(root, images, problems)


def _images_of(root: Path, path: Path) -> Iterator[Path]:
    with suppress(ValueError):
        finder = ImageFinder(root, path)
        for entry in Document.load(path).images:
            with suppress(ValueError):
                yield finder.find(entry)


def unnamed_images(root: Path, named: Iterable[Path]) -> dict[Path, list[Path]]:
    """Return the images below a folder that are none of those named, by their folder, sorted.

    Hidden folders and `annotations` have no images of their own: panoptic masks lie there. What we
    wrote into the folder (converted sets, pages with pictures) is another thing.
    """
    places = _places(named)
    unnamed: dict[Path, list[Path]] = {}
    for folder, real in _walk(root, set()):
        images = (folder / name for name in sorted(os.listdir(folder)))
        left = [image for image in images if is_image(image) and (real, image.name) not in places]
        if left:
            unnamed[folder] = left
    return unnamed


def _places(images: Iterable[Path]) -> set[tuple[str, str]]:
    """Real folders and names of images: the same image may be reached by links."""
    return {(os.path.realpath(image.parent), image.name) for image in images}


def _walk(folder: Path, seen: set[str]) -> Iterator[tuple[Path, str]]:
    """Folders below one, links followed, each once, with their real paths."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    yield folder, real
    for path in folders_in(folder):
        is_other = path.name.startswith(".") or path.name.lower().startswith(ANNOTATIONS)
        if not is_other and not is_result(path):
            yield from _walk(path, seen)


def forgotten_folder(folder: Path, root: Path, named: Collection[Path]) -> Path | None:
    """Return the subset's folder, such as train2017, of which no annotation file speaks.

    Args:
        folder: has images that no file names.
        root: the data set's folder.
        named: the images that a file names.

    Returns:
        The folder itself or one above it; None where it belongs to no subset, or to one that has
        annotations.
    """
    above = [folder, *folder.parents]
    for place in above[: above.index(root)]:
        if _SUBSET.fullmatch(place.name):
            has_images = any(image.is_relative_to(place) for image in named)
            return None if has_images else place
    return None
