"""The look at a submission: every way in which one can be wrong, and what is only odd."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from converters.masks import crop, encode_rle
from fusion.checks.submission import review
from fusion.sources import submission
from fusion.sources.submission import Image, RleRow

IMAGES = [Image("image_1_R.png", (5, 9)), Image("image_2.png", (9, 5))]
CODES = [("4 3 13 1", "9 2", "", "40 1"), ("", "1 1", "1 45", "")]


@pytest.fixture
def rows(labels):
    return [
        RleRow(image.name, label, code)
        for image, codes in zip(IMAGES, CODES, strict=True)
        for label, code in zip(labels.names, codes, strict=True)
    ]


@pytest.fixture
def look(tmp_path, labels):
    def look_at(rows, images=IMAGES, space=labels):
        path = tmp_path / "submission.csv"
        submission.write(path, rows)
        return review(path, images, space)

    return look_at


def test_a_whole_submission_is_fine(look, rows):
    found = look(rows)
    assert (found.problems, found.notes) == ((), ())


def replaced(rows, at, rle):
    return [row._replace(rle=rle) if i == at else row for i, row in enumerate(rows)]


# What was done to the rows -> a problem that is found.
FAULTS = {
    "missing row": (lambda r: r[:2] + r[3:], "expected 8 rows, found 7"),
    "missing pair": (lambda r: r[:2] + r[3:], "missing: image_1_R.png 3"),
    "missing image": (lambda r: r[:4], "missing image: image_2.png"),
    "missing class": (lambda r: [x for x in r if x.label != "3"], "missing class: 3"),
    "other class": (
        lambda r: [*r, RleRow("image_2.png", "Talus", "")],
        r"unknown class: Talus \(1 r",
    ),
    "other image": (
        lambda r: [*r, RleRow("image_9.png", "3", "")],
        "unexpected image: image_9.png",
    ),
    "suffix": (lambda r: [RleRow("image_1_R.jpg", *r[0][1:]), *r[1:]], "unexpected.*image_1_R.jpg"),
    "twice": (lambda r: [*r, r[3]], "comes twice: image_1_R.png Ulna"),
    "order": (lambda r: [r[1], r[0], *r[2:]], "line 2: .*out of order; .*--data"),
    "images' order": (lambda r: r[4:] + r[:4], "line 2: expected image_1_R.png finger-1"),
    "out of image": (lambda r: replaced(r, 1, "45 2"), "line 3: .* pixels up to 45"),
    "overlapping": (lambda r: replaced(r, 1, "4 3 5 2"), "line 3: .*overlap"),
    "unsorted": (lambda r: replaced(r, 1, "9 2 4 1"), "line 3: .*sorted"),
    "from zero": (lambda r: replaced(r, 1, "0 2"), "line 3: .*at least 1"),
    "odd": (lambda r: replaced(r, 1, "3 1 7"), "line 3: .*pairs"),
    "words": (lambda r: replaced(r, 1, "none"), "line 3: .*whole numbers"),
    "huge": (lambda r: replaced(r, 1, "9" * 30 + " 1"), "line 3: .*whole numbers"),
    "all empty": (lambda r: [row._replace(rle="") for row in r], "all 8 masks are empty"),
    "nothing": (lambda r: [], "expected 8 rows, found 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault, look, rows):
    change, message = FAULTS[fault]
    problems = look(change(rows)).problems
    assert any(re.search(message, problem) for problem in problems), problems


def test_several_faults_are_found_at_once(look, rows):
    broken = replaced(replaced(rows, 1, "9 2 4 1"), 5, "0 2")
    problems = look([*broken, RleRow("image_9.png", "3", "")]).problems
    assert [p.split(":")[0] for p in problems] == [
        "expected 8 rows, found 9",
        "unexpected image",
        "line 3",
        "line 7",
    ]


# What is wrong with every row is said once.
WHOLE = {
    "nothing": (lambda r: [], "expected 8 rows, found 0"),
    "exchanged": (lambda r: [RleRow(b, a, c) for a, b, c in r], "line 2.*columns look exchanged"),
    "no suffix": (
        lambda r: [x._replace(image_name=x.image_name.removesuffix(".png")) for x in r],
        "line 2: expected 'image_1_R.png', found 'image_1_R'",
    ),
    "in folders": (
        lambda r: [x._replace(image_name=f"ID001/{x.image_name}") for x in r],
        "found 'ID001/image_1_R.png': .* without folder",
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_fault_of_the_whole_file_is_one_line(case, look, rows):
    change, message = WHOLE[case]
    (problem,) = look(change(rows)).problems
    assert re.search(message, problem)


def test_classes_that_are_missing_everywhere_are_one_line(look, rows):
    problems = look([row for row in rows if row.label not in ("3", "Ulna")]).problems
    hint = "where the others alone are meant, name these: --labels A,B"
    assert list(problems) == ["expected 8 rows, found 4", f"missing class: 3, Ulna; {hint}"]


def test_each_image_has_its_own_size(look, rows):
    # 45 pixels both, but the code of a 9 x 5 image does not fit one of 4 x 9.
    (problem,) = look(rows, [IMAGES[0], Image("image_2.png", (4, 9))]).problems
    assert problem.startswith("line 8: image_2.png 3: RLE: expected pixels up to 36 (4 x 9)")


def test_the_first_twenty_of_a_kind_are_listed(look, rows):
    images = [*IMAGES, *(Image(f"more_{i}.png", (5, 9)) for i in range(30))]
    problems = look(rows, images).problems
    assert len(problems) == 1 + 20 + 1
    assert problems[-1] == "missing image: 10 more"


def test_empty_masks_are_noted_where_each_class_occurs_once(look, rows, labels):
    (note,) = look(rows, space=replace(labels, once=True)).notes
    assert note == "3 masks are empty: 3 1, finger-1 1, Ulna 1"


def drawn(count, size_hw, written_hw, order="C", seed=0):
    """Ellipses with a hole, drawn for images of a size, coded at another."""
    rng, rows = np.random.default_rng(seed), []
    names = "finger-1", "wrist_2", "3", "Ulna"
    for i in range(count):
        for label in names:
            plane = np.zeros(size_hw, np.uint8)
            centre = rng.uniform(0.3, 0.7, 2) * size_hw[::-1]
            axes = rng.uniform(0.1, 0.3, 2) * min(size_hw)
            cv2.ellipse(plane, (centre, 2 * axes, rng.uniform(0, 180)), 1, -1)
            cv2.circle(plane, tuple(map(int, centre)), 2, 0, -1)
            plane = cv2.resize(plane, written_hw[::-1], interpolation=cv2.INTER_NEAREST)
            if order == "F":
                plane, written = plane.T, written_hw[::-1]
            else:
                written = written_hw
            rows.append(RleRow(f"image_{i}.png", label, encode_rle(crop(plane), written)))
    return rows, [Image(f"image_{i}.png", size_hw) for i in range(count)]


SIZES = [
    ((128, 96), "C", None),
    ((64, 48), "C", r"every 4[78] pixels, the images are 96 wide.*written at about 6[345] x 4[78]"),
    ((192, 144), "C", r"written at about 19[0-4] x 14[345], not 128 x 96"),
    ((128, 96), "F", "column by column"),
]


@pytest.mark.parametrize(("written_hw", "order", "message"), SIZES)
def test_codes_of_another_size_are_suspected(look, written_hw, order, message):
    problems = look(*drawn(10, (128, 96), written_hw, order)).problems
    sizes = [p for p in problems if p.startswith("size:")]
    assert len(sizes) == (message is not None), problems
    assert all(re.search(message, p) for p in sizes), sizes


def test_masks_that_end_early_are_noted(look):
    rows, images = drawn(10, (128, 96), (128, 96))
    taller = [Image(image.name, (400, 96)) for image in images]
    found = look(rows, taller)
    assert found.problems == ()
    assert any(re.search(r"first \d\d % of its image's rows", note) for note in found.notes)


def test_a_bone_of_an_unusual_area_is_noted(look):
    rows, images = drawn(10, (128, 96), (128, 96))
    found = look(replaced(rows, 5, f"1 {128 * 96}"), images)
    assert any(re.fullmatch(r"area: image_1.png wrist_2: 12288 .*", n) for n in found.notes)


def test_specks_say_nothing_of_a_size(look):
    rng, rows = np.random.default_rng(0), []
    for i in range(10):
        for label in ("finger-1", "wrist_2", "3", "Ulna"):
            plane = np.zeros((128, 96), np.uint8)
            plane[20:110, ::12] = rng.random((90, 8)) < 0.9
            rows.append(RleRow(f"image_{i}.png", label, encode_rle(crop(plane), (128, 96))))
    found = look(rows, [Image(f"image_{i}.png", (128, 96)) for i in range(10)])
    assert not [p for p in found.problems if p.startswith("size:")]


def test_a_few_slanted_masks_say_nothing_of_a_size(look):
    rows = []
    for i in range(2):
        for label in ("finger-1", "wrist_2", "3", "Ulna"):
            plane = np.zeros((128, 96), np.uint8)
            for y in range(12):
                plane[20 + y, 80 - 6 * y : 85 - 6 * y] = 1
            rows.append(RleRow(f"image_{i}.png", label, encode_rle(crop(plane), (128, 96))))
    found = look(rows, [Image(f"image_{i}.png", (128, 96)) for i in range(2)])
    assert not [p for p in found.problems if p.startswith("size:")]
