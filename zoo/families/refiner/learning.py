"""What the network learns from, and with which loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from converters.types import LabelSpace
from zoo.data.training_set import Batch, Examples
from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.errors import draw_example
from zoo.families.refiner.looks import Look
from zoo.training.module import NetworkModule


class Patches(Examples):
    """Patches of images; which one it is depends on (seed, epoch, index) alone."""

    def __init__(self, looks: Sequence[Look], labels: LabelSpace, config: RefinerConfig) -> None:
        """Take images.

        Args:
            looks: with truth; those where neither a source nor the truth has anything are left out.
            labels: the classes.
            config: how patches are drawn.

        Raises:
            ValueError: nothing is left.
        """
        self._looks = [look for look in looks if look.classes]
        self._labels, self._config = labels, config
        if not self._looks:
            raise ValueError(
                "sources: expected objects in the images to learn from, found none, in the "
                "annotations neither"
            )

    def __len__(self) -> int:
        """Return the number of patches in an epoch."""
        return len(self._looks) * self._config.patches_per_image

    def __getitem__(self, place: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Return planes (P, h, w), truth (1, h, w), and the class's number, int64 ()."""
        epoch, index = place
        generator = np.random.default_rng([self._config.seed, epoch, index])
        look = self._looks[index // self._config.patches_per_image]
        names = list(look.classes)
        label = names[int(generator.integers(len(names)))]
        planes, truth = draw_example(look, label, generator, self._config)
        number = torch.tensor(self._labels.index[label])
        return torch.from_numpy(planes), torch.from_numpy(truth), number


class RefinerModule(NetworkModule):
    """The network, with its loss on patches."""

    def __init__(
        self, network: nn.Module, config: RefinerConfig, labels: LabelSpace, data: Examples
    ) -> None:
        super().__init__(network, config, labels, data)
        self.objective = config.objective(labels)

    def training_step(self, batch: Batch, number: int) -> torch.Tensor:
        """Return the loss of planes (N, P, h, w), truth (N, 1, h, w), classes (N,)."""
        planes, truth, labels = batch
        loss: torch.Tensor = self.objective(self.network(planes, labels), truth)
        return loss
