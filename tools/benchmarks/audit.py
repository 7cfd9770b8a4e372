"""How much an audit finds of the faults planted into phantoms, and what it finds without any."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from converters.audit.findings import KINDS
from converters.formats.handbone_patients import read_patients
from zoo.phantom.config import PhantomConfig
from zoo.phantom.faults import Planted, load_faults, plant_faults
from zoo.phantom.tree import write_phantom
from zoo.phantom.workbook import NOTES

# Runs in a process of its own, so that its memory is its own; prints findings and figures.
_AUDIT = """
import json, resource, sys, time
from dataclasses import asdict
from pathlib import Path
import converters
from converters.audit import audit
from converters.types import LabelSpace

labels = LabelSpace.load("hand_bones")
jobs = int(sys.argv[2])
if __name__ == "__main__":
    start = time.perf_counter()
    samples, problems = converters.scan(Path(sys.argv[1]), subset="all", labels=labels)
    found = audit(samples, problems, labels, jobs=jobs)
    seconds = time.perf_counter() - start
    who = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    peak_mb = max(one.ru_maxrss for one in who) / 1024
    print(json.dumps({
        "images": len(samples), "seconds": seconds, "peak_mb": peak_mb,
        "findings": [[f.kind, f.key, f.labels, f.others, f.score, f.what] for f in found],
    }))
"""
# A fault shows in other ways too, which are no false findings: a bone under another one's label is
# missing as well as double, and a copy under another patient is both.
_ALSO = {
    "missing": {"missing", "double"},
    "patient": {"patient", "duplicate"},
    "tiny": {"tiny", "inside", "outlier"},
    "inside": {"inside", "outlier"},
    "outside": {"outside", "outlier"},
    "outlier": {"outlier", "inside"},
}
# What people wear or lack, and what findings of it say; polish and letters are harmless.
_ODD = {"ring": "brightness", "cut": "unusual form"}


@dataclass(frozen=True)
class Reported:
    """One finding, as the audit's process printed it."""

    kind: str
    key: str
    labels: tuple[str, ...]
    others: tuple[str, ...]
    score: float
    what: str

    @property
    def keys(self) -> set[str]:
        """All images that it is about."""
        return {self.key, *self.others}


@dataclass
class Tally:
    """Faults and findings of one kind."""

    planted: int = 0
    found: int = 0
    right: int = 0
    wrong: int = 0
    missed: Counter[str] = field(default_factory=Counter)


@dataclass
class Totals:
    """Everything that was counted over several data sets."""

    kinds: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    images: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0


def run(
    people: Annotated[int, typer.Option(help="People in a phantom; a sixth are test people.")] = 60,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 512,
    seeds: Annotated[str, typer.Option(help="Seeds of the phantoms, with commas.")] = "1,2",
    plants: Annotated[int, typer.Option(help="Times that faults are planted anew.")] = 6,
    share: Annotated[float, typer.Option(help="Share of the images that get a fault.")] = 0.3,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    verbose: Annotated[bool, typer.Option(help="Name what is missed and found wrongly.")] = False,
    work: Annotated[Path | None, typer.Option(help="Folder to work in; kept.")] = None,
) -> None:
    """Measure `converters.audit` on phantoms with faults, and on ones without."""
    with tempfile.TemporaryDirectory() as scratch:
        root = work or Path(scratch)
        for seed in (int(word) for word in seeds.split(",")):
            sound = _phantom(root, people, size, seed, jobs)
            totals = Totals()
            for number in range(plants):
                faulty = root / f"faulty-{size}-{seed}-{number}"
                shutil.rmtree(faulty, ignore_errors=True)
                shutil.copytree(sound, faulty)
                plant_faults(faulty, share, seed=1000 * seed + number)
                _count(totals, faulty, jobs, verbose)
                shutil.rmtree(faulty)
            print(f"\nseed {seed}, {plants} x {share:g} of {people} people at {size} px\n")
            print(_table(totals))
            _report_sound(sound, jobs, verbose)


def _phantom(root: Path, people: int, size: int, seed: int, jobs: int) -> Path:
    """A phantom whose people may wear rings and lack fingertips, made if need be."""
    out = root / f"sound-{size}-{people}-{seed}"
    if not out.is_dir():
        test = people // 6
        config = PhantomConfig(people=people - test, test_people=test, size=size, seed=seed)
        write_phantom(out, config, jobs=jobs)
    return out


