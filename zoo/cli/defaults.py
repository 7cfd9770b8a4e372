"""What commands take where nothing is given: the data set and the results that lie nearest.

What was taken is the first line that a command prints. What is missing is said all at once, with
the commands that make it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import typer

import configs

# The value of a parameter that is filled in here where the user gives none.
TAKEN: Any = None
RUNS, SPLIT, FUSION = Path("runs"), Path("split.json"), Path("fusion.yaml")
ABLATIONS = Path("ablations")
SUBMISSION = Path("submission.csv")
# What `zoo convert` makes of predictions of other programs.
STORE = "store"
# Folders of runs, in which no data set is looked for.
_RESULTS = (RUNS.name, ABLATIONS.name)
FOLDS, _SHOWN = 5, 5
_PHANTOM = "make synthetic hands to try things out: zoo phantom data"
_DEPTH, _MOST_FOLDERS = 2, 200
_CHANNEL = re.compile(r"_\d{4}$")
# Folders that are parts of a data set.
_PART = re.compile(r"annotations?|labels?|images?|data|(train|val|valid|validation|test)\d*", re.I)


class Taken:
    """Collects what is taken and what is missing, and says it.

    Args:
        given: the command's parameters; what is None may be filled in.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self._found: list[str] = []
        self._missing: list[str] = []

    def take(self, name: str, value: Any, what: str = "") -> None:
        """Fill in a parameter."""
        self.given[name] = value
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        self._found.append(what if value is None else f"{what or name} {shown}")

    def lack(self, line: str) -> None:
        """Take down something that is missing, and how to make it."""
        self._missing.append(line)

    def say(self) -> None:
        """Print what was taken.

        Raises:
            ValueError: something is missing; a line each.
        """
        if self._missing:
            if len(self._missing) == 1:
                raise ValueError(f"{Path.cwd()}: expected {self._missing[0].strip()}")
            raise ValueError("\n".join([f"{Path.cwd()}: expected", *self._missing]))
        if self._found:
            typer.echo(f"taken: {'; '.join(self._found)}")

    def data(
        self, is_needed: bool = True, name: str = "data", is_named: bool = True
    ) -> Path | None:
        """Take the nearest data set, if none is given.

        Args:
            is_needed: whether it is missing where there is none.
            name: of the parameter.
            is_named: whether `--from` is its format, so that this folder is meant.
        """
        if self.given.get(name) is not None:
            return Path(self.given[name])
        if is_named and self.given.get("data_format"):
            # Named, so that nothing has to be recognised.
            self.take(name, Path(), "data")
            return Path()
        found = nearest_data()
        if len(found) == 1:
            self.take(name, found[0], "data")
            return found[0]
        if len(found) > 1 and is_needed:
            listed = ", ".join(map(str, found[:_SHOWN]))
            self.lack(f"  one data set, found {len(found)} ({listed}): name one of them")
        elif is_needed:
            self.lack(f"  a data set, found none here; see `zoo list formats`, or {_PHANTOM}")
        return None

    def folds(self, data: Path | None) -> None:
        """Take the split that tells a data set's held-out images, where they are asked for.

        Raises:
            ValueError: a split or a fold is given, and other images are asked for.
        """
        subset = self.given["subset"]
        if subset != "val":
            for name in ("split", "fold"):
                if self.given[name] is not None:
                    raise ValueError(
                        f"--{name}: expected --subset val with it, found --subset {subset}"
                    )
        elif self.given["split"] is None and data is not None:
            source = self.given.get("predictions")
            if source and source.is_dir() and self.given["fold"] is None:
                return  # A store lists its own images.
            self._nearest_split(data)

    def split_of_fold(self, data: Path | None) -> None:
        """Take the split that lies nearest, where a fold is asked for and no split."""
        asks = self.given["fold"] is not None and self.given["split"] is None
        if asks and data is not None:
            self._nearest_split(data)

    def _nearest_split(self, data: Path) -> None:
        if found := split_beside(data):
            self.take("split", found)
        else:
            self.lack(f"  --split SPLIT.json, found none in {data} and here: zoo split {data}")


