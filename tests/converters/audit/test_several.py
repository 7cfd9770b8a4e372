"""What an audit finds where a class has several objects in an image."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from shapely.geometry import box

from converters.audit.search import audit
from converters.types import Instance, LabelSpace, Sample

CELLS = LabelSpace("cells", ("cell",))


@pytest.fixture
def samples(tmp_path):
    """Twelve images of nine cells each, all a little different."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(12):
        path = tmp_path / f"a{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (120, 120), np.uint8))
        places = [(x, y) for x in (5, 45, 85) for y in (5, 45, 85)]
        cells = tuple(
            Instance("cell", box(x, y, x + rng.integers(9, 25), y + rng.integers(9, 25)))
            for x, y in places
        )
        found.append(Sample(f"train/a{number}", path, (120, 120), cells, group=f"p{number}"))
    return found


def kinds(samples):
    return [(f.kind, f.key) for f in audit(samples, (), CELLS)]


def changed(samples, number, *more, keep=True):
    one = samples[number]
    instances = (*(one.instances if keep else ()), *(Instance("cell", shape) for shape in more))
    return [
        Sample(s.key, s.image, s.size_hw, instances, group=s.group) if s is one else s
        for s in samples
    ]


def test_cells_of_all_sizes_are_as_they_should_be(samples):
    assert kinds(samples) == []


def test_the_same_object_twice(samples):
    twice = samples[3].instances[4].geometry
    assert kinds(changed(samples, 3, twice)) == [("double", "train/a3")]
    beside = box(*np.add(twice.bounds, (0, 0, 12, 12)))
    assert kinds(changed(samples, 3, beside)) == []


def test_specks_and_what_covers_the_image(samples):
    assert kinds(changed(samples, 3, box(30, 30, 31, 31))) == [("tiny", "train/a3")]
    assert kinds(changed(samples, 3, box(0, 0, 119, 119))) == [("outlier", "train/a3")]


def of_so_many(samples, number):
    """The first cells of each image, so many of all."""
    each = -(-number // len(samples))
    kept = [replace(s, instances=s.instances[:each]) for s in samples]
    return [*kept[: number // each], *(replace(s, instances=()) for s in kept[number // each :])]


@pytest.mark.parametrize(("number", "is_found"), [(12, True), (24, True), (9, False)])
def test_specks_among_few_objects(number, is_found, samples):
    few = changed(of_so_many(samples, number), 3, box(30, 30, 31, 31), keep=number > 12)
    found = [kind for kind in kinds(few) if kind[0] == "tiny"]
    assert found == ([("tiny", "train/a3")] if is_found else [])


def test_few_objects_of_sizes_that_vary_are_no_mistake(samples):
    sizes = (1, 2, 3, 5, 8, 14, 24, 40, 70, 110)
    cells = [(Instance("cell", box(2, 2, 2 + side, 2 + side)),) for side in sizes]
    few = [replace(s, instances=c) for s, c in zip(samples, cells, strict=False)]
    assert kinds(few) == []


def test_classes_that_are_called_alike(samples):
    first = samples[2].instances
    renamed = replace(samples[2], instances=(Instance("Cell", first[0].geometry), *first[1:]))
    samples = [renamed if s is samples[2] else s for s in samples]
    labels = LabelSpace("cells", ("cell", "Cell"))
    (found,) = audit(samples, (), labels)
    assert (found.kind, found.key, found.labels) == ("alike", "train/a2", ("Cell", "cell"))
    assert "join them by --labels FILE.yaml with 'aliases: {Cell: cell}'" in found.what


def test_an_image_without_any(samples):
    assert kinds(changed(samples, 3, keep=False)) == [("missing", "train/a3")]


def test_sizes_that_vary_are_no_mistake(samples):
    """People near and far: a few hundred times larger ones are usual."""
    for number in range(0, 12, 2):
        samples = changed(samples, number, box(2, 2, 118, 118), box(30, 30, 31, 31))
    assert kinds(samples) == []
