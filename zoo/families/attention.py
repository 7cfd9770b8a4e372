"""Attention blocks that any decoder can be given: CBAM, squeeze-excitation, self and non-local."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class SqueezeExcitation(nn.Module):
    """A weight a channel, from its mean over the image (Hu et al. 2018, arXiv:1709.01507, eq. 3).

    The paper's reduction of 16; both layers have a bias, as in the authors' code.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), weighted."""
        return features * self.gate(features.mean((2, 3), keepdim=True)).sigmoid()

    def gate(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits of the weights (N, C, 1, 1) of what is pooled over the image."""
        gate: torch.Tensor = self.excite(F.relu(self.squeeze(pooled)))
        return gate


class Cbam(SqueezeExcitation):
    """Weights of channels, then of places (Woo et al. 2018, arXiv:1807.06521, eq. 2 and 3).

    As in the paper, the 7x7 convolution has neither a bias nor a norm; the authors' code has a
    batch norm there.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(channels, reduction)
        self.place = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), weighted."""
        mean, largest = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        features = features * (self.gate(mean) + self.gate(largest)).sigmoid()
        ways = features.mean(1, keepdim=True), features.amax(1, keepdim=True)
        weighted: torch.Tensor = features * self.place(torch.cat(ways, 1)).sigmoid()
        return weighted


class SelfAttention(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019, arXiv:1805.08318, eq. 1 to 3).

    All pixels look at all pixels. Keys, queries and values have an eighth of the channels; what
    comes of it is added with a weight that starts at 0. Its spectral norms, which steady a GAN, are
    left out.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.queries, self.keys, self.values = (
            nn.Conv2d(channels, hidden, 1, bias=False) for _ in range(3)
        )
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), and what their pixels found in others."""
        seen = attend(self.queries(features), self.keys(features), self.values(features))
        found: torch.Tensor = features + self.weight * self.project(seen)
        return found


class NonLocal(nn.Module):
    """A non-local block, embedded Gaussian (Wang et al. 2018, arXiv:1711.07971, eq. 3 and 6).

    With half of the channels (section 3.3), and a batch norm that starts at 0 at the end
    (section 4.1); without subsampled keys.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.queries, self.keys, self.values = (nn.Conv2d(channels, hidden, 1) for _ in range(3))
        self.project = nn.Conv2d(hidden, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return features (N, C, h, w), and what their pixels found in others."""
        seen = attend(self.queries(features), self.keys(features), self.values(features))
        found: torch.Tensor = features + self.norm(self.project(seen))
        return found


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the values (N, C, h, w) that each pixel's query finds by all keys, without a scale."""
    q, k, v = (plane.flatten(2).transpose(1, 2) for plane in (queries, keys, values))
    found = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return found.transpose(1, 2).unflatten(2, queries.shape[-2:])


ATTENTION: dict[str, Callable[[int], nn.Module]] = {
    "cbam": Cbam,
    "se": SqueezeExcitation,
    "self": SelfAttention,
    "nonlocal": NonLocal,
}
"""Kind -> its block, of channels."""
# Their work grows by the square of the pixels.
_OF_PAIRS = {"self", "nonlocal"}
# The place of an encoder's features at this stride.
_STRIDE_16 = 4


class FeatureAttention(nn.Module):
    """An attention block for each of an encoder's features.

    `cbam` and `se` are applied to all features below the image's size. `self` and `nonlocal`, which
    compare all pixels with each other, are applied at strides of 16 and more alone, or to the
    deepest features where there are none.
    """

    def __init__(self, kind: str, channels: Sequence[int]) -> None:
        """Build it.

        Args:
            kind: of `ATTENTION`.
            channels: of an encoder's features, finest first, of which the first is the image; 0
                where it has none, or they are not read.
        """
        super().__init__()
        chosen = [i for i in range(1, len(channels)) if channels[i]]
        if kind in _OF_PAIRS:
            chosen = [i for i in chosen if i >= _STRIDE_16] or chosen[-1:]
        self.blocks = nn.ModuleDict({str(i): ATTENTION[kind](channels[i]) for i in chosen})

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features, each (N, C, h, w), those with a block attended to."""
        places = enumerate(features)
        return [self.blocks[str(i)](f) if str(i) in self.blocks else f for i, f in places]

    def follow(self, _encoder: nn.Module, _given: Any, features: Any) -> list[torch.Tensor]:
        """Return what an encoder's features become; a forward hook of the encoder."""
        attended: list[torch.Tensor] = self(features)
        return attended


def attend_after(network: Any, kind: str, channels: Sequence[int]) -> None:
    """Let a network see its encoder's features through attention blocks, which become its part.

    Args:
        network: whose `encoder` gives a list of features, finest first.
        kind: of `ATTENTION`.
        channels: of the features, see `FeatureAttention`.
    """
    network.attention = FeatureAttention(kind, channels)
    # A bound method: a copy of the network, such as an average of weights, binds its own.
    network.encoder.register_forward_hook(network.attention.follow)