def split_beside(data: Path) -> Path | None:
    """Return the split that a data set carries, else the one in this folder, else one beside it."""
    places = (data / SPLIT, SPLIT, data.parent / SPLIT)
    return next((path for path in places if path.is_file()), None)


def nearest_data() -> list[Path]:
    """Return the data sets that are nearest: this folder, those in it, or one above it.

    What was converted from another one that lies beside it does not count.
    """
    level = [Path()]
    for _ in range(_DEPTH + 1):
        if found := [path for path in level if _is_data(path)]:
            own = [path for path in found if not _is_converted(path)]
            return [_innermost(path) for path in own or _not_of_others(found)]
        level = list(islice((child for path in level for child in _folders(path)), _MOST_FOLDERS))
    home = Path.home()
    above = [
        p for p in Path.cwd().parents[:_DEPTH] if p.name and p != home and p not in home.parents
    ]
    return next(([path] for path in above if _is_data(path) and not _holds_data(path)), [])


def _innermost(path: Path) -> Path:
    """Return the one folder in a data set that is a data set itself, if it is not a part of it."""
    children = [c for c in _folders(path) if _is_data(c) and not _is_converted(c)]
    if len(children) != 1 or _PART.fullmatch(children[0].name):
        return path
    return children[0]


def _holds_data(path: Path) -> bool:
    """Tell whether a folder is but one in which data sets lie."""
    children = islice(_folders(path), _MOST_FOLDERS)
    return any(_is_data(child) for child in children if not _PART.fullmatch(child.name))


def _folders(path: Path) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _RESULTS:
            yield path / entry.name


def _is_data(path: Path) -> bool:
    from converters import is_data_set

    # Images without annotations lie everywhere; whoever means them names their folder.
    return is_data_set(path)


def _has_only_images(given: dict[str, Any]) -> bool:
    import converters

    if given["data_format"] or given["data"] is None:
        return bool(given["data_format"] == "images")
    try:
        return converters.recognise(Path(given["data"])) == "images"
    except ValueError:
        return False


def _is_converted(path: Path) -> bool:
    from converters import FORMATS
    from converters.files.provenance import read_provenance

    return read_provenance(path).get("kind") in FORMATS


def _not_of_others(found: list[Path]) -> list[Path]:
    """Return the data sets that were not made of another one of these."""
    from converters.files.provenance import source_of

    places = {path.resolve() for path in found}
    return [path for path in found if source_of(path) not in places] or found


# --- one function a command


def for_convert(given: dict[str, Any]) -> None:
    """Take the nearest data set, a folder that is called as the format, and a fold's split."""
    taken = Taken(given)
    if given["to"] == STORE:
        _for_import(given, taken)
        return
    if (known := given["known"]) is not None:
        if given["data"] is not None:
            raise ValueError(f"--data: expected one data set, found {given['data']} and {known}")
        given["data"] = known
    taken.split_of_fold(taken.data())
    if not given["to"] and not given["suggest"]:
        taken.lack("  --to FORMAT, one of those of `zoo list formats`")
    elif given["out"] is None and not given["suggest"]:
        # Late: help and completion need it not.
        from converters.files.provenance import PROVENANCE

        place = Path(given["to"])
        # A data set of others may have a folder of that name: its masks, say.
        is_theirs = place.exists() and not (place / PROVENANCE).is_file()
        taken.take("out", Path(f"{place}-converted") if is_theirs else place)
    taken.say()


def _for_import(given: dict[str, Any], taken: Taken) -> None:
    """Take the nearest data set, and a place that is called as the predictions."""
    path = given["data"]
    if path is None:
        taken.lack("  PREDICTIONS: COCO results, a table of codes, or a folder of another program")
    elif given["out"] is None:
        name = path.stem if path.is_file() else f"{path.absolute().name}-{STORE}"
        part = "" if given["fold"] is None else f"-fold-{given['fold']}"
        taken.take("out", Path(name + part))
    is_open = given["known"] is None
    # `--from` is the format of the predictions here.
    found = taken.data(name="known", is_named=False)
    if is_open and path is not None and found is not None and found.resolve() == path.resolve():
        raise ValueError(
            f"{path}: expected the data set of the images that are predicted, found the "
            "predictions alone: give it, --data DATA"
        )
    taken.split_of_fold(found)
    taken.say()


