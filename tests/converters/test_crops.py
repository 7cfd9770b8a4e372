from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

import converters
from converters.crops import crop, suggest_margin
from converters.errors import DataError
from converters.files.images import read_pixels
from converters.masks import rasterize_labels
from converters.types import Frame, Instance, Sample
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory, labels) -> list[Sample]:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    write_phantom(folder, PhantomConfig(people=2, test_people=0, size=384, bent_train=0.5))
    return converters.read(folder, labels=labels)


def planes(sample: Sample) -> dict[str, np.ndarray]:
    masks = rasterize_labels(sample.instances, sample.size_hw)
    return {n: m.full(sample.size_hw) for n, m in masks.items() if m.area}


def assert_exact(whole: Sample, part: Sample) -> None:
    assert part.frame is not None
    x, y, width, height = part.frame.box_xywh
    truth = {n: p[y : y + height, x : x + width] for n, p in planes(whole).items()}
    found = planes(part)
    assert (
        set(found) == {n for n, p in truth.items() if p.any()} == {i.label for i in part.instances}
    )
    for name, plane in found.items():
        np.testing.assert_array_equal(plane, truth[name], name)


def hand(*instances: Instance, size_hw=(60, 80), **more) -> Sample:
    return Sample("train/DCM/ID1/a", Path("a.png"), size_hw, instances, "ID1", **more)


# --- where the window lies


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0, (20, 10, 11, 21)), (3, (17, 7, 17, 27)), (15, (5, 0, 41, 46)), (99, (0, 0, 80, 60))],
)
def test_window(margin, expected, labels):
    sample = hand(Instance("Lunate", box(20, 10, 30, 30)), Instance("Ulna", box(2, 2, 70, 50)))
    (part,) = crop([sample], ["carpals"], margin, labels)
    assert part.frame == Frame(expected, (60, 80), is_stored=False)
    assert part.size_hw == expected[:1:-1]


def test_classes_and_groups_may_be_mixed(labels):
    bones = [("Lunate", 10), ("Ulna", 30), ("finger-1", 50), ("Radius", 70)]
    sample = hand(*(Instance(n, box(x, 5, x + 4, 9)) for n, x in bones))
    (part,) = crop([sample], ["carpals", "finger-1"], 0, labels)
    assert part.frame.box_xywh == (10, 5, 45, 5)
    assert {i.label for i in part.instances} == {"Lunate", "Ulna", "finger-1"}


def test_all_parts_of_a_bone_count_and_only_their_pixels(labels):
    two = MultiPolygon([box(10, 10, 20, 20), box(40, 30, 50, 40)])
    # Of its bounding box only a corner's triangle lies in the image.
    corner = Polygon([(70, -40), (120, 10), (120, -40)])
    (part,) = crop([hand(Instance("Lunate", two))], ["Lunate"], 0, labels)
    assert part.frame.box_xywh == (10, 10, 41, 31)
    with pytest.raises(DataError, match="expected one of these objects, found none"):
        crop([hand(Instance("Ulna", corner))], ["Ulna"], 0, labels)


def test_given_boxes_need_no_annotation(labels):
    (part,) = crop([hand()], ["carpals"], 2, labels, boxes={"train/DCM/ID1/a": (20, 10, 8, 6)})
    assert part.frame.box_xywh == (18, 8, 12, 10)
    with pytest.raises(DataError, match="expected a box of this image"):
        crop([hand()], ["carpals"], 2, labels, boxes={})
    with pytest.raises(DataError, match=r"expected a box in \(60, 80\)"):
        crop([hand()], ["carpals"], 2, labels, boxes={"train/DCM/ID1/a": (90, 10, 8, 6)})


def test_key_group_and_attributes_stay(labels):
    sample = hand(Instance("Lunate", box(5, 5, 9, 9)), attributes={"age": 31})
    (part,) = crop([sample], ["Lunate"], 1, labels, scale=2)
    assert (part.key, part.group, part.attributes) == (sample.key, "ID1", {"age": 31})
    assert part.file_name == sample.file_name


def test_all_bad_samples_come_in_one_error(labels):
    good = hand(Instance("Lunate", box(5, 5, 9, 9)))
    cropped = replace(crop([good], ["Lunate"], 0, labels)[0], key="b")
    with pytest.raises(DataError) as error:
        crop([good, cropped, replace(hand(), key="c")], ["carpals"], 0, labels)
    assert error.value.problems == (
        "b: expected a whole image, found a crop of one",
        "c: expected one of these objects, found none; crop it by a first stage's box",
    )


