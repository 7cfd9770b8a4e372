"""`zoo export`: runs, cross-validations and ensembles as folders that predict without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import TypeAdapter, ValidationError

from converters.errors import import_optional, one_line
from converters.files.json_files import read_json
from converters.files.provenance import atomic_write_text, check_place, result_folder
from converters.types import LabelSpace
from fusion.rules.file import check_names, check_options, dump_rule, load_rule, read_labels
from fusion.rules.registry import FUSIONS
from fusion.types import Rule
from zoo.export.conversion import (
    OPSET,
    BoxShape,
    DetectorShape,
    NetworkShape,
    QueryShape,
    RefinerShape,
    Timing,
    convert,
    convert_boxes,
    convert_detector,
    convert_queries,
    convert_refiner,
    measure,
    sample_images,
    sample_squares,
)
from zoo.export.description import (
    FILE,
    FUSION,
    BoxEntry,
    Description,
    DetectorEntry,
    Entry,
    FileEntry,
    Licence,
    NetworkEntry,
    QueryEntry,
    RefinerEntry,
    SourceEntry,
    digest_of,
    normalisation,
)
from zoo.export.session import (
    EXTRA,
    OnnxBoxes,
    OnnxDetector,
    OnnxNetwork,
    OnnxQueries,
    OnnxRefiner,
    OnnxSession,
)
from zoo.families.refiner.patches import count_planes, count_told
from zoo.families.semantic import SemanticFamily
from zoo.families.settings import learned_view
from zoo.inference.arrays import Floats
from zoo.inference.setting import activation_of
from zoo.metadata.columns import Columns
from zoo.metadata.network import MetadataNetwork, without_task
from zoo.progress import Report
from zoo.run_files.checkpoints import LAST, find_weights
from zoo.run_files.licences import FILE as LICENCES
from zoo.runs.cross_validation import FoldRuns, find_folds
from zoo.runs.run import Run
from zoo.training.config import STRIDE

KIND = "export"
# Where `zoo run` leaves its runs, beside the fusion config.
_RUNS = "runs"
_VERSIONS = ("maskzoo", "torch", "onnx", "onnxruntime")


@runtime_checkable
class _HasDetector(Protocol):
    """A family whose networks give detections and prototypes, as YOLO's do."""

    def open_detector(self, run: Path, config: Any) -> Any:
        """Rebuild a run's network on the CPU; it knows its `prototypes` and its `end_to_end`."""


@runtime_checkable
class _HasQueries(Protocol):
    """A family whose networks give each query's scores and mask."""

    def open_queries(self, run: Path, config: Any) -> Any:
        """Rebuild a run's network on the CPU; it knows the `count` of its queries."""


@runtime_checkable
class _HasBoxes(Protocol):
    """A family whose networks find boxes with masks."""

    def open_boxes(self, run: Path, config: Any) -> Any:
        """Rebuild a run's network on the CPU; it knows its `count` of boxes and its `cells`."""


@runtime_checkable
class _HasRefiner(Protocol):
    """A family whose networks mend what other sources say."""

    def open_refiner(self, run: Path, config: Any) -> tuple[Any, Rule]:
        """Rebuild a run's network on the CPU, and the rule whose answer it mends."""


# What a run's family is to be for its network to be a function of what is known of an image.
_EXPORTABLE = (SemanticFamily, _HasDetector, _HasQueries, _HasBoxes, _HasRefiner)


@dataclass(frozen=True)
class Member:
    """A run, or the runs of all folds, that becomes one source.

    Attributes:
        name: of its folder.
        runs: one, or one a fold, in their order.
    """

    name: str
    runs: tuple[Run, ...]

    @classmethod
    def open(cls, path: Path) -> Member:
        """Open a run, or a folder of folds.

        Raises:
            ValueError: it is neither, or what cannot be exported; says why.
        """
        folds = find_folds(path)
        runs = FoldRuns.load(folds).runs if folds else (Run.load(path),)
        for run in runs:
            if not isinstance(run.family, _EXPORTABLE):
                raise ValueError(
                    f"{run.path}: expected a run of a family that ONNX holds, found the family "
                    f"'{run.name}'; predict by the run itself"
                )
        return cls(path.resolve().name, runs)

    @property
    def refines(self) -> bool:
        """Whether it mends what others say."""
        return isinstance(self.runs[0].family, _HasRefiner)


