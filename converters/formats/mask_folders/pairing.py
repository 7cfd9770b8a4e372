"""Which masks belong to which images, in folders that nobody has described."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

from converters.files.names import normal_name
from converters.formats.mask_folders.matching import Pairs, masks_of, match, paired
from converters.formats.mask_folders.named_pairs import pairs_of_table
from converters.formats.mask_folders.one_folder import pair_in_folder
from converters.formats.mask_folders.tree import FEW_COLOURS, TWO_SIDES, Tree
from converters.formats.mask_folders.words import (
    BETWEEN,
    DERIVED,
    DRAWN_WORDS,
    IMAGES,
    LOOKED_UPON,
    RATERS,
    SUBSETS,
    are_classes,
    class_in,
    has_word,
    rest_of,
    subset_of,
    words_of,
)
from converters.subsets.assign import find_test_keys
from converters.subsets.keys import as_test_key, is_test_key
from converters.subsets.names import part_of

# What folders of masks are called: `masks`, `ann_dir`, `masks_png`, `trainannot`, `val_labels`.
_MASKS = re.compile(
    r"(.*[_ -])?(masks?|labels?|labs?|annot(ation)?s?|anns?|gts?|ground[_ -]?truths?|segmentations?"
    r"|targets?|instances?)([_ -](dir|png|tif|images?|maps?))?|.*(annot|masks?|labels?)"
    r"|(.*[_ -])?(label|thing|seg)maps?|stuffthingmaps",
    re.IGNORECASE,
)
_PICTURES = re.compile(rf"{LOOKED_UPON.pattern}|\w*colou?r\w*|depths?(maps?)?")
# ADE20K's colours are numbers of classes and of objects; it has one of these beside each mask.
_ADE20K = ("_atr.txt", ".json")
_DEPTH, _LOOKED_AT = 3, 3
# Images whose masks are compared; those of two people share so much of what either covers.
_COMPARED, _ALIKE = 4, 0.8
# Who has drawn the same objects as others.
_AGAIN = re.compile(r"(?P<who>[2-9](nd|rd|th))[ _-]?manual", re.IGNORECASE)
# Folders of images that are not called images.
_PHOTOGRAPHS = re.compile(
    r"(.*[_ -])?(x[_ -]?rays?|cxrs?|radiographs?|photo(graph)?s?|scans?|slices|frames|pictures?"
    r"|pics|cts?|mris?)",
    re.IGNORECASE,
)
_BY_HAND = re.compile(r"(\d(st|nd|rd)[ _-]?)?manual[ _-]?\d?", re.IGNORECASE)
_SEEN = "mask"


def find_pairs(root: Path, tree: Tree | None = None) -> Pairs | None:
    """Return the images and masks below a folder; None where no mask has an image."""
    tree = tree or Tree(root)
    found = _find_pairs(tree, root, frozenset())
    if found is None or not found.classes:
        return found
    # What some parts of a data set say of its classes holds in parts that say less.
    return _find_pairs(tree, root, frozenset(found.classes.values())) or found


def _find_pairs(tree: Tree, root: Path, known: Set[str]) -> Pairs | None:
    """As `find_pairs`; `known` are classes that folders or names of masks have elsewhere."""
    parts: list[tuple[Path, Pairs]] = []
    passed = frozenset(_passed_over(tree, root))
    taken = set(passed)
    for folder in _folders(tree, root, _DEPTH):
        # A folder in one of masks holds no images.
        if taken.isdisjoint((folder, *folder.parents)):
            for image_folder, masks, found in _beside(tree, folder, known, frozenset(taken)):
                parts.append((image_folder, found))
                taken |= {path for path in masks if path != image_folder}
    if not any(found.masks for _, found in parts) and (told := pairs_of_table(tree, root)):
        parts = [(root, told)]
    images: dict[str, Path] = {}
    masks_of: dict[str, Sequence[Path]] = {}
    classes: dict[Path, str] = {}
    for image_folder, found in parts:
        begin = _begin(root, image_folder)
        if any(begin + key in images for key in found.images):
            begin = image_folder.relative_to(root).as_posix() + "/"
        images |= {begin + key: image for key, image in found.images.items()}
        masks_of |= {begin + key: own for key, own in found.masks.items()}
        classes |= found.classes
    alone = [path for _, found in parts for path in found.alone]
    ambiguous = list(dict.fromkeys(path for _, found in parts for path in found.ambiguous))
    drawn_again, alike = _drawn_twice(tree, root, masks_of, classes)
    ambiguous += drawn_again
    is_around = not ambiguous and _lies_in_one_folder(tree, root, [images[key] for key in masks_of])
    if is_around or not masks_of:
        return None
    drawn = {*alone, *(path for own in masks_of.values() for path in own)}
    shown = [path for path in tree.files_in(root, deep=True) if path not in drawn]
    renamed, notes = find_test_keys(root, images, shown)
    images = {renamed[key]: path for key, path in images.items()}
    masks_of = {renamed[key]: own for key, own in masks_of.items()}
    in_pairs = {*images.values(), *drawn}
    unanswered = {
        key
        if key not in images
        else f"test/{path.relative_to(root).with_suffix('').as_posix()}": path
        for key, path in _unanswered(tree, root, in_pairs, known).items()
    }
    if not any(map(is_test_key, masks_of)):
        without = images.keys() - masks_of.keys()
        unanswered |= {key: images.pop(key) for key in sorted(without) if is_test_key(key)}
    of_masks = {path.parent.name for own in masks_of.values() for path in own}
    of_images = {path.parent.name for path in images.values()}
    looked_at = set(_folders(tree, root, _DEPTH)) - passed
    alone += _unpaired(tree, looked_at, in_pairs, of_masks - of_images, of_images)
    if passed:
        places = ", ".join(sorted(path.relative_to(root).as_posix() for path in passed))
        seen = (
            f"{root}: masks of what a camera saw, or drawn again by others, are left out ({places})"
        )
        notes = (*notes, seen)
    keys = {_bare(path): path.stem for path in alone}
    keys |= {_bare(path): key for key, own in masks_of.items() for path in own}
    keys |= {_bare(path): key for key, path in (*unanswered.items(), *images.items())}
    known_files = {*in_pairs, *alone, *unanswered.values()}
    others = sorted({*tree.files_in(root, deep=True)} - known_files)
    return Pairs(
        images,
        masks_of,
        alone,
        ambiguous,
        classes,
        unanswered,
        twice={path: keys[_bare(path)] for path in others if _bare(path) in keys},
        left_out=[path for path in others if _bare(path) not in keys],
        notes=[*notes, *alike, *(note for _, found in parts for note in found.notes)],
    )


def _drawn_twice(
    tree: Tree, root: Path, masks_of: Mapping[str, Sequence[Path]], classes: Mapping[Path, str]
) -> tuple[list[str], list[str]]:
    """Find what several people drew, or seem to have drawn, of the same objects.

    Returns:
        Folders or names of masks of which one set is enough; and what is to be said of classes
        whose masks hardly differ.
    """
    raters = sorted({name for name in classes.values() if has_word(name, RATERS)})
    if len(raters) > 1:
        return raters, []
    shown: list[dict[tuple[str, Path], Path]] = []
    for own in masks_of.values():
        by_kind: dict[tuple[str, Path], list[Path]] = defaultdict(list)
        for path in own if len(own) > 1 else ():
            by_kind[classes.get(path, ""), path.parent].append(path)
        shown.append({kind: paths[0] for kind, paths in by_kind.items() if len(paths) == 1})
    shown.sort(key=len, reverse=True)
    overlaps: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for kinds in shown[:_COMPARED]:
        for (one, ours), (other, theirs) in combinations(kinds.items(), 2):
            is_one = one[0] == other[0]
            names = (one[1].name, other[1].name) if is_one else (one[0], other[0])
            with suppress(ValueError):
                if (shared := tree.overlap(ours, theirs)) is not None:
                    overlaps[*names, is_one].append(shared)
    alike = [
        pair
        for pair, own in overlaps.items()
        if min(own) >= _ALIKE and len(own) >= min(2, len(shown))
    ]
    again = sorted({name for one, other, is_one in alike if is_one for name in (one, other)})
    notes = [
        f"{root}: the masks of '{one}' and '{other}' hardly differ, and are read as two classes: "
        "if they are of two people, or one was made of the other, move one away"
        for one, other, is_one in alike
        if not is_one
    ]
    return again, notes


def _unpaired(
    tree: Tree, folders: Set[Path], paired: Set[Path], of_masks: Set[str], of_images: Set[str]
) -> list[Path]:
    """Return masks in folders in which none has an image, though one of images lies beside.

    Args:
        tree: where they lie.
        folders: that are looked at.
        paired: files that are part of a pair.
        of_masks: names of folders of masks that have images, elsewhere.
        of_images: names of folders of these images.
    """
    found: list[Path] = []
    for folder in sorted(path for path in folders if path.name in of_masks):
        if is_test_key(as_test_key(f"{folder.relative_to(tree.root).as_posix()}/")):
            continue  # Nothing is learned from there.
        own = list(tree.files_in(folder))
        beside = (path for path in tree.inside(folder.parent) if path in folders)
        shown = [p for path in beside if path.name in of_images for p in tree.files_in(path)]
        if shown and paired.isdisjoint((*own, *shown)) and tree.are_drawn(own, FEW_COLOURS):
            found += own
    return found


def describe_unpaired(root: Path) -> str:
    """Say which folders of images and of masks have no names in common; "" where there are none."""
    tree = Tree(root)
    for folder in _folders(tree, root, _DEPTH):
        inside = tree.inside(folder)
        for masks in (path for path in inside if _MASKS.fullmatch(path.name)):
            for images in (path for path in inside if IMAGES.fullmatch(path.name)):
                shown = tree.files(images, deep=True)
                drawn = tree.files(masks, deep=True, of_masks=True)
                is_empty = images == masks or not shown or not drawn
                if not is_empty and match(tree, shown, drawn) is None:
                    names = f"'{next(iter(shown))}' and '{next(iter(drawn))}'"
                    return (
                        f": of no image in {images.relative_to(root)}/ there is a mask of the same "
                        f"name in {masks.relative_to(root)}/ (such as {names}): name masks as "
                        "their images"
                    )
    return ""


def _bare(path: Path) -> Path:
    return path.with_name(normal_name(path.stem))


def describe_left_out(root: Path, paths: Iterable[Path]) -> str:
    """Say how many images are no part of a pair, and in which folders they lie."""
    places = [path.relative_to(root).parent.as_posix() for path in paths]
    return (
        f"{root}: left out {len(places)} images that are no part of a pair of image and mask (in "
        f"{', '.join(dict.fromkeys(places)):.200})"
    )


def _begin(root: Path, folder: Path) -> str:
    """Return how the keys of a folder's images begin."""
    is_plain = folder != root and IMAGES.fullmatch(folder.name)
    home = folder.parent if is_plain else folder
    if is_plain and (subset := subset_of(folder.name)):
        home /= subset
    return "" if home == root else home.relative_to(root).as_posix() + "/"


