"""Planting faults into a phantom tree, so that what finds faults can be measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.phantom.mistakes import MISTAKES, Bones
from zoo.phantom.spoils import COPIES, DAMAGES, copy_hand

FAULTS = "faults.json"
_ANNOTATIONS = {"train": "train/outputs_json", "test": "truth/outputs_json"}


@dataclass(frozen=True)
class Planted:
    """One fault that was planted.

    Attributes:
        key: of the image, as its path below the tree without suffix.
        kind: one of `converters.audit.findings.KINDS`.
        how: which of the faults of this kind.
        labels: the bones it is about.
        others: keys of further images that it is about, such as the original of a copy.
    """

    key: str
    kind: str
    how: str
    labels: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def plant_faults(data: Path, share: float, seed: int) -> list[Planted]:
    """Change a share of a phantom's training images for the worse, at most one fault an image.

    Faults of every sort come equally often. What was planted goes to `faults.json` in the tree.

    Args:
        data: a tree of `zoo.phantom.tree.write_phantom`.
        share: of the training images.
        seed: decides which images, which faults, and where.

    Returns:
        The faults, sorted by key.

    Raises:
        ValueError: a share out of 0 to 1, no images, or faults are there already.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected 0 to 1, found {share}")
    if (data / FAULTS).exists():
        raise ValueError(f"{data / FAULTS}: expected a sound phantom, found one with faults")
    keys = _keys(data, "train")
    if not keys:
        raise ValueError(f"{data}: expected a phantom with training images, found none")
    rng = np.random.default_rng(seed)
    order = [keys[i] for i in rng.permutation(len(keys))]
    count = round(share * len(keys))
    sound = [*order[count:], *_keys(data, "test")]
    sorts = [*MISTAKES, *DAMAGES, *(COPIES if sound else ())]
    turns = [sorts[i] for i in rng.permutation(len(sorts))]
    planted = [
        _plant(data, key, turns[i % len(turns)], sound, rng) for i, key in enumerate(order[:count])
    ]
    planted.sort(key=lambda fault: fault.key)
    record = json.dumps([asdict(fault) for fault in planted], indent=1)
    (data / FAULTS).write_text(record + "\n", encoding="utf-8")
    return planted


def load_faults(data: Path) -> list[Planted]:
    """Read what was planted into a tree.

    Raises:
        OSError: nothing was.
    """
    records = json.loads((data / FAULTS).read_text(encoding="utf-8"))
    return [
        Planted(**{**r, "labels": tuple(r["labels"]), "others": tuple(r["others"])})
        for r in records
    ]


def _keys(data: Path, subset: str) -> list[str]:
    found = (data / subset / "DCM").glob("*/*.png")
    return sorted(path.relative_to(data).with_suffix("").as_posix() for path in found)


def _image(data: Path, key: str) -> Path:
    return data / f"{key}.png"


def _annotation(data: Path, key: str) -> Path:
    subset, _, person, stem = key.split("/")
    return data / _ANNOTATIONS[subset] / person / f"{stem}.json"


def _plant(
    data: Path, key: str, sort: tuple[str, str], sound: list[str], rng: np.random.Generator
) -> Planted:
    kind, how = sort
    image, annotation = _image(data, key), _annotation(data, key)
    if sort in DAMAGES:
        DAMAGES[sort](image, annotation, rng)
        return Planted(key, kind, how)
    if sort in COPIES:
        source = _source(key, kind, sound, rng)
        copy_hand(
            (_image(data, source), _annotation(data, source)), (image, annotation), COPIES[sort]
        )
        return Planted(key, _copy_kind(key, source), how, others=(source,))
    return Planted(key, kind, how, _change(annotation, image, MISTAKES[sort], rng))


def _copy_kind(key: str, source: str) -> str:
    return "duplicate" if _person(key) == _person(source) else "patient"


def _person(key: str) -> str:
    return key.split("/")[2]


def _source(key: str, kind: str, sound: list[str], rng: np.random.Generator) -> str:
    """An original for a copy: for `duplicate` the same person's, where that hand is sound."""
    own = [other for other in sound if _person(other) == _person(key)]
    strangers = [other for other in sound if _person(other) != _person(key)]
    pool = own if (kind == "duplicate" and own) or not strangers else strangers
    return pool[int(rng.integers(len(pool)))]


def _change(
    annotation: Path,
    image: Path,
    mistake: Callable[[Bones, int, np.random.Generator], tuple[str, ...]],
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Make an annotator's mistake in a file; return the labels it is about."""
    document: dict[str, Any] = json.loads(annotation.read_text(encoding="utf-8"))
    bones = [(str(a["label"]), np.array(a["points"], np.float64)) for a in document["annotations"]]
    labels = mistake(bones, _side(image), rng)
    blank: Mapping[str, Any] = {"type": "poly_seg", "attributes": {}}
    document["annotations"] = [
        {"id": f"{number:024x}", **blank, "points": np.rint(points).astype(int).tolist()}
        | {"label": label}
        for number, (label, points) in enumerate(bones)
    ]
    annotation.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return labels


def _side(image: Path) -> int:
    """Width of a PNG, from its header."""
    with image.open("rb") as file:
        return int.from_bytes(file.read(24)[16:20], "big")
