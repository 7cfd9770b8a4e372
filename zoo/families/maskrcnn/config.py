"""The settings of a Mask R-CNN."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zoo.config import StrictModel
from zoo.families.maskrcnn.parts import COCO, TIMM, V1, V2, known_weights, list_resnets
from zoo.run_files.checkpoints import is_weight_file
from zoo.training.instance_config import InstanceConfig


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
            file with the backbone's weights (.safetensors, .pth).
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
    def _known_names(self) -> Self:
        if min(self.anchors) < 1:
            raise ValueError(f"anchors: expected positive sides, found {list(self.anchors)}")
        is_timm = self.backbone.startswith(TIMM)
        if not is_timm and self.backbone not in list_resnets():
            raise ValueError(
                f"backbone '{self.backbone}': expected one of {', '.join(list_resnets())}, or "
                f"{TIMM}NAME for one of timm"
            )
        given = self.pretrained
        if given is None or is_weight_file(given):
            return self
        known = ["timm"] if is_timm else known_weights(self.backbone)
        if self.backbone == "resnet50":
            known = [COCO, *known]
        if given not in known:
            raise ValueError(
                f"pretrained '{given}': expected null, a .safetensors or .pth file, or for the "
                f"backbone '{self.backbone}' one of {', '.join(known)}"
            )
        return self

    @model_validator(mode="after")
    def _fits_coco(self) -> Self:
        if self.pretrained != COCO:
            return self
        if (self.channels, self.hidden) != (256, 1024):
            raise ValueError(f"pretrained '{COCO}': expected channels 256 and hidden 1024")
        if self.architecture == V1 and not self.freeze_norms:
            raise ValueError(
                f"pretrained '{COCO}' of {V1} was trained with fixed norms: set freeze_norms=true"
            )
        return self
