"""A pyramid of features from a plain vision transformer, for decoders that want one.

Such a transformer has one resolution, a patch's. As ViTDet does it (Li et al. 2022,
arXiv:2203.16527, section 3, "simple feature pyramid"), what its last block says is brought to
strides of 4, 8, 16 and 32 pixels, each by its own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn

from zoo.families.semantic import quiet_hub

PATCH_PX = 16
# Channels of every level, the paper's.
CHANNELS = 256


class VitPyramid(nn.Module):
    """One of timm's vision transformers with patches of 16 pixels, as an encoder of smp's.

    Attributes:
        model: the transformer.
        out_channels: of what `forward` gives.
        output_stride: of the last of it, in pixels.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        depth: int,
        output_stride: int,
        options: Mapping[str, Any],
    ) -> None:
        """Build it.

        Args:
            name: timm's.
            channels: of images.
            depth: how many halvings are wanted, 2 to 5.
            output_stride: 32.
            options: what else `timm.create_model` takes.

        Raises:
            ValueError: patches of another size, or an architecture with dilated encoders.
        """
        super().__init__()
        self.model = timm.create_model(
            name, features_only=True, out_indices=1, in_chans=channels, **options
        )
        (stride,), (width,) = (
            self.model.feature_info.reduction(),
            self.model.feature_info.channels(),
        )
        if stride != PATCH_PX or output_stride != 32:
            raise ValueError(
                f"expected patches of {PATCH_PX} pixels and an architecture without dilation, "
                f"found {stride} and a stride of {output_stride}"
            )
        self.levels = nn.ModuleList(_level(width, halvings) for halvings in range(2, depth + 1))
        self.out_channels = [channels, 0, *[CHANNELS] * len(self.levels)][: depth + 1]
        self.output_stride = 2**depth

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the images, float (N, C, h, w), and features at halves of their size.

        At half of the size there are no channels, as smp has it for encoders that begin with a
        quarter.
        """
        (features,) = self.model(images)
        height, width = images.shape[-2:]
        empty = images.new_empty(len(images), 0, height // 2, width // 2)
        return [images, empty, *(level(features) for level in self.levels)]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Do nothing: timm has made the first convolution for the images' channels."""


def register(encoder: str, weights: Any, channels: int, **further: Any) -> str:
    """Make an encoder known to smp, and return the name under which it is.

    Args:
        encoder: `tu-` and timm's name.
        weights: None for random ones.
        channels: of images.
        further: what `timm.create_model` takes.
    """
    name = encoder.removeprefix("tu-")
    known = f"pyramid-{name}"
    options = {"pretrained": weights is not None, **further}
    params = {"name": name, "channels": channels, "options": options}
    smp.encoders.encoders[known] = {
        "encoder": VitPyramid,
        "params": params,
        "pretrained_settings": {},
    }
    return known


def is_plain(encoder: str) -> bool:
    """Tell whether an encoder is a vision transformer of timm's with one resolution."""
    name = encoder.removeprefix("tu-")
    if name == encoder or not timm.is_model(name):
        return False
    try:
        with quiet_hub(), torch.device("meta"):
            model = timm.create_model(name, features_only=True)
    except (RuntimeError, TypeError, ValueError):
        return False
    return len(set(model.feature_info.reduction())) == 1


def _level(width: int, halvings: int) -> nn.Sequential:
    resample: dict[int, Callable[[], list[nn.Module]]] = {
        2: lambda: [
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            LayerNorm2d(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        ],
        3: lambda: [nn.ConvTranspose2d(width, width // 2, 2, 2)],
        4: list,
        5: lambda: [nn.MaxPool2d(2)],
    }
    given = {2: width // 4, 3: width // 2}.get(halvings, width)
    return nn.Sequential(
        *resample[halvings](),
        nn.Conv2d(given, CHANNELS, 1, bias=False),
        LayerNorm2d(CHANNELS),
        nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
        LayerNorm2d(CHANNELS),
    )
