"""Faults are where the list says, are what it says, and nothing else changes."""

import hashlib
import json
import shutil
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon

from converters.audit.findings import KINDS
from zoo.phantom.config import PhantomConfig
from zoo.phantom.faults import load_faults, plant_faults
from zoo.phantom.mistakes import MISTAKES
from zoo.phantom.spoils import CHANGES, COPIES, DAMAGES, copy_hand
from zoo.phantom.tree import write_phantom

pytestmark = pytest.mark.slow

SIZE = 256


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "sound"
    write_phantom(out, PhantomConfig(people=20, test_people=2, size=SIZE, seed=2, artefacts=0))
    return out


@pytest.fixture(scope="module")
def faulty(sound, tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "faulty"
    shutil.copytree(sound, out)
    return out, plant_faults(out, 0.75, seed=3)


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def files(key):
    subset, _, person, stem = key.split("/")
    return {f"{key}.png", f"{subset}/outputs_json/{person}/{stem}.json"}


def polygons(root, key):
    _, _, person, stem = key.split("/")
    path = root / "train/outputs_json" / person / f"{stem}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    return [(a["label"], np.array(a["points"], np.float64)) for a in document["annotations"]]


@pytest.mark.slow
def test_every_sort_is_planted_once_and_one_an_image(faulty):
    _, faults = faulty
    assert len(faults) == 30
    # The competition's classes are known by their names: none is called as another one.
    assert {fault.kind for fault in faults} == set(KINDS) - {"style", "alike"}
    assert max(Counter(fault.key for fault in faults).values()) == 1
    assert {fault.how for fault in faults} == {how for _, how in (*MISTAKES, *DAMAGES, *COPIES)}


def test_only_the_listed_images_change(sound, faulty):
    root, faults = faulty
    before, after = digests(sound), digests(root)
    assert after.keys() - before.keys() == {"faults.json"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= set().union(*(files(fault.key) for fault in faults))
    assert all(files(fault.key) & changed for fault in faults)
    assert not changed & set().union(*(files(other) for fault in faults for other in fault.others))


def test_the_list_comes_back(faulty):
    root, faults = faulty
    assert load_faults(root) == faults


def test_the_same_seed_plants_the_same_faults(sound, faulty, tmp_path):
    root, faults = faulty
    shutil.copytree(sound, tmp_path / "again")
    assert plant_faults(tmp_path / "again", 0.75, seed=3) == faults
    assert digests(tmp_path / "again") == digests(root)


@pytest.mark.parametrize(
    ("share", "message"), [(-0.1, "share: expected 0 to 1"), (1.5, "share: expected 0 to 1")]
)
def test_bad_shares_are_errors(sound, share, message):
    with pytest.raises(ValueError, match=message):
        plant_faults(sound, share, seed=0)


def test_faults_are_planted_once(faulty):
    with pytest.raises(ValueError, match="expected a sound phantom"):
        plant_faults(faulty[0], 0.1, seed=0)


def test_another_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected a phantom with training images"):
        plant_faults(tmp_path, 0.1, seed=0)


# --- what each mistake does


def area(points):
    return Polygon(points).buffer(0).area


@pytest.fixture
def made(sound):
    """Makes one sort of mistake on a hand; gives label -> polygons before, after, and labels."""

    def make(sort, seed):
        key = sorted((sound / "train" / "DCM").glob("*/*.png"))[seed]
        key = key.relative_to(sound).with_suffix("").as_posix()
        bones = polygons(sound, key)
        before = {label: [p for n, p in bones if n == label] for label, _ in bones}
        labels = MISTAKES[sort](bones, SIZE, np.random.default_rng(seed))
        after = {label: [p for n, p in bones if n == label] for label, _ in bones}
        return before, after, labels

    return make


def are_exchanged(before, after, labels):
    """Every label has the outline that another one of them had."""
    had = {str(before[label]) for label in labels}
    return had == {str(after[label]) for label in labels} and all(
        str(before[label]) != str(after[label]) for label in labels
    )


def lies_inside(before, after, labels):
    around = Polygon(max(before[labels[1]], key=area))
    # Rounding to whole pixels may cross the neighbour's outline by half a pixel.
    return Polygon(after[labels[0]][0]).within(around.buffer(0.5))


CHECKS = {
    "swapped": are_exchanged,
    "missing": lambda b, a, n: len(b.keys() - a.keys()) == 1 and b.keys() - a.keys() <= set(n),
    "double": lambda b, a, n: len(a[n[0]]) == len(b[n[0]]) + 1,
    "crossing": lambda b, a, n: not Polygon(a[n[0]][0]).is_valid,
    "outside": lambda b, a, n: a[n[0]][0].min() < -1 or a[n[0]][0].max() > SIZE,
    "tiny": lambda b, a, n: area(a[n[0]][0]) < 0.1 * max(map(area, b[n[0]])),
    "inside": lies_inside,
    "outlier": lambda b, a, n: len(a[n[0]]) > 1 or not np.array_equal(a[n[0]][0], b[n[0]][0]),
}


@pytest.mark.parametrize("sort", MISTAKES, ids=" ".join)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.slow
def test_a_mistake_is_what_it_says(made, sort, seed):
    before, after, labels = made(sort, seed)
    assert CHECKS[sort[0]](before, after, labels)
    changed = {
        label
        for label in before.keys() | after.keys()
        if str(before.get(label)) != str(after.get(label))
    }
    assert changed <= set(labels)


# --- what happens to files


@pytest.fixture
def hand(sound, tmp_path):
    image = sorted((sound / "train" / "DCM").glob("*/*.png"))[0]
    annotation = sound / "train" / "outputs_json" / image.parent.name / f"{image.stem}.json"
    return tuple(shutil.copy(path, tmp_path / path.name) for path in (image, annotation))


@pytest.mark.parametrize("sort", DAMAGES, ids=" ".join)
def test_damage_breaks_one_file(hand, sort):
    before = [path.read_bytes() for path in hand]
    DAMAGES[sort](*hand, np.random.default_rng(0))
    after = [path.read_bytes() for path in hand]
    assert sum(a != b for a, b in zip(after, before, strict=True)) == 1
    if sort[1] == "image damaged":
        content = after[0]
        assert (content[:33], content[-12:]) == (before[0][:33], before[0][-12:])
        assert zlib.crc32(content) != zlib.crc32(before[0])


@pytest.mark.parametrize("how", CHANGES)
def test_a_copy_shows_the_same_hand(hand, tmp_path, how):
    target = tmp_path / "copy.png", tmp_path / "copy.json"
    copy_hand(hand, target, how)
    one, other = (cv2.imread(str(path), 0).astype(float) for path in (hand[0], target[0]))
    points, moved = (
        [a["points"] for a in json.loads(path.read_text())["annotations"]]
        for path in (hand[1], target[1])
    )
    if how == "mirrored":
        other = other[:, ::-1]
        moved = [[[SIZE - 1 - x, y] for x, y in polygon] for polygon in moved]
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99
    assert moved == points
