from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

import configs
from zoo.checkpoints import BEST, LAST, read_weights
from zoo.config import check_config, load_config
from zoo.families import load_family
from zoo.families.base import PredictOptions
from zoo.families.mask2former import (
    FAMILY,
    Dimensions,
    LossWeights,
    Mask2Former,
    Mask2FormerConfig,
    query_scores,
)

HEIGHT, WIDTH = 64, 96
TINY: dict[str, Any] = {
    "backbone": {
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 2],
        "window_size": 4,
        "drop_path_rate": 0.0,
    },
    "num_queries": 12,
    "hidden_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
    "encoder_feedforward_dim": 64,
    "dim_feedforward": 64,
}
FEW = {"train_num_points": 256}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Such small tensors are not worth to be shared out.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(toys: Any) -> Callable[..., Mask2FormerConfig]:
    def make(**changes: Any) -> Mask2FormerConfig:
        raw = {"labels": str(toys.labels_file), "size": [96, 64], "epochs": 2, "batch": 2}
        raw |= {"network": TINY, "loss_weights": FEW}
        return check_config(Mask2FormerConfig, raw | changes, "test")

    return make


def _draw() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of three ellipses, of which the first two share pixels."""
    places = (((30, 32), (16, 24)), ((48, 36), (14, 12)), ((78, 28), (9, 18)))
    images = torch.zeros(2, 1, HEIGHT, WIDTH)
    masks = torch.zeros(2, 3, HEIGHT, WIDTH, dtype=torch.bool)
    for n in range(2):
        for label, ((x, y), axes) in enumerate(places):
            plane = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.ellipse(plane, (x - 5 * n, y + 3 * n), axes, 0, 0, 360, 1, -1)
            masks[n, label] = torch.from_numpy(plane).bool()
            images[n, 0] += (1.0, -1.5, 2.0)[label] * masks[n, label]
    return images, masks


def _network(**changes: Any) -> Mask2Former:
    raw: dict[str, Any] = {"labels": "waste", "size": [HEIGHT, WIDTH], "epochs": 1, "batch": 2}
    raw |= {"network": TINY, "loss_weights": FEW}
    return FAMILY.build(check_config(Mask2FormerConfig, raw | changes, "test"), 3)


@dataclass(frozen=True)
class Learned:
    network: Mask2Former
    images: torch.Tensor
    masks: torch.Tensor
    losses: list[float]


@pytest.fixture(scope="module")
def learned() -> Learned:
    """A tiny network that knows two images by heart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = _network().train()
    images, masks = _draw()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = network.loss(images, masks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    torch.set_num_threads(threads)
    return Learned(network.eval(), images, masks, losses)


def _find(network: Mask2Former, images: torch.Tensor) -> Any:
    with torch.no_grad():
        return network.find(images)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


# --- the network


def test_the_family_is_found_by_name() -> None:
    family = load_family("mask2former")
    found = (family.name, family.kind, family.Config)
    assert found == ("mask2former", "instance", Mask2FormerConfig)


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [
        ({}, 47),
        ({"depths": [2, 2, 18, 2]}, 69),
        ({"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}, 107),
    ],
)
def test_sizes_are_those_of_the_paper(backbone: dict[str, Any], millions: int) -> None:
    """Cheng et al. 2022, table 1: Swin-T, Swin-S and Swin-B."""
    network = Dimensions.model_validate({"backbone": backbone}).model_dump()
    with torch.device("meta"):
        found = _network(network=network, loss_weights={})
    assert sum(p.numel() for p in found.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)


def test_masks_are_a_quarter_of_any_whole_size() -> None:
    with torch.no_grad():
        outputs = _network().eval()(torch.zeros(2, 1, 96, 64))
    assert outputs.masks_queries_logits.shape == (2, 12, 24, 16)
    assert outputs.class_queries_logits.shape == (2, 12, 4)


# --- what it learns from


def test_the_loss_is_that_of_transformers() -> None:
    images, masks = _draw()
    masks[1, 0] = False
    network = _network().train()
    torch.manual_seed(0)
    mine = network.loss(images, masks)
    torch.manual_seed(0)
    theirs = network.network(
        images.repeat(1, 3, 1, 1),
        mask_labels=[masks[0].float(), masks[1, 1:].float()],
        class_labels=[torch.tensor([0, 1, 2]), torch.tensor([1, 2])],
    )
    assert mine.item() == pytest.approx(theirs.loss.item(), rel=1e-6)


@pytest.mark.parametrize("drawn", [0, 1], ids=["no image with bones", "one image with bones"])
def test_images_without_bones_teach_too(drawn: int) -> None:
    images, masks = _draw()
    masks[drawn:] = False
    network = _network().train()
    loss = network.loss(images, masks)
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0


def test_a_bone_of_one_pixel() -> None:
    images, masks = _draw()
    masks[:] = False
    masks[:, 1, 63, 95] = True
    assert torch.isfinite(_network().train().loss(images, masks))


def test_every_weight_that_learns_is_used() -> None:
    network = _network().train()
    network.loss(*_draw()).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", ["class_weight", "mask_weight", "dice_weight"])
def test_losses_count_by_their_weights(name: str) -> None:
    images, masks = _draw()
    least = dict.fromkeys(("class_weight", "mask_weight", "dice_weight"), 1e-9) | FEW
    values = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        network = _network(loss_weights=least | {name: factor}).train()
        values.append(network.loss(images, masks).item())
    assert 0 < values[0] == pytest.approx(values[1] / 3, rel=1e-4)


def test_two_images_are_learned_by_heart(learned: Learned) -> None:
    assert np.mean(learned.losses[-5:]) < 0.25 * learned.losses[0]
    for found, masks in zip(_find(learned.network, learned.images), learned.masks, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, (score, mask) in found.items():
            assert score > 0.5
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert _iou(pixels, masks[label].numpy()) > 0.85


# --- instances of queries


def test_a_score_is_the_classs_probability_times_the_masks_certainty() -> None:
    classes = torch.log(torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]]))
    sure, empty = torch.logit(torch.tensor([[0.9, 0.7], [0.2, 0.1]])), torch.full((2, 2), -3.0)
    scores = query_scores(classes, torch.stack([sure, empty])[None])
    assert scores[0, 0].tolist() == pytest.approx([0.6 * 0.8, 0.3 * 0.8])
    assert scores[0, 1].tolist() == [0, 0]


