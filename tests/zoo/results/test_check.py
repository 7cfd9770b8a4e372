"""`zoo check` on phantoms: codes that fit an image and lie otherwise than they were meant to."""

import re

import cv2
import numpy as np
import pytest

from converters.masks import crop, encode_rle, rasterize_labels
from converters.types import LabelSpace
from fusion.checks.orientation import (
    TURNS,
    Annotations,
    Layouts,
    annotated_centres,
    displaced,
    shift_px,
)
from fusion.checks.submission import review
from fusion.sources import submission
from fusion.sources.submission import Image, RleRow
from zoo.source import DataSource

pytestmark = pytest.mark.slow

LABELS = LabelSpace.load("hand_bones")
SIZE = 256


@pytest.fixture(scope="module")
def data(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "data"
    zoo("phantom", root, "--people", 8, "--test-people", 3, "--size", SIZE, "--seed", 5)
    return root


@pytest.fixture(scope="module")
def train(data):
    return DataSource.open(data).read(LABELS, "train")


@pytest.fixture(scope="module")
def test(data):
    return DataSource.open(data).read(LABELS, "test")


@pytest.fixture(scope="module")
def planes(test):
    return [
        {n: m.full((SIZE, SIZE)) for n, m in rasterize_labels(s.instances, s.size_hw).items()}
        for s in test
    ]


def column_by_column(plane):
    return plane.T


def shifted(plane):
    # Starts that count from 0.
    return np.roll(plane.ravel(), -1).reshape(plane.shape)


def rough(plane):
    small = cv2.resize(plane * 255, (24, 24), interpolation=cv2.INTER_AREA)
    return (cv2.resize(small, plane.shape[::-1]) > 127).astype(np.uint8)


def write(path, test, planes, change=lambda plane: plane, names=LABELS.names):
    rows = []
    for sample, masks in zip(test, planes, strict=True):
        for name in LABELS.names:
            mask = crop(np.ascontiguousarray(change(masks[name]))) if name in names else None
            rows.append(
                RleRow(sample.file_name, name, encode_rle(mask, (SIZE, SIZE)) if mask else "")
            )
    submission.write(path, rows)
    return path


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("change", [lambda plane: plane, rough])
@pytest.mark.slow
def test_an_honest_submission_raises_no_suspicion(tmp_path, train, test, planes, count, change):
    path = write(tmp_path / "a_1.csv", test[:count], planes[:count], change)
    images = [Image(s.file_name, s.size_hw) for s in test[:count]]
    found = review(path, images, LABELS, Annotations.of(train, test[:count], LABELS))
    assert found.problems == ()
    assert not any(note.startswith(("layout", "shift")) for note in found.notes)


def lower(plane):
    return np.roll(plane, 40, axis=0)


MISTAKES = {
    "column by column": (column_by_column, "problem", "look transposed .* column by column"),
    "upside down": (np.flipud, "problem", "look mirrored top to bottom"),
    "a quarter to the left": (
        np.rot90,
        "problem",
        "look turned to the left beside the annotations",
    ),
    "left to right": (np.fliplr, "problem", "look mirrored left to right"),
    "lower": (lower, "note", r"half of the masks lie more than \d+% of the image's side from"),
    "from zero": (shifted, "note", r"1\.0 pixels to the left .* count pixels from 0\?"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.slow
def test_a_mistake_that_fits_the_image_is_found(zoo, data, test, planes, tmp_path, capsys, mistake):
    change, kind, message = MISTAKES[mistake]
    path = write(tmp_path / "submission.csv", test, planes, change)
    zoo("check", path, "--data", data, code=2 if kind == "problem" else 0)
    said = capsys.readouterr()
    lines = [x for x in (said.err + said.out).splitlines() if re.search("layout:|shift:|place:", x)]
    assert len(lines) == 1, said
    assert re.search(message, lines[0])


@pytest.mark.parametrize("turn", ["transposed", "turned to the right", "turned to the left", ""])
def test_one_annotated_image_tells_a_turn(turn):
    """Centres of five classes in pixels, of a square image."""
    true = np.array([[10 + 20j, 80 + 30j, 60 + 90j, 15 + 70j, np.nan]])
    turns = {
        "transposed": lambda z: z.imag + 1j * z.real,
        "turned to the right": lambda z: 99 - z.imag + 1j * z.real,
        "turned to the left": lambda z: z.imag + 1j * (99 - z.real),
        "": lambda z: z + 2,
    }
    found = displaced(turns[turn](true), true, [(100, 100)])
    assert found.turn == turn
    assert found.is_far is bool(turn)
    assert not displaced(true[:, 4:], true[:, 4:], [(100, 100)]).is_far


@pytest.mark.parametrize("names", [LABELS.groups["carpals"], LABELS.groups["fingers"]])
def test_some_classes_are_enough(train, test, planes, tmp_path, names):
    path = write(tmp_path / "a.csv", test, planes, column_by_column, names)
    images = [Image(s.file_name, s.size_hw) for s in test]
    known = Annotations(Layouts.learn([*train, *test], LABELS), {})
    (problem,) = review(path, images, LABELS, known).problems
    assert "look transposed" in problem


def test_two_annotated_patients_tell_nothing(train, test):
    few = [s for s in train if s.group in {train[0].group, train[-1].group}]
    assert Layouts.learn(few, LABELS) is None
    assert Layouts.learn([], LABELS) is None


def test_mirroring_is_found_where_all_hands_are_one_side(train, test):
    centres = annotated_centres(train, LABELS)
    thumb, little = LABELS.index["finger-3"], LABELS.index["finger-19"]
    is_right = centres[:, thumb].real < centres[:, little].real
    one_side = Layouts.learn([s for s, ok in zip(train, is_right, strict=True) if ok], LABELS)
    others = centres[~is_right]
    square = np.ones(len(others), bool)
    assert 0 < len(others) < len(centres)
    assert one_side.suspect(others, square).turn == "mirrored left to right"
    assert one_side.suspect(centres[is_right], square[: is_right.sum()]) is None
    assert Layouts.learn(train, LABELS).suspect(others, square) is None


@pytest.mark.parametrize("seed", range(5))
def test_wrong_predictions_are_not_taken_for_turned_ones(train, test, seed):
    generator = np.random.default_rng(seed)
    layouts = Layouts.learn(train, LABELS)
    exchanged = annotated_centres(test, LABELS)
    for row in exchanged:
        generator.shuffle(row)
    anywhere = generator.uniform(0, SIZE, exchanged.shape) * np.exp(0.25j * np.pi)
    for centres in (exchanged, anywhere, exchanged[:1], anywhere[:1]):
        assert layouts.suspect(centres, np.ones(len(centres), bool)) is None


def test_images_that_are_not_square_are_not_transposed(train, test):
    layouts = Layouts.learn(train, LABELS)
    turned = TURNS["transposed"](annotated_centres(test, LABELS))
    assert layouts.suspect(turned, np.ones(len(turned), bool)).turn == "transposed"
    assert layouts.suspect(turned, np.zeros(len(turned), bool)) is None


@pytest.mark.parametrize(
    ("offset", "spread", "expected"),
    [(-1, 1, -1), (1, 1, 1), (-0.2, 1, None), (-2, 1, None), (-1, 30, None), (-1 - 1j, 1, None)],
)
def test_only_a_pixel_to_the_side_is_a_shift(offset, spread, expected):
    generator = np.random.default_rng(0)
    true = generator.uniform(0, SIZE, (40, 12)) * np.exp(0.5j)
    found = true + offset + generator.normal(0, spread, true.shape)
    assert shift_px(found, true) == (None if expected is None else pytest.approx(expected, abs=0.2))
    assert shift_px(found[:4], true[:4]) is None


def test_mere_images_have_the_classes_of_the_submission(zoo, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(2):
        pixels = np.full((8, 8), 60 + number, np.uint8)
        assert cv2.imwrite(str(data / f"{number}.png"), pixels)
    rows = [RleRow(f"{number}.png", label, "1 3") for number in range(2) for label in ("a", "b")]
    path = tmp_path / "s.csv"
    submission.write(path, rows)
    zoo("check", path, "--data", data)
    zoo("check", path, "--data", data, "--labels", "a,b")
    assert capsys.readouterr().out.count("s.csv: valid") == 2
    zoo("check", path, "--data", data, "--labels", "a,c", code=2)
    told = capsys.readouterr()
    assert "unknown class: b" in told.out + told.err


def test_what_is_no_submission_is_said_first(zoo, tmp_path, capsys):
    (tmp_path / "notes.csv").write_text("patient,age\n1,60\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "annotations.json").write_text("{}")
    for name, said in (("gone", "expected a submission file, found none"), ("notes", "image_name")):
        zoo(
            "check", tmp_path / f"{name}.csv", "--data", tmp_path / "data", "--from", "coco", code=2
        )
        error = capsys.readouterr().err
        assert f"{name}.csv: " in error
        assert said in error
