from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers import OneFormerForUniversalSegmentation

from zoo.families.oneformer.config import OneFormerDimensions
from zoo.families.oneformer.family import FAMILY
from zoo.families.oneformer.network import TASK
from zoo.families.swin import SwinDimensions

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(configure: Any) -> Callable[..., Any]:
    return partial(configure, "oneformer")


@pytest.fixture(scope="session")
def make_network(build: Any) -> Callable[..., Any]:
    return partial(build, "oneformer")


def test_masks_are_a_quarter_of_any_whole_size(make_network: Any) -> None:
    with torch.no_grad():
        outputs = make_network().eval()(torch.zeros(2, 1, 96, 64))
    assert outputs.masks_queries_logits.shape == (2, 12, 24, 16)
    assert outputs.class_queries_logits.shape == (2, 12, 4)


def test_the_task_is_told_as_transformers_does(make_network: Any) -> None:
    """Tokens, then zeros: its processor multiplies padding by the mask of attention."""
    network = make_network()
    assert network.task.tolist() == [*TASK, *[0] * 71]
    assert len(network.task) == network.network.config.task_seq_len == 77
    assert max(TASK) < network.network.config.text_encoder_vocab_size
    assert "task" not in network.state_dict()
    images = torch.randn(1, 1, 64, 96)
    network.eval()
    with torch.no_grad():
        mine = network(images).class_queries_logits
        network.task[4] += 1
        other = network(images).class_queries_logits
    assert not torch.equal(mine, other)


def test_the_loss_is_that_of_transformers(make_network: Any, draw: Any) -> None:
    images, masks, classes = draw()
    masks[1, 0] = False
    network = make_network().train()
    torch.manual_seed(0)
    mine = network.loss(images, masks, classes)
    torch.manual_seed(0)
    theirs = network.network(
        images.repeat(1, 3, 1, 1),
        network.task.repeat(2, 1),
        mask_labels=[masks[0].float(), masks[1, 1:].float()],
        class_labels=[torch.tensor([0, 1, 2]), torch.tensor([1, 2])],
    )
    assert mine.item() == pytest.approx(theirs.loss.item(), rel=1e-6)


def test_pretrained_weights_lose_their_text_encoder(
    tiny: Callable[..., Any], make_network: Any, tmp_path: Any
) -> None:
    config = make_network().network.config
    config.is_training = True
    theirs = OneFormerForUniversalSegmentation(config)
    theirs.save_pretrained(tmp_path / "coco")
    network = FAMILY.build(tiny(network=None, pretrained=str(tmp_path / "coco")), 3)
    assert theirs.model.text_mapper is not None
    assert network.network.model.text_mapper is None
    weight = "model.task_encoder.task_mlp.layers.0.0.weight"
    assert network.network.state_dict()[weight].equal(theirs.state_dict()[weight])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"hidden_dim": 33}}, "'network.hidden_dim': expected a multiple"),
        ({"network": {"num_attention_heads": 7}}, "that num_attention_heads 7 divides"),
        (
            {"network": {"backbone": {"num_heads": [5, 6, 12, 24]}}},
            r"expected embed_dim 96, .* that num_heads \(5, 6, 12, 24\) divide",
        ),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_the_same_numbers_as_transformers_by_default() -> None:
    theirs = OneFormerForUniversalSegmentation.config_class
    dimensions = OneFormerDimensions().model_dump(exclude={"backbone"})
    assert dimensions == {name: getattr(theirs, name) for name in dimensions}
    swin = theirs().backbone_config
    mine = SwinDimensions().model_dump()
    assert mine == {name: getattr(swin, name) for name in mine}
