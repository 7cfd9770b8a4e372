"""Words in names of folders and files that nobody has described."""

from __future__ import annotations

import re
from collections.abc import Iterable

from converters.subsets.names import CAMEL

BETWEEN = re.compile(r"[\W_]+")
# Words of a file's name that say what it is, and not of what.
PLAIN_WORDS = frozenset(
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
# What the image of a case is called.
IMAGE_WORDS = frozenset(
    {"image", "img", "rgb", "input", "photo", "photograph", "scan", "slice", "frame"}
    | {"xray", "cxr", "radiograph", "ct", "mri", "original", "raw"}
)
# Words of a folder's name that say that it has images or masks, or how they are stored.
_FOLDER_WORDS = re.compile(
    r"(image|img|input|mask|label|annotation|annot|ann|segmentation|target|truth|map)s?"
    r"|jpegimages|rgb|gt|ground|dir|png|tif"
)
# Folders of images whose name says no more than that; others are a part of the key.
IMAGES = re.compile(r"(.*[_ -])?(images?|imgs?|jpegimages|inputs?|rgb)([_ -].*)?", re.IGNORECASE)
# What folders of one data set are called, of which there may be but one.
SUBSETS = re.compile(r"(train|val|test)(ing|id|idation)?([_-].*)?", re.IGNORECASE)
# Words that say that something was drawn into an image: `LabeledApproved`, `GroundTruth`.
DRAWN_WORDS = re.compile(
    r"(mask|label(l?ed)?|lbl|annot(ated|ations?)?|anno(tations?)?|seg(mented|mentations?)?|gt|truth"
    r"|semantic|instance|trimap|attribute|manual|lesion)s?"
)
# Words of folders of what is drawn of masks or images, to be looked at, or was predicted.
LOOKED_UPON = re.compile(r"\w*(visuali[sz]|overlay|preview)\w*|vi[sz]|pred(s|ict(s|ed|ions?)?)?")
# Who has drawn something.
RATERS = re.compile(r"(annotator|expert|reader|rater|observer|grader|doctor|manual|human)s?")
# What objects of any class are called.
_OF_OBJECTS = re.compile(r"(object|obj|instance|inst|region|component|part|particle|blob|roi)s?")
# What is made of images or masks.
DERIVED = re.compile(
    r"edges?|bound(ary|aries)|contours?|outlines?|skeletons?|thresh(old(ed)?)?|binary|roi|old|output"
)
# What the name of a class's mask or folder says besides: `LeftLung_mask`, `mask_Heart`.
_OF_MASKS = r"(masks?|seg(mentations?)?|labels?|lbl|gt|annot(ations?)?)"
_AROUND = re.compile(
    rf"^((?i:{_OF_MASKS})[\W_]+)+|([\W_]+(?i:{_OF_MASKS}))+$|(?<=[^\W\d_A-Z])(Mask|Label)s?$"
)


def class_in(name: str) -> str:
    """Return the class that the name of its mask, or of a folder of its masks, says.

    >>> [class_in(name) for name in ("LeftLung_mask", "mask_Heart", "HeartMasks", "masks", "gt")]
    ['LeftLung', 'Heart', 'Heart', 'masks', 'gt']
    """
    return _AROUND.sub("", name) or name


def classes_in(names: Iterable[str]) -> dict[str, str]:
    """Return name -> class, of all names of a data set; names that differ stay different.

    >>> classes_in(["a_mask", "b_mask"]), classes_in(["a_mask", "a"])
    ({'a_mask': 'a', 'b_mask': 'b'}, {'a_mask': 'a_mask', 'a': 'a'})
    """
    found = {name: class_in(name) for name in names}
    return found if len(set(found.values())) == len(found) else {name: name for name in found}


def has_word(name: str, pattern: re.Pattern[str]) -> bool:
    """Tell whether a pattern fits a word of a name, also one that capitals alone divide."""
    return any(pattern.fullmatch(word.lower()) for word in CAMEL.findall(name))


def are_classes(names: Iterable[str]) -> bool:
    """Tell whether words may be of classes; not who drew, what was made of masks, or objects."""
    others = (DERIVED, LOOKED_UPON, RATERS, DRAWN_WORDS, _OF_OBJECTS)
    return not any(has_word(class_in(name), words) for name in names for words in others)


def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, in small letters."""
    return tuple(word.casefold() for word in BETWEEN.split(name) if word)


def rest_of(name: str) -> tuple[str, ...]:
    """Return the words of a folder's name but for those that say that images or masks are in it."""
    return tuple(word for word in words_of(name) if not _FOLDER_WORDS.fullmatch(word))


def subset_of(name: str) -> str:
    """Return the subset of which a folder's name speaks; "" for none."""
    return next((word for word in words_of(name) if SUBSETS.fullmatch(word)), "")
