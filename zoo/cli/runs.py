"""Commands around many runs, and around the computer they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.defaults import TAKEN, for_data
from zoo.cli.options import Broken, Data, EditsFile, From, command, command_line, say


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
    source = DataSource.open(data, data_format, edits, broken)
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
    from zoo.runs.table import check_table, find_runs, format_table, tabulate, write_table

    check_table(csv_out)
    found = find_runs(folders)
    scores = read_public(public, found) if public else None
    columns, rows = tabulate(found, sort, scores)
    if csv_out is not None:
        write_table(csv_out, columns, rows)
    say(format_table(columns, rows))
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
