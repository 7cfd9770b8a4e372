"""Networks of segmentation-models-pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from zoo.families.encoders import make_with_weights
from zoo.families.smp.config import ARCHITECTURES, SmpConfig


def build_network(config: SmpConfig, classes: int) -> nn.Module:
    """Return a network; its encoder may come with pretrained weights.

    Raises:
        ValueError: an unknown encoder, options that do not go together, or weights that cannot be
            had.
    """
    is_deep = config.architecture == "unetplusplus" and len(config.deep_supervision) > 1
    kind = DeepUnetPlusPlus if is_deep else ARCHITECTURES[config.architecture]

    def make(given: str | bool | None, colours: int, /, **further: Any) -> Any:
        return kind(
            encoder_name=config.encoder,
            encoder_weights=given,
            in_channels=colours,
            classes=classes,
            **config.options,
            **config.encoder_options,
            **further,
        )

    what = f"{config.architecture} with encoder '{config.encoder}'"
    network: nn.Module = make_with_weights(make, config.encoder, config.encoder_weights, what)
    return network


class DeepUnetPlusPlus(smp.UnetPlusPlus):
    """U-Net++ with deep supervision (Zhou et al. 2018, arXiv:1807.10165, section 2.2).

    In the paper's names, logits come from each node X(0, j) of the row with the finest skip
    connection, by a 1x1 convolution. segmentation-models-pytorch enlarges the last of these nodes
    once more, to the input's size; its logits come from there, the others' have half the size.
    """

    def __init__(self, classes: int, **further: Any) -> None:
        """Build it.

        Args:
            classes: of the output.
            further: what smp's U-Net++ takes.
        """
        super().__init__(classes=classes, **further)
        row = self.decoder.depth - 1
        # From the node that has seen most of the network to the one that has seen least.
        self._nodes = [f"x_{column}_{row}" for column in range(1, row + 1)]
        channels = self.decoder.skip_channels[row]
        if not channels:
            raise ValueError("an encoder that gives nothing at half of the size has no such nodes")
        self.auxiliary_heads = nn.ModuleList(nn.Conv2d(channels, classes, 1) for _ in self._nodes)

    def forward(self, images: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits (N, C, h, w) of images (N, 1, h, w); several while learning."""
        if not self.training:
            finest: torch.Tensor = super().forward(images)
            return finest
        found: dict[str, torch.Tensor] = {}
        hooks = [
            self.decoder.blocks[name].register_forward_hook(
                lambda _, __, output, name=name: found.update({name: output})
            )
            for name in self._nodes
        ]
        try:
            logits = [super().forward(images)]
        finally:
            for hook in hooks:
                hook.remove()
        pairs = zip(self.auxiliary_heads, self._nodes, strict=True)
        return [*logits, *(head(found[name]) for head, name in pairs)]
