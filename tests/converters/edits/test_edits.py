from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from shapely.geometry import MultiPolygon, Polygon, box

import converters
from converters import DataError
from converters.edits.edits import Edits
from converters.masks import rasterize, rasterize_labels
from converters.types import Instance, LabelSpace, Sample

KEY = "train/DCM/ID001/a_R"
A, B, C = box(2, 3, 12, 13), box(20, 4, 28, 30), box(5, 20, 14, 33)
SIZE = (40, 60)


@pytest.fixture
def hand():
    """Two parts of finger-1, one finger-3, an Ulna with a hole."""
    hole = Polygon(box(40, 5, 55, 30).exterior, [box(45, 10, 50, 20).exterior])
    instances = (
        Instance("finger-1", MultiPolygon([A, B])),
        Instance("finger-3", C),
        Instance("Ulna", hole),
    )
    return Sample(KEY, Path("a_R.png"), SIZE, instances, "ID001", {"age": 31.0})


def edits_of(tmp_path, **sections) -> Edits:
    path = tmp_path / "edits.yaml"
    path.write_text(yaml.safe_dump({"version": 1, **sections}), encoding="utf-8")
    return Edits.load(path)


def pixels(*geometries):
    plane = np.zeros(SIZE, np.uint8)
    for geometry in geometries:
        plane |= rasterize(geometry, SIZE).full(SIZE)
    return plane


# --- each kind of entry, to the pixel

CORRECTIONS = {
    "swap": (
        {"swap_labels": [{"key": KEY, "labels": ["finger-1", "finger-3"]}]},
        {"finger-1": [C], "finger-3": [A, B]},
    ),
    "relabel all": (
        {"relabel": [{"key": KEY, "label": "finger-1", "to": "Pisiform"}]},
        {"finger-3": [C], "Pisiform": [A, B]},
    ),
    "relabel a part": (
        {"relabel": [{"key": KEY, "label": "finger-1", "part": 1, "to": "finger-2"}]},
        {"finger-1": [A], "finger-2": [B], "finger-3": [C]},
    ),
    "relabel to a label that is there": (
        {"relabel": [{"key": KEY, "label": "finger-1", "part": 0, "to": "finger-3"}]},
        {"finger-1": [B], "finger-3": [C, A]},
    ),
    "relabel each part": (
        {
            "relabel": [
                {"key": KEY, "label": "finger-1", "part": 0, "to": "finger-2"},
                {"key": KEY, "label": "finger-1", "part": 1, "to": "finger-4"},
            ]
        },
        {"finger-2": [A], "finger-3": [C], "finger-4": [B]},
    ),
    "relabel in a ring": (
        {
            "relabel": [
                {"key": KEY, "label": "finger-1", "to": "finger-3"},
                {"key": KEY, "label": "finger-3", "to": "finger-1"},
            ]
        },
        {"finger-1": [C], "finger-3": [A, B]},
    ),
    "drop all": ({"drop": [{"key": KEY, "label": "finger-1"}]}, {"finger-3": [C]}),
    "drop a part": (
        {"drop": [{"key": KEY, "label": "finger-1", "part": 0}]},
        {"finger-1": [B], "finger-3": [C]},
    ),
    "replace": (
        {
            "replace": [
                {"key": KEY, "label": "finger-1", "polygons": [[[1, 1], [9, 1], [5, 8.5]]]},
            ]
        },
        {"finger-1": [Polygon([(1, 1), (9, 1), (5, 8.5)])], "finger-3": [C]},
    ),
    "add a missing bone of two parts": (
        {
            "replace": [
                {
                    "key": KEY,
                    "label": "Radius",
                    "polygons": [[[1, 1], [9, 1], [5, 8]], [[30, 30], [39, 30], [35, 38]]],
                }
            ]
        },
        {
            "finger-1": [A, B],
            "finger-3": [C],
            "Radius": [Polygon([(1, 1), (9, 1), (5, 8)]), Polygon([(30, 30), (39, 30), (35, 38)])],
        },
    ),
    "drop what is wrong and relabel what is right": (
        {
            "drop": [{"key": KEY, "label": "finger-3"}],
            "relabel": [{"key": KEY, "label": "finger-1", "to": "finger-3"}],
        },
        {"finger-3": [A, B]},
    ),
}


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_corrections_to_the_pixel(kind, hand, labels, tmp_path):
    sections, expected = CORRECTIONS[kind]
    (again,) = edits_of(tmp_path, **sections).apply([hand], subset="train", labels=labels)
    found = rasterize_labels(again.instances, SIZE)
    wanted = {**expected, "Ulna": [hand.instances[-1].geometry]}
    assert set(found) == set(wanted)
    for label, geometries in wanted.items():
        np.testing.assert_array_equal(found[label].full(SIZE), pixels(*geometries), label)
    names = [instance.label for instance in again.instances]
    assert names == sorted(wanted, key=labels.index.__getitem__)
    assert (again.key, again.group, again.attributes) == (KEY, "ID001", {"age": 31.0})


