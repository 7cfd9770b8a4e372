"""What each part of the hybrid rule is worth: an ablation on phantoms, from nothing.

python tools/study.py OUT --seed 0

Writes phantoms that two annotators draw, cross-validates the three small networks of the demo,
fits every variant of the rule on out-of-fold predictions, and scores it on test images that no
network and no fit has seen. At last a refiner looks at what all of them have found.
With `--sources smp,segformer,yolo,wrist,refiner` there is a second stage: a network on wrists that
are cut out where the first stage found them. Killed and started again, it continues.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import typer

from converters.masks import CropMask
from converters.types import LabelSpace, Sample
from fusion import FUSIONS, Hybrid, Rule
from fusion.fit.hybrid import HybridFit
from fusion.metrics.annotated import truth_masks
from fusion.metrics.intervals import mean_over_people
from fusion.metrics.scores import ImageScore, Scores, score_image
from fusion.metrics.summary import describe_overlapping
from fusion.sources.store import PredictionStore, read_together
from fusion.types import Prediction, SoftMask
from zoo.results.posture_weights import Postures, read_share
from zoo.source import DataSource

NETWORKS = ("smp", "segformer", "yolo")
WRIST = "wrist"
REFINER = "refiner"
SOURCES = (*NETWORKS, REFINER)
# It starts from weights for whole hands, which know little of wrists that fill the image.
WRIST_CONFIG = ("--config", "demo", "epochs=60", "optim.lr=2e-3")
Seen = tuple[tuple[Prediction, ...], dict[str, CropMask], str]
Images = Sequence[Seen]


Command = tuple[str, ...]


def commands(out: Path, seed: int, people: int) -> Iterator[Command]:
    """Yield the commands that lead to the stores, as a user would type them after `zoo`."""
    data, split = str(out / "data"), str(out / "split.json")
    sizes = ("--people", str(people), "--test-people", str(people // 2), "--size", "512")
    # Drawn by two people, as real hands are: crisp outlines alone favour a rule that finds edges.
    yield ("phantom", data, *sizes, "--annotators", "2", "--seed", str(seed))
    yield ("split", data, "--out", split, "--folds", "3", "--seed", str(seed))
    folds = ("--split", split, "--folds", "all")
    for name in NETWORKS:
        run, store = str(out / "runs" / name), str(out / "val" / name)
        config = ("--config", "demo", "--data", data, *folds, "--out", run, "--oof", store)
        yield ("train", name, *config, f"seed={seed}")
        test = str(out / "test" / name)
        yield ("predict", run, "--data", data, "--subset", "test", "--out", test)


def second_stage(out: Path, seed: int) -> Iterator[Command]:
    """Yield the commands for a network on the wrists that the second of NETWORKS has found."""
    crop = ("--crop", "carpals", "--margin", "16", "--to", "handbone")
    wrists = {}
    for subset, store in (("train", "val"), ("test", "test")):
        wrists[subset] = str(out / f"wrists_{subset}")
        boxes = ("--boxes", str(out / store / NETWORKS[1]), "--out", wrists[subset])
        yield ("convert", str(out / "data"), "--subset", subset, *crop, *boxes)
    run, folds = str(out / "runs" / WRIST), ("--split", str(out / "split.json"), "--folds", "all")
    data = ("--data", wrists["train"], *folds, "--out", run, "--oof", str(out / "val" / WRIST))
    yield ("train", "smp", *WRIST_CONFIG, *data, f"seed={seed}")
    data = ("--data", wrists["test"], "--subset", "test", "--out", str(out / "test" / WRIST))
    yield ("predict", run, *data)


def refiner_of(names: Sequence[str]) -> str:
    """Return the name of the refiner that looks at what these have found."""
    return "-".join((REFINER, *(name for name in names if name not in NETWORKS)))


def second_look(out: Path, seed: int, names: Sequence[str]) -> Iterator[Command]:
    """Yield the commands for a network that mends what sources of these names have found."""
    name = refiner_of(names)
    run, data = str(out / "runs" / name), ("--data", str(out / "data"))
    val, test = (",".join(str(out / part / each) for each in names) for part in ("val", "test"))
    folds = ("--split", str(out / "split.json"), "--folds", "all")
    store = ("--out", run, "--oof", str(out / "val" / name))
    yield ("train", REFINER, *data, *folds, *store, f"sources=[{val}]", f"seed={seed}")
    store = ("--out", str(out / "test" / name))
    yield ("predict", run, *data, "--subset", "test", "--sources", test, *store)


def whole(predictions: Sequence[Prediction]) -> Sequence[Prediction]:
    """Return predictions as they are."""
    return predictions


def hard(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return predictions with the instance sources' masks as a vendor gives them: 0 or 1."""
    return [_binary(p) if p.kind == "instance" else p for p in predictions]


