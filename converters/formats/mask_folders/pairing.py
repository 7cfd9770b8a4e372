"""Which masks belong to which images, in folders that nobody has described."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from converters.files.images import is_image
from converters.files.names import normal_name
from converters.files.provenance import PROVENANCE
from converters.formats.mask_folders.black_and_white import LOSSY, MOST_BETWEEN, share_between
from converters.formats.writing import as_test_key, is_test_key

# What folders of masks are called: `masks`, `ann_dir`, `masks_png`, `trainannot`, `val_labels`.
_MASKS = re.compile(
    r"(.*[_ -])?(masks?|labels?|annot(ation)?s?|anns?|gt|ground[_ -]?truths?|segmentations?"
    r"|targets?)([_ -](dir|png|tif|images?|maps?))?|.*(annot|masks?|labels?)",
    re.IGNORECASE,
)
# What is drawn of masks or images, to be looked at.
_PICTURES = re.compile(r".*(visuali[sz]|overlay|viz|preview|colou?r|pred|depth)", re.IGNORECASE)
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
_BEHIND = re.compile(r"(.+)[_-](masks?|seg|segmentation|labels?|lbl|gt|annotation)", re.IGNORECASE)
_REST = re.compile(r"[\W_]+(\w*(mask|label|lbl|seg|gt|annot|truth)\w*|[a-z])", re.IGNORECASE)
_BETWEEN = re.compile(r"[\W_]+")
# ADE20K's colours are numbers of classes and of objects; it has one of these beside each mask.
_ADE20K = ("_atr.txt", ".json")
# Words of a folder's name that say that it has images or masks, or how they are stored.
_FOLDER_WORDS = re.compile(
    r"(image|img|input|mask|label|annotation|annot|ann|segmentation|target|truth|map)s?"
    r"|jpegimages|rgb|gt|ground|dir|png|tif"
)
# What follows an image's name in a mask of one class: `_square_0` (pycococreator), `_lesion`, `_3`.
_CLASS_OF_FILE = re.compile(r"[\W_]+(?P<name>([^\W\d_]+(?:[\W_]+[^\W\d_]+)*)?)[\W_]*\d*")
OBJECT = "object"
# What lies in a folder that is a data set of another format.
_DESCRIPTIONS = (PROVENANCE, "labels.yaml")
# What folders of one data set are called, of which there may be but one.
_SUBSETS = re.compile(r"(train|val|test)(ing|id|idation)?([_-].*)?", re.IGNORECASE)
_DEPTH = 3
_MASK_WORD = re.compile(r"^masks?[_ -]+", re.IGNORECASE)
# So many files are looked at; a mask of one class has so many colours, one of several so many.
_LOOKED_AT, _TWO_SIDES, _FEW_COLOURS = 3, 2, 64


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
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Sequence[Path]]
    alone: Sequence[Path] = ()
    ambiguous: Sequence[str] = ()
    classes: Mapping[Path, str] = field(default_factory=dict)
    unanswered: Mapping[str, Path] = field(default_factory=dict)


def find_pairs(root: Path) -> Pairs | None:
    """Return the images and masks below a folder; None where no mask has an image."""
    images: dict[str, Path] = {}
    masks: dict[str, Sequence[Path]] = {}
    alone: list[Path] = []
    ambiguous: list[str] = []
    classes: dict[Path, str] = {}
    for folder in _folders(root, _DEPTH):
        for image_folder, found in _beside(folder):
            begin = _begin(root, image_folder)
            images |= {begin + key: image for key, image in found.images.items()}
            masks |= {begin + key: own for key, own in found.masks.items()}
            alone += found.alone
            classes |= found.classes
            ambiguous += [path for path in found.ambiguous if path not in ambiguous]
    is_around = not ambiguous and _lies_in_one_folder(root, [images[key] for key in masks])
    if is_around or not masks:
        return None
    paired = {*images.values(), *alone, *(path for own in masks.values() for path in own)}
    unanswered = _unanswered(root, paired)
    if not any(map(is_test_key, masks)):
        without = images.keys() - masks.keys()
        unanswered |= {key: images.pop(key) for key in sorted(without) if is_test_key(key)}
    return Pairs(images, masks, alone, ambiguous, classes, unanswered)


def _begin(root: Path, folder: Path) -> str:
    """Return how the keys of a folder's images begin."""
    is_plain = folder != root and _IMAGES.fullmatch(folder.name)
    home = folder.parent if is_plain else folder
    if is_plain and (subset := _subset(folder.name)):
        home /= subset
    return "" if home == root else home.relative_to(root).as_posix() + "/"


