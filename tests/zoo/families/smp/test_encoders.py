"""What smp's networks make of encoders: weights from files, sizes that fit, several outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors.torch import save_file

from zoo.config import check_config
from zoo.families.smp.config import SmpConfig
from zoo.families.smp.family import FAMILY
from zoo.run_files.checkpoints import save_weights

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(**changes: Any) -> SmpConfig:
    raw = {"size": [64, 96], "epochs": 1, "batch": 2}
    return check_config(SmpConfig, raw | changes, "test")


def test_weights_of_timm_from_a_file(tmp_path: Path) -> None:
    """The file of a classifier with colours, as it lies on the hub."""
    theirs = timm.create_model("test_efficientnet", num_classes=1000)
    save_weights(theirs, tmp_path / "model.safetensors")
    given = str(tmp_path / "model.safetensors")
    config = make(encoder="tu-test_efficientnet", encoder_weights=given)
    features = timm.create_model("test_efficientnet", features_only=True)
    features.load_state_dict(theirs.state_dict(), strict=False)
    mine = FAMILY.build(config, 3).encoder.eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        expected = features.eval()(images.expand(-1, 3, -1, -1))
        found = mine(images)[1:]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_weights_of_smp_hub_from_a_file(tmp_path: Path) -> None:
    theirs = smp.encoders.get_encoder("resnet18", weights=None)
    save_weights(theirs, tmp_path / "model.safetensors")
    given = str(tmp_path / "model.safetensors")
    mine = FAMILY.build(make(encoder="resnet18", encoder_weights=given), 3).encoder.eval()
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        expected = theirs.eval()(images.expand(-1, 3, -1, -1))[1:]
        found = mine(images)[1:]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_weights_of_another_encoder(tmp_path: Path) -> None:
    theirs = timm.create_model("test_resnet", num_classes=10)
    save_weights(theirs, tmp_path / "model.safetensors")
    config = make(
        encoder="tu-test_efficientnet", encoder_weights=str(tmp_path / "model.safetensors")
    )
    with pytest.raises(ValueError, match="expected the weights of timm's test_eff"):
        FAMILY.build(config, 3)


MAXVIT, SWIN = "tu-maxvit_tiny_tf_512", "tu-swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": MAXVIT, "size": [768, 768]}, "expected height and width of 512, 1024, 1536"),
        ({"encoder": SWIN, "size": [512, 512]}, r"takes \[224, 224\] alone, found \[512, 512\]"),
        ({"encoder_options": {"img_size": 64}}, "encoder_options: expected none for 'resnet34'"),
        ({"architecture": "deeplabv3plus", "batch": 1}, "batch: expected at least 2, found 1"),
        (
            {"architecture": "unetplusplus", "deep_supervision": [1, 1]},
            "gives 4 outputs while it learns: expected 4 weights, finest first, or none, found 2",
        ),
        ({"deep_supervision": [1, 1]}, "gives 1 output while it learns: expected none, found 2"),
    ],
)
def test_bad_configs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": MAXVIT, "size": [512, 1024]},
        {"encoder": MAXVIT, "size": [512, 768], "encoder_options": {"img_size": 256}},
        {"encoder": SWIN, "size": [224, 224]},
        {"encoder": SWIN, "encoder_options": {"strict_img_size": False}},
        {"architecture": "pspnet", "batch": 1},
    ],
)
def test_sizes_that_fit(changes: dict[str, Any]) -> None:
    assert make(**changes)


# --- plain vision transformers

VIT = {
    "encoder": "tu-vit_small_patch16_dinov3",
    "encoder_options": {"dynamic_img_size": True, "embed_dim": 48, "depth": 6, "num_heads": 2},
}
DECODERS = ["unet", "unetplusplus", "fpn", "upernet", "linknet", "manet", "segformer", "pspnet"]


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_plain_transformer_goes_with_every_decoder(architecture: str) -> None:
    network = FAMILY.build(make(architecture=architecture, **VIT), 3).train()
    images = torch.randn(2, 1, 64, 96)
    outputs = network(images)
    assert outputs.shape == (2, 3, 64, 96)
    outputs.sum().backward()
    unused = [n for n, p in network.encoder.model.named_parameters() if p.grad is None]
    assert unused == []


def test_the_pyramid_of_a_plain_transformer() -> None:
    encoder = FAMILY.build(make(architecture="fpn", **VIT), 3).encoder.eval()
    with torch.no_grad():
        features = encoder(torch.randn(2, 1, 64, 96))
    shapes = [tuple(f.shape[1:]) for f in features]
    assert shapes[:2] == [(1, 64, 96), (0, 32, 48)]
    assert shapes[2:] == [(48, 64 // side, 96 // side) for side in (4, 8, 16, 32)]
    assert encoder.out_channels == [f.shape[1] for f in features]


def test_weights_of_a_plain_transformer_from_a_file(tmp_path: Path) -> None:
    """The file of colours, as it lies on the hub; the first convolution is summed over them."""
    kind = {key: VIT["encoder_options"][key] for key in ("embed_dim", "depth", "num_heads")}
    theirs = timm.create_model("vit_small_patch16_dinov3", **kind)
    save_weights(theirs, tmp_path / "model.safetensors")
    given = str(tmp_path / "model.safetensors")
    mine = FAMILY.build(make(architecture="unet", encoder_weights=given, **VIT), 3).encoder.eval()
    features = timm.create_model(
        "vit_small_patch16_dinov3", features_only=True, dynamic_img_size=True, **kind
    )
    features.model.load_state_dict(theirs.state_dict(), strict=False)
    images = torch.randn(2, 1, 64, 96)
    with torch.no_grad():
        expected = features.eval()(images.expand(-1, 3, -1, -1))[-1]
        found = mine.model(images)[-1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"architecture": "deeplabv3plus"},
            "without dilation, found one .* at a stride of 16",
        ),
        (
            {
                "encoder": "tu-vit_small_patch14_dinov2",
                "encoder_options": {"dynamic_img_size": True},
            },
            "patches of 16 x 16 and 4 blocks, found .* strides .14",
        ),
    ],
)
def test_plain_transformers_without_a_pyramid(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found) as caught:
        FAMILY.build(make(**VIT | changes), 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["deeplabv3", "deeplabv3plus", "pan", "upernet"])
def test_pooling_refuses_single_images(architecture: str) -> None:
    """What the config refuses, the network refuses as well."""
    network = FAMILY.build(make(architecture=architecture, encoder="resnet18"), 2).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.zeros(1, 1, 256, 256))


@pytest.mark.parametrize("architecture", ["unet", "unetplusplus", "fpn", "pspnet", "segformer"])
def test_others_learn_from_single_images(architecture: str) -> None:
    encoder = "mit_b0" if architecture == "segformer" else "resnet18"
    config = make(architecture=architecture, encoder=encoder, batch=1)
    assert FAMILY.build(config, 2).train()(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)


def test_a_u_net_plus_plus_that_gives_four_outputs() -> None:
    """Each head reads the node that it is named after; evaluation is the plain network's."""
    deep = FAMILY.build(
        make(architecture="unetplusplus", encoder="resnet18", deep_supervision=[1, 1, 1, 1]), 3
    )
    images = torch.randn(2, 1, 64, 96)
    outputs = deep.train()(images)
    assert [tuple(o.shape) for o in outputs] == [(2, 3, 64, 96)] + 3 * [(2, 3, 32, 48)]
    touched = []
    for output in outputs:
        deep.zero_grad()
        output.sum().backward(retain_graph=True)
        nodes = {k for k, m in deep.decoder.blocks.items() if next(m.parameters()).grad is not None}
        touched.append(nodes)
    assert touched[3] == {"x_3_3"}
    assert touched[2] == {"x_2_2", "x_3_3", "x_2_3"}
    assert touched[1] == {f"x_{i}_{j}" for j in range(1, 4) for i in range(1, j + 1)}
    assert touched[0] == set(deep.decoder.blocks)
    plain = FAMILY.build(make(architecture="unetplusplus", encoder="resnet18"), 3)
    own = deep.state_dict()
    plain.load_state_dict({k: v for k, v in own.items() if not k.startswith("auxiliary")})
    with torch.no_grad():
        assert torch.equal(deep.eval()(images), plain.eval()(images))


