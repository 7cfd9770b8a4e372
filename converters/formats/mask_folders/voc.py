"""Pascal VOC's segmentation masks, also as CVAT exports them, and masks in colours (read).

    DATA/JPEGImages/NAME.jpg
    DATA/SegmentationClass/NAME.png     class numbers (0 none, 255 void), or colours
    DATA/SegmentationObject/NAME.png    (optional) which object a pixel is part of
    DATA/labelmap.txt                   (optional, CVAT) name:r,g,b:parts:actions, a line each, or
                                        another table of `class_tables`
    DATA/class_names.txt                (optional, labelme) names of the numbers from 0 on
    DATA/ImageSets/Segmentation/test.txt    (optional) names of test images, a line each; what
                                        other lists there name has to be there

or several such folders beside each other, as exports of parts or tasks are; or, where masks are
colours, and neither labels.yaml nor masks.yaml says what else they are:

    DATA/images/**/NAME.jpg
    DATA/masks/**/NAME.png              colours

labelme has its masks in SegmentationClassPNG; those of SegmentationClassAug (VOC and SBD) are read
where there is no SegmentationClass. With a `labelmap.txt` a class is known by its colour.
Without one VOC's own masks have its classes. Others are called by number, or by colour, such as
`color_ff0000`, as is said, and `--labels` gives them names by `aliases`; black is no class, and
more than 100 colours are none either, but smoothed edges. Images without a mask are left out, and
said: of most images VOC has but boxes. Those in a folder such as `test` beside the others are to be
answered, where neither a mask nor `test.txt` speaks of test images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from converters.errors import Problems
from converters.files.images import decode_image, is_image, read_size_hw
from converters.files.lines import read_lines
from converters.files.names import is_of_annotations, normal_name
from converters.formats.label_spaces import folder_space
from converters.formats.mask_colours import (
    BLACK,
    PASCAL_VOC,
    WHITE,
    are_colour_names,
    check_palettes,
    class_codes,
    colour_codes,
    colour_name,
    holds_colours,
    name_classes,
    name_pascal_voc,
)
from converters.formats.mask_folders.pairing import describe_left_out
from converters.formats.mask_folders.tree import Tree
from converters.formats.mask_pixels import (
    VOID,
    VOID_COLOUR,
    check_mask_size,
    read_mask_pixels,
    used_values,
)
from converters.masks import crop, outline
from converters.subsets.keys import as_test_key, is_test_key, of_test, test_samples, with_test_keys
from converters.subsets.lists import find_test_lists, read_test_lists
from converters.subsets.names import are_of_one_set, is_test_name, test_folders
from converters.tables.class_tables import (
    CLASS_NAMES,
    LABELMAP,
    Colour,
    find_class_table,
    read_class_names,
    read_class_table,
)
from converters.types import NO_CLASS, SUBSET, Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_IMAGES, _CLASSES, _OBJECTS = "JPEGImages", "SegmentationClass", "SegmentationObject"
_PLAIN_IMAGES, _PLAIN_MASKS = "images", "masks"
# What says that masks are ours, or others' of the format `masks`.
_OTHERS = ("labels.yaml", "masks.yaml")
_LISTS, _LEARN = "ImageSets/Segmentation", ("train", "val")
# Between an image and its mask in a line.
_DIVIDED = re.compile(r"[,;\t]")
_LOOKED_AT, _SHOWN = 20, 5
# Where labelme2voc has its masks, beside arrays.
_PNGS = "SegmentationClassPNG"
# Where those lie who have joined the masks of SBD (Hariharan et al. 2011) to VOC's own.
_AUGMENTED = "SegmentationClassAug"
_COLOUR_CODE = np.array([65536, 256, 1], np.uint32)


def matches(root: Path) -> bool:
    """Tell whether a folder holds VOC's masks, in one folder or several, or others in colours."""
    return bool(_parts_of(root)) or _is_whole(root)