def test_instances_are_those_of_transformers(learned: Learned) -> None:
    with torch.no_grad():
        outputs = learned.network(learned.images)
    expected = Mask2FormerImageProcessor().post_process_instance_segmentation(
        outputs,
        threshold=0.0,
        target_sizes=[(HEIGHT, WIDTH)] * 2,
        return_binary_maps=True,
    )
    for found, their in zip(_find(learned.network, learned.images), expected, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, (score, mask) in found.items():
            segments = [s for s in their["segments_info"] if s["label_id"] == label]
            best = max(segments, key=lambda s: s["score"])
            # Theirs is the mean over a mask that is enlarged first.
            assert score == pytest.approx(best["score"], abs=0.05)
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert _iou(pixels, their["segmentation"][best["id"]].numpy() > 0) > 0.93


def test_masks_are_cut_to_where_they_say_something(learned: Learned) -> None:
    for found in _find(learned.network, learned.images):
        for _, mask in found.values():
            assert mask.prob.size < HEIGHT * WIDTH
            assert mask.prob.shape == mask.box_xywh[:1:-1]


def test_nothing_below_the_floor(learned: Learned) -> None:
    network = _network(conf=0.9999)
    network.load_state_dict(learned.network.state_dict())
    assert _find(network.eval(), learned.images) == [{}, {}]


def test_half_precision_finds_the_same(learned: Learned) -> None:
    plain = _find(learned.network, learned.images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = _find(learned.network, learned.images)
        loss = _network().train().loss(learned.images, learned.masks)
    assert loss.dtype == torch.float32
    for a, b in zip(plain, half, strict=True):
        assert a.keys() == b.keys()
        for label in a:
            pixels = [
                m.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)) for _, m in (a[label], b[label])
            ]
            assert _iou(*pixels) > 0.9


# --- pretrained weights


def _of_another_task() -> Mask2FormerForUniversalSegmentation:
    torch.manual_seed(7)
    return _network(loss_weights={"no_object_weight": 0.7}).network


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """What a Mask2Former of another task leaves on disk."""
    _of_another_task().save_pretrained(tmp_path / "coco")
    return tmp_path / "coco"


def test_pretrained_weights_are_taken_but_for_the_classes(
    tiny: Callable[..., Any], pretrained: Path
) -> None:
    config = tiny(network=None, pretrained=str(pretrained))
    network = FAMILY.build(config, 9)
    mine, theirs = network.network.state_dict(), _of_another_task().state_dict()
    other = [k for k in theirs if mine[k].shape != theirs[k].shape or not mine[k].equal(theirs[k])]
    assert sorted(other) == [
        "class_predictor.bias",
        "class_predictor.weight",
        "criterion.empty_weight",
    ]
    assert mine["criterion.empty_weight"].tolist() == pytest.approx([1.0] * 9 + [0.1])
    assert network.network.criterion.num_points == FEW["train_num_points"]
    assert FAMILY.sources(config)[0].source == str(pretrained)


def test_a_pretrained_run_predicts_without_the_pretrained_weights(
    tiny: Callable[..., Any], pretrained: Path, make_job: Callable[..., Any], toys: Any
) -> None:
    config = tiny(network=None, pretrained=str(pretrained), epochs=1)
    job = make_job()
    FAMILY.train(config, job)
    shutil.rmtree(pretrained)
    assert len(list(FAMILY.predict(job.out, config, toys.samples[:2], PredictOptions()))) == 2


def test_pretrained_weights_that_cannot_be_had(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(network=None, pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"pretrained '.*nowhere': could not get") as caught:
        FAMILY.build(config, 3)
    assert "pretrained=null" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(tiny: Callable[..., Any], tmp_path: Path) -> None:
    sizes = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "decoder_hidden_size": 8}
    other = SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_attention_heads=[1] * 4))
    other.save_pretrained(tmp_path / "mit")
    with pytest.raises(ValueError, match=r"pretrained '.*mit': ") as caught:
        FAMILY.build(tiny(network=None, pretrained=str(tmp_path / "mit")), 3)
    assert "\n" not in str(caught.value)


