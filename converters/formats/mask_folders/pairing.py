"""Which masks belong to which images, in folders that nobody has described."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from converters.files.images import is_image
from converters.files.names import normal_name
from converters.formats.mask_folders.black_and_white import LOSSY
from converters.formats.mask_folders.test_images import find_test_keys
from converters.formats.mask_folders.tree import FEW_COLOURS, TWO_SIDES, Tree
from converters.formats.writing import as_test_key, is_test_key, part_of

# What folders of masks are called: `masks`, `ann_dir`, `masks_png`, `trainannot`, `val_labels`.
_MASKS = re.compile(
    r"(.*[_ -])?(masks?|labels?|labs?|annot(ation)?s?|anns?|gts?|ground[_ -]?truths?|segmentations?"
    r"|targets?|instances?)([_ -](dir|png|tif|images?|maps?))?|.*(annot|masks?|labels?)"
    r"|(.*[_ -])?(label|thing|seg)maps?|stuffthingmaps",
    re.IGNORECASE,
)
# Words of folders of what is drawn of masks or images, to be looked at, or was predicted.
_LOOKED_UPON = re.compile(r"\w*(visuali[sz]|overlay|preview)\w*|vi[sz]|pred(s|ict(s|ed|ions?)?)?")
_PICTURES = re.compile(rf"{_LOOKED_UPON.pattern}|\w*colou?r\w*|depths?(maps?)?")
# What is measured of a place, beside its image.
_HEIGHTS = re.compile(r"n?d[est]m|depths?|elevations?|heights?|disparity", re.IGNORECASE)
# Folders of images whose name says no more than that; others are a part of the key.
_IMAGES = re.compile(r"(.*[_ -])?(images?|imgs?|jpegimages|inputs?|rgb)([_ -].*)?", re.IGNORECASE)
# Words of a file's name that say what it is, and not of what.
_WORDS = frozenset(
    {
        "mask",
        "masks",
        "seg",
        "segmentation",
        "label",
        "labels",
        "lbl",
        "gt",
        "groundtruth",
        "annotation",
        "annot",
        "target",
        "image",
        "img",
        "sat",
        "rgb",
        "input",
    }
)
_BEHIND = re.compile(
    r"(.+)[_-](masks?|seg|segmentation|labels?|lbl|gt|anno|annotation)(?P<more>[_-]?\d+)?",
    re.IGNORECASE,
)
# What follows an image's name in that of its mask, who has drawn it (CHASE_DB1) among it, and
# iSAID's words for colours of classes.
_REST = re.compile(
    r"[\W_]+(\w*(mask|label|lbl|seg|gt|annot|truth)\w*|lab|\d(st|nd|rd)_?(ho|manual)"
    r"|instance_color_rgb|[a-z])",
    re.IGNORECASE,
)
# Who has drawn a mask that lies beside its image (CHASE_DB1: `Image_01L_1stHO`).
_DRAWN_BY = re.compile(r"(?P<image>.+)[_-](?P<who>\d)(st|nd|rd)[_-]?(ho|manual)", re.IGNORECASE)
_BETWEEN = re.compile(r"[\W_]+")
# ADE20K's colours are numbers of classes and of objects; it has one of these beside each mask.
_ADE20K = ("_atr.txt", ".json")
# Words of a folder's name that say that it has images or masks, or how they are stored.
_FOLDER_WORDS = re.compile(
    r"(image|img|input|mask|label|annotation|annot|ann|segmentation|target|truth|map)s?"
    r"|jpegimages|rgb|gt|ground|dir|png|tif"
)
# What follows an image's name in a mask of one class: `_square_0` (pycococreator), `_lesion`, `_3`.
_CLASS_OF_FILE = re.compile(
    r"[\W_]+(?P<name>([^\W\d_]+(?:[\W_]+[^\W\d_]+)*)?)(?P<number>[\W_]*\d*)"
)
# Words in a folder's name, also where capitals alone divide them.
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
OBJECT = "object"
# What folders of one data set are called, of which there may be but one.
_SUBSETS = re.compile(r"(train|val|test)(ing|id|idation)?([_-].*)?", re.IGNORECASE)
_DEPTH, _LOOKED_AT = 3, 3
_MASK_WORD = re.compile(r"^masks?[_ -]+", re.IGNORECASE)
# Words that say that something was drawn into an image: `LabeledApproved`, `GroundTruth`.
_DRAWN_WORDS = re.compile(
    r"(mask|label(l?ed)?|lbl|annot(ated|ations?)?|anno(tations?)?|seg(mented|mentations?)?|gt|truth"
    r"|semantic|instance|trimap|attribute|manual|lesion)s?"
)
_SHORT = "m"  # LandCover.ai: `X.jpg`, `X_m.png`
# Part of names that are alike where the others are slips.
_NEARLY_ALL = 0.9
# Who has drawn the same objects as others.
_AGAIN = re.compile(r"(?P<who>[2-9](nd|rd|th))[ _-]?manual", re.IGNORECASE)
_BY_HAND, _SEEN = re.compile("manual"), ("mask", "masks")
_RATERS = re.compile(r"(annotator|expert|reader|rater|observer|grader|doctor|manual|human)s?")


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
    taken = set(_passed_over(tree, root))
    for folder in _folders(tree, root, _DEPTH):
        # A folder in one of masks holds no images.
        if taken.isdisjoint((folder, *folder.parents)):
            for image_folder, masks, found in _beside(tree, folder, known, frozenset(taken)):
                parts.append((image_folder, found))
                taken |= {path for path in masks if path != image_folder}
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
    is_around = not ambiguous and _lies_in_one_folder(tree, root, [images[key] for key in masks_of])
    if is_around or not masks_of:
        return None
    drawn = {*alone, *(path for own in masks_of.values() for path in own)}
    shown = [path for path in tree.files_in(root, deep=True) if path not in drawn]
    renamed, notes = find_test_keys(root, images, shown)
    images = {renamed[key]: path for key, path in images.items()}
    masks_of = {renamed[key]: own for key, own in masks_of.items()}
    paired = {*images.values(), *drawn}
    unanswered = {
        key
        if key not in images
        else f"test/{path.relative_to(root).with_suffix('').as_posix()}": path
        for key, path in _unanswered(tree, root, paired, known).items()
    }
    if not any(map(is_test_key, masks_of)):
        without = images.keys() - masks_of.keys()
        unanswered |= {key: images.pop(key) for key in sorted(without) if is_test_key(key)}
    # A folder that is called as those of masks has some, too, though none has an image.
    of_masks = {path.parent.name for own in masks_of.values() for path in own} - {
        path.parent.name for path in images.values()
    }
    looked_at = set(_folders(tree, root, _DEPTH)) - set(_passed_over(tree, root))
    alone += [
        path
        for folder in sorted(looked_at)
        if folder.name in of_masks and paired.isdisjoint(own := list(tree.files_in(folder)))
        for path in own
    ]
    keys = {_bare(path): path.stem for path in alone}
    keys |= {_bare(path): key for key, own in masks_of.items() for path in own}
    keys |= {_bare(path): key for key, path in (*unanswered.items(), *images.items())}
    known_files = {*paired, *alone, *unanswered.values()}
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
        notes=notes,
    )


def describe_unpaired(root: Path) -> str:
    """Say which folders of images and of masks have no names in common; "" where there are none."""
    tree = Tree(root)
    for folder in _folders(tree, root, _DEPTH):
        inside = tree.inside(folder)
        for masks in (path for path in inside if _MASKS.fullmatch(path.name)):
            for images in (path for path in inside if _IMAGES.fullmatch(path.name)):
                shown = tree.files(images, deep=True)
                drawn = tree.files(masks, deep=True, of_masks=True)
                is_empty = images == masks or not shown or not drawn
                if not is_empty and _match(tree, shown, drawn) is None:
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
    is_plain = folder != root and _IMAGES.fullmatch(folder.name)
    home = folder.parent if is_plain else folder
    if is_plain and (subset := _subset(folder.name)):
        home /= subset
    return "" if home == root else home.relative_to(root).as_posix() + "/"


def _unanswered(tree: Tree, root: Path, paired: Set[Path], known: Set[str]) -> dict[str, Path]:
    """Return the images of folders of test images in which nothing has a partner, by their keys.

    Beside a folder that is called `images`, others hold none.
    """
    found: dict[str, Path] = {}
    # Folders in which one is called `images`.
    homes = {f.parent for f in _folders(tree, root, _DEPTH) if _IMAGES.fullmatch(f.name)}
    for folder in _folders(tree, root, _DEPTH):
        names = folder.relative_to(root).parts
        is_other = any(_are_pictures(n) or _MASKS.fullmatch(n) or n in known for n in names)
        is_named = _IMAGES.fullmatch(folder.name) or is_test_key(as_test_key(f"{folder.name}/"))
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
    is_part = part_of(home) or _IMAGES.fullmatch(home) or _SUBSETS.fullmatch(home)
    if len(homes) != 1 or is_file or is_part:
        return False
    return find_pairs(root / home, tree) is not None


def _folders(tree: Tree, folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, sorted; not hidden ones, nor what we wrote or was predicted."""
    yield folder
    for path in tree.inside(folder) if depth else ():
        if not _has_word(path.name, _LOOKED_UPON):
            yield from _folders(tree, path, depth - 1)


