"""Metal on or in a structure: a ring, a screw, an implant; in the image, not in the outline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from converters.audit.findings import Finding
from converters.audit.look import Look

# So many robust deviations, and grey values, above what the structure has on other images. The
# brightest sound structures of phantoms reach 3 and 24, rings start at 10 and 60.
_FAR, _FAR_GREY = 6.0, 30.0
_SURE = 10.0
_MAD = 1.4826
_LEAST_GREY = 3.0


def find_metal(looks: Sequence[Look], labels: Sequence[str]) -> Iterator[Finding]:
    """Yield structures with parts far brighter than the other structures of the image let expect.

    Args:
        looks: enough to know what is usual.
        labels: structures that most of them have.
    """
    missing = float("nan")
    grey = np.array(
        [
            [
                one.structures[label].bright if label in one.structures else missing
                for label in labels
            ]
            for one in looks
        ]
    )
    known = np.isfinite(grey).any(axis=1)
    seen, grey = [one for one, is_known in zip(looks, known, strict=True) if is_known], grey[known]
    if not len(grey):
        return
    above = grey - np.nanmedian(grey, axis=0)
    # An exposure makes all structures brighter.
    above -= np.nanmedian(above, axis=1, keepdims=True)
    usual = np.maximum(_MAD * np.nanmedian(np.abs(above), axis=0), _LEAST_GREY)
    far = np.nan_to_num(above / usual)
    for n, k in np.argwhere((far >= _FAR) & (above >= _FAR_GREY)).tolist():
        one, label = seen[n], labels[k]
        yield Finding(
            "outlier",
            one.key,
            f"{label}: expected the structure's own brightness, found parts {above[n, k]:.0f} grey "
            "values above it, as of a ring or an implant",
            min(1.0, float(far[n, k]) / _SURE),
            (label,),
            one.structures[label].box_xywh,
        )
