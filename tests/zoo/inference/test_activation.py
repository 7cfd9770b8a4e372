from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from converters.types import LabelSpace
from fusion.binary import binary_masks
from zoo.data.reading import NetworkInput
from zoo.inference.activation import (
    activate,
    log_none,
    one_against_rest,
)
from zoo.inference.predict import predict_semantic
from zoo.inference.setting import Activation, Setting, activation_of
from zoo.training.losses import LossTarget, check_losses
from zoo.training.losses.objective import Objective

pytestmark = pytest.mark.slow

FREE = LabelSpace("four", ("a", "b", "c", "d"))
OPEN = replace(FREE, exclusive="large_first")
CLOSED = replace(OPEN, background="a")
SOFTMAXES: list[Activation] = ["softmax", "softmax_or_none"]


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(0)) * 5


@pytest.fixture
def truth() -> torch.Tensor:
    """Numbers of classes, 0 to 4; 4 is none."""
    return torch.randint(0, 5, (2, 9, 7), generator=torch.Generator().manual_seed(1))


def _with_none(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)


def test_the_label_space_decides() -> None:
    found = [activation_of(space) for space in (FREE, OPEN, CLOSED)]
    assert found == ["sigmoid", "softmax_or_none", "softmax"]


def test_probabilities_are_torchs_softmax(logits: torch.Tensor) -> None:
    torch.testing.assert_close(activate(logits, "softmax"), logits.softmax(1))
    expected = _with_none(logits).softmax(1)
    torch.testing.assert_close(activate(logits, "softmax_or_none"), expected[:, :4])
    none = log_none(logits, "softmax_or_none")
    assert none is not None
    torch.testing.assert_close(none.exp(), expected[:, 4:])
    assert log_none(logits, "softmax") is None


@pytest.mark.parametrize("activation", SOFTMAXES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_odds_of_one_against_the_rest(
    activation: Activation, scale: float, logits: torch.Tensor
) -> None:
    exact = logits.double() * scale
    p = (exact if activation == "softmax" else _with_none(exact)).log_softmax(1)[:, :4]
    # In float64, of what is left: the log of 1 - p.
    expected = p - torch.log(-torch.expm1(p))
    found = one_against_rest(logits * scale, activation)
    known = expected.isfinite() & (expected.abs() < 30)
    torch.testing.assert_close(found.double()[known], expected[known], rtol=1e-4, atol=1e-4)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sigmoid(), activate(logits * scale, activation))


@pytest.mark.parametrize("activation", SOFTMAXES)
def test_nobody_is_too_sure_to_learn(activation: Activation) -> None:
    """Surely wrong logits have a gradient; that of cross entropy is p - t."""
    logits = torch.tensor([80.0, -20.0, 0.0, 5.0])[None, :, None, None].requires_grad_()
    truth = torch.tensor([0.0, 1.0, 0.0, 0.0])[None, :, None, None]
    objective = Objective(check_losses({"ce": 1.0}), activation=activation)
    objective(logits, truth).backward()
    assert logits.grad is not None
    assert logits.grad.ravel().tolist() == pytest.approx([1, -1, 0, 0], abs=1e-6)


@pytest.mark.parametrize("activation", SOFTMAXES)
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(
    activation: Activation,
    weights: Any,
    smoothing: float,
    logits: torch.Tensor,
    truth: torch.Tensor,
) -> None:
    is_open = activation == "softmax_or_none"
    truth = truth if is_open else truth.clamp_max(3)
    one_hot = F.one_hot(truth, 5).movedim(-1, 1)[:, :4].float()
    logits = logits.requires_grad_()
    objective = Objective(check_losses({"ce": 1.0}), weights, smoothing, activation=activation)
    found = objective(logits, one_hot)
    (gradient,) = torch.autograd.grad(found, logits)
    every = _with_none(logits) if is_open else logits
    given = None if weights is None else torch.tensor([*weights, *([1.0] if is_open else [])])
    theirs = F.cross_entropy(every, truth, given, label_smoothing=smoothing)
    torch.testing.assert_close(found, theirs)
    torch.testing.assert_close(gradient, torch.autograd.grad(theirs, logits)[0])


@pytest.mark.parametrize("activation", SOFTMAXES)
def test_dice_is_of_the_softmax(
    activation: Activation, logits: torch.Tensor, truth: torch.Tensor
) -> None:
    import monai.losses

    one_hot = F.one_hot(truth.clamp_max(3), 4).movedim(-1, 1).float()
    found = Objective(check_losses({"dice": 1.0}), activation=activation)(logits, one_hot)
    probs = activate(logits, activation)
    theirs = monai.losses.DiceLoss(batch=True, smooth_nr=0, smooth_dr=1e-7)(probs, one_hot)
    torch.testing.assert_close(found, theirs)


def test_a_target_without_none_is_as_before(logits: torch.Tensor) -> None:
    assert LossTarget(logits.sigmoid()).log_none is None


@pytest.mark.parametrize("labels", [OPEN, CLOSED])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_predictions_are_the_networks_argmax(labels: LabelSpace, average: Any) -> None:
    torch.manual_seed(3)
    network = nn.Conv2d(1, 4, 5, padding=2)
    nn.init.normal_(network.weight, std=2)
    image = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)
    setting = Setting(
        torch.device("cpu"),
        tta=("hflip",),
        average=average,
        activation=activation_of(labels),
    )
    (found,) = predict_semantic(
        network.eval(), [NetworkInput("x", (24, 20), image)], labels, setting
    )
    with torch.no_grad():
        shown = (torch.from_numpy(image)[None, None].float() / 255 - 0.449) / 0.226
        both = [network(shown), network(shown.flip(-1)).flip(-1)]
        every = torch.stack(both if labels.background else [_with_none(z) for z in both])
        mean = every.mean(0).softmax(1) if average == "logits" else every.softmax(2).mean(0)
    best = mean[0].argmax(0).numpy()
    masks = binary_masks(found, labels)
    mine = np.full((24, 20), 4)
    for number, name in enumerate(labels.names):
        mine[masks[name].full((24, 20)) > 0] = number
    # Bytes are coarser than floats where two classes are alike, as where both forms are sure.
    top = mean[0].topk(2, 0).values
    sure = (top[0] - top[1] > 0.02).numpy()
    assert sure.mean() > 0.5
    assert np.array_equal(mine[sure], best[sure])
