from __future__ import annotations

from collections.abc import Callable
from typing import Any

import monai.losses
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from zoo.training.losses import (
    EXCLUSIVE,
    LOSSES,
    LossTarget,
    check_losses,
    list_losses,
    split_weight,
)
from zoo.training.losses.pixels import bce, boundary_bce, focal, topk, weighted_bce
from zoo.training.losses.regions import (
    boundary_iou,
    dice,
    dice_topk,
    focal_tversky,
    iou,
    lovasz,
    tversky,
)

pytestmark = pytest.mark.slow

SHAPE = (3, 4, 6, 5)
PRESENT = (..., slice(3), slice(None), slice(None))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def area() -> torch.Tensor:
    """Masks of four classes; the last does not occur."""
    drawn = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) > 0.7
    drawn[:, 3] = False
    return drawn.float()


@pytest.fixture
def soft(area: torch.Tensor) -> torch.Tensor:
    """Shares of pixels, as masks have when they are reduced."""
    return F.avg_pool2d(area, 3, 1, 1)


def _mean(values: torch.Tensor, **_: Any) -> torch.Tensor:
    return values.mean()


def _smp_tversky(gamma: float = 1.0, **weights: float) -> Callable[..., torch.Tensor]:
    """The library takes the power of the mean over classes; one class at a time it is ours."""
    loss = smp.losses.TverskyLoss("multilabel", gamma=gamma, **weights)
    return lambda x, t: _mean(torch.stack([loss(x[:, [c]], t[:, [c]]) for c in range(x.shape[1])]))