@dataclass(frozen=True)
class Exports:
    """What was exported.

    Attributes:
        out: the folder.
        description: what it says of itself.
        timings: file -> how long an image takes; empty where that was not asked for.
    """

    out: Path
    description: Description
    timings: dict[str, Timing]

    def describe(self) -> str:
        """Return it as lines for a terminal."""
        found = self.description
        networks = [n for source in found.sources for n in source.networks]
        count = f"{len(networks)} network{'s' if len(networks) > 1 else ''}"
        lines = [
            f"{self.out}: {count}, ONNX opset {found.opset}; largest difference of a probability "
            f"from torch's {found.difference:.1e}, allowed {found.tolerance:g}"
        ]
        for source in found.sources:
            shown = "patches" if isinstance(source, RefinerEntry) else "images"
            lines += [f"  {n.file}: {source.name}, {_takes(n, shown)}" for n in source.networks]
        for name, timing in self.timings.items():
            lines.append(f"  {name}: an image on the CPU, {timing.threads} threads: {_ms(timing)}")
        licences = [licence for source in found.sources for licence in source.licences]
        closed = {one.source: one.licence for one in licences if one.is_non_commercial}
        lines += [f"  not for commercial use: {name} ({text})" for name, text in closed.items()]
        shared = {one.source: one.licence for one in licences if "AGPL" in one.licence}
        lines += [
            f"  {text}: {name}: whoever serves it offers the source of what it is part of"
            for name, text in shared.items()
        ]
        return "\n".join(lines)


def _takes(network: NetworkEntry, shown: str) -> str:
    size = "any size" if network.size is None else "{} x {}".format(*network.size)
    count = "any number" if network.batch is None else network.batch
    known = f", and {', '.join(network.metadata.names)} of each" if network.metadata else ""
    return f"{shown} of {size}, {count} at a time{known}"


def _ms(timing: Timing) -> str:
    sides = (("torch", timing.torch_ms), ("onnxruntime", timing.onnx_ms))
    return ", ".join(
        f"{name} {m:.0f} ms ({low:.0f} to {high:.0f})" for name, (m, low, high) in sides
    )


def export(
    paths: Sequence[Path],
    out: Path,
    *,
    fusion: str | None,
    tolerance: float,
    repetitions: int,
    report: Report,
    say: Callable[[str], None] = lambda line: None,
) -> Exports:
    """Write runs as one folder of ONNX networks, whole or not at all.

    Args:
        paths: runs, folders of folds, or one folder of `zoo run`.
        out: the folder.
        fusion: fusion config, shipped name or rule for several; None takes that of `zoo run`.
        tolerance: largest absolute difference of a probability from torch's.
        repetitions: how often the speed is measured; 0 is never.
        report: moves the progress bar.
        say: is told what the rule was taken from.

    Raises:
        ValueError: runs that cannot be exported or do not go together, or networks whose exported
            probabilities differ by more; nothing is left then.
    """
    for name in ("onnx", "onnxruntime"):
        import_optional(name, EXTRA)
    check_place(out, KIND)
    paths, fusion = _of_pipeline(paths, fusion, say)
    members = [Member.open(path) for path in paths]
    labels = _common_labels(members)
    rule = _rule(fusion, members, labels, say)
    timings: dict[str, Timing] = {}
    with result_folder(out, KIND) as folder:
        writer = _Writer(folder, tolerance, repetitions, timings, members, report, rule is None)
        sources = tuple(map(writer.write, members))
        found = Description(
            labels=labels,
            opset=OPSET,
            tolerance=tolerance,
            sources=sources,
            fusion=None if rule is None else _write_rule(rule, labels, folder, FUSION),
            made_with={name: metadata.version(name) for name in _VERSIONS},
        )
        atomic_write_text(folder / FILE, found.dumps())
    return Exports(out, found, timings)


