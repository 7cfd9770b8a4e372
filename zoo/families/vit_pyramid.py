"""Plain Vision Transformers of timm as encoders: a pyramid of features from one resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

_PLAIN = ("vit_", "deit", "beit", "eva02_")
_PATCH = 16


def is_plain_vit(name: str) -> bool:
    """Tell whether timm's model of this name is a plain Vision Transformer.

    >>> is_plain_vit("vit_base_patch16_224.mae"), is_plain_vit("swin_tiny_patch4_window7_224")
    (True, False)
    """
    return name.startswith(_PLAIN)


class VitPyramid(nn.Module):
    """A Vision Transformer whose features of four blocks are brought to four resolutions.

    As BEiT (Bao et al. 2022, arXiv:2106.08254, appendix) and MAE (He et al. 2022, arXiv:2111.06377,
    appendix A.4) are put below UPerNet: transposed convolutions twice and once, nothing, and a
    largest of 2 x 2. Positions are timm's, of BEiT the relative ones, stretched to the images; the
    relative ones that MAE adds for this task are left out.
    """

    output_stride = 32

    def __init__(
        self,
        name: str,
        pretrained: bool,
        channels: int,
        out_indices: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        """Build it.

        Args:
            name: of timm's, with patches of 16 x 16.
            pretrained: whether it has timm's weights.
            channels: of the images.
            out_indices: four blocks, whose features are read; by default at a third, a half, two
                thirds and the end, as BEiT's: 3, 5, 7 and 11 of 12, and 7, 11, 15 and 23 of 24.
            options: what else timm's model takes, such as `img_size`, `dynamic_img_size`.

        Raises:
            ValueError: patches of another size, or not four blocks.
        """
        super().__init__()
        self.name = name
        if out_indices is None:
            with torch.device("meta"):
                depth = len(timm.create_model(name, **options).blocks)
            out_indices = [depth // 3 - 1, depth // 2 - 1, 2 * depth // 3 - 1, depth - 1]
        self.model = timm.create_model(
            name,
            pretrained=pretrained,
            in_chans=channels,
            features_only=True,
            out_indices=tuple(out_indices),
            **options,
        )
        info = self.model.feature_info
        if info.reduction() != [_PATCH] * 4 or len(set(out_indices)) != 4:
            raise ValueError(
                f"{name}: expected patches of 16 x 16 and four blocks, found features of blocks "
                f"{list(out_indices)} at strides {info.reduction()}"
            )
        width = info.channels()[0]
        self.out_channels = [channels, 0, width, width, width, width]
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
            )
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return features of images (N, channels, h, w): at strides of 1, 2 (empty), 4 to 32."""
        half = (images.shape[-2] // 2, images.shape[-1] // 2)
        empty = images.new_empty(len(images), 0, *half)
        pairs = zip(self.scales, self.model(images), strict=True)
        return [images, empty, *(scale(features) for scale, features in pairs)]
