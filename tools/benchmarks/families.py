"""What to start with: families trained for the same minutes of a processor core on the same images.

Each model is tried for one epoch and for three, which says what an epoch costs; then it is trained
for as many epochs as fit, with a schedule that ends there, and judged once on one fold that it has
not seen. Nothing is chosen by the figures that are reported.
"""

import json
import math
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from safetensors import safe_open

import configs
from benchmarks.real import describe_processor, parse_model, zoo
from benchmarks.sides import watch
from zoo.families import FAMILIES
from zoo.run_files.checkpoints import BEST

_PROBES = (1, 3)
_MANY = 8
# Second looks need the predictions of others.
_NOT_ALONE = ("refiner",)


@dataclass(frozen=True)
class Trained:
    """One line of the table.

    Attributes:
        name: of the model.
        epochs: that it was trained.
        core_minutes: of training, starting and validation included.
        peak_gb: largest resident memory of the training process.
        parameters: numbers in the network's weights, in millions.
        dice: mean over held-out images, then classes, and its 95 % interval over patients.
        parts: Dice of each class; of each group where there are many classes.
    """

    name: str
    epochs: int
    core_minutes: float
    peak_gb: float
    parameters: float
    dice: tuple[float, float, float]
    parts: Mapping[str, float]


def run(
    data: Annotated[Path, typer.Argument(help="A data set in any readable format.")],
    out: Annotated[
        Path, typer.Option(help="Folder of runs and stores; started again, it goes on.")
    ],
    minutes: Annotated[float, typer.Option(help="Of a processor core, for each model.")] = 4,
    model: Annotated[
        list[str] | None,
        typer.Option(help="'NAME: FAMILY ...' as after `zoo train`; beside the configs 'laptop'."),
    ] = None,
    only: Annotated[str, typer.Option(help="Some of the names, with commas between.")] = "",
    labels: Annotated[str, typer.Option(help="Classes, as `zoo split --labels` takes them.")] = "",
    group_by: Annotated[str, typer.Option(help="As `zoo split --group-by` takes it.")] = "",
    folds: Annotated[int, typer.Option(help="Folds by patient, of which the first is used.")] = 3,
    seed: Annotated[int, typer.Option(help="Of folds and of training.")] = 0,
) -> None:
    """Train every family's config `laptop` for the same time, judge it on one fold, compare."""
    models = {
        family: [family, "--config", "laptop"]
        for family in FAMILIES
        if family not in _NOT_ALONE and "laptop" in configs.names(family)
    }
    models |= dict(map(parse_model, model or ()))
    if only:
        models = {name: models[name] for name in only.split(",")}
    out.mkdir(parents=True, exist_ok=True)
    split = out / "split.json"
    if not split.is_file():
        wanted = ["--labels", labels] if labels else []
        wanted += ["--group-by", group_by] if group_by else []
        zoo("split", data, "--out", split, "--folds", folds, "--seed", seed, *wanted)
    trained = [
        _train(name, words, data, out, split, seed, minutes) for name, words in models.items()
    ]
    text = describe(data, trained, models, split, minutes, seed)
    (out / "families.md").write_text(text, encoding="utf-8")
    print(text)


def _train(
    name: str,
    words: Sequence[str],
    data: Path,
    out: Path,
    split: Path,
    seed: int,
    minutes: float,
) -> Trained:
    done = out / f"{name}.json"
    if not done.is_file():
        family, *further = words
        common = ["train", family, *further, "--data", data, "--split", split, "--fold", "0"]
        common += [f"seed={seed}", "--out"]
        probe = out / "probe"
        costs = []
        for epochs in _PROBES:
            shutil.rmtree(probe, ignore_errors=True)
            costs.append(_cost([*common, probe, f"epochs={epochs}", f"validate_every={epochs}"])[0])
        shutil.rmtree(probe, ignore_errors=True)
        an_epoch = max(costs[1] - costs[0], 1e-3) / (_PROBES[1] - _PROBES[0])
        epochs = max(1, int((60 * minutes - costs[0]) / an_epoch) + 1)
        folder, store, scores = out / "runs" / name, out / "val" / name, out / f"{name}-scores.json"
        # What was cut off was meant for another number of epochs, perhaps.
        shutil.rmtree(folder, ignore_errors=True)
        seconds, peak = _cost([*common, folder, f"epochs={epochs}", f"validate_every={epochs}"])
        where = ["--data", data, "--split", split, "--subset", "val"]
        zoo("predict", folder, *where[:2], *where[4:], "--out", store)
        zoo("evaluate", store, *where, "--fold", "0", "--json", scores)
        record = json.loads(scores.read_text(encoding="utf-8"))
        overall = record["measures"]["dice"]["overall"]
        found = Trained(
            name,
            epochs,
            seconds / 60,
            peak,
            _count(folder / BEST),
            (overall["mean"], *overall["interval"]),
            record["dice_per_class"]
            if len(record["dice_per_class"]) <= _MANY
            else record["dice_per_group"],
        )
        done.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return Trained(**json.loads(done.read_text(encoding="utf-8")))


def _cost(words: Sequence[object]) -> tuple[float, float]:
    """Run a command; return the seconds of a core and the largest memory (GB) that it took."""
    command = [sys.executable, "-m", "zoo", *map(str, words)]
    print("$", shlex.join(command[2:]), flush=True)
    found = watch(command, env={})
    return found["core_seconds"], found["peak_mb"] / 1024


def _count(weights: Path) -> float:
    """Return the numbers in a weights file, in millions."""
    with safe_open(weights, framework="np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(map(math.prod, shapes)) / 1e6


def describe(
    data: Path,
    trained: Sequence[Trained],
    models: Mapping[str, Sequence[str]],
    split: Path,
    minutes: float,
    seed: int,
) -> str:
    """Return the table, best first, and all that is needed to get it again, as Markdown."""
    fold = json.loads(split.read_text(encoding="utf-8"))["folds"][0]["val"]
    parts = list(trained[0].parts)
    best_first = sorted(trained, key=lambda found: -found.dice[0])
    head = ["", "Dice [95 %]", *parts, "epochs", "core minutes", "memory, GB", "parameters, M"]
    lines = [
        f"## {data.name}: {minutes:g} minutes of a core for each",
        "",
        f"Held out: {len(fold)} images, fold 0 by patient, seed {seed}; {describe_processor()}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *(_row(found, parts) for found in best_first),
        "",
        *(f"- {name}: `zoo train {shlex.join(words)}`" for name, words in models.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(found: Trained, parts: Sequence[str]) -> str:
    mean, low, high = found.dice
    cells = [found.name, f"{mean:.4f} [{low:.4f}, {high:.4f}]"]
    cells += [f"{found.parts[name]:.3f}" if name in found.parts else "-" for name in parts]
    cells += [str(found.epochs), f"{found.core_minutes:.1f}", f"{found.peak_gb:.1f}"]
    return "| " + " | ".join([*cells, f"{found.parameters:.1f}"]) + " |"
