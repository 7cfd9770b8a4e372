"""Commands around many runs, and around the computer they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from zoo.cli.defaults import TAKEN, for_ablate, for_data
from zoo.cli.options import (
    Broken,
    Data,
    EditsFile,
    From,
    Images,
    Labels,
    command,
    command_line,
    say,
    words,
)


@command(fill=for_data)
def sweep(
    config: Annotated[str, typer.Argument(help="Shipped sweep or YAML file: zoo list configs")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep; a stopped sweep continues.")],
    data: Data = TAKEN,
    split: Annotated[
        Path | None, typer.Option(help="Split file; a data set converted with one carries it.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="The fold to hold out; 0 by default.")] = None,
    trials: Annotated[
        int | None, typer.Option(help="In place of the file's; a finished sweep goes on.", min=1)
    ] = None,
    wandb_file: Annotated[
        Path | None, typer.Option(help="Only write the sweep for `wandb sweep FILE`.")
    ] = None,
    project: Annotated[str, typer.Option(help="For --wandb-file: the project.")] = "maskzoo",
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Train many runs of one config with some keys varied; write the best one's config."""
    import yaml

    from converters.files.outputs import check_file
    from converters.files.provenance import atomic_write_text
    from zoo.progress import bar
    from zoo.runs.sweeps.config import load_sweep, write_wandb_sweep
    from zoo.runs.sweeps.sweep import check_space, describe, run_sweep
    from zoo.source import DataSource

    chosen = load_sweep(config, trials)
    source = DataSource.open(data, data_format, edits, broken, images)
    if wandb_file is not None:
        check_space(chosen, source)
        check_file(wandb_file, "a sweep for W&B", lambda text: "program: zoo" in text)
        found = write_wandb_sweep(chosen, data, split, fold, out, project)
        atomic_write_text(wandb_file, yaml.safe_dump(found, sort_keys=False))
        say(f"{wandb_file}: start it with: wandb sweep {wandb_file}")
        return
    with bar("sweep") as report:
        done = run_sweep(
            chosen,
            source,
            out,
            split_path=split,
            fold=fold,
            command=command_line(),
            report=report,
        )
    say(describe(done, out))


