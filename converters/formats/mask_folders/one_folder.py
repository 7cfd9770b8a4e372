"""Images and masks that lie in one folder, told apart by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path

from converters.files.images import is_image
from converters.files.names import normal_name
from converters.formats.mask_folders.black_and_white import LOSSY
from converters.formats.mask_folders.matching import (
    OBJECT,
    Pairs,
    by_class_names,
    classes_of_names,
    is_class_name,
    owner_of,
    paired,
)
from converters.formats.mask_folders.tree import FEW_COLOURS, TWO_SIDES, Tree
from converters.formats.mask_folders.words import (
    BETWEEN,
    DRAWN_WORDS,
    IMAGE_WORDS,
    PLAIN_WORDS,
    are_classes,
    classes_in,
    has_word,
)

# What is measured of a place, beside its image.
_HEIGHTS = re.compile(r"n?d[est]m|depths?|elevations?|heights?|disparity", re.IGNORECASE)
_BEHIND = re.compile(
    r"(.+)[_.-](masks?|seg|segmentation|labels?|lbl|gt|anno|annotation)(?P<more>[_-]?\d+)?",
    re.IGNORECASE,
)
_CELLPOSE = "_cp"  # of `X.png` it writes `X_cp_masks.png`
# Who has drawn a mask that lies beside its image (CHASE_DB1: `Image_01L_1stHO`).
_DRAWN_BY = re.compile(r"(?P<image>.+)[_-](?P<who>\d)(st|nd|rd)[_-]?(ho|manual)", re.IGNORECASE)
# What comes before a name, as in `mask_001` and `image_001`.
_BEFORE = re.compile(r"(?P<word>[A-Za-z]+)[_ -](?P<name>.+)")
_SHORT = "m"  # LandCover.ai: `X.jpg`, `X_m.png`


def pair_in_folder(
    tree: Tree, folder: Path, files: Mapping[str, Path], known: Set[str]
) -> Pairs | None:
    """Pair the images and masks of one folder; None where its names tell of none.

    Args:
        tree: where they lie.
        folder: in which they are.
        files: name without suffix -> file of an image, of those in it.
        known: classes of masks elsewhere in the data set.
    """
    return (
        _side_by_side(files)
        or _of_first_rater(files)
        or _of_one_name(tree, folder)
        or _by_last_words(tree, files)
        or _by_first_words(tree, files)
        or _image_and_mask(tree, files)
        or _longer_names(tree, folder, files, known)
        or _image_and_classes(tree, folder, files)
    )


def _side_by_side(files: Mapping[str, Path]) -> Pairs | None:
    """Pair NAME and NAME_mask in one folder, and NAME_mask_1, ... with them."""
    masks: dict[str, list[Path]] = defaultdict(list)
    numbered: dict[str, set[bool]] = defaultdict(set)
    owned: set[str] = set()
    for place, path in files.items():
        found = _BEHIND.fullmatch(place)
        if found is None:
            continue
        image, number = found[1], found["more"] or ""
        # `a_mask_1` is of `a_1` where there is such an image.
        if number and image + number in files:
            image, number = image + number, ""
        if image not in files and image.removesuffix(_CELLPOSE) in files:
            image = image.removesuffix(_CELLPOSE)
        if image not in files:
            continue
        if not number and False in numbered[image]:
            return None
        masks[image].append(path)
        numbered[image].add(bool(number))
        owned.add(place)
    images = {place: path for place, path in files.items() if place not in owned}
    return Pairs(images, masks) if masks else None


def _of_first_rater(files: Mapping[str, Path]) -> Pairs | None:
    """Pair NAME with NAME_1stHO, NAME_2ndHO beside it: with what the first has drawn."""
    drawn: dict[str, dict[str, Path]] = defaultdict(dict)
    told = {place: hit for place in files if (hit := _DRAWN_BY.fullmatch(place))}
    for place, hit in told.items():
        if hit["image"] in files:
            drawn[hit["image"]][hit["who"]] = files[place]
    first = min((who for own in drawn.values() for who in own), default="")
    masks = {place: (own[first],) for place, own in drawn.items() if first in own}
    images = {place: path for place, path in files.items() if place not in told}
    if not masks:
        return None
    others = sorted({who for own in drawn.values() for who in own} - {first})
    if not others:
        return Pairs(images, masks)
    home, listed = next(iter(files.values())).parent, ", ".join(others)
    note = f"{home}: of what several have drawn, that of {first} is taken, not of {listed}"
    return Pairs(images, masks, notes=[note])


def _of_one_name(tree: Tree, folder: Path) -> Pairs | None:
    """Pair a.jpg with a.png; None unless most are such pairs, and the latter alone are masks."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in filter(is_image, tree.files_in(folder)):
        is_photograph = path.suffix.lower() in LOSSY
        (images if is_photograph else masks).setdefault(normal_name(path.stem), path)
    both = len(images.keys() & masks.keys())
    if 2 * both <= max(len(images), len(masks)):
        return None
    is_drawn = tree.are_drawn(masks.values(), FEW_COLOURS)
    if not is_drawn and tree.are_photographs(images.values()):
        is_drawn = tree.are_smoothed(masks.values())
    if not is_drawn or tree.are_drawn(images.values(), TWO_SIDES):
        return None
    return paired(images, {stem: stem for stem in images}, masks, masks.keys())


