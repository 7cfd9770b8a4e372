"""From thickness to grey values: attenuation, scatter, blur, noise, and the display's window.

The attenuation coefficients are those of the NIST tables (Hubbell and Seltzer, 1995) for soft
tissue and cortical bone near 33 keV, the mean energy of the 45 to 55 kV used for hands.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zoo.phantom.bone import Image

SOFT_PER_MM = 0.034
BONE_PER_MM = 0.150
"""Attenuation of compact bone above that of the flesh it displaces."""


@dataclass(frozen=True)
class Exposure:
    """How one image was taken and is shown.

    Attributes:
        photons: photons per pixel of a 2048 x 2048 image that reach the detector in air.
        scatter: scattered share of what reaches the detector.
        scatter_mm: standard deviation of the scatter's spread.
        blur_px: standard deviation of focus and detector blur at 2048 x 2048.
        heel: fall of the beam from one side to the other, share.
        heel_rad: direction of that fall.
        flatten: share of the slow changes that the processing takes away.
        low: log attenuation shown as black.
        high: log attenuation shown as white.
        gamma: bend of the grey scale.
    """

    photons: float
    scatter: float
    scatter_mm: float
    blur_px: float
    heel: float
    heel_rad: float
    flatten: float
    low: float
    high: float
    gamma: float


def draw_exposure(rng: np.random.Generator) -> Exposure:
    """Draw the settings of one image: from soft to hard, from clean to grainy."""
    return Exposure(
        photons=float(np.exp(rng.uniform(np.log(900), np.log(5000)))),
        scatter=float(rng.uniform(0.08, 0.20)),
        scatter_mm=float(rng.uniform(14, 22)),
        blur_px=float(rng.uniform(0.9, 1.6)),
        heel=float(rng.uniform(0.0, 0.16)),
        heel_rad=float(rng.uniform(0, 2 * np.pi)),
        flatten=float(rng.uniform(0.15, 0.45)),
        low=float(rng.uniform(-0.06, 0.04)),
        high=float(rng.uniform(1.85, 2.45)),
        gamma=float(rng.uniform(0.62, 0.88)),
    )


def expose(
    attenuation: Image, exposure: Exposure, px_mm: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Take and show a radiograph of a log attenuation map.

    Args:
        attenuation: (size, size), float32, natural logarithm, 0 in air.
        exposure: the settings.
        px_mm: width of a pixel in mm.
        rng: source of the quantum noise.

    Returns:
        Grey image (size, size), uint8, dense matter bright.
    """
    size = len(attenuation)
    relative = size / 2048
    beam = _heel(size, exposure)
    signal = np.exp(-attenuation) * beam
    scattered = _wide_blur(signal, exposure.scatter_mm / px_mm)
    signal = (1 - exposure.scatter) * signal + np.float32(exposure.scatter) * scattered
    photons = np.float32(exposure.photons / relative**2)
    signal = signal + _quantum_noise(signal, photons, rng)
    blurred = cv2.GaussianBlur(signal, (0, 0), max(exposure.blur_px * relative, 0.35))
    shown = np.asarray(-np.log(np.maximum(blurred, np.float32(1e-3))), np.float32)
    return _window(shown, exposure, px_mm)


def _heel(size: int, exposure: Exposure) -> Image:
    across = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    cos, sin = np.cos(exposure.heel_rad), np.sin(exposure.heel_rad)
    ramp = across[None, :] * np.float32(cos) + across[:, None] * np.float32(sin)
    return np.asarray(1 + np.float32(exposure.heel) * ramp, np.float32)


def _wide_blur(image: Image, sigma_px: float) -> Image:
    """Gaussian blur by way of a small copy of the image."""
    size = len(image)
    small_size = min(128, size)
    small = cv2.resize(image, (small_size, small_size), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(
        small, (0, 0), sigma_px * small_size / size, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR))


def _quantum_noise(signal: Image, photons: np.float32, rng: np.random.Generator) -> Image:
    """Poisson noise by its normal limit, close for the hundred photons and more of a pixel."""
    white = rng.standard_normal(signal.shape, dtype=np.float32)
    return np.asarray(white * np.sqrt(signal / photons), np.float32)


def _window(shown: Image, exposure: Exposure, px_mm: float) -> NDArray[np.uint8]:
    """Flatten slow changes, then map [low, high] to grey with soft shoulders."""
    slow = _wide_blur(np.maximum(shown, 0), 12 / px_mm)
    flat = shown - np.float32(exposure.flatten) * (slow * np.minimum(shown / 0.3, 1).clip(0))
    unit = (flat - exposure.low) / (exposure.high * (1 - 0.5 * exposure.flatten) - exposure.low)
    unit = np.maximum(unit, 0) ** np.float32(exposure.gamma)
    bent = np.where(unit < 0.75, unit, 0.75 + 0.25 * np.tanh((unit - 0.75) / 0.25))
    return np.asarray(np.rint(255 * np.clip(bent, 0, 1)), np.uint8)
