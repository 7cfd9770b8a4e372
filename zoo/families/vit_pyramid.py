"""Plain Vision Transformers of timm as encoders: a pyramid of features from one resolution."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from zoo.families.downloads import quiet_hub

_PATCH = 16


@cache
def is_plain_vit(name: str) -> bool:
    """Tell whether timm's model of this name is a Vision Transformer with one resolution.

    >>> is_plain_vit("vit_base_patch16_224.mae"), is_plain_vit("swin_tiny_patch4_window7_224")
    (True, False)
    """
    if not timm.is_model(name):
        return False
    try:
        with quiet_hub(fetches=False), torch.device("meta"):
            model = timm.create_model(name, features_only=True)
    except (RuntimeError, TypeError, ValueError):
        return False
    return len(set(model.feature_info.reduction())) == 1


class VitPyramid(nn.Module):
    """A Vision Transformer whose features of four blocks are brought to four resolutions.

    As BEiT (Bao et al. 2022, arXiv:2106.08254, appendix) and MAE (He et al. 2022, arXiv:2111.06377,
    appendix A.4) are put below UPerNet: transposed convolutions twice and once, nothing, and a
    largest of 2 x 2. Positions are timm's, of BEiT the relative ones, stretched to the images; the
    relative ones that MAE adds for this task are left out.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool,
        channels: int,
        options: Mapping[str, Any],
        depth: int = 5,
        output_stride: int = 32,
    ) -> None:
        """Build it.

        Args:
            name: of timm's, with patches of 16 x 16.
            pretrained: whether it has timm's weights.
            channels: of the images.
            options: what else timm's model takes, such as `img_size`, `dynamic_img_size`; and
                `out_indices`: the blocks whose features are read, one a level. By default they lie
                at a third, a half, two thirds and the end, as BEiT's: 3, 5, 7 and 11 of 12, and 7,
                11, 15 and 23 of 24.
            depth: how many halvings are wanted, 2 to 5; of fewer levels the last blocks are read.
            output_stride: 32: there is no dilation.

        Raises:
            ValueError: patches of another size, blocks that are not one a level, or another stride.
        """
        super().__init__()
        self.name = name
        given, levels = dict(options), depth - 1
        chosen = given.pop("out_indices", None) or _spread(name, given)[-levels:]
        self.model = timm.create_model(
            name,
            pretrained=pretrained,
            in_chans=channels,
            features_only=True,
            out_indices=tuple(chosen),
            **given,
        )
        info = self.model.feature_info
        if info.reduction() != [_PATCH] * levels or len(set(chosen)) != levels:
            raise ValueError(
                f"{name}: expected patches of 16 x 16 and {levels} blocks, found features of "
                f"blocks {list(chosen)} at strides {info.reduction()}"
            )
        if output_stride != 32:
            raise ValueError(
                f"{name}: expected an architecture without dilation, found one with features at a "
                f"stride of {output_stride}"
            )
        width = info.channels()[0]
        self.out_channels = [channels, 0, width, width, width, width][: depth + 1]
        self.output_stride = 2**depth
        self.scales = nn.ModuleList(
            (
                nn.Sequential(
                    nn.ConvTranspose2d(width, width, 2, stride=2),
                    nn.BatchNorm2d(width),
                    nn.GELU(),
                    nn.ConvTranspose2d(width, width, 2, stride=2),
                ),
                nn.ConvTranspose2d(width, width, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2),
            )[:levels]
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return features of images (N, channels, h, w): at strides of 1, 2 (empty), 4 to 32."""
        half = (images.shape[-2] // 2, images.shape[-1] // 2)
        empty = images.new_empty(len(images), 0, *half)
        pairs = zip(self.scales, self.model(images), strict=True)
        return [images, empty, *(scale(features) for scale, features in pairs)]

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Do nothing: timm has made the first convolution for the images' channels."""


def _spread(name: str, options: Mapping[str, Any]) -> list[int]:
    """A third, a half, two thirds and the end of a transformer's blocks."""
    plain = {k: v for k, v in options.items() if k != "pretrained_cfg_overlay"}
    with torch.device("meta"):
        blocks = len(timm.create_model(name, **plain).blocks)
    return [blocks // 3 - 1, blocks // 2 - 1, 2 * blocks // 3 - 1, blocks - 1]


def register(encoder: str, pretrained: bool, channels: int, **options: Any) -> str:
    """Make a pyramid known to segmentation-models-pytorch; return the name under which it is.

    Args:
        encoder: `tu-` and timm's name.
        pretrained: whether it has timm's weights.
        channels: of images.
        options: what else timm's model takes.
    """
    name = encoder.removeprefix("tu-")
    known = f"pyramid-{name}"
    params = {"name": name, "pretrained": pretrained, "channels": channels, "options": options}
    found = {"encoder": VitPyramid, "params": params, "pretrained_settings": {}}
    smp.encoders.encoders[known] = found
    return known