def _by_last_words(tree: Tree, files: Mapping[str, Path]) -> Pairs | None:
    """Pair `1_sat` with `1_mask`, or `1` with `1_anno`; None unless all names end in such a way.

    And unless what ends in one way are masks by their colours, and the others are not.
    """
    ends: dict[str, dict[str, str]] = defaultdict(dict)
    for place in files:
        head, mark, word = place.rpartition("_")
        is_longer = bool(mark) and (head in files or not place[len(head) + 1 :].isdecimal())
        ends[word if is_longer else ""][head if is_longer else place] = place
    if len(ends) != 2:
        return None
    drawn = {
        w: tree.are_drawn((files[p] for p in own.values()), FEW_COLOURS) for w, own in ends.items()
    }
    if set(drawn.values()) != {True, False}:
        return None
    ((mask_word, masks),) = ((word, ends[word]) for word, is_mask in drawn.items() if is_mask)
    ((image_word, images),) = ((word, own) for word, own in ends.items() if word != mask_word)
    if _HEIGHTS.fullmatch(image_word):
        return None
    is_told = DRAWN_WORDS.fullmatch(mask_word.lower()) or mask_word == _SHORT
    if not is_told or not masks.keys() & images.keys():
        return None
    return paired(
        {place: files[place] for place in images.values()},
        images,
        {head: files[place] for head, place in masks.items()},
        masks.keys(),
    )


def _by_first_words(tree: Tree, files: Mapping[str, Path]) -> Pairs | None:
    """Pair `mask_NAME` with `NAME`, or with `image_NAME`; None unless most are such pairs."""
    told = {place: hit for place in files if (hit := _BEFORE.fullmatch(place))}
    drawn = {p: hit for p, hit in told.items() if DRAWN_WORDS.fullmatch(hit["word"].lower())}
    masks = {hit["name"]: files[place] for place, hit in drawn.items()}
    whole = {place: place for place in files if place not in drawn}
    called = {
        hit["name"]: place
        for place, hit in told.items()
        if place in whole and hit["word"].lower() in IMAGE_WORDS
    }
    images = max(whole, called, key=lambda own: len(own.keys() & masks.keys()))
    if 2 * len(images.keys() & masks.keys()) <= max(len(whole), len(masks)):
        return None
    shown = {place: files[place] for place in images.values()}
    if not tree.are_drawn(masks.values(), FEW_COLOURS) or tree.are_drawn(shown.values(), TWO_SIDES):
        return None
    return paired(shown, images, masks, masks.keys())


def _image_and_classes(tree: Tree, folder: Path, files: Mapping[str, Path]) -> Pairs | None:
    """Pair the one image in a case's folder, `xray` or called as it, with masks called as a class.

    Other cases lie beside it, and there are several masks; not those that are called so.
    """
    images = [p for p in files if p.lower() in IMAGE_WORDS or p == normal_name(folder.name)]
    masks = [path for place, path in files.items() if place not in images]
    called = classes_in(normal_name(path.stem) for path in masks)
    # `heart_mask`, not `mask`, nor what is drawn in another way.
    are_named = are_classes(called.values())
    if folder == tree.root or len(images) != 1 or len(masks) < 2 or not are_named:
        return None
    (image,) = images
    beside = tree.inside(folder.parent)
    own = files[image]
    is_named = image == normal_name(folder.name)
    if any(owner_of(place, {image: own}) for place in files):
        return None
    names = {case: f"{case.name}{own.suffix}" if is_named else own.name for case in beside}
    cases = [case for case, name in names.items() if (case / name).is_file()]
    if len(cases) < 2 or not tree.are_photographs([own]):
        return None
    if any(not tree.are_drawn([path], TWO_SIDES) for path in masks):
        return None
    classes = {path: called[normal_name(path.stem)] for path in masks}
    return Pairs({image: own}, {image: masks}, classes=classes)


