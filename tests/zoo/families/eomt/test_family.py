from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    EomtConfig,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    EomtImageProcessor,
)

from zoo.contract import PredictOptions
from zoo.families.eomt.config import EomtDimensions
from zoo.families.eomt.family import FAMILY
from zoo.families.eomt.network import MODELS, embed

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 64, 96
both = pytest.mark.parametrize("encoder", ["dinov2", "dinov3"])


@pytest.fixture
def tiny(configure: Any) -> Callable[..., Any]:
    return partial(configure, "eomt")


@pytest.fixture(scope="session")
def make_network(build: Any) -> Callable[..., Any]:
    return partial(build, "eomt")


# --- the network


@pytest.mark.parametrize(
    ("network", "encoder", "millions"),
    [
        ({}, "dinov2", 316),
        ({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}, "dinov2", 93),
        (
            {
                "hidden_size": 384,
                "num_hidden_layers": 12,
                "num_attention_heads": 6,
                "num_blocks": 3,
            },
            "dinov2",
            24,
        ),
        ({}, "dinov3", 315),
    ],
)
def test_sizes_are_those_of_the_paper(
    network: dict[str, Any], encoder: str, millions: int, make_network: Any
) -> None:
    """Kerssies et al. 2025, table 1 and 3: EoMT-L, B and S at 640 pixels."""
    full = EomtDimensions.model_validate(network).model_dump()
    with torch.device("meta"):
        found = make_network(network=full, encoder=encoder, loss_weights={})
    assert sum(p.numel() for p in found.parameters()) / 1e6 == pytest.approx(millions, abs=1)


@both
def test_masks_are_of_any_whole_size(make_network: Any, encoder: str) -> None:
    network = make_network(encoder=encoder).eval()
    for height, width in ((96, 64), (64, 64)):
        with torch.no_grad():
            outputs = network(torch.zeros(2, 1, height, width))
        # Patches of 8 pixels, one doubling.
        assert outputs.masks_queries_logits.shape == (2, 12, height // 4, width // 4)
        assert outputs.class_queries_logits.shape == (2, 12, 4)


def test_positions_of_the_own_size_are_those_of_transformers(make_network: Any) -> None:
    embeddings = make_network().eval().network.embeddings
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(embed(embeddings, images), type(embeddings).forward(embeddings, images))


def test_positions_of_other_sizes_lie_between(make_network: Any) -> None:
    embeddings = make_network().eval().network.embeddings
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    with torch.no_grad():
        for weight in (embeddings.patch_embeddings.projection.weight, embeddings.cls_token):
            weight.zero_()
        embeddings.patch_embeddings.projection.bias.zero_()
        embeddings.position_embeddings.weight.zero_()
        embeddings.position_embeddings.weight[:, 0] = rows.flatten()
        embeddings.position_embeddings.weight[:, 1] = columns.flatten()
        found = embed(embeddings, torch.zeros(1, 3, 64, 128))[0, embeddings.num_prefix_tokens :]
    found = found.reshape(8, 16, -1)
    torch.testing.assert_close(found[:, :, 0], rows[:, :1].expand(8, 16))
    middle = torch.arange(4, 12)
    torch.testing.assert_close(found[3, 4:12, 1], middle / 2 - 0.25, atol=0.02, rtol=0)


@both
@pytest.mark.learns
def test_with_either_encoder_two_images_are_learned_by_heart(
    learn: Any, find: Any, pixels: Any, iou: Any, exceeds: Any, encoder: str
) -> None:
    # Positions that turn take longer.
    learned = learn("eomt", steps=240, encoder=encoder)
    seen = find(learned.network, learned.drawn.images)
    for found, masks in zip(seen, learned.drawn.masks, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, ((score, mask),) in found.items():
            exceeds("score", score, 0.5)
            exceeds("IoU", iou(pixels(mask), masks[label].numpy()), 0.85)


# --- what it learns from


@both
@pytest.mark.parametrize("prob", [0.5, 0.0])
def test_the_loss_is_that_of_transformers(
    make_network: Any, draw: Any, encoder: str, prob: float
) -> None:
    """On a square image, with queries that are let see everything at random."""
    images, masks, classes = draw()
    images, masks = images[..., :HEIGHT], masks[..., :HEIGHT]
    network = make_network(encoder=encoder, size=[HEIGHT, HEIGHT]).train()
    network.network.attn_mask_probs.fill_(prob)
    theirs = MODELS[encoder](network.network.config).train()
    theirs.load_state_dict(network.network.state_dict())
    torch.manual_seed(0)
    mine = network.loss(images, masks, classes)
    torch.manual_seed(0)
    expected = theirs(
        images.repeat(1, 3, 1, 1),
        mask_labels=[part[part.flatten(1).any(1)].float() for part in masks],
        class_labels=[classes[part.flatten(1).any(1)] for part in masks],
    )
    assert mine.item() == pytest.approx(expected.loss.item(), rel=1e-5)


@both
def test_what_is_pretended_does_not_stay(make_network: Any, draw: Any, encoder: str) -> None:
    network, shown = make_network(encoder=encoder).train(), draw()
    pretended = make_network(encoder=encoder).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        pretended._apply(torch.empty_like)
        empty = torch.empty(2, 3, 64, 96, dtype=torch.bool)
        pretended.dummy_loss(torch.empty(2, 1, 64, 96), empty)
    loss = network.loss(*shown)
    assert type(loss) is torch.Tensor
    assert torch.isfinite(loss)


@both
def test_a_run_with_either_encoder(
    tiny: Callable[..., Any], make_job: Any, toys: Any, encoder: str
) -> None:
    job, config = make_job(), tiny(epochs=1, encoder=encoder)
    FAMILY.train(config, job)
    assert len(list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))) == 6


