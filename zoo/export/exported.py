"""An exported model, opened: predicts as its runs do, fused by its rule; needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.types import LabelSpace, Sample
from fusion.rules.file import check_names, check_options, read_rule
from fusion.types import Prediction, Rule
from zoo.contract import PredictOptions
from zoo.export.description import (
    FUSION,
    Description,
    NetworkEntry,
    SourceEntry,
    read_description,
)
from zoo.export.session import OnnxNetwork
from zoo.inference.arrays import predict_semantic
from zoo.inference.frames import read_frames
from zoo.inference.setting import Setting, View, choose_view
from zoo.results.sources import give_images
from zoo.runs.fold_ensemble import mean_prediction
from zoo.tta import PLAIN


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

    def predict(self, samples: Sequence[Sample], options: PredictOptions) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: options that do not go together, or that the networks do not take.
        """
        setting, size_hw = self.plan(options)
        by_network = [
            predict_semantic(
                network,
                read_frames(samples, size_hw, self.entry.channels),
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
class Exported:
    """A folder that `zoo export` has written, with its networks open.

    Attributes:
        path: the folder.
        description: what it says of itself.
        sources: in the order of the rule.
        rule: makes one prediction of the sources'; None: there is but one.
    """

    path: Path
    description: Description
    sources: tuple[ExportedSource, ...]
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
        entries = {entry.name: entry for entry in found.sources}
        names = rule.sources if rule and rule.sources else tuple(entries)
        sources = (_open_source(folder, entries[name], found, device, threads) for name in names)
        return cls(folder, found, tuple(sources), rule)

    @property
    def labels(self) -> LabelSpace:
        """The classes."""
        return self.description.labels

    def predict(self, samples: Sequence[Sample], options: PredictOptions) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame: fused by the rule.

        Raises:
            ValueError: options that exported models lack, or that do not go together.
        """
        options.refuse("exported", "metadata", "sources")
        by_source = [source.predict(samples, options) for source in self.sources]
        if self.rule is None:
            yield from by_source[0]
            return
        rule = give_images(self.rule, {sample.key: sample for sample in samples})
        for predictions in zip(*by_source, strict=True):
            yield rule(predictions, self.labels)


def _read_rule(folder: Path, found: Description) -> Rule | None:
    if found.fusion is None:
        return None
    found.fusion.read(folder)
    path = folder / FUSION
    rule = read_rule(folder / found.fusion.file)
    check_names(rule, [source.name for source in found.sources], path)
    check_options(rule, len(found.sources), found.labels, path)
    return rule


def _open_source(
    folder: Path, entry: SourceEntry, found: Description, device: str, threads: int
) -> ExportedSource:
    classes = len(found.labels)
    networks = (
        OnnxNetwork(folder, network, entry.channels, classes, device, threads)
        for network in entry.networks
    )
    return ExportedSource(entry, found.labels, tuple(networks))
