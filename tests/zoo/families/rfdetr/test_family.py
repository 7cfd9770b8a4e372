from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torchvision.ops import box_convert, masks_to_boxes
from transformers import RfDetrConfig as Architecture
from transformers import RfDetrForInstanceSegmentation
from transformers.models.rf_detr.image_processing_rf_detr import RfDetrImageProcessor
from transformers.models.rf_detr.modeling_rf_detr import RfDetrDinov2Embeddings

import configs
from zoo.families.rfdetr.config import RfDetrLossWeights
from zoo.families.rfdetr.family import FAMILY
from zoo.families.rfdetr.network import enclose, split_windows

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96


@pytest.fixture
def tiny(configure: Any) -> Callable[..., Any]:
    return partial(configure, "rfdetr")


@pytest.fixture(scope="session")
def make_network(build: Any) -> Callable[..., Any]:
    return partial(build, "rfdetr")


# --- the network


def test_masks_are_a_quarter_of_any_whole_size(make_network: Any) -> None:
    with torch.no_grad():
        outputs = make_network().eval()(torch.zeros(2, 1, 96, 64))
    assert outputs.pred_masks.shape == (2, 12, 24, 16)
    assert outputs.logits.shape == (2, 12, 3)


def _windows(side: int, windows: int) -> RfDetrDinov2Embeddings:
    backbone = {"model_type": "rf_detr_dinov2", "patch_size": 1, "image_size": side}
    backbone |= {"hidden_size": 4, "num_windows": windows, "out_indices": [12]}
    return RfDetrDinov2Embeddings(Architecture(backbone_config=backbone).backbone_config)


@pytest.mark.parametrize("windows", [2, 3])
def test_windows_of_square_images_are_those_of_transformers(windows: int) -> None:
    embeddings = _windows(6, windows)
    tokens = torch.randn(1, 37, 4)
    expected = embeddings.window_partition(tokens, 6, 6)
    assert torch.equal(split_windows(embeddings, tokens, 6, 6), expected)


def test_windows_of_other_images_are_rectangles() -> None:
    place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij"), -1)
    tokens = torch.cat([torch.full((2, 1, 2), -1), place.reshape(1, 24, 2).repeat(2, 1, 1)], 1)
    found = split_windows(_windows(6, 2), tokens, 4, 6)
    assert found.shape == (8, 7, 2)
    for n, window in enumerate(found):
        top, left = divmod(n % 4, 2)
        rows, columns = range(2 * top, 2 * top + 2), range(3 * left, 3 * left + 3)
        assert window.tolist() == [[-1, -1], *([y, x] for y in rows for x in columns)]


