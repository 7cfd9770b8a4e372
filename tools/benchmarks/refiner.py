"""A second look: what it is worth beside the rules, and what each part of it is.

Sources are out-of-fold stores over one split. Each variant is cross-validated by the same folds, so
that no image is mended by a network, or from a rule, that has seen its patient; the rule that
weighs the refiner as one more source is judged on patients it was not fitted on, too.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.real import MEASURES, Entry, same
from converters.splits.split import Split
from converters.types import LabelSpace, Sample
from fusion.binary import binary_masks
from fusion.fit import FITS
from fusion.metrics.annotated import measure_masks
from fusion.metrics.scores import ImageScore, Scores
from fusion.metrics.summary import compare, summarize
from fusion.rules.pooling import Mean
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter
from fusion.types import Prediction, Rule
from zoo.config import load_config
from zoo.contract import PredictOptions, TrainJob
from zoo.families.refiner.family import FAMILY
from zoo.progress import Report, bar
from zoo.results.fit import solve
from zoo.results.held_out import HeldOut
from zoo.source import DataSource

REFINER = "refiner"
INPUTS = ("image", "sources", "others", "class")


def _without(left_out: str) -> tuple[str, ...]:
    return (f"inputs=[{','.join(name for name in INPUTS if name != left_out)}]",)


VARIANTS: dict[str, tuple[str, ...]] = {
    REFINER: (),
    "crops": ("places=crops",),
    "from-mean": ("start=mean",),
    **{f"no-{name}": _without(name) for name in INPUTS},
    "no-errors": ("errors=0", "drop=0"),
    "half": (),
    "third": (),
}
"""Name -> changes of the config; `half` and `third` learn from that many of the images."""
SHARES = {"half": 1 / 2, "third": 1 / 3}


def run(
    data: Annotated[Path, typer.Argument(help="A data set in any readable format.")],
    stores: Annotated[list[Path], typer.Argument(help="Out-of-fold stores of its images.")],
    split: Annotated[Path, typer.Option(help="The folds of these stores.")],
    out: Annotated[Path, typer.Option(help="Folder of runs; started again, it goes on.")],
    only: Annotated[str, typer.Option(help=f"Of {', '.join(VARIANTS)}, with commas; all.")] = "",
    change: Annotated[list[str] | None, typer.Option(help="key=value of all variants.")] = None,
    config: Annotated[str, typer.Option(help="Shipped config or YAML file.")] = "laptop",
) -> None:
    """Cross-validate second looks, with parts left out, and compare them with the rules."""
    chosen = [name.strip() for name in only.split(",") if name.strip()] or list(VARIANTS)
    if unknown := sorted(set(chosen) - set(VARIANTS)):
        raise typer.BadParameter(f"--only: expected of {', '.join(VARIANTS)}, found {unknown[0]}")
    out.mkdir(parents=True, exist_ok=True)
    source = DataSource.open(data).of_split(split)
    labels = PredictionStore(stores[0]).label_space()
    samples, folds = source.annotated(labels), Split.load(split)
    minutes = {}
    for name in chosen:
        changes = [f"sources=[{','.join(map(str, stores))}]", *(change or ()), *VARIANTS[name]]
        with bar(name) as report:
            learner = Learner(samples, folds, labels, config, SHARES.get(name, 1.0), report)
            minutes[name] = learner.cross_validate(changes, out / name)
    with bar("measuring") as report:
        entries = list(_measure(source, stores, out, minutes, report))
    text = describe(data, entries)
    (out / "results.md").write_text(text, encoding="utf-8")
    print(text)


@dataclass(frozen=True)
class Learner:
    """Cross-validates one variant.

    Attributes:
        samples: key -> sample with truth.
        folds: what is held out in turn.
        labels: the classes.
        config: shipped config or YAML file.
        share: of the patients of the other folds that it learns from.
        report: moves the progress bar.
    """

    samples: Mapping[str, Sample]
    folds: Split
    labels: LabelSpace
    config: str
    share: float
    report: Report

    def cross_validate(self, changes: Sequence[str], out: Path) -> float:
        """Write the variant's out-of-fold store; return the minutes of a core that it took."""
        record, store = out / "minutes.json", out / out.name
        if record.is_file():
            return float(json.loads(record.read_text(encoding="utf-8")))
        raw: Any = load_config(FAMILY.Config, REFINER, self.config, changes)
        settings = raw.model_copy(update={"labels": self.labels})
        used = time.process_time()
        images = {k: (*s.size_hw, s.file_name) for k, s in self._listed()}
        manifest = Manifest(
            "semantic",
            self.labels.name,
            self.labels.names,
            images,
            {"variant": out.name},
            self.folds.digest,
            None,
            "val",
            space=self.labels,
            groups={k: s.patient for k, s in self._listed()},
        )
        with StoreWriter(store, manifest) as writer:
            for fold in range(len(self.folds.folds)):
                for prediction in self._fold(settings, fold, out / f"fold-{fold}"):
                    if prediction.key in writer.remaining:
                        writer.append(prediction)
        minutes = (time.process_time() - used) / 60
        record.write_text(json.dumps(minutes), encoding="utf-8")
        return minutes

    def _listed(self) -> Iterator[tuple[str, Sample]]:
        for keys in self.folds.folds:
            yield from ((key, self.samples[key]) for key in sorted(keys) if key in self.samples)

    def _fold(self, config: Any, fold: int, out: Path) -> Iterator[Prediction]:
        held_out = set(self.folds.val(fold))
        val = [sample for key, sample in self._listed() if key in held_out]
        train = [sample for key, sample in self._listed() if key not in held_out]
        people = sorted({sample.patient for sample in train})
        order = np.random.default_rng([config.seed, fold]).permutation(len(people))
        kept = {people[i] for i in order[: max(2, round(self.share * len(people)))]}
        out.mkdir(parents=True, exist_ok=True)
        job = TrainJob(
            out,
            self.labels,
            [sample for sample in train if sample.patient in kept],
            # They are predicted below, once.
            (),
            out,
            "",
            split=self.folds,
            fold=fold,
            progress=self.report,
        )
        FAMILY.train(config, job)
        yield from FAMILY.predict(out, config, val, PredictOptions())


