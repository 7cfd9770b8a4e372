"""Images and masks in folders of any usual names, which no file describes (read).

    DATA/**/images/NAME.jpg     DATA/**/masks/NAME.png       or labels, annotations, gt, ...
    DATA/train/NAME.jpg         DATA/trainannot/NAME.png     or train_masks, train_labels, ...
    DATA/**/NAME.jpg            DATA/**/NAME_mask.png        or NAME_seg, NAME_label, NAME_gt, ...
    DATA/**/images/NAME.jpg     DATA/**/masks/*.png          one image, a mask for each object
    DATA/**/images/NAME.jpg     DATA/**/masks/CLASS/NAME.png     a folder for each class
    DATA/**/NAME.jpg            DATA/**/masks/NAME_CLASS_0.png   a file for each object, or class
    DATA/images/NAME.jpg        DATA/CLASS/NAME.png         or masks_CLASS; all of two colours
    DATA/NAME.jpg               DATA/NAME.png               of few colours
    DATA/ANY/NAME.jpg           DATA/ANY/NAME.png           photographs, and files of few colours
    DATA/labelmap.txt           (optional) name:r,g,b, a line each, or another table of
                                `class_tables`, whose lines are also the numbers of the classes
    DATA/class_names.txt        (optional) the names of the numbers from 0 on, a line each; or
                                another of `class_tables`, such as id2label.json, codes.txt, or
                                Roboflow's _classes.csv

Names may differ in words such as `image` and `mask`, or in what all of them begin or end with.
Masks are PNG, TIFF, BMP or GIF: class numbers (0 none, 255 void), or colours (black none); if they
hold but one value beside 0, they are of one class, `object`. Numbers that are 1 to n in each image,
with another n, and n above 20 in one, are numbers of objects; so are fewer where at least four n
occur and nearly each number is in one piece (classes seldom occur only where those before them do).
Numbers such as 11003 are class * 1000 + object, or class * 256 + object. Numbers that are spread
evenly up to 255 are classes, 255 too. Masks with smoothed edges, and JPEG, are read where they are
nearly black and white; a palette of many greys, and palettes that differ from image to image, are
taken by their colours, not by their indexes. What was assumed is said, and so is every image that
is part of no pair. Where masks have other meanings, or several folders are about the same images,
they are refused.

What one part of a data set says of classes, by folders or names of masks, holds in the others.
Links to folders are followed, each place once.

A folder is known as such only if no other format with annotations knows it.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from converters.errors import Problems, one_line
from converters.files.image_headers import BROKEN
from converters.files.images import read_size_hw
from converters.formats.label_spaces import folder_space, natural
from converters.formats.mask_colours import (
    MOST_COLOURS,
    check_palettes,
    class_codes,
    colour_codes,
    colour_name,
    have_own_palettes,
    is_class_code,
    read_palette,
)
from converters.formats.mask_folders import voc
from converters.formats.mask_folders.black_and_white import (
    LOSSY,
    MOST_BETWEEN,
    NEAR,
    has_smoothed_edges,
    lies_around,
    share_between,
)
from converters.formats.mask_folders.matching import OBJECT, Pairs
from converters.formats.mask_folders.pairing import describe_left_out, find_pairs
from converters.formats.mask_folders.tree import GIF
from converters.formats.mask_pixels import VOID, Pixels, read_mask_pixels, used_values
from converters.masks import crop, outline
from converters.subsets.assign import find_copies
from converters.subsets.keys import is_test_key
from converters.tables.class_tables import (
    find_class_table,
    read_bare_list,
    read_class_ids,
    read_class_names,
    read_class_table,
    read_listed_names,
)
from converters.types import NO_CLASS, Instance, LabelSpace, Sample

LOSES: dict[str, frozenset[str]] = {}
_LOOKED_AT = 20
# So many greys of a palette may be classes.
_FEW_GREYS = 5
# Fewer numbers of objects than that may be classes, unless so many n occur, and such a share of
# numbers is in one piece.
_LEAST_OBJECTS = 20
_LEAST_COUNTS, _LEAST_WHOLE = 4, 0.9
# Of so many masks something has to hold to be said of all.
_NEARLY_ALL = 0.9
# Where so many images have a file of a class, one without may have lost it.
_USUALLY = 0.75
# What masks of one class have there, by their bits.
_SET = frozenset({1, VOID, 2**16 - 1})
# Of numbers of a class and an object, and what MOTS has where nobody looked.
_BASES, _UNSURE = (1000, 256), frozenset({10000})
_MOST_OBJECTS, _MOST_CLASSES = (500, 100), 100
# A grey level's code as a colour: of red, green and blue.
_GREY = 0x010101


def matches(root: Path) -> bool:
    """Tell whether a folder holds images, and files of their names that can be masks."""
    pairs = find_pairs(root)
    if pairs is None or (pairs.ambiguous and voc.are_beside(root)):
        return False
    first = islice((path for own in pairs.masks.values() for path in own), _LOOKED_AT)
    return any(map(_is_mask, first))


def describe_unreadable(root: Path) -> str:
    """Name a mask of an image that cannot be read; "" where the first ones can."""
    pairs = find_pairs(root)
    masks = (path for own in (pairs.masks.values() if pairs else ()) for path in own)
    for path in islice(masks, _LOOKED_AT):
        try:
            read_mask(path)
        except (OSError, ValueError) as error:
            return f": {path.relative_to(root).as_posix()}: {one_line(error)}"
    return ""


def _is_mask(path: Path) -> bool:
    try:
        values = read_mask(path)
        found = used_values(values) if values.ndim == 2 else class_codes(values)
    except (OSError, ValueError):
        return False
    return len(found) <= MOST_COLOURS or _are_first_numbers(values) or _is_two_sided(values)


def _greys(values: Pixels) -> Pixels | None:
    """Return the grey levels of a mask, (H, W); None where it has colours, beyond losses."""
    if values.ndim == 2:
        return values
    top, bottom = values[..., :3].max(axis=-1), values[..., :3].min(axis=-1)
    return top if (top - bottom <= NEAR).all() else None


def _is_two_sided(values: Pixels) -> bool:
    """Tell whether a mask has two values, or is black and white but for smoothed edges."""
    greys = _greys(values)
    if greys is None or greys.dtype != np.uint8:
        return False
    return len(used_values(greys)) <= 2 or has_smoothed_edges(greys)


def _are_first_numbers(values: Pixels) -> bool:
    if values.ndim != 2:
        return False
    found = used_values(values)
    return bool(found[-1] == len(found) - (found[0] == 0))


def label_space(root: Path) -> LabelSpace | None:
    """Return the classes that labelmap.txt or class_names.txt names, else the masks' values.

    Raises:
        ValueError: several folders are about the same images, values that cannot be classes, or
            a broken file of names.
    """
    pairs = _required_pairs(root)
    names = _Classes.find(root, pairs, only_names=True).names
    return folder_space(root, names) if names else None


def read(root: Path, *, subset: str, labels: LabelSpace, problems: Problems) -> list[Sample]:
    """Read images with their masks.

    Args:
        root: the data set's folder.
        subset: `test` is what lies in a folder of that name; `train` is everything else.
        labels: those of `label_space`.
        problems: takes down masks and images that are broken or have no partner.

    Returns:
        Samples, an instance for each class of an image, or for each object.

    Raises:
        ValueError: as `label_space`.
    """
    pairs = _required_pairs(root)
    classes = _Classes.find(root, pairs)
    problems.note(f"{root}: {classes.describe()}")
    for name, keys in _lacking(pairs).items():
        problems.note(
            f"{root}: no mask of '{name}' for {len(keys)} of {len(pairs.masks)} images "
            f"({', '.join(keys):.80}): taken as without one"
        )
    samples: list[Sample] = []
    around: list[bool] = []
    for key, image, size_hw in _images(root, pairs, subset, problems):
        found: list[Instance] = []
        for path in pairs.masks.get(key, ()):
            try:
                values = read_mask(path, size_hw, as_colours=classes.as_colours)
                label = pairs.classes.get(path) if classes.kind == "files" else None
                planes = list(classes.planes(values, label))
            except (OSError, ValueError) as error:
                problems.add(path, one_line(error), key=key)
                continue
            found += [Instance(name, outline(crop(plane))) for name, plane in planes]
            if classes.kind in ("object", "edges"):
                around += [lies_around(plane) for _, plane in planes]
        samples.append(Sample(key, image, size_hw, tuple(found)))
    if len(around) > 1 and sum(around) > _NEARLY_ALL * len(around):
        problems.note(
            f"{root}: '{classes.only}' is most of nearly every mask, up to its border: if black "
            "was drawn on white, exchange black and white"
        )
    return samples


def _lacking(pairs: Pairs) -> dict[str, list[str]]:
    """Return class -> the images without a file of it, of those that nearly all images have."""
    images: dict[str, set[str]] = defaultdict(set)
    for key, own in pairs.masks.items():
        for path in own:
            if (name := pairs.classes.get(path)) is not None:
                images[name].add(key)
    most = _USUALLY * len(pairs.masks)
    rest = {name: sorted(pairs.masks.keys() - own) for name, own in images.items()}
    return {name: rest[name] for name in sorted(rest) if rest[name] and len(images[name]) >= most}


def list_images(root: Path, *, subset: str, problems: Problems) -> list[Sample]:
    """List the images that `read` reads, without their objects.

    Args:
        root: as for `read`, like the next two.
        subset: `test`, `train` or `all`.
        problems: takes down images that are broken, and masks that have none.
    """
    pairs = _required_pairs(root)
    found = _images(root, pairs, subset, problems)
    return [Sample(key, image, size_hw) for key, image, size_hw in found]


def _required_pairs(root: Path) -> Pairs:
    pairs = find_pairs(root)
    if pairs is None:
        raise ValueError(f"{root}: expected images and masks of the same names, found none")
    if pairs.ambiguous:
        raise ValueError(
            f"{root}: expected one folder of images and one of their masks, found "
            f"{', '.join(dict.fromkeys(pairs.ambiguous)):.200} of the same names: move away those "
            "not meant"
        )
    return pairs


def _images(
    root: Path, pairs: Pairs, subset: str, problems: Problems
) -> Iterator[tuple[str, Path, tuple[int, int]]]:
    """Yield key, image and size of what belongs to a subset; test images may have no mask."""
    for path in pairs.alone:
        place = path.relative_to(root).with_suffix("").as_posix()
        problems.add(path, "expected an image of this name, found none", key=place)
    for path, key in pairs.twice.items():
        what = "expected one file of this name, found one of another suffix too: move one away"
        problems.add(path, what, key=key)
    for note in pairs.notes:
        problems.note(note)
    if pairs.left_out:
        problems.note(describe_left_out(root, pairs.left_out))
    if without := sorted(pairs.images.keys() - pairs.masks.keys()):
        problems.note(f"{root}: left out {len(without)} images without a mask ({without[0]}, ...)")
    masked = {key: pairs.images[key] for key in pairs.masks}
    if copies := find_copies({**pairs.unanswered, **masked}):
        problems.note(
            f"{root}: left out {len(copies)} images that are test images, too ({copies[0]})"
        )
        masked = {key: masked[key] for key in masked.keys() - set(copies)}
    for key, image in sorted({**pairs.unanswered, **masked}.items()):
        if subset == "all" or is_test_key(key) == (subset == "test"):
            try:
                yield key, image, read_size_hw(image)
            except ValueError as error:
                problems.add(image, error, key=key)


def read_mask(
    path: Path, size_hw: tuple[int, int] | None = None, *, as_colours: bool = False
) -> Pixels:
    """Return a mask's numbers, (H, W), or its colours, (H, W, 3 or 4), red first.

    Args:
        path: PNG, TIFF, BMP or GIF, or a JPEG that is nearly black and white, which becomes 0 and
            255.
        size_hw: the image's height and width; None where they are not known.
        as_colours: a palette is taken by its colours, or greys where it has no others; not by its
            indexes.

    Raises:
        ValueError: another kind of file, a broken one, or one of another size.
    """
    content = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix == ".png":
        pixels = read_mask_pixels(content, size_hw).values
        return _by_palette(content, pixels, as_colours) if pixels.ndim == 2 else pixels
    found = _read_gif_size(content) if suffix == GIF else read_size_hw(path)
    if size_hw is not None and found != size_hw:
        raise ValueError(f"expected a mask of {size_hw}, found {found}")
    is_jpeg = suffix in LOSSY
    # No mask may be stretched, as images of 16 bits are.
    way = cv2.IMREAD_GRAYSCALE if is_jpeg else cv2.IMREAD_UNCHANGED
    values = cv2.imdecode(np.frombuffer(content, np.uint8), way)
    if values is None or values.dtype.kind != "u":
        raise ValueError("expected a mask of whole numbers or colours, found another kind of file")
    if not is_jpeg:
        colours = values if values.ndim == 2 else np.ascontiguousarray(values[..., 2::-1])
        # A GIF has a palette, and where it has greys alone, these are meant.
        greys = _equal_channels(colours) if suffix == GIF else None
        return colours if greys is None else greys
    if share_between(values) > MOST_BETWEEN:
        raise ValueError("expected a mask without loss (PNG, TIFF), found a JPEG with grey levels")
    return np.where(values > VOID // 2, VOID, 0).astype(np.uint8)


def _is_dark(path: Path) -> bool:
    """Tell whether a mask is a JPEG that is not empty, and has nothing that is white."""
    if path.suffix.lower() not in LOSSY:
        return False
    values = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return values is not None and 0 < int(values.max()) <= VOID // 2


def _read_gif_size(content: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(content), formats=("GIF",)) as header:
            frames, size_hw = getattr(header, "n_frames", 1), (header.height, header.width)
            hidden = header.info.get("transparency")
            # The first colour is what lies around objects.
            has_hidden = bool(hidden) and bool((np.array(header) == hidden).any())
    except (Image.DecompressionBombError, *BROKEN):
        raise ValueError("expected a GIF that can be read, found another file") from None
    if frames > 1:
        raise ValueError(f"expected one picture, found {frames} frames: save each as a file")
    if has_hidden:
        raise ValueError("expected a mask without transparent pixels, found some: save a PNG")
    return size_hw


def _equal_channels(colours: Pixels) -> Pixels | None:
    """Return one of three equal channels, (H, W); None where they differ."""
    first = colours[..., :1]
    return np.ascontiguousarray(first[..., 0]) if (colours == first).all() else None


def _by_palette(content: bytes, indexes: Pixels, as_colours: bool) -> Pixels:
    """Return the greys of a palette that was made for them; the indexes of any other.

    Programs that save space give an image's greys any numbers, white the first if it is frequent.
    """
    palette = read_palette(content)
    used = used_values(indexes)
    if not len(palette) or used[-1] >= len(palette):
        return indexes
    colours = palette[indexes]
    if as_colours:
        greys = _equal_channels(colours)
        return colours if greys is None else greys
    greys = _greys(colours)
    if greys is None:
        return indexes
    if palette[used].tolist() == [[VOID] * 3, [0] * 3]:
        return greys // VOID
    is_smoothed = len(used) > _FEW_GREYS and _is_two_sided(greys)
    return greys if is_smoothed or len(used) > _LEAST_OBJECTS else indexes


@dataclass
class _Classes:
    """What the values of masks mean.

    Attributes:
        names: of the classes.
        colours: colour -> name, from a table of them.
        numbers: number -> name, from class_names.txt or that table; "" is no class.
        kind: "objects", "object" (one class), "edges" (one class, black and white), "files" (a
            class for each), "numbers", "both" (of a class and an object in one) or "colours".
        has_void: 255 is none of the class, where there is one.
        as_colours: palettes are taken by their colours.
        example: a file that says its class, where the files do.
        base: what a class is multiplied by before the number of an object is added.
        hint: what else is to be said of where the names come from.
    """

    names: tuple[str, ...]
    kind: str
    colours: dict[int, str] = field(default_factory=dict)
    numbers: dict[int, str] = field(default_factory=dict)
    has_void: bool = False
    as_colours: bool = False
    example: Path | None = None
    base: int = 0
    hint: str = ""

    @classmethod
    def find(cls, root: Path, pairs: Pairs, only_names: bool = False) -> _Classes:
        """Look at all masks for what their values can mean.

        Args:
            root: the data set's folder.
            pairs: its images and masks.
            only_names: nothing else is asked for: what a table names needs no look at values.

        Raises:
            ValueError: more values than classes can have, or no mask that can be read.
        """
        masks = [path for own in pairs.masks.values() for path in own]
        if pairs.classes and not _have_several(pairs.classes):
            names = natural(set(pairs.classes.values()))
            example = next(iter(pairs.classes))
            as_colours = have_own_palettes(masks)
            return cls(names, "files", example=example, as_colours=as_colours)
        numbers, colours = read_class_names(root), read_class_table(root)
        values: set[int] | None = None
        if colours is not None and numbers is None and _hold_numbers(pairs):
            own = [name if name.casefold() not in NO_CLASS else "" for name in colours.values()]
            # A table of greys says the numbers themselves.
            are_greys = all(len(set(colour)) == 1 for colour in colours)
            if are_greys:
                numbers = dict(zip((c[0] for c in colours), own, strict=True))
            elif columns := read_class_ids(root):
                values = set() if only_names else _values_of(masks)
                numbers = _fitting_numbers(root, columns, values)
            else:
                numbers = dict(enumerate(own))
        elif colours is not None:
            named = {(r << 16) + (g << 8) + b: name for (r, g, b), name in colours.items()}
            kept = {c: "" if n.casefold() in NO_CLASS else n for c, n in named.items()}
            kept_names = tuple(dict.fromkeys(filter(None, kept.values())))
            return cls(kept_names, "colours", kept, as_colours=True)
        if numbers is not None:
            check_palettes(masks)
            if values is None:
                values = set() if only_names else _values_of(masks)
            return cls._of_numbers(numbers, values)
        found = cls._of_values(masks)
        if found.names == (OBJECT,) and found.kind in ("object", "edges"):
            own = [
                n for n in read_listed_names(root).values() if n and n.casefold() not in NO_CLASS
            ]
            if not own and (bare := read_bare_list(root)):
                own = list(bare[1])
            return replace(found, names=tuple(own)) if len(own) == 1 else found
        if found.kind == "numbers" and not found.as_colours:
            # Those that a list says nothing of are as they were.
            listed = read_listed_names(root)
            if listed and set(map(int, found.names)) <= listed.keys():
                return cls._of_numbers(listed, set(map(int, found.names)))
            if not listed and (bare := read_bare_list(root)):
                return found._by_bare_list(*bare)
        return found

    def _by_bare_list(self, path: Path, names: Sequence[str]) -> _Classes:
        """Return numbers with the names of a list that does not say where it begins.

        As many as the highest number are counted from 1 on, one more from 0 on where another
        number is none.
        """
        values, count = set(map(int, self.names)), len(names)
        if max(values) == count:
            taken = self._of_numbers(dict(enumerate(("", *names))), values)
            hint = f"; {path.name} names them from 1 on"
            return replace(taken, has_void=self.has_void, hint=hint)
        if max(values) == count - 1 and self.has_void:
            taken = self._of_numbers(dict(enumerate(names)), values | {0, VOID})
            return replace(taken, hint=f"; {path.name} names them from 0 on")
        hint = (
            f"; {path.name} ({count} names) is left out, as nothing says which number its first is"
        )
        return replace(self, hint=hint)

    @classmethod
    def _of_numbers(cls, numbers: dict[int, str], values: set[int]) -> _Classes:
        """Return the classes that a table names, and what the values of masks mean by it."""
        names = tuple(filter(None, numbers.values()))
        if values == {0, VOID} and VOID not in numbers and len(names) == 1:
            # Black and white, of the only class.
            return cls(names, "numbers", {}, {0: "", VOID: names[0]})
        # What is named itself is no number of a class and an object.
        base = 0 if values - {0, VOID} <= numbers.keys() else _find_base(values - {0})
        if base and {_class_number(v, base) for v in values - _UNSURE - {0}} <= numbers.keys():
            return cls(names, "both", {}, numbers, base=base)
        return cls(names, "numbers", {}, numbers, has_void=VOID in values - numbers.keys())

    @classmethod
    def _of_values(cls, masks: Sequence[Path]) -> _Classes:
        broken = ""
        as_colours = have_own_palettes(masks)
        values: set[int] = set()
        colours: set[int] = set()
        counts: set[int] = set()
        levels: set[int] = set()
        are_first = are_two_sided = True
        # Grey levels of files in colours: numbers, unless others have more than grey.
        tinted: set[int] = set()
        for path in masks:
            try:
                pixels = read_mask(path, as_colours=as_colours)
                found = class_codes(pixels) if pixels.ndim == 3 else []
            except (OSError, ValueError) as error:
                broken = broken or f"{path}: {one_line(error)}"
                continue
            are_two_sided &= _is_black_and_white(pixels)
            if (smooth := _greys(pixels)) is not None:
                levels |= set(used_values(smooth))
            if (greys := _plain_greys(pixels)) is None:
                colours |= set(found)
                continue
            own = set(used_values(greys))
            own -= {0}
            (values if pixels.ndim == 2 else tinted).update(own)
            counts.add(len(own))
            are_first &= own == set(range(1, len(own) + 1))
        if broken and not values and not colours and not tinted:
            raise ValueError(broken)
        if are_two_sided and _are_smoothed(levels):
            return cls((OBJECT,), "edges", as_colours=as_colours)
        # Some save the same mask as 0 and 1, and as 0 and 255; both in one is a class and a void.
        if not colours and len(values | tinted) > 1 and values | tinted <= _SET and max(counts) < 2:
            return cls((OBJECT,), "object", as_colours=as_colours)
        if colours and values - {VOID}:
            raise ValueError(
                f"{masks[0].parent}: expected masks of numbers or of colours, found both: save all "
                "of them in the same way"
            )
        if colours:
            colours |= {level * _GREY for level in values | tinted}
            _check_count(colours)
            if len(colours) == 1:
                return cls((OBJECT,), "object", as_colours=as_colours)
            names = tuple(map(colour_name, sorted(colours)))
            return cls(names, "colours", as_colours=as_colours)
        values |= tinted
        is_void = VOID in values and not _are_even(values)
        if len(values - {VOID}) == 1 and is_void:
            return cls((OBJECT,), "object", has_void=True, as_colours=as_colours)
        if not values and (dark := next(filter(_is_dark, masks), None)):
            raise ValueError(
                f"{dark}: expected a mask without loss (PNG, TIFF), found a JPEG of small numbers, "
                "as all others are"
            )
        if len(values) <= 1:
            return cls((OBJECT,) if values else (), "object", as_colours=as_colours)
        if base := _find_base(values):
            numbers = {_class_number(value, base) for value in values - _UNSURE}
            return cls(natural(map(str, numbers)), "both", base=base)
        are_many = len(counts) > 1 and max(counts) > _LEAST_OBJECTS
        has_counts = len(counts - {0}) >= _LEAST_COUNTS
        if are_first and (are_many or (has_counts and _are_whole(masks, as_colours))):
            return cls((OBJECT,), "objects", as_colours=as_colours)
        values -= {VOID} if is_void else set()
        _check_count(values)
        names = natural(map(str, values))
        return cls(names, "numbers", has_void=is_void, as_colours=as_colours)

    @property
    def only(self) -> str:
        """The class where there is one."""
        return self.names[0] if self.names else OBJECT

    def describe(self) -> str:
        """Say what was assumed of the masks."""
        if self.kind == "objects":
            return (
                f"the masks' numbers, 1 to n in each image, are taken for objects of '{OBJECT}'; "
                "class_names.txt, which names them from 0 on, a line each, makes them classes"
            )
        if not self.names:
            return "the masks are empty"
        if self.kind == "both":
            return (
                f"the masks' numbers are taken for class * {self.base} + object, of the classes "
                f"{', '.join(self.names):.60}, {min(_UNSURE)} for none; id2label.json names "
                "classes by their numbers"
            )
        if self.kind == "files":
            return f"classes by the folders or names of masks ({', '.join(self.names):.200})"
        if self.kind == "edges":
            return f"black and white masks are taken for one class, '{self.only}', from half on"
        if self.kind == "object":
            void = f", and {VOID} for none" if self.has_void else ""
            return f"masks of one value are taken for one class, '{self.only}'{void}"
        if self.numbers or self.kind == "colours":
            others = [str(number) for number, name in self.numbers.items() if number and not name]
            others += [str(VOID)] if self.has_void else []
            none = f", {', '.join(others):.60} for none" if others else ""
            return f"masks of {len(self.names)} classes by their {self.kind}{none}{self.hint}"
        none = "0" if str(VOID) in self.names else f"0 and {VOID}"
        return (
            f"the masks' numbers are taken for classes ({', '.join(self.names):.60}), {none} for "
            f"none; class_names.txt names them from 0 on, a line each{self.hint}"
        )

    def planes(
        self, values: Pixels, label: str | None = None
    ) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        """Yield each object or class of a mask, with its pixels, uint8 (H, W).

        Args:
            values: of `read_mask`.
            label: the class of the file, where it has but one.

        Raises:
            ValueError: a value that is no class.
        """
        if self.kind == "edges" and (greys := _greys(values)) is not None:
            # Masks of two values may have 0 and 1.
            plane = (greys > greys.max() // 2).astype(np.uint8)
            yield from ((self.only, plane) for plane in [plane] if plane.any())
            return
        if self.kind == "files" and label is None:
            example = self.example.name if self.example else ""
            raise ValueError(
                f"expected a mask whose folder or name says its class, as that of {example} does, "
                "found one that says none"
            )
        if label is not None or self.kind == "object":
            codes = values if values.ndim == 2 else colour_codes(values)
            void = {VOID} if self.has_void and values.ndim == 2 else set()
            found = set(used_values(codes)) - {0} - void
            if label is not None and len(found) > 1:
                if _is_two_sided(values) and (greys := _greys(values)) is not None:
                    yield label, (greys > VOID // 2).astype(np.uint8)
                    return
                raise ValueError(
                    f"expected one value beside 0, of '{label:.60}', found {len(found)}"
                )
            if found:
                yield label or self.only, np.isin(codes, list(found)).astype(np.uint8)
            return
        codes = self._codes(values)
        for code in used_values(codes):
            if name := self._name(code):
                yield name, (codes == code).astype(np.uint8)

    def _codes(self, values: Pixels) -> Pixels:
        """Return a number, or a colour's code, for each pixel, (H, W).

        Raises:
            ValueError: colours where numbers are classes, or the other way round.
        """
        greys = _plain_greys(values)
        if self.kind != "colours":
            if greys is None:
                raise ValueError(f"expected a mask in {self.kind} as others are, found colours")
            return greys
        if values.ndim == 3:
            return colour_codes(values)
        if not set(used_values(values)) <= {0, VOID}:
            raise ValueError("expected a mask in colours as others are, found numbers")
        return values.astype(np.uint32) * _GREY

    def _name(self, code: int) -> str:
        if self.kind == "objects":
            return OBJECT if code else ""
        if self.kind == "both":
            if code in (0, *_UNSURE):
                return ""
            number = _class_number(code, self.base)
            return self.numbers.get(number, "") if self.numbers else str(number)
        if self.kind == "colours":
            if self.colours:
                if code not in self.colours and is_class_code(code):
                    raise ValueError(f"expected a colour of the table, found #{code:06x}")
                return self.colours.get(code, "")
            return colour_name(code) if is_class_code(code) else ""
        if self.numbers:
            if code not in self.numbers and code != VOID:
                raise ValueError(f"expected a class of class_names.txt or a table, found {code}")
            return self.numbers.get(code, "")
        return "" if code == 0 or (code == VOID and self.has_void) else str(code)


def _have_several(classes: Mapping[Path, str]) -> bool:
    """Tell whether one folder's masks have several numbers each, and so are of no single class."""
    if len(set(classes.values())) > 1:
        return False
    return any(len(_values_of([path]) - {0, VOID}) > 1 for path in classes)


