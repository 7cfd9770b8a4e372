from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import WeightsEnum, get_model
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import configs
from zoo.config import check_config, load_config
from zoo.families.maskrcnn.config import DetectorOptions, MaskRcnnConfig, MaskRcnnLossWeights
from zoo.families.maskrcnn.family import FAMILY
from zoo.families.maskrcnn.network import to_target
from zoo.families.maskrcnn.parts import V1, V2, build_detector, freeze_norms
from zoo.inference.instances import to_soft_mask

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96
SURE = {"architecture": V1, "freeze_norms": True}


@pytest.fixture
def tiny(configure: Any) -> Callable[..., Any]:
    return partial(configure, "maskrcnn")


@pytest.fixture(scope="session")
def make_network(build: Any) -> Callable[..., Any]:
    return partial(build, "maskrcnn")


@pytest.fixture(scope="session")
def learned(learn: Any) -> Any:
    """A tiny network that knows two images by heart."""
    return learn("maskrcnn")


# --- the network


@pytest.mark.parametrize("architecture", [V1, V2])
def test_by_default_it_is_torchvisionsmake_network(architecture: str) -> None:
    config = MaskRcnnConfig(size=(64, 64), epochs=1, batch=1, architecture=architecture)
    with torch.device("meta"):
        mine = FAMILY.build(config, 29)
        theirs = get_model(architecture, weights=None, weights_backbone=None, num_classes=30)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (mine, theirs)]
    assert shapes[0] == shapes[1]
    assert config.detector.model_dump().items() >= {"box_nms_thresh": 0.5}.items()


def test_the_same_numbers_as_torchvision_by_default() -> None:
    network = get_model(V1, weights=None, weights_backbone=None, num_classes=3)
    options, heads = DetectorOptions(), network.roi_heads
    assert heads.nms_thresh == options.box_nms_thresh
    assert heads.fg_bg_sampler.batch_size_per_image == options.box_batch_size_per_image
    assert network.rpn.nms_thresh == options.rpn_nms_thresh
    assert network.rpn._pre_nms_top_n["training"] == options.rpn_pre_nms_top_n_train
    assert network.rpn._post_nms_top_n["testing"] == options.rpn_post_nms_top_n_test
    assert network.rpn.anchor_generator.sizes == tuple(
        (side,) for side in MaskRcnnConfig.model_fields["anchors"].default
    )


@pytest.mark.parametrize("cells", [14, 28, 56])
def test_masks_have_the_cells_that_were_asked_for(
    learned: Any, cells: int, make_network: Any, find: Any
) -> None:
    network = make_network(**SURE, mask_cells=cells)
    network.load_state_dict(learned.network.state_dict())
    found = find(network.eval(), learned.drawn.images)
    # One row around them is empty.
    assert {m.prob.shape for image in found for ((_, m),) in image.values()} == {(cells + 2,) * 2}


# --- what it learns from


def test_every_bone_has_a_whole_mask_of_its_own() -> None:
    masks = torch.zeros(4, 10, 12, dtype=torch.bool)
    masks[0, 2:8, 1:7], masks[2, 5:9, 4:11], masks[3, 9, 11] = True, True, True
    target = to_target(masks, torch.arange(4))
    assert target["labels"].tolist() == [1, 3, 4]
    assert target["masks"].sum((1, 2)).tolist() == [36, 28, 1]
    # Pixels' centres are whole numbers: the last one's box is that one pixel.
    boxes = [[0.5, 1.5, 6.5, 7.5], [3.5, 4.5, 10.5, 8.5], [10.5, 8.5, 11.5, 9.5]]
    assert target["boxes"].tolist() == boxes


@pytest.mark.parametrize("name", list(MaskRcnnLossWeights.model_fields))
def test_losses_count_by_their_weights(name: str, make_network: Any, draw: Any) -> None:
    images, masks, classes = draw()
    none = dict.fromkeys(MaskRcnnLossWeights.model_fields, 0.0)
    values = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        network = make_network(loss_weights=none | {name: factor}).train()
        values.append(network.loss(images, masks, classes).item())
    assert 0 < values[0] == pytest.approx(values[1] / 3)


# --- soft masks


