"""Ultralytics' segmentation labels: one text line `class x1 y1 x2 y2 ...` for each object.

    OUT/data.yaml                       names, train, val; no `path`: the folder can be moved
    OUT/images/{train,val}/NAME.png     hard links where possible
    OUT/labels/{train,val}/NAME.txt
    OUT/images.json                     NAME -> key, size, group

A line is one ring of points. It follows the object's pixels in straight and diagonal steps, and not
the annotator's longer edges: Ultralytics spreads a thousand points over every ring and truncates
them, which widens slanted edges (mean Dice .994 at 512 x 512 pixels, .998 at 2048) and leaves such
steps as they are (.9999 and above).

Holes and parts are joined into one ring by bridges of no width, walked there and back. A hole costs
no pixel, because its bridge runs inside the object; parts cost the pixels of the bridge between
them.

Coordinates are (x + 0.5) / width: Ultralytics multiplies by the width and truncates, and so finds
the pixel again; at other sizes the point stays at the pixel's centre.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
import yaml
from scipy.spatial import cKDTree
from shapely.geometry import MultiPolygon, Polygon

from converters.loss import ConversionLoss, lossless, measure
from converters.errors import DataError
from converters.files import atomic_write_text, link_or_copy
from converters.images import is_image, read_size_hw
from converters.masks import outline, rasterize, rasterize_labels
from converters.splits import Split, data_set_folder, held_out_keys
from converters.types import Instance, LabelSpace, Sample

LOSES: frozenset[str] = frozenset({"parts", "subpixels"})

Ring = npt.NDArray[np.int32]
"""Points (N, 2) on whole pixels: x, y. Closed: the last one is followed by the first."""


def matches(root: Path) -> bool:
    """Tell whether a folder is an Ultralytics data set."""
    return (root / "data.yaml").is_file()


# --- writing


def write(
    samples: Sequence[Sample],
    out: Path,
    labels: LabelSpace,
    *,
    split: Split | None = None,
    fold: int = 0,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionLoss:
    """Write samples as an Ultralytics data set.

    Args:
        samples: what to write.
        out: the result's folder; a previous result of this format is replaced.
        labels: the classes, in the order of their numbers.
        split: decides what goes to `val`; without it all goes to `train`, and `val` in `data.yaml`
            names the same images, because Ultralytics wants one.
        fold: the fold of the split that is held out.
        provenance: command, config and seed for `provenance.json`.
        progress: called with (done, total).

    Returns:
        What the labels could not hold.

    Raises:
        ValueError: an unknown label, a split of other images, or `out` is not ours to replace.
    """
    held_out = held_out_keys(samples, split, fold)
    loss = ConversionLoss()
    index: dict[str, dict[str, Any]] = {}
    with data_set_folder(out, "yolo", provenance, split, fold) as folder:
        for subset in ("train", "val") if split else ("train",):
            for kind in ("images", "labels"):
                (folder / kind / subset).mkdir(parents=True)
        for done, (name, sample) in enumerate(zip(file_names(samples), samples, strict=True)):
            subset = "val" if sample.key in held_out else "train"
            image = folder / "images" / subset / f"{name}{sample.image.suffix}"
            link_or_copy(sample.image, image)
            text, lost = label_text(sample, labels)
            (folder / "labels" / subset / f"{name}.txt").write_text(text, encoding="ascii")
            loss += lost
            index[name] = {"key": sample.key, "size_hw": sample.size_hw, "group": sample.group}
            if progress:
                progress(done + 1, len(samples))
        atomic_write_text(folder / "images.json", json.dumps(index, indent=1, ensure_ascii=False))
        atomic_write_text(folder / "data.yaml", _data_yaml(labels, bool(split)))
    return loss


def file_names(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield a file stem for each sample: the image's, with a number added where it is taken."""
    taken: set[str] = set()
    for sample in samples:
        stem = name = sample.image.stem
        number = 1
        # Some file systems do not tell a.png from A.png.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        yield name


def _data_yaml(labels: LabelSpace, has_val: bool) -> str:
    record = {
        "train": "images/train",
        "val": "images/val" if has_val else "images/train",
        "names": dict(enumerate(labels.names)),
    }
    return yaml.safe_dump(record, sort_keys=False, allow_unicode=True)


