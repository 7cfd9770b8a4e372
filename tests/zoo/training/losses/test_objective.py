from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from converters.types import LabelSpace
from zoo.config import check_config, dump_config
from zoo.families.smp.config import SmpConfig
from zoo.families.smp.family import FAMILY
from zoo.run_files.checkpoints import RESUME
from zoo.training.losses import LOSSES, LossTarget, check_losses
from zoo.training.losses.objective import Objective, resolve_class_weights, weigh_shared
from zoo.training.losses.pixels import bce
from zoo.training.losses.regions import dice

LABELS = LabelSpace("three", ("a", "b", "c"), {"g": ("b", "c")})


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def area() -> torch.Tensor:
    return (torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def _objective(losses: dict[str, Any], **options: Any) -> Objective:
    return Objective(check_losses(losses), **options)


def test_sum_of_weighted_losses_in_float32(logits: torch.Tensor, area: torch.Tensor) -> None:
    objective = _objective({"bce": 0.3, "dice": {"weight": 0.7}, "iou": 0})
    found = objective(logits.bfloat16(), area)
    exact, target = logits.bfloat16().float(), LossTarget(area)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(
        float(0.3 * bce(exact, target) + 0.7 * dice(exact, target))
    )


def test_options_reach_the_loss(logits: torch.Tensor, area: torch.Tensor) -> None:
    found = _objective({"focal": {"weight": 2, "gamma": 0}})(logits, area)
    assert float(found) == pytest.approx(2 * float(bce(logits, LossTarget(area))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(
    name: str, dtype: torch.dtype, logits: torch.Tensor, area: torch.Tensor
) -> None:
    objective = _objective({name: 1.0}, smoothing=0.1, shared_weight=2.0)
    half = logits.to(dtype)
    expected = objective(half.float(), area)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(objective(half, area), expected)


def test_logits_of_a_fraction_are_enlarged(logits: torch.Tensor, area: torch.Tensor) -> None:
    small = logits[..., ::2, ::2]
    large = F.interpolate(small, size=(8, 12), mode="bilinear", align_corners=False)
    assert torch.equal(_objective({"bce": 1})(small, area), bce(large, LossTarget(area)))


def test_shared_pixels_are_those_of_two_classes() -> None:
    area = torch.zeros(1, 3, 1, 5)
    area[0, :, 0] = torch.tensor([[0, 1, 1, 1, 0.6], [0, 0, 1, 1, 0.5], [0, 0, 0, 1, 0.4]])
    weights = weigh_shared(area, 3.0)
    assert weights is not None
    assert weights.tolist() == [[[[1, 1, 3, 3, 3]]]]


def test_shared_weight_of_bce_has_a_closed_form(logits: torch.Tensor, area: torch.Tensor) -> None:
    weights = (1 + 2 * (area.sum(1, keepdim=True) >= 2)).expand_as(area)
    cost = F.binary_cross_entropy_with_logits(logits, area, reduction="none")
    expected = (cost * weights).sum() / weights.sum()
    assert torch.allclose(_objective({"bce": 1}, shared_weight=3.0)(logits, area), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_everything_composes(name: str, logits: torch.Tensor, area: torch.Tensor) -> None:
    """The order that the class documents, written out."""
    area = F.avg_pool2d(area, 3, 1, 1)
    options: dict[str, Any] = {"class_weights": [2.0, 1.0, 0.5], "smoothing": 0.1}
    objective = _objective({name: 1.0}, shared_weight=3.0, scales=(1, 0.5), **options)
    coarse = logits[..., ::2, ::2].clone().requires_grad_()
    weights = 1 + 2 * ((area >= 0.5).sum(1, keepdim=True) >= 2).float()
    classes = torch.tensor([2.0, 1.0, 0.5])
    fine_target = LossTarget(area, 0.1, weights, classes)
    coarse_target = LossTarget(F.avg_pool2d(area, 2), 0.1, F.avg_pool2d(weights, 2), classes)
    expected = LOSSES[name](logits, fine_target) + 0.5 * LOSSES[name](coarse, coarse_target)
    found = objective([logits, coarse], area)
    assert torch.allclose(found, expected)
    found.backward()
    assert coarse.grad is not None
    assert coarse.grad.isfinite().all()


@pytest.mark.parametrize(
    ("scales", "outputs", "message"),
    [
        ((), 2, "expected 2 weights, one for each output of this network, found 0"),
        ((1, 0.5, 0.25), 2, "expected 2 weights, .* found 3"),
        ((1, 0.5), 0, "2 weights, but this network gives one output; remove it"),
    ],
)
def test_scales_that_do_not_fit(
    scales: tuple[float, ...], outputs: int, message: str, logits: torch.Tensor, area: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=f"deep_supervision: .*{message}"):
        _objective({"bce": 1}, scales=scales)([logits] * outputs or logits, area)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, [1, 1, 1]),
        ({"b": 2.0}, [1, 2, 1]),
        ({"g": 1.5}, [1, 1.5, 1.5]),
        ({"c": 4.0, "g": 1.5, "a": 0.0}, [0, 1.5, 4]),
    ],
)
def test_class_weights_by_class_and_group(weights: dict[str, float], expected: Any) -> None:
    assert resolve_class_weights(weights, LABELS) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"dise": 1}}, "'loss': unknown loss 'dise'"),
        ({"loss": {"focal": {"weight": 1, "gama": 2}}}, r"focal\.gama: unknown option"),
        ({"class_weights": {"Pisifrom": 2}}, r"class_weights\.Pisifrom: expected a class or group"),
        ({"class_weights": {"Pisiform": -1}}, r"class_weights\.Pisiform: expected at least 0"),
        (
            {"class_weights": {"fingers": 0, "carpals": 0, "forearm": 0}},
            "expected a class with a weight above 0",
        ),
        ({"smoothing": 1}, "'smoothing': expected a value less than 1"),
        ({"shared_weight": 0}, "'shared_weight': expected a value greater than 0"),
        ({"deep_supervision": [0, 1]}, "'deep_supervision': .* the first one larger"),
    ],
)
def test_bad_config(changes: dict[str, Any], message: str) -> None:
    raw = {"size": [64, 64], "epochs": 1, "batch": 1}
    with pytest.raises(ValueError, match=message):
        check_config(SmpConfig, raw | changes, "test")


