"""Commands around predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.defaults import TAKEN, for_check, for_evaluate, for_fit, for_fuse, for_review
from zoo.cli.options import (
    Broken,
    Data,
    EditsFile,
    From,
    HeldOutFold,
    Images,
    Jobs,
    Labels,
    SplitFile,
    SubmissionLabels,
    Subset,
    check_json,
    command,
    command_line,
    say,
    write_json,
)

Sources = Annotated[list[Path], typer.Argument(help="Prediction stores and submissions (CSV).")]
Method = Annotated[
    str | None,
    typer.Option(help="Rule with its usual options: see `zoo list fusions`. Or give --config."),
]
FusionConfig = Annotated[
    Path | None, typer.Option(help="Fusion config: a file from `zoo fit`, or a shipped name.")
]
FittedSources = Annotated[
    list[Path],
    typer.Argument(
        help="Prediction stores, one a model, and submissions (CSV); the stores of runs/*/val "
        "and val/* without."
    ),
]

# By these keys scores that were written before are recognised.
_SCORES = ("patients", "measures", "per_image")


@command(fill=for_fit)
def fit(
    predictions: FittedSources = TAKEN,
    data: Data = TAKEN,
    out: Annotated[
        Path, typer.Option(help="Fusion config to write (YAML); by default fusion.yaml.")
    ] = TAKEN,
    method: Annotated[
        str, typer.Option(help="The rule: mean, weighted, vote, classwise, hybrid.")
    ] = "hybrid",
    refine: Annotated[
        str,
        typer.Option(
            help="Refinements to try: shape (thresholds, holes, parts, outlines), all (and a CRF), "
            "none. What does not help stays off."
        ),
    ] = "shape",
    bent: Annotated[
        str | None,
        typer.Option(
            help="Share of images of a bent posture among those to fuse (0 to 1), or a prediction "
            "store of these to count them in: held-out images count accordingly."
        ),
    ] = None,
    held_out: Annotated[
        str,
        typer.Option(
            help="Sources that you know to be held out although nothing in them says so, such as "
            "submissions: names (of folder or file, without suffix) with commas, or all. It is "
            "believed, and noted in the config."
        ),
    ] = "",
    labels: SubmissionLabels = None,
    objective: Annotated[
        str,
        typer.Option(
            help="What the hybrid is to win: dice, shared (pixels that classes share, pooled), nsd "
            "(surface Dice), or weights of these such as dice:.7,shared:.3."
        ),
    ] = "dice",
    jobs: Jobs = 1,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Fit a fusion rule on predictions of images that the models did not learn from."""
    from fusion.fit.objective import Objective
    from zoo.progress import bar
    from zoo.results.fit import Refinement, describe
    from zoo.results.fit import fit as fit_rule
    from zoo.results.posture_weights import read_share
    from zoo.source import DataSource

    if refine not in set(Refinement):
        raise ValueError(f"--refine: expected shape, all or none, found '{refine}'")
    aim = Objective.parse(objective)
    source = DataSource.open(data, data_format, edits, broken, images)
    with bar("fit") as report:
        wanted = Refinement(refine)
        meant = None if bent is None else read_share(bent)
        stated = [name.strip() for name in held_out.split(",") if name.strip()]
        found = fit_rule(
            predictions,
            source,
            out,
            report,
            wanted,
            method,
            jobs,
            meant,
            stated,
            labels,
            aim,
        )
    say(describe(found, out))


