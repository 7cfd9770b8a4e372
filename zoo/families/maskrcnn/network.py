"""Mask R-CNN (He et al. 2017) as torchvision has it; its masks are taken before the threshold.

What torchvision does around its networks is left out: images come stretched and normalised as for
all our networks, and masks leave as soft masks over their boxes instead of pasted pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import masks_to_boxes

from zoo.families.instances import InstanceNetwork
from zoo.families.maskrcnn.config import MaskRcnnConfig, MaskRcnnLossWeights
from zoo.families.maskrcnn.parts import COCO, V1, build_detector, freeze_norms, load_pretrained
from zoo.inference.instances import CENTRE, InstancesByClass, find_boxes

DetectionTarget = dict[str, torch.Tensor]
Detections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
# Detections of an image, where a class may have several: torchvision's `box_detections_per_img`.
AT_MOST = 100


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


class MaskRcnn(InstanceNetwork):
    """A Mask R-CNN; its parts have torchvision's names."""

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
            images: float (N, c, h, w), normalised.
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
            images: float (N, c, h, w), normalised; the network is in evaluation mode.
        """
        found = self.detect(images, _best if self.once else _surest)
        return [_collect(*parts) for parts in zip(*found, strict=True)]

    def detect(
        self, images: torch.Tensor, choose: Callable[..., Detections]
    ) -> tuple[Sequence[torch.Tensor], ...]:
        """Return each image's boxes (D, 4), scores (D,), labels from 1 on, and masks (D, 1, m, m).

        Args:
            images: float (N, c, h, w), normalised; the network is in evaluation mode.
            choose: takes boxes, scores and labels of an image, sorted by their scores, and gives
                those that are wanted.
        """
        frames, features = self._look(images)
        sizes, heads = frames.image_sizes, self.roi_heads
        proposals, _ = self.rpn(frames, features)
        seen = heads.box_head(heads.box_roi_pool(features, proposals, sizes))
        detections = heads.postprocess_detections(*heads.box_predictor(seen), proposals, sizes)
        boxes, scores, labels = zip(*map(choose, *detections), strict=True)
        shapes = heads.mask_head(heads.mask_roi_pool(features, list(boxes), sizes))
        probs = maskrcnn_inference(heads.mask_predictor(shapes), list(labels))
        return boxes, scores, labels, probs

    def _look(self, images: torch.Tensor) -> tuple[ImageList, dict[str, torch.Tensor]]:
        colours = images.expand(-1, 3, -1, -1)
        size = (images.shape[-2], images.shape[-1])
        return ImageList(colours, [size] * len(images)), self.backbone(colours)


def _in_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return type(outputs)(_in_float32(module, inputs, part) for part in outputs)


class ExportableBoxes(nn.Module):
    """A Mask R-CNN that gives arrays of fixed sizes, one image at a time, to be exported.

    Attributes:
        count: of boxes; what is not found has a score of 0.
        cells: rows and columns of a box's mask.
    """

    def __init__(self, network: MaskRcnn, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes
        self.count = classes if network.once else AT_MOST
        # The mask head's last step doubles what it is shown.
        self.cells = 2 * network.roi_heads.mask_roi_pool.output_size[0]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return boxes (1, D, 4), scores (1, D), labels (1, D) and masks (1, D, m, m), float32."""
        choose = self._best if self.network.once else self._surest
        found = [parts[0] for parts in self.network.detect(images, choose)]
        boxes, scores, labels, probs = found
        return tuple(self._fill(part) for part in (boxes, scores, labels.float(), probs[:, 0]))

    def _best(self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Detections:
        """As `_best`, in operators that ONNX has."""
        classes = torch.arange(1, self.classes + 1)[:, None]
        table = torch.where(labels[None] == classes, scores[None], torch.tensor(-1.0))
        best, at = torch.cat([table, torch.full_like(classes, -1).float()], 1).max(1)
        at = at[best >= 0]
        return boxes[at], scores[at], labels[at]

    def _surest(
        self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor
    ) -> Detections:
        return _surest(boxes, scores, labels)

    def _fill(self, part: torch.Tensor) -> torch.Tensor:
        rest = part.new_zeros((self.count, *part.shape[1:]))
        return torch.cat([part, rest])[: self.count][None]


def _best(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Detections:
    """The first of each class of an image's detections, which are sorted by their scores."""
    first = np.unique(labels.cpu().numpy(), return_index=True)[1]
    chosen = torch.from_numpy(first).to(labels.device)
    return boxes[chosen], scores[chosen], labels[chosen]


def _surest(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> Detections:
    """The surest of an image's detections, which are sorted by their scores."""
    return boxes[:AT_MOST], scores[:AT_MOST], labels[:AT_MOST]


def _collect(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, probs: torch.Tensor
) -> InstancesByClass:
    parts = (part.float().cpu().numpy() for part in (boxes, scores, labels, probs[:, 0]))
    return find_boxes(*parts)


def build_network(config: MaskRcnnConfig, classes: int) -> MaskRcnn:
    """Return a network to train.

    Raises:
        ValueError: an unknown backbone, or pretrained weights that cannot be had or are of another
            network.
    """
    network = _create(config, classes)
    if config.pretrained is not None:
        names = config.architecture, config.backbone
        load_pretrained(network, *names, config.pretrained)
    return _wrap(network, config)


def rebuild_network(config: MaskRcnnConfig, classes: int) -> MaskRcnn:
    """Return the network of a run, without its weights and without a download."""
    return _wrap(_create(config, classes), config)


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
    once = config.labels.once
    return MaskRcnn(network, config.loss_weights, config.conf, once)