def _has_word(name: str, pattern: re.Pattern[str]) -> bool:
    return any(pattern.fullmatch(word.lower()) for word in _CAMEL.findall(name))


def _are_pictures(name: str) -> bool:
    return _has_word(name, _PICTURES)


def _passed_over(tree: Tree, root: Path) -> list[Path]:
    """Return folders of masks that are not of objects, or drawn again by others.

    Folders called `mask` where others are called `manual`, anywhere in the data set: DRIVE's and
    HRF's show which part of an image the camera saw. And `2nd_manual` beside `1st_manual`.
    """
    folders = list(_folders(tree, root, _DEPTH))
    found = [path for path in folders if path.name.casefold() in _SEEN]
    drawn = {path.parent for path in folders if _has_word(path.name, _BY_HAND)}
    again = [p for p in folders if (hit := _AGAIN.match(p.name)) and _is_first(tree, p, hit["who"])]
    return [*again, *(found if any(path.parent in drawn for path in found) else [])]


def _is_first(tree: Tree, folder: Path, who: str) -> bool:
    """Tell whether a folder lies beside one whose name differs by `1st` alone."""
    first = folder.with_name(f"1st{folder.name[len(who) :]}")
    return first in tree.inside(folder.parent)


def _beside(
    tree: Tree, folder: Path, known: Set[str], passed: Set[Path]
) -> Iterator[tuple[Path, list[Path], Pairs]]:
    """Folders of images, and of masks, in a folder, with their pairs.

    Without any, the folder itself, and the pairs of files in it. Folders that are `passed` have
    neither.
    """
    inside = [path for path in tree.inside(folder) if not _are_pictures(path.name)]
    inside = [path for path in inside if path not in passed]
    if (by_class := _folders_of_classes(tree, inside, known)) is not None:
        yield by_class
        return
    are_masks = [path for path in inside if _MASKS.fullmatch(path.name) or _partner(path, inside)]
    if not are_masks:
        told = [path for path in inside if _has_word(path.name, _DRAWN_WORDS)]
        are_masks = [p for p in told if tree.are_drawn(_first(tree, p), FEW_COLOURS)]
    others = [path for path in inside if path not in are_masks]
    found: dict[Path, list[tuple[Path, Pairs]]] = defaultdict(list)
    for masks in are_masks:
        files = tree.files(masks, deep=True, of_masks=True)
        partner = _partner(masks, others)
        tried = [
            (path, _match(tree, tree.files(path, deep=True), files, known))
            for path in ([partner] if partner else others)
        ]
        if not any(pairs for _, pairs in tried):
            tried = [(folder, _match(tree, tree.files(folder, deep=False), files, known))]
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
    beside = (
        _side_by_side(files)
        or _of_first_rater(files)
        or _of_one_name(tree, folder)
        or _by_last_words(tree, files)
        or _image_and_mask(tree, files)
    )
    if beside or (beside := _longer_names(tree, files, known)):
        yield folder, [], beside


