"""Which masks of a folder belong to which images of another, by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from converters.files.names import normal_name
from converters.formats.mask_folders.tree import TWO_SIDES, Tree
from converters.formats.mask_folders.words import (
    BETWEEN,
    DRAWN_WORDS,
    IMAGE_WORDS,
    IMAGES,
    PLAIN_WORDS,
    SUBSETS,
    are_classes,
    classes_in,
    rest_of,
)

# What follows an image's name in that of its mask, who has drawn it (CHASE_DB1) among it, and
# iSAID's words for colours of classes.
_REST = re.compile(
    r"[\W_]+(\w*(mask|label|lbl|seg|gt|annot|truth)\w*|lab|\d(st|nd|rd)_?(ho|manual)"
    r"|instance_color_rgb|[a-z])",
    re.IGNORECASE,
)
# What follows an image's name in a mask of one class: `_square_0` (pycococreator), `_lesion`, `_3`.
_CLASS_OF_FILE = re.compile(
    r"[\W_]+(?P<name>([^\W\d_]+(?:[\W_]+[^\W\d_]+)*)?)(?P<number>[\W_]*\d*)"
)
OBJECT = "object"
# Words, or a letter with a number behind it; and what no name of a class looks like.
_CLASS_NAME = re.compile(r"[^\W\d_]{2}|[^\W\d_a-zA-Z]|^[^\W\d_]\d{1,2}$")
_SUM = re.compile(r"(?=.*\d)[0-9a-f]{6,}", re.IGNORECASE)
# A word and a number of an object, or one that belongs to it.
_NUMBERED = re.compile(r"(?P<word>.*[^\W\d_])[\W_]*\d+")
# Such a part of names, or one, may be slips.
_MOST_ODD = 0.1


@dataclass(frozen=True)
class Pairs:
    """The images and masks of a data set.

    Attributes:
        images: key -> image.
        masks: key -> its masks; several where each is an object.
        classes: mask -> its only class, where folders or names of masks say it.
        unanswered: key -> image, of folders of test images without any mask.
        alone: masks of no image.
        ambiguous: folders that are about the same images, where one is enough.
        twice: image or mask whose name, but for its suffix, is that of one that is taken -> the
            key of that.
        left_out: further files of images, which are no part of a pair.
        notes: what is to be said of lists.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Sequence[Path]]
    alone: Sequence[Path] = ()
    ambiguous: Sequence[str] = ()
    classes: Mapping[Path, str] = field(default_factory=dict)
    unanswered: Mapping[str, Path] = field(default_factory=dict)
    twice: Mapping[Path, str] = field(default_factory=dict)
    left_out: Sequence[Path] = ()
    notes: Sequence[str] = ()


def match(
    tree: Tree,
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    known: Set[str] = frozenset(),
) -> Pairs | None:
    """Pair by equal places; else NAME with NAME_x; else by names without words such as `mask`.

    Args:
        tree: where they lie.
        images: place -> image.
        masks: place -> mask.
        known: classes of masks elsewhere in the data set.
    """
    if not images or not masks:
        return None
    if images.keys() & masks.keys():
        return _with_others(images, masks)
    if longer := _by_beginnings(images, masks):
        return paired(images, {place: place for place in images}, longer, longer.keys())
    cores = _cores(images)
    own = _cores(masks)
    if cores and own and cores.keys() & own.keys():
        by_core = {core: masks[place] for core, place in own.items()}
        return paired(images, cores, by_core, own.keys())
    place, image = next(iter(images.items()))
    # Kaggle's nuclei: a folder called as its image, and a mask for each object.
    is_named = image.parent.parent.name == image.stem
    is_of_case = image.stem.lower() in IMAGE_WORDS or image.stem == image.parent.name
    if len(images) == 1 and (is_named or is_of_case):
        case = image.parent.parent if is_named else image.parent
        classes = _classes_of_cases(tree, case, image.stem, masks)
        is_plain = len(masks) == 1 and next(iter(masks)).lower() in PLAIN_WORDS
        if is_named or classes or is_plain:
            return Pairs({place: image}, {place: tuple(masks.values())}, classes=classes)
    return (
        _by_class_folders(tree, images, masks, known)
        or by_class_names(images, masks, known)
        or _by_class_beginnings(images, masks)
        or _by_middles(images, masks)
        or _by_inner_folders(tree, images, masks)
        or _by_outer_folder(tree, images, masks)
    )


