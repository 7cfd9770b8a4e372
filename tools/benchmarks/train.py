"""Training throughput of `zoo`, beside the plainest loop that learns from the same batches.

For semantic networks the other side is a loop of ten lines: the same network, loss, optimizer and
batches, which lie ready in memory as float tensors; no schedule, no record, no checkpoint. For
YOLO it is Ultralytics' own trainer with the same settings. Both sides run in turns in one process.
Measured is from the end of the first step to the end of the last one, several epochs between them,
so that what happens between epochs counts. CPU time is what a busy machine disturbs least.
"""

import contextlib
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import typer

NETWORKS: dict[str, dict[str, Any]] = {
    "smp": {"encoder": "resnet18"},
    "segformer": {"network": {}},
}
YOLO = {"model": "yolo11n-seg.yaml", "workers": 0, "cache": True, "mask_ratio": 2}
Marks = list[tuple[float, float]]
Side = Callable[[Path], Marks]


def run(
    families: Annotated[str, typer.Option(help="Any of smp, segformer, yolo.")] = "smp,segformer",
    size: Annotated[int, typer.Option(help="Side of the input in pixels.")] = 128,
    people: Annotated[int, typer.Option(help="Phantom people; two images each.")] = 8,
    batch: Annotated[int, typer.Option(help="Images in a step.")] = 4,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 3,
    repetitions: Annotated[int, typer.Option(help="How often each side runs.")] = 5,
) -> None:
    """Measure images a second of both sides, and print their ratio with its spread."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        job = _job(root, people)
        for family in families.split(","):
            sides = (_yolo if family == "yolo" else _semantic)(family, job, size, batch, epochs)
            marks: dict[str, list[Marks]] = {name: [] for name in sides}
            for number in range(repetitions + 1):
                for name, side in sides.items():
                    out = root / f"{family}-{name}-{number}"
                    out.mkdir()
                    found = side(out)
                    # The first turn warms caches and is thrown away.
                    if number:
                        marks[name].append(found)
            typer.echo("\n".join(_report(family, marks, batch)))


def _report(family: str, marks: dict[str, list[Marks]], batch: int) -> Iterator[str]:
    rates = {name: [_rates(m, batch) for m in found] for name, found in marks.items()}
    for kind, label in enumerate(("wall", "CPU")):
        per_side = {name: [rate[kind] for rate in found] for name, found in rates.items()}
        ours, plain = per_side["zoo"], per_side["plain"]
        ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
        yield (
            f"{family:10} {label:4} time: zoo {statistics.median(ours):6.2f} images/s, plain "
            f"{statistics.median(plain):6.2f}, ratio {statistics.median(ratios):.3f} "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


def _rates(marks: Marks, batch: int) -> tuple[float, float]:
    """Images a second of wall time and of CPU time."""
    images = batch * (len(marks) - 1)
    wall, cpu = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    return images / wall, images / cpu


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _marker(marks: Marks) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if total > 1 and "epoch" in note:
            marks.append(_now())

    return progress


def _job(root: Path, people: int) -> Any:
    from converters.types import LabelSpace
    from zoo.contract import TrainJob
    from zoo.phantom.config import PhantomConfig
    from zoo.phantom.tree import write_phantom
    from zoo.source import DataSource

    write_phantom(root / "data", PhantomConfig(people=people, test_people=0, size=256))
    labels = LabelSpace.load("hand_bones")
    samples = DataSource.open(root / "data").read(labels)
    (root / "job").mkdir()
    return TrainJob(root / "job", labels, samples, (), root / "data", "handbone")


def _config(family: Any, size: int, batch: int, epochs: int, network: dict[str, Any]) -> Any:
    from zoo.config import check_config

    raw = {
        "size": [size, size],
        "epochs": epochs,
        "batch": batch,
        "validate_every": epochs,
        "checkpoint_every": epochs,
        "device": "cpu",
    }
    return check_config(family.Config, raw | network, "bench")


def _semantic(name: str, job: Any, size: int, batch: int, epochs: int) -> dict[str, Side]:
    from dataclasses import replace

    from zoo.families import load_family

    family = load_family(name)
    config = _config(family, size, batch, epochs, NETWORKS[name])
    batches = _ready(config, job)
    total = epochs * (len(job.train) // batch)

    def ours(out: Path) -> Marks:
        marks: Marks = []
        family.train(config, replace(job, out=out, progress=_marker(marks)))
        return marks

    def plain(out: Path) -> Marks:
        return _plain_loop(family, config, job, islice(cycle(batches), total))

    return {"zoo": ours, "plain": plain}


def _ready(config: Any, job: Any) -> list[tuple[Any, Any]]:
    """Return an epoch's batches as a network and a loss take them."""
    from zoo.augmentation.pipeline import Augmentation
    from zoo.data.batches import normalize, unpack_on_device
    from zoo.data.items import SampleItems
    from zoo.data.training_set import EpochSampler, TrainingSet, training_loader

    items = SampleItems(job.train, job.labels)
    data = TrainingSet(items, config.size, Augmentation((), job.labels), config.seed)
    loader = training_loader(data, EpochSampler(len(data), 0), config.batch, 0, False)
    return [(normalize(image), unpack_on_device(mask, len(job.labels))) for image, mask in loader]


def _plain_loop(family: Any, config: Any, job: Any, batches: Iterator[tuple[Any, Any]]) -> Marks:
    import torch

    torch.manual_seed(0)
    network = family.build(config, len(job.labels)).train()
    objective = config.objective(job.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.optim.lr)
    marks: Marks = []
    for images, target in batches:
        optimizer.zero_grad()
        objective(network(images), target).backward()
        optimizer.step()
        marks.append(_now())
    return marks


def _yolo(name: str, job: Any, size: int, batch: int, epochs: int) -> dict[str, Side]:
    from dataclasses import replace

    import torch
    import yaml

    from zoo.config import check_config
    from zoo.families import load_family
    from zoo.families.yolo.config import YoloConfig, ultralytics_settings
    from zoo.families.yolo.family import label_files

    family = load_family(name)
    raw = {**YOLO, "imgsz": size, "epochs": epochs, "batch": batch, "device": "cpu"}
    config: Any = check_config(YoloConfig, raw, "bench")
    images = label_files(job)
    listed = job.out / "train.txt"
    listed.write_text("\n".join(str(path) for path in images))
    data = {"train": str(listed), "val": str(listed), "names": dict(enumerate(job.labels.names))}
    described = job.out / "data.yaml"
    described.write_text(yaml.safe_dump(data))

    def ours(out: Path) -> Marks:
        marks: Marks = []
        with _hushed():
            family.train(config, replace(job, out=out, progress=_marker(marks)))
        return marks

    def plain(out: Path) -> Marks:
        import ultralytics

        settings = ultralytics_settings(config, torch.device("cpu"), out)
        marks: Marks = []
        network = ultralytics.YOLO(settings.pop("model"))
        network.add_callback("on_train_batch_end", lambda trainer: marks.append(_now()))
        with _hushed():
            network.train(**settings | {"data": str(described), "val": False, "amp": False})
        return marks

    return {"zoo": ours, "plain": plain}


@contextlib.contextmanager
def _hushed(names: Sequence[str] = ("ultralytics",)) -> Iterator[None]:
    """Keep a library's tables and bars off the screen."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


if __name__ == "__main__":
    typer.run(run)