def test_a_run_without_its_dimensions(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"network\.json: expected the network's dimensions"):
        FAMILY.rebuild(tmp_path, tiny(), 3)


# --- runs


class Killed(BaseException):
    """Stands for a process that ends at once."""


def _kill_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done == step and total > 1:
            raise Killed

    return progress


def test_the_same_seed_and_an_interruption_give_the_same_weights(
    tiny: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    network = {**TINY, "dropout": 0.1}
    config = tiny(network=network, augment=[{"name": "HorizontalFlip", "p": 0.5}])
    whole, cut = make_job("whole"), make_job("cut", progress=_kill_at(3))
    FAMILY.train(config, whole)
    torch.rand(3)
    with pytest.raises(Killed):
        FAMILY.train(config, cut)
    FAMILY.train(config, make_job("cut"))
    for name in (LAST, BEST):
        a, b = read_weights(whole.out / name), read_weights(cut.out / name)
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_predictions_are_in_the_images_own_frame(
    tiny: Callable[..., Any], make_job: Callable[..., Any], toys: Any
) -> None:
    job, config = make_job(), tiny(epochs=1, size=[64, 64], conf=0.0)
    FAMILY.train(config, job)
    found = list(FAMILY.predict(job.out, config, toys.samples, PredictOptions(batch=4)))
    assert [p.key for p in found] == [s.key for s in toys.samples]
    assert {(p.kind, p.size_hw) for p in found} == {("instance", (96, 64))}
    assert any(p.masks for p in found)
    for prediction in found:
        for _, rank, score, mask in prediction.rows():
            x, y, width, height = mask.box_xywh
            assert rank == 0
            assert 0 < score <= 1
            assert min(x, y) >= 0
            assert (x + width, y + height) <= (64 + 1e-9, 96 + 1e-9)


def test_what_other_families_have_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tta: the family 'mask2former' predicts without"):
        list(FAMILY.predict(tmp_path, tiny(), [], PredictOptions(tta=("hflip",))))


@pytest.mark.parametrize("name", list(configs.names("mask2former")))
def test_every_shipped_config_trains_and_predicts(
    name: str, toys: Any, make_job: Callable[..., Any], tiny: Callable[..., Any]
) -> None:
    """With a tiny network of random weights instead of its own, and no download."""
    shipped = load_config(Mask2FormerConfig, "mask2former", name)
    small = {"size": (64, 64), "epochs": 1, "batch": 2, "accumulate": 1, "workers": 0}
    small |= {"pretrained": None, "network": TINY, "labels": str(toys.labels_file)}
    small |= {"loss_weights": FEW, "device": "cpu"}
    config = check_config(Mask2FormerConfig, shipped.model_dump() | small, name)
    job = make_job()
    FAMILY.train(config, job)
    assert len(list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))) == 6


@pytest.mark.parametrize("name", list(configs.names("mask2former")))
def test_headers_say_what_was_reported(name: str) -> None:
    text = configs.find("mask2former", name).read_text(encoding="utf-8")
    assert "# Reported (N17): none" in text
    assert "CC-BY-NC-4.0" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, "either 'pretrained' or 'network', found both or none"),
        ({"pretrained": "x"}, "either 'pretrained' or 'network', found both or none"),
        ({"network": {"queries": 3}}, "unknown key 'network.queries'"),
        ({"network": {"hidden_dim": 33}}, "'network.hidden_dim': Input should be a multiple"),
        (
            {"network": {"backbone": {"num_heads": [5, 6, 12, 24]}}},
            r"expected embed_dim 96, .* that num_heads \(5, 6, 12, 24\) divide",
        ),
        ({"network": {"num_attention_heads": 7}}, "that num_attention_heads 7 divides"),
        ({"network": {"num_queries": 8}}, "num_queries: expected at least 9, one a class, found 8"),
        ({"loss_weights": {"mask": 1}}, "unknown key 'loss_weights.mask'"),
        ({"loss": {"dice": 1.0}}, "loss: expected nothing, .* losses of its own"),
        ({"swa": {}}, "swa: expected nothing"),
    ],
)
def test_bad_configs(tiny: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_keys_of_others_are_not_written_down(tiny: Callable[..., Any]) -> None:
    config = tiny()
    written = config.model_dump(mode="json")
    assert {"loss", "window", "focus", "smoothing"}.isdisjoint(written)
    assert check_config(Mask2FormerConfig, written, "again") == config


def test_the_same_numbers_as_transformers_by_default() -> None:
    theirs = Mask2FormerForUniversalSegmentation.config_class()
    options = LossWeights().model_dump()
    assert options == {name: getattr(theirs, name) for name in options}
    dimensions = Dimensions().model_dump(exclude={"backbone"})
    assert dimensions == {name: getattr(theirs, name) for name in dimensions}
