"""An exported model, opened: predicts as its runs do, fused by its rule; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from converters.types import LabelSpace, Sample
from fusion.objects import split_prediction
from fusion.rules.file import check_names, check_options, read_rule
from fusion.types import Prediction, Rule
from zoo.contract import PredictOptions
from zoo.data.reading import NetworkInput, channels_first
from zoo.export.description import (
    FUSION,
    BoxEntry,
    Description,
    DetectorEntry,
    NetworkEntry,
    QueryEntry,
    RefinerEntry,
    SourceEntry,
    read_description,
)
from zoo.export.session import OnnxBoxes, OnnxDetector, OnnxNetwork, OnnxQueries, OnnxRefiner
from zoo.families.refiner.patches import count_planes, count_told
from zoo.families.refiner.refining import LookCase, mend
from zoo.inference.arrays import Floats, normalize, predict_semantic
from zoo.inference.detections import place_images, to_prediction
from zoo.inference.frames import read_frames
from zoo.inference.instances import find_boxes, predict_queries
from zoo.inference.instances import to_prediction as as_prediction
from zoo.inference.setting import Setting, View, choose_view
from zoo.metadata.columns import Columns
from zoo.metadata.reading import Rows, rows_of_export
from zoo.results.sources import give_images
from zoo.runs.fold_ensemble import mean_prediction
from zoo.tta import PLAIN

Known = Mapping[str, Rows]
"""File of a network that is shown metadata -> what it is shown of each image."""
_NOTHING: Known = {}
_FAMILY = "exported"


@dataclass(frozen=True)
class ExportedSource:
    """One opinion: a network, or the mean of several.

    Attributes:
        entry: what it is shown.
        labels: its classes.
        networks: opened.
    """

    entry: SourceEntry
    labels: LabelSpace
    networks: tuple[OnnxNetwork, ...]

    def predict(
        self, samples: Sequence[Sample], options: PredictOptions, known: Known = _NOTHING
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Args:
            samples: the images.
            options: how to predict.
            known: what networks are shown beside the pixels; what is not there is missing.

        Raises:
            ValueError: options that do not go together, or that the networks do not take.
        """
        setting, size_hw = self.plan(options)
        by_network = [
            predict_semantic(
                network,
                read_frames(
                    samples,
                    size_hw,
                    self.entry.channels,
                    metadata=_rows_of(network.entry, samples, known),
                ),
                self.labels,
                setting,
            )
            for network in self.networks
        ]
        for predictions in zip(*by_network, strict=True):
            if len(predictions) == 1:
                yield predictions[0]
            else:
                yield mean_prediction(predictions, self.labels)

    def plan(self, options: PredictOptions) -> tuple[Setting, tuple[int, int] | None]:
        """Return how images are shown, and what they are stretched to.

        Raises:
            ValueError: as `predict`.
        """
        entry = self.entry
        view = choose_view(entry.view, options)
        setting = Setting(
            "cpu",
            batch=options.batch or entry.batch,
            tta=options.tta,
            window=view.window,
            overlap=view.overlap,
            average=options.average,
            stride=entry.stride,
            activation=entry.activation,
        )
        for network in entry.networks:
            _check_sizes(network, entry, view, setting)
        return setting, view.size_hw


def _rows_of(entry: NetworkEntry, samples: Sequence[Sample], known: Known) -> Rows | None:
    """Return what a network is shown of images beside their pixels; None: nothing at all."""
    if entry.metadata is None:
        return None
    return known.get(entry.file) or dict.fromkeys((s.key for s in samples), entry.metadata.missing)


