"""Edge-preserving smoothing, which albumentations does not have."""

from __future__ import annotations

from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import AfterValidator, Field

from converters.files.images import Pixels
from zoo.augmentation.vendor import A, check_rising

Positive = Annotated[float, Field(gt=0)]


class BilateralFilter(A.ImageOnlyTransform):  # type: ignore[misc]
    """Smooth an image but not across its edges (Tomasi and Manduchi 1998), by OpenCV.

    Noise and trabeculae go, cortical outlines stay: what a softer exposure looks like.

    Args:
        diameter: of the neighbourhood in pixels.
        sigma_color_range: grey values that count as alike, drawn evenly from this range.
        sigma_space_range: pixels that count as near, drawn evenly from this range.
        p: chance.
    """

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """What the config may say."""

        diameter: int = Field(ge=3, le=31)
        sigma_color_range: Annotated[tuple[Positive, Positive], AfterValidator(check_rising)]
        sigma_space_range: Annotated[tuple[Positive, Positive], AfterValidator(check_rising)]

    def __init__(
        self,
        diameter: int = 9,
        sigma_color_range: tuple[float, float] = (10.0, 60.0),
        sigma_space_range: tuple[float, float] = (2.0, 6.0),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.diameter = diameter
        self.sigma_color_range = sigma_color_range
        self.sigma_space_range = sigma_space_range

    def get_params(self) -> dict[str, Any]:
        """Draw the two sigmas."""
        return {
            "sigma_color": self.py_random.uniform(*self.sigma_color_range),
            "sigma_space": self.py_random.uniform(*self.sigma_space_range),
        }

    def apply(self, img: Pixels, sigma_color: float, sigma_space: float, **params: Any) -> Pixels:
        """Return the smoothed image, uint8 (h, w) or (h, w, 1 or 3)."""
        smooth = cv2.bilateralFilter(img, self.diameter, sigma_color, sigma_space)
        return np.asarray(smooth, np.uint8).reshape(img.shape)
