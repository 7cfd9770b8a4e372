"""What ResUNet-a learns beside masks: outlines and distances, both made of the masks.

After Diakogiannis et al. 2020, arXiv:1904.00592, section 2.1.4, and their code. All of it is
computed where the masks are, without waiting for the processor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

# The longest distance that is told apart, in pixels.
REACH = 32


class MultitaskObjective(nn.Module):
    """The loss of the masks, and the Tanimoto losses of outlines and distances."""

    def __init__(self, masks: nn.Module, reach: int = REACH, weight: float = 1.0) -> None:
        """Build it.

        Args:
            masks: loss of the masks.
            reach: the longest distance that is told apart, in pixels of the input, up to 127.
            weight: of the other two losses, each.
        """
        super().__init__()
        self.masks, self.reach, self.weight = masks, reach, weight

    def forward(self, outputs: Mapping[str, torch.Tensor], area: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: logits of `masks`, `outlines` and `distances`, (N, C, h, w).
            area: the truth, float (N, C, h, w); a class lies where it covers half of a pixel.
        """
        masks: torch.Tensor = self.masks(outputs["masks"], area)
        with torch.no_grad():
            inside = area >= 0.5
            targets = {
                "outlines": find_outlines(inside).float(),
                "distances": measure_distances(inside, self.reach),
            }
        with torch.autocast(area.device.type, enabled=False):
            losses = [tanimoto(outputs[k].float().sigmoid(), v) for k, v in targets.items()]
        return masks + self.weight * torch.stack(losses).sum()


def find_outlines(inside: torch.Tensor) -> torch.Tensor:
    """Return the pixels on either side of an outline, bool (N, C, h, w).

    Those are in a mask's dilation by a cross of 3 pixels and not in its erosion. The image's border
    is no outline. The authors find edges by Canny's method and dilate them by such a cross.

    Args:
        inside: masks, bool (N, C, h, w).
    """
    plain = inside.half() if inside.is_cuda else inside.float()
    return (_dilate(plain) - (1 - _dilate(1 - plain))) > 0


def _dilate(plain: torch.Tensor) -> torch.Tensor:
    rows = F.max_pool2d(plain, (3, 1), 1, (1, 0))
    return torch.maximum(rows, F.max_pool2d(plain, (1, 3), 1, (0, 1)))


def measure_distances(inside: torch.Tensor, reach: int) -> torch.Tensor:
    """Return how far inside pixels are from the nearest one outside, as a share of the farthest.

    Euclidean distances up to `reach` pixels, float (N, C, h, w), divided by the highest one of each
    image and class; 0 outside. What is beyond the image's border does not count as outside.

    The squared distance is the least, over rows that are d away, of d^2 and the squared distance
    along that row (Felzenszwalb and Huttenlocher 2012, "Distance Transforms of Sampled Functions").

    Args:
        inside: masks, bool (N, C, h, w).
        reach: at most 127, so that its square and another one fit 16 bits.
    """
    along = _along_rows(inside, reach).square().to(torch.int16)
    squares = along.clone()
    for step in range(1, min(reach, inside.shape[-2] - 1) + 1):
        farther = along + step * step
        torch.minimum(squares[:, :, step:], farther[:, :, :-step], out=squares[:, :, step:])
        torch.minimum(squares[:, :, :-step], farther[:, :, step:], out=squares[:, :, :-step])
    distances = squares.float().sqrt().clamp(max=reach)
    return distances / distances.amax((2, 3), keepdim=True).clamp(min=1.0)


def _along_rows(inside: torch.Tensor, reach: int) -> torch.Tensor:
    """Return the distance to the nearest outside pixel of the same row, int32, up to `reach`."""
    width = inside.shape[-1]
    places = torch.arange(width, device=inside.device, dtype=torch.int32)
    far = reach + width
    before = torch.where(inside, -far, places).cummax(-1).values
    after = torch.where(inside, 2 * far, places).flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(places - before, after - places).clamp(max=reach)


def tanimoto(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the Tanimoto loss with complement (equations 3 and 4), a scalar in [0, 1].

    One less the mean of T(p, l) and T(1 - p, 1 - l), where T is sum(p l) / sum(p^2 + l^2 - p l)
    over pixels; then the mean over classes and images. The paper weighs classes by their area.

    Args:
        found: p in [0, 1], float (N, C, h, w).
        truth: l in [0, 1], likewise.
    """
    parts = [_ratio(found, truth), _ratio(1 - found, 1 - truth)]
    return 1 - torch.stack(parts).mean()


def _ratio(found: torch.Tensor, truth: torch.Tensor, smooth: float = 1e-5) -> torch.Tensor:
    both = (found * truth).sum((2, 3))
    every = (found.square() + truth.square()).sum((2, 3)) - both
    return (both + smooth) / (every + smooth)