def _binary(prediction: Prediction) -> Prediction:
    masks = {}
    for label, found in prediction.masks.items():
        masks[label] = tuple((score, _cut(mask, prediction.size_hw)) for score, mask in found)
    return replace(prediction, masks=masks)


def _cut(mask: SoftMask, size_hw: tuple[int, int]) -> SoftMask:
    x, y, width, height = window = mask.window(size_hw)
    pixels = np.where(mask.render(window) >= 128, 255, 0).astype(np.uint8)
    return SoftMask((x, y, width, height), cv2.copyMakeBorder(pixels, 0, 0, 0, 0, 0))


def semantic_only(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions of semantic sources."""
    return [p for p in predictions if p.kind == "semantic"]


UNWEIGHED = "postures as held out"
Change = Callable[[Sequence[Prediction]], Sequence[Prediction]]
VARIANTS: dict[str, tuple[HybridFit, Change]] = {
    "hybrid": (HybridFit(), whole),
    "no zones": (HybridFit(zones=False), whole),
    "no instance source": (HybridFit(), semantic_only),
    "hard instance masks": (HybridFit(soft_edge=0.0), hard),
    "boxes cut": (HybridFit(soft_edge=0.0), whole),
    "no gates": (HybridFit(gate=False), whole),
    "no calibration": (HybridFit(calibrate=False), whole),
    "gates and calibration always": (HybridFit(gate=True, calibrate=True), whole),
    "no shrinkage": (HybridFit(factors=(0.0,)), whole),
    UNWEIGHED: (HybridFit(), whole),
    "no fallback": (HybridFit(fall_back="never"), whole),
    "fallback unless sure": (HybridFit(fall_back="unsure"), whole),
}


def load(out: Path, subset: str, names: Sequence[str]) -> tuple[list[Seen], list[Sample]]:
    """Return the sources' predictions, the truth and the patient of each image; its annotation."""
    stores = [PredictionStore(out / subset / name) for name in names]
    labels = LabelSpace.load(stores[0].manifest.labels)
    known = DataSource.open(out / "data").annotated(labels, "test" if subset == "test" else "train")
    images = [(p, known[p[0].key]) for p in read_together(stores)]
    return [(p, truth_masks(s, labels), s.patient) for p, s in images], [s for _, s in images]


def score(rule: Rule, images: Images, change: Change, labels: LabelSpace) -> Scores:
    """Score a rule on images."""
    found: list[ImageScore] = []
    for number, (predictions, truth, _) in enumerate(images):
        fused = rule(change(predictions), labels)
        masks = {name: fused.binary(name) for name in labels.names}
        found.append(score_image(str(number), masks, truth, labels))
    return Scores(labels, found)


def study(out: Path, names: Sequence[str]) -> Iterator[tuple[str, Scores]]:
    """Yield each rule's name and its scores on the test images."""
    (val, samples), (test, _) = load(out, "val", names), load(out, "test", names)
    labels = LabelSpace.load("hand_bones")
    weights = count_postures(out, samples, names[0], labels)
    for k, name in enumerate(names):
        yield name, score(lambda p, _, k=k: p[k], test, whole, labels)
    for name in ("mean", "vote", "max", "staple"):
        yield name, score(FUSIONS[name](), test, whole, labels)
    yield "plain pool", score(Hybrid(), test, whole, labels)
    for name, (fit, change) in VARIANTS.items():
        seen = [(change(p), truth, patient) for p, truth, patient in val]
        kinds = [p.kind for p in val[0][0]]
        left = [
            n
            for n, k in zip(names, kinds, strict=True)
            if change is not semantic_only or k == "semantic"
        ]
        counts = None if name == UNWEIGHED else weights
        rule = fit(seen, left, labels, weights=counts).rule
        yield name, score(rule, test, change, labels)


def study_refined(out: Path, names: Sequence[str]) -> Iterator[tuple[str, Scores]]:
    """Yield the refiner's scores on the test images, and those of the hybrid that hears it, too."""
    everything = [*names, refiner_of(names)]
    (val, samples), (test, _) = load(out, "val", everything), load(out, "test", everything)
    labels = LabelSpace.load("hand_bones")
    yield REFINER, score(lambda p, _: p[-1], test, whole, labels)
    weights = count_postures(out, samples, names[0], labels)
    rule = HybridFit()(val, everything, labels, weights=weights).rule
    yield "hybrid with refiner", score(rule, test, whole, labels)


def count_postures(
    out: Path, samples: Sequence[Sample], name: str, labels: LabelSpace
) -> npt.NDArray[np.float64]:
    """Return how much each image counts, by the postures that a source sees in test images."""
    return Postures.of(samples, labels, read_share(str(out / "test" / name))).weights


def table(rows: dict[str, Scores], patients: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table; differences are to the hybrid, over patients."""
    best = rows["hybrid"]
    groups = list(best.labels.groups)
    heads = ["all", *groups, "shared pixels", "shared, pooled", "to the hybrid [95 %]"]
    yield "| | " + " | ".join(heads) + " |"
    yield "|---" * (len(heads) + 1) + "|"
    for name, scores in rows.items():
        difference = mean_over_people(_values(scores) - _values(best), patients)
        shared = scores.shared(), scores.shared_pooled()
        values = [scores.mean(), *scores.per_group().values(), *shared]
        cells = ["-" if v is None else f"{v:.4f}"[1:] for v in values]
        yield (
            f"| {name} | " + " | ".join([*cells, "" if scores is best else str(difference)]) + " |"
        )
    yield ""
    yield describe_overlapping(best)


def _values(scores: Scores) -> Any:
    return np.array([[image.dice[n] for n in scores.labels.names] for image in scores.images])


def main(
    out: Annotated[Path, typer.Argument(help="Folder for all of it.")],
    seed: Annotated[int, typer.Option(help="Of the phantoms, the folds and the training.")] = 0,
    people: Annotated[int, typer.Option(help="To learn from; half as many to test.")] = 40,
    sources: Annotated[str, typer.Option(help="Stores to fuse.")] = ",".join(SOURCES),
) -> None:
    """Make the stores, fit every variant, print the table."""
    out.mkdir(parents=True, exist_ok=True)
    given = sources.split(",")
    names = [name for name in given if name != REFINER]
    second = second_stage(out, seed) if WRIST in names else ()
    look = second_look(out, seed, names) if REFINER in given else ()
    for command in (*commands(out, seed, people), *second, *look):
        typer.echo(f"$ zoo {shlex.join(command)}", err=True)
        subprocess.run([sys.executable, "-m", "zoo", *command], check=True)
    rows = {}
    refined = study_refined(out, names) if REFINER in given else ()
    for name, scores in chain(study(out, names), refined):
        rows[name] = scores
        typer.echo(f"{name}: {scores.mean():.4f}", err=True)
    patients = [sample.patient for sample in load(out, "test", names)[1]]
    lines = list(table(rows, patients))
    typer.echo("\n".join(lines))
    record = {name: scores.record() for name, scores in rows.items()}
    (out / f"study-{'-'.join(given)}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
