"""Types of arrays: shape and meaning stand where they are used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