def _of_pipeline(
    paths: Sequence[Path], fusion: str | None, say: Callable[[str], None]
) -> tuple[list[Path], str | None]:
    """Return the runs and the rule of a folder of `zoo run`; other paths as they are."""
    if len(paths) != 1 or not (paths[0] / _RUNS).is_dir():
        return list(paths), fusion
    folder = paths[0]
    found = {
        path.name: path
        for path in sorted((folder / _RUNS).iterdir())
        if (path / "config.yaml").is_file() or find_folds(path)
    }
    if fusion is None and (folder / FUSION).is_file():
        fusion = str(folder / FUSION)
        say(f"taken: fusion {fusion}")
    if not found:
        raise ValueError(f"{folder / _RUNS}: expected runs, found none")
    return list(found.values()), fusion


def _common_labels(members: Sequence[Member]) -> LabelSpace:
    names = [member.name for member in members]
    if not members:
        raise ValueError("expected at least one run, found none")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"runs are known by their folder's name, which fusion configs speak of; twice: {twice}"
            ": leave one of them out, or give its folder another name"
        )
    first = members[0].runs[0]
    labels: LabelSpace = first.config.labels
    for member in members:
        for run in member.runs:
            if run.config.labels != labels:
                raise ValueError(f"{run.path}: expected the classes of {first.path}, found others")
    return labels


def _rule(
    fusion: str | None,
    members: Sequence[Member],
    labels: LabelSpace,
    say: Callable[[str], None],
) -> Rule | None:
    refiners = [member.name for member in members if member.refines]
    if fusion is None:
        if len(members) > 1 and len(refiners) == 1:
            say(f"taken: the answer of {refiners[0]}, which mends what the others say")
        elif len(members) > 1:
            raise ValueError(
                "expected --fusion with several runs: a file of `zoo fit`, or a rule such as mean"
            )
        return None
    is_name = fusion in FUSIONS and not Path(fusion).exists()
    rule = load_rule(fusion, None) if is_name else load_rule(None, Path(fusion))
    if not is_name:
        check_names(rule, [member.name for member in members], Path(fusion))
        fitted = read_labels(Path(fusion))
        if fitted is not None and fitted.names != labels.names:
            raise ValueError(f"{fusion}: was fitted for other classes than the runs have")
    check_options(rule, len(members), labels, Path(fusion))
    return rule


def _write_rule(rule: Rule, labels: LabelSpace, folder: Path, file: str) -> FileEntry:
    atomic_write_text(folder / file, dump_rule(rule, labels=labels))
    return FileEntry(file=file, sha256=digest_of((folder / file).read_bytes()))


