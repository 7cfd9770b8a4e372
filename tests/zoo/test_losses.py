from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch

from zoo.losses import LOSSES, bce, check_weights, dice, focal, weighted_sum


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def target() -> torch.Tensor:
    drawn = torch.rand(3, 4, 6, 5, generator=torch.Generator().manual_seed(1)) > 0.7
    drawn[:, 3] = False
    return drawn.float()


def test_bce_closed_form(logits: torch.Tensor, target: torch.Tensor) -> None:
    p = logits.double().sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert bce(logits, target) == pytest.approx(float(expected), rel=1e-5)


def test_focal_without_gamma_is_bce(logits: torch.Tensor, target: torch.Tensor) -> None:
    assert focal(logits, target, gamma=0) == pytest.approx(float(bce(logits, target)), rel=1e-6)


def test_focal_matches_smp(logits: torch.Tensor, target: torch.Tensor) -> None:
    theirs = smp.losses.FocalLoss("binary", gamma=2.0)(logits, target)
    assert float(focal(logits, target)) == pytest.approx(float(theirs), rel=1e-5)


def test_dice_matches_smp_where_all_classes_occur(
    logits: torch.Tensor, target: torch.Tensor
) -> None:
    theirs = smp.losses.DiceLoss("multilabel")(logits[:, :3], target[:, :3])
    assert float(dice(logits[:, :3], target[:, :3])) == pytest.approx(float(theirs), rel=1e-5)


def test_dice_leaves_out_absent_classes(logits: torch.Tensor, target: torch.Tensor) -> None:
    assert float(dice(logits, target)) == pytest.approx(float(dice(logits[:, :3], target[:, :3])))


def test_dice_of_nothing_is_zero_and_has_a_gradient(logits: torch.Tensor) -> None:
    logits.requires_grad_()
    loss = dice(logits, torch.zeros_like(logits))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_dice_counts_a_pixel_as_much_as_a_plane() -> None:
    target = torch.zeros(1, 2, 8, 8)
    target[:, 0] = 1
    target[:, 1, 4, 4] = 1
    missed = torch.where(target > 0, 30.0, -30.0)
    missed[:, 1] = -30
    assert float(dice(missed, target)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_perfect_logits_cost_nothing(name: str, target: torch.Tensor) -> None:
    perfect = torch.where(target > 0, 40.0, -40.0)
    assert float(LOSSES[name](perfect, target)) == pytest.approx(0, abs=1e-6)


def test_weighted_sum_is_float32(logits: torch.Tensor, target: torch.Tensor) -> None:
    found = weighted_sum({"bce": 0.3, "dice": 0.7}, logits.bfloat16(), target)
    exact = logits.bfloat16().float()
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(
        0.3 * float(bce(exact, target)) + 0.7 * float(dice(exact, target))
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_losses(
    logits: torch.Tensor, target: torch.Tensor, dtype: torch.dtype
) -> None:
    weights = dict.fromkeys(LOSSES, 1.0)
    expected = weighted_sum(weights, logits, target)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(weighted_sum(weights, logits, target), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"bse": 1.0}, "unknown loss 'bse'; known are bce, dice, focal"),
        ({"bce": -1.0}, "weights of at least 0"),
        ({"bce": 0.0}, "one of them larger"),
        ({}, "one of them larger"),
    ],
)
def test_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_weights(weights)
