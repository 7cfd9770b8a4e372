"""Points, and rectangles and ellipses as polygons, also such as are turned."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import numpy.typing as npt

from converters.files.json_files import are_numbers

Points = npt.NDArray[np.float64]

# Of an ellipse. At a radius of 1000 pixels their chords are at most a thirteenth of a pixel inside.
_CORNERS = 256


def turn(points: Points, about: tuple[float, float], angle_deg: float) -> Points:
    """Turn points clockwise, as one looks at the image.

    Args:
        points: float64 (N, 2), x right and y down.
        about: the point that stays where it is.
        angle_deg: in degrees.

    >>> turn(np.array([[3.0, 0.0]]), (1.0, 0.0), 90).round(6).tolist()
    [[1.0, 2.0]]
    """
    sine, cosine = math.sin(math.radians(angle_deg)), math.cos(math.radians(angle_deg))
    turned: Points = (points - about) @ np.array([[cosine, sine], [-sine, cosine]]) + about
    return turned


def read_points(written: object) -> Points | None:
    """Return points as JSON has them, float64 (N, 2); None for anything but pairs of numbers.

    >>> read_points([[1, 2.5], [3, 4]]).tolist(), read_points([[1, "2"]]), read_points([[1, True]])
    ([[1.0, 2.5], [3.0, 4.0]], None, None)
    """
    if not isinstance(written, list) or not all(isinstance(pair, list) for pair in written):
        return None
    if {*map(len, written)} != {2} or not are_numbers(chain.from_iterable(written)):
        return None
    try:
        return np.array(written, np.float64)
    except OverflowError:
        return None


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Return the four corners of an upright rectangle, float64 (4, 2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def ellipse(centre: tuple[float, float], radius_x: float, radius_y: float) -> Points:
    """Return points on an upright ellipse, float64 (N, 2)."""
    angles = np.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    ring = np.stack([radius_x * np.cos(angles), radius_y * np.sin(angles)], axis=1)
    points: Points = ring + centre
    return points