def _check_sizes(network: NetworkEntry, entry: SourceEntry, view: View, setting: Setting) -> None:
    """Make sure that a network takes what it is going to see, before anything is computed."""
    if view.window:
        seen = {view.window}
    elif view.size_hw:
        seen = {setting.shown_size(view.size_hw, v) for v in (PLAIN, *setting.variants)}
    else:
        seen = set()
    learned = entry.window or entry.size
    for height, width in sorted(seen - {learned}):
        asked = f"asked for are {height} x {width}"
        if network.size:
            high, wide = network.size
            raise ValueError(
                f"{network.file}: the network was exported for {high} x {wide} pixels, {asked}: "
                "leave out --size, --window and scales"
            )
        if height % entry.stride or width % entry.stride:
            raise ValueError(
                f"{network.file}: expected height and width that are multiples of {entry.stride}, "
                f"{asked}"
            )


@dataclass(frozen=True)
class ExportedDetector:
    """One opinion of networks that find instances.

    Attributes:
        entry: what it is shown.
        labels: its classes.
        networks: opened.
    """

    entry: DetectorEntry
    labels: LabelSpace
    networks: tuple[OnnxDetector, ...]

    def predict(self, samples: Sequence[Sample], options: PredictOptions) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: options that detectors lack, or that the networks do not take.
        """
        self.plan(options)
        batch = options.batch or self.entry.batch
        for start in range(0, len(samples), batch):
            yield from self._predict_batch(samples[start : start + batch])

    def plan(self, options: PredictOptions) -> None:
        """Make sure that options go together.

        Raises:
            ValueError: as `predict`.
        """
        family = self.entry.family
        if options.tta:
            raise ValueError(f"tta {','.join(options.tta)}: the family '{family}' predicts without")
        options.refuse(family, "average", "size", "window", "overlap")

    def _predict_batch(self, samples: Sequence[Sample]) -> Iterator[Prediction]:
        squares = place_images(samples, self.entry.imgsz)
        images = squares[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        outputs = [network(images) for network in self.networks]
        for number, sample in enumerate(samples):
            found = [
                to_prediction(
                    sample, detections[number], planes[number], self.labels, self.entry.setting
                )
                for detections, planes in outputs
            ]
            yield found[0] if len(found) == 1 else mean_prediction(found, self.labels)


@dataclass(frozen=True)
class _ExportedInstances:
    """One opinion of networks that are shown stretched images and find instances.

    Attributes:
        entry: what it is shown.
        labels: its classes.
        networks: opened.
    """

    entry: QueryEntry | BoxEntry
    labels: LabelSpace
    networks: tuple[OnnxQueries, ...] | tuple[OnnxBoxes, ...]

    def predict(self, samples: Sequence[Sample], options: PredictOptions) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: options that such networks lack, or that they do not take.
        """
        self.plan(options)
        frames = read_frames(samples, self.entry.size, self.entry.channels)
        while part := list(islice(frames, options.batch or self.entry.batch)):
            yield from self._predict_batch(part)

    def plan(self, options: PredictOptions) -> None:
        """Make sure that options go together.

        Raises:
            ValueError: as `predict`.
        """
        options.refuse(self.entry.family, "tta", "average", "window", "overlap")
        if options.size and options.size != self.entry.size:
            learned, asked = ("{} x {}".format(*s) for s in (self.entry.size, options.size))
            raise ValueError(
                f"size: the networks of '{self.entry.name}' were exported for {learned} pixels, "
                f"asked for are {asked}: leave out --size"
            )

    def _predict_batch(self, frames: Sequence[NetworkInput]) -> Iterator[Prediction]:
        images = normalize(np.stack([channels_first(frame.image) for frame in frames]))
        outputs = [network(images) for network in self.networks]
        for number, frame in enumerate(frames):
            found = [self._read(frame, *(part[number] for part in own)) for own in outputs]
            yield found[0] if len(found) == 1 else mean_prediction(found, self.labels)

    def _read(self, frame: NetworkInput, *outputs: Floats) -> Prediction:
        """Return an image's prediction of what a network gives for it."""
        raise NotImplementedError


