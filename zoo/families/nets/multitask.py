"""What ResUNet-a learns beside masks: outlines and distances, made of the masks, and colours.

After Diakogiannis et al. 2020, arXiv:1904.00592, section 2.1.4, and their code
(github.com/feevos/resuneta). All of it is computed where the masks are, without waiting for the
processor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

# The longest distance that is told apart, in pixels.
REACH = 32


class MultitaskObjective(nn.Module):
    """The loss of the masks, and the Tanimoto losses of outlines, distances and colours."""

    def __init__(
        self, masks: nn.Module, reach: int = REACH, weight: float = 1.0, colors: bool = False
    ) -> None:
        """Build it.

        Args:
            masks: loss of the masks.
            reach: the longest distance that is told apart, in pixels of the input, up to 127.
            weight: of the other losses, each.
            colors: whether colours are learned; it then has to be shown the images.
        """
        super().__init__()
        self.masks, self.reach, self.weight, self.needs_images = masks, reach, weight, colors

    def forward(
        self,
        outputs: Mapping[str, torch.Tensor],
        area: torch.Tensor,
        images: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: logits of `masks`, `outlines` and `distances`, (N, C, h, w), and where colours
                are learned of `colors`, (N, channels, h, w).
            area: the truth, float (N, C, h, w); a class lies where it covers half of a pixel.
            images: what the network was shown, augmented and not normalised, 0..255,
                (N, channels, h, w); where colours are learned.
        """
        masks: torch.Tensor = self.masks(outputs["masks"], area)
        with torch.no_grad():
            inside = area >= 0.5
            targets = {
                "outlines": find_outlines(inside).float(),
                "distances": measure_distances(inside, self.reach),
            }
            if images is not None:
                targets["colors"] = measure_colors(images)
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


def measure_colors(images: torch.Tensor) -> torch.Tensor:
    """Return hue, saturation and value of colour images, float (N, 3, h, w) in 0..1.

    Of grey ones the value alone, (N, 1, h, w), which is their brightness: hue and saturation are 0
    all over, and there would be nothing to learn from them. A pixel without saturation has hue 0.

    The authors' are OpenCV's bytes, hue divided by 179 and the others by 255. Ours are not rounded,
    and hue is a share of the circle. Both jump at red.

    Args:
        images: 0..255, (N, 1, h, w), or (N, 3, h, w) in red, green and blue.
    """
    shares = images.float() / 255
    if images.shape[1] == 1:
        return shares
    red, green, blue = shares.unbind(1)
    value, strongest = shares.max(1)
    chroma = value - shares.amin(1)
    # A division by 0 would be of 0: without chroma there is no hue, in the dark no saturation.
    width = chroma.clamp(min=1e-6)
    sixths = torch.stack((green - blue, blue - red, red - green), 1) / width[:, None]
    sixths = sixths.gather(1, strongest[:, None])[:, 0] + 2 * strongest
    hue = (sixths / 6).remainder(1) * (chroma > 0)
    return torch.stack((hue, chroma / value.clamp(min=1e-6), value), 1)


def tanimoto(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the Tanimoto loss with complement (equations 3 and 4), a scalar in [0, 1].

    One less the mean of T(p, l) and T(1 - p, 1 - l), where T is sum(p l) / sum(p^2 + l^2 - p l)
    over pixels; then the mean over channels and images. The paper weighs channels by the inverse
    square of their sums.

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
