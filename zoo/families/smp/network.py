"""Networks of segmentation-models-pytorch: any of its architectures with any of its encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn

from converters.errors import one_line
from zoo.families.downloads import from_smp
from zoo.families.semantic import quiet_hub, reads_colours
from zoo.families.smp.config import ARCHITECTURES, SmpConfig
from zoo.run_files import checkpoints


def build_network(config: SmpConfig, classes: int) -> nn.Module:
    """Return a network; its encoder may come with pretrained weights.

    Raises:
        ValueError: an unknown encoder, options that do not go together, or weights that cannot be
            had.
    """
    weights = config.encoder_weights
    if weights is None or not weights.endswith(".safetensors"):
        return _create(config, classes, weights)
    return _create_from_file(config, classes, Path(weights))


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


def _create_from_file(config: SmpConfig, classes: int, path: Path) -> Any:
    """Return a network whose encoder has a file's weights: ours, smp-hub's or timm's."""
    found = checkpoints.read_weights(path)
    if not reads_colours(path):
        network = _create(config, classes, None)
        checkpoints.load_weights(network.encoder, path)
        return network
    if config.encoder.startswith("tu-") and not any(key.startswith("model.") for key in found):
        overlay: dict[str, Any] = {"file": str(path), "hf_hub_id": None}
        return _create(config, classes, str(path), pretrained_cfg_overlay=overlay)
    network = _create(config, classes, None, channels=3)
    checkpoints.load_weights(network.encoder, path)
    network.encoder.set_in_channels(1, pretrained=True)
    return network


def _create(
    config: SmpConfig, classes: int, weights: str | None, channels: int = 1, **further: Any
) -> Any:
    # timm's encoders carry the name of their weights in their own name.
    given = True if weights is not None and config.encoder.startswith("tu-") else weights
    is_deep = config.architecture == "unetplusplus" and len(config.deep_supervision) > 1
    try:
        with quiet_hub():
            return (DeepUnetPlusPlus if is_deep else ARCHITECTURES[config.architecture])(
                encoder_name=config.encoder,
                encoder_weights=given,
                in_channels=channels,
                classes=classes,
                **config.options,
                **config.encoder_options,
                **further,
            )
    except Exception as error:
        reason = one_line(error)
        if weights is not None and not isinstance(error, KeyError | TypeError):
            by_hand = from_smp(config.encoder, weights, "encoder_weights")
            raise ValueError(
                f"encoder_weights '{weights}': could not get the weights of '{config.encoder}'; "
                "run once with a network connection, "
                f"{by_hand or 'give a safetensors file of the encoder'}, or "
                f"set encoder_weights=null: {type(error).__name__}: {reason:.160}"
            ) from None
        raise ValueError(
            f"{config.architecture} with encoder '{config.encoder}' and these options cannot be "
            f"built: {type(error).__name__}: {reason:.300}"
        ) from None