def _values_of(masks: Iterable[Path]) -> set[int]:
    """Return the numbers in masks, of those that can be read and have no colours."""
    values: set[int] = set()
    for path in masks:
        try:
            greys = _plain_greys(read_mask(path))
        except (OSError, ValueError):
            continue  # whoever reads it says so
        values |= set() if greys is None else set(used_values(greys))
    return values


def _fitting_numbers(
    root: Path, columns: Sequence[dict[int, str]], values: set[int]
) -> dict[int, str]:
    """Return number -> name, "" for none, by the first column of a table that masks fit.

    Args:
        root: the data set's folder.
        columns: number -> name by each column, of which there is one at least.
        values: that masks have; none where only the names are asked for.

    Raises:
        ValueError: masks count from 0 what the table counts from 1.
    """
    found = [
        {n: "" if name.casefold() in NO_CLASS else name for n, name in c.items()} for c in columns
    ]
    known = next((own for own in found if values - {0, VOID} <= own.keys()), found[0])
    least, most = min(known), max(known)
    if least == 1 and known[1] == "" and 0 in values and most not in values:
        raise ValueError(
            f"{find_class_table(root)}: expected the numbers of masks, found them from 1 on and no "
            f"{most} in the masks, which have 0: count from 0 in the table, or name the masks' "
            "numbers in class_names.txt"
        )
    return {0: "", **known}


