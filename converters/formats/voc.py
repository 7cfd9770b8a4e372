"""Pascal VOC's segmentation masks, also as CVAT exports them (read).

    DATA/JPEGImages/NAME.jpg
    DATA/SegmentationClass/NAME.png     class numbers (0 none, 255 void), or colours
    DATA/SegmentationObject/NAME.png    (optional) which object a pixel is part of
    DATA/labelmap.txt                   (optional, CVAT) name:r,g,b:parts:actions, a line each
    DATA/ImageSets/Segmentation/test.txt    (optional) names of test images, a line each

With a `labelmap.txt` a class is known by its colour, without one by its number; the class is then
called by it, and `--labels` gives it a name by `aliases`. Images without a mask are left out, and
said: of most images VOC has but boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import Problems
from converters.files.images import is_image, read_size_hw
from converters.formats.label_spaces import folder_space
from converters.formats.mask_pixels import VOID, VOID_COLOUR, check_mask_size, read_mask_pixels
from converters.masks import crop, outline
from converters.types import Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_IMAGES, _CLASSES, _OBJECTS = "JPEGImages", "SegmentationClass", "SegmentationObject"
_LABELMAP = "labelmap.txt"
_NO_CLASS = frozenset({"background", "void", "unlabeled"})
_COLOUR_CODE = np.array([65536, 256, 1], np.uint32)
Colour = tuple[int, ...]


def matches(root: Path) -> bool:
    """Tell whether a folder holds VOC's masks."""
    return (root / _IMAGES).is_dir() and (root / _CLASSES).is_dir()


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes of `labelmap.txt`, else the numbers in the masks; None without any.

    Raises:
        ValueError: a broken `labelmap.txt`.
    """
    colours = _read_labelmap(root)
    if colours is None:
        numbers: set[int] = set()
        for path in _files(root / _CLASSES).values():
            try:
                values = read_mask_pixels(path.read_bytes()).values
            except (OSError, ValueError):
                continue  # `read` says so
            if values.ndim == 2:
                numbers |= set(np.unique(values).tolist())
        names = tuple(str(number) for number in sorted(numbers - {0, VOID}))
    else:
        names = tuple(name for name in colours.values() if name.casefold() not in _NO_CLASS)
    return folder_space(root, names) if names else None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read VOC's masks.

    Args:
        root: the data set's folder.
        subset: `test` is what `ImageSets/Segmentation/test.txt` names, `train` everything else.
        labels: those of `label_space`.
        problems: takes down masks and images that are broken or have no partner.

    Returns:
        Samples, an instance for each object, or for each class where nothing tells objects apart.

    Raises:
        ValueError: a broken `labelmap.txt`.
    """
    reader = _Reader(root, labels, problems, _read_labelmap(root))
    return [
        sample
        for stem, image, mask in _pairs(root, subset, problems)
        for sample in reader.sample(stem, image, mask)
    ]


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads, without their objects.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken, and masks that have none.
    """
    found = []
    for stem, image, mask in _pairs(root, subset, problems):
        try:
            size_hw = read_size_hw(image)
        except ValueError as error:
            problems.add(image, error, key=stem)
            continue
        try:
            check_mask_size(mask, size_hw)
        except ValueError as error:
            problems.add(mask, error, key=stem)
        found.append(Sample(stem, image, size_hw))
    return found


def _pairs(root: Path, subset: str, problems: Problems) -> list[tuple[str, Path, Path]]:
    """The stem, image and class mask of each image of a subset."""
    images, masks = _files(root / _IMAGES), _files(root / _CLASSES)
    test = _names(root / "ImageSets" / "Segmentation" / "test.txt")
    for stem in sorted(masks.keys() - images.keys()):
        what = f"expected an image of this name in {_IMAGES}, found none"
        problems.add(masks[stem], what, key=stem)
    if others := sorted(images.keys() - masks.keys()):
        problems.note(
            f"{root}: left out {len(others)} images without a mask in {_CLASSES} ({others[0]}, ...)"
        )
    return [
        (stem, images[stem], masks[stem])
        for stem in sorted(images.keys() & masks.keys())
        if subset == "all" or (stem in test) == (subset == "test")
    ]


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if is_image(path)}


def _names(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return frozenset(line.split()[0] for line in lines if line.strip())


def _read_labelmap(root: Path) -> dict[Colour, str] | None:
    path = root / _LABELMAP
    if not path.is_file():
        return None
    found: dict[Colour, str] = {}
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            colour = tuple(int(value) for value in rest.split(":")[0].split(","))
        except ValueError:
            colour = ()
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f"{path}: line {number}: expected name:r,g,b, found '{line:.40}'")
        if found.setdefault(colour, name) != name:
            raise ValueError(f"{path}: line {number}: expected a colour of its own, found {colour}")
    return found


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    colours: Mapping[Colour, str] | None
    _objects: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        self._objects = _files(self.root / _OBJECTS)

    def sample(self, stem: str, image: Path, mask: Path) -> Iterator[Sample]:
        report = partial(self.problems.add, key=stem)
        try:
            size_hw = read_size_hw(image)
        except ValueError as error:
            report(image, error)
            return
        try:
            planes = self._planes(mask, size_hw)
            objects = self._object_numbers(stem, size_hw)
        except (OSError, ValueError) as error:
            report(mask, error)
            return
        instances = tuple(
            Instance(label, outline(crop(part)))
            for label, plane in planes
            for part in _apart(plane, objects)
        )
        yield Sample(stem, image, size_hw, instances)

    def _planes(
        self, path: Path, size_hw: tuple[int, int]
    ) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        if self.colours is None:
            values = read_mask_pixels(path.read_bytes(), size_hw).values
            if values.ndim != 2:
                raise ValueError(
                    f"expected class numbers, found colours: add {_LABELMAP} with name:r,g,b lines"
                )
            numbers = sorted(set(np.unique(values).tolist()) - {0, VOID})
            return [(str(n), (values == n).astype(np.uint8)) for n in numbers]
        codes = _colours(path, size_hw)
        planes = []
        for code in np.unique(codes).tolist():
            colour = (code >> 16, code >> 8 & 255, code & 255)
            name = self.colours.get(colour, "" if sum(colour) == 0 else None)
            if name is None and colour == VOID_COLOUR:
                continue
            if name is None:
                raise ValueError(f"expected a colour of {_LABELMAP}, found {colour}")
            if name in self.labels.index:
                planes.append((name, (codes == code).astype(np.uint8)))
        return planes

    def _object_numbers(self, stem: str, size_hw: tuple[int, int]) -> npt.NDArray[Any] | None:
        """A number for each object, (H, W); None where nothing tells them apart."""
        path = self._objects.get(stem)
        if path is None:
            return None
        return _colours(path, size_hw)


def _colours(path: Path, size_hw: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """A number for each colour of an image, red first: uint32 (H, W)."""
    shown = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if shown is None or shown.shape[:2] != size_hw:
        found = "none" if shown is None else f"one of {shown.shape[:2]}"
        raise ValueError(f"{path.parent.name}: expected a mask of {size_hw}, found {found}")
    codes: npt.NDArray[np.uint32] = shown[..., ::-1].astype(np.uint32) @ _COLOUR_CODE
    return codes


def _apart(
    plane: npt.NDArray[np.uint8], objects: npt.NDArray[Any] | None
) -> Iterator[npt.NDArray[np.uint8]]:
    if objects is None:
        yield plane
        return
    for number in np.unique(objects[plane > 0]).tolist():
        yield ((objects == number) & (plane > 0)).astype(np.uint8)