def _of_several_parts(
    fitting: Sequence[tuple[Path, Pairs]],
) -> list[tuple[Path, Pairs]]:
    """Return pairs of `train` and `test` with one folder of the masks of both; none of others."""
    keys = [key for _, pairs in fitting for key in pairs.masks]
    are_parts = all(_SUBSETS.fullmatch(path.name) for path, _ in fitting)
    if len(fitting) < 2 or not are_parts or len(keys) > len(set(keys)):
        return []
    alone = set.intersection(*(set(pairs.alone) for _, pairs in fitting))
    (first, own), *rest = fitting
    return [
        (first, replace(own, alone=[path for path in own.alone if path in alone])),
        *((path, replace(pairs, alone=())) for path, pairs in rest),
    ]


def _folders_of_classes(
    tree: Tree, folders: Sequence[Path], known: Set[str]
) -> tuple[Path, list[Path], Pairs] | None:
    """Pair the one folder of images with folders of masks that are called as their class.

    None where none is, or one has masks of several classes. Folders with other names than the
    images, or with what is no mask, are left alone, unless others `known` are called so. Beside
    folders that are called `masks` or the like, those of other names are about the same images.
    """
    folders = [path for path in folders if not _SUBSETS.fullmatch(path.name)]
    home, is_named = _home_of_images(tree, folders)
    if home is None:
        return None
    images = tree.files(home, deep=True)
    found: dict[Path, Pairs] = {}
    for folder in folders:
        masks = tree.files(folder, deep=True, of_masks=True) if folder != home else {}
        is_mask = _says_masks(folder, folders)
        are_masks = is_mask or tree.are_drawn(
            masks.values(), TWO_SIDES if is_named else FEW_COLOURS
        )
        is_told = is_named or is_mask or _has_word(folder.name, _DRAWN_WORDS)
        pairs = _match(tree, images, masks) if are_masks and is_told else None
        if pairs is None and masks and _class_of(folder) in known:
            pairs = _paired(images, {place: place for place in images}, masks, masks.keys())
        if pairs is not None:
            found[folder] = pairs
    if len(found) == 1:
        ((folder, pairs),) = found.items()
        # Who has drawn them is no class.
        is_whole = not is_named or _has_word(folder.name, _RATERS)
        if is_whole or (pairs.classes and not _says_masks(folder, folders)):
            return home, [folder], pairs
    named = [path for path in found if not _says_masks(path, folders)]
    of_class = {_class_of(folder) for folder in found}
    if not named and not of_class & known:
        return None
    several = [path for path, pairs in found.items() if pairs.classes or _has_several(tree, pairs)]
    are_rivals = len(named) < len(found) and not of_class <= known
    are_rivals |= len(found) > 1 and any(_has_word(path.name, _RATERS) for path in found)
    if several or are_rivals:
        first = next(iter(found.values()))
        return home, [*found], _with_rivals(first, [path.name for path in found])
    joined: dict[str, list[Path]] = defaultdict(list)
    for place, path in ((p, m) for pairs in found.values() for p, (m,) in pairs.masks.items()):
        joined[place].append(path)
    alone = [path for pairs in found.values() for path in pairs.alone]
    # `masks_train` and `masks_val` are of no classes, but parts.
    are_parts = all(map(_SUBSETS.fullmatch, of_class))
    if are_parts and any(len(own) > 1 for own in joined.values()):
        return None
    classes = {
        path: _class_of(folder) for folder, pairs in found.items() for path in _masks_of(pairs)
    }
    return home, [*found], Pairs(images, joined, alone, classes={} if are_parts else classes)