@pytest.mark.parametrize(
    ("encoder", "weights", "licence", "is_non_commercial"),
    [
        ("resnet34", "imagenet", "BSD-3-Clause", False),
        ("resnet50", "swsl", "CC-BY-NC-4.0", True),
        ("efficientnet-b7", "advprop", "Apache-2.0", False),
        ("mit_b5", "imagenet", "NVIDIA Source Code License for SegFormer", True),
        ("tu-hrnet_w64.ms_in1k", "imagenet", "mit", False),
        ("tu-convnextv2_base.fcmae_ft_in22k_in1k", "imagenet", "cc-by-nc-4.0", True),
        ("tu-convnext_base.dinov3_lvd1689m", "imagenet", "dinov3-license", False),
        ("tu-sam2_hiera_base_plus.fb_r896_2pt1", "imagenet", "apache-2.0", False),
        ("dpn68", "imagenet", "unknown", None),
        ("resnet34", "mine.safetensors", "unknown", None),
    ],
)
def test_the_licence_of_weights(
    encoder: str, weights: str, licence: str, is_non_commercial: bool | None
) -> None:
    (source,) = FAMILY.sources(make(encoder=encoder, encoder_weights=weights))
    assert (source.licence, source.is_non_commercial) == (licence, is_non_commercial)


