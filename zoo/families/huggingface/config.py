"""The settings of a network of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any, Literal, Self

import transformers as hf
from pydantic import Field, model_validator
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from zoo.training.semantic_config import SemanticConfig

# Architecture -> transformers' class of its dimensions.
DIMENSIONS: dict[str, Any] = {
    "upernet": hf.UperNetConfig,
    "beit": hf.BeitConfig,
    "dpt": hf.DPTConfig,
}
# Given by us.
_NOT_DIMENSIONS = {"num_labels", "num_channels", "use_auxiliary_head", "id2label", "label2id"}


class HuggingFaceConfig(SemanticConfig):
    """A network of transformers.

    Two weights in `deep_supervision` add the auxiliary head.

    Attributes:
        architecture: `upernet` (Xiao et al. 2018) on any backbone of transformers, `beit` (Bao et
            al. 2022, with UPerNet's head), `dpt` (Ranftl et al. 2021).
        network: dimensions, by the names of transformers' UperNetConfig, BeitConfig or DPTConfig;
            of an `upernet` its backbone's below `backbone_config`, with their `model_type`.
        channels: of the network's input; 3, as pretrained ones have, get a grey image 3 times.
        pretrained: null for random weights; a folder, or a name on the Hugging Face hub, of a
            network with these dimensions.
    """

    architecture: Literal["upernet", "beit", "dpt"] = "upernet"
    network: dict[str, Any] = Field(default_factory=dict)
    channels: Literal[1, 3] = 1
    pretrained: str | None = None

    @property
    def network_channels(self) -> int:
        """Channels of the network's input: at least the images'."""
        return max(self.channels, self.in_channels)

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        return 2

    @property
    def pools_all(self) -> bool:
        """Whether a norm sees one value an image and channel, so that a batch needs two."""
        return self.architecture != "dpt"

    @model_validator(mode="after")
    def _known_dimensions(self) -> Self:
        dimensions = dict(self.network)
        if self.architecture == "upernet":
            _check_backbone(dimensions.get("backbone_config"))
        _check_keys(DIMENSIONS[self.architecture], dimensions, "network")
        width, heads = (self.network.get(k, 0) for k in ("hidden_size", "num_attention_heads"))
        if isinstance(width, int) and isinstance(heads, int) and heads and width % heads:
            raise ValueError(
                f"network.num_attention_heads: expected a divisor of hidden_size {width}, found "
                f"{heads}"
            )
        patch = self.network.get("patch_size", 16)
        if self.architecture != "upernet" and any(side % patch for side in self.input_size):
            raise ValueError(
                f"{self.input_key}: expected multiples of network.patch_size {patch} (and of 32), "
                f"found {list(self.input_size)}"
            )
        return self


def _check_backbone(found: Any) -> None:
    if not isinstance(found, dict) or found.get("model_type") not in CONFIG_MAPPING:
        raise ValueError(
            "network.backbone_config: expected its dimensions, with model_type: swin, convnext, or "
            f"another of transformers' backbones, found {found!r:.80}"
        )
    where = "network.backbone_config"
    _check_keys(CONFIG_MAPPING[found["model_type"]], found, where, "model_type")


def _check_keys(cls: Any, found: dict[str, Any], where: str, *further: str) -> None:
    fields = {name for name in cls.__dataclass_fields__ if not name.startswith("_")}
    generic = set(hf.PreTrainedConfig.__dataclass_fields__) - set(cls.__annotations__)
    known = fields - generic - _NOT_DIMENSIONS | {"out_features", "out_indices", *further}
    if unknown := sorted(set(found) - known):
        raise ValueError(f"{where}.{unknown[0]}: unknown key; known are {', '.join(sorted(known))}")