def _measure(
    source: DataSource,
    stores: Sequence[Path],
    out: Path,
    minutes: Mapping[str, float],
    report: Report,
) -> Iterator[Entry]:
    """Yield the sources, the rules, each variant alone, and the first one as one more source."""
    first = next(iter(minutes))
    weighed = f"hybrid with {first}"
    rules = {
        "hybrid": _fit(stores, source, report),
        weighed: _fit([*stores, out / first / first], source, report),
    }
    variants = [out / name / name for name in minutes]
    held_out = HeldOut.open([*stores, *variants], source, None)
    labels, names = held_out.labels, held_out.names
    plain = [names.index(name) for name, _ in _known(stores)]
    with_first = sorted([*plain, names.index(first)])
    samples = iter(held_out.samples.values())
    order = [*(names[k] for k in plain), "mean", *rules, *minutes]
    scores: dict[str, list[ImageScore]] = {name: [] for name in order}
    for predictions, _, patient in held_out.map(same, report):
        sample = next(samples)
        few, more = [predictions[k] for k in plain], [predictions[k] for k in with_first]
        found = dict(zip(names, predictions, strict=True))
        found["mean"] = Mean()(few, labels)
        found["hybrid"] = rules["hybrid"][patient](few, labels)
        found[weighed] = rules[weighed][patient](more, labels)
        for name, images in scores.items():
            masks = binary_masks(found[name], labels)
            images.append(measure_masks(masks, sample, labels, labels, MEASURES))
    for name, images in scores.items():
        yield Entry(name, minutes.get(name), Scores(labels, images))


def _known(stores: Sequence[Path]) -> list[tuple[str, Path]]:
    return sorted((PredictionStore(path).name, path) for path in stores)


def _fit(stores: Sequence[Path], source: DataSource, report: Report) -> Mapping[str, Rule]:
    return solve(FITS["hybrid"](), HeldOut.open(stores, source, None), report).held_out


# --- the table


def describe(data: Path, entries: Sequence[Entry]) -> str:
    """Return the tables as Markdown."""
    images, labels = entries[0].scores.images, entries[0].scores.labels
    people = len({image.patient for image in images})
    by_name = {entry.name: entry for entry in entries}
    start = [*by_name].index("hybrid")
    lines = [
        f"## {data.name}: {len(images)} held-out images of {people} patients",
        "",
        "| | core minutes | Dice | Jaccard | surface Dice, 2 px |",
        "|---|---|---|---|---|",
        *(_row(entry) for entry in entries),
        "",
        "| above the hybrid | Dice | Jaccard | surface Dice, 2 px |",
        "|---|---|---|---|",
        *(_gain(entry, by_name["hybrid"]) for entry in entries[start + 1 :]),
        "",
        "| Dice | " + " | ".join(labels.names) + " |",
        "|---" * (len(labels) + 1) + "|",
        *(_classes(entry, labels) for entry in entries),
        "",
        "| Dice above the hybrid | " + " | ".join(labels.names) + " |",
        "|---" * (len(labels) + 1) + "|",
        *(_class_gains(entry, by_name["hybrid"], labels) for entry in entries[start + 1 :]),
    ]
    return "\n".join(lines) + "\n"


def _row(entry: Entry) -> str:
    cells = [entry.name, "" if entry.minutes is None else f"{entry.minutes:.1f}"]
    for measure in MEASURES:
        found = summarize(entry.scores, measure).overall
        cells.append("-" if found is None else f"{found.mean:.4f}")
    return "| " + " | ".join(cells) + " |"


def _gain(entry: Entry, base: Entry) -> str:
    found = (compare(entry.scores, base.scores, measure).overall for measure in MEASURES)
    return "| " + " | ".join([entry.name, *map(str, found)]) + " |"


def _classes(entry: Entry, labels: LabelSpace) -> str:
    found: Mapping[str, Any] = summarize(entry.scores, "dice").classes
    cells = (f"{found[name].mean:.4f}" if found.get(name) else "-" for name in labels.names)
    return "| " + " | ".join([entry.name, *cells]) + " |"


def _class_gains(entry: Entry, base: Entry, labels: LabelSpace) -> str:
    found: Mapping[str, Any] = compare(entry.scores, base.scores, "dice").classes
    return "| " + " | ".join([entry.name, *(str(found.get(n, "-")) for n in labels.names)]) + " |"
