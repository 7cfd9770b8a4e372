"""The family of second looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from converters.types import LabelSpace, Sample
from fusion.types import Kind, Prediction, Rule
from zoo.contract import PredictOptions, TrainJob
from zoo.data.reading import NetworkInput
from zoo.families.base import NetworkFamily
from zoo.families.refiner.cases import LookCases, read_cases
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.network import ExportableRefiner, Refiner
from zoo.families.refiner.patches import count_planes
from zoo.families.refiner.refining import LookCase, mend
from zoo.families.refiner.start import (
    Sources,
    fit_start,
    open_again,
    open_held_out,
    open_rule,
)
from zoo.families.settings import plan_prediction
from zoo.families.training_step import TrainingStep
from zoo.inference.setting import Setting
from zoo.machine.devices import place
from zoo.run_files import checkpoints

if TYPE_CHECKING:
    from zoo.augmentation.pipeline import Augmentation


class RefinerFamily(NetworkFamily):
    """A network that looks at what other sources have found, and mends it."""

    name = "refiner"
    kind: Kind = "semantic"
    Config = RefinerConfig

    def build(self, config: RefinerConfig, classes: int) -> Refiner:
        """Return a network that changes nothing yet."""
        return Refiner(config, classes)

    def training_step(self, network: Any, config: Any, labels: LabelSpace) -> TrainingStep:
        """Return what the network computes while it learns, for the estimate of memory."""
        device = next(network.parameters()).device
        objective = config.objective(labels).to(device)
        target = torch.empty(config.batch, 1, *config.size, device=device)
        which = torch.zeros(config.batch, dtype=torch.int64, device=device)
        shape = (config.batch, count_planes(config), *config.size)
        return TrainingStep(
            network, shape, lambda planes: objective(network(planes, which), target), objective
        )

    def fit(
        self, network: Any, config: Any, job: TrainJob, augment: Augmentation, setting: Setting
    ) -> None:
        """Train a network and leave it in `job.out`, beside the rule whose answer it mends."""
        # Late: prediction needs no Lightning.
        from zoo.families.refiner.learning import Patches, RefinerModule
        from zoo.training.loop import fit_examples

        opened = open_held_out(config, job)
        start = fit_start(config, job, opened)
        sources = Sources(opened, tuple(start.rule.sources))
        cases = read_cases(job.train, sources, start, config, job.labels, True)
        looks = []
        for number, case in enumerate(cases):
            looks.append(case.look)
            job.progress(number + 1, len(job.train), "reading images")
        fit_examples(
            network,
            config,
            job,
            Patches(looks, job.labels, config),
            LookCases(job.val, sources, start.rule, config, job.labels),
            setting,
            learner=RefinerModule,
            predict=self.predict_frames,
        )

    def predict(
        self, run: Path, config: Any, samples: Sequence[Sample], options: PredictOptions
    ) -> Iterator[Prediction]:
        """Yield one prediction a sample, in order, in the images' own frame.

        Raises:
            ValueError: the run has no weights, an option that this family lacks, or sources that
                it does not know, or that do not know an image.
        """
        options.refuse(self.name, "tta", "average", "size", "window", "overlap", "metadata")
        setting = plan_prediction(config, options.model_copy(update={"sources": ()})).setting
        rule, sources = open_again(run, config, options.sources)
        network = self._load(run, config)
        place(network, setting.device).eval()
        cases = read_cases(samples, sources, rule, config, config.labels, False)
        yield from self.predict_frames(network, cases, config.labels, setting)

    def predict_frames(
        self, network: Any, frames: Iterable[NetworkInput], labels: LabelSpace, setting: Setting
    ) -> Iterator[Prediction]:
        """Yield one prediction a `LookCase`, in order; the network is in evaluation mode."""
        change, config = network.by(setting), network.config
        for case in frames:
            if not isinstance(case, LookCase):
                raise TypeError(f"expected a LookCase, found {type(case).__name__}")
            yield mend(change, case, labels, config, setting.batch)

    def open_refiner(self, run: Path, config: Any) -> tuple[ExportableRefiner, Rule]:
        """Rebuild a run's network on the CPU, for its export, and the rule whose answer it mends.

        Raises:
            ValueError: the run has no weights, or no rule.
        """
        return ExportableRefiner(self._load(run, config)).eval(), open_rule(run)

    def _load(self, run: Path, config: Any) -> Refiner:
        network = self.build(config, len(config.labels))
        # Not the best ones: held-out images, on which fusion is fitted, choose nothing.
        checkpoints.load_weights(network, run / checkpoints.LAST)
        return network


FAMILY = RefinerFamily()