def _plain_greys(pixels: Pixels) -> Pixels | None:
    """Return numbers, or what three channels have in common, (H, W); None of other colours."""
    return pixels if pixels.ndim == 2 else _equal_channels(pixels[..., :3])


def _is_black_and_white(pixels: Pixels) -> bool:
    """Tell whether a mask has nothing but black and white, or 0 and 1, and smoothed edges."""
    greys = _greys(pixels)
    if greys is None or greys.dtype != np.uint8:
        return False
    found = used_values(greys)
    if len(found) > 2:
        return _is_two_sided(greys)
    return found[0] <= NEAR and (found[-1] >= VOID - NEAR or set(found) <= {0, 1})


def _are_smoothed(levels: set[int]) -> bool:
    """Tell whether grey levels are as many as edges have, on both sides of their middle."""
    between = [level for level in levels if NEAR < level < VOID - NEAR]
    is_wide = bool(between) and min(between) <= VOID // 2 < max(between)
    return is_wide and len(levels) > _LEAST_OBJECTS


def _find_base(values: set[int]) -> int:
    """Return by what classes are multiplied where numbers are of a class and an object; else 0.

    Cityscapes and KITTI's MOTS have class * 1000 + object, and a class alone where objects are not
    told apart; KITTI's semantics have class * 256 + object.
    """
    both = values - _UNSURE
    large = {value for value in both if value >= _BASES[0]}
    is_first = any(value % _BASES[0] for value in large) or bool(large and values & _UNSURE)
    if is_first and max(value % _BASES[0] for value in large) < _MOST_OBJECTS[0]:
        return _BASES[0] if all(v in large or v < _MOST_CLASSES for v in both) else 0
    is_second = any(value % _BASES[1] for value in both) and min(both) >= _BASES[1]
    if is_second and max(value % _BASES[1] for value in both) < _MOST_OBJECTS[1]:
        return _BASES[1]
    return 0


