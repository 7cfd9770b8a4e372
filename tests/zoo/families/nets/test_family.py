"""What all networks of the family have in common: what their configs refuse, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.config import check_config
from zoo.families import load_family
from zoo.families.nets.config import NetsConfig
from zoo.families.nets.family import FAMILY
from zoo.families.nets.network import NETWORKS, known_options, load_network
from zoo.run_files.checkpoints import read_weights, save_weights
from zoo.runs.memory import estimate

pytestmark = pytest.mark.slow


def make(**changes: Any) -> NetsConfig:
    raw = {"size": [64, 64], "epochs": 1, "batch": 2, "architecture": "unet3plus"}
    return check_config(NetsConfig, raw | changes, "test")


def test_the_family_is_found_by_name() -> None:
    family = load_family("nets")
    assert (family.kind, family.Config) == ("semantic", NetsConfig)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_what_the_family_asks_for(name: str) -> None:
    module = load_network(name)
    assert isinstance(module.ENCODER, bool)
    assert callable(module.OUTPUTS) or module.OUTPUTS >= 1
    assert set(known_options(name)).isdisjoint({"encoder", "channels", "classes", "outputs"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "unet4"}, "architecture 'unet4': expected one of unet3plus"),
        ({"options": {"widht": 4}}, "options.widht: unet3plus takes width, own_width"),
        ({"options": {"classes": 4}}, "options.classes: unet3plus takes width"),
        ({"deep_supervision": [1, 1]}, "gives 5 outputs while it learns: expected 5 weights"),
        ({"encoder_weights": "imagenet"}, "encoder_weights: expected together with 'encoder'"),
        ({"encoder_options": {"img_size": 64}}, "encoder_options: expected together with"),
        (
            {"encoder": "resnet18", "encoder_options": {"img_size": 64}},
            "encoder_options: expected none for 'resnet18'",
        ),
        (
            {"encoder": "tu-maxvit_tiny_tf_512", "size": [768, 768]},
            "size: tu-maxvit_tiny_tf_512 attends .* expected height and width of 512, 1024",
        ),
    ],
)
def test_bad_configs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="unet3plus with these options cannot be built: "):
        FAMILY.build(make(options={"width": "wide"}), 3)


def test_an_unknown_encoder() -> None:
    with pytest.raises(ValueError, match=r"encoder 'resnet19' and these options .*: KeyError"):
        FAMILY.build(make(encoder="resnet19"), 3)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-lcnet_035"])
def test_weights_that_cannot_be_had(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(ValueError, match=f"could not get the weights of '{encoder}'"):
        FAMILY.build(make(encoder=encoder, encoder_weights="imagenet"), 3)


def test_encoder_weights_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    small = {"options": {"width": 4}, "encoder": "tu-lcnet_035"}
    save_weights(FAMILY.build(make(**small), 3).encoder, path)
    network = FAMILY.build(make(encoder_weights=str(path), **small), 5)
    for key, value in read_weights(path).items():
        assert torch.equal(network.encoder.state_dict()[key], value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet3plus", {"guided": True}),
        ("resunet_a", {"multitask": True}),
        ("resunet_a", {"multitask": True, "colors": True}),
    ],
)
def test_memory_is_estimated_of_networks_with_further_outputs(
    name: str, options: dict[str, Any]
) -> None:
    config = make(architecture=name, options=options, size=[256, 256])
    plain = estimate(config, FAMILY, "16-mixed")
    saving = estimate(config.with_checkpointing(), FAMILY, "16-mixed")
    assert 0 < saving.activations < 0.7 * plain.activations
    assert saving.parameters == plain.parameters > 0


def test_whose_weights_they_are() -> None:
    (source,) = FAMILY.sources(make(encoder="resnet34", encoder_weights="imagenet"))
    assert source.licence == "BSD-3-Clause"
    assert FAMILY.sources(make()) == []
    plain = FAMILY.without_weights(make(encoder="resnet34", encoder_weights="imagenet"))
    assert plain.encoder_weights is None