def label_text(sample: Sample, labels: LabelSpace) -> tuple[str, ConversionLoss]:
    """Return a sample's label file, one line an instance, and what it could not hold.

    An instance without a pixel in the image has no line.

    Raises:
        ValueError: a label that the label space does not have.
    """
    lines: list[str] = []
    written: list[Instance] = []
    bridged = False
    for instance in sample.instances:
        if instance.label not in labels.index:
            raise ValueError(
                f"{sample.key}: expected a label of '{labels.name}', found '{instance.label}'"
            )
        mask = rasterize(instance.geometry, sample.size_hw)
        if not mask.area:
            continue
        geometry = outline(mask)
        bridged |= not isinstance(geometry, Polygon)
        ring = joined_ring(geometry)
        lines.append(_line(labels.index[instance.label], ring, sample.size_hw))
        written.append(Instance(instance.label, Polygon(ring)))
    text = "".join(line + "\n" for line in lines)
    if not bridged:
        return text, lossless(sample)
    return text, measure(sample, rasterize_labels(written, sample.size_hw))


def _line(label: int, ring: Ring, size_hw: tuple[int, int]) -> str:
    words = [str(label)] * (2 * len(ring) + 1)
    for axis, size in enumerate((size_hw[1], size_hw[0])):
        values = _values(size)
        words[1 + axis :: 2] = [values[i] for i in ring[:, axis].tolist()]
    return " ".join(words)


@lru_cache(maxsize=8)
def _values(size: int) -> tuple[str, ...]:
    """What is written for each pixel of a side. Six digits tell a million pixels apart."""
    return tuple(f"{(i + 0.5) / size:.6f}" for i in range(size))


# --- one ring for an object with holes and parts


def joined_ring(geometry: Polygon | MultiPolygon) -> Ring:
    """Return one ring whose even-odd filling has the geometry's pixels and those of bridges.

    Holes are reached by bridges inside the object, which cost nothing; parts by the shortest
    bridges there are.

    Args:
        geometry: as `converters.masks.outline` makes it: straight and diagonal steps, parts that
            do not touch.
    """
    if isinstance(geometry, Polygon) and not geometry.interiors:
        return _points(geometry.exterior)
    parts = [geometry] if isinstance(geometry, Polygon) else list(geometry.geoms)
    ring = _join_parts([_with_holes(part) for part in parts])
    return np.vstack([ring, np.repeat(ring[-1:], max(0, 3 - len(ring)), axis=0)])


def _with_holes(part: Polygon) -> Ring:
    path = _every_pixel(part.exterior)
    holes = [_every_pixel(ring) for ring in part.interiors]
    # Straight to the left of a hole's leftmost pixel lies the shell, or a hole that reaches
    # further left: in this order it is part of the path already.
    for hole in sorted(holes, key=lambda ring: int(ring[:, 0].min())):
        start = int(hole[:, 0].argmin())
        x, y = hole[start]
        left = np.flatnonzero((path[:, 1] == y) & (path[:, 0] <= x))
        path = _attach(path, int(left[path[left, 0].argmax()]), hole, start)
    return path


def _nearest(path: Ring, point: tuple[int, int]) -> int:
    return int(np.abs(path - np.array(point)).sum(axis=1).argmin())


def _join_parts(paths: list[Ring]) -> Ring:
    """Join rings along a minimum spanning tree of their distances (Prim), in whole pixels."""
    joined, *others = sorted(paths, key=len, reverse=True)
    tree = cKDTree(joined)
    # Of each other ring: its distance to what is joined, and the two points that are so near.
    links = [_link(tree, joined, ring) for ring in others]
    while others:
        i = min(range(len(others)), key=lambda k: links[k][0])
        ring, (_, point, start) = others.pop(i), links.pop(i)
        joined = _attach(joined, _nearest(joined, point), ring, start)
        tree = cKDTree(ring)
        links = [min(link, _link(tree, ring, o)) for link, o in zip(links, others, strict=True)]
    return _corners(joined)


def _link(tree: cKDTree, points: Ring, ring: Ring) -> tuple[float, tuple[int, int], int]:
    distances, nearest = tree.query(ring, p=np.inf)
    i = int(distances.argmin())
    x, y = points[nearest[i]].tolist()
    return float(distances[i]), (x, y), i


def _attach(path: Ring, at: int, ring: Ring, start: int) -> Ring:
    """Walk `path` to `at`, over a bridge, around `ring` from `start`, and back."""
    step = ring[start] - path[at]
    # A diagonal, then a straight piece: no rounding decides which pixels the bridge covers.
    knee = path[at] + np.sign(step) * np.abs(step).min()
    around = [knee[None], ring[start:], ring[: start + 1], knee[None]]
    return np.vstack([path[: at + 1], *around, path[at:]])


def _points(ring: shapely.LinearRing) -> Ring:
    points: Ring = np.asarray(ring.coords)[:-1].astype(np.int32)
    return points


