from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from fusion.metrics import Scores
from zoo.checkpoints import BEST, LAST, read_weights
from zoo.config import check_config, load_config
from zoo.evaluate import score_prediction
from zoo.families import load_family
from zoo.families.base import PredictOptions
from zoo.families.maskrcnn import (
    FAMILY,
    DetectorOptions,
    LossWeights,
    MaskRcnn,
    MaskRcnnConfig,
    to_soft_mask,
    to_target,
)
from zoo.families.maskrcnn_parts import V1, V2, build_detector, freeze_norms

HEIGHT, WIDTH = 64, 96
FEW = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 32,
    "box_batch_size_per_image": 32,
}
TINY = {
    "backbone": "tu-lcnet_035",
    "channels": 32,
    "hidden": 64,
    "mask_cells": 14,
    "anchors": [8, 16, 24, 48, 64],
    "detector": FEW,
}
# Learns a few images within a hundred steps.
SURE = {"architecture": V1, "freeze_norms": True}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Such small tensors are not worth to be shared out.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(toys: Any) -> Callable[..., MaskRcnnConfig]:
    def make(**changes: Any) -> MaskRcnnConfig:
        raw = {"labels": str(toys.labels_file), "size": [96, 64], "epochs": 2, "batch": 2, **TINY}
        return check_config(MaskRcnnConfig, raw | changes, "test")

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


@dataclass(frozen=True)
class Learned:
    network: MaskRcnn
    images: torch.Tensor
    masks: torch.Tensor
    losses: list[float]


def _network(**changes: Any) -> MaskRcnn:
    raw = {"size": [HEIGHT, WIDTH], "epochs": 1, "batch": 2, **TINY, **changes}
    return FAMILY.build(check_config(MaskRcnnConfig, raw, "test"), 3)


@pytest.fixture(scope="module")
def learned() -> Learned:
    """A tiny network that knows two images by heart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = _network(**SURE).train()
    images, masks = _draw()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = network.loss(images, masks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    torch.set_num_threads(threads)
    return Learned(network.eval(), images, masks, losses)


def _find(network: MaskRcnn, images: torch.Tensor) -> Any:
    with torch.no_grad():
        return network.find(images)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


# --- the network


def test_the_family_is_found_by_name() -> None:
    family = load_family("maskrcnn")
    assert (family.name, family.kind, family.Config) == ("maskrcnn", "instance", MaskRcnnConfig)


@pytest.mark.parametrize("architecture", [V1, V2])
def test_by_default_it_is_torchvisions_network(architecture: str) -> None:
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
def test_masks_have_the_cells_that_were_asked_for(learned: Learned, cells: int) -> None:
    network = _network(**SURE, mask_cells=cells)
    network.load_state_dict(learned.network.state_dict())
    found = _find(network.eval(), learned.images)
    # One row around them is empty.
    assert {m.prob.shape for image in found for _, m in image.values()} == {(cells + 2,) * 2}


# --- what it learns from


def test_every_bone_has_a_whole_mask_of_its_own() -> None:
    masks = torch.zeros(4, 10, 12, dtype=torch.bool)
    masks[0, 2:8, 1:7], masks[2, 5:9, 4:11], masks[3, 9, 11] = True, True, True
    target = to_target(masks)
    assert target["labels"].tolist() == [1, 3, 4]
    assert target["masks"].sum((1, 2)).tolist() == [36, 28, 1]
    # Pixels' centres are whole numbers: the last one's box is that one pixel.
    boxes = [[0.5, 1.5, 6.5, 7.5], [3.5, 4.5, 10.5, 8.5], [10.5, 8.5, 11.5, 9.5]]
    assert target["boxes"].tolist() == boxes


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


@pytest.mark.parametrize("name", list(LossWeights.model_fields))
def test_losses_count_by_their_weights(name: str) -> None:
    images, masks = _draw()
    none = dict.fromkeys(LossWeights.model_fields, 0.0)
    values = []
    for factor in (1.0, 3.0):
        torch.manual_seed(0)
        network = _network(loss_weights=none | {name: factor}).train()
        values.append(network.loss(images, masks).item())
    assert 0 < values[0] == pytest.approx(values[1] / 3)


def test_two_images_are_learned_by_heart(learned: Learned) -> None:
    assert np.mean(learned.losses[-5:]) < 0.25 * learned.losses[0]
    for found, masks in zip(_find(learned.network, learned.images), learned.masks, strict=True):
        assert sorted(found) == [0, 1, 2]
        for label, (score, mask) in found.items():
            assert score > 0.4
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert _iou(pixels, masks[label].numpy()) > 0.85


# --- soft masks


def _ellipse(generator: np.random.Generator) -> np.ndarray:
    plane = np.zeros((100, 140), np.uint8)
    centre, axes = generator.integers(45, 60, 2).tolist(), generator.integers(12, 36, 2).tolist()
    cv2.ellipse(plane, centre, axes, int(generator.integers(180)), 0, 360, 1, -1)
    return plane


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize("cells", [14, 28, 56])
def test_a_soft_mask_is_where_its_target_was_read(cells: int) -> None:
    """A target, taken as the answer, gives the bone back; pasted, it is half a pixel off."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(20):
        plane = _ellipse(generator)
        outward = generator.uniform(0, 4, 4) * (-1, -1, 1, 1)
        box = to_target(torch.from_numpy(plane)[None] > 0)["boxes"] + torch.from_numpy(outward)
        box = box.float()
        target = project_masks_on_boxes(torch.from_numpy(plane)[None], box, torch.zeros(1), cells)
        ours = to_soft_mask(box[0], target[0]).binary(plane.shape).full(plane.shape)
        pasted = paste_masks_in_image(target[:, None], box, plane.shape)[0, 0].numpy() >= 0.5
        shift = np.argwhere(ours).mean(0) - np.argwhere(plane).mean(0)
        rows.append((*shift, _dice(ours, plane), _dice(pasted, plane), _iou(ours > 0, pasted)))
    down, right, score, pasted_score, same = np.mean(rows, 0)
    assert max(abs(down), abs(right)) < 0.1
    assert score > pasted_score
    assert score > 0.98
    assert same > 0.93