def _class_number(value: int, base: int) -> int:
    """Return the class of a number of a class and an object, or of a class alone."""
    return value // base or value


def _are_even(values: set[int]) -> bool:
    """Tell whether several numbers up to 255 are spread evenly, as 85, 170, 255: shown classes."""
    ordered, step = sorted(values), VOID / len(values)
    return len(values) > 1 and all(
        abs(value - step * (number + 1)) <= 1 for number, value in enumerate(ordered)
    )


def _are_whole(masks: Iterable[Path], as_colours: bool) -> bool:
    """Tell whether nearly each number of each mask is in one piece, as an object is."""
    pieces = []
    for path in masks:
        try:
            pixels = read_mask(path, as_colours=as_colours)
        except (OSError, ValueError):
            continue
        if (values := _plain_greys(pixels)) is None:
            continue
        for value in used_values(values[values > 0]):
            pieces.append(cv2.connectedComponents((values == value).astype(np.uint8))[0] - 1)
    return sum(count == 1 for count in pieces) >= _LEAST_WHOLE * len(pieces)


def _hold_numbers(pairs: Pairs) -> bool:
    """Tell whether the first mask is grey: a palette's indexes are numbers of no table."""
    path = next(path for own in pairs.masks.values() for path in own)
    try:
        with Image.open(path) as mask:
            return mask.mode == "L" or mask.mode.startswith("I")
    except BROKEN:
        return False


def _check_count(values: set[int]) -> None:
    if len(values) > MOST_COLOURS:
        raise ValueError(
            f"masks: expected a value for each class, at most {MOST_COLOURS}, found {len(values)}, "
            "as depths, smoothed edges and lossy files have: save masks with hard edges as PNG"
        )