def _parts_of(root: Path) -> dict[Path, str]:
    """Return folders of VOC's form, as exports of tasks are -> how the keys of each begin."""
    if not root.is_dir() or any((root / name).is_dir() for name in (_IMAGES, _PLAIN_IMAGES)):
        return {}
    inside = (path for path in sorted(root.iterdir()) if not path.name.startswith("."))
    shown = [path for path in inside if (path / _IMAGES).is_dir()]
    found = [path for path in shown if (path / _folders(path)[1].name).is_dir()]
    # One is given by its own name, unless it has test images beside it, which may have no masks.
    begins = dict(
        zip(shown, with_test_keys(f"{path.name}/" for path in shown).values(), strict=True)
    )
    parts = {path: begin for path, begin in begins.items() if path in found or is_test_key(begin)}
    is_one = are_of_one_set(path.name for path in parts)
    return parts if found and len(parts) > 1 and is_one else {}


def are_beside(root: Path) -> bool:
    """Tell whether folders in a folder have VOC's form, each for itself or as parts of one."""
    inside = (path for path in root.iterdir() if path.is_dir())
    return any((path / _IMAGES).is_dir() and _folders(path)[1].is_dir() for path in inside)


def _is_whole(root: Path) -> bool:
    images, masks = _folders(root)
    if not (images.is_dir() and masks.is_dir()):
        return False
    if masks.name in (_CLASSES, _PNGS, _AUGMENTED):
        return True
    is_other = any((root / name).is_file() for name in _OTHERS)
    found = _files(masks)
    are_paired = not found.keys().isdisjoint(_files(images)) or not _files(images)
    return not is_other and are_paired and holds_colours(islice(found.values(), _LOOKED_AT))


def _folders(root: Path) -> tuple[Path, Path]:
    """The folders of images and of masks."""
    if (root / _PNGS).is_dir():
        return root / _IMAGES, root / _PNGS
    if (root / _AUGMENTED).is_dir() and not (root / _CLASSES).is_dir():
        return root / _IMAGES, root / _AUGMENTED
    if (root / _CLASSES).is_dir() or not (root / _PLAIN_MASKS).is_dir():
        return root / _IMAGES, root / _CLASSES
    return root / _PLAIN_IMAGES, root / _PLAIN_MASKS


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes that a table names, else the masks' numbers or colours; None without any.

    Raises:
        ValueError: a broken table, or more colours than classes can have.
    """
    if parts := _parts_of(root):
        spaces = [space for part in parts if (space := _label_space(part, root))]
        names = tuple(dict.fromkeys(name for space in spaces for name in space.names))
        return folder_space(root, names) if names else None
    return _label_space(root)


def _label_space(root: Path, above: Path | None = None) -> LabelSpace | None:
    colours, numbers = _tables(root, above)
    if colours is None and numbers is not None:
        check_palettes(_files(_folders(root)[1]).values())
        names = tuple(filter(None, numbers.values()))
    elif colours is None:
        masks = _files(_folders(root)[1]).values()
        check_palettes(masks)
        names = name_classes(masks)
        names = name_pascal_voc(masks, names) or names
    else:
        names = tuple(name for name in colours.values() if name.casefold() not in NO_CLASS)
    return folder_space(root, names) if names else None


def _tables(
    root: Path, above: Path | None
) -> tuple[dict[Colour, str] | None, dict[int, str] | None]:
    """Return the tables of colours and of numbers, of a folder or else of the one of all parts."""
    homes = (root,) if above is None else (root, above)
    found = ((read_class_table(home), read_class_names(home)) for home in homes)
    return next((pair for pair in found if pair != (None, None)), (None, None))


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read VOC's masks.

    Args:
        root: the data set's folder.
        subset: `test` is what `ImageSets/Segmentation/test.txt` names, and what lies in a folder
            of that name; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down masks and images that are broken or have no partner.

    Returns:
        Samples, an instance for each object, or for each class where nothing tells objects apart.
        The attribute `subset` is the list, `train` or `val`, that names an image.

    Raises:
        ValueError: a broken table of colours.
    """
    if parts := _parts_of(root):
        read_part = partial(_read, labels=labels, problems=problems, above=root)
        return _of_parts(root, parts, subset, problems, read_part)
    return _read(root, subset, labels=labels, problems=problems)


def _read(
    root: Path, subset: str, *, labels: LabelSpace, problems: Problems, above: Path | None = None
) -> list[Sample]:
    colours, numbers = _tables(root, above)
    if colours is None and numbers is None:
        if labels.index.keys() <= set(PASCAL_VOC):
            numbers = dict(enumerate(PASCAL_VOC, 1))
        problems.note(f"{root}: {_assumed(labels.names)}")
    reader = _Reader(root, labels, problems, colours, numbers)
    parts, tests = _parts(root)
    samples = [
        replace(sample, key=_key(stem, tests), attributes=parts.get(stem, {}))
        for stem, image, mask in _pairs(root, subset, tests, problems)
        for sample in reader.sample(stem, image, mask)
    ]
    return [*samples, *_unanswered(root, subset, tests, problems)]