def test_random_weights_have_no_licence() -> None:
    assert FAMILY.sources(make()) == []


def test_a_checkpointed_run_is_the_plain_run(
    tiny_smp: Callable[..., Any], make_job: Callable[..., Any]
) -> None:
    from zoo.run_files.checkpoints import LAST, read_weights

    found = []
    for name, saves in (("plain", False), ("saving", True)):
        job = make_job(name)
        FAMILY.train(tiny_smp(epochs=1, gradient_checkpointing=saves), job)
        found.append(read_weights(job.out / LAST))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_copy_of_a_checkpointed_network_is_its_own() -> None:
    """An average of weights is a deep copy; it must not compute with the original's weights."""
    from copy import deepcopy

    from zoo.families.activation_checkpointing import checkpoint_blocks, find_blocks

    network = FAMILY.build(make(encoder="resnet18"), 2).train()
    checkpoint_blocks(find_blocks(network))
    copy = deepcopy(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    copy(torch.randn(2, 1, 64, 64)).sum().backward()
    deep = copy.encoder.layer4[0].conv1.weight
    assert deep.grad is not None
    assert deep.grad.abs().sum() > 0


# --- files of weights as others hand them out


def _timms(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return timm.create_model(name).state_dict()


@pytest.mark.parametrize("nested", [False, True])
def test_torchs_files_are_read_without_unpickling(nested: bool, tmp_path: Path) -> None:
    own = _timms("test_efficientnet")
    torch.save({"state_dict": own, "epoch": 3} if nested else own, tmp_path / "model.pth")
    config = make(encoder="tu-test_efficientnet", encoder_weights=str(tmp_path / "model.pth"))
    found = FAMILY.build(config, 3).encoder.state_dict()
    kernels = own["conv_stem.weight"].sum(1, keepdim=True)
    assert torch.allclose(found["model.conv_stem.weight"], kernels)
    name = "blocks.1.0.conv_exp.weight"
    assert torch.equal(found[f"model.{name}"], own[name])


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"conv_stem.weight": Runs()}, tmp_path / "model.pth")
    config = make(encoder="tu-test_efficientnet", encoder_weights=str(tmp_path / "model.pth"))
    with pytest.raises(ValueError, match=r"model.pth: expected a file of weights alone"):
        FAMILY.build(config, 3)
    assert not (tmp_path / "ran").exists()


def test_other_names_in_timms_order_are_renamed(tmp_path: Path) -> None:
    """As EfficientNet-Lite's weights of the reference implementation come."""
    own = _timms("test_efficientnet")
    renamed = {f"_layer_{number}": tensor for number, tensor in enumerate(own.values())}
    torch.save(renamed, tmp_path / "model.pth")
    given = str(tmp_path / "model.pth")
    found = FAMILY.build(make(encoder="tu-test_efficientnet", encoder_weights=given), 3)
    name = "blocks.1.0.conv_exp.weight"
    assert torch.equal(found.encoder.state_dict()[f"model.{name}"], own[name])


def test_weights_of_another_timm_network_are_no_random_start(tmp_path: Path) -> None:
    save_file(
        {f"_layer_{n}": t for n, t in enumerate(_timms("test_resnet").values())},
        tmp_path / "model.safetensors",
    )
    given = str(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="expected the weights of timm's test_efficientnet"):
        FAMILY.build(make(encoder="tu-test_efficientnet", encoder_weights=given), 3)


