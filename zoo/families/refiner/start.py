"""The sources' predictions, and the rule whose answer is mended.

Nothing here has seen what a run holds out: the rule is fitted on the images that the run learns
from, and what it makes of each of these comes from a fit without the image's patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.files.provenance import atomic_write_text
from converters.types import LabelSpace
from fusion.fit import FITS
from fusion.rules.file import dump_rule, read_rule
from fusion.rules.pooling import Mean
from fusion.sources.ensemble import Ensemble
from fusion.sources.store import PredictionStore
from fusion.types import Prediction, Rule
from zoo.contract import TrainJob
from zoo.families.refiner.config import RefinerConfig
from zoo.results.fit import solve
from zoo.results.held_out import HeldOut
from zoo.results.posture_weights import Postures
from zoo.results.sources import by_name

FILE = "start.yaml"
"""Inside a run folder: the rule."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Start:
    """What is to be mended.

    Attributes:
        rule: fuses, as fitted on all images that the run learns from.
        held_out: patient -> the rule as fitted without the patient; empty where it is not fitted.
    """

    rule: Rule
    held_out: Mapping[str, Rule]

    def of(self, patient: str) -> Rule:
        """Return a rule that has not seen a patient's images."""
        return self.held_out.get(patient, self.rule)


def open_held_out(config: RefinerConfig, job: TrainJob) -> Ensemble:
    """Open the stores that a run learns from.

    Raises:
        ValueError: there are none, or submissions, or stores of other classes, or such as do not
            say that they are held out by the folds of the run.
    """
    if not config.sources:
        raise ValueError(
            "sources: expected stores of held-out predictions, such as "
            "sources=[val/unet,val/yolo], found none; zoo train ... --folds all --oof writes them"
        )
    opened = Ensemble.open(by_name(map(Path, config.sources)), usual=job.labels)
    _check_classes(opened, job.labels)
    digest = job.split.digest if job.split else ""
    for source in opened.sources:
        if not isinstance(source, PredictionStore):
            raise ValueError(f"sources: {source.path}: expected a store, found a submission")
        manifest = source.manifest
        if manifest.subset != "val" or not digest or manifest.split != digest:
            raise ValueError(
                f"sources: {source.path}: expected predictions of held-out images by the folds of "
                "this run's split, found others; write them by: zoo train ... --folds all --split "
                "with the same file"
            )
    return opened


def _check_classes(opened: Ensemble, labels: LabelSpace) -> None:
    if opened.labels.names != labels.names:
        raise ValueError(
            f"sources: {opened.sources[0].path}: expected the classes of '{labels.name}', found "
            f"those of '{opened.labels.name}'"
        )


def fit_start(config: RefinerConfig, job: TrainJob, opened: Ensemble) -> Start:
    """Fit the rule to start from, on the images that a run learns from; leave it in the run.

    Raises:
        ValueError: an image has no predictions, or all are of one patient.
    """
    names = tuple(source.name for source in opened.sources)
    if missing := [s.key for s in (*job.train, *job.val) if s.key not in opened.images]:
        raise ValueError(
            f"sources: {opened.sources[0].path}: expected out-of-fold predictions of all images, "
            f"found none of '{missing[0]}' (of {len(missing)} in all); write them by: zoo train "
            "... --folds all --oof"
        )
    if config.start == "mean":
        found = Start(Mean(names), {})
    else:
        samples = {sample.key: sample for sample in job.train}
        if len({sample.patient for sample in job.train}) < 2:
            raise ValueError(
                "start hybrid: expected images of at least two patients to learn from, found one; "
                "take start=mean"
            )
        ordered = {key: samples[key] for key in opened.images if key in samples}
        postures = Postures.of(ordered.values(), job.labels, None)
        held_out = HeldOut(opened, ordered, job.labels, postures)
        fit = solve(FITS["hybrid"](), held_out, job.progress)
        found = Start(fit.rule, fit.held_out)
    atomic_write_text(job.out / FILE, dump_rule(found.rule, labels=job.labels))
    return found


@dataclass(frozen=True)
class Sources:
    """Predictions to read, in a rule's order.

    Attributes:
        opened: those that there are.
        names: of all sources that the rule knows; of one that is missing nothing is known.
    """

    opened: Ensemble
    names: tuple[str, ...]

    def read(self, keys: Sequence[str]) -> Iterator[tuple[Prediction, ...]]:
        """Yield images' predictions, in the order of the names.

        Raises:
            ValueError: of an image there are none.
        """
        place = {key: number for number, key in enumerate(self.opened.images)}
        if missing := [key for key in keys if key not in place]:
            raise ValueError(
                f"{self.opened.sources[0].path}: expected predictions of '{missing[0]}', found "
                "none; say which stores have them: --sources STORE,STORE"
            )
        for first, last in _stretches([place[key] for key in keys]):
            for found in zip(*self.opened.part(first, last), strict=True):
                yield self._in_order(found)

    def _in_order(self, found: Sequence[Prediction]) -> tuple[Prediction, ...]:
        known = {s.name: p for s, p in zip(self.opened.sources, found, strict=True)}
        key, size_hw = found[0].key, found[0].size_hw
        nothing = Prediction(key, size_hw, "instance", {}, frozenset())
        return tuple(known.get(name, nothing) for name in self.names)


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield numbers as ranges of those that follow each other, of a few each.

    >>> list(_stretches([3, 4, 5, 9, 0]))
    [(3, 6), (9, 10), (0, 1)]
    """
    start = 0
    for at in range(1, len(numbers) + 1):
        is_next = at < len(numbers) and numbers[at] == numbers[at - 1] + 1
        if not is_next or at - start == _AT_ONCE:
            yield numbers[start], numbers[at - 1] + 1
            start = at


def open_rule(run: Path) -> Rule:
    """Read the rule that a run starts from.

    Raises:
        ValueError: there is none.
    """
    if not (run / FILE).is_file():
        raise ValueError(f"{run}: expected {FILE}, found none; train the run first")
    return read_rule(run / FILE)


def open_again(run: Path, config: RefinerConfig, given: Sequence[str]) -> tuple[Rule, Sources]:
    """Open a run's rule, and the sources to predict from.

    Args:
        run: its folder.
        config: names the stores that it learned from.
        given: others; some of the names may be missing.

    Raises:
        ValueError: no rule, or a source that the run does not know.
    """
    rule = open_rule(run)
    paths = by_name(map(Path, given or config.sources))
    if lost := [path for path in paths if not path.exists()]:
        raise ValueError(
            f"{lost[0]}: expected a source of the run {run}, found none; say where it is: "
            "--sources STORE,STORE"
        )
    opened = Ensemble.open(paths, usual=config.labels)
    _check_classes(opened, config.labels)
    if unknown := [s.name for s in opened.sources if s.name not in rule.sources]:
        raise ValueError(
            f"--sources: expected sources that {run} has learned with ({', '.join(rule.sources)}), "
            f"found '{unknown[0]}'"
        )
    return rule, Sources(opened, tuple(rule.sources))