def _of_parts(
    root: Path,
    parts: Mapping[Path, str],
    subset: str,
    problems: Problems,
    read_part: Callable[[Path, str], list[Sample]],
) -> list[Sample]:
    """Return the samples of all parts of `_parts_of`, their keys in folders of the parts' names."""
    found: list[Sample] = []
    for part, begin in parts.items():
        is_test = is_test_key(begin)
        if is_test and subset == "train":
            continue
        if _folders(part)[1].is_dir():
            samples = read_part(part, "all" if is_test else subset)
        else:
            images, home = _files(part / _IMAGES, problems), part / _IMAGES
            samples = test_samples(home, images.values(), problems) if is_test else []
        found += [replace(sample, key=begin + sample.key) for sample in samples]
    others = [p for p in Tree(root).all_files() if parts.keys().isdisjoint(p.parents)]
    if others:
        problems.note(describe_left_out(root, others))
    return found


def _assumed(names: Sequence[str]) -> str:
    """Say what classes without a table are taken for."""
    listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    if set(names) <= set(PASCAL_VOC):
        return (
            f"no table names the classes; they are PASCAL VOC's ({listed}), by the masks' palette "
            f"and names; a {LABELMAP} or {CLASS_NAMES} says others"
        )
    what = "colours" if are_colour_names(names) else "numbers"
    return (
        f"no table names the classes, which are called by their {what} ({listed}): add a "
        f"{LABELMAP} or {CLASS_NAMES}, or name them by --labels with 'aliases'"
    )


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads, without their objects.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken, and masks that have none.
    """
    if parts := _parts_of(root):

        def list_part(part: Path, own: str) -> list[Sample]:
            return list_images(part, subset=own, problems=problems)

        return _of_parts(root, parts, subset, problems, list_part)
    found: list[Sample] = []
    lists, tests = _parts(root)
    for stem, image, mask in _pairs(root, subset, tests, problems):
        try:
            size_hw = read_size_hw(image)
        except ValueError as error:
            problems.add(image, error, key=stem)
            continue
        try:
            check_mask_size(mask, size_hw)
        except ValueError as error:
            problems.add(mask, error, key=stem)
        key = _key(stem, tests)
        found.append(Sample(key, image, size_hw, attributes=lists.get(stem, {})))
    return [*found, *_unanswered(root, subset, tests, problems)]


def _unanswered(root: Path, subset: str, tests: frozenset[str], problems: Problems) -> list[Sample]:
    """The images of folders of test images, or of a list, where no mask is of any."""
    if subset == "train":
        return []
    images, drawn = _test_images(root)
    shown, masks = map(_files, _folders(root)) if tests else ({}, {})
    named: list[Sample] = []
    for stem, path in _without_masks(shown, masks, tests).items():
        try:
            named.append(Sample(of_test(stem), path, read_size_hw(path)))
        except ValueError as error:
            problems.add(path, error, key=of_test(stem))
    if drawn:
        first = drawn[0].relative_to(root).as_posix()
        problems.note(
            f"{root}: left out {len(drawn)} masks of test images ({first}): give that folder alone"
        )
    return [*named, *test_samples(root, images, problems)]


def _without_masks(
    images: Mapping[str, Path], masks: Collection[str], tests: frozenset[str]
) -> dict[str, Path]:
    """Stem -> image, of those that lists of test images name, if none of these has a mask."""
    named = tests & images.keys()
    return {stem: images[stem] for stem in sorted(named)} if named.isdisjoint(masks) else {}


def _test_images(root: Path) -> tuple[list[Path], list[Path]]:
    """Images to be answered, and what lies in folders of masks beside them."""
    images, masks = map(_files, _folders(root))
    if _test_lists(root) or any(is_test_key(as_test_key(stem)) for stem in masks):
        return [], []
    inside = [path for stem, path in images.items() if is_test_key(as_test_key(stem))]
    beside: dict[bool, list[Path]] = {True: [], False: []}
    for path in (path for folder in test_folders(root) for path in sorted(folder.rglob("*"))):
        place = path.relative_to(root).parts[:-1]
        if is_image(path) and not any(part.startswith(".") for part in place):
            beside[any(map(is_of_annotations, place))].append(path)
    return [*inside, *beside[False]], beside[True]


def _key(stem: str, tests: Collection[str]) -> str:
    return of_test(stem) if stem in tests else stem


def _parts(root: Path) -> tuple[dict[str, dict[str, str]], frozenset[str]]:
    """Stem -> the attribute that says in which list of images to learn from it is; test images."""
    images = _files(_folders(root)[0])
    stems = _by_name(images)
    train, val = (_listed(root, root / _LISTS / f"{name}.txt", stems) for name in _LEARN)
    pairs = ((_LEARN[0], train - val), (_LEARN[1], val - train))
    parts = {stem: {SUBSET: name} for name, own in pairs for stem in own}
    tests = {stem for path in _test_lists(root) for stem in _listed(root, path, stems)}
    # Tables, too.
    lists = find_test_lists(root)
    listed = read_test_lists(root, lists, {stem: stem for stem in images}, images, images.values())
    more = listed.keys if images.keys() > listed.keys else frozenset()
    return parts, frozenset(tests) | more


def _pairs(
    root: Path, subset: str, tests: frozenset[str], problems: Problems
) -> list[tuple[str, Path, Path]]:
    """The stem, image and class mask of each image of a subset."""
    folders = _folders(root)
    images, masks = (_files(folder, problems) for folder in folders)
    if unknown := sorted(tests - images.keys()):
        problems.note(
            f"{_test_lists(root)[0]}: left out {len(unknown)} names without an image "
            f"({unknown[0]:.80})"
        )
    for stem in sorted(masks.keys() - images.keys()):
        what = f"expected an image of this name in {folders[0].name}, found none"
        problems.add(masks[stem], what, key=stem)
    if subset != "test":
        _check_lists(root, {*images, *masks}, problems)
    test_images, drawn = _test_images(root)
    unanswered = {*test_images, *_without_masks(images, masks, tests).values()}
    homes = [*folders, root / _OBJECTS]
    others = [
        path
        for path in Tree(root).all_files()
        if not any(path.is_relative_to(home) for home in homes)
        and path not in {*test_images, *drawn}
    ]
    if others:
        problems.note(describe_left_out(root, others))
    without = images.keys() - masks.keys()
    if alone := sorted(stem for stem in without if images[stem] not in unanswered):
        problems.note(
            f"{root}: left out {len(alone)} images without a mask in {folders[1].name} "
            f"({alone[0]}, ...)"
        )
    return [
        (stem, images[stem], masks[stem])
        for stem in sorted(images.keys() & masks.keys())
        if subset == "all" or (stem in tests or is_test_key(stem)) == (subset == "test")
    ]


def _check_lists(root: Path, stems: set[str], problems: Problems) -> None:
    """Take down what lists other than that of test images name, and what is nowhere."""
    known = _by_name(stems)
    for path in sorted({*(root / _LISTS).glob("*.txt")} - {*_test_lists(root)}):
        for name in sorted(_listed(root, path, known) - stems):
            if PurePosixPath(name).name not in stems:
                what = f"'{name:.80}': expected its image and its mask, found neither: put them "
                problems.add(path, what + "back, or take the name away", key=name)


def _files(folder: Path, problems: Problems | None = None) -> dict[str, Path]:
    """Stem -> image; of several that differ only in their suffix, the first, and a problem."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(filter(is_image, Tree(folder).files_in(folder, deep=True))):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        other = found.setdefault(stem, path)
        if other != path and problems:
            what = f"expected one file of this name, found {other.name} too: move one away"
            problems.add(path, what, key=stem)
    return found


