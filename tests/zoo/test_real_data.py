"""Real data sets as the world has them; skipped where they are not there.

`ZOO_REAL_DATA` names the folder that holds them, by default `../shared/real`. They are no part of
the repository: their licences do not allow it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import converters
from converters.loss import measure
from converters.masks import rasterize_labels
from converters.splits.grouping import group_by
from converters.splits.split import make_split

HOME = Path(__file__).parents[2] / ".." / "shared" / "real"
REAL = Path(os.environ.get("ZOO_REAL_DATA", HOME)).resolve()
SETS = {"chest": (44, 267, 13), "nuclei": (48, 1215, 1)}
FORMATS = [n for n in converters.FORMATS if hasattr(converters.load_format(n), "write")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="ZOO_REAL_DATA names no folder of real data"),
]


@pytest.mark.parametrize("name", SETS)
def test_it_is_read_as_it_comes(name):
    images, objects, classes = SETS[name]
    samples = converters.read(REAL / name)
    assert len(samples) == images
    assert sum(len(sample.instances) for sample in samples) == objects
    assert len(converters.label_space(REAL / name)) == classes


def test_patients_are_in_a_table():
    samples = converters.read(REAL / "chest")
    known = group_by(samples, f"{REAL / 'chest' / 'patients.csv'}:patientid")
    assert len({sample.group for sample in known}) == 37
    split = make_split(known, folds=5)
    home = {key: fold for fold, keys in enumerate(split.folds) for key in keys}
    assert len({(sample.group, home[sample.key]) for sample in known}) == 37


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_it_back_or_says_what_it_lost(form, name, tmp_path):
    samples = converters.read(REAL / name)
    labels = converters.label_space(REAL / name)
    loss = converters.write(samples, tmp_path / "out", format=form, labels=labels)
    back = {sample.key: sample for sample in converters.read(tmp_path / "out")}
    assert converters.label_space(tmp_path / "out") == labels
    assert back.keys() == {sample.key for sample in samples}
    lost = 0
    for sample in samples:
        truth = rasterize_labels(sample.instances, sample.size_hw)
        found = rasterize_labels(back[sample.key].instances, sample.size_hw)
        is_same = set(truth) == set(found) and all(
            np.array_equal(found[n].full(sample.size_hw), m.full(sample.size_hw))
            for n, m in truth.items()
        )
        lost += not is_same
        assert is_same or measure(sample, found)
    assert bool(lost) <= bool(loss)