def test_objects_of_a_label_stay_apart_where_it_may_come_twice(hand, tmp_path):
    space = LabelSpace("some", ("finger-1", "finger-3", "Ulna"))
    entry = {"key": KEY, "label": "finger-3", "to": "finger-1"}
    (again,) = edits_of(tmp_path, relabel=[entry]).apply([hand], subset="train", labels=space)
    assert [len(i.parts) for i in again.instances if i.label == "finger-1"] == [2, 1]


def test_parts_are_counted_over_all_objects_of_a_label(hand, tmp_path):
    space = LabelSpace("some", ("finger-1",))
    twice = replace(hand, instances=(hand.instances[0], Instance("finger-1", C)))
    entry = {"key": KEY, "label": "finger-1", "part": 2}
    (again,) = edits_of(tmp_path, drop=[entry]).apply([twice], subset="train", labels=space)
    assert again.instances == (hand.instances[0],)


def test_regroup_changes_nothing_else(hand, labels, tmp_path):
    edits = edits_of(tmp_path, regroup=[{"key": KEY, "group": "ID003", "why": "the same rings"}])
    (again,) = edits.apply([hand], subset="train", labels=labels)
    assert again == replace(hand, group="ID003")


def test_exclude_images_and_groups(hand, labels, tmp_path):
    others = [replace(hand, key=f"train/DCM/{g}/b", group=g) for g in ("ID001", "ID005", "ID006")]
    edits = edits_of(
        tmp_path, exclude_images=[{"key": KEY, "why": "noise"}], exclude_groups=[{"group": "ID005"}]
    )
    left = edits.apply([hand, *others], subset="train", labels=labels)
    assert [sample.key for sample in left] == ["train/DCM/ID001/b", "train/DCM/ID006/b"]
    assert edits.excluded == {KEY, "ID005"}


def test_a_key_is_no_group(hand, labels, tmp_path):
    other = replace(hand, key="ID001", group="x")
    edits = edits_of(tmp_path, exclude_images=[{"key": "ID001"}])
    assert edits.apply([hand, other], subset="train", labels=labels) == [hand]


def test_samples_without_entries_are_the_same_objects(hand, labels, tmp_path):
    other = replace(hand, key="train/DCM/ID002/a")
    edits = edits_of(tmp_path, drop=[{"key": KEY, "label": "Ulna"}])
    assert edits.apply([hand, other], subset="train", labels=labels)[1] is other


# --- through a data set


def contents(root):
    return {p: hashlib.sha256(p.read_bytes()).digest() for p in root.rglob("*") if p.is_file()}


def test_the_source_is_never_touched(tree, labels, tmp_path):
    triangle = [(5, 5), (20, 6), (12, 25)]
    for place in ("ID001/a", "ID001/b", "ID002/c"):
        tree.hand(place, ("Ulna", triangle), ("Ulna", [(30, 5), (40, 5), (30, 20)]))
    before = contents(tree.root)
    key = "train/DCM/ID001/"
    edits = edits_of(
        tmp_path,
        drop=[{"key": key + "a", "label": "Ulna", "part": 1}],
        relabel=[{"key": key + "b", "label": "Ulna", "to": "Radius"}],
        exclude_groups=[{"group": "ID002"}],
    )
    samples = converters.read(tree.root, labels=labels, edits=edits)
    assert [[i.label for i in s.instances] for s in samples] == [["Ulna"], ["Radius"]]
    assert samples[0].instances[0].geometry.equals(Polygon(triangle))
    assert contents(tree.root) == before