def _audit(data: Path, jobs: int) -> tuple[list[Reported], dict[str, float]]:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(_AUDIT)
        script.flush()
        command = [sys.executable, script.name, str(data), str(jobs)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    record = json.loads(done.stdout)
    findings = [
        Reported(kind, key, tuple(labels), tuple(others), score, what)
        for kind, key, labels, others, score, what in record.pop("findings")
    ]
    return findings, record


def _oddities(data: Path) -> dict[str, list[str]]:
    """Person -> what is odd about one of the hands."""
    people = read_patients(data / "meta_data.xlsx")
    return {
        person: odd
        for person, row in people.items()
        if (odd := [kind for kind in _ODD if NOTES[kind] in str(row.get("note", ""))])
    }


def _count(totals: Totals, data: Path, jobs: int, verbose: bool) -> None:
    findings, figures = _audit(data, jobs)
    faults = load_faults(data)
    totals.images += int(figures["images"])
    totals.seconds += figures["seconds"]
    totals.peak_mb = max(totals.peak_mb, figures["peak_mb"])
    for fault in faults:
        tally = totals.kinds[fault.kind]
        tally.planted += 1
        if any(_hits(f, fault) for f in findings):
            tally.found += 1
        else:
            tally.missed[f"{fault.how}: {', '.join(fault.labels) or fault.key}"] += 1
    odd = _oddities(data)
    people = {fault.key: [other.split("/")[2] for other in fault.others] for fault in faults}
    for finding in findings:
        is_right = _is_right(finding, faults) or _is_odd(finding, odd, people)
        tally = totals.kinds[finding.kind]
        tally.right, tally.wrong = tally.right + is_right, tally.wrong + (not is_right)
        if verbose and not is_right:
            print("wrong", finding, [f for f in faults if f.key == finding.key])


def _hits(finding: Reported, fault: Planted) -> bool:
    """Whether a finding tells a fault: same kind, image, and one of its bones."""
    if fault.others:
        same = finding.keys & {fault.key, *fault.others}
        return finding.kind == fault.kind and len(same) > 0 and fault.key in finding.keys
    is_bone = not fault.labels or bool(set(fault.labels) & set(finding.labels))
    return finding.kind == fault.kind and finding.key == fault.key and is_bone


def _is_right(finding: Reported, faults: Iterable[Planted]) -> bool:
    """Whether a finding tells a fault or its consequence."""
    for fault in faults:
        if fault.others and fault.key in finding.keys:
            # A copy of a copy's original is a copy as well.
            return finding.kind in ("duplicate", "patient")
        is_bone = not fault.labels or bool(set(fault.labels) & set(finding.labels))
        kinds = _ALSO.get(fault.kind, {fault.kind})
        if fault.key == finding.key and finding.kind in kinds and is_bone:
            return True
    return False


def _is_odd(finding: Reported, odd: dict[str, list[str]], people: dict[str, list[str]]) -> bool:
    """Whether an outlier is of a person with a ring or without a fingertip, or of its copy."""
    whose = [finding.key.split("/")[2], *people.get(finding.key, [])]
    kinds = [kind for person in whose for kind in odd.get(person, [])]
    return finding.kind == "outlier" and any(_ODD[kind] in finding.what for kind in kinds)


def _report_sound(data: Path, jobs: int, verbose: bool) -> None:
    findings, figures = _audit(data, jobs)
    odd = _oddities(data)
    wrong = [f for f in findings if not _is_odd(f, odd, {})]
    print(f"\nwithout faults: {len(wrong)} findings in {figures['images']} images", end="; ")
    for kind in _ODD:
        those = [person for person, kinds in odd.items() if kind in kinds]
        told = {f.key.split("/")[2] for f in findings if _ODD[kind] in f.what}
        print(f"{kind}: {len(told.intersection(those))} of {len(those)} people", end="; ")
    print(f"{1000 * figures['seconds'] / figures['images']:.0f} ms an image")
    if verbose:
        print(*wrong, sep="\n")


def _table(totals: Totals) -> str:
    rows = [f"| {kind} | {_figures(t)} |" for kind, t in totals.kinds.items()]
    missed = [
        f"missed {kind}: " + "; ".join(f"{what} ({n})" for what, n in t.missed.most_common())
        for kind, t in totals.kinds.items()
        if t.missed
    ]
    return "\n".join(
        [
            "| kind | planted | found | recall | findings | precision |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            *missed,
            f"{totals.images} images, {1000 * totals.seconds / totals.images:.0f} ms an image, "
            f"largest process {totals.peak_mb:.0f} MB",
        ]
    )


def _figures(tally: Tally) -> str:
    findings = tally.right + tally.wrong
    recall = f"{tally.found / tally.planted:.2f}" if tally.planted else ""
    precision = f"{tally.right / findings:.2f}" if findings else ""
    values: Sequence[object] = (tally.planted, tally.found, recall, findings, precision)
    return " | ".join(str(value) for value in values)


if __name__ == "__main__":
    typer.run(run)
