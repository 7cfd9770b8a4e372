"""What a network should have said, and how much each part of it counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LossTarget:
    """The truth of a batch, with what the losses weigh it by.

    Attributes:
        area: float32 (N, C, h, w), in [0, 1]: the share of the pixel that a class covers; 0 or 1
            where masks have the network's size.
        smoothing: how much of the truth the losses of single pixels give up, see `smooth`.
        pixel_weights: float32 that broadcasts to `area`, such as (N, 1, h, w); None: all count
            alike.
        class_weights: float32 (C,); None: all count alike.
        log_none: float32 (N, 1, h, w), the log probability that the pixel has no class, where it
            has one or none; None where it has one, or may have several.
    """

    area: torch.Tensor
    smoothing: float = 0.0
    pixel_weights: torch.Tensor | None = None
    class_weights: torch.Tensor | None = None
    log_none: torch.Tensor | None = None

    @property
    def smooth(self) -> torch.Tensor:
        """The truth moved toward one half, float32 (N, C, h, w).

        Label smoothing with two outcomes: t (1 - s) + s / 2 (Szegedy et al. 2016, Rethinking the
        Inception Architecture, section 7).
        """
        if not self.smoothing:
            return self.area
        return self.area * (1 - self.smoothing) + self.smoothing / 2

    def weigh(self, values: torch.Tensor) -> torch.Tensor:
        """Return values (N, C, h, w) times the weights of their pixels."""
        return values if self.pixel_weights is None else values * self.pixel_weights

    def mean_pixels(self, values: torch.Tensor) -> torch.Tensor:
        """Return each class's mean of (N, C, h, w) over batch and pixels by weight, (C,)."""
        if self.pixel_weights is None:
            return values.mean((0, 2, 3))
        weights = self.pixel_weights.expand_as(values)
        return (values * weights).sum((0, 2, 3)) / weights.sum((0, 2, 3))

    def mean_classes(
        self, values: torch.Tensor, counts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean of (C,) by weight, over the classes that count, bool (C,); a scalar.

        The weights are shares: doubling all of them changes nothing. Where none counts it is 0.
        """
        weights = torch.ones_like(values) if self.class_weights is None else self.class_weights
        if counts is not None:
            weights = weights * counts
        return (values * weights).sum() / weights.sum().clamp_min(1e-6)