class ExportedQueries(_ExportedInstances):
    """One opinion of networks whose queries are the instances."""

    entry: QueryEntry

    def _read(self, frame: NetworkInput, *outputs: Floats) -> Prediction:
        scores, masks = outputs
        return predict_queries(frame, scores, masks, self.labels, self.entry.conf)


class ExportedBoxes(_ExportedInstances):
    """One opinion of networks that find boxes with masks."""

    def _read(self, frame: NetworkInput, *outputs: Floats) -> Prediction:
        return as_prediction(frame, find_boxes(*outputs), self.labels)


@dataclass(frozen=True)
class ExportedRefiner:
    """One opinion of networks that mend what other sources say.

    Attributes:
        entry: how they look at it.
        labels: its classes.
        networks: opened.
        rules: what each of them mends the answer of.
    """

    entry: RefinerEntry
    labels: LabelSpace
    networks: tuple[OnnxRefiner, ...]
    rules: tuple[Rule, ...]

    def plan(self, options: PredictOptions) -> None:
        """Take any options: they are about what other sources say."""

    def mend(self, sample: Sample, said: Mapping[str, Prediction]) -> Prediction:
        """Return what is said of an image, mended.

        Args:
            sample: the image.
            said: what the others say of it, by their names.
        """
        predictions = [said[name] for name in self.entry.sources]
        found = []
        for network, rule in zip(self.networks, self.rules, strict=True):
            asked = give_images(rule, {sample.key: sample})
            case = LookCase.of(sample, predictions, asked, self.labels, self.entry)
            found.append(mend(network, case, self.labels, self.entry, self.entry.batch))
        return found[0] if len(found) == 1 else mean_prediction(found, self.labels)


ExportedOpinion = ExportedSource | ExportedDetector | ExportedQueries | ExportedBoxes


