"""How sure a class's gain is, when classes like it tell something about it, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.arrays import Floats
from fusion.metrics.intervals import Estimate

BOTH_SIDES, ONE_SIDE = 1.959964, 1.644854  # quantiles of the normal distribution, for 95 %


def pool_gains(gains: Sequence[Estimate]) -> list[Estimate]:
    """Draw the gains of related classes toward their common mean.

    A class's gain is measured on few people. Where the classes of a group differ by no more than
    that explains, each tells as much about the others as about itself. This is the normal
    hierarchical model in its empirical Bayes form (Morris, JASA 1983, section 1), with the variance
    between classes by the method of moments (DerSimonian and Laird, Controlled Clinical Trials
    1986, equation 9) and, in the variance of the result, that of the common mean.

    No class is drawn farther than the standard error of its own gain: a class unlike its relatives,
    such as one that few images have and that fusion finds where it is not, would else gain on paper
    by what others gain (limited translation: Efron and Morris, JASA 1972, section 4). Its interval
    is its own then.

    Args:
        gains: of the classes of one group, with intervals at 95 % or None.

    Returns:
        The same, pooled, in intervals whose lower end is a lower confidence bound at 95 %; those
        without an interval, and a single one, as they are; so are those that every patient has
        alike, such as 0 of a class that is nowhere, which says nothing of others.
    """
    known = [i for i, gain in enumerate(gains) if gain.interval and np.ptp(gain.interval) > 0]
    pooled = list(gains)
    if len(known) < 2:
        return pooled
    means = np.array([gains[i].mean for i in known])
    widths = np.array([np.ptp(gains[i].interval or (0.0, 0.0)) for i in known])
    variances = np.maximum(widths / (2 * BOTH_SIDES), 1e-6) ** 2
    between = _variance_between(means, variances)
    weights = 1 / (variances + between)
    common = float(weights @ means / weights.sum())
    share = between / (variances + between)  # of the class's own evidence
    drawn = share * means + (1 - share) * common
    own = np.sqrt(variances)
    found = np.clip(drawn, means - own, means + own)
    spread = np.sqrt(share * variances + (1 - share) ** 2 / weights.sum())
    spread = np.where(found == drawn, spread, own)
    for i, mean, sd in zip(known, found.tolist(), spread.tolist(), strict=True):
        pooled[i] = Estimate(mean, (mean - ONE_SIDE * sd, mean + ONE_SIDE * sd))
    return pooled


def _variance_between(means: Floats, variances: Floats) -> float:
    weights = 1 / variances
    common = weights @ means / weights.sum()
    q = weights @ (means - common) ** 2
    scale = weights.sum() - (weights**2).sum() / weights.sum()
    return max(0.0, float((q - (len(means) - 1)) / scale))
