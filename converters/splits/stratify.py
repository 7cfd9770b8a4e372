"""Folds that resemble each other: what patients have in common, dealt out evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from converters.posture import is_bent
from converters.types import LabelSpace, Sample

Strata = npt.NDArray[np.bool_]

# Ties are broken by chance: the most even of so many deals is taken.
_DEALS = 64
_TERTILES = (1 / 3, 2 / 3)


def strata_of(members: Mapping[str, Sequence[Sample]], labels: LabelSpace | None = None) -> Strata:
    """Return to which strata each group belongs, bool (groups, strata).

    For every class: whether the group has it, and in which third of the groups its area is; then
    in which third the number of classes in an image is; then, where known, straight or bent. Areas
    are shares of the image, means over the group's images.

    Args:
        members: group -> its samples.
        labels: says how to tell the posture; None leaves it out.

    Raises:
        ValueError: nothing is annotated.
    """
    groups = list(members.values())
    names = sorted({i.label for samples in groups for s in samples for i in s.instances})
    if not names:
        raise ValueError(
            "split strategy 'stratified': expected annotated images, found none; take 'group'"
        )
    areas = np.array([_mean_areas(samples, names) for samples in groups])
    counts = [np.mean([len(set(s.labels)) for s in g]) for g in groups]
    columns = [~np.isnan(areas), _thirds(areas), _thirds(np.array(counts)[:, None])]
    if labels is not None and labels.posture is not None:
        columns.append(_postures(groups, labels))
    return np.concatenate(columns, axis=1)


def _mean_areas(samples: Sequence[Sample], names: Sequence[str]) -> list[float]:
    found = [areas_of(sample) for sample in samples]
    per_name = [[areas[name] for areas in found if name in areas] for name in names]
    return [float(np.mean(values)) if values else np.nan for values in per_name]


def areas_of(sample: Sample) -> dict[str, float]:
    """Return the area of each class that occurs, as a share of the image."""
    areas: dict[str, float] = {}
    for instance in sample.instances:
        areas[instance.label] = areas.get(instance.label, 0.0) + instance.geometry.area
    pixels = sample.size_hw[0] * sample.size_hw[1]
    return {label: area / pixels for label, area in areas.items()}


def _thirds(values: npt.NDArray[np.float64]) -> Strata:
    """Whether each value (groups, n) is low, middle or high in its column; none where it is NaN."""
    columns = []
    for column in values.T:
        known = ~np.isnan(column)
        third = np.digitize(column, np.quantile(column[known], _TERTILES))
        columns += [known & (third == number) for number in range(3)]
    return np.stack(columns, axis=1)


def _postures(groups: Sequence[Sequence[Sample]], labels: LabelSpace) -> Strata:
    found = [{is_bent(sample, labels) for sample in samples} for samples in groups]
    return np.array([[True in postures, False in postures] for postures in found])


def deal(strata: Strata, weights: Sequence[int], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Deal groups into folds so that every stratum is spread evenly.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label
    data", ECML PKDD 2011), by the library of that name; the most even of 64 deals.

    Args:
        strata: bool (groups, strata).
        weights: images of each group.
        folds: at most the number of groups.
        seed: of the deals.

    Returns:
        int64 (groups,): each group's fold; no fold is empty.

    Raises:
        ValueError: every deal left a fold empty.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    seeds = np.random.SeedSequence(seed).generate_state(_DEALS).tolist()
    best, least = None, np.inf
    for state in seeds:
        dealer = MultilabelStratifiedKFold(folds, shuffle=True, random_state=state)
        dealt = np.zeros(len(strata), np.int64)
        for number, (_, held_out) in enumerate(dealer.split(strata, strata.astype(np.int64))):
            dealt[held_out] = number
        unevenness = _unevenness(dealt, strata, np.asarray(weights), folds)
        if len(set(dealt.tolist())) == folds and unevenness < least:
            best, least = dealt, unevenness
    if best is None:
        raise ValueError(
            f"split strategy 'stratified': {len(strata)} groups are too few for {folds} folds that "
            "resemble each other; take fewer folds, or 'group'"
        )
    return best


def _unevenness(
    dealt: npt.NDArray[np.int64], strata: Strata, weights: npt.NDArray[np.int64], folds: int
) -> float:
    """Chi-square distance between the folds' images in each stratum and their even share."""
    images = strata * weights[:, None]
    expected = images.sum(axis=0) / folds
    found = np.stack([images[dealt == fold].sum(axis=0) for fold in range(folds)])
    used = expected > 0
    return float((((found - expected) ** 2)[:, used] / expected[used]).sum())