@dataclass(frozen=True)
class Exported:
    """A folder that `zoo export` has written, with its networks open.

    Attributes:
        path: the folder.
        description: what it says of itself.
        sources: what looks at images.
        refiners: what looks at what these say.
        rule: makes one prediction of all of theirs; None: one of them answers.
    """

    path: Path
    description: Description
    sources: tuple[ExportedOpinion, ...]
    refiners: tuple[ExportedRefiner, ...]
    rule: Rule | None

    @classmethod
    def open(cls, folder: Path, device: str = "auto", threads: int = 0) -> Exported:
        """Open a folder and all its networks.

        Args:
            folder: of `zoo export`.
            device: `auto`, `cpu` or `cuda`.
            threads: that a network may use; 0 takes the machine's cores.

        Raises:
            ValueError: something is missing, changed or broken; names the file.
            MissingDependency: onnxruntime is not installed.
        """
        found = read_description(folder)
        rule = _read_rule(folder, found)
        refiners = (_open_refiner(folder, e, found, device, threads) for e in found.refiners)
        sources = (
            _open_source(folder, entry, found, device, threads)
            for entry in found.sources
            if not isinstance(entry, RefinerEntry)
        )
        return cls(folder, found, tuple(sources), tuple(refiners), rule)

    @property
    def labels(self) -> LabelSpace:
        """The classes."""
        return self.description.labels

    @property
    def columns(self) -> list[str]:
        """What networks are shown of an image beside its pixels: names of columns, each once."""
        return list(dict.fromkeys(name for _, found in self._shown() for name in found.names))

    def _shown(self) -> Iterator[tuple[str, Columns]]:
        """Yield the files of networks that are shown metadata, and their columns."""
        for source in self.sources:
            for network in source.entry.networks:
                if network.metadata:
                    yield network.file, network.metadata

    def read_metadata(
        self, samples: Sequence[Sample], options: PredictOptions, data: Path
    ) -> Known:
        """Read what networks are shown of images; says what they are not, on standard error.

        Args:
            samples: the images.
            options: how to predict.
            data: the data set's folder, where the table may lie that the networks learned from.

        Raises:
            ValueError: a table that is asked for, of a model that is shown none; or a bad one.
        """
        shown = list(self._shown())
        if not shown:
            options.refuse(_FAMILY, "metadata")
        table = Path(options.metadata) if options.metadata else None
        return {file: rows_of_export(found, samples, data, table) for file, found in shown}

    def predict(
        self,
        samples: Sequence[Sample],
        options: PredictOptions,
        is_apart: bool = False,
        known: Known = _NOTHING,
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame: fused by the rule.

        Args:
            samples: the images.
            options: how to predict.
            is_apart: single objects instead of a mask a class, where an image may have several of
                one; see `fusion.objects`.
            known: of `read_metadata`; what is not there is missing.

        Raises:
            ValueError: options that exported models lack, or that do not go together.
        """
        options.refuse(_FAMILY, "sources")
        by_source = [
            source.predict(samples, options, known)
            if isinstance(source, ExportedSource)
            else source.predict(samples, options)
            for source in self.sources
        ]
        rule = self.rule and give_images(self.rule, {sample.key: sample for sample in samples})
        names = [source.entry.name for source in self.sources]
        order = (
            rule.sources if rule and rule.sources else [s.name for s in self.description.sources]
        )
        for sample, *looks in zip(samples, *by_source, strict=True):
            said = dict(zip(names, looks, strict=True))
            said |= {refiner.entry.name: refiner.mend(sample, said) for refiner in self.refiners}
            predictions = [said[name] for name in order]
            found = rule(predictions, self.labels) if rule else said[self.description.answer]
            if is_apart and not self.labels.once and found.kind == "semantic":
                found = split_prediction(found, predictions, self.labels)
            yield found


def _read_rule(folder: Path, found: Description) -> Rule | None:
    if found.fusion is None:
        return None
    found.fusion.read(folder)
    path = folder / FUSION
    rule = read_rule(folder / found.fusion.file)
    check_names(rule, [source.name for source in found.sources], path)
    check_options(rule, len(found.sources), found.labels, path)
    return rule


def _open_refiner(
    folder: Path, entry: RefinerEntry, found: Description, device: str, threads: int
) -> ExportedRefiner:
    told, planes = count_told(entry, len(found.labels)), count_planes(entry)
    networks = (
        OnnxRefiner(folder, network, planes, told, device, threads) for network in entry.networks
    )
    rules = []
    for file in entry.rules:
        file.read(folder)
        path = folder / file.file
        rule = read_rule(path)
        check_names(rule, entry.sources, path)
        check_options(rule, len(entry.sources), found.labels, path)
        rules.append(rule)
    return ExportedRefiner(entry, found.labels, tuple(networks), tuple(rules))


def _open_source(
    folder: Path,
    entry: SourceEntry | DetectorEntry | QueryEntry | BoxEntry,
    found: Description,
    device: str,
    threads: int,
) -> ExportedOpinion:
    classes = len(found.labels)
    if isinstance(entry, DetectorEntry):
        values, end_to_end = entry.values(classes), entry.end_to_end
        detectors = (
            OnnxDetector(folder, network, values, entry.prototypes, end_to_end, device, threads)
            for network in entry.networks
        )
        return ExportedDetector(entry, found.labels, tuple(detectors))
    if isinstance(entry, QueryEntry):
        finders = (
            OnnxQueries(folder, network, entry.channels, classes, entry.queries, device, threads)
            for network in entry.networks
        )
        return ExportedQueries(entry, found.labels, tuple(finders))
    if isinstance(entry, BoxEntry):
        sizes = classes, entry.boxes, entry.cells
        boxes = (
            OnnxBoxes(folder, network, entry.channels, *sizes, device, threads)
            for network in entry.networks
        )
        return ExportedBoxes(entry, found.labels, tuple(boxes))
    networks = (
        OnnxNetwork(folder, network, entry.channels, classes, device, threads)
        for network in entry.networks
    )
    return ExportedSource(entry, found.labels, tuple(networks))
