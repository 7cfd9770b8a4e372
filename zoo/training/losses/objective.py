"""What training lowers: weighted losses, at one scale or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from converters.types import LabelSpace
from zoo.inference.activation import log_none, one_against_rest
from zoo.inference.predict import enlarge
from zoo.inference.setting import Activation
from zoo.training.losses import LOSSES, split_weight
from zoo.training.losses.target import LossTarget

Outputs: TypeAlias = torch.Tensor | Sequence[torch.Tensor]


def resolve_class_weights(weights: Mapping[str, float], labels: LabelSpace) -> list[float]:
    """Return one weight a class, in order; 1 where nothing is said.

    Args:
        weights: class or group -> weight; what is said of a class beats what is said of its group.
        labels: the classes and groups.

    Raises:
        ValueError: neither a class nor a group, a weight below 0, or none above it.
    """
    for name, weight in weights.items():
        if name not in labels.index and name not in labels.groups:
            known = ", ".join((*labels.groups, *labels.names))
            raise ValueError(f"class_weights.{name}: expected a class or group of: {known}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"class_weights.{name}: expected at least 0, found {weight}")
    of_groups = [weights.get(labels.group_of(name) or "", 1.0) for name in labels.names]
    found = [weights.get(n, g) for n, g in zip(labels.names, of_groups, strict=True)]
    if not any(found):
        raise ValueError("class_weights: expected a class with a weight above 0, found none")
    return found


def weigh_shared(area: torch.Tensor, weight: float) -> torch.Tensor | None:
    """Return the weights of pixels, (N, 1, h, w): `weight` where two or more classes lie, else 1.

    A class lies where it covers at least half of the pixel. None where all would be 1.
    """
    if weight == 1:
        return None
    shared = (area >= 0.5).sum(1, keepdim=True) >= 2
    return 1 + (weight - 1) * shared.float()


class Objective(nn.Module):
    """The sum of losses, each times its weight.

    What it is made of applies in this order: pixels that classes share are weighed by the plain
    truth; truth and weights are brought to the scale of the output, by area; the losses of single
    pixels smooth the truth; each loss takes its mean over pixels, or its ratio of sums, by the
    weights of pixels, then its mean over classes, by theirs; the losses are added by weight, and so
    are the scales. Weights of pixels and classes are shares and leave the size of a loss as it is;
    those of losses and scales do not.
    """

    class_weights: torch.Tensor | None

    def __init__(
        self,
        losses: Mapping[str, Any],
        class_weights: Sequence[float] | None = None,
        smoothing: float = 0.0,
        shared_weight: float = 1.0,
        scales: Sequence[float] = (),
        activation: Activation = "sigmoid",
    ) -> None:
        """Build it.

        Args:
            losses: as `zoo.training.losses.check_losses` returns them.
            class_weights: one a class, or None.
            smoothing: see `LossTarget.smooth`.
            shared_weight: of pixels where two or more classes lie.
            scales: weights of the outputs of a network with deep supervision, finest first.
            activation: what makes probabilities of logits.
        """
        super().__init__()
        terms = ((LOSSES[name], *split_weight(given)) for name, given in losses.items())
        self._terms = [(weight, partial(loss, **more)) for loss, weight, more in terms if weight]
        self._smoothing, self._shared_weight = smoothing, shared_weight
        self._scales, self._activation = tuple(scales), activation
        given = None if class_weights is None else torch.tensor(class_weights)
        # Not persistent: it is the config's, and checkpoints stay those of the network.
        self.register_buffer("class_weights", given, persistent=False)

    def forward(self, outputs: Outputs, area: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar, in float32 whatever the network computes in.

        Args:
            outputs: logits (N, C, h', w'), or with deep supervision several, finest first. The
                finest are enlarged to the truth's size, to the others the truth is reduced.
            area: the truth, float (N, C, h, w), see `LossTarget`.

        Raises:
            ValueError: more or fewer outputs than weights for them.
        """
        scales, every = self._match(outputs)
        # Autocast would sum a million pixels in float16, whose largest number is 65504.
        with torch.autocast(area.device.type, enabled=False):
            area = area.float()
            weights = weigh_shared(area, self._shared_weight)
            finest = enlarge(every[0], area.shape[-2:]).float()
            parts = [scales[0] * self._compare(finest, area, weights)]
            for scale, logits in zip(scales[1:], every[1:], strict=True):
                size = logits.shape[-2:]
                there = None if weights is None else _reduce(weights, size)
                parts.append(scale * self._compare(logits.float(), _reduce(area, size), there))
            return torch.stack(parts).sum()

    def _match(self, outputs: Outputs) -> tuple[Sequence[float], Sequence[torch.Tensor]]:
        if isinstance(outputs, torch.Tensor):
            if len(self._scales) > 1:
                raise ValueError(
                    f"deep_supervision: {len(self._scales)} weights, but this network gives one "
                    "output; remove it"
                )
            return self._scales or (1.0,), [outputs]
        if len(outputs) != len(self._scales):
            raise ValueError(
                f"deep_supervision: expected {len(outputs)} weights, one for each output of this "
                f"network, found {len(self._scales)}"
            )
        return self._scales, outputs

    def _compare(
        self, logits: torch.Tensor, area: torch.Tensor, pixel_weights: torch.Tensor | None
    ) -> torch.Tensor:
        none = log_none(logits, self._activation)
        target = LossTarget(area, self._smoothing, pixel_weights, self.class_weights, none)
        odds = one_against_rest(logits, self._activation)
        return torch.stack([weight * loss(odds, target) for weight, loss in self._terms]).sum()


def compute_loss(
    objective: nn.Module, outputs: Any, area: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Return the loss of what a network gives of a batch, a scalar.

    Args:
        objective: what training lowers; one that says `needs_images` is shown the images as well.
        outputs: of the network.
        area: the truth, float (N, C, h, w).
        images: as they are before they are normalised, 0..255, (N, channels, h, w).
    """
    shown = (images,) if getattr(objective, "needs_images", False) else ()
    loss: torch.Tensor = objective(outputs, area, *shown)
    return loss


def _reduce(values: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return values if values.shape[-2:] == size else F.interpolate(values, size=size, mode="area")