def for_augment(given: dict[str, Any]) -> None:
    """Take the nearest data set, and the split that a fold is of."""
    taken = Taken(given)
    taken.split_of_fold(taken.data())
    taken.say()


def for_data(given: dict[str, Any]) -> None:
    """Take the nearest data set."""
    taken = Taken(given)
    taken.data()
    taken.say()


def for_run(given: dict[str, Any]) -> None:
    """Take the nearest data set, where none is given, nor a recipe that names one."""
    taken = Taken(given)
    if given["what"] is None:
        taken.data(name="what")
    elif (folder := _folder_of(given["what"])) is not None:
        taken.take("what", folder, "data")
    elif given["data"] is None and _leaves_data_open(given["what"]):
        taken.data(is_needed=False)
    taken.say()


def _folder_of(file: Path) -> Path | None:
    """Return the folder of the data set that an annotation file names; None of anything else.

    Raises:
        ValueError: it is one of several.
    """
    import converters

    try:
        place = converters.locate(file) if file.is_file() else None
    except ValueError:
        return None
    if place and place.annotations:
        raise ValueError(
            f"{file}: expected a data set's folder, found one of several annotation files: "
            f"zoo convert {file} --to coco makes a data set of it"
        )
    return place.folder if place else None


def _leaves_data_open(what: Path) -> bool:
    from zoo.pipeline.recipe import KIND, Recipe

    if str(what) not in configs.names(KIND) and what.suffix not in (".yaml", ".yml"):
        return False
    recipe = Recipe.load(str(what))
    return recipe.data is None and recipe.phantom is None


def for_view(given: dict[str, Any]) -> None:
    """Take the nearest data set and the runs below `runs/`, where nothing is given."""
    taken = Taken(given)
    if not given["paths"]:
        given["paths"] = None
        runs = run_folders()
        data = taken.data(is_needed=not runs, name="paths")
        if runs:
            taken.take("paths", runs, "runs")
        given["paths"] = [*([data] if data else []), *runs]
    taken.say()


def for_train(given: dict[str, Any]) -> None:
    """Take the nearest data set, its folds (made, if there are none), config and run folder."""
    _for_training(given, RUNS)


def for_ablate(given: dict[str, Any]) -> None:
    """Take what `zoo train` takes, and a folder of the ablation."""
    _for_training(given, ABLATIONS)


def _for_training(given: dict[str, Any], folder: Path) -> None:
    from zoo.families import check_family, usual_config

    taken = Taken(given)
    is_estimate = given.get("estimate") is not None
    data = taken.data(is_needed=not is_estimate)
    family = given["family"]
    check_family(family)
    if given["config"] is None:
        taken.take("config", usual_config(family))
    if is_estimate:
        taken.say()
        return
    if given["out"] is None:
        taken.take("out", folder / f"{family}-{Path(given['config']).stem}")
    if data is not None and given["split"] is None:
        if (data / SPLIT).is_file():
            # The family reads the data set's own folds.
            taken.take("split", None, f"split {data / SPLIT}")
        elif found := split_beside(data):
            taken.take("split", found)
        else:
            taken.take("split", SPLIT, "new folds in")
    taken.say()
    if given["split"] == SPLIT and not SPLIT.is_file() and data is not None:
        _make_split(data, given)


def _make_split(data: Path, given: dict[str, Any]) -> None:
    from zoo.datasets.split import split
    from zoo.source import DataSource

    source = DataSource.open(
        data, given["data_format"], given["edits"], given["broken"], given["images"]
    )
    groups = len({sample.patient for sample in source.list_images()})
    folds = min(FOLDS, groups)
    typer.echo(split(source, SPLIT, given.get("labels"), folds, "group", 0, describe=False))


def for_check(given: dict[str, Any]) -> None:
    """Take the submission that lies here, and the images that it is about."""
    path, taken = given["submission"], Taken(given)
    if path is None and SUBMISSION.is_file():
        taken.take("submission", SUBMISSION)
    elif path is None:
        taken.lack(f"  SUBMISSION.csv, found no {SUBMISSION} here: zoo fuse")
    elif path.is_dir():
        what = "a data set: zoo audit looks into it" if _is_data(path) else "a folder"
        raise ValueError(
            f"{path}: expected a submission (CSV), found {what}; of a prediction store zoo "
            "evaluate says how good it is"
        )
    _take_for_scores(taken)