def test_problems_of_excluded_images_do_not_matter(tree, labels, tmp_path):
    for place in ("ID001/a", "ID001/b", "ID002/c"):
        tree.hand(place, ("Ulna", [(5, 5), (20, 6), (12, 25)]))
    tree.annotate("ID001/b", ("Ulna", [(1, 1)]))
    (tree.root / "train/DCM/ID002/c.png").write_bytes(b"broken")
    edits = edits_of(
        tmp_path,
        exclude_images=[{"key": "train/DCM/ID001/b"}],
        exclude_groups=[{"group": "ID002"}],
    )
    samples, problems = converters.scan(tree.root, labels=labels)
    assert {problem.key for problem in problems} == {"train/DCM/ID001/b", "train/DCM/ID002/c"}
    for left in (
        edits.apply(samples, subset="train", labels=labels, problems=problems),
        converters.read(tree.root, labels=labels, edits=edits),
    ):
        assert [sample.key for sample in left] == ["train/DCM/ID001/a"]


# --- entries that fit nothing

NO_SUCH_KEY = "expected an image's key, found 'train/DCM/ID001/b', not in the train images"
MISFITS = {
    "no such key": (
        {"drop": [{"key": "train/DCM/ID001/b", "label": "Ulna"}]},
        [f"drop[0]: {NO_SUCH_KEY}"],
    ),
    "no such key to exclude": (
        {"exclude_images": [{"key": "train/DCM/ID001/b"}]},
        [f"exclude_images[0]: {NO_SUCH_KEY}"],
    ),
    "no such group": (
        {"exclude_groups": [{"group": "ID01"}]},
        ["exclude_groups[0]: expected a group, found 'ID01', not in the train images"],
    ),
    "label not there": (
        {"drop": [{"key": KEY, "label": "Radius"}], "swap_labels": []},
        ["drop[0]: train/DCM/ID001/a_R: expected 'Radius' there, found Ulna, finger-1, finger-3"],
    ),
    "one of two labels": (
        {"swap_labels": [{"key": KEY, "labels": ["Ulna", "Radius"]}]},
        ["swap_labels[0]: train/DCM/ID001/a_R: expected 'Radius' there"],
    ),
    "no such label": (
        {"relabel": [{"key": KEY, "label": "Ulna", "to": "finger-20"}]},
        ["relabel[0]: train/DCM/ID001/a_R: expected a label of 'hand_bones', found 'finger-20'"],
    ),
    "no such part": (
        {"drop": [{"key": KEY, "label": "finger-1", "part": 2}]},
        ["drop[0]: train/DCM/ID001/a_R: expected parts 0 to 1 of 'finger-1', found 2"],
    ),
    "polygon beyond the image": (
        {
            "replace": [
                {"key": KEY, "label": "Ulna", "polygons": [[[60, 5], [90, 5], [70, 30]]]},
            ]
        },
        ["replace[0]: train/DCM/ID001/a_R: expected polygons in 40 x 60 pixels"],
    ),
    "polygon in parts of the sides": (
        {
            "replace": [
                {"key": KEY, "label": "Ulna", "polygons": [[[0.1, 0.5], [0.9, 0.5], [0.7, 0.8]]]},
            ]
        },
        ["replace[0]: train/DCM/ID001/a_R: expected points in pixels of an image of 40 x 60"],
    ),
    "all at once": (
        {
            "regroup": [{"key": "a_R", "group": "ID002"}],
            "drop": [{"key": KEY, "label": "Radius"}, {"key": KEY, "label": "finger-3", "part": 1}],
        },
        ["regroup[0]: expected an image's key", "drop[0]: ", "drop[1]: "],
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_entry_that_fits_nothing_is_an_error(kind, hand, labels, tmp_path):
    sections, expected = MISFITS[kind]
    with pytest.raises(DataError) as error:
        edits_of(tmp_path, **sections).apply([hand], subset="train", labels=labels)
    assert len(error.value.problems) == len(expected)
    for found, wanted in zip(sorted(error.value.problems), sorted(expected), strict=True):
        assert found.startswith(wanted)
    assert str(error.value).startswith(str(tmp_path / "edits.yaml"))


@pytest.mark.parametrize(
    ("entry", "subset", "is_missed"),
    [
        ({"key": "test/DCM/ID040/x"}, "train", False),
        ({"key": "test/DCM/ID040/x"}, "test", True),
        ({"key": "test/DCM/ID040/x"}, "all", True),
        ({"key": "images/test/x"}, "train", False),
        ({"key": "train/DCM/ID001/test"}, "train", True),
        ({"key": "train/DCM/ID009/x"}, "test", False),
        ({"key": "train/DCM/ID009/x"}, "all", True),
        ({"key": "scan_9"}, "train", True),
        ({"key": "scan_9", "subset": "test"}, "train", False),
        ({"key": "scan_9", "subset": "test"}, "test", True),
        ({"group": "ID040"}, "train", True),
        ({"group": "ID040", "subset": "test"}, "train", False),
        ({"group": "ID040", "subset": "test"}, "all", True),
    ],
)
def test_entries_of_another_subset_are_not_looked_for(
    entry, subset, is_missed, hand, labels, tmp_path
):
    section = "exclude_images" if "key" in entry else "exclude_groups"
    edits = edits_of(tmp_path, **{section: [entry]})
    if is_missed:
        with pytest.raises(DataError, match="not in the"):
            edits.apply([hand], subset=subset, labels=labels)
    else:
        assert edits.apply([hand], subset=subset, labels=labels) == [hand]


def test_a_correction_in_an_excluded_group_is_an_error(hand, labels, tmp_path):
    edits = edits_of(
        tmp_path,
        exclude_groups=[{"group": "ID001"}],
        regroup=[{"key": KEY, "group": "ID002"}],
    )
    with pytest.raises(DataError, match=r"regroup\[0\]: its image's group 'ID001' is excluded"):
        edits.apply([hand], subset="train", labels=labels)


# --- entries that contradict each other

DROP = {"key": KEY, "label": "finger-1"}
SWAP = {"key": KEY, "labels": ["finger-1", "finger-3"]}
SAME = "is about the same"
CONTRADICTIONS = {
    "twice": ({"drop": [DROP, DROP]}, f"drop[1]: drop[0] {SAME}"),
    "a label and its part": (
        {"drop": [DROP], "relabel": [{**DROP, "part": 1, "to": "Ulna"}]},
        f"relabel[0]: drop[0] {SAME}",
    ),
    "a part and its label": (
        {"drop": [{**DROP, "part": 1}], "swap_labels": [SWAP]},
        f"swap_labels[0]: drop[0] {SAME}",
    ),
    "swapped with two": (
        {"swap_labels": [SWAP, {"key": KEY, "labels": ["finger-3", "Ulna"]}]},
        f"swap_labels[1]: swap_labels[0] {SAME}",
    ),
    "replaced and dropped": (
        {"drop": [DROP], "replace": [{**DROP, "polygons": [[[1, 1], [5, 1], [3, 9]]]}]},
        f"replace[0]: drop[0] {SAME}",
    ),
    "relabelled to what is replaced": (
        {
            "relabel": [{"key": KEY, "label": "Ulna", "to": "finger-1"}],
            "replace": [{**DROP, "polygons": [[[1, 1], [5, 1], [3, 9]]]}],
        },
        "relabel[0]: replace[0] says what 'finger-1' is",
    ),
    "two groups": (
        {"regroup": [{"key": KEY, "group": "ID002"}, {"key": KEY, "group": "ID003"}]},
        f"regroup[1]: regroup[0] {SAME}",
    ),
    "excluded and corrected": (
        {"exclude_images": [{"key": KEY}], "drop": [DROP]},
        "drop[0]: its image is excluded by exclude_images[0]",
    ),
    "moved to an excluded group": (
        {"exclude_groups": [{"group": "ID009"}], "regroup": [{"key": KEY, "group": "ID009"}]},
        "regroup[0]: its group is excluded by exclude_groups[0]",
    ),
    "excluded twice": (
        {"exclude_groups": [{"group": "ID009"}, {"group": "ID009"}]},
        f"exclude_groups[1]: exclude_groups[0] {SAME}",
    ),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradictions_are_errors(kind, tmp_path):
    sections, expected = CONTRADICTIONS[kind]
    with pytest.raises(DataError) as error:
        edits_of(tmp_path, **sections)
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(expected)


def test_two_parts_of_a_label_are_no_contradiction(hand, labels, tmp_path):
    edits = edits_of(tmp_path, drop=[{**DROP, "part": 0}, {**DROP, "part": 1}])
    (again,) = edits.apply([hand], subset="train", labels=labels)
    assert [instance.label for instance in again.instances] == ["finger-3", "Ulna"]


# --- files

BAD = {
    "no version": ("drop: []", "version: expected 1, found None"),
    "other version": ("version: 2", "version: expected 1, found 2"),
    "true": ("version: true", "version: expected 1, found True"),
    "unknown section": ("version: 1\ndelete: []", "'delete': expected a section of exclude_images"),
    "no list": ("version: 1\ndrop: {key: a}", "drop: expected a list of entries, found {'key'"),
    "no mapping": ("version: 1\ndrop: [a]", "drop[0]: expected {key, label}, found 'a'"),
    "missing": ("version: 1\ndrop: [{key: a}]", "drop[0]: expected 'label', found none"),
    "unknown field": (
        "version: 1\ndrop: [{key: a, label: b, parts: 1}]",
        "drop[0]: expected key, label, part, why, subset; found 'parts'",
    ),
    "number as a group": (
        "version: 1\nexclude_groups: [{group: 5}]",
        "exclude_groups[0]: 'group': expected text (in quotes if need be), found 5",
    ),
    "empty key": ("version: 1\nexclude_images: [{key: ''}]", "exclude_images[0]: 'key': expected"),
    "negative part": (
        "version: 1\ndrop: [{key: a, label: b, part: -1}]",
        "drop[0]: 'part': expected a whole number from 0, found -1",
    ),
    "true as a part": (
        "version: 1\ndrop: [{key: a, label: b, part: true}]",
        "drop[0]: 'part': expected a whole number from 0, found True",
    ),
    "one label": (
        "version: 1\nswap_labels: [{key: a, labels: [b, b]}]",
        "swap_labels[0]: 'labels': expected two different labels, found ['b', 'b']",
    ),
    "itself": (
        "version: 1\nrelabel: [{key: a, label: b, to: b}]",
        "relabel[0]: 'to': expected another label than 'b'",
    ),
    "flat polygon": (
        "version: 1\nreplace: [{key: a, label: b, polygons: [[1, 2, 3, 4, 5, 6]]}]",
        "replace[0]: 'polygons': polygon 0: expected at least 3 points [x, y]",
    ),
    "two points": (
        "version: 1\nreplace: [{key: a, label: b, polygons: [[[1, 2], [3, 4]]]}]",
        "replace[0]: 'polygons': polygon 0: expected at least 3 points",
    ),
    "NaN": (
        "version: 1\nreplace: [{key: a, label: b, polygons: [[[1, 2], [3, 4], [5, .nan]]]}]",
        "replace[0]: 'polygons': polygon 0: expected at least 3 points [x, y] of finite numbers",
    ),
    "no polygon": (
        "version: 1\nreplace: [{key: a, label: b, polygons: []}]",
        "replace[0]: 'polygons': expected a list of polygons, found []",
    ),
    "other subset": (
        "version: 1\nexclude_groups: [{group: a, subset: val}]",
        "exclude_groups[0]: 'subset': expected train or test, found 'val'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_entries_are_named(kind, tmp_path):
    text, expected = BAD[kind]
    (tmp_path / "edits.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        Edits.load(tmp_path / "edits.yaml")
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'version: 1' and sections.*found None"),
        (b"- a", r"'version: 1' and sections.*found \['a'\]"),
        (b"version: 1\ndrop: [", "expected YAML, found: while parsing"),
        (b"version: 1\ndrop: []\ndrop: []", "'drop' comes twice"),
        (b"version: 1\ndrop: [{key: a, key: b, label: c}]", "'key' comes twice"),
        (b"version: 1 # \xff", "expected YAML, found: byte 0xff at 13: save it as UTF-8"),
        (b"version: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"version: !!timestamp x", "expected YAML, found"),
        (b"version: !!map [x]", "expected YAML, found"),
        (b"[" * 5000, "expected YAML, found"),
    ],
)
@pytest.mark.slow
def test_files_that_are_not_edits(content, message, tmp_path):
    (tmp_path / "edits.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Edits.load(tmp_path / "edits.yaml")
    assert len(str(error.value).splitlines()) == 1


def test_no_such_file(tmp_path):
    with pytest.raises(ValueError, match=r"edits\.yaml: expected a file of edits .*: No such file"):
        Edits.load(tmp_path / "edits.yaml")


def test_empty_sections_are_fine(hand, labels, tmp_path):
    edits = edits_of(tmp_path, drop=None, regroup=[])
    assert edits.apply([hand], subset="all", labels=labels) == [hand]
    assert edits.excluded == frozenset()


def test_digest_is_of_what_is_corrected(tmp_path):
    first = edits_of(tmp_path, drop=[{"key": "a", "label": "b", "why": "ring"}])
    (tmp_path / "other.yaml").write_text(
        "# the same\nversion: 1\ndrop:\n- {label: b, key: a}\n", encoding="utf-8"
    )
    same = Edits.load(tmp_path / "other.yaml")
    other = edits_of(tmp_path, drop=[{"key": "a", "label": "c"}])
    assert first.digest == same.digest != other.digest
    assert len(first.digest) == 64