def _unanswered(root: Path, paired: Set[Path]) -> dict[str, Path]:
    """Return the images of folders of test images in which nothing has a partner, by their keys."""
    found: dict[str, Path] = {}
    for folder in _folders(root, _DEPTH):
        names = folder.relative_to(root).parts
        is_other = any(_PICTURES.match(name) or _MASKS.fullmatch(name) for name in names)
        files = {} if is_other else _files(folder, deep=False)
        if paired.isdisjoint(files.values()):
            begin = as_test_key(_begin(root, folder))
            if is_test_key(begin):
                found |= {begin + place: path for place, path in files.items()}
    return found


def _lies_in_one_folder(root: Path, images: Sequence[Path]) -> bool:
    """Tell whether a folder in this one has all, and is the data set itself."""
    homes = {image.relative_to(root).parts[0] for image in images}
    home = next(iter(homes), "")
    is_file = not (root / home).is_dir()
    if len(homes) != 1 or is_file or _IMAGES.fullmatch(home) or _SUBSETS.fullmatch(home):
        return False
    return find_pairs(root / home) is not None


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    """A folder and those below it, sorted; not hidden ones, nor what we wrote."""
    yield folder
    for path in _inside(folder) if depth else ():
        yield from _folders(path, depth - 1)


def _inside(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        path
        for path in paths
        if path.is_dir()
        and not path.name.startswith(".")
        and not any((path / name).is_file() for name in _DESCRIPTIONS)
    ]


def _beside(folder: Path) -> Iterator[tuple[Path, Pairs]]:
    """The pairs of folders in a folder; without any, the pairs of files in it."""
    inside = [path for path in _inside(folder) if not _PICTURES.match(path.name)]
    are_masks = [path for path in inside if _MASKS.fullmatch(path.name) or _partner(path, inside)]
    others = [path for path in inside if path not in are_masks]
    found: dict[Path, list[tuple[Path, Pairs]]] = defaultdict(list)
    for masks in are_masks:
        files = _files(masks, deep=True)
        tried = [(path, _match(_files(path, deep=path != folder), files)) for path in others]
        if not any(pairs for _, pairs in tried):
            tried = [(folder, _match(_files(folder, deep=False), files))]
        fitting = [(path, pairs) for path, pairs in tried if pairs]
        most = max((len(pairs.masks) for _, pairs in fitting), default=0)
        partner = _partner(masks, others)
        fitting = [(path, pairs) for path, pairs in fitting if path == partner] or [
            (path, pairs) for path, pairs in fitting if len(pairs.masks) == most
        ]
        named = [(p, pairs) for p, pairs in fitting if _is_named_for(p, masks)] or fitting
        for path, pairs in named[:1]:
            names = [other.relative_to(folder).as_posix() for other, _ in named]
            found[path].append((masks, _with_rivals(pairs, names)))
    for path, pairings in found.items():
        names = [masks.relative_to(folder).as_posix() for masks, _ in pairings]
        yield path, _with_rivals(pairings[0][1], names)
    if are_masks:
        return
    if (by_class := _folders_of_classes(inside)) is not None:
        yield by_class
    elif beside := _side_by_side(_files(folder, deep=False)) or _of_one_name(folder):
        yield folder, beside


def _folders_of_classes(folders: Sequence[Path]) -> tuple[Path, Pairs] | None:
    """Pair the one folder of images with folders of masks that are called as their class.

    None where a folder has other names than the images, or what is no mask.
    """
    home = [path for path in folders if _IMAGES.fullmatch(path.name)]
    if len(home) != 1 or any(_SUBSETS.fullmatch(path.name) for path in folders):
        return None
    images = _files(home[0], deep=True)
    joined: dict[str, list[Path]] = defaultdict(list)
    classes: dict[Path, str] = {}
    for folder in folders:
        masks = _files(folder, deep=True) if folder != home[0] else {}
        if not masks.keys() <= images.keys() or not _are_drawn(masks.values(), _TWO_SIDES):
            return None
        for place, path in masks.items():
            joined[place].append(path)
            classes[path] = _MASK_WORD.sub("", folder.name)
    return (home[0], Pairs(images, joined, classes=classes)) if joined else None