@pytest.mark.parametrize(
    ("around", "margin", "scale", "words"),
    [
        (["wrist"], 0, 1, r"groups \(fingers, carpals, forearm\), found 'wrist'"),
        ([], 0, 1, "at least one class or group"),
        (["carpals"], -1, 1, "0 pixels or more, found -1"),
        (["carpals"], 0, 0.5, "1 or more, found 0.5"),
        (["carpals"], 0, float("nan"), "1 or more, found nan"),
    ],
)
def test_bad_arguments(around, margin, scale, words, labels):
    with pytest.raises(ValueError, match=words):
        crop([], around, margin, labels, scale=scale)


# --- pixels


@pytest.mark.parametrize("margin", [0, 7])
@pytest.mark.slow
def test_crops_of_phantoms_are_exact_to_the_pixel(margin, phantoms, labels):
    parts = crop(phantoms, ["carpals"], margin, labels)
    cut = 0
    for whole, part in zip(phantoms, parts, strict=True):
        assert_exact(whole, part)
        cut += planes(whole)["Radius"].sum() > planes(part)["Radius"].sum()
    assert cut == len(phantoms)


@pytest.mark.parametrize("window", [(5, 4, 21, 19), (11, 17, 30, 30), (0, 0, 48, 48)])
def test_crops_of_every_case_are_exact_to_the_pixel(window, sample, labels):
    (part,) = crop([sample], ["Ulna"], 0, labels, boxes={sample.key: window})
    assert_exact(sample, part)


COORDINATES = st.one_of(st.integers(-20, 100), st.integers(-40, 200).map(lambda i: i / 2))


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=8),
    x=st.integers(0, 60),
    y=st.integers(0, 40),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
@pytest.mark.slow
def test_any_polygon_in_any_window_is_exact_to_the_pixel(points, x, y, size, labels):
    sample = hand(Instance("Ulna", Polygon(points)))
    window = (x, y, min(size[0], 80 - x), min(size[1], 60 - y))
    (part,) = crop([sample], ["Ulna"], 0, labels, boxes={sample.key: window})
    assert_exact(sample, part)


def test_vertices_keep_their_fractions_where_pixels_allow(labels):
    sample = hand(Instance("Ulna", Polygon([(20.3, 10.25), (40.7, 11), (25, 30.4)])))
    (part,) = crop([sample], ["Ulna"], 3, labels)
    np.testing.assert_allclose(
        np.array(part.instances[0].geometry.exterior.coords[:3]),
        [(3.3, 3.25), (23.7, 4), (8, 23.4)],
    )


def test_vertices_at_halves_stay_the_annotators_own(labels):
    sample = hand(Instance("Ulna", Polygon([(20.5, 10.5), (40.5, 11.5), (25.5, 30.5)])))
    (part,) = crop([sample], ["Ulna"], 0, labels, boxes={sample.key: (15, 9, 40, 40)})
    assert_exact(sample, part)
    moved = np.array(part.instances[0].geometry.exterior.coords[:3])
    assert np.abs(moved - [(5.5, 1.5), (25.5, 2.5), (10.5, 21.5)]).max() <= 0.5


@pytest.mark.parametrize("scale", [2, 3])
def test_enlarged_masks_are_the_windows_pixels(scale, phantoms, labels):
    for whole, part in zip(
        phantoms, crop(phantoms, ["carpals"], 5, labels, scale=scale), strict=True
    ):
        x, y, width, height = part.frame.box_xywh
        assert part.size_hw == (height * scale, width * scale)
        truth, found = planes(whole), planes(part)
        for name, plane in found.items():
            window = truth[name][y : y + height, x : x + width]
            large = window.repeat(scale, axis=0).repeat(scale, axis=1)
            np.testing.assert_array_equal(plane, large, name)


def test_sizes_are_whole_at_any_scale(labels):
    (part,) = crop([hand(Instance("Ulna", box(20, 10, 30, 20)))], ["Ulna"], 0, labels, scale=1.3)
    assert (part.frame.box_xywh, part.size_hw) == ((20, 10, 11, 11), (14, 14))
    assert planes(part)["Ulna"].all()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlarged_masks_lie_where_the_enlarged_image_does(scale, labels, tmp_path):
    image = np.zeros((60, 80), np.uint8)
    image[20:35, 30:50] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    sample = replace(hand(Instance("Ulna", box(30, 20, 49, 34))), image=tmp_path / "a.png")
    (part,) = crop([sample], ["Ulna"], 6, labels, scale=scale)
    bright = read_pixels(part) > 127
    # Lanczos' kernel rounds the four corners.
    assert (planes(part)["Ulna"] != bright).sum() <= 4
    assert bright.sum() > 1000