def _by_name(stems: Iterable[str]) -> dict[str, str]:
    """Stems by their names with accents in one form."""
    return {normal_name(stem): stem for stem in stems}


def _test_lists(root: Path) -> list[Path]:
    """The lists of test images: `test.txt`, or such as `testing.txt`; some have them above."""
    inside = ("ImageSets/*/*.txt", "ImageSets/*.txt", "splits/*.txt", "*.txt")
    found = (path for place in inside for path in sorted(root.glob(place)))
    return [path for path in found if is_test_name(path.stem)]


def _listed(root: Path, path: Path, stems: Mapping[str, str]) -> frozenset[str]:
    """The stems of images that a list names; names without an image as they stand there.

    Some write paths, also of other computers, or suffixes, or an image and its mask in a line.

    Args:
        root: the data set's folder.
        path: the list.
        stems: those that there are, of `_by_name`.
    """
    lines = read_lines(path) if os.path.lexists(path) else ()
    home = _folders(root)[0].name
    found = set()
    for line in filter(None, map(str.strip, lines)):
        # A name may have spaces.
        ways = [_stem(way) for way in (line, *_DIVIDED.split(line), line.split()[0])]
        ways += [way.rpartition(f"{home}/")[2] for way in ways]
        known = (stems[normal_name(way)] for way in ways if normal_name(way) in stems)
        found.add(next(known, _stem(line.split()[0]).removeprefix(f"{home}/")))
    return frozenset(found)


