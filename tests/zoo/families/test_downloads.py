"""Messages about weights that have to be fetched by hand name file, page and place."""

import pytest
from transformers import (
    Mask2FormerForUniversalSegmentation,
    SegformerForSemanticSegmentation,
    UperNetForSemanticSegmentation,
)

from zoo.families.downloads import from_hub
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