WRITTEN = [n for n in converters.FORMATS if hasattr(converters.load_format(n), "write")]


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.slow
def test_crops_come_back_from_every_format(name, phantoms, labels, tmp_path):
    parts = crop(phantoms[:2], ["carpals"], 9, labels, scale=2)
    converters.write(parts, tmp_path / "out", format=name, labels=labels)
    back = converters.read(tmp_path / "out", labels=labels)
    for part, found in zip(parts, back, strict=True):
        assert found.frame == replace(part.frame, is_stored=True)
        assert (found.key, found.group, found.size_hw) == (part.key, part.group, part.size_hw)
        np.testing.assert_array_equal(read_pixels(found), read_pixels(part))
        for label, plane in planes(part).items():
            np.testing.assert_array_equal(planes(found)[label], plane, label)


# --- how large a crop has to be


def test_margins_of_the_other_bones(labels):
    def one(key: str, ulna_below: int, **more) -> Sample:
        carpal = Instance("Lunate", box(30, 20, 39, 29))
        ulna = Instance("Ulna", box(32, 25, 36, 29 + ulna_below))
        return replace(hand(carpal, ulna), key=key, **more)

    samples = [one(f"k{i:02d}", 10) for i in range(38)]
    samples += [one("few", 25), one("far", 30), replace(hand(), key="no annotation")]
    found = suggest_margin(samples, ["carpals"], labels)
    assert (found.images, found.margin_px, found.is_measured) == (40, 0, False)
    assert (found.worst, found.most) == ({"Ulna": 30}, {"Ulna": 25})
    for margin, whole in [(30, 40), (25, 39), (24, 38), (9, 0)]:
        crops = crop(samples[:-1], ["carpals"], margin, labels)
        kept = [
            planes(part)["Ulna"].sum() == planes(sample)["Ulna"].sum()
            for part, sample in zip(crops, samples, strict=False)
        ]
        assert sum(kept) == whole


def test_margin_around_given_boxes(labels):
    sample = hand(Instance("Lunate", box(20, 10, 39, 29)), Instance("Ulna", box(35, 20, 50, 50)))
    boxes = {sample.key: (22, 10, 15, 25)}
    found = suggest_margin([sample], ["carpals"], labels, boxes)
    assert (found.margin_px, found.is_measured) == (3, True)
    for margin, is_whole in [(3, True), (2, False)]:
        (part,) = crop([sample], ["carpals"], margin, labels, boxes=boxes)
        assert bool(planes(part)["Lunate"].sum() == 20 * 20) is is_whole
    with pytest.raises(DataError, match="expected a box of this image"):
        suggest_margin([sample], ["carpals"], labels, {})


def test_windows_that_hold_every_image(labels):
    first = hand(Instance("Lunate", box(10, 10, 19, 39)))
    second = replace(hand(Instance("Lunate", box(30, 5, 59, 14))), key="b")
    found = suggest_margin([first, second], ["Lunate"], labels)
    assert found.window_wh == (30, 30)
    assert found.fixed_xywh == (10, 5, 50, 35)


def test_suggestion_in_words(phantoms, labels):
    text = suggest_margin(phantoms, ["carpals"], labels).describe()
    assert "0 px lose no pixel of carpals (they hold all pixels by definition)" in text
    assert "smallest window for every image" in text
    assert "px keep finger-1 whole in every image" in text


def test_no_image_to_measure_on(labels):
    with pytest.raises(ValueError, match="expected such objects, found none"):
        suggest_margin([hand()], ["carpals"], labels)
    (part,) = crop([hand(Instance("Lunate", box(5, 5, 9, 9)))], ["Lunate"], 0, labels)
    with pytest.raises(DataError, match="found a crop of one"):
        suggest_margin([part], ["carpals"], labels)


def test_the_forearm_shrinks_and_nothing_else(phantoms, labels):
    for whole, part in zip(
        phantoms, crop(phantoms, ["fingers", "carpals"], 4, labels), strict=True
    ):
        before, after = planes(whole), planes(part)
        for name in set(labels.names) - {"Radius", "Ulna"}:
            assert after[name].sum() == before[name].sum(), name
        for name in ("Radius", "Ulna"):
            assert after.get(name, np.zeros(1)).sum() < before[name].sum()
        height, width = part.size_hw
        assert height * width < 0.95 * whole.size_hw[0] * whole.size_hw[1]
