"""Time of converting annotations, and memory, beside the libraries that do the same.

The data are phantom hands at 2048 x 2048. So many hands are drawn as `--hands` says; each then
stands for several images, as links to its image and copies of its polygons, each time a pixel
further right: nothing that is timed can keep what it found for an image before. Every row is a
process of its own, started anew, its imports included. The libraries leave images where they are;
beside them ours are hard links.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.sides import watch
from converters.files.provenance import link_or_copy
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom

RIVALS = Path(__file__).with_name("rivals.py")
ZOO = [sys.executable, "-m", "zoo", "convert"]
SIDE = 2048
LABELS = (("yolo", ""), ("coco", ""), ("coco", "rle"), ("datumaro", ""), ("handbone", ""))
PIXELS = (
    ("masks", "packed"),
    ("masks", "per-class"),
    ("masks", "groups"),
    ("masks", "index"),
    ("segformer", "arrow"),
    ("segformer", "parquet"),
)


@dataclass(frozen=True)
class ToolRun:
    """One measured process: what it did, for how many images, in what time and memory."""

    job: str
    tool: str
    images: int
    seconds: float
    peak_mb: float

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


def run(
    images: Annotated[int, typer.Option(help="Images of our own rows.")] = 800,
    hands: Annotated[int, typer.Option(help="Different hands among them.")] = 32,
    pixel_images: Annotated[
        int, typer.Option(help="Images of our rows that write pixels: masks, segformer.")
    ] = 96,
    rival_images: Annotated[
        int, typer.Option(help="Images of the libraries' rows that write no pixels.")
    ] = 2000,
    heavy_images: Annotated[
        int, typer.Option(help="Images where a library keeps dense masks of all in memory.")
    ] = 16,
    datumaro_python: Annotated[
        str, typer.Option(help="Interpreter of an environment with Datumaro.")
    ] = "",
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure `zoo convert` to each format; print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        sets = {
            n: _data_set(root, n, hands)
            for n in {
                images,
                images // 8,
                pixel_images,
                pixel_images // 8,
                rival_images,
                heavy_images,
            }
        }
        rows = [
            *_reading(sets, images),
            *_ours(root, sets, LABELS, images),
            *_ours(root, sets, PIXELS, pixel_images),
            *_rivals(root, sets, (rival_images, pixel_images, heavy_images), datumaro_python),
        ]
    print(_table(rows))


def _data_set(root: Path, images: int, hands: int) -> Path:
    """Write a competition tree of so many images, and the same as COCO; return the tree."""
    drawn = root / f"hands{hands}"
    if not drawn.is_dir():
        write_phantom(drawn, PhantomConfig(-(-hands // 2), 0, SIDE), jobs=os.cpu_count() or 1)
    tree = root / f"tree{images}"
    if not tree.is_dir():
        originals = sorted((drawn / "train" / "DCM").glob("*/*.png"))[:hands]
        for number in range(images):
            _clone(
                originals[number % len(originals)], drawn, tree, number, number // len(originals)
            )
        _measure("", "", images, [*ZOO, str(tree), "--to", "coco", "--out", str(_coco(tree))])
    return tree


def _clone(image: Path, drawn: Path, tree: Path, number: int, right_px: int) -> None:
    person, name = f"ID{number // 2 + 1:03d}", f"image{1_661_130_000_000 + number}"
    link_or_copy(image, tree / "train" / "DCM" / person / f"{name}.png")
    polygons = drawn / "train" / "outputs_json" / image.parent.name / f"{image.stem}.json"
    target = tree / "train" / "outputs_json" / person / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    record = json.loads(polygons.read_bytes())
    for annotation in record["annotations"]:
        annotation["points"] = [[x + right_px, y] for x, y in annotation["points"]]
    target.write_text(json.dumps(record))


def _coco(tree: Path) -> Path:
    return tree.with_name(tree.name + "-coco")


def _reading(sets: dict[int, Path], images: int) -> Iterable[ToolRun]:
    for count in (images // 8, images):
        for job, how in (("parse the JSON files", "json"), ("read", "zoo")):
            command = [sys.executable, str(RIVALS), "read", str(sets[count]), how]
            yield _measure(job, how, count, command)


def _ours(
    root: Path, sets: dict[int, Path], forms: Sequence[tuple[str, str]], images: int
) -> Iterable[ToolRun]:
    out = root / "out"
    for to, layout in forms:
        job = f"{to} {layout}".strip()
        for count, jobs in ((images // 8, 1), (images, 1), (images, 2)):
            command = [*ZOO, str(sets[count]), "--to", to, "--out", str(out), "--jobs", str(jobs)]
            command += ["--layout", layout] if layout else []
            yield _measure(job, f"zoo --jobs {jobs}", count, command)
            shutil.rmtree(out)


def _rivals(
    root: Path, sets: dict[int, Path], counts: tuple[int, int, int], datumaro_python: str
) -> Iterable[ToolRun]:
    out = root / "out"
    many, few, fewest = counts
    for job, count in (
        ("supervision yolo", fewest),
        ("supervision coco", fewest),
        ("pycocotools masks", few),
        ("pycocotools rle", many),
        ("datumaro coco", many),
        ("datumaro datumaro", many),
    ):
        library, to = job.split()
        python = datumaro_python if library == "datumaro" else sys.executable
        ours = {"masks": ["masks", "--layout", "per-class"], "rle": ["coco", "--layout", "rle"]}
        if not python:
            continue
        # The same source for both: COCO, on the same images.
        source = str(_coco(sets[count]))
        yield _measure(
            f"COCO to {to}", library, count, [python, str(RIVALS), *job.split(), source, str(out)]
        )
        shutil.rmtree(out)
        command = [*ZOO, source, "--to", *ours.get(to, [to]), "--link", "--out", str(out)]
        yield _measure(f"COCO to {to}", "zoo --jobs 1", count, command)
        shutil.rmtree(out)


def _measure(job: str, tool: str, images: int, command: Sequence[str]) -> ToolRun:
    found = watch(command, env={})
    row = ToolRun(job, tool, images, found["seconds"], found["peak_mb"])
    print(json.dumps(row.__dict__), file=sys.stderr, flush=True)
    return row


def _table(rows: Sequence[ToolRun]) -> str:
    lines = [
        "| job | tool | images | s | images/s | largest process, MB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.job} | {r.tool} | {r.images} | {r.seconds:.1f} | {r.rate:.1f} | {r.peak_mb:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)
