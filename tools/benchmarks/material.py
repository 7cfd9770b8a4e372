"""What the benchmarks of masks work on: phantom hands, and what networks would say of them.

Truth comes from `zoo phantom` at 2048 x 2048, 29 bones. A semantic source is the true mask of each
bone at a network's resolution, blurred and a little out of place; an instance source is a raster
over the bone's box, a cell four pixels wide, as a detector's prototypes give it. Stores hold them,
so that every process of a benchmark reads the same bytes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from converters import read
from converters.masks import CropMask, rasterize_labels
from converters.types import LabelSpace, Sample
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Evidence, Prediction, SoftMask, soft_mask

SIDE = 2048
LABELS = "hand_bones"
# Side of each network's output; 0 is the detector. The first six are what the budget speaks of.
SOURCES = {
    "net512a": 512,
    "net512b": 512,
    "net1024a": 1024,
    "net1024b": 1024,
    "net1024c": 1024,
    "boxes": 0,
    "net512c": 512,
    "net1024d": 1024,
}
BUDGETED = tuple(SOURCES)[:6]
SHIFT_PX, BLUR_CELLS, CELL_PX = 1.5, 1.0, 4
Bytes = npt.NDArray[np.uint8]


def hands(root: Path, people: int, side: int = SIDE) -> Path:
    """Draw phantom hands, two a person, unless they are there; return the data set's folder."""
    from zoo.phantom.config import PhantomConfig
    from zoo.phantom.tree import write_phantom

    out = root / (f"hands{people}" if side == SIDE else f"hands{people}of{side}")
    if not out.is_dir():
        write_phantom(out, PhantomConfig(people, 0, side), jobs=2)
    return out


def samples(data: Path, count: int) -> list[Sample]:
    """Return the first hands of a data set."""
    return read(data, labels=LabelSpace.load(LABELS))[:count]


def truth(sample: Sample) -> dict[str, CropMask]:
    """Return a hand's true masks."""
    return rasterize_labels(sample.instances, sample.size_hw)


def source(name: str, sample: Sample) -> Prediction:
    """Return what one of `SOURCES` says of a hand; the same every time."""
    place = list(SOURCES).index(name)
    rng = np.random.default_rng([place, *sample.key.encode()])
    see = _detect if not SOURCES[name] else _segment
    masks: dict[str, tuple[Evidence, ...]] = {}
    for label, mask in truth(sample).items():
        found = see(mask, sample.size_hw, SOURCES[name], rng)
        if found is not None:
            masks[label] = (found,)
    kind = "semantic" if SOURCES[name] else "instance"
    return Prediction(sample.key, sample.size_hw, kind, masks)  # type: ignore[arg-type]


def _moved(mask: CropMask, size_hw: tuple[int, int], rng: np.random.Generator) -> Bytes:
    right, down = rng.normal(0, SHIFT_PX, 2)
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    plane = mask.full(size_hw) * np.uint8(255)
    return cv2.warpAffine(plane, matrix, size_hw[::-1], borderMode=cv2.BORDER_REPLICATE)


