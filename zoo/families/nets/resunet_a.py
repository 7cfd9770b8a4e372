"""ResUNet-a d6 and d7 (Diakogiannis et al. 2020, arXiv:1904.00592).

Residual units whose branches have different dilations (figure 2), pyramid scene parsing pooling in
the middle and at the end (figure 3), and conditioned multitasking: distances first, from them
outlines, from both the masks (figure 4, section 2.1.4). The fourth task, the image's own colours,
is there by `colors: true`; as in the authors' code one 1x1 convolution sees the features that the
distances see, and no other task sees the colours.

Dilations are those of the authors' code, see `ENCODER_DILATIONS` and `DECODER_DILATIONS`; between
levels lie strided 1x1 convolutions as in the paper, or with `halving: 3` 3x3 ones as in the code.
It differs from both in this:

- Classes may overlap, so that all outputs are sigmoids, and masks are logits.
- Colours are no part of `multitask: true`. They are those of the image that the network is shown,
  after all augmentation; the authors, who augment by geometry alone, turn them with the image. Of
  grey images the task is their brightness (`zoo.families.nets.multitask.measure_colors`).
- The loss of the masks is the config's; the other tasks have the Tanimoto loss with complement, see
  `zoo.families.nets.multitask`.
- Cells of the pooling share pixels where they do not divide the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from zoo.families.nets.layers import init_he
from zoo.families.nets.multitask import REACH, MultitaskObjective

ENCODER = False
OUTPUTS = 1
_WIDE, _MIDDLE, _NARROW, _ONE = (1, 3, 15, 31), (1, 3, 15), (1, 3, 5), (1,)
ENCODER_DILATIONS = {
    6: (_WIDE, _WIDE, _MIDDLE, _NARROW, _ONE, _ONE),
    7: (_WIDE, _WIDE, _MIDDLE, _NARROW, _ONE, _ONE, _ONE),
}
"""Depth -> dilations of each level's branches, finest first."""
DECODER_DILATIONS = {
    6: (_WIDE, _WIDE, _WIDE, _MIDDLE, _NARROW),
    7: (_WIDE, _WIDE, _WIDE, _WIDE, _MIDDLE, _ONE),
}
"""The same of the decoder, which has a level less."""
# How often the pooling in the middle halves its cells; at the end it is `_POOLINGS[6]`.
_POOLINGS = {6: 4, 7: 3}


def build(
    *,
    encoder: None,
    channels: int,
    classes: int,
    outputs: int,
    depth: int = 6,
    width: int = 32,
    halving: int = 1,
    multitask: bool = False,
    reach: int = REACH,
    task_weight: float = 1.0,
    colors: bool = False,
) -> nn.Module:
    """Return a ResUNet-a.

    Args:
        encoder: None; it has its own.
        channels: of the images.
        classes: of the logits.
        outputs: 1.
        depth: levels: 6 or 7.
        width: channels at the image's size, a multiple of 4; each halving doubles them.
        halving: kernel of the convolutions between the encoder's levels, 1 or 3.
        multitask: learn distances and outlines as well.
        reach: of the distances that are learned, see `MultitaskObjective`.
        task_weight: of the further tasks, likewise.
        colors: with `multitask`, learn the images' colours as well.
    """
    return ResUNetA(channels, classes, depth, width, halving, multitask, colors)


def check(size_hw: tuple[int, int], options: Mapping[str, Any]) -> None:
    """Make sure that the options go together.

    Raises:
        ValueError: they do not.
    """
    depth, width = options.get("depth", 6), options.get("width", 32)
    if depth not in ENCODER_DILATIONS:
        raise ValueError(f"options.depth: expected 6 or 7, found {depth}")
    if width < 4 or width % 4:
        raise ValueError(f"options.width: expected a multiple of 4, found {width}")
    if options.get("halving", 1) not in (1, 3):
        raise ValueError(f"options.halving: expected 1 or 3, found {options['halving']}")
    tasks = [key for key in ("reach", "task_weight", "colors") if key in options]
    if tasks and not options.get("multitask"):
        raise ValueError(f"options.{tasks[0]}: expected together with multitask: true")
    if not 1 <= options.get("reach", REACH) <= 127:
        raise ValueError(f"options.reach: expected 1 to 127 pixels, found {options['reach']}")


def objective(base: nn.Module, options: Mapping[str, Any]) -> nn.Module:
    """Return what training lowers: with multitasking, the further tasks as well."""
    if not options.get("multitask"):
        return base
    reach, weight = options.get("reach", REACH), options.get("task_weight", 1.0)
    return MultitaskObjective(base, reach, weight, options.get("colors", False))


class ResidualUnit(nn.Module):
    """ResBlock-a: what it is given, and the sum of branches of different dilations (figure 2)."""

    def __init__(self, channels: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_branch(channels, d) for d in dilations)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape."""
        return sum((branch(features) for branch in self.branches), features)


class PyramidPooling(nn.Module):
    """PSPPooling: the highest values of 1, 4, 16, ... cells beside what it is given (figure 3)."""

    def __init__(self, given: int, made: int, levels: int) -> None:
        super().__init__()
        part = made // levels
        self.convolve = nn.ModuleList(nn.Conv2d(given, part, 1, bias=False) for _ in range(levels))
        # They see what was enlarged: a global cell is one value an image.
        self.norms = nn.ModuleList(nn.BatchNorm2d(part) for _ in range(levels))
        self.mix = _conv_norm(given + levels * part, made, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, made, h, w)."""
        size = features.shape[-2:]
        parts = [features]
        for level, (convolve, norm) in enumerate(zip(self.convolve, self.norms, strict=True)):
            cells = convolve(F.adaptive_max_pool2d(features, 2**level))
            parts.append(norm(F.interpolate(cells, size=size, mode="nearest")))
        found: torch.Tensor = self.mix(torch.cat(parts, 1))
        return found


