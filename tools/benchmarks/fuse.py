"""Speed and memory of fusing, beside averaging dense float32 planes in numpy and in torch.

Per image: all sides start from the same rasters of the sources in memory, five semantic and one
instance source, and end in 29 binary masks of 2048 x 2048. A dense side enlarges every class of
every source to a float32 plane, sums and cuts at one half; one more row has those planes ready and
times the sum alone. Then the whole command, `zoo fuse` as a process on stores of several numbers of
images and sources: time, and the peak of its memory.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import typer

from benchmarks import material
from benchmarks.sides import Work, serve, table, take_turns, watch
from converters.masks import CropMask, crop
from converters.types import LabelSpace
from fusion import Hybrid, Mean, Rule, Vote
from fusion.rules.file import load_rule
from fusion.types import Prediction, SoftMask

SIZE_HW = (material.SIDE, material.SIDE)
DENSE = ("numpy, dense float32", "torch, dense float32", "numpy, planes ready")
OURS = ("mean", "vote", "hybrid", "hybrid, fitted")
ZOO = [sys.executable, "-m", "zoo"]
Floats = npt.NDArray[np.float32]
Seen = tuple[Prediction, ...]


def run(
    images: Annotated[int, typer.Option(help="Hands; at least three.")] = 4,
    repetitions: Annotated[int, typer.Option(help="How often all sides run.")] = 3,
    counts: Annotated[str, typer.Option(help="Images of the whole command.")] = "1,10,100,288",
    sources: Annotated[str, typer.Option(help="Sources of the whole command.")] = "1,2,4,6,8",
    methods: Annotated[str, typer.Option(help="Rules of the whole command.")] = "mean,hybrid",
    out: Annotated[Path | None, typer.Option(help="Folder for the picture and the rows.")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure fusing an image, then the whole command; print tables."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        # The fit cross-validates by patient: one is not enough.
        data = material.hands(root, max(2, -(-images // 2)))
        paths = material.stores(root, data, images, images)
        config = _fit(paths[: len(material.BUDGETED)], data, root / "fusion.yaml")
        job = {"stores": [str(p) for p in paths[: len(material.BUDGETED)]], "config": str(config)}
        if repetitions:
            rows = take_turns(__file__, {n: job | {"side": n} for n in SIDES}, repetitions)
            print(f"\nfusing an image\n\n{table(rows, OURS)}\n\nDice with our mean:")
            print("\n".join(f"  {name}: {found[0].result}" for name, found in rows.items()))
        curve = [
            _command(material.stores(root, data, images, count)[:number], method, root / "out.csv")
            for method in methods.split(",")
            for count in map(int, counts.split(","))
            for number in map(int, sources.split(","))
        ]
        print(f"\nthe whole command\n\n{_curve_table(curve)}")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "fuse.json").write_text(json.dumps([r.__dict__ for r in curve], indent=1))
            _draw(curve, out / "fuse.png")


def _fit(paths: Sequence[Path], data: Path, out: Path) -> Path:
    if not out.is_file():
        command = [*ZOO, "fit", *map(str, paths), "--data", str(data), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return out


# --- an image, dense


@dataclass(frozen=True)
class Dense:
    """One source as a dense pipeline has it: each class's raster, and its box for a detection.

    Attributes:
        classes: label -> float32 (rows, cols), 0..1, and x, y, w, h in whole pixels.
    """

    classes: dict[str, tuple[Floats, tuple[int, int, int, int]]]


def _dense(prediction: Prediction) -> Dense:
    if prediction.kind == "semantic":
        side = material.output_side(prediction)
        rasters = material.raster(prediction, side)
        whole = 0, 0, SIZE_HW[1], SIZE_HW[0]
        return Dense({n: (r.astype(np.float32) / 255, whole) for n, r in rasters.items()})
    return Dense({n: _detection(found[0][1]) for n, found in prediction.masks.items()})


def _detection(mask: SoftMask) -> tuple[Floats, tuple[int, int, int, int]]:
    x, y, width, height = mask.box_xywh
    x0, y0, x1, y1 = (round(edge) for edge in (x, y, x + width, y + height))
    return mask.prob.astype(np.float32) / 255, (x0, y0, x1 - x0, y1 - y0)


def _sources(seen: Seen) -> list[Dense]:
    return [_dense(prediction) for prediction in seen]


def _sum_numpy(sources: list[Dense]) -> npt.NDArray[np.bool_]:
    names = LabelSpace.load(material.LABELS).names
    total = np.zeros((len(names), *SIZE_HW), np.float32)
    for source in sources:
        for c, name in enumerate(names):
            if name in source.classes:
                cells, (x, y, width, height) = source.classes[name]
                big = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
                total[c, y : y + height, x : x + width] += big
    total /= len(sources)
    return total > 0.5


def _sum_torch(sources: list[Dense]) -> npt.NDArray[np.bool_]:
    import torch
    from torch.nn.functional import interpolate

    names = LabelSpace.load(material.LABELS).names
    total = torch.zeros((len(names), *SIZE_HW))
    for source in sources:
        for c, name in enumerate(names):
            if name in source.classes:
                cells, (x, y, width, height) = source.classes[name]
                small = torch.from_numpy(cells)[None, None]
                big = interpolate(small, (height, width), mode="bilinear", align_corners=False)
                total[c, y : y + height, x : x + width] += big[0, 0]
    total /= len(sources)
    return (total > 0.5).numpy()


def _sum_ready(sources: list[Dense]) -> npt.NDArray[np.bool_]:
    """The sum alone: what a class's planes hold does not matter to its time."""
    planes = [np.full(SIZE_HW, 1 / len(sources), np.float32) for _ in sources]
    out = np.zeros((len(LabelSpace.load(material.LABELS).names), *SIZE_HW), np.bool_)
    for c in range(len(out)):
        total = np.zeros(SIZE_HW, np.float32)
        for plane in planes:
            total += plane
        total /= len(planes)
        np.greater(total, 0.5, out=out[c])
    return out