def _home_of_images(tree: Tree, folders: Sequence[Path]) -> tuple[Path | None, bool]:
    """The one folder of images, and whether its name says so; else its files do."""
    named = [p for p in folders if _IMAGES.fullmatch(p.name) and not _MASKS.fullmatch(p.name)]
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
    return are_many or not tree.are_drawn(_masks_of(pairs), TWO_SIDES)


def _class_of(folder: Path) -> str:
    """Return the class that a folder is called as: PH2 has `IMD002/IMD002_lesion`."""
    own = folder.name.removeprefix(folder.parent.name)
    is_more = own != folder.name and _BETWEEN.match(own)
    return _MASK_WORD.sub("", _BETWEEN.sub("", own, count=1) if is_more else folder.name)


def _masks_of(pairs: Pairs) -> Iterator[Path]:
    yield from (path for own in pairs.masks.values() for path in own)
    yield from pairs.alone


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
    return Pairs(images, masks) if masks else None


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
    is_told = _DRAWN_WORDS.fullmatch(mask_word.lower()) or mask_word == _SHORT
    if not is_told or not masks.keys() & images.keys():
        return None
    return _paired(
        {place: files[place] for place in images.values()},
        images,
        {head: files[place] for head, place in masks.items()},
        masks.keys(),
    )