def _ellipse(generator: np.random.Generator) -> np.ndarray:
    plane = np.zeros((100, 140), np.uint8)
    centre, axes = generator.integers(45, 60, 2).tolist(), generator.integers(12, 36, 2).tolist()
    cv2.ellipse(plane, centre, axes, int(generator.integers(180)), 0, 360, 1, -1)
    return plane


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("cells", [14, 28, 56])
def test_a_soft_mask_is_where_its_target_was_read(cells: int, iou: Any) -> None:
    """A target, taken as the answer, gives the bone back; pasted, it is half a pixel off."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(20):
        plane = _ellipse(generator)
        outward = generator.uniform(0, 4, 4) * (-1, -1, 1, 1)
        box = to_target(torch.from_numpy(plane)[None] > 0, torch.zeros(1))[
            "boxes"
        ] + torch.from_numpy(outward)
        box = box.float()
        target = project_masks_on_boxes(torch.from_numpy(plane)[None], box, torch.zeros(1), cells)
        ours = to_soft_mask(box[0].numpy(), target[0].numpy()).binary(plane.shape).full(plane.shape)
        pasted = paste_masks_in_image(target[:, None], box, plane.shape)[0, 0].numpy() >= 0.5
        shift = np.argwhere(ours).mean(0) - np.argwhere(plane).mean(0)
        rows.append((*shift, _dice(ours, plane), _dice(pasted, plane), iou(ours > 0, pasted)))
    down, right, score, pasted_score, same = np.mean(rows, 0)
    assert max(abs(down), abs(right)) < 0.1
    assert score > pasted_score
    assert score > 0.98
    assert same > 0.93


@pytest.mark.learns
def test_detections_are_those_of_torchvision(
    learned: Any, find: Any, iou: Any, finders: Any
) -> None:
    few = finders["maskrcnn"].tiny
    size = {"channels": 32, "hidden": 64, "mask_cells": 14, "anchors": tuple(few["anchors"])}
    theirs = build_detector(V1, "tu-lcnet_035", 3, **size, options=few["detector"])
    freeze_norms(theirs.backbone, are_without_eps=False)
    theirs.load_state_dict(learned.network.state_dict())
    theirs.transform = GeneralizedRCNNTransform(HEIGHT, WIDTH, [0.0] * 3, [1.0] * 3)
    with torch.no_grad():
        expected = theirs.eval()([image.expand(3, -1, -1) for image in learned.drawn.images])
    for found, their in zip(find(learned.network, learned.drawn.images), expected, strict=True):
        labels = their["labels"].tolist()
        assert sorted(found) == sorted({n - 1 for n in labels})
        for label, ((score, mask),) in found.items():
            # They come sorted by their scores.
            first = labels.index(label + 1)
            assert score == pytest.approx(float(their["scores"][first]), abs=1e-5)
            pasted = their["masks"][first, 0].numpy() >= 0.5
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert iou(pixels, pasted) > 0.85


@pytest.mark.learns
@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_places_and_losses_stay_in_float32(
    learned: Any, dtype: torch.dtype, make_network: Any, find: Any
) -> None:
    plain = find(learned.network, learned.drawn.images)
    with torch.autocast("cpu", dtype=dtype):
        half = find(learned.network, learned.drawn.images)
        network = make_network().train()
        assert network.loss(*learned.drawn).dtype == torch.float32
    for a, b in zip(plain, half, strict=True):
        assert a.keys() == b.keys()
        for label in a:
            assert a[label][0][1].box_xywh == pytest.approx(b[label][0][1].box_xywh, abs=1.5)


# --- pretrained weights


def test_a_backbone_from_a_file(tmp_path: Path, make_network: Any) -> None:
    torch.manual_seed(1)
    body = make_network().backbone.body.state_dict()
    save_file(body, tmp_path / "body.safetensors")
    torch.manual_seed(2)
    network = make_network(pretrained=str(tmp_path / "body.safetensors"))
    assert all(torch.equal(network.backbone.body.state_dict()[k], v) for k, v in body.items())


def test_a_backbone_from_a_file_of_another_program(tmp_path: Path, make_network: Any) -> None:
    torch.manual_seed(1)
    body = make_network().backbone.body.state_dict()
    torch.save({f"module.{k}": v for k, v in body.items()}, tmp_path / "body.pth")
    torch.manual_seed(2)
    network = make_network(pretrained=str(tmp_path / "body.pth"))
    assert all(torch.equal(network.backbone.body.state_dict()[k], v) for k, v in body.items())


def test_a_file_of_a_deeper_backbone(tmp_path: Path) -> None:
    body = get_model("resnet34", weights=None).state_dict()
    save_file(body, tmp_path / "deeper.safetensors")
    given = {"size": [64, 64], "epochs": 1, "batch": 2, "backbone": "resnet18"}
    given |= {"pretrained": str(tmp_path / "deeper.safetensors"), "in_channels": 3}
    config = check_config(MaskRcnnConfig, given, "test")
    with pytest.raises(ValueError, match=r"'resnet18', found others: .* 'layer1\.2\.bn1\.bias'"):
        FAMILY.build(config, 2)


def test_a_file_of_another_backbone(tmp_path: Path, make_network: Any) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"weights of 'tu-lcnet_035', found others: .* such as"):
        make_network(pretrained=str(tmp_path / "other.safetensors"))


def test_a_whole_network_but_for_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    coco = get_model(V1, weights=None, weights_backbone=None, num_classes=91).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **further: coco)
    changes = {"architecture": V1, "pretrained": "COCO_V1", "freeze_norms": True}
    config = MaskRcnnConfig(size=(64, 64), epochs=1, batch=1, **changes)
    network = FAMILY.build(config, 3)
    mine = network.state_dict()
    other = [k for k in mine if not torch.equal(mine[k], coco[k]) or k not in coco]
    assert sorted({k.rpartition(".")[0] for k in other}) == [
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ]
    assert network.backbone.body.bn1.eps == 0
    assert FAMILY.sources(config)[0].source == f"torchvision {V1} COCO_V1"


@pytest.mark.parametrize(
    ("backbone", "given", "by_hand"),
    [
        ("resnet18", "IMAGENET1K_V1", "https://download.pytorch.org/models/resnet18-"),
        ("tu-lcnet_050", "timm", "hf download timm/lcnet_050.ra2_in1k model.safetensors"),
        ("tu-lcnet_035", "timm", "connection, give"),
    ],
)
def test_weights_that_cannot_be_had(
    backbone: str, given: str, by_hand: str, monkeypatch: pytest.MonkeyPatch, make_network: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network\nhere")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(ValueError, match=f"pretrained '{given}': could not get") as caught:
        make_network(backbone=backbone, pretrained=given)
    assert by_hand in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frozen_norms_stay_as_they_are(make_network: Any, draw: Any) -> None:
    network = make_network(freeze_norms=True).train()
    before = {k: v.clone() for k, v in network.backbone.body.named_buffers()}
    network.loss(*draw()).backward()
    after = dict(network.backbone.body.named_buffers())
    assert any(k.endswith("running_var") for k in before)
    assert all(torch.equal(before[k], after[k]) for k in before)


# --- runs


@pytest.mark.parametrize("name", list(configs.names("maskrcnn")))
def test_shipped_configs_describe_networks(name: str, find: Any) -> None:
    config = load_config(MaskRcnnConfig, "maskrcnn", name, ["pretrained=null"])
    with torch.device("meta"):
        network = FAMILY.build(config, 29)
    assert network.roi_heads.mask_roi_pool.output_size == (config.mask_cells // 2,) * 2
    text = configs.find("maskrcnn", name).read_text(encoding="utf-8")
    assert name == "laptop" or "# Reported (N18): none" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "perceptron"}, "backbone 'perceptron': expected one of resnet101, .*tu-NAME"),
        ({"pretrained": "COCO_V1"}, "for the backbone 'tu-lcnet_035' one of timm"),
        ({"backbone": "resnet50", "pretrained": "COCO_V1"}, "expected channels 256 and hidden"),
        (
            {
                **{"backbone": "resnet50", "pretrained": "COCO_V1", "architecture": V1},
                **{"channels": 256, "hidden": 1024},
            },
            "set freeze_norms=true",
        ),
        ({"mask_cells": 15}, "'mask_cells': expected a multiple of 2"),
        ({"anchors": [8, 16, 0, 1, 2]}, "anchors: expected positive sides"),
        ({"detector": {"nms": 1}}, "unknown key 'detector.nms'"),
        ({"loss_weights": {"dice": 1}}, "unknown key 'loss_weights.dice'"),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tu-nothing", "backbone 'tu-nothing': expected a network of timm"),
        ("tu-vit_tiny_patch16_224", "expected maps that shrink by 4, 8, 16, 32, found"),
    ],
)
def test_backbones_without_a_pyramid(name: str, message: str, make_network: Any) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(backbone=name)
