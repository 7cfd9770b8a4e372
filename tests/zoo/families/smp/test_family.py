from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zoo.config import check_config, load_config
from zoo.contract import PredictOptions
from zoo.families import load_family
from zoo.families.smp.config import SmpConfig
from zoo.families.smp.family import FAMILY
from zoo.run_files.checkpoints import read_weights, save_weights

pytestmark = pytest.mark.slow


def test_the_family_is_found_by_name() -> None:
    family = load_family("smp")
    assert (family.kind, family.Config) == ("semantic", SmpConfig)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"architecture": "unett"}, "architecture 'unett': expected one of unet, unetplusplus"),
        (
            {"options": {"decoder_chanels": [1]}},
            "options.decoder_chanels: unet takes",
        ),
        ({"options": {"classes": 4}}, "options.classes: unet takes encoder_depth"),
        ({"encoder_name": "resnet18"}, "unknown key 'encoder_name' .*; known are labels, seed"),
        ({"size": [250, 256]}, "'size': expected height and width that are multiples"),
        ({"loss": {"dise": 1}}, "'loss': unknown loss 'dise'"),
        ({"optim": {"lr": -1}}, "'optim.lr': expected a value greater than 0"),
        ({"precision": "fp8"}, "'precision"),
        ({"batch": 2.5}, "'batch': expected a whole number"),
    ],
)
def test_bad_configs(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(SmpConfig, {"size": [64, 64], "epochs": 1, "batch": 1} | raw, "test")


def test_another_architecture_without_the_options_of_the_config() -> None:
    changes = ["architecture=fpn"]
    with pytest.raises(ValueError, match=r"fpn takes .*; options=null drops all"):
        load_config(SmpConfig, "smp", "laptop", changes)
    assert load_config(SmpConfig, "smp", "laptop", [*changes, "options=null"]).options == {}


def test_an_unknown_encoder(tiny_smp: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"unet with encoder 'resnet19' .* built: KeyError"):
        FAMILY.build(tiny_smp(encoder="resnet19", options={}), 3)


def test_options_that_do_not_go_together(tiny_smp: Callable[..., Any]) -> None:
    config = tiny_smp(options={"encoder_depth": 3, "decoder_channels": [8, 8]})
    with pytest.raises(ValueError, match="these options cannot be built: ValueError"):
        FAMILY.build(config, 3)


@pytest.mark.parametrize(
    ("encoder", "page"),
    [
        ("resnet18", "https://huggingface.co/smp-hub/resnet18.imagenet/tree/main"),
        ("tu-lcnet_050", "https://huggingface.co/timm/lcnet_050.ra2_in1k/tree/main"),
        ("tu-lcnet_035", ""),
    ],
)
def test_pretrained_weights_that_cannot_be_had(
    tiny_smp: Callable[..., Any],
    encoder: str,
    page: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", offline)
    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(ValueError, match=f"could not get the weights of '{encoder}'") as caught:
        FAMILY.build(tiny_smp(encoder=encoder, encoder_weights="imagenet", options={}), 3)
    assert "encoder_weights=null" in str(caught.value)
    by_hand = f"get model.safetensors from {page}, and set encoder_weights=FOLDER/model.safetensors"
    assert (by_hand if page else "give a safetensors file of the encoder") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_encoder_weights_from_a_file(tiny_smp: Callable[..., Any], tmp_path: Any) -> None:
    source = FAMILY.build(tiny_smp(), 3)
    save_weights(source.encoder, tmp_path / "encoder.safetensors")
    config = tiny_smp(encoder_weights=str(tmp_path / "encoder.safetensors"))
    network = FAMILY.build(config, 5)
    for key, value in read_weights(tmp_path / "encoder.safetensors").items():
        assert torch.equal(network.encoder.state_dict()[key], value)


def test_prediction_needs_no_pretrained_weights(
    tiny_smp: Callable[..., Any], tmp_path: Any
) -> None:
    config = tiny_smp(encoder_weights="imagenet")
    expected = FAMILY.build(tiny_smp(), 3).state_dict().keys()
    assert FAMILY.rebuild(tmp_path, config, 3).state_dict().keys() == expected


def test_prediction_without_weights(tiny_smp: Callable[..., Any], tmp_path: Any, toys: Any) -> None:
    with pytest.raises(ValueError, match="found no weights; train the run first"):
        next(FAMILY.predict(tmp_path, tiny_smp(), toys.samples, PredictOptions()))


def test_bad_augmentation_is_found_when_the_config_is_loaded(tiny_smp: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r": augment\.0: unknown transform 'Mosaik'"):
        tiny_smp(augment=[{"name": "Mosaik"}])


@pytest.mark.parametrize(
    ("word", "meant"),
    [("fp16", "16-mixed"), (32, "32-true"), ("bf16", "bf16-mixed"), ("auto", "auto")],
)
def test_number_formats_are_known_by_their_other_names(word: object, meant: str) -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 2}
    assert check_config(SmpConfig, raw | {"precision": word}, "file").precision == meant
    with pytest.raises(ValueError, match=r"expected '32-true', .* or 'auto', found 'fp8'"):
        check_config(SmpConfig, raw | {"precision": "fp8"}, "file")