def _smp_lovasz(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    loss = smp.losses.LovaszLoss("binary", per_image=False)
    return torch.stack([loss(x[:, c], t[:, c]) for c in range(x.shape[1])]).mean()


def _monai(loss: type, **options: Any) -> torch.nn.Module:
    return loss(sigmoid=True, batch=True, smooth_nr=0, smooth_dr=1e-7, **options)


def _hardest(share: float) -> Callable[..., torch.Tensor]:
    def compare(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        p = 1 / (1 + np.exp(-x.double().numpy()))
        t = t.double().numpy()
        cost = np.moveaxis(-t * np.log(p) - (1 - t) * np.log(1 - p), 1, 0).reshape(x.shape[1], -1)
        count = int(cost.shape[1] * share)
        return torch.tensor(np.sort(cost, axis=1)[:, -count:].mean())

    return compare


def _f3net(half: str) -> Callable[..., torch.Tensor]:
    """As its authors write it, for a batch of one and without their 1 added to both areas."""

    def compare(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for c in range(x.shape[1]):
            mask, pred = t[:, [c]], x[:, [c]]
            weight = 1 + 5 * (F.avg_pool2d(mask, 31, 1, 15) - mask).abs()
            if half == "bce":
                cost = F.binary_cross_entropy_with_logits(pred, mask, reduction="none")
                total = total + (weight * cost).sum() / weight.sum()
                continue
            p = pred.sigmoid()
            both, either = (p * mask * weight).sum(), ((p + mask) * weight).sum()
            total = total + 1 - both / (either - both)
        return total / x.shape[1]

    return compare


REFERENCES = {
    "bce": (bce, {}, F.binary_cross_entropy_with_logits),
    "bce smp": (bce, {}, smp.losses.SoftBCEWithLogitsLoss()),
    "weighted_bce": (
        weighted_bce,
        {"positive_weight": 4.0},
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(4.0)),
    ),
    "topk": (topk, {"share": 0.2}, _hardest(0.2)),
    "topk of all": (topk, {"share": 1.0}, F.binary_cross_entropy_with_logits),
    "focal smp": (focal, {}, smp.losses.FocalLoss("binary", gamma=2.0)),
    "focal torchvision": (
        focal,
        {"gamma": 1.5, "alpha": 0.25},
        lambda x, t: sigmoid_focal_loss(x, t, alpha=0.25, gamma=1.5, reduction="mean"),
    ),
    "focal root": (
        focal,
        {"gamma": 0.5, "alpha": 0.9},
        lambda x, t: sigmoid_focal_loss(x, t, alpha=0.9, gamma=0.5, reduction="mean"),
    ),
    "focal monai": (focal, {"gamma": 3.0}, monai.losses.FocalLoss(gamma=3.0, alpha=None)),
    "dice smp": (dice, {}, smp.losses.DiceLoss("multilabel")),
    "dice monai": (dice, {}, _monai(monai.losses.DiceLoss)),
    "iou smp": (iou, {}, smp.losses.JaccardLoss("multilabel")),
    "iou monai": (iou, {}, _monai(monai.losses.DiceLoss, jaccard=True)),
    "tversky smp": (tversky, {}, _smp_tversky(alpha=0.3, beta=0.7)),
    "tversky monai": (
        tversky,
        {"alpha": 0.6, "beta": 0.2},
        _monai(monai.losses.TverskyLoss, alpha=0.6, beta=0.2),
    ),
    "tversky is dice": (tversky, {"alpha": 0.5, "beta": 0.5}, smp.losses.DiceLoss("multilabel")),
    "focal_tversky": (
        focal_tversky,
        {"alpha": 0.4, "beta": 0.6, "gamma": 4 / 3},
        _smp_tversky(alpha=0.4, beta=0.6, gamma=0.75),
    ),
    "dice_topk": (
        dice_topk,
        {"share": 0.3},
        lambda x, t: smp.losses.DiceLoss("multilabel")(x, t) + _hardest(0.3)(x, t),
    ),
    "lovasz": (lovasz, {}, _smp_lovasz),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_matches_an_independent_reference(
    name: str, logits: torch.Tensor, area: torch.Tensor
) -> None:
    ours, options, theirs = REFERENCES[name]
    x, t = logits[PRESENT], area[PRESENT]
    found, expected = ours(x, LossTarget(t), **options), theirs(x, t)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "name", ["bce", "weighted_bce", "topk", "dice smp", "iou smp", "tversky smp", "focal_tversky"]
)
def test_matches_where_the_truth_is_soft(
    name: str, logits: torch.Tensor, soft: torch.Tensor
) -> None:
    ours, options, theirs = REFERENCES[name]
    x, t = logits[PRESENT], soft[PRESENT]
    assert float(ours(x, LossTarget(t), **options)) == pytest.approx(float(theirs(x, t)), rel=1e-5)


@pytest.mark.parametrize(("ours", "jaccard"), [(dice, False), (iou, True)], ids=["dice", "iou"])
def test_soft_ratios_match_monai(
    ours: Any, jaccard: bool, logits: torch.Tensor, soft: torch.Tensor
) -> None:
    theirs = _monai(monai.losses.DiceLoss, jaccard=jaccard, soft_label=True)
    expected = theirs(logits[PRESENT], soft[PRESENT])
    found = ours(logits[PRESENT], LossTarget(soft[PRESENT]))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("ours", "half"), [(boundary_bce, "bce"), (boundary_iou, "iou")])
def test_boundary_losses_are_those_of_f3net(ours: Any, half: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 2, 40, 56, generator=generator)
    t = torch.zeros_like(x)
    t[:, 0, 10:30, 5:25] = 1
    t[:, 0, 15:20, 10:14] = 0  # a hole
    t[:, 1, 30:, 40:] = 1  # at the border
    assert float(ours(x, LossTarget(t))) == pytest.approx(float(_f3net(half)(x, t)), rel=1e-5)


@pytest.mark.parametrize("name", ["focal", "dice", "iou", "tversky", "focal_tversky", "bce"])
def test_soft_truth_is_where_the_loss_is_least(name: str, soft: torch.Tensor) -> None:
    t = soft.double().clamp(0.05, 0.95)
    x = torch.logit(t)
    best = LOSSES[name](x, LossTarget(t))
    for moved in (x + 0.3, x - 0.3, x * 3):
        assert LOSSES[name](moved, LossTarget(t)) > best


@pytest.mark.parametrize("name", ["dice", "iou", "tversky", "focal_tversky", "lovasz"])
def test_ratios_leave_out_absent_classes(
    name: str, logits: torch.Tensor, area: torch.Tensor
) -> None:
    found = LOSSES[name](logits, LossTarget(area))
    assert torch.allclose(found, LOSSES[name](logits[PRESENT], LossTarget(area[PRESENT])))


def test_dice_counts_a_pixel_as_much_as_a_plane() -> None:
    area = torch.zeros(1, 2, 8, 8)
    area[:, 0] = 1
    area[:, 1, 4, 4] = 1
    missed = torch.where(area > 0, 30.0, -30.0)
    missed[:, 1] = -30
    assert float(dice(missed, LossTarget(area))) == pytest.approx(0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_perfect_logits_cost_nothing(name: str, area: torch.Tensor) -> None:
    perfect = torch.where(area > 0, 40.0, -40.0)
    assert float(LOSSES[name](perfect, LossTarget(area))) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("truth", ["empty", "full", "one pixel", "soft", "mixed"])
@pytest.mark.parametrize("level", [-100.0, 0.0, 100.0])
def test_gradients_are_finite(
    name: str, truth: str, level: float, area: torch.Tensor, soft: torch.Tensor
) -> None:
    t = {"mixed": area, "soft": soft}.get(truth, torch.zeros(SHAPE))
    if truth == "full":
        t = t + 1
    elif truth == "one pixel":
        t[0, 0, 0, 0] = 1
    x = torch.full(SHAPE, level, requires_grad=True)
    loss = LOSSES[name](x, LossTarget(t))
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("name", "gamma"), [("focal", 0), ("focal", 0.3), ("focal_tversky", 2)])
@pytest.mark.parametrize(("level", "truth"), [(100.0, 1.0), (0.0, 0.5)])
def test_powers_have_a_gradient_where_nothing_is_wrong(
    name: str, gamma: float, level: float, truth: float
) -> None:
    x = torch.full((1, 1, 4, 4), level, requires_grad=True)
    LOSSES[name](x, LossTarget(torch.full_like(x, truth).detach()), gamma=gamma).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_down_the_gradient_helps(
    name: str, logits: torch.Tensor, area: torch.Tensor
) -> None:
    x = logits.clone().requires_grad_()
    before = LOSSES[name](x, LossTarget(area))
    before.backward()
    assert x.grad is not None
    assert LOSSES[name](x - 0.1 * x.grad / x.grad.norm(), LossTarget(area)) < before


# Not those by the boundary: what surrounds a pixel changes with its copies.
@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("boundary")])
def test_whole_weights_of_pixels_are_copies_of_them(name: str) -> None:
    """A pixel that counts three times is three pixels."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 3, 1, 20, generator=generator) * 2
    t = (torch.rand(1, 3, 1, 20, generator=generator) > 0.6).float()
    counts = torch.randint(1, 5, (20,), generator=generator)
    # The hardest share of the one and of the other differ, unless it is all.
    options = {"share": 1.0} if "topk" in name else {}
    weighted = LossTarget(t, pixel_weights=counts.float().reshape(1, 1, 1, 20))
    copied = LossTarget(t.repeat_interleave(counts, 3))
    expected = LOSSES[name](x.repeat_interleave(counts, 3), copied, **options)
    assert torch.allclose(LOSSES[name](x, weighted, **options), expected)


# Of classes of which a pixel has one: weights and smoothing are torch's, see test_activation.py.
OF_EACH_CLASS = [name for name in LOSSES if name not in EXCLUSIVE]


@pytest.mark.parametrize("name", OF_EACH_CLASS)
def test_class_weights_are_shares(name: str, logits: torch.Tensor, area: torch.Tensor) -> None:
    x, t = logits[PRESENT], area[PRESENT]
    alone = torch.stack([LOSSES[name](x[:, [c]], LossTarget(t[:, [c]])) for c in range(3)])
    weights = torch.tensor([1.0, 0.0, 3.0])
    found = LOSSES[name](x, LossTarget(t, class_weights=weights))
    assert torch.allclose(found, (alone[0] + 3 * alone[2]) / 4)
    assert torch.allclose(found, LOSSES[name](x, LossTarget(t, class_weights=10 * weights)))


@pytest.mark.parametrize("name", OF_EACH_CLASS)
def test_smoothing_reaches_the_losses_of_single_pixels(
    name: str, logits: torch.Tensor, area: torch.Tensor
) -> None:
    smooth = LOSSES[name](logits, LossTarget(area, smoothing=0.2))
    if name in ("bce", "weighted_bce", "topk", "focal"):
        expected = LOSSES[name](logits, LossTarget(area * 0.8 + 0.1))
        assert torch.equal(smooth, expected)
    elif name in ("boundary_bce", "dice_topk"):
        assert not torch.equal(smooth, LOSSES[name](logits, LossTarget(area)))
    else:
        assert torch.equal(smooth, LOSSES[name](logits, LossTarget(area)))


def test_checked_losses_are_plain_values() -> None:
    given = {"dice": 1, "focal": {"weight": 0.5, "gamma": 1, "alpha": 0.25}}
    checked = check_losses(given)
    assert checked == given
    assert check_losses(checked) == checked
    assert split_weight(checked["focal"]) == (0.5, {"gamma": 1.0, "alpha": 0.25})
    assert split_weight(checked["dice"]) == (1.0, {})


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"bse": 1.0}, "unknown loss 'bse'; known are bce, ce, weighted_bce"),
        ({"bce": -1.0}, r"bce\.weight: expected a value greater than or equal to 0, found -1"),
        ({"bce": float("nan")}, r"bce\.weight: expected a finite number"),
        ({"bce": "much"}, r"bce\.weight: expected a number"),
        ({"bce": None}, r"bce\.weight: expected a number"),
        ({"bce": 0.0}, "a weight above 0"),
        ({}, "a weight above 0"),
        ({"bce": {"weight": 1, "gamma": 2}}, r"bce\.gamma: unknown option; bce takes weight$"),
        (
            {"focal": {"weight": 1, "gama": 2}},
            r"focal\.gama: unknown option; focal takes weight, gamma, alpha",
        ),
        ({"focal": {"gamma": 2}}, r"focal\.weight: expected a value, found none"),
        ({"focal": {"weight": 1, "alpha": 2}}, r"focal\.alpha: .* less than or equal to 1"),
        ({"topk": {"weight": 1, "share": 0}}, r"topk\.share: expected a value greater than 0"),
        ({"boundary_bce": {"weight": 1, "window": 4}}, r"window: .* an odd number from 3 on"),
    ],
)
def test_bad_losses(losses: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_losses(losses)


def test_list_of_losses_tells_options_and_purpose() -> None:
    rows = {name: (options, purpose) for name, options, purpose in list_losses()}
    assert list(rows) == list(LOSSES)
    assert rows["focal"][0] == "gamma=2.0, alpha=None"
    assert rows["dice"] == ("", "1 - soft Dice, mean over the classes that occur.")