def _unanswered(tree: Tree, root: Path, paired: Set[Path], known: Set[str]) -> dict[str, Path]:
    """Return the images of folders of test images in which nothing has a partner, by their keys.

    Beside a folder that is called `images`, others hold none.
    """
    found: dict[str, Path] = {}
    # Folders in which one is called `images`.
    homes = {f.parent for f in _folders(tree, root, _DEPTH) if IMAGES.fullmatch(f.name)}
    for folder in _folders(tree, root, _DEPTH):
        names = folder.relative_to(root).parts
        is_other = any(_are_pictures(n) or _MASKS.fullmatch(n) or n in known for n in names)
        is_named = IMAGES.fullmatch(folder.name) or is_test_key(as_test_key(f"{folder.name}/"))
        if folder != root and not is_named:
            is_other |= folder.parent in homes
        files = {} if is_other else tree.files(folder, deep=False)
        if paired.isdisjoint(files.values()):
            begin = as_test_key(_begin(root, folder))
            if is_test_key(begin):
                found |= {begin + place: path for place, path in files.items()}
    return found


def _lies_in_one_folder(tree: Tree, root: Path, images: Sequence[Path]) -> bool:
    """Tell whether a folder in this one has all, and is the data set itself."""
    homes = {image.relative_to(root).parts[0] for image in images}
    home = next(iter(homes), "")
    is_file = not (root / home).is_dir()
    is_part = part_of(home) or IMAGES.fullmatch(home) or SUBSETS.fullmatch(home)
    if len(homes) != 1 or is_file or is_part:
        return False
    return find_pairs(root / home, tree) is not None


