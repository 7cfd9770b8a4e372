from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import get_model

from zoo.config import check_config
from zoo.families import load_family
from zoo.families.torchvision.config import TorchvisionConfig
from zoo.families.torchvision.family import FAMILY
from zoo.run_files.checkpoints import save_weights

pytestmark = pytest.mark.slow

SMALLEST = "deeplabv3_mobilenet_v3_large"
FETCH = "torchvision.models._api.load_state_dict_from_url"


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(**changes: Any) -> TorchvisionConfig:
    raw = {"size": [64, 96], "epochs": 1, "batch": 2, "architecture": SMALLEST}
    return check_config(TorchvisionConfig, raw | changes, "test")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Torchvision's network with weights of its own classes, in the place of a download."""
    torch.manual_seed(1)
    network = get_model(
        SMALLEST, weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    asked: list[Any] = []

    def fetch(url: str, **options: Any) -> Any:
        asked.append((url, options))
        return network.state_dict()

    monkeypatch.setattr(FETCH, fetch)
    return network, asked


def test_the_family_is_found_by_name() -> None:
    assert load_family("torchvision").Config is TorchvisionConfig


@pytest.mark.parametrize("scales", [[], [1.0, 0.5]])
def test_pretrained_weights_see_grey_as_torchvision_does(
    published: Any, scales: list[float]
) -> None:
    """Features of one grey channel equal torchvision's of the image shown three times."""
    theirs, asked = published
    config = make(pretrained="COCO_WITH_VOC_LABELS_V1", deep_supervision=scales)
    mine = FAMILY.build(config, 5).eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        expected = theirs.backbone(images.expand(-1, 3, -1, -1))["out"]
        found = mine.encoder(images)["out"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert asked[0][1]["weights_only"] is True
    same = torch.equal(mine.decoder[1].weight, theirs.classifier[1].weight)
    assert same, "the head is taken but for its last layer"
    assert (mine.auxiliary_head is not None) == bool(scales)


@pytest.mark.parametrize("scales", [[], [1.0, 0.5]])
def test_logits_are_torchvisions_before_they_are_enlarged(scales: list[float]) -> None:
    config = make(deep_supervision=scales)
    mine = FAMILY.build(config, 5).eval()
    theirs = get_model(
        SMALLEST, weights=None, weights_backbone=None, num_classes=5, aux_loss=bool(scales)
    )
    theirs.backbone, theirs.classifier = mine.encoder, mine.decoder
    theirs.aux_classifier = mine.auxiliary_head
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        expected = theirs.eval()(images)
        logits = mine(images)
        assert logits.shape[:2] == (2, 5)
        enlarged = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged, expected["out"])


def test_the_backbone_alone(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = get_model("mobilenet_v3_large", weights=None)
    monkeypatch.setattr(FETCH, lambda url, **options: classifier.state_dict())
    network = FAMILY.build(make(pretrained="IMAGENET1K_V2"), 5)
    deep = [k for k in network.encoder.state_dict() if k.startswith("16.")]
    own, theirs = network.encoder.state_dict(), classifier.features.state_dict()
    assert deep
    assert all(torch.equal(own[k], theirs[k]) for k in deep)


@pytest.mark.parametrize("is_colour", [False, True])
def test_weights_from_a_file(is_colour: bool, tmp_path: Any) -> None:
    backbone = FAMILY.build(make(), 3).encoder
    if is_colour:
        backbone = get_model(SMALLEST, weights=None, weights_backbone=None).backbone
    save_weights(backbone, tmp_path / "backbone.safetensors")
    network = FAMILY.build(make(pretrained=str(tmp_path / "backbone.safetensors")), 3)
    own, given = network.encoder.state_dict(), backbone.state_dict()
    first = next(iter(own))
    assert torch.equal(own[first], given[first].sum(1, keepdim=True) if is_colour else given[first])
    assert all(torch.equal(own[k], given[k]) for k in own if k != first)


def test_a_whole_network_of_another_program_gives_its_backbone(tmp_path: Any) -> None:
    backbone = FAMILY.build(make(), 3).encoder.state_dict()
    whole = {f"module.backbone.{k}": v for k, v in backbone.items()}
    whole |= {"module.head.weight": torch.zeros(3), "module.backbone.fc.bias": torch.zeros(3)}
    torch.save({"model": whole}, tmp_path / "whole.pth")
    own = FAMILY.build(make(pretrained=str(tmp_path / "whole.pth")), 3).encoder.state_dict()
    assert all(torch.equal(own[k], v) for k, v in backbone.items())


def test_weights_of_another_network(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FETCH, lambda url, **options: {})
    with pytest.raises(ValueError, match=r"weights are of another network: no 'encoder\.0\.0"):
        FAMILY.build(make(pretrained="COCO_WITH_VOC_LABELS_V1"), 3)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(FETCH, offline)
    with pytest.raises(ValueError, match="could not get torchvision's weights") as caught:
        FAMILY.build(make(pretrained="COCO_WITH_VOC_LABELS_V1"), 3)
    assert "pretrained=null" in str(caught.value)
    name = "deeplabv3_mobilenet_v3_large-fc3c493d.pth"
    place = Path(torch.hub.get_dir()) / "checkpoints" / name
    said = f"get https://download.pytorch.org/models/{name} and put it at {place}, "
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "fcn_resnet18"}, "architecture 'fcn_resnet18': expected one of fcn_res"),
        (
            {"pretrained": "imagenet"},
            "pretrained .imagenet.: expected null, a .safetensors or .pth",
        ),
        (
            {"deep_supervision": [1, 0.5, 0.5]},
            "gives 2 outputs while it learns: expected 2 weights",
        ),
        ({"batch": 1}, "batch: expected at least 2, found 1"),
    ],
)
def test_bad_configs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_fcn_learns_from_single_images() -> None:
    assert make(architecture="fcn_resnet50", batch=1).batch == 1


def test_the_sources_of_weights() -> None:
    def describe(given: str | None) -> Any:
        return FAMILY.sources(make(pretrained=given))

    assert describe(None) == []
    (whole,) = describe("COCO_WITH_VOC_LABELS_V1")
    assert (whole.source, whole.licence) == (
        f"torchvision {SMALLEST} COCO_WITH_VOC_LABELS_V1",
        "BSD-3-Clause",
    )
    (backbone,) = describe("IMAGENET1K_V1")
    assert backbone.source == "torchvision mobilenet_v3_large IMAGENET1K_V1"
    (file,) = describe("mine.safetensors")
    assert (file.source, file.licence, file.is_non_commercial) == (
        "mine.safetensors",
        "unknown",
        None,
    )