def _classes_of_cases(
    tree: Tree, case: Path, image: str, masks: Mapping[str, Path]
) -> dict[Path, str]:
    """Return the classes of a case's masks, which are called alike in the folders of other cases.

    Names of objects, as Kaggle's nuclei have them, are those of one image alone, or numbers.

    Args:
        tree: where they lie.
        case: the folder of the image and its masks.
        image: its name, without suffix.
        masks: place -> mask.
    """

    def names(folder: Path, files: Iterable[Path]) -> dict[Path, str]:
        begins = sorted({normal_name(folder.name), normal_name(image)}, key=len, reverse=True)
        found = {}
        for path in files:
            stem = normal_name(path.stem)
            found[path] = next((own for one in begins if (own := _without(stem, one))), stem)
        return found

    homes = {path.parent.relative_to(case) for path in masks.values()}
    folders = [(other, other / home) for other in tree.cases(case) for home in homes]
    there = [(other, own) for other, own in folders if own in tree.inside(own.parent)]
    often = Counter(
        name for other, own in there for name in names(other, tree.files_in(own)).values()
    )
    again = sum(times for times in often.values() if times > 1)
    own = names(case, masks.values())
    if 2 * again < often.total() or not all(map(is_class_name, (*often, *own.values()))):
        return {}
    count = len({other for other, _ in there})
    called = classes_of_names({name: often[name] for name in {*often, *own.values()}}, count)
    return {path: called[name] for path, name in own.items()} if called else {}


def classes_of_names(often: Mapping[str, int], images: int) -> dict[str, str]:
    """Return name -> class of what names of masks say besides those of images; {} where it is none.

    A number is of an object, such as of the ribs that an image has. It is a part of the name where
    it follows a word without anything between, and each image has the same ones: `L1` to `L5`.

    Args:
        often: name -> number of images that have it.
        images: their number.
    """
    words: dict[str, str] = {}
    for name in sorted(often):
        parts = _NUMBERED.fullmatch(name)
        words[name] = parts["word"] if parts else name
    several = Counter(words.values())
    fewest = {word: min(often[n] for n in words if words[n] == word) for word in several}
    told = {
        name: name
        if several[word] < 2 or (fewest[word] >= images and name[len(word)].isdecimal())
        else word
        for name, word in words.items()
    }
    if not are_classes(told.values()):
        return {}
    called = classes_in(dict.fromkeys(told.values()))
    return {name: called[word] for name, word in told.items()}


def _without(name: str, image: str) -> str:
    """Return what stands behind, or before, an image's name in another; "" where it does not."""
    begin, end = name.removeprefix(image), name.removesuffix(image)
    if begin != name and (mark := BETWEEN.match(begin)):
        return begin[mark.end() :]
    mark = re.search(r"[\W_]+$", end)
    return end[: mark.start()] if end != name and mark else ""


def is_class_name(name: str) -> bool:
    """Tell whether a name has a word, or a letter with a number, and is no sum of bytes.

    >>> [is_class_name(name) for name in ("heart", "L1", "3rd_ventricle", "7", "3f", "c6f3a0b1")]
    [True, True, True, False, False, False]
    """
    return bool(_CLASS_NAME.search(name)) and not _SUM.fullmatch(name)


