"""What every shipped network does: it is built, learns for two steps, is saved, and predicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_networks import shrink

import configs
from converters.types import LabelSpace
from zoo.config import check_config
from zoo.contract import PredictOptions
from zoo.families import FAMILIES, load_family
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.families.catalogue import describe_model, describe_models, read_reported
from zoo.families.outlines import build_outline
from zoo.families.semantic import SemanticFamily
from zoo.run_files.checkpoints import BEST, LAST, read_weights
from zoo.run_files.licences import FILE
from zoo.training.loop import seed_everything

pytestmark = pytest.mark.slow

SMALL = {
    "size": [64, 96],
    "epochs": 1,
    "batch": 2,
    "accumulate": 1,
    "cache": "none",
    "workers": 0,
    "device": "cpu",
    "precision": "auto",
    "init": None,
    # The toys are of nobody; see tests/zoo/metadata.
    "metadata": None,
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Of tiny networks, threads that wait for each other cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def semantic() -> Iterator[tuple[SemanticFamily, str]]:
    for name in FAMILIES:
        family = load_family(name)
        if isinstance(family, SemanticFamily):
            yield from ((family, config) for config in configs.names(name))


NETWORKS = list(semantic())
every = pytest.mark.parametrize(
    ("family", "name"), NETWORKS, ids=[f"{f.name}-{name}" for f, name in NETWORKS]
)


def read(family: SemanticFamily, name: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(configs.find(family.name, name).read_text("utf-8"))
    return raw


@pytest.fixture
def load(toys: Any) -> Callable[..., Any]:
    def load(family: SemanticFamily, name: str, **changes: Any) -> Any:
        raw = read(family, name)
        # Of what has one label a pixel, the toys are painted.
        labels: Any = str(toys.labels_file)
        if raw.get("labels") == "waste":
            labels = replace(toys.labels, exclusive="large_first").record()
        small = {**SMALL, **shrink(family.name, raw), "labels": labels}
        return check_config(family.Config, raw | small | changes, name)

    return load


@pytest.mark.long
@every
def test_every_config_learns_is_saved_and_predicts(
    family: SemanticFamily,
    name: str,
    load: Callable[..., Any],
    make_job: Callable[..., Any],
    toys: Any,
) -> None:
    config = load(family, name)
    job = make_job(val=toys.samples[4:5])
    seed_everything(config.seed)
    network = family.build(config, len(toys.labels))
    encoder = sum(p.numel() for p in network.encoder.parameters())
    assert 0 < encoder < sum(p.numel() for p in network.parameters())
    before = network.state_dict()
    family.train(config, job)
    after = read_weights(job.out / LAST)
    assert before.keys() == after.keys() == read_weights(job.out / BEST).keys()
    learnt = [k for k, v in before.items() if v.is_floating_point() and not v.equal(after[k])]
    assert len(learnt) > len(before) / 3
    assert json.loads((job.out / FILE).read_text()) == []
    found = list(family.predict(job.out, config, toys.samples[:2], PredictOptions()))
    assert [(p.key, p.size_hw) for p in found] == [(s.key, (96, 64)) for s in toys.samples[:2]]


@every
@pytest.mark.long
def test_every_config_computes_the_same_with_gradient_checkpointing(
    family: SemanticFamily, name: str, load: Callable[..., Any]
) -> None:
    """Losses, gradients and what batch norms remember are equal to the bit."""
    config = load(family, name)
    images = torch.randn(
        2, config.in_channels, *config.input_size, generator=torch.Generator().manual_seed(0)
    )
    found = []
    for saves_memory in (False, True):
        seed_everything(3)
        network = family.build(config, 3).train()
        if saves_memory:
            blocks = family.blocks(network)
            assert len(blocks) >= 4
            checkpoint_blocks(blocks)
        # Masks, and what a network learns beside them.
        given = network(images)
        tasks = given if isinstance(given, dict) else {"masks": given}
        masks = tasks.pop("masks")
        outputs = masks if isinstance(masks, list) else [masks]
        assert len(outputs) == max(1, len(config.deep_supervision))
        outputs += tasks.values()
        assert {o.shape[:2] for o in outputs} == {(2, 3)}
        sum(o.square().mean() for o in outputs).backward()
        gradients = {k: p.grad for k, p in network.named_parameters() if p.grad is not None}
        found.append((gradients, dict(network.named_buffers())))
    for plain, saving in zip(*found, strict=True):
        assert plain.keys() == saving.keys()
        assert all(torch.equal(plain[key], saving[key]) for key in plain)


@every
@pytest.mark.long
def test_every_config_sees_colours(
    family: SemanticFamily, name: str, load: Callable[..., Any]
) -> None:
    config = load(family, name, in_channels=3)
    images = torch.randn(2, 3, *config.input_size, requires_grad=True)
    network = family.build(config, 3).eval()
    network(images).square().mean().backward()
    assert images.grad is not None
    reached = images.grad.abs().sum((0, 2, 3))
    assert (reached > 0).all()
    # Not their sum: the channels are told apart.
    assert not torch.allclose(images.grad[:, 0], images.grad[:, 1], atol=0)


@every
def test_every_config_says_what_was_reported(family: SemanticFamily, name: str) -> None:
    text = configs.find(family.name, name).read_text("utf-8")
    assert name in ("demo", "laptop") or read_reported(text) is not None


# Millions of parameters, of the whole network for 29 classes and grey images: what papers and
# libraries state for their own numbers of classes and colours, to the digits that they state.
PUBLISHED = {
    # torchvision's page of fcn_resnet50, 21 classes; deeplabv3_resnet50.
    ("torchvision", "fcn_resnet50_1024"): (35.322, 0.01),
    ("torchvision", "deeplabv3_resnet50_1024"): (42.004, 0.01),
    # SegFormer, table 2: MiT-B0, B2, B5.
    ("segformer", "mit_b0_1024"): (3.8, 0.1),
    ("segformer", "mit_b2_512"): (27.5, 0.2),
    ("segformer", "mit_b5_1024"): (84.7, 0.1),
    # Swin, table 3; ConvNeXt, table 5; both with UPerNet, 150 classes.
    ("huggingface", "upernet_swin_large"): (234, 0.5),
    ("huggingface", "upernet_convnext_base"): (122, 0.5),
    # BEiT, github.com/microsoft/unilm, beit: BEiT-large with UPerNet, 441 M.
    ("huggingface", "beit_large_640"): (441, 0.5),
    # The same page: BEiT-base with UPerNet, 163 M.
    ("nets", "upernet_beit_base_640"): (163, 0.5),
    # DPT, table 5 of its appendix: DPT-Large, 343 M.
    ("huggingface", "dpt_large"): (343, 2),
    # Torchvision's pages of its Mask R-CNNs, 91 classes: 61 more of 5 x 1025 and 257 weights.
    ("maskrcnn", "resnet50_fpn_1024"): (44.401 - 0.33, 0.06),
    ("maskrcnn", "resnet50_fpn_v2_1024"): (46.359 - 0.33, 0.06),
    # Mask2Former, table 1: Swin-T, 47 M.
    ("mask2former", "swin_tiny_1024"): (47, 0.6),
    # OneFormer, table 3: Swin-L, 219 M.
    ("oneformer", "swin_large_1024"): (219, 1),
    # EoMT, table 1: EoMT-L, 316 M.
    ("eomt", "large_640"): (316, 1),
    # RF-DETR-Seg, rfdetr.roboflow.com: Medium 35.7 M, 2XLarge 38.6 M, 91 classes in 14 places.
    ("rfdetr", "seg_medium_432"): (35.7 - 0.22, 0.06),
    ("rfdetr", "seg_2xlarge_768"): (38.6 - 0.22, 0.06),
    # Ultralytics' tables of v8 and 11, segmentation, 80 classes.
    ("yolo", "yolov8x_2048"): (71.8, 0.2),
    ("yolo", "yolo11x_1024"): (62.1, 0.2),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_sizes_are_those_that_are_published(
    name: tuple[str, str], published: tuple[float, float]
) -> None:
    expected, tolerance = published
    found = describe_model(*name)
    assert found.parameters == pytest.approx(expected, abs=tolerance)
    assert str(found.size[0]) in name[1] or name[0] == "huggingface"


def test_models_of_every_kind_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    # One config each, for the time it takes.
    monkeypatch.setattr(configs, "names", lambda kind: ["demo"] if kind == "yolo" else [])
    (model,) = describe_models()
    assert (model.family, model.config, model.size) == ("yolo", "demo", (224, 224))
    assert 1 < model.parameters < 5


# Millions of parameters of classifiers, with their last layer: timm's and torchvision's tables of
# results, EfficientNet-PyTorch's, and SegFormer's table 1 for the bare encoder of MiT-B5.
CLASSIFIERS = {
    "unet_maxvit_base": (119.88, 1.4),
    "unetplusplus_efficientnet_b7": (66.35, 2.6),
    "unetplusplus_efficientnet_b8": (87.41, 4.9),
    "unetplusplus_efficientnetv2_xl": (208.12, 2.2),
    "unetplusplus_efficientnet_b6": (43.04, 3.7),
    "unetplusplus_efficientnet_b3": (12.23, 1.6),
    "unetplusplus_resnext50": (25.03, 2.1),
    "unetplusplus_hrnet_w64": (128.06, 10.4),
    "hrnet_w48": (77.47, 10.4),
    "upernet_mit_b5": (81.4, 0.1),
    "upernet_swin_large": (196.74, 1.6),
    # DINOv3, table 14: ConvNeXt-B 89 M, ViT-B 86 M; timm has them without a last layer.
    "upernet_convnext_dinov3": (87.57, 0.1),
    "dpt_vit_dinov3": (85.64, 0.4),
    # SAM 2.1: Hiera-B+ without the neck.
    "upernet_sam2_hiera": (68.68, 0.2),
}


@pytest.mark.long
@pytest.mark.parametrize(("name", "published"), CLASSIFIERS.items())
def test_encoders_are_those_that_are_published(name: str, published: tuple[float, float]) -> None:
    family = load_family("smp")
    assert isinstance(family, SemanticFamily)
    config = check_config(family.Config, read(family, name), name)
    network = build_outline(family, config, len(LabelSpace.load("hand_bones")))
    millions = sum(p.numel() for p in network.encoder.parameters()) / 1e6
    with_head, head = published
    assert with_head - head - 0.1 <= millions <= with_head + 0.1


@pytest.mark.parametrize(
    ("family", "name"), list({family.name: (family, name) for family, name in NETWORKS}.values())
)
def test_the_same_seed_gives_the_same_weights(
    family: SemanticFamily, name: str, load: Callable[..., Any]
) -> None:
    networks = []
    for seed in (5, 5, 6):
        seed_everything(seed)
        networks.append(family.build(load(family, name), 3).state_dict())
    first, again, other = networks
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


# Of each architecture that exports in seconds; others need torch.export, which takes longer.
EXPORTED = (
    ("torchvision", "laptop"),
    ("huggingface", "laptop"),
    ("huggingface", "dpt_large"),
    ("monai", "laptop"),
    ("nets", "laptop"),
    ("nets", "effisegnet_efficientnet_b7"),
    ("nets", "ocr_hrnet_w48"),
    ("nets", "resunet_plus_plus"),
    ("nets", "semask_swin_base"),
    ("nets", "swin_unet_tiny"),
)


def settled(network: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """A network whose batch norms know its random weights: without, some give numbers of 1e7."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for _ in range(2):
            network.train()(images)
    return network.eval()


@pytest.mark.long
@pytest.mark.parametrize(("family", "name"), EXPORTED)
def test_networks_are_exported_with_torch_s_probabilities(
    family: str,
    name: str,
    load: Callable[..., Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    conversion = pytest.importorskip("zoo.export.conversion")
    runtime = pytest.importorskip("onnxruntime")
    for needed in ("onnx", "onnxscript"):
        pytest.importorskip(needed)
    kind: Any = load_family(family)
    config = load(kind, name)
    seed_everything(0)
    shape = conversion.NetworkShape.of(config)
    images = conversion.sample_images(shape, 4, shape.size_hw)[::-1].copy()
    network = settled(kind.build(config, len(config.labels)), torch.from_numpy(images))
    entry = conversion.convert(network, shape, tmp_path, "network.onnx")
    assert capfd.readouterr().out == ""
    assert 0 <= entry.difference <= conversion.TOLERANCE
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    session = runtime.InferenceSession(str(tmp_path / "network.onnx"))
    (found,) = session.run(None, {"image": images})
    # Random weights may give logits that are all near 0: their differences are held to each other.
    spread = float(expected.std())
    assert spread > 0
    assert found / spread == pytest.approx(expected / spread, abs=1e-3)
