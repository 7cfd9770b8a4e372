"""How sure a prediction is of an object, and leaving out what it is not sure of."""

from __future__ import annotations

from dataclasses import replace

from fusion.types import Prediction

_INSIDE = 128


def certainty(prediction: Prediction, label: str) -> float:
    """Return the mean probability inside a class's mask, in 0..1; 0 where the mask is empty.

    Inside is what a submission would call the object: a probability of at least one half. The mask
    of a hard vote has certainty 1.
    """
    best = prediction.best(label)
    if best is None:
        return 0.0
    window = best[1].window(prediction.size_hw)
    prob = best[1].render(window)
    inside = prob[prob >= _INSIDE]
    return float(inside.mean()) / 255 if inside.size else 0.0


def drop_uncertain(prediction: Prediction, floor: float) -> tuple[Prediction, tuple[str, ...]]:
    """Return the prediction without the objects below a certainty, and their classes.

    An object whose mask is empty is none: it is neither kept nor counted.
    """
    known = {label: certainty(prediction, label) for label in prediction.masks}
    kept = {n: e for n, e in prediction.masks.items() if known[n] >= floor and known[n] > 0}
    dropped = tuple(label for label, value in known.items() if 0 < value < floor)
    return replace(prediction, masks=kept), dropped
