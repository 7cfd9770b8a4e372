"""Speed and memory of training samples, beside the usual pipeline of one float plane a class.

Both do the same to the same images: decode a grey PNG of 2048 x 2048, rasterise 29 classes,
bring both to 1024, flip, turn and bend them with albumentations, give tensors. The usual one draws
a plane a class with `cv2.fillPoly` into an (H, W, 29) array and lets albumentations carry it, as
what it calls a mask; it ends in float32 (29, h, w). Ours ends in bytes that a device takes apart;
a row adds that step, on the CPU, where it is slowest.

Every row of a repetition is a process of its own, one row after the other, so that whatever else a
machine does meets all of them. What is reported are the medians.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

SIDE, SIZE = 2048, (1024, 1024)
STEPS: list[dict[str, Any]] = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "Affine", "scale": [0.85, 1.15], "rotate": [-25, 25], "p": 0.8},
    {"name": "GridDistortion", "num_steps": 5, "distort_limit": [-0.2, 0.2], "p": 0.3},
    {"name": "RandomBrightnessContrast", "p": 0.5},
]
ELASTIC = {"name": "ElasticTransform", "alpha": 60, "sigma": 12, "p": 0.3}
KINDS = {
    "usual": "29 planes, uint8 until they are a tensor",
    "usual-float": "29 planes, float32 all the way",
    "none": "ours, no cache",
    "none-unpacked": "ours, no cache, unpacked to float32 on the CPU",
    "memory": "ours, cache: memory",
    "disk": "ours, cache: disk",
}


def run(
    people: Annotated[int, typer.Option(help="Phantom people; two images each.")] = 8,
    samples: Annotated[int, typer.Option(help="Samples that are timed in each row.")] = 48,
    repetitions: Annotated[int, typer.Option(help="How often all rows are measured.")] = 3,
    workers: Annotated[str, typer.Option(help="Numbers of worker processes, with commas.")] = "0,2",
    elastic: Annotated[bool, typer.Option(help="Add the dear elastic transform.")] = False,
    floats: Annotated[
        bool, typer.Option(help="Also the usual way with float32 from the start; slow.")
    ] = False,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure training samples a second, and memory; print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        data = _phantom(root, people)
        steps = [*STEPS, ELASTIC] if elastic else STEPS
        kinds = [kind for kind in KINDS if floats or kind != "usual-float"]
        cases = [(kind, int(count)) for count in workers.split(",") for kind in kinds]
        rows: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
        for number in range(repetitions):
            for kind, count in cases:
                seed = number + 1
                row = _measure(kind, count, samples, data, root / "cache", steps, seed)
                rows[kind, count].append(row)
                line = {"kind": kind, "workers": count, **row}
                print(json.dumps(line), file=sys.stderr, flush=True)
    print(_table(rows))


def _phantom(root: Path, people: int) -> Path:
    from zoo.phantom.config import PhantomConfig
    from zoo.phantom.tree import write_phantom

    out = root / f"hands{people}"
    if not out.is_dir():
        write_phantom(out, PhantomConfig(people, 0, SIDE), jobs=2)
    return out


def _measure(
    kind: str,
    workers: int,
    samples: int,
    data: Path,
    cache: Path,
    steps: Sequence[dict[str, Any]],
    seed: int,
) -> dict[str, float]:
    job = {"kind": kind, "workers": workers, "samples": samples, "seed": seed}
    job |= {"data": str(data), "cache": str(cache), "steps": list(steps)}
    command = [sys.executable, __file__, json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def _table(rows: dict[tuple[str, int], list[dict[str, float]]]) -> str:
    lines = [
        "| pipeline | workers | samples/s | times the usual | CPU ms a sample | times the usual "
        "| peak of all processes, MB | of that the samples |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (kind, workers), found in rows.items():
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        usual = rows["usual", workers]
        # In pairs that were measured after each other.
        pairs = list(zip(found, usual, strict=True))
        faster = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
        cheaper = statistics.median(b["cpu_ms"] / a["cpu_ms"] for a, b in pairs)
        lines.append(
            f"| {KINDS[kind]} | {workers} | {middle['rate']:.1f} | {faster:.1f} "
            f"| {middle['cpu_ms']:.0f} | {cheaper:.1f} "
            f"| {middle['peak_mb']:.0f} | {middle['peak_mb'] - middle['idle_mb']:.0f} |"
        )
    return "\n".join(lines)


# --- one row, in a process of its own


def _main(job: dict[str, Any]) -> None:
    """Time one pipeline; print a row."""
    import cv2
    import torch

    import converters
    from converters.types import LabelSpace

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    labels = LabelSpace.load("hand_bones")
    samples = converters.read(Path(job["data"]), labels=labels)
    loader = (_usual if job["kind"].startswith("usual") else _ours)(job, samples, labels)
    batches = iter(loader)
    idle_mb = _memory_mb()
    # Workers have started, and imports are done, when the first samples come.
    _take(batches, max(2, 2 * job["workers"]))
    start, spent = time.perf_counter(), _cpu_s()
    _take(batches, job["samples"])
    seconds, cpu = time.perf_counter() - start, _cpu_s() - spent
    # Looking at memory takes time of its own. A process alone knows its highest.
    peak_mb = max(_memory_mb() for _ in _next(batches, job["samples"] // 2))
    if not job["workers"]:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {
        "rate": job["samples"] / seconds,
        "cpu_ms": 1000 * cpu / job["samples"],
        "peak_mb": peak_mb,
        "idle_mb": idle_mb,
    }
    print(json.dumps(row), flush=True)


def _next(batches: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        yield next(batches)


def _take(batches: Iterator[Any], count: int) -> None:
    for _ in _next(batches, count):
        pass


def _processes() -> list[int]:
    """This process and its workers."""
    own = os.getpid()
    children = Path(f"/proc/self/task/{own}/children").read_text().split()
    return [own, *map(int, children)]


def _memory_mb() -> float:
    """Memory of this process and its workers; pages that they share count once (PSS)."""
    lines = [
        line
        for process in _processes()
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    ]
    return sum(int(line.split()[1]) for line in lines) / 1024


def _cpu_s() -> float:
    """Time that this process and its workers computed, in seconds."""
    ticks = 0
    for process in _processes():
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class _Forever:
    """(epoch, index) of shuffled samples, without an end."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed = length, seed

    def __iter__(self) -> Iterator[tuple[int, int]]:
        from zoo.data.training_set import EpochSampler

        sampler = EpochSampler(self._length, self._seed)
        epoch = 0
        while True:
            sampler.set_epoch(epoch)
            yield from sampler
            epoch += 1