def test_detections_are_those_of_torchvision(learned: Learned) -> None:
    size = {"channels": 32, "hidden": 64, "mask_cells": 14, "anchors": tuple(TINY["anchors"])}
    theirs = build_detector(V1, "tu-lcnet_035", 3, **size, options=FEW)
    freeze_norms(theirs.backbone, are_without_eps=False)
    theirs.load_state_dict(learned.network.state_dict())
    theirs.transform = GeneralizedRCNNTransform(HEIGHT, WIDTH, [0.0] * 3, [1.0] * 3)
    with torch.no_grad():
        expected = theirs.eval()([image.expand(3, -1, -1) for image in learned.images])
    for found, their in zip(_find(learned.network, learned.images), expected, strict=True):
        labels = their["labels"].tolist()
        assert sorted(found) == sorted({n - 1 for n in labels})
        for label, (score, mask) in found.items():
            # They come sorted by their scores.
            first = labels.index(label + 1)
            assert score == pytest.approx(float(their["scores"][first]), abs=1e-5)
            pasted = their["masks"][first, 0].numpy() >= 0.5
            pixels = mask.binary((HEIGHT, WIDTH)).full((HEIGHT, WIDTH)).astype(bool)
            assert _iou(pixels, pasted) > 0.85


def test_nothing_below_the_floor(learned: Learned) -> None:
    network = _network(**SURE, conf=0.999)
    network.load_state_dict(learned.network.state_dict())
    noise = torch.randn(2, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    assert _find(network.eval(), noise) == [{}, {}]


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_places_and_losses_stay_in_float32(learned: Learned, dtype: torch.dtype) -> None:
    plain = _find(learned.network, learned.images)
    with torch.autocast("cpu", dtype=dtype):
        half = _find(learned.network, learned.images)
        network = _network().train()
        assert network.loss(learned.images, learned.masks).dtype == torch.float32
    for a, b in zip(plain, half, strict=True):
        assert a.keys() == b.keys()
        for label in a:
            assert a[label][1].box_xywh == pytest.approx(b[label][1].box_xywh, abs=1.5)


# --- pretrained weights


def test_a_backbone_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    body = _network().backbone.body.state_dict()
    save_file(body, tmp_path / "body.safetensors")
    torch.manual_seed(2)
    network = _network(pretrained=str(tmp_path / "body.safetensors"))
    assert all(torch.equal(network.backbone.body.state_dict()[k], v) for k, v in body.items())


def test_a_file_of_another_backbone(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"weights of 'tu-lcnet_035', found others: .* such as"):
        _network(pretrained=str(tmp_path / "other.safetensors"))


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
    ("backbone", "given"), [("resnet18", "IMAGENET1K_V1"), ("tu-lcnet_035", "timm")]
)
def test_weights_that_cannot_be_had(
    backbone: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network\nhere")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(ValueError, match=f"pretrained '{given}': could not get") as caught:
        _network(backbone=backbone, pretrained=given)
    assert "\n" not in str(caught.value)


def test_frozen_norms_stay_as_they_are() -> None:
    network = _network(freeze_norms=True).train()
    before = {k: v.clone() for k, v in network.backbone.body.named_buffers()}
    network.loss(*_draw()).backward()
    after = dict(network.backbone.body.named_buffers())
    assert any(k.endswith("running_var") for k in before)
    assert all(torch.equal(before[k], after[k]) for k in before)


# --- runs


def _assert_same_weights(first: Path, second: Path) -> None:
    for name in (LAST, BEST):
        a, b = read_weights(first / name), read_weights(second / name)
        assert a.keys() == b.keys()
        assert [k for k in a if not torch.equal(a[k], b[k])] == []


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
    config = tiny(augment=[{"name": "HorizontalFlip", "p": 0.5}])
    whole, cut = make_job("whole"), make_job("cut", progress=_kill_at(3))
    FAMILY.train(config, whole)
    torch.rand(3)
    with pytest.raises(Killed):
        FAMILY.train(config, cut)
    FAMILY.train(config, make_job("cut"))
    _assert_same_weights(whole.out, cut.out)


def test_scores_are_those_of_predictions(
    tiny: Callable[..., Any], make_job: Callable[..., Any], toys: Any
) -> None:
    job, config = make_job(), tiny(epochs=1, conf=0.0)
    FAMILY.train(config, job)
    found = list(FAMILY.predict(job.out, config, job.val, PredictOptions(batch=1)))
    scored = [score_prediction(p, s, toys.labels) for p, s in zip(found, job.val, strict=True)]
    (row,) = csv.DictReader((job.out / "metrics.csv").read_text(encoding="utf-8").splitlines())
    assert float(row["val_dice"]) == pytest.approx(Scores(toys.labels, scored).mean(), abs=2e-6)


def test_an_average_of_weights_finds_bones_too(
    tiny: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    job, config = make_job(), tiny(epochs=1, ema=0.9, conf=0.0)
    FAMILY.train(config, job)
    assert all(p.masks for p in FAMILY.predict(job.out, config, job.val, PredictOptions()))


def test_predictions_are_in_the_images_own_frame(
    tiny: Callable[..., Any], make_job: Callable[..., Any], toys: Any
) -> None:
    job, config = make_job(), tiny(epochs=1, size=[64, 64], conf=0.0)
    FAMILY.train(config, job)
    found = list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))
    assert [p.key for p in found] == [s.key for s in toys.samples]
    assert {(p.kind, p.size_hw) for p in found} == {("instance", (96, 64))}
    for prediction in found:
        assert all(len(evidence) == 1 for evidence in prediction.masks.values())
        for _, _, score, mask in prediction.rows():
            x, y, width, height = mask.box_xywh
            assert 0 < score <= 1
            # Boxes are inside of the image, but for the empty row around the cells.
            assert min(x + width / 16, y + height / 16) >= 0
            assert x + width * 15 / 16 <= 64 + 1
            assert y + height * 15 / 16 <= 96 + 1


