"""Speed of scores, beside dense float32 in torch, MONAI and torchmetrics.

The same 29 masks of 2048 x 2048 on all sides, a prediction and the truth. The others want planes,
one a class, and get them ready made; ours has crops, and a row that starts from planes too. The
mean value of each side is printed.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import material
from benchmarks.sides import Work, serve, table, take_turns
from converters.masks import EMPTY, CropMask, crop
from converters.types import LabelSpace, Sample
from fusion.metrics.scores import dice

SIZE_HW = (material.SIDE, material.SIDE)
TOLERANCE_PX = 2.0
Pair = tuple[list[CropMask], list[CropMask]]


def run(
    images: Annotated[int, typer.Option(help="Hands.")] = 4,
    repetitions: Annotated[int, typer.Option(help="How often all sides run.")] = 5,
    distances: Annotated[bool, typer.Option(help="Also surface Dice and Hausdorff; slow.")] = True,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure Dice, surface Dice and the 95 % Hausdorff distance; print tables."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        data = material.hands(root, -(-images // 2))
        for title, sides in JOBS.items():
            if title != "dice" and not distances:
                continue
            job = {"title": title, "data": str(data), "images": images}
            rows = take_turns(__file__, {n: job | {"side": n} for n in sides}, repetitions)
            ours = [n for n in sides if n.startswith("ours")]
            print(f"\n{title}\n\n{table(rows, ours)}\n\nmean of the classes, lowest image:")
            print("\n".join(f"  {name}: {found[0].result}" for name, found in rows.items()))


# --- what the sides start from


def _pair(sample: Sample) -> Pair:
    real = material.truth(sample)
    seen = material.source("net512a", sample)
    names = LabelSpace.load(material.LABELS).names
    return [seen.binary(n) for n in names], [real.get(n, EMPTY) for n in names]


def _planes(sample: Sample, dtype: Any) -> tuple[Any, Any]:
    stacks = (np.stack([mask.full(SIZE_HW) for mask in side]) for side in _pair(sample))
    predicted, real = (stack.astype(dtype) for stack in stacks)
    return predicted, real


def _tensors(sample: Sample, dtype: str = "float32") -> tuple[Any, Any]:
    import torch

    predicted, real = _planes(sample, dtype)
    return torch.from_numpy(predicted)[None], torch.from_numpy(real)[None]


# --- what they do: one value a class


def _dice_ours(pair: Pair) -> list[float]:
    return [dice(a, b) for a, b in zip(*pair, strict=True)]


def _dice_ours_from_planes(planes: tuple[Any, Any]) -> list[float]:
    return [dice(crop(a), crop(b)) for a, b in zip(*planes, strict=True)]


def _dice_torch(tensors: tuple[Any, Any]) -> Any:
    predicted, real = tensors
    both = (predicted * real).sum((0, 2, 3))
    return 2 * both / (predicted.sum((0, 2, 3)) + real.sum((0, 2, 3)))


def _dice_monai(tensors: tuple[Any, Any]) -> Any:
    from monai.metrics import DiceMetric

    return DiceMetric(include_background=True, reduction="none")(*tensors)


def _dice_torchmetrics(tensors: tuple[Any, Any]) -> Any:
    from torchmetrics.segmentation import DiceScore

    metric = DiceScore(num_classes=tensors[0].shape[1], average="none", input_format="one-hot")
    return metric(*tensors)


def _surface_ours(pair: Pair) -> list[float]:
    from fusion.metrics.surface import surface_distances

    pairs = zip(*pair, strict=True)
    return [surface_distances(a, b).surface_dice(TOLERANCE_PX) for a, b in pairs]


def _surface_monai(tensors: tuple[Any, Any]) -> Any:
    from monai.metrics import compute_surface_dice

    thresholds = [TOLERANCE_PX] * tensors[0].shape[1]
    return compute_surface_dice(*tensors, thresholds, include_background=True)


def _hausdorff_ours(pair: Pair) -> list[float]:
    from fusion.metrics.surface import surface_distances

    return [surface_distances(a, b).hausdorff(95) for a, b in zip(*pair, strict=True)]


def _hausdorff_monai(tensors: tuple[Any, Any]) -> Any:
    from monai.metrics import compute_hausdorff_distance

    return compute_hausdorff_distance(*tensors, include_background=True, percentile=95)


def _judge(_image: Sample, values: Any) -> str:
    return f"{float(np.mean(np.asarray(values, np.float64))):.5f}"


def _side(prepare: Callable[[Any], Any], do: Callable[[Any], Any]) -> Work:
    return Work(prepare, do, _judge)


_whole = partial(_tensors, dtype="int64")
_bytes = partial(_planes, dtype="uint8")
JOBS: Mapping[str, dict[str, Work]] = {
    "dice": {
        "torch, dense float32": _side(_tensors, _dice_torch),
        "MONAI": _side(_tensors, _dice_monai),
        "torchmetrics": _side(_whole, _dice_torchmetrics),
        "ours, from planes": _side(_bytes, _dice_ours_from_planes),
        "ours": _side(_pair, _dice_ours),
    },
    "surface Dice, 2 px": {
        "MONAI": _side(_tensors, _surface_monai),
        "ours": _side(_pair, _surface_ours),
    },
    "Hausdorff distance, 95 %": {
        "MONAI": _side(_tensors, _hausdorff_monai),
        "ours": _side(_pair, _hausdorff_ours),
    },
}


def _main(job: dict[str, Any]) -> None:
    images = material.samples(Path(job["data"]), job["images"])
    serve(JOBS[job["title"]][job["side"]], images)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