def _load(dataset: Any, job: dict[str, Any], ready: Any = None) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    sampler: Any = _Forever(len(dataset.samples if ready is None else ready), job["seed"])
    loader = DataLoader(dataset, batch_size=1, sampler=sampler, num_workers=job["workers"])
    yield from loader


def _ours(job: dict[str, Any], samples: Any, labels: Any) -> Iterator[Any]:
    from zoo.augmentation.pipeline import Augmentation
    from zoo.data.batches import unpack_on_device
    from zoo.data.items import SampleItems
    from zoo.data.training_set import TrainingSet

    kind, unpacks = job["kind"].partition("-")[::2]
    data = TrainingSet(
        SampleItems(samples, labels),
        SIZE,
        Augmentation(job["steps"], labels),
        job["seed"],
        kind == "memory",
        cache_dir=Path(job["cache"]) if kind == "disk" else None,
    )
    for index in range(len(data) if kind == "disk" else 0):
        data[0, index]
    for image, mask in _load(data, job, data):
        yield (image, unpack_on_device(mask, len(labels))) if unpacks else (image, mask)


def _usual(job: dict[str, Any], samples: Any, labels: Any) -> Iterator[Any]:
    yield from _load(_Planes(job, samples, labels), job)


class _Planes:
    """The usual way, as the competition's baseline and most of its descendants have it."""

    def __init__(self, job: dict[str, Any], samples: Any, labels: Any) -> None:
        import numpy as np

        from zoo.augmentation.vendor import A

        made = [
            getattr(A, s["name"])(**{k: v for k, v in s.items() if k != "name"})
            for s in job["steps"]
        ]
        self.samples = samples
        self._names = labels.names
        self._compose = A.Compose([A.Resize(*SIZE), *made], seed=job["seed"])
        self._type = np.float32 if job["kind"] == "usual-float" else np.uint8

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: tuple[int, int]) -> tuple[Any, Any]:
        import cv2
        import numpy as np
        import torch

        sample = self.samples[place[1]]
        image = cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE)
        masks = np.zeros((*sample.size_hw, len(self._names)), self._type)
        for instance in sample.instances:
            plane = np.zeros(sample.size_hw, np.uint8)
            for part in getattr(instance.geometry, "geoms", [instance.geometry]):
                points = np.rint(np.asarray(part.exterior.coords)[:-1]).astype(np.int32)
                cv2.fillPoly(plane, [points], 1)
            masks[..., self._names.index(instance.label)] = plane
        out = self._compose(image=image, mask=masks)
        planes = torch.from_numpy(np.ascontiguousarray(out["mask"].transpose(2, 0, 1)))
        return torch.from_numpy(out["image"])[None].float() / 255, planes.float()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
