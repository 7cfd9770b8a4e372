"""What makes probabilities of logits: a sigmoid a class, or a softmax where a pixel has one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from zoo.inference.setting import Activation


def activate(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return probabilities, float (N, C, h, w) in 0..1, of logits (N, C, h, w)."""
    if activation == "sigmoid":
        return logits.sigmoid()
    return _complete(logits, activation).softmax(1)[:, : logits.shape[1]]


def one_against_rest(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return logits whose sigmoids are the classes' probabilities, (N, C, h, w).

    Of a softmax's p they are log p / (1 - p): the logit minus the log of the others' summed
    exponentials. So losses that are made for a sigmoid a class serve for a softmax, too.
    """
    if activation == "sigmoid":
        return logits
    every = _complete(logits, activation)
    top = every.argmax(1, keepdim=True)
    highest = every.gather(1, top)
    scaled = (every - highest).exp()
    # T - e is exact enough for all but the largest e; its rest is summed anew.
    rest = (scaled.sum(1, keepdim=True) - scaled).clamp_min(torch.finfo(scaled.dtype).tiny).log()
    without = every.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True) - highest
    odds = every - highest - torch.where(_is(top, every), without, rest)
    return odds[:, : logits.shape[1]]


def log_none(logits: torch.Tensor, activation: Activation) -> torch.Tensor | None:
    """Return the log probability that a pixel has no class, (N, 1, h, w); None where it has one."""
    if activation != "softmax_or_none":
        return None
    return -_complete(logits, activation).logsumexp(1, keepdim=True)


def _complete(logits: torch.Tensor, activation: Activation) -> torch.Tensor:
    """The logits of all that a pixel may be."""
    return F.pad(logits, (0, 0, 0, 0, 0, 1)) if activation == "softmax_or_none" else logits


def _is(number: torch.Tensor, every: torch.Tensor) -> torch.Tensor:
    numbers = torch.arange(every.shape[1], device=every.device)[None, :, None, None]
    return numbers == number