class Combine(nn.Module):
    """Enlarges the coarser features and mixes them with the finer ones (figure 1c)."""

    def __init__(self, coarser: int, finer: int) -> None:
        super().__init__()
        self.narrow = _conv_norm(coarser, finer // 2, 1)
        self.mix = _conv_norm(finer // 2 + finer, finer, 1)

    def forward(self, coarser: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        """Return features (N, finer, h, w) at the finer ones' size."""
        # A 1x1 convolution is the same before it is enlarged by nearest neighbours as after.
        narrow = F.interpolate(self.narrow(coarser), size=finer.shape[-2:], mode="nearest")
        found: torch.Tensor = self.mix(torch.cat((narrow.relu(), finer), 1))
        return found


class Encoder(nn.Module):
    """A 1x1 convolution, then residual units, each of half the size before."""

    def __init__(
        self, channels: int, widths: Sequence[int], dilations: Sequence[Any], halving: int
    ) -> None:
        super().__init__()
        self.first = _conv_norm(channels, widths[0], 1)
        self.units = nn.ModuleList(
            ResidualUnit(w, d) for w, d in zip(widths, dilations, strict=True)
        )
        self.halve = nn.ModuleList(
            nn.Conv2d(a, b, halving, 2, halving // 2, bias=False) for a, b in pairwise(widths)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the first convolution's features, and each unit's, finest first."""
        features = [self.first(images).relu()]
        for level, unit in enumerate(self.units):
            given = self.halve[level - 1](features[-1]) if level else features[-1]
            features.append(unit(given))
        return features


class Heads(nn.Module):
    """Distances, outlines by them, masks by both (figure 4); colours, while they are learned."""

    def __init__(self, width: int, classes: int, colors: int) -> None:
        super().__init__()
        self.distances = nn.Sequential(
            *_conv_relus(2 * width, width, 2), nn.Conv2d(width, classes, 1)
        )
        self.outlines = nn.Sequential(
            *_conv_relus(width + classes, width, 1), nn.Conv2d(width, classes, 1)
        )
        self.masks = nn.Sequential(
            *_conv_relus(width + 2 * classes, width, 2), nn.Conv2d(width, classes, 1)
        )
        self.colors = nn.Conv2d(2 * width, colors, 1) if colors else None

    def forward(self, plain: torch.Tensor, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (N, C, h, w) of each task, those of colours (N, channels, h, w).

        Args:
            plain: features (N, 2 width, h, w).
            pooled: features (N, width, h, w).
        """
        distances = self.distances(plain)
        near = distances.sigmoid()
        outlines = self.outlines(torch.cat((pooled, near), 1))
        masks = self.masks(torch.cat((pooled, outlines.sigmoid(), near), 1))
        found = {"masks": masks, "outlines": outlines, "distances": distances}
        if self.colors is not None and self.training:
            found["colors"] = self.colors(plain)
        return found


class ResUNetA(nn.Module):
    """The network."""

    def __init__(
        self,
        channels: int,
        classes: int,
        depth: int,
        width: int,
        halving: int,
        multitask: bool,
        colors: bool,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.encoder = Encoder(channels, widths, ENCODER_DILATIONS[depth], halving)
        self.middle = PyramidPooling(widths[-1], widths[-1], _POOLINGS[depth])
        levels = range(depth - 1)
        self.combine = nn.ModuleList(Combine(widths[n + 1], widths[n]) for n in levels)
        self.units = nn.ModuleList(
            ResidualUnit(widths[n], DECODER_DILATIONS[depth][n]) for n in levels
        )
        self.pool = PyramidPooling(2 * width, width, _POOLINGS[6])
        self.head = (
            Heads(width, classes, channels if colors else 0)
            if multitask
            else nn.Conv2d(width, classes, 1)
        )
        init_he(self)

    def forward(self, images: torch.Tensor) -> Any:
        """Return logits (N, C, h, w) of images, float (N, channels, h, w).

        While learning with multitasking {"masks": ..., "outlines": ..., "distances": ...} of them,
        with colours {"colors": ...} as well, (N, channels, h, w).
        """
        first, *skips, coarsest = self.encoder(images)
        features = self.middle(coarsest).relu()
        for level in reversed(range(len(skips))):
            features = self.units[level](self.combine[level](features, skips[level]))
        plain = torch.cat((first, features), 1)
        pooled = self.pool(plain).relu()
        if not isinstance(self.head, Heads):
            return self.head(pooled)
        found = self.head(plain, pooled)
        return found if self.training else found["masks"]


def _conv_norm(given: int, made: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(given, made, kernel, 1, kernel // 2, bias=False), nn.BatchNorm2d(made)
    )


def _conv_relus(given: int, made: int, count: int) -> list[nn.Module]:
    pairs = pairwise([given, *[made] * count])
    return [nn.Sequential(*_conv_norm(a, b, 3), nn.ReLU(inplace=True)) for a, b in pairs]


def _branch(channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, 1, dilation, dilation),
    )
