"""Messages about weights that have to be fetched by hand name file, page and place."""

import socket
import time

import pytest
from huggingface_hub import constants
from transformers import (
    Mask2FormerForUniversalSegmentation,
    SegformerForSemanticSegmentation,
    UperNetForSemanticSegmentation,
)

from zoo.families.downloads import from_hub, quiet_hub
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