def _segment(
    mask: CropMask, size_hw: tuple[int, int], side: int, rng: np.random.Generator
) -> Evidence | None:
    cells = cv2.resize(_moved(mask, size_hw, rng), (side, side), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(cells, (0, 0), BLUR_CELLS)
    cut = soft_mask(soft, (0.0, 0.0, float(size_hw[1]), float(size_hw[0])))
    return cut and (float(soft.max()) / 255, cut)


def _detect(
    mask: CropMask, size_hw: tuple[int, int], _side: int, rng: np.random.Generator
) -> Evidence | None:
    x, y, width, height = mask.box_xywh
    reach = rng.uniform(0.01, 0.04, 4) * (width, height, width, height)
    # On whole pixels, as `zoo predict` leaves a YOLO's detections.
    left, top = max(0, math.ceil(x - reach[0])), max(0, math.ceil(y - reach[1]))
    right = min(size_hw[1], math.ceil(x + width + reach[2]))
    bottom = min(size_hw[0], math.ceil(y + height + reach[3]))
    rows, cols = max(2, round((bottom - top) / CELL_PX)), max(2, round((right - left) / CELL_PX))
    plane = _moved(mask, size_hw, rng)[top:bottom, left:right]
    cells = cv2.resize(plane, (cols, rows), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(cells, (0, 0), BLUR_CELLS)
    box = float(left), float(top), float(right - left), float(bottom - top)
    return float(rng.uniform(0.6, 0.98)), SoftMask(box, soft)


def stores(
    root: Path, data: Path, drawn: int, images: int, names: Iterable[str] = tuple(SOURCES)
) -> list[Path]:
    """Write a store of each of some `SOURCES`, unless it is there; return their folders.

    Args:
        root: where the stores' folder goes.
        data: the phantom hands.
        drawn: so many hands are seen by the sources.
        images: so many images a store has; each hand stands for several, under other keys. Equal
            to `drawn`, the keys are those of the data set.
        names: of the sources.
    """
    folder, first = (root / f"stores{drawn}x{count}" for count in (images, drawn))
    wanted = list(names)
    seen = [] if all((first / name).is_dir() for name in wanted) else samples(data, drawn)
    for name in wanted:
        first.mkdir(parents=True, exist_ok=True)
        if not (first / name).is_dir():
            _write(first / name, [source(name, sample) for sample in seen], drawn)
        if not (folder / name).is_dir():
            folder.mkdir(exist_ok=True)
            _write(folder / name, list(PredictionStore(first / name)), images)
    return [folder / name for name in wanted]


def _write(out: Path, seen: list[Prediction], images: int) -> None:
    drawn = {p.key: p for p in seen}
    named = drawn if images == len(seen) else dict(_repeated(seen, images))
    listed = {key: (*p.size_hw, f"{key.replace('/', '-')}.png") for key, p in named.items()}
    names = LabelSpace.load(LABELS).names
    manifest = Manifest(seen[0].kind, LABELS, names, listed, split="phantom", subset="val")
    with StoreWriter(out, manifest) as writer:
        for key, prediction in named.items():
            writer.append(Prediction(key, prediction.size_hw, prediction.kind, prediction.masks))


def _repeated(seen: list[Prediction], images: int) -> Iterator[tuple[str, Prediction]]:
    for number in range(images):
        yield f"train/DCM/ID{number // 2 + 1:03d}/image{number:013d}", seen[number % len(seen)]


def predictions(paths: list[str]) -> list[tuple[Prediction, ...]]:
    """Return every image's predictions, one a store."""
    return list(zip(*(PredictionStore(Path(path)) for path in paths), strict=True))


def raster(prediction: Prediction, side: int) -> dict[str, Bytes]:
    """Return a semantic source's classes as the network gives them, uint8 (side, side)."""
    return {label: _whole(found[0][1], side) for label, found in prediction.masks.items()}


def _whole(mask: SoftMask, side: int) -> Bytes:
    plane = np.zeros((side, side), np.uint8)
    x, y = (round(edge * side / SIDE) for edge in mask.box_xywh[:2])
    rows, cols = mask.prob.shape
    plane[y : y + rows, x : x + cols] = mask.prob
    return plane


def output_side(prediction: Prediction) -> int:
    """Return the side of the network's output that a semantic prediction was cut from."""
    mask = next(iter(prediction.masks.values()))[0][1]
    return round(SIDE * mask.prob.shape[1] / mask.box_xywh[2])


def agreement(ours: Mapping[str, CropMask], theirs: Mapping[str, CropMask]) -> float:
    """Return the mean Dice of two sides' masks over the classes of either."""
    from fusion.metrics.scores import dice

    labels = [*ours, *(label for label in theirs if label not in ours)]
    empty = CropMask(0, 0, np.zeros((0, 0), np.uint8))
    return float(np.mean([dice(ours.get(n, empty), theirs.get(n, empty)) for n in labels]))
