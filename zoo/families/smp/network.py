"""Networks of segmentation-models-pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from zoo.families.attention import attend_after
from zoo.families.encoders import TIMM, make_with_weights
from zoo.families.smp.config import ARCHITECTURES, SmpConfig
from zoo.families.vit_pyramid import is_plain_vit, register


def build_network(config: SmpConfig, classes: int) -> Any:
    """Return a network; its encoder may come with pretrained weights.

    Raises:
        ValueError: an unknown encoder, options that do not go together, or weights that cannot be
            had.
    """
    is_deep = config.architecture == "unetplusplus" and len(config.deep_supervision) > 1
    kind = DeepUnetPlusPlus if is_deep else ARCHITECTURES[config.architecture]

    def make(given: str | bool | None, colours: int, /, **further: Any) -> Any:
        name, further = config.encoder, {**config.encoder_options, **further}
        # DPT makes its own pyramid of such encoders, from several of their blocks.
        if config.architecture != "dpt" and is_plain_vit(name.removeprefix(TIMM)):
            name, given, further = register(name, bool(given), colours, **further), None, {}
        return kind(
            encoder_name=name,
            encoder_weights=given,
            in_channels=colours,
            classes=classes,
            **config.options,
            **further,
        )

    what = f"{config.architecture} with encoder '{config.encoder}'"
    network: Any = make_with_weights(
        make, config.encoder, config.encoder_weights, what, config.in_channels
    )
    if config.attention is not None:
        channels = network.encoder.out_channels
        read = _places_read(config.architecture, len(channels))
        given = [width if i in read else 0 for i, width in enumerate(channels)]
        attend_after(network, config.attention, given)
    return network


def _places_read(architecture: str, features: int) -> set[int]:
    """Return the places of an encoder's features that a decoder reads, of so many; 0 is finest."""
    last = features - 1
    if architecture in ("pspnet", "deeplabv3"):
        return {last}
    if architecture == "deeplabv3plus":
        return {2, last}
    return set(range(2 if architecture in ("fpn", "pan", "upernet") else 1, features))


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
        """Return logits (N, C, h, w) of images (N, c, h, w); several while learning."""
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