@command(fill=for_fuse)
def fuse(
    sources: Sources = TAKEN,
    out: Annotated[
        Path,
        typer.Option(
            help="File (csv, coco_results) or folder (other formats) to write; by default "
            "submission.csv."
        ),
    ] = TAKEN,
    method: Method = None,
    config: FusionConfig = None,
    to: Annotated[
        str,
        typer.Option(
            "--format",
            help="What to write: csv, store, coco_results (objects with scores, as pycocotools "
            "takes them), or a data set: see `zoo list formats`.",
        ),
    ] = "csv",
    layout: Annotated[
        str, typer.Option(help="Variant of a data set format; see `zoo list formats`.")
    ] = "",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set with the images. Needed to write a data set or COCO's results, for a "
            "CRF, and where submissions alone do not tell the images' sizes."
        ),
    ] = None,
    subset: Annotated[
        Subset, typer.Option(help="The data set's images that may occur.")
    ] = Subset.all,
    split: SplitFile = None,
    fold: HeldOutFold = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label space of submissions: a shipped name or a YAML file; by default what a "
            "store names, or what their classes tell."
        ),
    ] = None,
    floor: Annotated[
        float, typer.Option(help="Leave out objects whose mean probability is lower (0 to 1).")
    ] = 0.0,
    objects: Annotated[
        bool,
        typer.Option(
            "--objects",
            help="For --format store: single objects, kept apart as instance sources have found "
            "them, where a class may occur several times; data sets always have these.",
        ),
    ] = False,
    jobs: Jobs = 1,
    on: Annotated[
        str,
        typer.Option(
            help="Work on a Ray cluster: ray (this machine's, or one that is started), auto (this "
            "machine's), HOST:PORT or ray://HOST:PORT. Each node needs maskzoo, and the sources "
            "(and images, for a CRF) on a shared disk at the same absolute paths. A cluster that "
            "asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN in the environment."
        ),
    ] = "",
) -> None:
    """Fuse prediction stores and submissions into one RLE submission, store or data set."""
    from zoo.progress import bar
    from zoo.results.fuse import fuse as fuse_sources
    from zoo.source import DataSource

    if on:
        # Nodes work in other folders.
        sources, data = [path.absolute() for path in sources], data and data.absolute()
    source = DataSource.open(data, data_format, edits, broken, images) if data else None
    if source and split:
        source = source.holding_out(split, fold)
    with bar("fuse") as report:
        result = fuse_sources(
            sources,
            out,
            method=method,
            config=config,
            to=to,
            data=source,
            subset=subset.value,
            labels_name=labels,
            floor=floor,
            jobs=jobs,
            on=on,
            is_apart=objects,
            layout=layout,
            command=command_line(),
            report=report,
        )
    say(result.describe(out))


@command(fill=for_review)
def review(
    sources: Sources = TAKEN,
    data: Data = TAKEN,
    out: Annotated[
        Path, typer.Option(help="Folder to write: drafts, review.csv, README.txt.")
    ] = Path("review"),
    method: Method = None,
    config: FusionConfig = None,
    to: Annotated[
        str,
        typer.Option(
            help="Format of the drafts: cvat (Datumaro's, which CVAT imports and exports), coco, "
            "labelme: see `zoo list formats`."
        ),
    ] = "cvat",
    top: Annotated[int, typer.Option(help="How many images, the most valuable ones.")] = 10,
    subset: Annotated[
        Subset, typer.Option(help="The data set's images that may occur.")
    ] = Subset.all,
    split: SplitFile = None,
    fold: HeldOutFold = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: SubmissionLabels = None,
    jobs: Jobs = 1,
) -> None:
    """Write the images whose correction is worth most, with fused masks as drafts, for CVAT.

    Images are ranked by the Dice that their fused masks are expected to lack. Corrected drafts are
    given to any command with --edits.
    """
    from zoo.progress import bar
    from zoo.results.review import review as write_review
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits, broken, images)
    if split:
        source = source.holding_out(split, fold)
    with bar("review") as report:
        found = write_review(
            sources,
            source,
            out,
            method=method,
            config=config,
            to=to,
            top=top,
            subset=subset.value,
            labels_name=labels,
            jobs=jobs,
            command=command_line(),
            report=report,
        )
    say(found.describe(out))