def test_what_other_families_have_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tta: the family 'maskrcnn' predicts without"):
        list(FAMILY.predict(tmp_path, tiny(), [], PredictOptions(tta=("hflip",))))


@pytest.mark.parametrize("name", list(configs.names("maskrcnn")))
def test_every_shipped_config_trains_and_predicts(
    name: str, toys: Any, make_job: Callable[..., Any]
) -> None:
    """With the smallest backbone and thin heads instead of its own, and no download."""
    small = ["size=[64,64]", "epochs=1", "batch=2", "accumulate=1", "workers=0", "cache=none"]
    thin = ["backbone=tu-lcnet_035", "channels=32", "hidden=32", "pretrained=null", "mask_cells=14"]
    few = [f"detector.{key}={value}" for key, value in FEW.items()]
    changes = [*small, *thin, *few, f"labels={toys.labels_file}", "device=cpu"]
    config = load_config(MaskRcnnConfig, "maskrcnn", name, changes)
    job = make_job()
    FAMILY.train(config, job)
    assert len(list(FAMILY.predict(job.out, config, toys.samples, PredictOptions()))) == 6


@pytest.mark.parametrize("name", list(configs.names("maskrcnn")))
def test_shipped_configs_describe_networks(name: str) -> None:
    config = load_config(MaskRcnnConfig, "maskrcnn", name, ["pretrained=null"])
    with torch.device("meta"):
        network = FAMILY.build(config, 29)
    assert network.roi_heads.mask_roi_pool.output_size == (config.mask_cells // 2,) * 2
    text = configs.find("maskrcnn", name).read_text(encoding="utf-8")
    assert "# Reported (N18): none" in text


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
        ({"mask_cells": 15}, "'mask_cells': Input should be a multiple of 2"),
        ({"anchors": [8, 16, 0, 1, 2]}, "anchors: expected positive sides"),
        ({"detector": {"nms": 1}}, "unknown key 'detector.nms'"),
        ({"loss_weights": {"dice": 1}}, "unknown key 'loss_weights.dice'"),
        ({"loss": {"dice": 1.0}}, "loss: expected nothing, .* losses of its own"),
        ({"window": [64, 64]}, "window: expected nothing, .* whole images"),
        ({"soft_targets": True}, "soft_targets: expected nothing, .* binary masks"),
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
def test_backbones_without_a_pyramid(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _network(backbone=name)


def test_keys_of_others_are_not_written_down(tiny: Callable[..., Any]) -> None:
    config = tiny()
    written = config.model_dump(mode="json")
    assert {"loss", "window", "focus", "smoothing"}.isdisjoint(written)
    assert check_config(MaskRcnnConfig, written, "again") == config
