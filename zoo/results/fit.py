"""From held-out predictions to a fitted fusion rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from converters.files.images import read_pixels
from converters.files.outputs import check_file
from converters.files.provenance import atomic_write_text
from converters.parallel import IN_PROCESS, Workers
from converters.types import LabelSpace, Sample
from fusion.checks.adjacency import Adjacency
from fusion.checks.layout import LEAST_IMAGES
from fusion.fit import FITS
from fusion.fit.base import Fit, Fitting, Tell
from fusion.fit.choice import Contest, choose_fit
from fusion.fit.counted import Counted, CountedImage, Seen
from fusion.fit.counts import check_number
from fusion.fit.hybrid import HybridFit
from fusion.fit.judging import Comparison, Judge, Judged, compare
from fusion.fit.objective import Objective, check_overlaps, image_values
from fusion.fit.refinement import Choice, StepGains, Trying, choose_refinement
from fusion.metrics.intervals import mean_over_people
from fusion.metrics.scores import Scores, score_image
from fusion.rules import crf
from fusion.rules.file import dump_rule
from fusion.rules.flagged import FlaggedRule
from fusion.rules.refine import ReadGrey, Refine, Refined
from fusion.sources.store import source_name
from fusion.types import Rule
from zoo.progress import Report
from zoo.results.held_out import HeldOut
from zoo.results.posture_weights import Postures
from zoo.source import DataSource

# The least difference that four digits show.
_SHOWN = 1e-4
# With fewer a fit has lost on others in one of four choices of patients (docs/results.md).
_FEW_PATIENTS = 10
# So many classes are named.
_LISTED = 5
_SEAL = "# As zoo fit wrote it; once it is changed, zoo fit does not replace it. "


class Refinement(StrEnum):
    """Which refinements are tried."""

    none = "none"
    shape = "shape"
    all = "all"


@dataclass(frozen=True)
class FitResult:
    """What was fitted, what it is worth, and what stands around the rule.

    Attributes:
        method: the rule's name.
        fit: the rule without what stands around it.
        comparison: the rule beside others, on people it was not fitted on; without refinements.
        choice: the refinements that were tried; None where none were.
        rule: the rule as its file has it.
        postures: how much the images counted.
        sources: their names, as they were given.
        classes: source -> the classes that it speaks of.
        by_word: the names of those that are held out by the user's word alone.
        refinement_check: what the objective said of the refinements; "" where it is Dice.
    """

    method: str
    fit: Fit[Rule]
    comparison: Comparison
    choice: Choice | None
    rule: Rule
    postures: Postures
    sources: tuple[str, ...]
    classes: Mapping[str, frozenset[str]]
    by_word: tuple[str, ...] = ()
    refinement_check: str = ""


def fit(
    paths: Sequence[Path],
    data: DataSource,
    out: Path,
    report: Report,
    refinement: Refinement = Refinement.shape,
    method: str = "hybrid",
    jobs: int = 1,
    bent: float | None = None,
    stated: Sequence[str] = (),
    labels_name: str | None = None,
    objective: Objective | None = None,
) -> FitResult:
    """Fit a rule on held-out predictions and write it as YAML.

    Refinements are switched on where they help the rules of the folds on what those held out. Where
    every class occurs once in an image, the file also learns how they lie to each other.

    Args:
        paths: prediction stores and submissions of images that the models did not learn from.
        data: the data set with their truth.
        out: the rule's file.
        report: for a progress bar.
        refinement: which refinements to try: all, all but the CRF, or none.
        method: one of `fusion.fit.FITS`.
        jobs: processes; their number does not change the result.
        bent: the share of images of a bent posture among those that the rule is meant for; held-out
            images count accordingly.
        stated: names of sources that are held out because the user says so; see `HeldOut.open`.
        labels_name: label space of submissions; a store names its own.
        objective: what the hybrid is to win; None is Dice. Refinements that help Dice stay if they
            help it, too.

    Raises:
        ValueError: an unknown method, or an objective that it or the truth does not know; more
            sources than can be fitted; a folder or a file of another kind at `out`; the sources
            differ, hold images the models learnt from, or have no truth.
        MissingDependency: a CRF is to be tried, and is not installed.
    """
    if method not in FITS:
        raise ValueError(f"method '{method}': expected one of {', '.join(FITS)}")
    _check_out(out)
    wanted, workers = objective or Objective(), Workers(jobs)
    _check_objective(wanted, method)
    check_number(len(paths))
    if refinement is Refinement.all:
        crf.load()
    held_out = HeldOut.open(paths, data, bent, stated, labels_name)
    _check_shares(wanted, held_out)
    # Once for all passes: to start takes a process seconds. Of thousands of products of small
    # matrices, threads of BLAS cost more than they bring.
    with threadpool_limits(1, user_api="blas"), workers:
        if wanted.nsd:
            found = _solve_and_choose(wanted, held_out, report, workers)
        else:
            fitting = FITS[method]() if wanted.is_dice else HybridFit(objective=wanted)
            found = solve(fitting, held_out, report, workers)
        judged, choice = _judge(found, held_out, refinement, report, workers, wanted)
        check = ""
        if choice is not None and _is_on(choice) and not wanted.is_dice:
            choice, check = _check_refinement(found, choice, held_out, wanted, report, workers)
    comparison = compare(
        found,
        Judged.stack(judged),
        held_out.patients,
        held_out.names,
        held_out.labels,
        weights=held_out.postures.weights,
        objective=None if wanted.is_dice else wanted,
    )
    rule = _watched(_refined(found.rule, choice), held_out)
    notes = {n: r.note() for n, r in comparison.report.items()}
    head = "" if wanted.is_dice else f"# Fitted for {wanted}.\n"
    text = head + dump_rule(rule, notes, held_out.sources.labels, held_out.by_word)
    atomic_write_text(out, _sealed(text))
    given = tuple(source_name(path) for path in paths)
    return FitResult(
        method,
        found,
        comparison,
        choice,
        rule,
        held_out.postures,
        given,
        {source.name: source.classes for source in held_out.sources.sources},
        held_out.by_word,
        check,
    )


def _check_objective(objective: Objective, method: str) -> None:
    if not objective.is_dice and method != "hybrid":
        raise ValueError(
            f"--objective {objective}: expected --method hybrid, found {method}: other rules are "
            "fitted for Dice"
        )


def _check_shares(objective: Objective, held_out: HeldOut) -> None:
    """Look at the truth alone, which takes far less time than to count what sources say of it."""
    labels = held_out.labels
    if not objective.shared:
        return
    if labels.exclusive is not None:
        raise ValueError(
            f"--objective {objective}: a pixel has one label in '{labels.name}', so that none is "
            "shared; expected dice or nsd"
        )
    images = [score_image("", {}, masks, labels) for masks, _ in held_out.truth()]
    check_overlaps(objective, Scores(labels, images).overlapping, labels)


def _check_out(out: Path) -> None:
    """Say before the work what would be said, or lost, after it."""
    check_file(out, "zoo fit's own fusion config, unchanged,", _is_sealed)


def _sealed(text: str) -> str:
    """Return the text of a config with a digest, by which it is recognised if nobody changed it."""
    return f"{text}{_SEAL}{sha256(text.encode()).hexdigest()[:16]}\n"


def _is_sealed(text: str) -> bool:
    body, seal, _ = text.rpartition(_SEAL)
    return bool(seal) and _sealed(body) == text


def solve(
    fitting: Fitting, held_out: HeldOut, report: Report, workers: Workers = IN_PROCESS
) -> Fit[Rule]:
    """Count held-out images and fit a rule to the counts.

    Args:
        fitting: how; see `fusion.fit.FITS`.
        held_out: predictions of images that the models did not learn from, with their truth.
        report: for a progress bar.
        workers: do the work.
    """
    counted = _count_all(fitting, held_out, report, workers)
    tell = _teller(report, len(held_out.samples))
    return fitting.solve(counted, held_out.names, held_out.labels, tell, workers)


def _solve_and_choose(
    objective: Objective, held_out: HeldOut, report: Report, workers: Workers
) -> Fit[Rule]:
    """Fit for what can be counted, and choose by the objective on held-out patients."""
    labels, tell = held_out.labels, _teller(report, len(held_out.samples))
    counted = _count_all(HybridFit(objective=objective), held_out, report, workers)
    fits: dict[str, Fit[Rule]] = {
        str(each): HybridFit(objective=each).solve(counted, held_out.names, labels, tell, workers)
        for each in objective.stand_ins(bool(counted.overlapping))
    }
    contest = Contest(tuple(found.held_out for found in fits.values()), objective, labels)
    scored = list(held_out.map(contest, _named(report, "choosing"), workers))
    weights = held_out.postures.weights
    return choose_fit(fits, scored, held_out.patients, objective, labels, weights)


def _count_all(fitting: Fitting, held_out: HeldOut, report: Report, workers: Workers) -> Counted:
    count = partial(_count, fitting, held_out.labels)
    counts = held_out.map(count, _named(report, "counting pixels"), workers)
    weights = held_out.postures.weights
    return Counted.of(counts, held_out.labels, len(held_out.names), weights)


def _teller(report: Report, total: int) -> Tell:
    def tell(note: str) -> None:
        report(total, total, note)

    return tell


def _count(fitting: Fitting, labels: LabelSpace, seen: Seen) -> CountedImage:
    return fitting.count(seen, labels)


def _judge(
    found: Fit[Rule],
    held_out: HeldOut,
    wanted: Refinement,
    report: Report,
    workers: Workers,
    objective: Objective,
) -> tuple[list[Judged], Choice | None]:
    """Judge every image once, and on the way try the refinements that are wanted."""
    judge = Judge(found.held_out, found.plain, held_out.labels, found.can_lose, objective)
    say, judged = _named(report, "judging"), list[Judged]()

    def measure(trying: Trying) -> Iterator[StepGains]:
        if judged:
            yield from held_out.map(partial(_try_steps, judge, trying), say, workers)
            return
        for dice, gains in held_out.map(partial(_judge_and_try, judge, trying), say, workers):
            judged.append(dice)
            yield gains

    if wanted is Refinement.none:
        judged.extend(held_out.map(partial(_judge_image, judge), say, workers))
        return judged, None
    grey = _grey_of(held_out.samples.values()) if wanted is Refinement.all else None
    weights = held_out.postures.weights
    choice = choose_refinement(
        measure, held_out.patients, held_out.labels, read_grey=grey, weights=weights
    )
    return judged, choice


def _judge_image(judge: Judge, seen: Seen) -> Judged:
    return judge(seen)[1]


def _judge_and_try(judge: Judge, trying: Trying, seen: Seen) -> tuple[Judged, StepGains]:
    # Not on what the rule itself makes of it: it was fitted on these very images.
    fused, judged = judge(seen)
    return judged, trying(fused, seen[1])


def _try_steps(judge: Judge, trying: Trying, seen: Seen) -> StepGains:
    predictions, truth, patient = seen
    return trying(judge.held_out[patient](predictions, judge.labels), truth)


def _check_refinement(
    found: Fit[Rule],
    choice: Choice,
    held_out: HeldOut,
    objective: Objective,
    report: Report,
    workers: Workers,
) -> tuple[Choice, str]:
    """Keep refinements, which were chosen by Dice, where the objective gains by them, too."""
    labels, weights = held_out.labels, held_out.postures.weights
    grey = _grey_of(held_out.samples.values()) if choice.refine.needs_image else None
    refined: dict[str, Rule] = {
        patient: Refined(rule, choice.refine, grey) for patient, rule in found.held_out.items()
    }
    contest = Contest((found.held_out, refined), objective, labels)
    scored = list(held_out.map(contest, _named(report, "checking refinements"), workers))
    before, after = (
        image_values(Scores(labels, images), objective, weights)
        for images in zip(*scored, strict=True)
    )
    gain = mean_over_people(after - before, held_out.patients, weights)
    what = f"refinements, all together, in {objective}: {gain}"
    if gain.is_gain:
        return choice, f"{what}, on"
    return replace(choice, refine=Refine()), f"{what}, all off"


def _is_on(choice: Choice) -> bool:
    return not choice.refine.all.is_off or bool(choice.refine.groups)


def _grey_of(samples: Iterable[Sample]) -> ReadGrey:
    """Return a reader of images by key that is light to send: without their truth."""
    return partial(_read_grey, {s.key: replace(s, instances=()) for s in samples})


def _read_grey(samples: Mapping[str, Sample], key: str) -> npt.NDArray[np.uint8]:
    return read_pixels(samples[key])


def _refined(rule: Rule, choice: Choice | None) -> Rule:
    if choice is None or not _is_on(choice):
        return rule
    return Refined(rule, choice.refine)


def _watched(rule: Rule, held_out: HeldOut) -> Rule:
    if not held_out.labels.once or len(held_out.samples) < LEAST_IMAGES:
        return rule
    return FlaggedRule(rule, Adjacency.learn(held_out.truth(), held_out.labels))


def _named(report: Report, name: str) -> Report:
    def named(done: int, total: int, note: str) -> None:
        report(done, total, f"{name} {note}".rstrip())

    return named


def describe(found: FitResult, out: Path) -> str:
    """Return what was found as lines for a terminal: first each class, at last what it is worth.

    Args:
        found: the fit.
        out: the rule's file.
    """
    word = f"held out by your word alone: {', '.join(found.by_word)}" if found.by_word else ""
    parts = [_table(found), word, found.postures.describe(), describe_refinement(found.choice)]
    parts += [found.refinement_check, found.fit.note]
    if found.fit.patients < _FEW_PATIENTS:
        parts.append(
            f"{found.fit.patients} patients are few: with fewer than some {_FEW_PATIENTS} a fit "
            "may lose on others what it gains here"
        )
    parts += [_worse_classes(found), _beside_the_best(found)]
    kept = sum(bool(r.keeps) for r in found.comparison.report.values())
    from_one = f"; classes from a single source: {kept}" if kept else ""
    parts.append(f"{out}: fitted on {found.fit.images} images{from_one}")
    parts.append(found.comparison.describe(found.method, _best_alone(found)))
    return "\n".join(part for part in parts if part)


def _alone(found: FitResult) -> dict[str, float]:
    """Return the held-out Dice of each source alone, of those that know all classes."""
    spoken = {name: _spoken(name, found) for name in found.sources}
    whole = len(found.comparison.report)
    return {name: sum(own) / whole for name, own in spoken.items() if len(own) == whole}


def _best_alone(found: FitResult) -> str:
    """Return the best source alone; "" where none knows all classes."""
    means = _alone(found)
    return max(means, key=means.__getitem__, default="")


def _beside_the_best(found: FitResult) -> str:
    """Say how the fused answer stands to the best source alone."""
    best = _best_alone(found)
    if not best:
        return ""
    reached = _alone(found)[best]
    told = f"held-out Dice of the best source alone, {best}: {reached:.4f}"
    if (lost := reached - found.comparison.fused) >= _SHOWN:
        return f"{told}, better than the fusion by {lost:.4f}: take it alone"
    if lost > -_SHOWN:
        return f"{told}: as good as the fusion"
    return f"{told}, which the fusion exceeds by {-lost:.4f}"


def _worse_classes(found: FitResult) -> str:
    """Name the classes that are fused although their best source alone is surely better."""
    lost = [
        f"{label} ({max(r.single, key=r.single.__getitem__)})"
        for label, r in found.comparison.report.items()
        if r.is_seen and not r.keeps and r.likely_gain.is_sure and r.likely_gain.mean < 0
    ]
    if not lost:
        return ""
    what = f"worse fused than by the best source alone: {_some(lost)}"
    if found.method == "hybrid":
        return what
    return f"{what}; --method hybrid takes the source there"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{rest}"


def _table(found: FitResult) -> str:
    """What cross-validation said: who is how good, and what each source adds."""
    comparison, report = found.comparison, found.comparison.report
    sources, won = found.sources, comparison.won
    losses = [n for n in sources if n in next(iter(report.values())).worth]
    of = f", {won.objective}" if won and "shared" in won.objective else ""
    gain = f"likely gain over the best{of} [95 %]"
    rows = [["class", *sources, "mean", "fused", gain, "takes", *(f"-{n}" for n in losses)]]
    for label, r in report.items():
        dice = (f"{r.single[n]:.4f}" if label in found.classes[n] else "-" for n in sources)
        lost = (f"{r.worth[n]:+.4f}" for n in losses)
        values = f"{r.mean:.4f}", f"{r.reached:.4f}", str(r.likely_gain)
        rows.append([label, *dice, *values, r.keeps or ("fusion" if r.is_seen else "-"), *lost])
    all_of = [_mean_of(n, found) for n in sources]
    rows.append(["all", *all_of, f"{comparison.mean:.4f}", f"{comparison.fused:.4f}"])
    what = "; in the last columns what the fusion loses without a source" if losses else ""
    images = f"{found.fit.images} images of {found.fit.patients} patients"
    lines = [f"held-out Dice on {images}{what}", *_aligned(rows)]
    if any("*" in mean for mean in all_of):
        lines.append("* of the classes that it speaks of")
    if unseen := [label for label, r in report.items() if not r.is_seen]:
        lines.append(
            f"no image has {_some(unseen)}: nothing can be learned of it; it is fused with its "
            "group's weights"
        )
    if any(r.likely_gain != r.gain for r in report.values()):
        lines.append("likely gain: of the pool over the best source; related classes' gains count")
    return "\n".join(lines)


def _mean_of(source: str, found: FitResult) -> str:
    """Return a source's mean over the classes that it speaks of."""
    values = _spoken(source, found)
    if not values:
        return "-"
    is_whole = len(values) == len(found.comparison.report)
    return f"{sum(values) / len(values):.4f}{'' if is_whole else '*'}"


def _spoken(source: str, found: FitResult) -> list[float]:
    """Return a source's Dice of each class that it speaks of."""
    report, classes = found.comparison.report, found.classes[source]
    return [r.single[source] for label, r in report.items() if label in classes]


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as columns: the first to the left, all others to the right."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        yield "  ".join([first, *rest]).rstrip()


def describe_refinement(choice: Choice | None) -> str:
    """Return what refinements were tried, those that are on, as lines for a terminal."""
    if choice is None:
        return ""
    chosen = [str(trial) for trial in choice.trials if trial.is_on]
    head = f"refinements: {len(choice.trials)} tried on {choice.images} held-out images, "
    taken = [f"taken: {line}" for line in choice.describe()]
    return "\n".join([head + (f"{len(chosen)} help" if chosen else "none helps"), *chosen, *taken])
