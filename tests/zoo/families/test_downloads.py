"""Messages about weights that have to be fetched by hand name file, page and place."""

import socket
import time
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from torchvision.models import get_model_weights
from transformers import (
    Mask2FormerForUniversalSegmentation,
    SegformerForSemanticSegmentation,
    UperNetForSemanticSegmentation,
)

import configs
from zoo.families import FAMILIES
from zoo.families.downloads import from_hub, from_smp, quiet_hub
from zoo.families.hub import load_pretrained


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (SegformerForSemanticSegmentation, "nvidia/mit-b0"),
        (Mask2FormerForUniversalSegmentation, "facebook/mask2former-swin-tiny-coco-instance"),
        (UperNetForSemanticSegmentation, "openmmlab/upernet-swin-large"),
    ],
)
def test_networks_of_the_hub(network, name, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("transformers.configuration_utils.cached_file", offline)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"pretrained '{name}': could not get") as caught:
        load_pretrained(network, name, "pretrained=null")
    page = f"https://huggingface.co/{name}/tree/main"
    said = f"config.json and model.safetensors from {page}, put both into one folder, and set "
    assert f"get {said}pretrained=FOLDER, or set pretrained=null: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_revision_has_a_page_of_its_own():
    said = from_hub("Intel/dpt-large-ade@refs/pr/8", "pretrained")
    assert "https://huggingface.co/Intel/dpt-large-ade/tree/refs%2Fpr%2F8, put both" in said


# Names on the Hugging Face hub, and where each was seen with the weights that our configs want.
SEEN = {
    "facebook/mask2former-swin-tiny-coco-instance": "the hub's page, with safetensors",
    "openmmlab/upernet-swin-large": "the hub's page of main, with safetensors",
    "openmmlab/upernet-convnext-base": "the hub's page of main, with safetensors",
    "microsoft/beit-large-finetuned-ade-640-640": "the hub's page, with safetensors",
    "Intel/dpt-large-ade@refs/pr/8": "the hub's page of this revision; main has no safetensors",
    "shi-labs/oneformer_coco_swin_large@refs/pr/1": "the hub's page of this revision",
    "tue-mps/coco_instance_eomt_large_640": "transformers' tests of EoMT",
    "tue-mps/eomt-dinov3-coco-instance-large-640": "transformers' tests of EoMT on DINOv3",
    "Roboflow/rf-detr-seg-medium": "the hub's page",
    "Roboflow/rf-detr-seg-xxlarge": "code of others that loads it",
}


def _read_all() -> list[tuple[str, dict[str, Any]]]:
    """Return every shipped config's place and what it says."""
    return [
        (f"{family}/{name}", yaml.safe_load(configs.find(family, name).read_text("utf-8")))
        for family in FAMILIES
        for name in configs.names(family)
    ]


def test_names_on_the_hub_are_those_that_were_seen():
    named = {str(raw["pretrained"]) for _, raw in _read_all() if raw.get("pretrained")}
    assert {name for name in named if "/" in name} == SEEN.keys()


def test_weights_of_encoders_are_known_to_their_libraries():
    given = [(p, raw) for p, raw in _read_all() if raw.get("encoder_weights")]
    assert len(given) > 30
    for place, raw in given:
        assert from_smp(raw["encoder"], raw["encoder_weights"], "encoder_weights"), place


def test_weights_of_torchvision_are_known_to_it():
    given = [(p, raw) for p, raw in _read_all() if raw.get("pretrained")]
    given = [(p, raw) for p, raw in given if "/" not in raw["pretrained"]]
    assert len(given) >= 6
    for place, raw in given:
        name = raw["architecture"]
        assert raw["pretrained"] in get_model_weights(name).__members__, place


@pytest.mark.parametrize("name", ["/a/b", "a/b/c", "./b", "some/folder", "../b"])
def test_a_path_has_no_page(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "folder").mkdir(parents=True)
    assert from_hub(name, "pretrained") == ""


def _nobody_knows(*_, **__):
    raise socket.gaierror("Name or service not known")


def test_without_a_network_nothing_is_tried_again(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _nobody_knows)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    for proxy in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    with pytest.raises(ValueError, match=r"get config\.json and model\.safetensors from"):
        load_pretrained(SegformerForSemanticSegmentation, "nobody/has-this", "pretrained=null")
    assert not constants.HF_HUB_OFFLINE


def test_a_proxy_may_know_more(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", _nobody_knows)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.hospital:3128")
    with quiet_hub():
        assert not constants.HF_HUB_OFFLINE


def test_where_nothing_is_fetched_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("it asked"))
    with quiet_hub(fetches=False):
        assert not constants.HF_HUB_OFFLINE