# --- instances of queries


@pytest.mark.learns
def test_instances_are_those_of_transformers(learn: Any, find: Any, iou: Any) -> None:
    learned = learn("eomt")
    with torch.no_grad():
        outputs = learned.network(learned.drawn.images)
    processor = EomtImageProcessor(size={"shortest_edge": HEIGHT, "longest_edge": WIDTH})
    expected = processor.post_process_instance_segmentation(
        outputs,
        target_sizes=[(HEIGHT, WIDTH)] * 2,
        threshold=0.0,
        size={"shortest_edge": HEIGHT, "longest_edge": WIDTH},
    )
    for found, their in zip(find(learned.network, learned.drawn.images), expected, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, ((score, mask),) in found.items():
            segments = [s for s in their["segments_info"] if s["label_id"] == label]
            best = max(segments, key=lambda s: s["score"])
            # Theirs is the mean over a mask that is enlarged first.
            assert score == pytest.approx(best["score"], abs=0.05)
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            seen = their["segmentation"].numpy() == best["id"]
            # Where two overlap, theirs has one of them.
            assert iou(pixels & seen, seen) > 0.9


# --- pretrained weights and configs


def test_weights_of_the_other_encoder(
    tiny: Callable[..., Any], make_network: Any, tmp_path: Any
) -> None:
    make_network(encoder="dinov3").network.save_pretrained(tmp_path / "eomt")
    with pytest.raises(ValueError, match=r"pretrained '.*eomt': ") as caught:
        FAMILY.build(tiny(network=None, pretrained=str(tmp_path / "eomt")), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"patch_size": 24}}, r"expected multiples of patch_size 24 .*\[96, 64\]"),
        ({"network": {"num_attention_heads": 7}}, "hidden_size 1024 that num_attention_heads 7"),
        ({"network": {"num_blocks": 25}}, "num_blocks: expected at most num_hidden_layers 24"),
        (
            {"network": {"hidden_size": 24, "num_attention_heads": 4}, "encoder": "dinov3"},
            r"expected hidden_size 24 that 4\*num_attention_heads 16 divides",
        ),
        ({"encoder": "dinov4"}, "'encoder': expected 'dinov2' or 'dinov3'"),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_the_same_numbers_as_transformers_by_default() -> None:
    for model in (EomtForUniversalSegmentation, EomtDinov3ForUniversalSegmentation):
        dimensions = EomtDimensions().model_dump()
        assert dimensions == {name: getattr(model.config_class, name) for name in dimensions}
    assert EomtConfig.model_type == "eomt"