def _folders(tree: Tree, folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, sorted; not hidden ones, nor what we wrote or was predicted."""
    yield folder
    for path in tree.inside(folder) if depth else ():
        if not has_word(path.name, LOOKED_UPON):
            yield from _folders(tree, path, depth - 1)


def _are_pictures(name: str) -> bool:
    return has_word(name, _PICTURES)


def _passed_over(tree: Tree, root: Path) -> list[Path]:
    """Return folders of masks that are not of objects, or drawn again by others.

    Folders called `mask` where `manual` lies beside one, mask by mask inside of it: DRIVE's and
    HRF's show which part of an image the camera saw. And `2nd_manual` beside a `1st_manual` of as
    many.
    """
    folders = list(_folders(tree, root, _DEPTH))
    again = [p for p in folders if (hit := _AGAIN.match(p.name)) and _is_first(tree, p, hit["who"])]
    seen = [path for path in folders if path.name.casefold() == _SEEN]
    drawn = [path for path in folders if _BY_HAND.fullmatch(path.name)]
    beside = [(s, d) for s in seen for d in drawn if s.parent == d.parent]
    are_views = bool(beside) and all(tree.are_around(*pair) for pair in beside)
    return [*again, *(path for path in seen if are_views and tree.are_wide(path))]


def _is_first(tree: Tree, folder: Path, who: str) -> bool:
    """Tell whether a folder lies beside one of masks whose name differs by `1st` alone."""
    first = folder.with_name(f"1st{folder.name[len(who) :]}")
    if first not in tree.inside(folder.parent):
        return False
    return len(list(tree.files_in(first))) >= len(list(tree.files_in(folder)))


def _beside(
    tree: Tree, folder: Path, known: Set[str], passed: Set[Path]
) -> Iterator[tuple[Path, list[Path], Pairs]]:
    """Folders of images, and of masks, in a folder, with their pairs.

    Without any, the folder itself, and the pairs of files in it. Folders that are `passed` have
    neither.
    """
    inside = [path for path in tree.inside(folder) if not _are_pictures(path.name)]
    inside = [path for path in inside if path not in passed]
    if (by_class := _folders_of_classes(tree, folder, inside, known)) is not None:
        yield by_class
        return
    are_masks = [path for path in inside if _MASKS.fullmatch(path.name) or _partner(path, inside)]
    if not are_masks:
        told = [path for path in inside if has_word(path.name, DRAWN_WORDS)]
        are_masks = [p for p in told if tree.are_drawn(_first(tree, p), FEW_COLOURS)]
    others = [path for path in inside if path not in are_masks]
    found: dict[Path, list[tuple[Path, Pairs]]] = defaultdict(list)
    for masks in are_masks:
        files = tree.files(masks, deep=True, of_masks=True)
        partner = _partner(masks, others)
        tried = [
            (path, match(tree, tree.files(path, deep=True), files, known))
            for path in ([partner] if partner else others)
        ]
        if not any(pairs for _, pairs in tried):
            tried = [(folder, match(tree, tree.files(folder, deep=False), files, known))]
        fitting = [(path, pairs) for path, pairs in tried if pairs]
        if parts := _of_several_parts(fitting):
            for path, pairs in parts:
                found[path].append((masks, pairs))
            continue
        most = max((len(pairs.masks) for _, pairs in fitting), default=0)
        fitting = [(path, pairs) for path, pairs in fitting if len(pairs.masks) == most]
        called = masks.name.casefold()
        fitting = [
            (p, own) for p, own in fitting if called.startswith(p.name.casefold())
        ] or fitting
        # Test images may have the names of others, and have no masks.
        fitting = [(p, pairs) for p, pairs in fitting if part_of(p.name) != "test"] or fitting
        named = [(p, pairs) for p, pairs in fitting if _is_named_for(p, masks)] or fitting
        for path, pairs in named[:1]:
            names = [other.relative_to(folder).as_posix() for other, _ in named]
            found[path].append((masks, _with_rivals(pairs, names)))
    for path, pairings in found.items():
        names = [masks.relative_to(folder).as_posix() for masks, _ in pairings]
        yield path, [masks for masks, _ in pairings], _with_rivals(pairings[0][1], names)
    if are_masks:
        return
    files = tree.files(folder, deep=False)
    if any(path.with_name(path.stem + end).is_file() for path in files.values() for end in _ADE20K):
        return
    if found_here := pair_in_folder(tree, folder, files, known):
        yield folder, [], found_here


def _of_several_parts(
    fitting: Sequence[tuple[Path, Pairs]],
) -> list[tuple[Path, Pairs]]:
    """Return pairs of `train` and `test` with one folder of the masks of both; none of others."""
    keys = [key for _, pairs in fitting for key in pairs.masks]
    are_parts = all(SUBSETS.fullmatch(path.name) for path, _ in fitting)
    if len(fitting) < 2 or not are_parts or len(keys) > len(set(keys)):
        return []
    alone = set.intersection(*(set(pairs.alone) for _, pairs in fitting))
    (first, own), *rest = fitting
    return [
        (first, replace(own, alone=[path for path in own.alone if path in alone])),
        *((path, replace(pairs, alone=())) for path, pairs in rest),
    ]


def _folders_of_classes(
    tree: Tree, around: Path, folders: Sequence[Path], known: Set[str]
) -> tuple[Path, list[Path], Pairs] | None:
    """Pair the one folder of images with folders of masks that are called as their class.

    The images may lie beside these, in the folder around all. None where none is, or one has masks
    of several classes. Folders with other names than the images, or with what is no mask, are left
    alone, unless others `known` are called so. Beside folders that are called `masks` or the like,
    those of other names are about the same images.
    """
    folders = [path for path in folders if not SUBSETS.fullmatch(path.name)]
    home, is_named = _home_of_images(tree, folders)
    if home is None and len(folders) > 1 and tree.are_photographs(tree.files_in(around)):
        home = around
    if home is None:
        return None
    images = tree.files(home, deep=home != around)
    found: dict[Path, Pairs] = {}
    drawn = {f: tree.files(f, deep=True, of_masks=True) for f in folders if f != home}
    # Whatever the images' folder is called: in all others are black and white masks of its names.
    is_other = any(
        _MASKS.fullmatch(f.name) or has_word(f.name, DRAWN_WORDS) or has_word(f.name, DERIVED)
        for f in drawn
    )
    is_told = home == around or bool(_PHOTOGRAPHS.fullmatch(home.name))
    are_alike = (
        len(drawn) > 1
        and not is_other
        and is_told
        and all(
            own and own.keys() <= images.keys() and tree.are_drawn(own.values(), TWO_SIDES)
            for own in drawn.values()
        )
    )
    for folder in folders:
        masks = drawn.get(folder, {})
        is_mask = _says_masks(folder, folders)
        are_masks = is_mask or tree.are_drawn(
            masks.values(), TWO_SIDES if is_named else FEW_COLOURS
        )
        is_told = is_named or are_alike or is_mask or has_word(folder.name, DRAWN_WORDS)
        pairs = match(tree, images, masks) if are_masks and is_told else None
        if pairs is None and masks and _class_of(folder) in known:
            pairs = paired(images, {place: place for place in images}, masks, masks.keys())
        if pairs is not None:
            found[folder] = pairs
    if len(found) == 1:
        ((folder, pairs),) = found.items()
        # Who has drawn them is no class.
        is_whole = not is_named or bool(_BY_HAND.fullmatch(folder.name))
        if is_whole or (pairs.classes and not _says_masks(folder, folders)):
            return home, [folder], pairs
    named = [path for path in found if not _says_masks(path, folders)]
    of_class = {_class_of(folder) for folder in found}
    if (not named or home == around) and not of_class & known:
        named = [*found] if _are_of_classes(tree, found) else []
        if not named:
            return None
    several = [path for path, pairs in found.items() if pairs.classes or _has_several(tree, pairs)]
    are_rivals = len(named) < len(found) and not of_class <= known
    are_rivals |= len(found) > 1 and any(has_word(path.name, RATERS) for path in found)
    if several or are_rivals:
        first = next(iter(found.values()))
        return home, [*found], _with_rivals(first, [path.name for path in found])
    joined: dict[str, list[Path]] = defaultdict(list)
    for place, path in ((p, m) for pairs in found.values() for p, (m,) in pairs.masks.items()):
        joined[place].append(path)
    alone = [path for pairs in found.values() for path in pairs.alone]
    # `masks_train` and `masks_val` are of no classes, but parts.
    are_parts = all(map(SUBSETS.fullmatch, of_class))
    if are_parts and any(len(own) > 1 for own in joined.values()):
        return None
    classes = {
        path: _class_of(folder) for folder, pairs in found.items() for path in masks_of(pairs)
    }
    return home, [*found], Pairs(images, joined, alone, classes={} if are_parts else classes)


def _are_of_classes(tree: Tree, found: Mapping[Path, Pairs]) -> bool:
    """Tell whether folders such as `heart_masks` and `lung_masks` are of classes.

    That is, of other objects: those of two who drew the same, or of two kinds, overlap, and none
    lies in the other.
    """
    names = [class_in(path.name) for path in found]
    is_other = any(not rest_of(name) or SUBSETS.fullmatch(name) for name in names)
    if len(found) < 2 or len(set(names)) < len(names) or is_other or not are_classes(names):
        return False
    return all(
        tree.show_others(
            (ours.masks[key][0], theirs.masks[key][0]) for key in ours.masks if key in theirs.masks
        )
        for ours, theirs in combinations(found.values(), 2)
    )


def _home_of_images(tree: Tree, folders: Sequence[Path]) -> tuple[Path | None, bool]:
    """The one folder of images, and whether its name says so; else its files do."""
    named = [p for p in folders if IMAGES.fullmatch(p.name) and not _MASKS.fullmatch(p.name)]
    # Test images have no masks, mostly, and a folder of their own.
    named = [p for p in named if not is_test_key(as_test_key(f"{p.name}/"))] or named
    full = {path: own for path in folders if (own := _first(tree, path))}
    many = [path for path, own in full.items() if tree.are_photographs(own)]
    if len(named) == 1 and (named[0] in many or not many):
        return named[0], True
    is_sure = len(many) == 1 and not _MASKS.fullmatch(many[0].name)
    return (many[0], False) if is_sure else (None, False)


def _first(tree: Tree, folder: Path) -> list[Path]:
    """A few files of images in a folder, or below it."""
    return list(islice(tree.files_in(folder, deep=True), _LOOKED_AT))


def _says_masks(folder: Path, folders: Sequence[Path]) -> bool:
    return bool(_MASKS.fullmatch(folder.name) or _partner(folder, folders))


def _has_several(tree: Tree, pairs: Pairs) -> bool:
    """Tell whether masks are of several objects or classes."""
    are_many = any(len(own) > 1 for own in pairs.masks.values())
    return are_many or not tree.are_drawn(masks_of(pairs), TWO_SIDES)


def _class_of(folder: Path) -> str:
    """Return the class that a folder is called as: PH2 has `IMD002/IMD002_lesion`."""
    own = folder.name.removeprefix(folder.parent.name)
    is_more = own != folder.name and BETWEEN.match(own)
    return class_in(BETWEEN.sub("", own, count=1) if is_more else folder.name)


def _partner(masks: Path, folders: Iterable[Path]) -> Path | None:
    """Return the folder of images that is called as one of masks but for the words that say so.

    `images_prepped_train` is that of `annotations_prepped_train`, `train_images` of `train_masks`.
    """
    rest = rest_of(masks.name)
    if not rest or rest == words_of(masks.name):
        return None
    fitting = (path for path in folders if IMAGES.fullmatch(path.name) and path != masks)
    return next((path for path in fitting if rest_of(path.name) == rest), None)


def _is_named_for(images: Path, masks: Path) -> bool:
    """Tell whether a folder of masks is called after that of the images, or that `images`."""
    name = images.name.casefold()
    return masks.name.casefold().startswith(name) or bool(IMAGES.fullmatch(name))


def _with_rivals(pairs: Pairs, names: Sequence[str]) -> Pairs:
    rivals = [*pairs.ambiguous, *(names if len(names) > 1 else ())]
    return replace(pairs, ambiguous=rivals)