def _longer_names(tree: Tree, files: Mapping[str, Path], known: Set[str]) -> Pairs | None:
    """Pair NAME with NAME_attribute_cat and NAME_attribute_dog beside it, masks of one class."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    told = True
    for place, path in files.items():
        owner = _owner_of(place, files)
        (masks if owner else images)[place] = path
        told &= not owner or _has_word(place[len(owner) :], _DRAWN_WORDS)
    if not told or not tree.are_drawn(masks.values(), TWO_SIDES):
        return None
    if not tree.are_photographs(images.values()):
        return None
    pairs = _by_class_names(images, masks, known)
    # Two files that say no class are two ways to draw the same.
    return None if pairs is None or OBJECT in pairs.classes.values() else pairs


def _image_and_mask(tree: Tree, files: Mapping[str, Path]) -> Pairs | None:
    """Pair `image` and `mask`, the two files of a case's own folder."""
    if len(files) != 2 or not files.keys() <= _WORDS:
        return None
    masks = [place for place, path in files.items() if tree.are_drawn([path], FEW_COLOURS)]
    if len(masks) != 1 or not _DRAWN_WORDS.fullmatch(masks[0]):
        return None
    ((image, path),) = ((place, path) for place, path in files.items() if place != masks[0])
    return Pairs({image: path}, {image: (files[masks[0]],)})


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
    if not is_drawn or tree.are_drawn(images.values(), TWO_SIDES):
        return None
    return _paired(images, {stem: stem for stem in images}, masks, masks.keys())


def _partner(masks: Path, folders: Iterable[Path]) -> Path | None:
    """Return the folder of images that is called as one of masks but for the words that say so.

    `images_prepped_train` is that of `annotations_prepped_train`, `train_images` of `train_masks`.
    """
    rest = _rest(masks.name)
    if not rest or rest == _words(masks.name):
        return None
    fitting = (path for path in folders if _IMAGES.fullmatch(path.name) and path != masks)
    return next((path for path in fitting if _rest(path.name) == rest), None)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _BETWEEN.split(name) if word)


def _rest(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if not _FOLDER_WORDS.fullmatch(word))


def _subset(name: str) -> str:
    """Return the subset of which a folder's name speaks; "" for none."""
    return next((word for word in _words(name) if _SUBSETS.fullmatch(word)), "")


def _is_named_for(images: Path, masks: Path) -> bool:
    """Tell whether a folder of masks is called after that of the images, or that `images`."""
    name = images.name.casefold()
    return masks.name.casefold().startswith(name) or bool(_IMAGES.fullmatch(name))


def _with_rivals(pairs: Pairs, names: Sequence[str]) -> Pairs:
    rivals = [*pairs.ambiguous, *(names if len(names) > 1 else ())]
    return replace(pairs, ambiguous=rivals)


