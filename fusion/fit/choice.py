"""Chooses among fits by what cannot be counted: their rules are judged on held-out patients.

Each fit's rules have been fitted without the patients whom they are judged on. Which fit it is, is
chosen in a further cross-validation by patient, so that what the chosen one reaches is told by
patients who had no say in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.types import LabelSpace
from fusion.arrays import Floats
from fusion.binary import binary_masks
from fusion.fit.base import Fit
from fusion.fit.counted import Seen, folds_of
from fusion.fit.objective import Objective, image_values
from fusion.metrics.measures import measure_image
from fusion.metrics.scores import ImageScore, Scores
from fusion.rules.hybrid import fuse_by_each
from fusion.types import Prediction, Rule

FOLDS = 5


def score_for(
    objective: Objective, prediction: Prediction, seen: Seen, labels: LabelSpace
) -> ImageScore:
    """Score a prediction by all that an objective needs."""
    masks = binary_masks(prediction, labels)
    measures = ("nsd",) if objective.nsd else ()
    return measure_image(prediction.key, masks, seen[1], labels, prediction.size_hw, measures)


@dataclass(frozen=True)
class Contest:
    """Scores the rules of several fits image by image; pure, so that it can run in any process.

    Attributes:
        held_out: of each fit patient -> the rule that has not seen the patient.
        objective: what is to be won.
        labels: the classes.
    """

    held_out: tuple[Mapping[str, Rule], ...]
    objective: Objective
    labels: LabelSpace

    def __call__(self, seen: Seen) -> tuple[ImageScore, ...]:
        """Return what each fit's rule reaches."""
        predictions, _, patient = seen
        rules = [rules[patient] for rules in self.held_out]
        fused = fuse_by_each(rules, predictions, self.labels)
        return tuple(score_for(self.objective, p, seen, self.labels) for p in fused)


def choose_fit(
    fits: Mapping[str, Fit[Rule]],
    scored: Sequence[Sequence[ImageScore]],
    patients: Sequence[str],
    objective: Objective,
    labels: LabelSpace,
    weights: Floats | None = None,
) -> Fit[Rule]:
    """Return the fit that wins most on held-out patients, the first of equals.

    Its rule for each patient is that of the fit that was chosen without the patient.

    Args:
        fits: by what they were fitted for, of the same images.
        scored: one an image and fit, from `Contest`.
        patients: whose the images are.
        objective: what is to be won.
        labels: the classes.
        weights: float64 (images,), above 0, how much each image counts; None for all alike.
    """
    weights = np.ones(len(patients)) if weights is None else weights
    found = list(fits.values())

    def reached(places: Sequence[int]) -> Floats:
        counts = weights[places]
        columns = [
            image_values(Scores(labels, [scored[i][k] for i in places]), objective, counts)
            for k in range(len(found))
        ]
        return np.array([np.average(column, weights=counts) for column in columns])

    overall = reached(range(len(patients)))
    best = int(overall.argmax())
    held_out: dict[str, Rule] = {}
    for train, test in folds_of(patients, FOLDS):
        chosen = found[int(reached(train).argmax())]
        held_out |= {patients[i]: chosen.held_out[patients[i]] for i in test}
    listed = ", ".join(f"{name} {v:.4f}" for name, v in zip(fits, overall.tolist(), strict=True))
    note = (
        f"{objective} is not fitted from counts: of {len(fits)} fits the one for "
        f"{list(fits)[best]} was chosen by it on held-out patients ({listed})"
    )
    return replace(found[best], held_out=held_out, note=note)