# --- an image, ours


def _rule(name: str, config: str) -> Rule:
    if name == "hybrid, fitted":
        return load_rule(None, Path(config))
    rules: dict[str, Rule] = {"mean": Mean(), "vote": Vote(), "hybrid": Hybrid()}
    return rules[name]


def _fuse(rule: Rule, seen: Seen) -> dict[str, CropMask]:
    labels = LabelSpace.load(material.LABELS)
    fused = rule(seen, labels)
    return {label: fused.binary(label) for label in labels.names}


def _as_is(seen: Seen) -> Seen:
    return seen


def _judge_planes(seen: Seen, found: npt.NDArray[np.bool_]) -> str:
    names = LabelSpace.load(material.LABELS).names
    masks = {n: crop(plane) for n, plane in zip(names, found, strict=True)}
    return f"{material.agreement(_fuse(Mean(), seen), masks):.5f}"


def _judge_masks(seen: Seen, found: dict[str, CropMask]) -> str:
    return f"{material.agreement(_fuse(Mean(), seen), found):.5f}"


SIDES = (*DENSE, *OURS)


def _work(side: str, config: str) -> Work:
    if side in OURS:
        rule = _rule(side, config)
        return Work(_as_is, lambda seen: _fuse(rule, seen), _judge_masks)
    do = dict(zip(DENSE, (_sum_numpy, _sum_torch, _sum_ready), strict=True))[side]
    return Work(_sources, do, _judge_planes if side != DENSE[2] else lambda _seen, _found: "-")


# --- the whole command


@dataclass(frozen=True)
class Command:
    """One run of `zoo fuse`, its start included."""

    method: str
    images: int
    sources: int
    seconds: float
    core_seconds: float
    peak_mb: float


def _command(paths: Sequence[Path], method: str, out: Path) -> Command:
    images = json.loads((paths[0] / "manifest.json").read_text())["images"]
    command = [*ZOO, "fuse", *map(str, paths), "--method", method, "--out", str(out)]
    row = Command(method, len(images), len(paths), **watch(command))
    print(json.dumps(row.__dict__), file=sys.stderr, flush=True)
    return row


def _curve_table(rows: Sequence[Command]) -> str:
    lines = [
        "| method | images | sources | s | ms an image | peak, MB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.method} | {r.images} | {r.sources} | {r.seconds:.1f} "
        f"| {1000 * r.seconds / r.images:.0f} | {r.peak_mb:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def _draw(rows: Sequence[Command], out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for method in dict.fromkeys(r.method for r in rows):
        for number in sorted({r.sources for r in rows}):
            line = [r for r in rows if (r.method, r.sources) == (method, number)]
            counts = [r.images for r in line]
            style: dict[str, Any] = {"marker": "o", "label": f"{method}, {number} sources"}
            left.plot(counts, [r.seconds for r in line], **style)
            right.plot(counts, [r.peak_mb for r in line], **style)
    left.set(xscale="log", yscale="log", xlabel="images", ylabel="time of the command, s")
    right.set(xscale="log", ylim=(0, None), xlabel="images", ylabel="peak memory, MB")
    right.legend(fontsize="x-small", ncols=2)
    figure.savefig(out, dpi=150)
    plt.close(figure)


def _main(job: dict[str, Any]) -> None:
    serve(_work(job["side"], job["config"]), material.predictions(job["stores"]))


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