class _Writer:
    """Writes the networks of members, one after the other."""

    def __init__(
        self,
        folder: Path,
        tolerance: float,
        repetitions: int,
        timings: dict[str, Timing],
        members: Sequence[Member],
        report: Report,
        is_unfused: bool,
    ) -> None:
        self.folder, self.tolerance, self.repetitions = folder, tolerance, repetitions
        self.timings, self.report = timings, report
        self.total = sum(len(member.runs) for member in members)
        self.is_unfused = is_unfused
        self.plain = {member.name for member in members if not member.refines}
        self.done = 0

    def write(self, member: Member) -> Entry:
        """Write a member's networks and say what they are shown."""
        first = member.runs[0]
        config: Any = first.config
        about: dict[str, Any] = {
            "name": member.name,
            "family": first.name,
            "batch": config.batch,
            "seed": config.seed,
            "split": first.split.digest if first.split and not first.doubt else "",
            "fold": first.fold if len(member.runs) == 1 and not first.doubt else None,
            "licences": _licences(first.path),
        }
        if isinstance(first.family, _HasDetector):
            return self._detector(member, about)
        if isinstance(first.family, _HasRefiner):
            return self._refiner(member, about)
        mean, deviation = normalisation(config.in_channels)
        about |= {
            "channels": config.in_channels,
            "size": config.image_size,
            "mean": mean,
            "deviation": deviation,
        }
        if isinstance(first.family, _HasQueries):
            return self._queries(member, about)
        if isinstance(first.family, _HasBoxes):
            return self._boxes(member, about)
        view = learned_view(config)
        return SourceEntry(
            window=view.window,
            overlap=view.overlap,
            stride=STRIDE,
            activation=activation_of(config.labels),
            networks=tuple(self._network(run) for run in member.runs),
            **about,
        )

    def _network(self, run: Run) -> NetworkEntry:
        family: Any = run.family
        config: Any = run.config
        network = without_task(family.load(run.path, config).eval())
        shape = NetworkShape.of(config, _columns_of(network, config))
        entry = self._convert(run, partial(convert, network, shape))
        opened = partial(OnnxNetwork, self.folder, entry, shape.channels, shape.classes)
        self._time(network, entry, opened, lambda: list(shape.samples(1, shape.size_hw).values()))
        return entry

    def _detector(self, member: Member, about: dict[str, Any]) -> DetectorEntry:
        config: Any = member.runs[0].config
        networks, shape = _of_one_kind(member, self._detector_network)
        code = Licence(
            source=f"Ultralytics {config.model}",
            licence="AGPL-3.0",
            url="https://www.ultralytics.com/license",
        )
        return DetectorEntry(
            imgsz=config.imgsz,
            conf=config.conf,
            raster=config.raster,
            margin_px=config.margin_px,
            end_to_end=shape.end_to_end,
            prototypes=shape.prototypes,
            networks=networks,
            **{**about, "licences": (*about["licences"], code)},
        )

    def _detector_network(self, run: Run) -> tuple[NetworkEntry, DetectorShape]:
        family: Any = run.family
        config: Any = run.config
        network = family.open_detector(run.path, config).eval()
        classes = len(config.labels)
        shape = DetectorShape(config.imgsz, classes, network.prototypes, network.end_to_end)
        entry = self._convert(run, partial(convert_detector, network, shape))
        sizes = shape.values, shape.prototypes, shape.end_to_end
        opened = partial(OnnxDetector, self.folder, entry, *sizes)
        self._time(network, entry, opened, lambda: [sample_squares(1, shape.imgsz)])
        return entry, shape

    def _queries(self, member: Member, about: dict[str, Any]) -> QueryEntry:
        config: Any = member.runs[0].config
        made = [self._query_network(run) for run in member.runs]
        counts = {queries for _, queries in made}
        if len(counts) > 1:
            raise ValueError(
                f"{member.name}: expected networks of as many queries, found {sorted(counts)}"
            )
        return QueryEntry(
            queries=counts.pop(),
            conf=config.conf,
            networks=tuple(entry for entry, _ in made),
            **about,
        )

    def _query_network(self, run: Run) -> tuple[NetworkEntry, int]:
        family: Any = run.family
        config: Any = run.config
        network = family.open_queries(run.path, config).eval()
        classes, count = len(config.labels), network.count
        shape = QueryShape(config.in_channels, classes, config.image_size, count)
        entry = self._convert(run, partial(convert_queries, network, shape))
        opened = partial(OnnxQueries, self.folder, entry, shape.channels, classes, count)
        self._time(network, entry, opened, lambda: [sample_images(shape, 1, shape.size_hw)])
        return entry, count

    def _boxes(self, member: Member, about: dict[str, Any]) -> BoxEntry:
        networks, shape = _of_one_kind(member, self._box_network)
        return BoxEntry(boxes=shape.boxes, cells=shape.cells, networks=networks, **about)

    def _box_network(self, run: Run) -> tuple[NetworkEntry, BoxShape]:
        family: Any = run.family
        config: Any = run.config
        network = family.open_boxes(run.path, config).eval()
        classes, sizes = len(config.labels), (network.count, network.cells)
        shape = BoxShape(config.in_channels, classes, config.image_size, *sizes)
        entry = self._convert(run, partial(convert_boxes, network, shape))
        opened = partial(OnnxBoxes, self.folder, entry, shape.channels, classes, *sizes)
        self._time(network, entry, opened, lambda: [sample_images(shape, 1, shape.size_hw)])
        return entry, shape

    def _refiner(self, member: Member, about: dict[str, Any]) -> RefinerEntry:
        config: Any = member.runs[0].config
        networks, rules, sources = zip(*map(self._refiner_network, member.runs), strict=True)
        if len(set(sources)) > 1:
            raise ValueError(f"{member.name}: expected refiners of the same sources, found several")
        return RefinerEntry(
            channels=config.in_channels,
            size=config.size,
            places=config.places,
            detail=config.detail,
            inputs=config.inputs,
            sources=sources[0],
            rules=rules,
            networks=networks,
            **about,
        )

    def _refiner_network(self, run: Run) -> tuple[NetworkEntry, FileEntry, tuple[str, ...]]:
        family: Any = run.family
        config: Any = run.config
        network, rule = family.open_refiner(run.path, config)
        self._check_sources(run, rule)
        told = count_told(config, len(config.labels))
        shape = RefinerShape(count_planes(config), told, config.size)
        file = f"rule-{self.done}.yaml"
        entry = self._convert(run, partial(convert_refiner, network, shape))
        opened = partial(OnnxRefiner, self.folder, entry, shape.channels, shape.classes)
        self._time(network, entry, opened, lambda: list(shape.samples(1).values()))
        return entry, _write_rule(rule, config.labels, self.folder, file), tuple(rule.sources)

    def _check_sources(self, run: Run, rule: Rule) -> None:
        """Make sure that what a run mends is exported beside it, and without a rule no more."""
        if lost := [name for name in rule.sources if name not in self.plain]:
            raise ValueError(
                f"{run.path}: expected the runs whose answers it mends beside it "
                f"({', '.join(rule.sources)}), found none of '{lost[0]}'; name their folders, too: "
                f"zoo export {' '.join(f'runs/{name}' for name in rule.sources)} {run.path}"
            )
        if self.is_unfused and (others := sorted(self.plain - set(rule.sources))):
            raise ValueError(
                f"{run.path}: expected --fusion, or but the runs whose answers it mends "
                f"({', '.join(rule.sources)}), found '{others[0]}' too"
            )

    def _time(
        self,
        network: torch.nn.Module,
        entry: NetworkEntry,
        opened: Callable[..., OnnxSession],
        given: Callable[[], Sequence[Floats]],
    ) -> None:
        """Measure a network beside its export, where that was asked for."""
        if self.repetitions:
            session = opened(threads=torch.get_num_threads())
            self.timings[entry.file] = measure(network, session, given(), self.repetitions)

    def _convert(self, run: Run, work: Callable[..., NetworkEntry]) -> NetworkEntry:
        refines = isinstance(run.family, _HasRefiner)
        with (run.path / LAST if refines else find_weights(run.path)).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            entry = work(self.folder, f"network-{self.done}.onnx", self.tolerance, weights)
        except ValueError as error:
            raise ValueError(f"{run.path}: {error}") from None
        self.done += 1
        self.report(self.done, self.total, run.path.name)
        return entry