def for_evaluate(given: dict[str, Any]) -> None:
    """Take the only run's predictions of held-out images, and the images that they are of."""
    taken = Taken(given)
    if given["predictions"] is None:
        found = _held_out_stores()
        if len(found) == 1:
            taken.take("predictions", found[0])
        else:
            listed = f"{len(found)} ({', '.join(map(str, found[:_SHOWN]))}): name one"
            taken.lack(
                "  PREDICTIONS, a store (zoo predict) or a submission (zoo fuse), found "
                f"{listed if found else 'none in runs/*/val, val/*'}"
            )
    _take_for_scores(taken)


def _take_for_scores(taken: Taken) -> None:
    """Take the nearest data set and, for held-out images, its folds; which images by these."""
    from zoo.cli.options import Subset

    given, data = taken.given, taken.data()
    if given["subset"] is None:
        given["subset"] = Subset.test
        if given["split"] is not None or given["fold"] is not None:
            taken.take("subset", Subset.val)
            found = None if data is None else _held_out_by(data, given)
            if found and given["fold"] is None and found[1] is not None:
                taken.take("fold", found[1])
        elif data is not None and (found := _held_out_by(data, given)):
            split, fold = found
            taken.take("subset", Subset.val)
            taken.take("split", split)
            if fold is not None:
                taken.take("fold", fold)
    taken.folds(data)
    taken.say()


def _held_out_by(data: Path, given: dict[str, Any]) -> tuple[Path, int | None] | None:
    """Return the split, and the fold, that hold out just the images that a submission names."""
    from converters.splits.split import Split
    from fusion.sources.submission import read

    file = given.get("submission") or given.get("predictions")
    split = given["split"] or split_beside(data)
    if split is None or file is None or not file.is_file():
        return None
    try:
        names = {Path(row.image_name).stem for row in read(file)}
        folds = Split.load(split).folds
    except (OSError, ValueError):  # the command itself says what is wrong
        return None
    held_out = [{PurePosixPath(key).name for key in keys} for keys in folds]
    # nnU-Net's images have the number of a channel behind their names.
    for named in (names, {_CHANNEL.sub("", name) for name in names}):
        if named == set().union(*held_out):
            return split, None
        if named in held_out:
            return split, held_out.index(named)
    return None


def run_folders() -> list[Path]:
    """Return the runs below `runs/`, and the folders of folds, by name."""
    return [
        path
        for path in (sorted(RUNS.iterdir()) if RUNS.is_dir() else [])
        if (path / "config.yaml").is_file() or any(path.glob("fold-*/config.yaml"))
    ]


def stores_of_runs(name: str) -> list[Path]:
    """Return the prediction stores of this name in the runs' folders."""
    return [run / name for run in run_folders() if (run / name / "manifest.json").is_file()]


def _held_out_stores() -> list[Path]:
    """Return what each run says of images that it held out: predicted, or left by its folds."""
    kept = {path.parent: path for name in ("oof", "val") for path in stores_of_runs(name)}
    return _with_named([kept[run] for run in sorted(kept)], Path("val"))


def _test_stores() -> list[Path]:
    """Return what each run says of test images."""
    return _with_named(stores_of_runs("test"), Path("test"))


def _with_named(stores: list[Path], folder: Path) -> list[Path]:
    """Add the stores in a folder, as `--oof val/NAME` leaves them, but for runs that have one."""
    known = _names(stores)
    # As `zoo predict` leaves it: others have files of that name, too.
    from fusion.sources.checksums import FILE

    found = (path.parent for path in folder.glob("*/manifest.json"))
    named = sorted(path for path in found if (path / FILE).is_file())
    return [*stores, *(path for path in named if not _names([path]) <= known)]


