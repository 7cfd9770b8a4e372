"""Data sets that are learned from beside the folds."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import converters
from zoo.data.reading import read_image
from zoo.datasets.further import digest_of, read_further
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.source import DataSource

FORMATS = [name for name in converters.written_formats() if name != "rle_table"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, seed in (("first", 0), ("second", 1)):
        write_phantom(root / name, PhantomConfig(people=1, test_people=0, size=256, seed=seed))
    return DataSource.open(root / "first"), DataSource.open(root / "second")


def test_samples_are_those_of_the_other_set_under_keys_of_their_own(sets):
    first, second = sets
    known, others = first.read(first.classes), second.read(first.classes)
    found = read_further([second, second], first.classes, known)
    assert [s.key for s in found] == [f"also-{n}/{s.key}" for n in (1, 2) for s in others]
    assert [s.instances for s in found] == [s.instances for s in others] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_pseudo_labels_of_test_images_alone_are_learned_from(form, sets, tmp_path):
    first, second = sets
    samples = [replace(s, key=f"test/{s.key}") for s in second.read(first.classes)]
    converters.write(samples, tmp_path / "set", format=form, labels=first.classes)
    source = DataSource.open(tmp_path / "set", form)
    found = read_further([source], first.classes, first.read(first.classes))
    assert [len(s.instances) > 20 for s in found] == [True, True]


def test_a_set_of_nothing_is_told(sets, tmp_path):
    first, _ = sets
    converters.write([], tmp_path / "set", format="coco", labels=first.classes)
    with pytest.raises(ValueError, match="set: expected images of the subset 'all', found none"):
        read_further([DataSource.open(tmp_path / "set")], first.classes, ())


def test_an_image_of_the_data_set_is_refused(sets, tmp_path):
    first, second = sets
    known = first.read(first.classes)
    copy = tmp_path / "copy"
    converters.write(known[:1], copy, format="coco", labels=first.classes)
    with pytest.raises(ValueError, match=r"--also .*copy.*held out is not learned from"):
        read_further([second, DataSource.open(copy)], first.classes, known)


def test_another_image_of_the_same_name_is_taken(sets, tmp_path):
    first, second = sets
    known = first.read(first.classes)
    other = second.read(first.classes)[0]
    image = tmp_path / known[0].image.name
    shutil.copyfile(other.image, image)
    copy = tmp_path / "copy"
    sample = replace(other, image=image, key=known[0].key)
    converters.write([sample], copy, format="coco", labels=first.classes)
    found = read_further([DataSource.open(copy)], first.classes, known)
    assert len(found) == 1
    assert np.array_equal(read_image(found[0], 1), read_image(other, 1))


def test_the_digest_tells_outlines(sets):
    first, _ = sets
    samples = first.read(first.classes)
    assert digest_of([]) is None
    assert digest_of(samples) == digest_of(first.read(first.classes))
    fewer = replace(samples[0], instances=samples[0].instances[1:])
    assert digest_of([fewer, *samples[1:]]) != digest_of(samples)
