"""Copies of radiographs, within a patient, between patients, and between training and test."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from converters.audit.duplicates import find_duplicates
from converters.audit.images import COARSE, FINE
from converters.audit.look import Look
from converters.audit.search import audit
from converters.files.images import read_pixels
from converters.types import Sample

pytestmark = pytest.mark.slow

CHANGES = {
    "as it is": lambda p: p,
    "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
    "brighter": lambda p: np.clip(1.08 * p + 4, 0, 255).astype(np.uint8),
    "re-encoded": lambda p: cv2.imdecode(cv2.imencode(".jpg", p)[1], cv2.IMREAD_GRAYSCALE),
}


@pytest.fixture
def copy(hands, tmp_path):
    def make(key, group, change="as it is", **more):
        path = tmp_path / "copy.png"
        cv2.imwrite(str(path), CHANGES[change](read_pixels(hands[0])))
        return replace(hands[0], key=key, group=group, image=path, **more)

    return make


def about_images(found):
    return [(f.kind, f.key, f.others) for f in found if f.kind in ("duplicate", "patient")]


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_under_another_patient_is_found(hands, labels, copy, change):
    other = copy("train/DCM/ID999/image1", "ID999", change, instances=())
    found = about_images(audit([*hands[:8], other], [], labels))
    pair = (other.key, (hands[0].key,))
    assert found == [("duplicate", *pair), ("patient", *pair)]


def test_a_copy_of_the_same_patient_is_no_leak(hands, labels, copy):
    other = copy("train/DCM/ID001/imageZ", hands[0].group)
    found = about_images(audit([*hands[:8], other], [], labels))
    assert found == [("duplicate", other.key, (hands[0].key,))]


def test_the_training_copy_of_a_test_image_is_left_out(hands, labels, copy):
    other = copy("test/DCM/ID999/image1", "ID999", instances=())
    found = audit([*hands[:8], other], [], labels)
    assert about_images(found)[0] == ("duplicate", hands[0].key, (other.key,))
    (duplicate,) = [f for f in found if f.kind == "duplicate"]
    assert duplicate.edit["exclude_images"]["key"] == hands[0].key


def test_two_copies_have_one_original(hands, labels, copy, tmp_path):
    one = copy("train/DCM/ID998/image1", "ID998", "mirrored")
    two = replace(one, key="train/DCM/ID999/image1", group="ID999", image=hands[0].image)
    found = about_images(audit([*hands[:8], one, two], [], labels))
    assert {others for _, _, others in found} == {(hands[0].key,)}
    assert {key for _, key, _ in found} == {one.key, two.key}


def test_both_hands_of_a_patient_may_be_another_patients(hands, labels, copy):
    one = copy("train/DCM/ID000/image1", "ID000")
    two = replace(one, key="train/DCM/ID000/image2", image=hands[0].image)
    found = about_images(audit([one, two, *hands[:8]], [], labels))
    shared = [{key, *others} for kind, key, others in found if kind == "patient"]
    assert {hands[0].key, one.key} in shared
    assert {hands[0].key, two.key} in shared


@pytest.mark.slow
def test_hands_of_all_people_are_different(hands, labels):
    assert about_images(audit(hands, [], labels)) == []


def fundus(number):
    """A photograph of an eye: faint vessels within the same bright disc on black, uint8 (H, W)."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:292, :282]
    texture = cv2.GaussianBlur(rng.normal(size=(292, 282)), (0, 0), 3)
    inside = (rows - 146) ** 2 + (columns - 141) ** 2 < 135**2
    return np.where(inside, 110 + 3 / texture.std() * texture, 0).astype(np.uint8)


def audit_of(tmp_path, labels, pictures):
    samples = []
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
        samples.append(Sample(name, tmp_path / f"{name}.png", picture.shape, group=name))
    return about_images(audit(samples, [], labels))


@pytest.mark.parametrize("count", [6, 12])
def test_a_surround_that_all_images_share_makes_no_copies(tmp_path, labels, count):
    pictures = {f"eye{n}": fundus(n) for n in range(count)}
    assert audit_of(tmp_path, labels, pictures) == []


@pytest.mark.parametrize("count", [1, 6, 12])
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_among_images_with_one_surround_is_found(tmp_path, labels, count, change):
    pictures = {f"eye{n}": fundus(n) for n in range(count)}
    pictures["twin"] = CHANGES[change](pictures["eye0"])
    found = audit_of(tmp_path, labels, pictures)
    assert ("duplicate", "twin", ("eye0",)) in found
    assert {key for _, key, _ in found} == {"twin"}


@pytest.mark.parametrize("count", [2, 3, 20])
def test_copies_are_found_where_all_images_are_copies(tmp_path, labels, count):
    changes = [list(CHANGES.values())[n % len(CHANGES)] for n in range(count)]
    pictures = {f"eye{n}": change(fundus(0)) for n, change in enumerate(changes)}
    found = audit_of(tmp_path, labels, pictures)
    assert {key for kind, key, _ in found if kind == "duplicate"} == set(pictures) - {"eye0"}


def test_copies_in_several_qualities_do_not_hide_that_others_are_none(tmp_path, labels):
    pictures = {f"eye{n}": fundus(n) for n in range(6)}
    for quality in (80, 85, 90, 95):
        content = cv2.imencode(".jpg", fundus(0), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pictures[f"twin{quality}"] = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    found = audit_of(tmp_path, labels, pictures)
    assert {key for _, key, _ in found} == {name for name in pictures if name.startswith("twin")}


def test_many_images_of_one_kind_take_no_time_each():
    """A thousand of them are half a million pairs."""
    rng = np.random.default_rng(0)
    common = [rng.normal(0, 30, side * side) for side in (COARSE, FINE)]
    prints = [
        tuple(np.rint(one + rng.normal(0, 5, one.shape)).astype(np.int8) for one in common)
        for _ in range(1000)
    ]
    looks = [Look("eye", "", (9, 9), False, (), {}, {}, {}, {}, {}, {}, one) for one in prints]
    start = time.process_time()
    assert list(find_duplicates(looks)) == []
    assert time.process_time() - start < 60


@pytest.mark.parametrize(("noise", "is_sure"), [(2.0, True), (6.0, False)])
def test_what_is_not_quite_the_same_is_for_somebody_to_look_at(noise, is_sure):
    rng = np.random.default_rng(0)
    first = [rng.normal(0, 30, side * side) for side in (COARSE, FINE)]
    second = [one + rng.normal(0, noise, one.shape) for one in first]
    looks = [
        Look(
            name,
            "",
            (9, 9),
            False,
            (),
            {},
            {},
            {},
            {},
            {},
            {},
            tuple(np.rint(one).astype(np.int8) for one in prints),
        )
        for name, prints in (("a", first), ("b", second))
    ]
    (found,) = find_duplicates(looks)
    assert (found.kind, found.key, found.others) == ("duplicate", "b", ("a",))
    assert bool(found.edit) == is_sure