@command(fill=for_ablate)
def ablate(
    family: Annotated[str, typer.Argument(help="smp, segformer, yolo, ...: zoo list families")],
    config: Annotated[
        str,
        typer.Option(help="The base: shipped config or YAML file; by default as `zoo train`."),
    ] = TAKEN,
    data: Data = TAKEN,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the ablation; a stopped one continues. By default "
            "ablations/FAMILY-CONFIG."
        ),
    ] = TAKEN,
    given: Annotated[
        list[str] | None, typer.Argument(help="key.sub=value ... of all runs, the base's too.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--change", help="One change, in place of all the key has: --change augment=[] ..."
        ),
    ] = None,
    changes: Annotated[
        str, typer.Option(help="Shipped changes or YAML file: each name -> {key.sub: value}.")
    ] = "",
    split: Annotated[
        Path | None, typer.Option(help="Split file; a data set converted with one carries it.")
    ] = None,
    folds: Annotated[
        str, typer.Option(help="Held out in turn: all, or 0,1,...; one fold without.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="0,1,2: a run for each; the config's without.")] = "",
    score: Annotated[str, typer.Option(help="Column of metrics.csv; mean Dice or IoU.")] = "",
    over: Annotated[
        Literal["patients", "runs"], typer.Option(help="What the intervals are over.")
    ] = "patients",
    public: Annotated[
        Path | None, typer.Option(help="CSV with columns run,score: public scores of runs.")
    ] = None,
    on: Annotated[str, typer.Option(help="A Ray cluster that trains: ray, auto, HOST:PORT.")] = "",
    jobs: Annotated[int, typer.Option(help="Processes that train at the same time.", min=1)] = 1,
    labels: Labels = None,
    data_format: From = None,
    edits: EditsFile = None,
    broken: Broken = "refuse",
    images: Images = None,
) -> None:
    """Train a config as it is and with each change alone; say what each one gains."""
    from zoo.progress import bar
    from zoo.runs.ablations.ablation import Ablation, run_ablation
    from zoo.runs.ablations.changes import load_changes, parse_change
    from zoo.runs.ablations.table import describe, outcomes, write_tables
    from zoo.runs.correlation import read_public
    from zoo.runs.table import find_runs
    from zoo.source import DataSource

    source = DataSource.open(data, data_format, edits, broken, images).choosing(labels)
    chosen = Ablation(
        family,
        config,
        (*map(parse_change, change or []), *(load_changes(changes) if changes else ())),
        tuple(given or []),
        fold_numbers(folds, split or data / "split.json"),
        whole_numbers(seeds, "--seeds"),
    )
    with bar("ablate") as report:
        runs, names = run_ablation(
            chosen,
            source,
            out,
            split_path=split,
            command=command_line(),
            report=report,
            jobs=jobs,
            on=on,
        )
    scores = {}
    if public is not None:
        summaries = find_runs([out])
        known = read_public(public, summaries)
        scores = {run.path: known[run.name] for run in summaries if run.name in known}
    found = outcomes(runs, names, score, over, scores)
    write_tables(found, names, out)
    say(describe(found, names, out, over))


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers of a list with commas, each once.

    Raises:
        ValueError: something else is there, or one is there twice.
    """
    found = words(text)
    if not all(word.isdecimal() for word in found) or len(set(found)) < len(found):
        raise ValueError(f"{option}: expected whole numbers such as 0,1,2, each once: '{text}'")
    return tuple(map(int, found))


def fold_numbers(text: str, split: Path) -> tuple[int, ...]:
    """Return the folds that `all` of a split, or a list with commas, names.

    Raises:
        ValueError: something else is there, or no split.
    """
    from converters.splits.split import Split

    if text != "all":
        return whole_numbers(text, "--folds")
    return tuple(range(len(Split.load(split).folds)))


@command("runs")
def runs_(
    folders: Annotated[list[Path], typer.Argument(help="Runs, or folders of runs or sweeps.")],
    sort: Annotated[str, typer.Option(help="A column: best, last, a group, a key.")] = "best",
    csv_out: Annotated[Path | None, typer.Option("--csv", help="The table as CSV.")] = None,
    public: Annotated[
        Path | None, typer.Option(help="CSV with columns run,score: how validation follows it.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="With --public: also within runs that share this setting.")
    ] = "seed",
) -> None:
    """List runs by the settings in which they differ, with their scores."""
    from zoo.runs.correlation import correlations, describe_correlations, read_public
    from zoo.runs.table import (
        check_table,
        find_runs,
        format_table,
        shown_columns,
        tabulate,
        write_table,
    )

    check_table(csv_out)
    found = find_runs(folders)
    scores = read_public(public, found) if public else None
    columns, rows = tabulate(found, sort, scores)
    if csv_out is not None:
        write_table(csv_out, columns, rows)
    shown = shown_columns(found, columns, sort)
    places = [columns.index(name) for name in shown]
    say(format_table(shown, [[row[place] for place in places] for row in rows]))
    if left := len(columns) - len(shown):
        say(f"{left} settings that not all of these families have are left out; --csv keeps them")
    if scores is not None:
        say("\n" + describe_correlations(correlations(found, scores, by)))


@command()
def doctor(
    folder: Annotated[Path, typer.Option(help="Where runs will lie: its disk.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Findings and facts as JSON.")] = False,
) -> None:
    """Say what will not run on this computer, be slow, or oblige; code 1 if it will not run."""
    from zoo.machine.doctor import describe, diagnose, has_failed, to_json
    from zoo.machine.facts import collect

    facts = collect(folder)
    findings = diagnose(facts)
    say(to_json(facts, findings) if as_json else describe(findings))
    if has_failed(findings):
        raise typer.Exit(1)