def _with_others(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs:
    """Pair by equal places, and what is left by names: some collections have `a` and `b_mask`."""
    pairs = paired(images, {place: place for place in images}, masks, masks.keys())
    rest = {place: path for place, path in images.items() if place not in masks}
    longer = _by_beginnings(rest, {p: path for p, path in masks.items() if p not in images})
    more = {place: (path,) for place, path in longer.items() if place in rest}
    if not more:
        return pairs
    taken = {path for own in more.values() for path in own}
    alone = [path for path in pairs.alone if path not in taken]
    return replace(pairs, masks={**pairs.masks, **more}, alone=alone)


def _by_outer_folder(
    tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> Pairs | None:
    """Pair images one folder further down, which says no more than that: `image_02/NAME`."""
    heads = {place.partition("/")[0] for place in images if "/" in place}
    bare = {place.partition("/")[2]: path for place, path in images.items()}
    is_plain = len(heads) == 1 and all(map(IMAGES.fullmatch, heads))
    if "" in bare or not is_plain:
        return None
    return match(tree, bare, masks)


def _by_inner_folders(
    tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> Pairs | None:
    """Pair images with masks one folder further down: `trimaps/NAME`, or `train/NAME`, `val/NAME`.

    One folder of black and white masks is called as their class, unless by other words.
    """
    heads = {place.partition("/")[0] for place in masks if "/" in place}
    bare = {place.partition("/")[2]: path for place, path in masks.items()}
    are_parts = all(SUBSETS.fullmatch(head) for head in heads)
    if "" in bare or len(bare) < len(masks) or not (len(heads) == 1 or (heads and are_parts)):
        return None
    pairs = match(tree, images, bare)
    if pairs is None or pairs.classes or are_parts:
        return pairs
    if not tree.are_drawn(bare.values(), TWO_SIDES):
        return pairs
    (head,) = heads
    if not rest_of(head) or any(map(str.isdigit, head)):
        return pairs
    return replace(pairs, classes=dict.fromkeys(masks_of(pairs), head))


def _by_middles(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """Pair `21_training` with `21_manual1`, `22_training` with `22_manual1`, ...: DRIVE's names.

    What all images' names have in common is left out, and what all masks' have, but for numbers.
    """
    ours, theirs = _middles(images), _middles(masks)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    # What only masks have in common says that they are drawn, not another case, side or time.
    if not all(DRAWN_WORDS.fullmatch(word.rstrip("0123456789")) for word in theirs[2] - ours[2]):
        return None
    if not theirs[1].keys() <= ours[1].keys():
        return None
    by_core = {core: masks[place] for core, place in theirs[1].items()}
    pairs = paired(images, ours[1], by_core, theirs[1].keys())
    told = set(theirs[1].values())
    odd = [path for place, path in masks.items() if place not in told]
    return replace(pairs, alone=[*pairs.alone, *odd])


def _middles(places: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str], set[str]] | None:
    """The numbers that all names have, the one word that tells them apart -> the place, and words.

    The words are those that all names have.

    None where it is not one word, or places lie in folders. A name of more or fewer words than
    nearly all others is left out.
    """
    all_words = {place: BETWEEN.split(place) for place in places}
    often = Counter(map(len, all_words.values())).most_common(1)
    words = {place: row for place, row in all_words.items() if len(row) == often[0][0]}
    rows = list(words.values())
    is_flat = not any("/" in place for place in words)
    odd = len(all_words) - len(rows)
    if len(rows) < 2 or odd > max(1, _MOST_ODD * len(all_words)) or not is_flat:
        return None
    columns = list(zip(*rows, strict=True))
    apart = [number for number, column in enumerate(columns) if len(set(column)) > 1]
    if len(apart) != 1:
        return None
    common = tuple(
        column[0] for column in columns if column[0].isdecimal() and len(set(column)) < 2
    )
    shared = {column[0].lower() for column in columns if len(set(column)) < 2} - set(common)
    return common, {row[apart[0]]: place for place, row in words.items()}, shared


def _by_class_folders(
    tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path], known: Set[str]
) -> Pairs | None:
    """Pair images with the masks of several folders, each of which is a class.

    It is the first folder of a mask's place, or the last: `masks/CLASS/NAME.png`,
    `masks/train/CLASS/NAME.png`.
    """
    for at in (0, -1):
        found: dict[str, dict[str, Path]] = defaultdict(dict)
        for place, path in masks.items():
            *folders, name = place.split("/")
            if not folders:
                return None
            label = folders.pop(at)
            found[label]["/".join([*folders, name])] = path
        if any(SUBSETS.fullmatch(label) for label in found) or (
            len(found) < 2 and not found.keys() <= known
        ):
            continue
        matched = {label: _match_class(tree, images, own) for label, own in found.items()}
        pairs = [own for own in matched.values() if own is not None and not own.classes]
        if len(pairs) == len(matched):
            joined: dict[str, list[Path]] = defaultdict(list)
            for place, path in ((p, m) for own in pairs for p, ms in own.masks.items() for m in ms):
                joined[place].append(path)
            alone = [path for own in pairs for path in own.alone]
            called = classes_in(found)
            classes = {path: called[label] for label, own in found.items() for path in own.values()}
            return Pairs(images, joined, alone, classes=classes)
    return None


def _match_class(tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """As `match`, in a folder of one class: anything may follow images' names, if it is one."""
    pairs = match(tree, images, masks)
    if pairs is not None and not pairs.classes:
        return pairs
    found: dict[str, Path] = {}
    rests = set()
    for place, path in masks.items():
        image = owner_of(place, images)
        rests.add(place[len(image) :])
        found[image] = path
    is_one = len(rests) == 1 and "" not in found and len(found) == len(masks)
    return paired(images, {place: place for place in images}, found, found) if is_one else pairs


def by_class_names(
    images: Mapping[str, Path], masks: Mapping[str, Path], known: Set[str]
) -> Pairs | None:
    """Pair images with masks that are called NAME_CLASS_NUMBER, NAME_CLASS or NAME_NUMBER.

    None if most masks are not, or each image has but one: then what follows its name says no class,
    unless that is `known` from elsewhere.
    """
    alone: list[Path] = []
    joined: dict[str, list[Path]] = defaultdict(list)
    told: dict[Path, tuple[str, str]] = {}
    for place, path in masks.items():
        image = owner_of(place, images)
        if not image:
            alone.append(path)
            continue
        rest = _CLASS_OF_FILE.fullmatch(place[len(image) :])
        if rest is None:
            return None
        joined[image].append(path)
        told[path] = (rest["name"], rest["number"])
    classes = _name_classes(told, len(joined))
    most = max(map(len, joined.values()), default=0)
    if (most < 2 and not set(classes.values()) <= known) or len(told) <= len(alone):
        return None
    return Pairs(images, joined, alone, classes=classes)


def _by_class_beginnings(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """Pair images with masks that are called CLASS_NAME; None unless most are, and several each."""
    joined: dict[str, list[Path]] = defaultdict(list)
    names: dict[Path, str] = {}
    alone: list[Path] = []
    for place, path in masks.items():
        folder, mark, name = place.rpartition("/")
        own = ((name[: h.start()], folder + mark + name[h.end() :]) for h in BETWEEN.finditer(name))
        called, image = next(((label, image) for label, image in own if image in images), ("", ""))
        if not image:
            alone.append(path)
            continue
        names[path] = called
        joined[image].append(path)
    often = Counter(names.values())
    are_several = any(2 * times > len(joined) for times in often.values())
    if len(often) < 2 or not are_several or not all(map(is_class_name, often)):
        return None
    said = classes_of_names(often, len(joined))
    if not said or len(names) <= len(alone):
        return None
    classes = {path: said[name] for path, name in names.items()}
    return Pairs(images, joined, alone, classes=classes)


def _name_classes(told: Mapping[Path, tuple[str, str]], images: int) -> dict[Path, str]:
    """Return the classes of masks, of the name and the number that follow their images' names.

    A number is of an object, or a part of the name, as in `L1` and `L2`: it is that where it
    follows a word without anything between, and most images have the same ones.

    Args:
        told: mask -> name, number with what is before it.
        images: their number.
    """
    often = Counter(name + number for name, number in told.values() if number.isdecimal())
    is_name = images > 1 and all(2 * count > images for count in often.values())
    called = classes_in(dict.fromkeys(name for name, _ in told.values()))
    found = {}
    for path, (name, number) in told.items():
        is_word = name.casefold() in {"", *PLAIN_WORDS}
        more = number if is_name and number.isdecimal() else ""
        found[path] = OBJECT if is_word else called[name] + more
    return found


def paired(
    images: Mapping[str, Path],
    places: Mapping[str, str],
    masks: Mapping[str, Path],
    known: Iterable[str],
) -> Pairs:
    """Return pairs by what tells an image's place, and a mask, apart from the others.

    Args:
        images: place -> image.
        places: what tells it apart -> place of an image.
        masks: what tells it apart -> mask.
        known: of all masks; those of no image are alone.
    """
    both = {place: (masks[core],) for core, place in places.items() if core in masks}
    alone = [masks[core] for core in known if core not in places]
    return Pairs(images, both, alone)


def _by_beginnings(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Path]:
    """Place of an image -> the mask whose name goes on behind it, and in all in the same way.

    {} if one has several, or what follows says nothing of masks, as the names of classes do not.
    """
    found: dict[str, Path] = {}
    rests: set[str] = set()
    for place, path in masks.items():
        image = owner_of(place, images)
        if image in found:
            return {}
        found[image or place] = path
        rests |= {place[len(image) :].casefold()} if image else set()
    says_so = len(rests) == 1 and bool(_REST.fullmatch(next(iter(rests))))
    return found if says_so else {}


def owner_of(place: str, images: Mapping[str, Path]) -> str:
    """Return the image whose place, the longest, this one begins with as words; "" for none."""
    ends = [hit.start() for hit in BETWEEN.finditer(place)]
    return next((place[:end] for end in reversed(ends) if place[:end] in images), "")


def _cores(places: Iterable[str]) -> dict[str, str]:
    """What is left of a place without words that say nothing -> the place; {} if two are one."""
    found: dict[str, str] = {}
    for place in places:
        *folders, name = place.split("/")
        words = [w for w in BETWEEN.split(name) if w and w.casefold() not in PLAIN_WORDS]
        core = "/".join([*folders, "_".join(words)])
        if not words or core in found:
            return {}
        found[core] = place
    return found


def masks_of(pairs: Pairs) -> Iterator[Path]:
    """Yield the masks of pairs, and those of no image."""
    yield from (path for own in pairs.masks.values() for path in own)
    yield from pairs.alone