def test_config_is_read_back_from_its_own_text() -> None:
    import yaml

    raw = {
        **{"size": [64, 64], "epochs": 1, "batch": 1, "smoothing": 0.05, "shared_weight": 3},
        "loss": {"focal": {"weight": 0.5, "gamma": 2, "alpha": 0.25}, "dice": 0.5},
        "class_weights": {"Pisiform": 2, "carpals": 1.5},
        **{"architecture": "unetplusplus", "deep_supervision": [1, 0.5, 0.25, 0.125]},
        "optim": {"schedule": {"name": "step", "milestones": [0.5, 0.9]}, "encoder_lr": 0.1},
    }
    config = check_config(SmpConfig, raw, "test")
    assert check_config(SmpConfig, yaml.safe_load(dump_config(config)), "again") == config


class Scales(torch.nn.Module):
    """A network that gives four scales while it learns."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fine = torch.nn.Conv2d(1, classes, 3, padding=1)
        self.coarse = torch.nn.ModuleList(torch.nn.Conv2d(1, classes, k, k) for k in (2, 4, 8))

    def forward(self, images: torch.Tensor) -> Any:
        finest = self.fine(images)
        return [finest, *(part(images) for part in self.coarse)] if self.training else finest


@pytest.mark.slow
def test_deep_supervision_trains_every_scale(
    make_job: Any, tiny_smp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Scales] = []

    def build(self: Any, config: Any, classes: int) -> Scales:
        made.append(Scales(classes))
        return made[-1]

    monkeypatch.setattr(type(FAMILY), "build", build)
    job = make_job()
    torch.manual_seed(0)
    weights = {"class_weights": {"tile-1": 2}, "shared_weight": 3, "smoothing": 0.1}
    scales = {"architecture": "unetplusplus", "deep_supervision": [1, 0.5, 0.25, 0.125]}
    FAMILY.train(tiny_smp(**scales, epochs=1, **weights), job)
    (network,) = made
    assert all(p.grad is not None for p in network.parameters())
    state = torch.load(job.out / RESUME, weights_only=True)["state_dict"]
    assert all(key.startswith("network.") for key in state)
