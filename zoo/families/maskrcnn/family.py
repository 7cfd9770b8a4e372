"""Mask R-CNN (He et al. 2017) as torchvision has it; its masks are taken before the threshold.

What torchvision does around its networks is left out: images come stretched and normalised as for
all our networks, and masks leave as soft masks over their boxes instead of pasted pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import masks_to_boxes

from converters.types import LabelSpace
from fusion.types import SoftMask
from zoo.config import StrictModel
from zoo.families.instances import InstanceConfig, InstanceFamily, InstanceNetwork, InstancesByClass
from zoo.families.maskrcnn.parts import (
    COCO,
    TIMM,
    V1,
    V2,
    build_detector,
    freeze_norms,
    known_weights,
    list_resnets,
    load_pretrained,
)
from zoo.run_files import licences

DetectionTarget = dict[str, torch.Tensor]
# Torchvision's coordinates count pixels' centres, a soft mask's count their edges.
CENTRE = 0.5
# Detections of an image, where a class may have several: torchvision's `box_detections_per_img`.
AT_MOST = 100


class MaskRcnnLossWeights(StrictModel):
    """How much each of torchvision's losses counts.

    Attributes:
        objectness: whether an anchor is on an object.
        rpn_box_reg: a proposal's place.
        classifier: which class a proposal is of.
        box_reg: a box's place.
        mask: a mask's cells.
    """

    objectness: float = Field(default=1.0, ge=0)
    rpn_box_reg: float = Field(default=1.0, ge=0)
    classifier: float = Field(default=1.0, ge=0)
    box_reg: float = Field(default=1.0, ge=0)
    mask: float = Field(default=1.0, ge=0)


class DetectorOptions(StrictModel):
    """Torchvision's numbers of a Mask R-CNN, by their names and with their values there.

    Attributes:
        rpn_pre_nms_top_n_train: proposals of a level before non-maximum suppression.
        rpn_pre_nms_top_n_test: the same in evaluation.
        rpn_post_nms_top_n_train: proposals of an image after it.
        rpn_post_nms_top_n_test: the same in evaluation.
        rpn_nms_thresh: IoU above which the weaker proposal goes.
        rpn_fg_iou_thresh: IoU from which an anchor is on an object.
        rpn_bg_iou_thresh: IoU below which it is on none.
        rpn_batch_size_per_image: anchors of an image that are learned from.
        rpn_positive_fraction: share of them on objects.
        rpn_score_thresh: proposals that are less sure are dropped.
        box_nms_thresh: IoU above which the weaker box of a class goes.
        box_fg_iou_thresh: IoU from which a proposal is on an object.
        box_bg_iou_thresh: IoU below which it is on none.
        box_batch_size_per_image: proposals of an image that are learned from.
        box_positive_fraction: share of them on objects.
    """

    rpn_pre_nms_top_n_train: int = Field(default=2000, gt=0)
    rpn_pre_nms_top_n_test: int = Field(default=1000, gt=0)
    rpn_post_nms_top_n_train: int = Field(default=2000, gt=0)
    rpn_post_nms_top_n_test: int = Field(default=1000, gt=0)
    rpn_nms_thresh: float = Field(default=0.7, gt=0, le=1)
    rpn_fg_iou_thresh: float = Field(default=0.7, gt=0, le=1)
    rpn_bg_iou_thresh: float = Field(default=0.3, gt=0, le=1)
    rpn_batch_size_per_image: int = Field(default=256, gt=0)
    rpn_positive_fraction: float = Field(default=0.5, gt=0, le=1)
    rpn_score_thresh: float = Field(default=0.0, ge=0, lt=1)
    box_nms_thresh: float = Field(default=0.5, gt=0, le=1)
    box_fg_iou_thresh: float = Field(default=0.5, gt=0, le=1)
    box_bg_iou_thresh: float = Field(default=0.5, gt=0, le=1)
    box_batch_size_per_image: int = Field(default=512, gt=0)
    box_positive_fraction: float = Field(default=0.25, gt=0, le=1)


class MaskRcnnConfig(InstanceConfig):
    """A Mask R-CNN.

    Attributes:
        architecture: torchvision's name: `maskrcnn_resnet50_fpn_v2` has deeper heads with batch
            norms than `maskrcnn_resnet50_fpn`.
        backbone: another one: torchvision's name of a ResNet, or `tu-` and the name of a
            convolutional network of timm.
        pretrained: null for random weights; `COCO_V1` for a whole network with a ResNet-50,
            without the layers that know COCO's classes; the backbone's alone: such as
            `IMAGENET1K_V2` of torchvision's, `timm` for timm's; all of them download. Or a
            safetensors file with the backbone's weights.
        freeze_norms: keep the statistics of the backbone's batch norms, which few images a batch
            would make worse.
        channels: of the pyramid and of the heads.
        hidden: of the last layer before a box's class.
        mask_cells: rows and columns of the mask of a box, whatever the object's size; even. 28
            is torchvision's.
        anchors: sides of the boxes that the five levels start from, in pixels of the input.
        loss_weights: how much each loss counts.
        detector: torchvision's further numbers.
    """

    architecture: Literal["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"] = V2
    backbone: str = "resnet50"
    pretrained: str | None = None
    freeze_norms: bool = False
    channels: int = Field(default=256, gt=0)
    hidden: int = Field(default=1024, gt=0)
    mask_cells: int = Field(default=28, gt=0, multiple_of=2)
    anchors: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    loss_weights: MaskRcnnLossWeights = MaskRcnnLossWeights()
    detector: DetectorOptions = DetectorOptions()

    @model_validator(mode="after")
    def _known_names(self) -> MaskRcnnConfig:
        if min(self.anchors) < 1:
            raise ValueError(f"anchors: expected positive sides, found {list(self.anchors)}")
        is_timm = self.backbone.startswith(TIMM)
        if not is_timm and self.backbone not in list_resnets():
            raise ValueError(
                f"backbone '{self.backbone}': expected one of {', '.join(list_resnets())}, or "
                f"{TIMM}NAME for one of timm"
            )
        given = self.pretrained
        if given is None or given.endswith(".safetensors"):
            return self
        known = ["timm"] if is_timm else known_weights(self.backbone)
        if self.backbone == "resnet50":
            known = [COCO, *known]
        if given not in known:
            raise ValueError(
                f"pretrained '{given}': expected null, a .safetensors file, or for the backbone "
                f"'{self.backbone}' one of {', '.join(known)}"
            )
        return self

    @model_validator(mode="after")
    def _fits_coco(self) -> MaskRcnnConfig:
        if self.pretrained != COCO:
            return self
        if (self.channels, self.hidden) != (256, 1024):
            raise ValueError(f"pretrained '{COCO}': expected channels 256 and hidden 1024")
        if self.architecture == V1 and not self.freeze_norms:
            raise ValueError(
                f"pretrained '{COCO}' of {V1} was trained with fixed norms: set freeze_norms=true"
            )
        return self


def to_target(masks: torch.Tensor, classes: torch.Tensor) -> DetectionTarget:
    """Return what torchvision learns an image from.

    A box ends half a pixel beyond the outermost pixels' centres, so that one pixel has a box, too.

    Args:
        masks: bool (P, h, w).
        classes: of the objects, int64 (P,).
    """
    found = masks.flatten(1).any(1)
    present = masks[found]
    outward = torch.tensor([-CENTRE, -CENTRE, CENTRE, CENTRE], device=masks.device)
    # 0 is the background.
    return {
        "boxes": masks_to_boxes(present) + outward,
        "labels": classes[found] + 1,
        "masks": present.to(torch.uint8),
    }


def to_soft_mask(box_xyxy: torch.Tensor, prob: torch.Tensor) -> SoftMask:
    """Return a detection's soft mask.

    The mask's cells are where the masks that it learned from were read: torchvision reads those at
    even distances inside of the box, in coordinates that count pixels' centres. Around them is one
    row of zeros, as torchvision has it when it pastes.

    Args:
        box_xyxy: float (4,), as torchvision counts.
        prob: float (m, m), in 0..1.
    """
    x0, y0, x1, y1 = (box_xyxy.double() + CENTRE).tolist()
    raster = np.pad((prob * 255).round().to(torch.uint8).cpu().numpy(), 1)
    rows, cols = prob.shape
    wide, high = (x1 - x0) / cols, (y1 - y0) / rows
    return SoftMask((x0 - wide, y0 - high, x1 - x0 + 2 * wide, y1 - y0 + 2 * high), raster)


class MaskRcnn(InstanceNetwork):
    """A Mask R-CNN on grey images; its parts have torchvision's names."""

    def __init__(
        self, network: MaskRCNN, weights: MaskRcnnLossWeights, floor: float, once: bool
    ) -> None:
        super().__init__(floor, once)
        self.backbone, self.rpn, self.roi_heads = network.backbone, network.rpn, network.roi_heads
        self.roi_heads.score_thresh = floor
        self._weights = {f"loss_{name}": value for name, value in weights.model_dump().items()}
        # Places and losses are computed in float32: in float16 places would be whole pixels.
        heads = self.roi_heads
        for head in (self.rpn.head, heads.box_predictor, heads.mask_predictor):
            head.register_forward_hook(_in_float32)

    @property
    def encoder(self) -> nn.Module:
        """The backbone without its pyramid."""
        body: nn.Module = self.backbone.body
        return body

    def loss(
        self, images: torch.Tensor, masks: torch.Tensor, classes: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted sum of torchvision's losses.

        Args:
            images: float (N, 1, h, w), normalised.
            masks: bool (N, P, h, w); an object without pixels is not in the image.
            classes: the objects' classes, int64 (P,).
        """
        frames, features = self._look(images)
        targets = [to_target(part, classes) for part in masks]
        proposals, losses = self.rpn(frames, features, targets)
        _, more = self.roi_heads(features, proposals, frames.image_sizes, targets)
        total = images.new_zeros(())
        for name, value in {**losses, **more}.items():
            total = total + self._weights[name] * value
        return total

    def dummy_loss(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Compute what `loss` does, for the estimate of memory.

        The heads see as many proposals, and as many on objects, as they may; the few numbers of the
        losses themselves are left out.
        """
        _, features = self._look(images)
        heads, first = self.roi_heads, features["0"]
        logits, moves = self.rpn.head(list(features.values()))
        count = len(images) * heads.fg_bg_sampler.batch_size_per_image
        on_objects = int(count * heads.fg_bg_sampler.positive_fraction)
        side, cells = (pool.output_size[0] for pool in (heads.box_roi_pool, heads.mask_roi_pool))
        boxes = first.new_zeros((count, first.shape[1], side, side))
        shapes = first.new_zeros((on_objects, first.shape[1], cells, cells))
        seen = heads.box_predictor(heads.box_head(boxes))
        planes = heads.mask_predictor(heads.mask_head(shapes))
        every = (*logits, *moves, *seen, planes)
        return torch.stack([part.float().square().mean() for part in every]).sum()

    def find(self, images: torch.Tensor) -> list[InstancesByClass]:
        """Return each image's instances, of classes that occur once the best one.

        Non-maximum suppression never removes the best one of a class.

        Args:
            images: float (N, 1, h, w), normalised; the network is in evaluation mode.
        """
        frames, features = self._look(images)
        sizes, heads = frames.image_sizes, self.roi_heads
        proposals, _ = self.rpn(frames, features)
        seen = heads.box_head(heads.box_roi_pool(features, proposals, sizes))
        detections = heads.postprocess_detections(*heads.box_predictor(seen), proposals, sizes)
        choose = _best if self.once else _surest
        boxes, scores, labels = zip(*map(choose, *detections), strict=True)
        shapes = heads.mask_head(heads.mask_roi_pool(features, list(boxes), sizes))
        probs = maskrcnn_inference(heads.mask_predictor(shapes), list(labels))
        return [_collect(*parts) for parts in zip(boxes, scores, labels, probs, strict=True)]

    def _look(self, images: torch.Tensor) -> tuple[ImageList, dict[str, torch.Tensor]]:
        colours = images.expand(-1, 3, -1, -1)
        size = (images.shape[-2], images.shape[-1])
        return ImageList(colours, [size] * len(images)), self.backbone(colours)


def _in_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(_in_float32(module, inputs, part) for part in outputs)


def _best(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first of each class of an image's detections, which are sorted by their scores."""
    first = np.unique(labels.cpu().numpy(), return_index=True)[1]
    chosen = torch.from_numpy(first).to(labels.device)
    return boxes[chosen], scores[chosen], labels[chosen]


def _surest(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The surest of an image's detections, which are sorted by their scores."""
    return boxes[:AT_MOST], scores[:AT_MOST], labels[:AT_MOST]


def _collect(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, probs: torch.Tensor
) -> InstancesByClass:
    found: InstancesByClass = {}
    detections = zip(boxes.cpu(), scores.tolist(), labels.tolist(), probs.cpu(), strict=True)
    for box, score, label, prob in detections:
        evidence = min(score, 1.0), to_soft_mask(box, prob[0])
        found[label - 1] = (*found.get(label - 1, ()), evidence)
    return found


class MaskRcnnFamily(InstanceFamily):
    """Mask R-CNNs of torchvision."""

    name = "maskrcnn"
    Config = MaskRcnnConfig

    def build(self, config: MaskRcnnConfig, classes: int) -> MaskRcnn:
        """Return a network to train.

        Raises:
            ValueError: an unknown backbone, or pretrained weights that cannot be had or are of
                another network.
        """
        network = _create(config, classes)
        if config.pretrained is not None:
            names = config.architecture, config.backbone
            load_pretrained(network, *names, config.pretrained)
        return _wrap(network, config)

    def rebuild(self, run: Path, config: MaskRcnnConfig, classes: int) -> MaskRcnn:
        """Return the network of a run, without its weights and without a download."""
        return _wrap(_create(config, classes), config)

    def sources(self, config: MaskRcnnConfig) -> list[licences.WeightSource]:
        """Return whose pretrained weights the network starts from."""
        given = config.pretrained
        if given is None:
            return []
        if given.endswith(".safetensors"):
            return [licences.of_file(given)]
        if config.backbone.startswith(TIMM):
            return [licences.of_timm(config.backbone.removeprefix(TIMM))]
        model = config.architecture if given == COCO else config.backbone
        return [licences.of_torchvision(model, given)]


def _create(config: MaskRcnnConfig, classes: int) -> MaskRCNN:
    return build_detector(
        config.architecture,
        config.backbone,
        classes,
        channels=config.channels,
        hidden=config.hidden,
        mask_cells=config.mask_cells,
        anchors=config.anchors,
        options=config.detector.model_dump(),
    )


def _wrap(network: MaskRCNN, config: MaskRcnnConfig) -> MaskRcnn:
    if config.freeze_norms:
        # Of the first version's weights torchvision says that they know no epsilon.
        freeze_norms(network.backbone, config.pretrained == COCO and config.architecture == V1)
    once = LabelSpace.load(config.labels).once
    return MaskRcnn(network, config.loss_weights, config.conf, once)


FAMILY = MaskRcnnFamily()