def _every_pixel(ring: shapely.LinearRing) -> Ring:
    """Points on all pixels of a ring whose edges are straight or diagonal."""
    points = _points(ring)
    steps = np.roll(points, -1, axis=0) - points
    counts = np.abs(steps).max(axis=1)
    if not counts.any():
        return points[:1]
    edge = np.repeat(np.arange(len(points)), counts)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    units = steps // np.maximum(counts, 1)[:, None]
    return (points[edge] + units[edge] * along[:, None]).astype(np.int32)


def _corners(path: Ring) -> Ring:
    """Drop points that stand still or go straight on."""
    moves: npt.NDArray[np.bool_] = (path != np.roll(path, 1, axis=0)).any(axis=1)
    if not moves.any():
        return path[:1]
    path = path[moves]
    before = np.sign(path - np.roll(path, 1, axis=0))
    after = np.sign(np.roll(path, -1, axis=0) - path)
    turns: npt.NDArray[np.bool_] = (before != after).any(axis=1)
    return path[turns]


# --- reading


def read(root: Path, *, subset: str, labels: LabelSpace) -> list[Sample]:
    """Read an Ultralytics segmentation data set.

    Args:
        root: folder with `data.yaml`.
        subset: `train` (all that is annotated: Ultralytics' train and val), `test` or `all`.
        labels: the classes; their names must be those of `data.yaml`, in this order.

    Returns:
        Samples; keys and groups are those of `images.json`, else the images' paths.

    Raises:
        DataError: label files that are broken, all in one error.
        ValueError: `data.yaml` is not one, or has other classes.
    """
    index = _read_index(root)
    problems: list[str] = []
    samples: list[Sample] = []
    for image in _images(root, subset, labels):
        place = image.relative_to(root)
        text = _label_file(image)
        known = index.get(image.stem, {"key": place.with_suffix("").as_posix()})
        try:
            size_hw = read_size_hw(image)
            lines = text.read_text(encoding="utf-8-sig").splitlines() if text.is_file() else []
            instances = tuple(_instance(line, size_hw, labels) for line in lines if line.strip())
        except (OSError, ValueError) as error:
            problems.append(f"{place.as_posix()}: {error}")
            continue
        samples.append(Sample(known["key"], image, size_hw, instances, known.get("group", "")))
    if problems:
        raise DataError(root, problems)
    return samples


def _read_index(root: Path) -> dict[str, dict[str, Any]]:
    path = root / "images.json"
    if not path.is_file():
        return {}
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {"key": str(entry["key"]), **entry} for name, entry in index.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected names with their keys, found: {error!r}") from None


def _images(root: Path, subset: str, labels: LabelSpace) -> list[Path]:
    path = root / "data.yaml"
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = record["names"]
        names = [names[i] for i in range(len(names))]
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected Ultralytics' data.yaml, found: {error!r}") from None
    if tuple(names) != labels.names:
        raise ValueError(f"{path}: expected the classes of '{labels.name}', found {names!r:.80}")
    kinds = {"train": ("train", "val"), "test": ("test",), "all": ("train", "val", "test")}
    folders = dict.fromkeys(record[kind] for kind in kinds[subset] if record.get(kind))
    for folder in folders:
        if not isinstance(folder, str) or not (root / folder).is_dir():
            raise ValueError(f"{path}: expected folders of images below it, found {folder!r:.80}")
    files = (path for folder in folders for path in sorted((root / folder).rglob("*")))
    return [path for path in files if is_image(path)]


def _label_file(image: Path) -> Path:
    """Ultralytics' rule: the last folder `images` becomes `labels`."""
    *folders, name = image.parts
    last = len(folders) - 1 - folders[::-1].index("images") if "images" in folders else -1
    swapped = ["labels" if i == last else folder for i, folder in enumerate(folders)]
    return Path(*swapped, name).with_suffix(".txt")


def _instance(line: str, size_hw: tuple[int, int], labels: LabelSpace) -> Instance:
    fields = line.split()
    try:
        label, values = int(fields[0]), np.array(fields[1:], dtype=np.float64)
    except ValueError:
        raise ValueError(f"expected a class and coordinates, found '{line:.40}'") from None
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"expected at least 3 points x y, found {len(values)} numbers")
    if not 0 <= label < len(labels):
        raise ValueError(f"expected classes 0 to {len(labels) - 1}, found {label}")
    points = values.reshape(-1, 2) * (size_hw[1], size_hw[0]) - 0.5
    return Instance(labels.names[label], Polygon(points))
