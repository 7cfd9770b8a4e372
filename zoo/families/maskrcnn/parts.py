"""The parts of torchvision's Mask R-CNNs, for any backbone, width and size of mask."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import timm
import torch
import torchvision
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torchvision.models import (
    get_model,
    get_model_builder,
    get_model_weights,
    list_models,
    resnet,
)
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from converters.errors import one_line
from zoo.families.downloads import from_timm, in_torch_cache, quiet_hub
from zoo.run_files import checkpoints

V1: Final = "maskrcnn_resnet50_fpn"
V2: Final = "maskrcnn_resnet50_fpn_v2"
COCO = "COCO_V1"
TIMM = "tu-"
# What boxes are matched to each level of the pyramid; three shapes each, as torchvision has them.
RATIOS = (0.5, 1.0, 2.0)
LEVELS = ["0", "1", "2", "3"]
POOLED_CELLS = 7
# No detection is dropped for their number: which ones are kept is decided afterwards.
UNLIMITED = 1_000_000


class TimmPyramid(nn.Module):
    """A convolutional backbone of timm with a feature pyramid (Lin et al. 2017)."""

    def __init__(self, name: str, channels: int, norm: type[nn.Module] | None) -> None:
        """Build it with random weights.

        Raises:
            ValueError: timm has no such network, or none that shrinks by 4, 8, 16 and 32.
        """
        super().__init__()
        try:
            body = timm.create_model(name, features_only=True, out_indices=(-4, -3, -2, -1))
            found = tuple(body.feature_info.reduction())
            widths = body.feature_info.channels()
        except (AttributeError, AssertionError, IndexError, RuntimeError, TypeError) as error:
            reason = one_line(error)
            raise ValueError(
                f"backbone '{TIMM}{name}': expected a network of timm that gives feature maps: "
                f"{reason:.160}"
            ) from None
        if found != (4, 8, 16, 32):
            raise ValueError(
                f"backbone '{TIMM}{name}': expected maps that shrink by 4, 8, 16, 32, found {found}"
            )
        self.body = body
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool(), norm)
        self.out_channels = channels

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps of images, float (N, 3, h, w): `0` at a quarter, to `3`, and `pool`."""
        maps: dict[str, torch.Tensor] = self.fpn(dict(zip(LEVELS, self.body(images), strict=True)))
        return maps


