"""A small encoder-decoder that answers with log odds to be added to those that it is given.

U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with two halvings, group norms, and a last layer
that starts at zero, so that an untrained network changes nothing. What it is for, and patches along
outlines, is boundary patch refinement (Tang et al. 2021, arXiv:2104.05239), which gives a network
the image and a mask; here there are several soft ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.refiner.config import RefinerConfig
from zoo.families.refiner.patches import SCALE, Planes, count_planes
from zoo.families.refiner.refining import Change, Numbers
from zoo.inference.setting import Setting
from zoo.machine.devices import autocast

FUSED = 0
"""The plane of the fused log odds."""


class Refiner(nn.Module):
    """Looks at patches of one class each.

    Attributes:
        config: what it is given.
    """

    def __init__(self, config: RefinerConfig, classes: int) -> None:
        """Build it.

        Args:
            config: what it is given, and how wide it is.
            classes: how many it is told apart, if it is told.
        """
        super().__init__()
        self.config = config
        fine, middle, coarse = config.width, 2 * config.width, 4 * config.width
        self.enter = _block(count_planes(config), fine)
        self.down = _block(fine, middle)
        self.bottom = _block(middle, coarse)
        self.up = _block(coarse + middle, middle)
        self.leave = _block(middle + fine, fine)
        self.answer = nn.Conv2d(fine, 1, 1)
        self.classes = nn.Embedding(classes, coarse) if "class" in config.inputs else None
        zero = [self.answer.weight, self.answer.bias]
        for weight in (*zero, self.classes.weight) if self.classes is not None else zero:
            nn.init.zeros_(weight)

    def change(self, planes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return log odds to add, (N, 1, h, w).

        Args:
            planes: float (N, P, h, w): `FUSED` is log odds / `SCALE`, like all that are log odds.
            labels: int64 (N,), each patch's class.
        """
        return self._change(planes, None if self.classes is None else self.classes(labels))

    def _change(self, planes: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
        """Return log odds to add, of planes and what each class is to the network, (N, F)."""
        fine = self.enter(planes)
        middle = self.down(F.avg_pool2d(fine, 2))
        coarse = self.bottom(F.avg_pool2d(middle, 2))
        if told is not None:
            coarse = coarse + told[:, :, None, None]
        middle = self.up(torch.cat([_double(coarse), middle], 1))
        fine = self.leave(torch.cat([_double(middle), fine], 1))
        found: torch.Tensor = self.answer(fine)
        return found

    def forward(self, planes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mended log odds, (N, 1, h, w), of what `change` takes."""
        return planes[:, FUSED : FUSED + 1] * SCALE + self.change(planes, labels)

    def by(self, setting: Setting) -> Change:
        """Return `change` as a function of arrays, on a device and in its number format."""

        def change(planes: Planes, labels: Numbers) -> Planes:
            given = [torch.from_numpy(values).to(setting.device) for values in (planes, labels)]
            with torch.inference_mode(), autocast(setting.device, setting.precision):
                found: Planes = self.change(*given)[:, 0].float().cpu().numpy()
            return found

        return change


class ExportableRefiner(nn.Module):
    """What a refiner adds, of floats alone: a class is a row of numbers, of which one is 1."""

    def __init__(self, network: Refiner) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network

    def forward(self, planes: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Return log odds to add, (N, 1, h, w).

        Args:
            planes: float (N, P, h, w), as `Refiner.change` takes them.
            classes: float (N, C); only of a network that is told them.
        """
        known = self.network.classes
        told = None if classes is None or known is None else classes @ known.weight
        return self.network._change(planes, told)


def _double(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


def _block(given: int, made: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner in (given, made):
        layers += [nn.Conv2d(inner, made, 3, padding=1, bias=False), nn.GroupNorm(4, made)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers)