def _columns_of(network: torch.nn.Module, config: Any) -> Columns | None:
    """Return the columns that a network is shown, without where their table lay; None: none."""
    if not isinstance(network, MetadataNetwork):
        return None
    return replace(network.columns, file=Path(config.metadata.file or "").name)


Shape = TypeVar("Shape")


def _of_one_kind(
    member: Member, write: Callable[[Run], tuple[NetworkEntry, Shape]]
) -> tuple[tuple[NetworkEntry, ...], Shape]:
    """Write a member's networks; return them, and the shape that all of them have.

    Raises:
        ValueError: they have several.
    """
    networks, shapes = zip(*map(write, member.runs), strict=True)
    if len(set(shapes)) > 1:
        raise ValueError(f"{member.name}: expected networks of one kind, found several")
    return networks, shapes[0]


def _licences(run: Path) -> tuple[Licence, ...]:
    """Return whose pretrained weights a run started from, without where they lay."""
    path = run / LICENCES
    if not path.exists():
        return ()
    rows = read_json(path, "the licences of weights")
    try:
        found = TypeAdapter(tuple[Licence, ...]).validate_python(rows)
    except ValidationError as error:
        raise ValueError(
            f"{path}: expected the licences that `zoo train` wrote, found {one_line(error)}"
        ) from None
    return tuple(
        licence if licence.url else licence.model_copy(update={"source": Path(licence.source).name})
        for licence in found
    )