def _longer_names(
    tree: Tree, folder: Path, files: Mapping[str, Path], known: Set[str]
) -> Pairs | None:
    """Pair NAME with NAME_attribute_cat and NAME_attribute_dog beside it, masks of one class.

    Or with NAME_cat and NAME_dog, where most images have both, and they show other objects.
    """
    images, masks = _owned(files)
    found = [(image, rest, files[image + rest]) for image, own in masks.items() for rest in own]
    told = all(has_word(rest, DRAWN_WORDS) for _, rest, _ in found)
    is_drawn = tree.are_drawn((path for _, _, path in found), TWO_SIDES)
    if not is_drawn or not tree.are_photographs(images.values()):
        return None
    if told:
        pairs = by_class_names(images, {image + rest: path for image, rest, path in found}, known)
        # Two files that say no class are two ways to draw the same.
        return None if pairs is None or OBJECT in pairs.classes.values() else pairs
    rests = _classes_behind(tree, folder, files, masks, known)
    if not rests:
        return None
    joined = {image: [files[image + rest] for rest in own] for image, own in masks.items()}
    return Pairs(images, joined, classes={path: rests[rest] for _, rest, path in found})


def _owned(files: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """The files whose name no other one begins with, and how the names of others go on."""
    images: dict[str, Path] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    for place, path in files.items():
        if owner := owner_of(place, files):
            masks[owner].append(place[len(owner) :])
        else:
            images[place] = path
    return images, masks


def _classes_behind(
    tree: Tree,
    folder: Path,
    files: Mapping[str, Path],
    masks: Mapping[str, Sequence[str]],
    known: Set[str],
) -> dict[str, str]:
    """Return how names of masks go on behind those of images -> class; {} where they may be none.

    They are where most images, or cases beside this one, have the same masks, of other objects, or
    where others `known` are called so.
    """
    rests = {rest for own in masks.values() for rest in own}
    called = {rest: BETWEEN.sub("", rest, count=1) for rest in rests}
    if rests and set(called.values()) <= known:
        return called
    cases: list[tuple[Mapping[str, Path], Mapping[str, Sequence[str]]]] = [(files, masks)]
    if len(masks) == 1 and folder != tree.root:
        beside = [tree.files(case, deep=False) for case in tree.cases(folder)]
        cases = [(own, _owned(own)[1]) for own in beside]
    often = Counter(rest for _, case in cases for own in case.values() for rest in own)
    images = sum(len(case) for _, case in cases)
    are_usual = all(2 * often[rest] > images for rest in {*often, *rests})
    said = classes_of_names(
        {BETWEEN.sub("", rest, count=1): often[rest] for rest in {*often, *rests}}, images
    )
    if len(often) < 2 or images < 2 or not are_usual or not all(map(is_class_name, said)):
        return {}
    are_others = all(
        tree.show_others(
            (own[image + one], own[image + other])
            for own, case in cases
            for image, there in case.items()
            if one in there and other in there
        )
        for one, other in combinations(sorted(often), 2)
    )
    return {rest: said[name] for rest, name in called.items()} if are_others and said else {}


def _image_and_mask(tree: Tree, files: Mapping[str, Path]) -> Pairs | None:
    """Pair `image` and `mask`, the two files of a case's own folder."""
    if len(files) != 2 or not files.keys() <= PLAIN_WORDS:
        return None
    masks = [place for place, path in files.items() if tree.are_drawn([path], FEW_COLOURS)]
    if len(masks) != 1 or not DRAWN_WORDS.fullmatch(masks[0]):
        return None
    ((image, path),) = ((place, path) for place, path in files.items() if place != masks[0])
    return Pairs({image: path}, {image: (files[masks[0]],)})
