"""Corrections of a whole class: in all images that have it, or in those that are listed."""

from pathlib import Path

import pytest
import yaml
from shapely.geometry import MultiPolygon, box

from converters import DataError
from converters.edits.edits import Edits
from converters.types import Instance, LabelSpace, Sample

LABELS = LabelSpace("two", ("bone", "sesamoid", "other"))
A, B = box(2, 3, 12, 13), box(20, 4, 28, 30)
KEYS = ("a_1", "a_2", "b_3", "test/c_4")
WITH = {"a_1": A, "a_2": MultiPolygon([A, B]), "test/c_4": B}


@pytest.fixture
def samples():
    return [
        Sample(
            key,
            Path(f"{key}.png"),
            (40, 60),
            (
                Instance("bone", box(30, 30, 50, 38)),
                *([Instance("sesamoid", WITH[key])] if key in WITH else []),
            ),
            group=key[:-2],
        )
        for key in KEYS
    ]


def edits_of(tmp_path, **sections):
    path = tmp_path / "edits.yaml"
    path.write_text(yaml.safe_dump({"version": 1, **sections}), encoding="utf-8")
    return Edits.load(path)


def classes(samples):
    return {s.key: {i.label: i.geometry.area for i in s.instances} for s in samples}


@pytest.mark.parametrize(
    ("entry", "gone"),
    [
        ({"label": "sesamoid"}, {"a_1", "a_2", "test/c_4"}),
        ({"label": "sesamoid", "keys": ["a_2"]}, {"a_2"}),
        ({"label": "sesamoid", "subset": "train"}, {"a_1", "a_2"}),
        ({"label": "sesamoid", "subset": "test"}, {"test/c_4"}),
    ],
)
@pytest.mark.parametrize("section", ["drop_class", "relabel_class"])
def test_a_class_is_dropped_or_renamed(tmp_path, samples, section, entry, gone):
    to = {"to": "other"} if section == "relabel_class" else {}
    edits = edits_of(tmp_path, **{section: [{**entry, **to, "why": "another style"}]})
    before = classes(samples)
    for key, found in classes(edits.apply(samples, subset="all", labels=LABELS)).items():
        expected = dict(before[key])
        if key in gone:
            area = expected.pop("sesamoid")
            expected |= {"other": area} if to else {}
        assert found == expected


def test_a_class_of_images_that_are_left_out_is_no_contradiction(tmp_path, samples):
    edits = edits_of(
        tmp_path,
        drop_class=[{"label": "sesamoid"}],
        exclude_images=[{"key": "a_1"}],
        exclude_groups=[{"group": "test/c", "subset": "test"}],
    )
    found = classes(edits.apply(samples, subset="all", labels=LABELS))
    assert found == {"a_2": {"bone": 160.0}, "b_3": {"bone": 160.0}}


def test_parts_of_the_data_set_are_read_alone(tmp_path, samples):
    edits = edits_of(tmp_path, drop_class=[{"label": "sesamoid", "keys": ["a_1", "test/c_4"]}])
    for subset, chosen in (("train", samples[:3]), ("test", samples[3:])):
        found = classes(edits.apply(chosen, subset=subset, labels=LABELS))
        assert "sesamoid" not in found[chosen[0].key]
    bare = [Sample("test/c_4", Path("c.png"), (40, 60))]
    everywhere = edits_of(tmp_path, drop_class=[{"label": "sesamoid"}])
    assert everywhere.apply(bare, subset="test", labels=LABELS) == bare


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"drop_class": [{"label": "sesamoid"}, {"label": "sesamoid"}]},
            r"drop_class\[1\]: drop_class\[0\] is about the same",
        ),
        (
            {"drop_class": [{"label": "sesamoid", "keys": ["a_1", "a_1"]}]},
            "expected different images' keys",
        ),
        (
            {
                "drop_class": [{"label": "sesamoid", "keys": ["a_1"]}],
                "exclude_images": [{"key": "a_1"}],
            },
            r"drop_class\[0\]: 'a_1' is excluded by exclude_images\[0\]",
        ),
        ({"relabel_class": [{"label": "bone"}]}, "expected 'to', found none"),
        ({"drop_class": [{"label": "bone", "part": 1}]}, "found 'part'"),
    ],
)
def test_files_that_cannot_be_meant(tmp_path, sections, message):
    with pytest.raises(DataError, match=message):
        edits_of(tmp_path, **sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"drop_class": [{"label": "sesamoids"}]},
            r"drop_class\[0\]: expected 'sesamoids' in an image, found none.*mean 'sesamoid'",
        ),
        (
            {"drop_class": [{"label": "sesamoid", "keys": ["b_3"]}]},
            r"drop_class\[0\]: b_3: expected 'sesamoid' there, found bone",
        ),
        (
            {"drop_class": [{"label": "sesamoid", "keys": ["a_1", "gone"]}]},
            r"drop_class\[0\]: expected an image's key, found 'gone'",
        ),
        (
            {
                "drop_class": [{"label": "sesamoid"}],
                "relabel": [{"key": "a_2", "label": "sesamoid", "part": 1, "to": "other"}],
            },
            r"drop_class\[0\] is about the same|relabel\[0\] is about the same",
        ),
        (
            {
                "drop_class": [{"label": "sesamoid"}],
                "relabel_class": [{"label": "sesamoid", "to": "other", "keys": ["a_1"]}],
            },
            "is about the same: keep one of them",
        ),
        # Once, though several images have it.
        (
            {"relabel_class": [{"label": "bone", "to": "bonny"}]},
            "expected a label of 'two', found 'bonny'",
        ),
    ],
)
def test_entries_that_do_not_fit_the_images(tmp_path, samples, sections, message):
    with pytest.raises(DataError, match=message):
        edits_of(tmp_path, **sections).apply(samples, subset="all", labels=LABELS)