def for_predict(given: dict[str, Any]) -> None:
    """Take the nearest data set, and all runs below `runs/`; of mere images the test subset."""
    from zoo.cli.options import Subset
    from zoo.export.description import is_exported

    taken = Taken(given)
    taken.data()
    if given["subset"] in (None, Subset.val) and _has_only_images(given):
        taken.take("subset", Subset.test)
    elif given["subset"] is None and given["run"] and is_exported(given["run"]):
        # It knows no folds.
        taken.take("subset", Subset.all)
    given["subset"] = given["subset"] or Subset.val
    if given["run"] is None:
        if found := run_folders():
            taken.take("run", None, f"runs {', '.join(map(str, found))}")
        else:
            taken.lack("  a run in runs/, found none: zoo train yolo, zoo train smp, ...")
    elif given["out"] is None and not given["compare"]:
        taken.take("out", given["run"] / given["subset"].value)
    taken.say()


def for_fit(given: dict[str, Any]) -> None:
    """Take the nearest data set and what the runs below `runs/` say of images they held out."""
    taken = Taken(given)
    taken.data()
    if not given["predictions"]:
        if found := _held_out_stores():
            taken.take("predictions", found)
        else:
            taken.lack(
                "  predictions of held-out images, found none in runs/*/val and val/*: zoo predict"
            )
    if given["out"] is None:
        taken.take("out", FUSION)
    taken.say()


def _sources_and_rule(taken: Taken) -> None:
    """Take the runs' predictions of test images, else of held-out ones, and `fusion.yaml`."""
    given = taken.given
    if not given["sources"]:
        found = _test_stores() or _held_out_stores()
        if found:
            taken.take("sources", found)
        else:
            taken.lack(
                "  predictions, found none in runs/*/test, test/*, runs/*/val, val/*: zoo predict"
            )
    if given["method"] is None and given["config"] is None:
        if FUSION.is_file():
            taken.take("config", FUSION)
            for run in _unanswered(given["sources"] or []):
                taken.lack(f"  {run}/test, as {FUSION} fuses it: zoo predict {run} --subset test")
        else:
            taken.take("method", "mean")


def _unanswered(sources: list[Path]) -> list[Path]:
    """Return the runs that `fusion.yaml` names and that have not predicted test images."""
    if not all("test" in (path.name, path.parent.name) for path in sources):
        return []
    # Whoever names some of those that are there means these.
    wanted = _fused_names() - _names(sources) - _names(_test_stores())
    return [run for run in run_folders() if run.name in wanted]


def _fused_names() -> set[str]:
    """Return the names of the sources that `fusion.yaml` fuses; none where it names none."""
    from fusion.rules.file import read_rule

    try:
        return set(read_rule(FUSION).sources)
    except ValueError:  # the command itself says what is wrong
        return set()


def _names(sources: list[Path]) -> set[str]:
    from fusion.sources.store import source_name

    return set(map(source_name, sources))


def for_report(given: dict[str, Any]) -> None:
    """Take the nearest data set, and `fusion.yaml` if it is of these predictions."""
    taken = Taken(given)
    taken.data()
    if not given["predictions"]:
        if found := _held_out_stores():
            taken.take("predictions", found)
        else:
            taken.lack(
                "  predictions of annotated images, found none in runs/*/val and val/*: zoo predict"
            )
    is_open = given["config"] is None and given["predictions"] and FUSION.is_file()
    if is_open and _fused_names() == _names(given["predictions"]):
        taken.take("config", FUSION)
    taken.say()


def for_review(given: dict[str, Any]) -> None:
    """Take the nearest data set, the runs' predictions, and `fusion.yaml`."""
    taken = Taken(given)
    _sources_and_rule(taken)
    taken.folds(taken.data())
    taken.say()


def for_fuse(given: dict[str, Any]) -> None:
    """Take the runs' predictions of test images, else of held-out ones, and `fusion.yaml`."""
    taken = Taken(given)
    _sources_and_rule(taken)
    if given["out"] is None:
        places = {"csv": SUBMISSION, "coco_results": Path("coco_results.json")}
        taken.take("out", places.get(given["to"], Path(given["to"])))
    if given["to"] not in ("csv", "store") or not given["sources"]:
        # To fuse what is there no data set is needed, but to make it.
        taken.data(is_needed=not given["sources"])
    taken.folds(given["data"])
    taken.say()