def _match(
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
        return _paired(images, {place: place for place in images}, longer, longer.keys())
    cores = _cores(images)
    own = _cores(masks)
    if cores and own and cores.keys() & own.keys():
        by_core = {core: masks[place] for core, place in own.items()}
        return _paired(images, cores, by_core, own.keys())
    place, image = next(iter(images.items()))
    # Kaggle's nuclei: a folder called as its image, and a mask for each object.
    if len(images) == 1 and image.parent.parent.name == image.stem:
        return Pairs({place: image}, {place: tuple(masks.values())})
    return (
        _by_class_folders(tree, images, masks, known)
        or _by_class_names(images, masks, known)
        or _by_middles(images, masks)
        or _by_inner_folders(tree, images, masks)
        or _by_outer_folder(tree, images, masks)
    )


def _with_others(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs:
    """Pair by equal places, and what is left by names: some collections have `a` and `b_mask`."""
    pairs = _paired(images, {place: place for place in images}, masks, masks.keys())
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
    is_plain = len(heads) == 1 and all(map(_IMAGES.fullmatch, heads))
    if "" in bare or not is_plain:
        return None
    return _match(tree, bare, masks)


def _by_inner_folders(
    tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> Pairs | None:
    """Pair images with masks one folder further down: `trimaps/NAME`, or `train/NAME`, `val/NAME`.

    One folder of black and white masks is called as their class, unless by other words.
    """
    heads = {place.partition("/")[0] for place in masks if "/" in place}
    bare = {place.partition("/")[2]: path for place, path in masks.items()}
    are_parts = all(_SUBSETS.fullmatch(head) for head in heads)
    if "" in bare or len(bare) < len(masks) or not (len(heads) == 1 or (heads and are_parts)):
        return None
    pairs = _match(tree, images, bare)
    if pairs is None or pairs.classes or are_parts:
        return pairs
    if not tree.are_drawn(bare.values(), TWO_SIDES):
        return pairs
    (head,) = heads
    if not _rest(head) or any(map(str.isdigit, head)):
        return pairs
    return replace(pairs, classes=dict.fromkeys(_masks_of(pairs), head))


def _by_middles(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """Pair `21_training` with `21_manual1`, `22_training` with `22_manual1`, ...: DRIVE's names.

    What all images' names have in common is left out, and what all masks' have, but for numbers.
    """
    ours, theirs = _middles(images), _middles(masks)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    # What only masks have in common says that they are drawn, not another case, side or time.
    if not all(_DRAWN_WORDS.fullmatch(word.rstrip("0123456789")) for word in theirs[2] - ours[2]):
        return None
    if not theirs[1].keys() <= ours[1].keys():
        return None
    by_core = {core: masks[place] for core, place in theirs[1].items()}
    pairs = _paired(images, ours[1], by_core, theirs[1].keys())
    odd = [masks[place] for place in masks if place not in theirs[1].values()]
    return replace(pairs, alone=[*pairs.alone, *odd])


def _middles(places: Iterable[str]) -> tuple[tuple[str, ...], dict[str, str], set[str]] | None:
    """The numbers that all names have, the one word that tells them apart -> the place, and words.

    The words are those that all names have.

    None where it is not one word, or places lie in folders. A name of more or fewer words than
    nearly all others is left out.
    """
    all_words = {place: _BETWEEN.split(place) for place in places}
    often = Counter(map(len, all_words.values())).most_common(1)
    words = {place: row for place, row in all_words.items() if len(row) == often[0][0]}
    rows = list(words.values())
    is_flat = not any("/" in place for place in words)
    if len(rows) < 2 or len(rows) < _NEARLY_ALL * len(all_words) or not is_flat:
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
        if any(_SUBSETS.fullmatch(label) for label in found) or (
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
            classes = {path: label for label, own in found.items() for path in own.values()}
            return Pairs(images, joined, alone, classes=classes)
    return None


def _match_class(tree: Tree, images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """As `_match`, in a folder of one class: anything may follow images' names, if it is one."""
    pairs = _match(tree, images, masks)
    if pairs is not None and not pairs.classes:
        return pairs
    found: dict[str, Path] = {}
    rests = set()
    for place, path in masks.items():
        image = _owner_of(place, images)
        rests.add(place[len(image) :])
        found[image] = path
    is_one = len(rests) == 1 and "" not in found and len(found) == len(masks)
    return _paired(images, {place: place for place in images}, found, found) if is_one else pairs


def _by_class_names(
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
        image = _owner_of(place, images)
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
    found = {}
    for path, (name, number) in told.items():
        is_word = name.casefold() in {"", *_WORDS}
        more = number if is_name and number.isdecimal() else ""
        found[path] = OBJECT if is_word else name + more
    return found


def _paired(
    images: Mapping[str, Path],
    places: Mapping[str, str],
    masks: Mapping[str, Path],
    known: Iterable[str],
) -> Pairs:
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
        image = _owner_of(place, images)
        if image in found:
            return {}
        found[image or place] = path
        rests |= {place[len(image) :].casefold()} if image else set()
    says_so = len(rests) == 1 and bool(_REST.fullmatch(next(iter(rests))))
    return found if says_so else {}


def _owner_of(place: str, images: Mapping[str, Path]) -> str:
    """Return the image whose place, the longest, this one begins with as words; "" for none."""
    ends = [hit.start() for hit in _BETWEEN.finditer(place)]
    return next((place[:end] for end in reversed(ends) if place[:end] in images), "")


def _cores(places: Iterable[str]) -> dict[str, str]:
    """What is left of a place without words that say nothing -> the place; {} if two are one."""
    found: dict[str, str] = {}
    for place in places:
        *folders, name = place.split("/")
        words = [w for w in _BETWEEN.split(name) if w and w.casefold() not in _WORDS]
        core = "/".join([*folders, "_".join(words)])
        if not words or core in found:
            return {}
        found[core] = place
    return found


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
        if image not in files:
            continue
        if not number and False in numbered[image]:
            return None
        masks[image].append(path)
        numbered[image].add(bool(number))
        owned.add(place)
    images = {place: path for place, path in files.items() if place not in owned}
    return Pairs(images, masks) if masks else None
