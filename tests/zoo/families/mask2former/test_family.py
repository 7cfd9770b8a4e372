from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
)

import configs
from zoo.families.mask2former.config import Mask2FormerDimensions
from zoo.families.mask2former.family import FAMILY
from zoo.families.queries import query_scores
from zoo.families.query_config import MaskLossWeights

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96
FEW = {"train_num_points": 256}


@pytest.fixture
def tiny(configure: Any) -> Callable[..., Any]:
    return partial(configure, "mask2former")


@pytest.fixture(scope="session")
def make_network(build: Any) -> Callable[..., Any]:
    return partial(build, "mask2former")


@pytest.fixture(scope="session")
def learned(learn: Any) -> Any:
    """A tiny network that knows two images by heart."""
    return learn("mask2former")


# --- the network


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [
        ({}, 47),
        ({"depths": [2, 2, 18, 2]}, 69),
        ({"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}, 107),
    ],
)
def test_sizes_are_those_of_the_paper(
    backbone: dict[str, Any], millions: int, make_network: Any
) -> None:
    """Cheng et al. 2022, table 1: Swin-T, Swin-S and Swin-B."""
    network = Mask2FormerDimensions.model_validate({"backbone": backbone}).model_dump()
    with torch.device("meta"):
        found = make_network(network=network, loss_weights={})
    assert sum(p.numel() for p in found.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)


def test_masks_are_a_quarter_of_any_whole_size(make_network: Any) -> None:
    with torch.no_grad():
        outputs = make_network().eval()(torch.zeros(2, 1, 96, 64))
    assert outputs.masks_queries_logits.shape == (2, 12, 24, 16)
    assert outputs.class_queries_logits.shape == (2, 12, 4)


# --- what it learns from


def test_the_loss_is_that_of_transformers(make_network: Any, draw: Any) -> None:
    images, masks, classes = draw()
    masks[1, 0] = False
    network = make_network().train()
    torch.manual_seed(0)
    mine = network.loss(images, masks, classes)
    torch.manual_seed(0)
    theirs = network.network(
        images.repeat(1, 3, 1, 1),
        mask_labels=[masks[0].float(), masks[1, 1:].float()],
        class_labels=[torch.tensor([0, 1, 2]), torch.tensor([1, 2])],
    )
    assert mine.item() == pytest.approx(theirs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["class_weight", "mask_weight", "dice_weight"])
def test_losses_count_by_their_weights(name: str, make_network: Any, draw: Any) -> None:
    images, masks, classes = draw()
    least = dict.fromkeys(("class_weight", "mask_weight", "dice_weight"), 1e-9) | FEW
    values = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        network = make_network(loss_weights=least | {name: factor}).train()
        values.append(network.loss(images, masks, classes).item())
    assert 0 < values[0] == pytest.approx(values[1] / 3, rel=1e-4)


# --- instances of queries


def test_a_score_is_the_classs_probability_times_the_masks_certainty() -> None:
    classes = torch.log(torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]]))
    sure, empty = torch.logit(torch.tensor([[0.9, 0.7], [0.2, 0.1]])), torch.full((2, 2), -3.0)
    scores = query_scores(classes, torch.stack([sure, empty])[None])
    assert scores[0, 0].tolist() == pytest.approx([0.6 * 0.8, 0.3 * 0.8])
    assert scores[0, 1].tolist() == [0, 0]


@pytest.mark.learns
def test_instances_are_those_of_transformers(learned: Any, find: Any, iou: Any) -> None:
    with torch.no_grad():
        outputs = learned.network(learned.drawn.images)
    expected = Mask2FormerImageProcessor().post_process_instance_segmentation(
        outputs,
        threshold=0.0,
        target_sizes=[(HEIGHT, WIDTH)] * 2,
        return_binary_maps=True,
    )
    for found, their in zip(find(learned.network, learned.drawn.images), expected, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, ((score, mask),) in found.items():
            segments = [s for s in their["segments_info"] if s["label_id"] == label]
            best = max(segments, key=lambda s: s["score"])
            # Theirs is the mean over a mask that is enlarged first.
            assert score == pytest.approx(best["score"], abs=0.05)
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert iou(pixels, their["segmentation"][best["id"]].numpy() > 0) > 0.93


# --- pretrained weights


def test_losses_are_the_configs_own_with_pretrained_weights(
    tiny: Callable[..., Any], tmp_path: Path, make_network: Any
) -> None:
    make_network(loss_weights={"no_object_weight": 0.7}).network.save_pretrained(tmp_path / "coco")
    config = tiny(network=None, pretrained=str(tmp_path / "coco"))
    criterion = FAMILY.build(config, 9).network.criterion
    assert criterion.empty_weight.tolist() == pytest.approx([1.0] * 9 + [0.1])
    assert criterion.num_points == FEW["train_num_points"]


# --- runs


@pytest.mark.parametrize("name", [n for n in configs.names("mask2former") if n != "laptop"])
def test_headers_say_what_was_reported(name: str, find: Any) -> None:
    text = configs.find("mask2former", name).read_text(encoding="utf-8")
    assert "# Reported (N17): none" in text
    assert "CC-BY-NC-4.0" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"hidden_dim": 33}}, "'network.hidden_dim': expected a multiple"),
        (
            {"network": {"backbone": {"num_heads": [5, 6, 12, 24]}}},
            r"expected embed_dim 96, .* that num_heads \(5, 6, 12, 24\) divide",
        ),
        ({"network": {"num_attention_heads": 7}}, "that num_attention_heads 7 divides"),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_the_same_numbers_as_transformers_by_default() -> None:
    theirs = Mask2FormerForUniversalSegmentation.config_class()
    options = MaskLossWeights().model_dump()
    assert options == {name: getattr(theirs, name) for name in options}
    dimensions = Mask2FormerDimensions().model_dump(exclude={"backbone"})
    assert dimensions == {name: getattr(theirs, name) for name in dimensions}
