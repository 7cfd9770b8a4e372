"""The estimate of memory, against what autograd really keeps on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.config import check_config
from zoo.families import load_family
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.families.outlines import load_outline
from zoo.runs import memory
from zoo.runs.memory import GB, OVERHEAD, USABLE, Device, advise, advise_before, estimate

pytestmark = pytest.mark.slow

SIZES = {"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
# Without dropout, whose mask is bytes on CUDA and floats on the CPU.
STILL = {"drop_path_rate": 0.0, "classifier_dropout_prob": 0.0}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("smp", {"encoder": "resnet18"}),
    "segformer": ("segformer", {"network": {**SIZES, **STILL}}),
}
Make = Callable[..., tuple[Any, Any]]


@pytest.fixture
def make(toys: Any) -> Make:
    def make(name: str, **changes: Any) -> tuple[Any, Any]:
        family_name, network = NETWORKS[name]
        raw = {"labels": str(toys.labels_file), "size": [96, 64], "epochs": 1, "batch": 2}
        config = check_config(load_family(family_name).Config, raw | network | changes, "test")
        return load_outline(family_name), config

    return make


def _really_saved(outline: Any, config: Any, toys: Any) -> int:
    """Bytes that autograd keeps on the CPU, each storage once, weights left out."""
    network = outline.build(config, len(toys.labels)).train()
    if config.gradient_checkpointing:
        checkpoint_blocks(outline.blocks(network))
    target = torch.zeros(config.batch, len(toys.labels), *config.size)

    def compute() -> Any:
        outputs = network(torch.zeros(config.batch, 1, *config.size))
        return config.objective(toys.labels)(outputs, target)

    return _saved_by(compute, network)


def _saved_by(compute: Callable[[], Any], network: torch.nn.Module) -> int:
    """Bytes that autograd keeps of what is computed, each storage once, weights left out."""
    held = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_what_autograd_keeps(
    make: Make, toys: Any, name: str, is_checkpointed: bool
) -> None:
    outline, config = make(name, gradient_checkpointing=is_checkpointed)
    found = estimate(config, outline, "32-true").activations
    assert found == pytest.approx(_really_saved(outline, config, toys), rel=0.01)


FEW_PROPOSALS = {
    "rpn_pre_nms_top_n_train": 100,
    "rpn_post_nms_top_n_train": 50,
    "rpn_batch_size_per_image": 32,
    # So few that all are taken, in every image.
    "box_batch_size_per_image": 8,
}
FINDERS: dict[str, dict[str, Any]] = {
    "maskrcnn": {
        **{"backbone": "tu-lcnet_035", "channels": 32, "hidden": 64, "mask_cells": 14},
        **{"anchors": [8, 16, 24, 48, 64], "detector": FEW_PROPOSALS},
    },
    "mask2former": {
        "network": {
            "backbone": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
            **{"num_queries": 12, "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 3},
            **{"num_attention_heads": 2, "encoder_feedforward_dim": 64, "dim_feedforward": 64},
        },
        "loss_weights": {"train_num_points": 256},
    },
    "oneformer": {
        "network": {
            "backbone": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
            **{"num_queries": 12, "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 3},
            **{"num_attention_heads": 2, "encoder_feedforward_dim": 64, "dim_feedforward": 64},
            # Its mask is bytes on CUDA and floats on the CPU.
            "dropout": 0.0,
        },
        "loss_weights": {"train_num_points": 256},
    },
    "eomt": {
        "network": {
            **{"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2},
            **{"patch_size": 8, "image_size": 64, "num_blocks": 2, "num_queries": 12},
        },
        "loss_weights": {"train_num_points": 256},
    },
    "rfdetr": {
        "network": {
            "backbone": {
                **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
                **{"patch_size": 8, "out_indices": [1, 3], "image_size": 64},
            },
            **{"num_queries": 12, "group_detr": 2, "d_model": 32, "decoder_layers": 2},
            **{"decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2},
        },
    },
}


@pytest.mark.parametrize("name", FINDERS)
def test_what_finds_instances_is_estimated_too(toys: Any, name: str) -> None:
    outline = load_outline(name)
    raw = {"labels": str(toys.labels_file), "size": [96, 128], "epochs": 1, "batch": 2}
    config = check_config(load_family(name).Config, raw | FINDERS[name], "test")
    masks = torch.zeros(2, 9, 96, 128, dtype=torch.bool)
    for n in range(9):
        masks[:, n, 7 * n : 7 * n + 24, 11 * n : 11 * n + 20] = True
    network = outline.build(config, 9).train()
    given = torch.randn(2, 1, 96, 128), masks, torch.arange(9)
    # A pretended GPU has no kernels that keep less of attention.
    with sdpa_kernel(SDPBackend.MATH):
        really = _saved_by(lambda: network.loss(*given), network)
    assert estimate(config, outline, "32-true").activations == pytest.approx(really, rel=0.05)


@pytest.mark.parametrize("model", ["yolov8n-seg.yaml", "yolo26n-seg.yaml"])
def test_what_ultralytics_trains_is_estimated_too(toys: Any, model: str) -> None:
    outline = load_outline("yolo")
    raw = {"labels": str(toys.labels_file), "model": model, "imgsz": 160, "batch": 2}
    config = check_config(load_family("yolo").Config, raw, "test")
    network = outline.build(config, 9).train()
    network.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, overlap_mask=False, epochs=1)
    generator = torch.Generator().manual_seed(0)
    middles = torch.rand(18, 2, generator=generator) * 0.6 + 0.2
    batch = {
        "img": torch.rand(2, 3, 160, 160, generator=generator),
        "batch_idx": torch.arange(2).repeat_interleave(9).float(),
        "cls": torch.arange(9).repeat(2)[:, None].float(),
        "bboxes": torch.cat([middles, torch.full((18, 2), 0.3)], 1),
        "masks": (torch.rand(18, 80, 80, generator=generator) > 0.5).float(),
        "sem_masks": torch.zeros(2, 80, 80),
    }
    found = estimate(config, outline, "32-true")
    # Two objects may want the same cell.
    assert found.activations == pytest.approx(_saved_by(lambda: network(batch), network), rel=0.1)
    learned = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    assert found.optimizer == 2 * found.gradients == 2 * learned
    assert found.parameters > 2 * learned


def test_remedies_of_ultralytics_keys() -> None:
    outline = load_outline("yolo")
    raw = {"model": "yolov8n-seg.yaml", "imgsz": 256, "batch": 16}
    config = check_config(load_family("yolo").Config, raw, "test")
    whole = estimate(config, outline, "16-mixed")
    device = Device(OVERHEAD + 0.5 * (whole.total - OVERHEAD), "16-mixed")
    _, warning = advise(config, outline, device)
    assert "try batch=" in warning
    assert " nbs=16, or imgsz=" in warning


@pytest.mark.parametrize("name", NETWORKS)
def test_they_grow_with_the_images(make: Make, name: str) -> None:
    outline, config = make(name)
    once = estimate(config, outline, "32-true")
    twice = estimate(make(name, batch=4)[1], outline, "32-true")
    assert twice.activations == pytest.approx(2 * once.activations, rel=0.02)
    assert twice.parameters == once.parameters


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_takes_less_but_not_half(make: Make, name: str, precision: Any) -> None:
    # Large enough that copies of the weights do not count.
    outline, config = make(name, size=[256, 256])
    full, mixed = (estimate(config, outline, p).activations for p in ("32-true", precision))
    assert 0.5 * full < mixed < 0.95 * full
    assert not torch.is_autocast_enabled("cuda")


@pytest.mark.parametrize(
    ("optim", "states"),
    [({"name": "adamw"}, 2), ({"name": "sgd"}, 1), ({"name": "sgd", "momentum": 0.0}, 0)],
)
def test_what_an_optimizer_keeps(make: Make, optim: Any, states: int) -> None:
    outline, config = make("unet", optim=optim)
    network = outline.build(config, 9)
    optimizer = _optimizer_bytes(network, config)
    found = estimate(config, outline, "32-true")
    learned = sum(p.numel() * 4 for p in network.parameters())
    assert found.optimizer == states * learned
    assert found.optimizer == pytest.approx(optimizer, rel=1e-3)
    assert found.gradients == learned


def _optimizer_bytes(network: torch.nn.Module, config: Any) -> int:
    """Bytes that an optimizer really keeps after a step."""
    from zoo.training.optim import build_optimizer

    optimizer = build_optimizer(network, config.optim)
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    states = (v for state in optimizer.state.values() for v in state.values())
    return sum(v.numel() * v.element_size() for v in states if torch.is_tensor(v))


def test_an_average_is_a_second_network(make: Make) -> None:
    outline, config = make("unet")
    plain, averaged = (estimate(c, outline, "32-true") for c in (config, make("unet", ema=0.9)[1]))
    assert averaged.parameters == 2 * plain.parameters


def test_where_it_fits_nothing_is_advised(make: Make) -> None:
    outline, config = make("unet")
    said, warning = advise(config, outline, Device(32 * GB, "16-mixed"))
    assert said.startswith("about 1.")
    assert warning == ""


def test_each_remedy_fits(make: Make) -> None:
    outline, config = make("unet", batch=16, size=[256, 256], accumulate=2)
    whole = estimate(config, outline, "16-mixed")
    device = Device(OVERHEAD + 0.4 * (whole.total - OVERHEAD), "16-mixed")
    _, warning = advise(config, outline, device)
    head, _, remedies = warning.partition("try ")
    assert f"needs about {whole.total / GB:.1f} GB" in head
    for remedy in remedies.split(", or "):
        changes = {}
        for change in remedy.split():
            key, _, value = change.partition("=")
            changes[key] = {"true": True}.get(value) or (
                [int(v) for v in value[1:-1].split(",")] if value[0] == "[" else int(value)
            )
        changed = config.model_copy(update=changes)
        assert estimate(changed, outline, "16-mixed").total <= USABLE * device.memory * 1.02
        if "batch" in changes:
            assert changes["batch"] * changes["accumulate"] >= 32
    assert remedies.count(" or ") == 2


def test_a_network_that_is_too_large_in_itself(make: Make) -> None:
    outline, config = make("unet")
    _, warning = advise(config, outline, Device(OVERHEAD, "32-true"))
    assert warning.endswith("choose a smaller network")


def test_only_gpus_are_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, config = make("unet", device="cpu")
    assert advise_before(config, "smp") == ("", "")
    monkeypatch.setattr(Device, "of", lambda config: Device(1 * GB, "32-true"))
    assert all(advise_before(config, "smp"))


def test_a_network_that_cannot_be_pretended_is_trained_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("data\ndependent")

    _, config = make("unet")
    monkeypatch.setattr(Device, "of", lambda config: Device(1 * GB, "32-true"))
    monkeypatch.setattr(memory, "measure", fail)
    assert advise_before(config, "smp") == ("no estimate of memory: data dependent", "")
