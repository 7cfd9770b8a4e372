"""The settings of a network of torchvision."""

from __future__ import annotations

from typing import Any, Self

from pydantic import model_validator
from torchvision.models import get_model_weights

from zoo.run_files.checkpoints import is_weight_file
from zoo.training.semantic_config import SemanticConfig

# Architecture -> its backbone, by torchvision's names.
ARCHITECTURES = {
    "fcn_resnet50": "resnet50",
    "fcn_resnet101": "resnet101",
    "deeplabv3_resnet50": "resnet50",
    "deeplabv3_resnet101": "resnet101",
    "deeplabv3_mobilenet_v3_large": "mobilenet_v3_large",
}


class TorchvisionConfig(SemanticConfig):
    """A network of torchvision.

    Two weights in `deep_supervision` add the auxiliary head, which reads the last stage but one.

    Attributes:
        architecture: key of `ARCHITECTURES`.
        pretrained: null for random weights; those of a whole network, such as
            `COCO_WITH_VOC_LABELS_V1`, without its last layers; those of the backbone, such as
            `IMAGENET1K_V2`; both download. Or a file with the
            backbone's weights (.safetensors, .pth).
    """

    architecture: str = "fcn_resnet50"
    pretrained: str | None = None

    @property
    def outputs(self) -> int:
        """How many outputs the network can give while it learns."""
        return 2

    @property
    def pools_all(self) -> bool:
        """Whether a norm sees one value an image and channel, so that a batch needs two."""
        return self.architecture.startswith("deeplabv3")

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"architecture '{self.architecture}': expected one of {known}")
        given = self.pretrained
        if given is not None and not is_weight_file(given):
            names = [*known_weights(self.architecture), *known_weights(self.backbone)]
            if given not in names:
                raise ValueError(
                    f"pretrained '{given}': expected null, a .safetensors or .pth file, or one of "
                    f"{', '.join(names)}"
                )
        return self

    @property
    def backbone(self) -> str:
        """Torchvision's name of the backbone."""
        return ARCHITECTURES[self.architecture]


def known_weights(model: str) -> dict[str, Any]:
    """Return torchvision's weights for one of its models, by their names."""
    return {weights.name: weights for weights in get_model_weights(model)}