class Anchors(AnchorGenerator):
    """Torchvision's anchors, in float32 where feature maps are in half precision.

    Beyond 2048 pixels float16 knows only every second place.
    """

    def forward(
        self, image_list: ImageList, feature_maps: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return every image's anchors, float32 (n, 4)."""
        shapes = [m.new_zeros((), dtype=torch.float32).expand(m.shape) for m in feature_maps]
        anchors: list[torch.Tensor] = super().forward(image_list, shapes)
        return anchors


def list_resnets() -> list[str]:
    """Return torchvision's names of the backbones that its pyramid is made for."""
    names = list_models(module=torchvision.models)
    return [name for name in names if get_model_builder(name).__module__ == resnet.__name__]


def known_weights(model: str) -> list[str]:
    """Return the names of torchvision's weights for one of its models."""
    return [weights.name for weights in get_model_weights(model)]


def build_detector(
    architecture: str,
    backbone: str,
    classes: int,
    *,
    channels: int,
    hidden: int,
    mask_cells: int,
    anchors: tuple[int, ...],
    options: dict[str, Any],
) -> MaskRCNN:
    """Return a Mask R-CNN with random weights.

    At 256 channels, 1024 hidden ones and 28 cells with a ResNet-50 it is torchvision's.

    Args:
        architecture: `V1` or `V2` (Li et al. 2021, arXiv:2111.11429: deeper heads with norms).
        backbone: torchvision's name of a ResNet, or `tu-` and timm's name.
        classes: how many there are, without the background.
        channels: of the pyramid and of the heads' convolutions.
        hidden: of the last layer before a box's class.
        mask_cells: rows and columns of the masks; even.
        anchors: side of the anchors of each of the five levels, in pixels of the input.
        options: torchvision's numbers, such as `box_batch_size_per_image`.

    Raises:
        ValueError: an unknown backbone.
    """
    norm = nn.BatchNorm2d if architecture == V2 else None
    generator = Anchors(tuple((side,) for side in anchors), (RATIOS,) * len(anchors))
    depth, four = (2, [channels] * 4) if norm else (1, [channels] * 4)
    if norm:
        shape = (channels, POOLED_CELLS, POOLED_CELLS)
        box_head = FastRCNNConvFCHead(shape, four, [hidden], norm_layer=norm)
    else:
        box_head = TwoMLPHead(channels * POOLED_CELLS**2, hidden)
    return MaskRCNN(
        _pyramid(backbone, channels, norm),
        rpn_anchor_generator=generator,
        rpn_head=RPNHead(channels, len(RATIOS), conv_depth=depth),
        box_head=box_head,
        box_predictor=FastRCNNPredictor(hidden, classes + 1),
        box_detections_per_img=UNLIMITED,
        mask_roi_pool=MultiScaleRoIAlign(LEVELS, mask_cells // 2, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, four, 1, norm_layer=norm),
        mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
        **options,
    )


def _pyramid(backbone: str, channels: int, norm: type[nn.Module] | None) -> nn.Module:
    if backbone.startswith(TIMM):
        return TimmPyramid(backbone.removeprefix(TIMM), channels, norm)
    body = get_model(backbone, weights=None)
    # Those of the last stage, halved at each one before it.
    widths = [body.inplanes // 8, body.inplanes // 4, body.inplanes // 2, body.inplanes]
    layers = {f"layer{n + 1}": level for n, level in enumerate(LEVELS)}
    return BackboneWithFPN(body, layers, widths, channels, LastLevelMaxPool(), norm)


def freeze_norms(backbone: nn.Module, are_without_eps: bool) -> None:
    """Fix a backbone's batch norms at the statistics that they have; in place.

    Args:
        backbone: a pyramid.
        are_without_eps: they were trained without what is added to their variances.
    """
    for module in backbone.modules():
        if are_without_eps and isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    backbone.body = freeze_batch_norm_2d(backbone.body)


def load_pretrained(network: MaskRCNN, architecture: str, backbone: str, given: str) -> None:
    """Read pretrained weights into a network, but for layers that know the classes.

    Args:
        network: of `build_detector`.
        architecture: its name.
        backbone: its backbone's name.
        given: `COCO` for a whole network; the backbone's: a name of torchvision, `timm`, or a
            file of weights.

    Raises:
        ValueError: the weights cannot be had, or are of another network.
    """
    if given == COCO:
        found = _fetch(architecture, given)
        where: nn.Module = network
    else:
        where = network.backbone.body
        found = _backbone_weights(backbone, given, where.state_dict())
    own = where.state_dict()
    fitting = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    # Those of a whole network for other classes lack the last layers.
    needed = [k for k in own if where is not network or k.startswith("backbone.")]
    missing = [k for k in needed if k not in fitting]
    if where is not network:
        missing += checkpoints.further_blocks(found, own)
    if missing:
        raise ValueError(
            f"pretrained '{given}': expected weights of '{backbone}', found others: "
            f"{len(missing)} differ, such as '{missing[0]}'"
        )
    where.load_state_dict(own | fitting)


def _backbone_weights(backbone: str, given: str, names: Collection[str]) -> dict[str, torch.Tensor]:
    if checkpoints.is_weight_file(given):
        return checkpoints.strip_prefix(checkpoints.read_weights(Path(given)), names, Path(given))
    if not backbone.startswith(TIMM):
        return _fetch(backbone, given)
    try:
        with quiet_hub():
            body = timm.create_model(
                backbone.removeprefix(TIMM),
                pretrained=True,
                features_only=True,
                out_indices=(-4, -3, -2, -1),
            )
    except (OSError, RuntimeError, ValueError) as error:
        by_hand = from_timm(backbone.removeprefix(TIMM))
        raise _cannot_be_had(given, error, by_hand) from None
    state: dict[str, torch.Tensor] = body.state_dict()
    return state


def _fetch(model: str, name: str) -> dict[str, torch.Tensor]:
    weights = get_model_weights(model)[name]
    try:
        # weights_only: torchvision's files are pickles, of which only tensors are read.
        state: dict[str, torch.Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise _cannot_be_had(name, error, in_torch_cache(weights.url)) from None
    return state


def _cannot_be_had(given: str, error: Exception, by_hand: str) -> ValueError:
    reason, by_hand = one_line(error), f"{by_hand}, " if by_hand else ""
    return ValueError(
        f"pretrained '{given}': could not get these weights; run once with a network connection, "
        f"{by_hand}give a safetensors file of the backbone, or set pretrained=null: "
        f"{type(error).__name__}: {reason:.160}"
    )