def test_a_classifiers_last_layer_is_left_over(tmp_path: Path) -> None:
    theirs = torchvision.models.mobilenet_v2()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet.pth")
    given = str(tmp_path / "mobilenet.pth")
    found = FAMILY.build(make(encoder="mobilenet_v2", encoder_weights=given), 3).encoder
    name = "features.3.conv.0.0.weight"
    assert torch.equal(found.state_dict()[name], theirs.state_dict()[name])


def test_the_user_states_a_files_licence(tmp_path: Path) -> None:
    from zoo.run_files.licences import said_licence

    sources = FAMILY.sources(make(encoder="resnet18", encoder_weights="mine.pth"))
    (said,) = said_licence(sources, "CC-BY-NC-4.0")
    assert (said.licence, said.is_non_commercial) == ("CC-BY-NC-4.0", True)
    (known,) = said_licence([replace(said, licence="MIT")], "Apache-2.0")
    assert known.licence == "MIT"
    assert said_licence(sources, None) == sources


SMALL = "test_resnet"


def _read(own: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    torch.save(own, path)
    config = make(encoder=f"tu-{SMALL}", encoder_weights=str(path), in_channels=3)
    found: dict[str, torch.Tensor] = FAMILY.build(config, 3).encoder.state_dict()
    return found


@pytest.mark.parametrize("start", ["module.", "backbone.", "model.encoder.", "encoder.model."])
def test_names_of_timm_with_something_before_them(start: str, tmp_path: Path) -> None:
    own = _timms(SMALL)
    # Sorted, as safetensors has them: the order tells nothing.
    found = _read({start + k: own[k] for k in sorted(own)}, tmp_path / "a.pth")
    name = "layer4.0.conv1.weight"
    assert torch.equal(found[f"model.{name}"], own[name])


@pytest.mark.parametrize("encoder", ["resnet18", f"tu-{SMALL}"])
def test_the_encoder_of_a_whole_run(encoder: str, tmp_path: Path) -> None:
    network = FAMILY.build(make(encoder=encoder, encoder_weights=None, in_channels=3), 3)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "run.ckpt")
    config = make(encoder=encoder, encoder_weights=str(tmp_path / "run.ckpt"), in_channels=3)
    found = FAMILY.build(config, 2).encoder.state_dict()
    assert all(torch.equal(v, found[k]) for k, v in network.encoder.state_dict().items())


def test_weights_that_lack_a_few_are_no_random_start_there(tmp_path: Path) -> None:
    own = _timms(SMALL)
    del own["layer4.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"1 of \d+ are missing, such as 'layer4.0.conv1.weight'"):
        _read(own, tmp_path / "a.pth")


def test_weights_of_a_deeper_network_of_the_kind(tmp_path: Path) -> None:
    own = _timms(SMALL)
    deeper = {k.replace("layer3.0.", "layer3.7."): v for k, v in own.items() if "layer3.0." in k}
    with pytest.raises(ValueError, match=rf"timm's {SMALL}, found others: it has no 'layer3\.7\."):
        _read(own | deeper, tmp_path / "a.pth")


def test_weights_of_other_shapes_are_not_called_a_failed_download(tmp_path: Path) -> None:
    own = _timms(SMALL)
    own["layer4.0.conv1.weight"] = torch.zeros(3, 3, 1, 1)
    with pytest.raises(ValueError, match=r"a\.pth: .*size mismatch for layer4.0.conv1") as error:
        _read(own, tmp_path / "a.pth")
    assert "network connection" not in str(error.value)


def test_what_comes_after_the_encoder_may_be_left_over_or_lack(tmp_path: Path) -> None:
    own = {k: v for k, v in _timms(SMALL).items() if not k.startswith("fc.")}
    found = _read(own | {"projector.0.weight": torch.zeros(3)}, tmp_path / "a.pth")
    assert torch.equal(found["model.conv1.0.weight"], own["conv1.0.weight"])


def test_a_file_by_another_ending(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"weights': expected a file whose name ends in one of"):
        FAMILY.build(make(encoder="resnet18", encoder_weights=str(tmp_path / "weights")), 3)