def _of_one_name(folder: Path) -> Pairs | None:
    """Pair a.jpg with a.png; None unless all are such pairs, and the latter masks."""
    files: dict[str, dict[bool, Path]] = defaultdict(dict)
    paths = sorted(filter(is_image, folder.iterdir()))
    for path in paths:
        files[normal_name(path.stem)][path.suffix.lower() in LOSSY] = path
    if not files or 2 * len(files) != len(paths) or any(len(own) != 2 for own in files.values()):
        return None
    masks = {stem: (own[False],) for stem, own in files.items()}
    if not _are_drawn((path for own in masks.values() for path in own), _FEW_COLOURS):
        return None
    return Pairs({stem: own[True] for stem, own in files.items()}, masks)


def _are_drawn(paths: Iterable[Path], most: int) -> bool:
    """Tell by a few files whether they have so few colours, as masks have and photographs do not.

    What JPEG has added to two sides does not count.
    """
    for path in islice(paths, _LOOKED_AT):
        values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            return False
        if path.suffix.lower() in LOSSY:
            if share_between(values) > MOST_BETWEEN:
                return False
            values = values // 128
        pixels = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)
        if len(np.unique(pixels, axis=0)) > most:
            return False
    return True


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


def _files(folder: Path, *, deep: bool) -> dict[str, Path]:
    """Place below a folder, without suffix -> image; of two that differ only in it the first."""
    found: dict[str, Path] = {}
    paths = folder.rglob("*") if deep else folder.iterdir()
    for path in sorted(filter(is_image, paths)):
        place = path.relative_to(folder).with_suffix("").as_posix()
        if not any(part.startswith(".") for part in place.split("/")):
            found.setdefault(normal_name(place), path)
    return found


def _match(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """Pair by equal places; else NAME with NAME_x; else by names without words such as `mask`."""
    if not images or not masks:
        return None
    if images.keys() & masks.keys():
        return _paired(images, {place: place for place in images}, masks, masks.keys())
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
    return _by_class_folders(images, masks) or _by_class_names(images, masks)


def _by_class_folders(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
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
        if len(found) < 2 or any(_SUBSETS.fullmatch(label) for label in found):
            continue
        known = {label: _match(images, own) for label, own in found.items()}
        pairs = [own for own in known.values() if own is not None and not own.classes]
        if len(pairs) == len(known):
            joined: dict[str, list[Path]] = defaultdict(list)
            for place, path in ((p, m) for own in pairs for p, ms in own.masks.items() for m in ms):
                joined[place].append(path)
            alone = [path for own in pairs for path in own.alone]
            classes = {path: label for label, own in found.items() for path in own.values()}
            return Pairs(images, joined, alone, classes=classes)
    return None


def _by_class_names(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs | None:
    """Pair images with masks that are called NAME_CLASS_NUMBER, NAME_CLASS or NAME_NUMBER.

    None if one mask is not, or each image has but one: then what follows its name says no class.
    """
    joined: dict[str, list[Path]] = defaultdict(list)
    classes: dict[Path, str] = {}
    for place, path in masks.items():
        ends = sorted((hit.start() for hit in _BETWEEN.finditer(place)), reverse=True)
        image = next((place[:end] for end in ends if place[:end] in images), "")
        told = _CLASS_OF_FILE.fullmatch(place[len(image) :]) if image else None
        if told is None:
            return None
        name = told["name"]
        joined[image].append(path)
        classes[path] = OBJECT if name.casefold() in {"", *_WORDS} else name
    if max(map(len, joined.values())) < 2:
        return None
    return Pairs(images, joined, classes=classes)


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
        ends = (hit.start() for hit in _BETWEEN.finditer(place))
        image = next(
            (place[:end] for end in sorted(ends, reverse=True) if place[:end] in images), ""
        )
        if image in found:
            return {}
        found[image or place] = path
        rests |= {place[len(image) :].casefold()} if image else set()
    says_so = len(rests) == 1 and bool(_REST.fullmatch(next(iter(rests))))
    return found if says_so else {}


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
    """Pair NAME and NAME_mask in one folder."""
    masks: dict[str, tuple[Path, ...]] = {}
    owned: set[str] = set()
    for place, path in files.items():
        found = _BEHIND.fullmatch(place)
        if found and (image := found[1]) in files:
            stem = files[image].stem
            if image in masks or any(path.with_name(stem + end).is_file() for end in _ADE20K):
                return None
            masks[image] = (path,)
            owned.add(place)
    images = {place: path for place, path in files.items() if place not in owned}
    return Pairs(images, masks) if masks else None
