"""`zoo fit` as a process on phantoms with simulated sources: time, and the peak of its memory.

Every image is another hand, and has its truth. Time is that of all processes' cores, for by the
clock other programs count, too; memory is that of the largest process. Two programs have found the
same where the digests of what they wrote are the same.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import material
from benchmarks.sides import watch

# Nets of both sizes and the detector come first.
ORDER = ("net512a", "net1024a", "boxes", "net512b", "net1024b", "net1024c", "net512c", "net1024d")


@dataclass(frozen=True)
class Row:
    """One run of `zoo fit`, its start included."""

    images: int
    sources: int
    side: int
    jobs: int
    core_seconds: float
    seconds: float
    peak_mb: float
    digest: str


def run(
    images: Annotated[str, typer.Option(help="Numbers of images.")] = "72",
    sources: Annotated[str, typer.Option(help="Numbers of sources, at most 8.")] = "4",
    side: Annotated[int, typer.Option(help="Of the images, in pixels.")] = material.SIDE,
    jobs: Annotated[str, typer.Option(help="Numbers of processes.")] = "1",
    options: Annotated[str, typer.Option(help="More options of `zoo fit`.")] = "",
    repetitions: Annotated[int, typer.Option(help="How often all of them run.")] = 1,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure the whole command for each combination; print a table."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = [
            _fit(work or Path(scratch), side, count, number, processes, options.split())
            for _ in range(repetitions)
            for count in map(int, images.split(","))
            for number in map(int, sources.split(","))
            for processes in map(int, jobs.split(","))
        ]
    print(_table(rows))


def _fit(
    root: Path, side: int, images: int, sources: int, jobs: int, options: Sequence[str]
) -> Row:
    data = material.hands(root, max(2, -(-images // 2)), side)
    # Stores are known by the number of their images: each size of images has a folder of its own.
    paths = material.stores(root / f"side{side}", data, images, images, ORDER[:sources])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "fusion.yaml")
        given = [*map(str, paths), "--data", str(data), "--out", str(out), "--jobs", str(jobs)]
        found = watch([sys.executable, "-m", "zoo", "fit", *given, *options])
        digest = sha256(out.read_bytes()).hexdigest()[:12]
    row = Row(images, sources, side, jobs, **found, digest=digest)
    print(json.dumps(row.__dict__), file=sys.stderr, flush=True)
    return row


def _table(rows: Sequence[Row]) -> str:
    lines = [
        "| images | sources | side | jobs | CPU s | s | peak, MB | fusion.yaml |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.images} | {r.sources} | {r.side} | {r.jobs} | {r.core_seconds:.1f} "
        f"| {r.seconds:.1f} | {r.peak_mb:.0f} | {r.digest} |"
        for r in rows
    ]
    return "\n".join(lines)