@command(fill=for_check)
def check(
    submission: Annotated[
        Path, typer.Argument(help="Submission (CSV); submission.csv without.")
    ] = TAKEN,
    data: Data = TAKEN,
    subset: Annotated[
        Subset,
        typer.Option(
            help="The data set's images that it has to cover: test, or val with --split or --fold."
        ),
    ] = TAKEN,
    split: SplitFile = None,
    fold: HeldOutFold = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: Labels = None,
) -> None:
    """Check a submission against a data set: rows, order, names, codes, sizes, turned masks."""
    from zoo.results.check import review_submission
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits, broken, images)
    if split:
        source = source.holding_out(split, fold)
    found = review_submission(submission, source, subset.value, labels)
    for note in found.notes:
        say(f"note: {note}")
    if found.problems:
        raise ValueError("\n".join(f"{submission}: {problem}" for problem in found.problems))
    say(f"{submission}: valid")


@command(fill=for_evaluate)
def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Prediction store or submission (CSV); without, what the run in runs/ held out."
        ),
    ] = TAKEN,
    data: Data = TAKEN,
    metrics: Annotated[
        str,
        typer.Option(
            help="Some of dice, iou, nsd, hd95, asd, ber, overlap, confusion, presence, objects, "
            "with commas; or fast (dice, iou, presence), with objects where an image has several "
            "of a class; or all."
        ),
    ] = "fast",
    against: Annotated[
        Path | None,
        typer.Option(help="Another one of the same images: shown is the first minus this one."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    subset: Annotated[
        Subset,
        typer.Option(
            help="The data set's images that a submission covers: test, or val with --split or "
            "--fold; a store lists its own."
        ),
    ] = TAKEN,
    split: SplitFile = None,
    fold: HeldOutFold = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
    labels: SubmissionLabels = None,
    jobs: Jobs = 1,
) -> None:
    """Score a prediction store or a submission: overlap, outlines, shared pixels, lost objects.

    With --edits, what these corrections change is shown, too: scores before and after.
    """
    from fusion.metrics.measures import FAST, parse_measures
    from fusion.metrics.summary import compare_objects, has_several
    from zoo.progress import bar
    from zoo.results import score_table
    from zoo.results.corrections import score_corrections
    from zoo.results.scoring import check_predictions, common_images
    from zoo.results.scoring import evaluate as score
    from zoo.results.truth import short_names
    from zoo.source import DataSource

    measures = parse_measures(metrics)
    check_json(json_out, *_SCORES)
    paths = (predictions, against) if against else (predictions,)
    for path in paths:
        check_predictions(path)
    source = DataSource.open(data, data_format, edits, broken, images)
    # Whether there are several objects of a class shows when they are read.
    may_show_objects = measures == FAST and not source.classes.once
    measured = (*measures, "objects") if may_show_objects else measures
    if split:
        source = source.holding_out(split, fold)
    found = []
    for path in paths:
        with bar(f"evaluate {path.name}") as report:
            found.append(score(path, source, labels, subset.value, report, measured, jobs))
    if may_show_objects and has_several(found[0]):
        measures = measured
    summaries = score_table.summarize_all(found[0], measures)
    record = score_table.record(found[0], measures, summaries)
    lines = [score_table.describe(found[0], measures, summaries)]
    if source.edits:
        with bar(f"before corrections {predictions.name}") as report:
            effect = score_corrections(
                predictions, source, labels, subset.value, report, found[0], measures, jobs
            )
        record["corrections"] = effect.record(measures)
        lines.append(effect.describe(measures))
    if against:
        names = short_names((predictions, against))
        sides = common_images((found[0], found[1]), names)
        differences = score_table.compare_all(*sides, measures)
        record["against"] = {
            "source": str(against),
            "difference": " - ".join(names),
            "images": len(sides[0].images),
        } | {name: summary.record() for name, summary in differences.items()}
        objects = compare_objects(*sides) if "objects" in measures else {}
        if objects:
            record["against"]["objects"] = {
                name: {n: own.record() if own else None for n, own in each.items()}
                for name, each in objects.items()
            }
        lines.append(score_table.describe_comparison(sides[0], differences, names, objects))
    if json_out is not None:
        write_json(json_out, record, *_SCORES)
    say("\n\n".join(lines))