def _stem(name: str) -> str:
    plain = PurePosixPath(name.strip().replace("\\", "/").removeprefix("/"))
    return (plain.with_suffix("") if is_image(Path(plain.name)) else plain).as_posix()


@dataclass
class _Reader:
    root: Path
    labels: LabelSpace
    problems: Problems
    colours: Mapping[Colour, str] | None
    numbers: Mapping[int, str] | None
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
                return self._colour_planes(values)
            if self.labels.names and are_colour_names(self.labels.names):
                return [(colour_name(WHITE), plane) for plane in [_white(values)] if plane.any()]
            none = {n for n in (0, VOID) if not (self.numbers or {}).get(n)}
            numbers = sorted(set(used_values(values)) - none)
            named = [(self._name(n), (values == n).astype(np.uint8)) for n in numbers]
            return [(name, plane) for name, plane in named if name]
        codes = _colours(path, size_hw)
        planes = []
        for code in used_values(codes):
            colour = (code >> 16, code >> 8 & 255, code & 255)
            name = self.colours.get(colour, "" if sum(colour) == 0 else None)
            if name is None and colour == VOID_COLOUR:
                continue
            if name is None:
                table = find_class_table(self.root)
                name = table.name if table else LABELMAP
                raise ValueError(f"expected a colour of {name}, found {colour}")
            if name in self.labels.index:
                planes.append((name, (codes == code).astype(np.uint8)))
        return planes

    def _name(self, number: int) -> str:
        if self.numbers is None:
            return str(number)
        if number not in self.numbers:
            found = f"one of {len(self.numbers)} in {CLASS_NAMES}, found {number}"
            raise ValueError(f"expected a class number that is {found}")
        return self.numbers[number]

    def _colour_planes(self, values: npt.NDArray[Any]) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        found = class_codes(values)
        if found and not are_colour_names(self.labels.names):
            raise ValueError(
                f"expected class numbers, found colours: add {LABELMAP} with name:r,g,b lines"
            )
        codes = colour_codes(values)
        return [(colour_name(code), (codes == code).astype(np.uint8)) for code in found]

    def _object_numbers(self, stem: str, size_hw: tuple[int, int]) -> npt.NDArray[Any] | None:
        """A number for each object, (H, W); None where nothing tells them apart."""
        path = self._objects.get(stem)
        if path is None:
            return None
        return _colours(path, size_hw)


def _white(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return what is white in a grey mask among others in colours, (H, W).

    Raises:
        ValueError: it has more than black and white.
    """
    if others := sorted(set(used_values(values)) - {BLACK, VOID}):
        raise ValueError(f"expected colours as in other masks, found the number {others[0]}")
    return (values == VOID).astype(np.uint8)


def _colours(path: Path, size_hw: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """A number for each colour of an image, red first: uint32 (H, W)."""
    try:
        check_mask_size(path, size_hw)
        shown = decode_image(path.read_bytes(), cv2.IMREAD_COLOR)
    except ValueError as error:
        raise ValueError(f"{path.parent.name}: {error}") from None
    codes: npt.NDArray[np.uint32] = shown[..., ::-1].astype(np.uint32) @ _COLOUR_CODE
    return codes


def _apart(
    plane: npt.NDArray[np.uint8], objects: npt.NDArray[Any] | None
) -> Iterator[npt.NDArray[np.uint8]]:
    if objects is None:
        yield plane
        return
    for number in used_values(objects[plane > 0]):
        yield ((objects == number) & (plane > 0)).astype(np.uint8)