def test_an_image_is_seen_where_it_is(make_network: Any) -> None:
    """What one patch shows changes the feature there, whatever the image's shape."""
    network = make_network().eval()
    images = torch.zeros(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        plain = network.encoder(images).feature_maps[0]
        images[:, :, 16:24, 72:80] = 3.0
        change = (network.encoder(images).feature_maps[0] - plain).abs().sum(1)[0]
    # Rows and columns of patches of 8 pixels.
    assert divmod(int(change.argmax()), change.shape[1]) == (2, 9)


# --- what it learns from


def test_boxes_enclose_masks(draw: Any) -> None:
    masks = draw().masks[0]
    masks[1] = False
    masks[1, 5, 7] = True
    corners = masks_to_boxes(masks)
    corners[:, 2:] += 1
    expected = box_convert(corners, "xyxy", "cxcywh") / torch.tensor([WIDTH, HEIGHT] * 2)
    torch.testing.assert_close(enclose(masks.float()), expected)
    assert enclose(masks[:0].float()).shape == (0, 4)


def test_the_loss_is_that_of_transformers(make_network: Any, draw: Any) -> None:
    images, masks, classes = draw()
    masks[1, 0] = False
    network = make_network().train()
    torch.manual_seed(0)
    mine = network.loss(images, masks, classes)
    # An untouched one, with the same weights and windows.
    theirs = RfDetrForInstanceSegmentation(network.network.config).train()
    theirs.load_state_dict(network.network.state_dict())
    embeddings = theirs.model.model.backbone.backbone.embeddings
    embeddings.window_partition = partial(split_windows, embeddings)
    present = [masks[0].float(), masks[1, 1:].float()]
    labels = [
        {"masks": part, "boxes": enclose(part), "class_labels": own}
        for part, own in zip(present, [classes, classes[1:]], strict=True)
    ]
    torch.manual_seed(0)
    expected = theirs(images.repeat(1, 3, 1, 1), labels=labels).loss
    assert mine.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    "name", [n for n in RfDetrLossWeights.model_fields if n.endswith("coefficient")]
)
def test_losses_count_by_their_weights(name: str, make_network: Any, draw: Any) -> None:
    weights = [n for n in RfDetrLossWeights.model_fields if n.endswith("coefficient")]
    least, values = dict.fromkeys(weights, 1e-9), []
    # The masks' weights are in the match too; from the boxes alone it would be the same.
    least |= {"bbox_cost": 1e6}
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        network = make_network(loss_weights=least | {name: factor}).train()
        values.append(network.loss(*draw()).item())
    assert 0 < values[0] == pytest.approx(values[1] / 3, rel=1e-3)


# --- instances of queries


@pytest.mark.long
@pytest.mark.learns
def test_instances_are_those_of_transformers(learn: Any, find: Any, iou: Any) -> None:
    learned = learn("rfdetr")
    with torch.no_grad():
        outputs = learned.network(learned.drawn.images)
    expected = RfDetrImageProcessor().post_process_instance_segmentation(
        outputs, threshold=0.0, target_sizes=[(HEIGHT, WIDTH)] * 2, return_binary_maps=True
    )
    for found, their in zip(find(learned.network, learned.drawn.images), expected, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, ((score, mask),) in found.items():
            best = max(
                (s for s in their["segments_info"] if s["label_id"] == label),
                key=lambda s: s["score"],
            )
            assert score == pytest.approx(best["score"], abs=1e-5)
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert iou(pixels, their["segmentation"][best["id"] - 1].numpy()) > 0.93


# --- configs


@pytest.mark.parametrize("name", [n for n in configs.names("rfdetr") if n != "laptop"])
def test_headers_say_what_was_reported(name: str) -> None:
    text = configs.find("rfdetr", name).read_text(encoding="utf-8")
    assert "# Reported: none" in text
    assert "Apache-2.0" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [96, 72]}, "'size': expected height and width that are multiples of 16"),
        ({"size": [16, 32]}, r"expected at least 12 patches of 8 x 8 .*found 8 in \[16, 32\]"),
        ({"network": {"d_model": 30}}, "'network.d_model': expected a multiple"),
        (
            {"network": {"decoder_self_attention_heads": 7}},
            "expected d_model 256 that decoder_self_attention_heads 7 divides",
        ),
        (
            {"network": {"backbone": {"num_attention_heads": 5}}},
            "expected hidden_size 384 that num_attention_heads 5 divides",
        ),
        (
            {"network": {"backbone": {"out_indices": [3, 13]}}},
            r"out_indices: expected blocks in order, of 1 to 12, found \[3, 13\]",
        ),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_a_size_that_a_pretrained_network_cannot_take(
    tiny: Callable[..., Any], make_network: Any, tmp_path: Any
) -> None:
    make_network().network.save_pretrained(tmp_path / "coco")
    config = tiny(network=None, pretrained=str(tmp_path / "coco"), size=[96, 72])
    with pytest.raises(ValueError, match=r"size: expected multiples of 16, .*found \[96, 72\]"):
        FAMILY.build(config, 3)


def test_the_same_numbers_as_transformers_by_default() -> None:
    options = RfDetrLossWeights().model_dump()
    assert options == {name: getattr(Architecture, name) for name in options}
