"""The submission: written, read, and every way in which one can be wrong."""

from dataclasses import replace

import numpy as np
import pytest

from converters.masks import decode_rle
from converters.types import LabelSpace
from fusion.sources import submission
from fusion.sources.ensemble import Ensemble
from fusion.sources.submission import Image, RleRow, encode
from fusion.types import Prediction, SoftMask

SIZE_HW = (5, 9)
IMAGES = [Image("image_1_R.png", SIZE_HW), Image("image_2.png", (9, 5))]


def plane(*pixels, size_hw=SIZE_HW):
    out = np.zeros(size_hw, np.uint8)
    for y, x in pixels:
        out[y, x] = 255
    return out


@pytest.fixture
def predictions(predict):
    ring = plane(*[(y, x) for y in range(3) for x in range(3, 6) if (y, x) != (1, 4)])
    first = {"finger-1": ring, "wrist_2": plane((0, 8), (1, 0)), "Ulna": ring | plane((4, 8))}
    second = {"3": np.full((9, 5), 255, np.uint8)}
    return [
        predict(first, size_hw=SIZE_HW, key="a/image_1_R"),
        predict(second, "instance", (9, 5), key="b/image_2"),
    ]


@pytest.fixture
def rows(predictions, labels):
    named = zip(predictions, IMAGES, strict=True)
    return [row for p, image in named for row in submission.encode(p, image.name, labels)]


def test_every_image_and_class_has_a_row_in_order(rows, labels):
    expected = [(image.name, label) for image in IMAGES for label in labels.names]
    assert [(row.image_name, row.label) for row in rows] == expected


def test_codes_are_row_major_from_one(rows):
    # Columns first, the code of the pixels (0, 8) and (1, 0) would be two runs far apart.
    codes = {(row.image_name, row.label): row.rle for row in rows}
    assert codes["image_1_R.png", "wrist_2"] == "9 2"
    assert codes["image_1_R.png", "finger-1"] == "4 3 13 1 15 1 22 3"
    assert codes["image_1_R.png", "3"] == ""
    assert codes["image_2.png", "3"] == "1 45"


def read_back(path, labels):
    """A submission as the commands read it: image name -> prediction."""
    images = {image.name: (*image.size_hw, image.name) for image in IMAGES}
    return {p.key: p for (p,) in Ensemble.open([path], images, labels)}


def test_what_is_written_is_read(tmp_path, rows, predictions, labels):
    path = tmp_path / "new" / "submission.csv"
    assert submission.write(path, rows) == len(rows)
    assert list(submission.read(path)) == rows
    found = read_back(path, labels)
    assert list(found) == [image.name for image in IMAGES]
    for image, prediction in zip(IMAGES, predictions, strict=True):
        for label in labels.names:
            expected = prediction.binary(label).full(image.size_hw)
            assert np.array_equal(found[image.name].binary(label).full(image.size_hw), expected)


def test_images_are_joined_by_name_not_by_position(tmp_path, rows, labels):
    path = tmp_path / "shuffled.csv"
    order = np.random.default_rng(0).permutation(len(rows))
    submission.write(path, [rows[i] for i in order])
    found = read_back(path, labels)
    assert found["image_2.png"].binary("3").full((9, 5)).all()
    assert found["image_1_R.png"].binary("wrist_2").area == 2


def test_pandas_reads_an_empty_mask_as_nan(tmp_path, rows):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "submission.csv"
    submission.write(path, rows)
    table = pandas.read_csv(path)
    assert list(table.columns) == ["image_name", "class", "rle"]
    assert table["rle"].isna().tolist() == [row.rle == "" for row in rows]
    assert table["rle"].iloc[0] == rows[0].rle


def test_a_failed_write_leaves_what_was_there(tmp_path, rows):
    path = tmp_path / "submission.csv"
    path.write_text("before")

    def broken():
        yield rows[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        submission.write(path, broken())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


UNREADABLE = {
    "no file": (None, "expected a submission file, found none"),
    "no lines": (b"", "expected the header"),
    "header": (b"image,class,rle\n", "expected the header image_name,class,rle"),
    "index column": (b",image_name,class,rle\n0,a.png,b,\n", "expected the header"),
    "too few fields": (b"image_name,class,rle\na.png,b\n", "line 2: expected 3 fields, found 2"),
    "blank line": (b"image_name,class,rle\n\n", "line 2: expected 3 fields, found 0"),
    "a quote that is not closed": (
        b'image_name,class,rle\na.png,b,"1 2\n',
        "found: unexpected end",
    ),
    "not UTF-8": (b"image_name,class,rle\n\xff\xfe,b,\n", "expected CSV in UTF-8"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_files_that_are_no_submission_are_refused(case, tmp_path):
    content, message = UNREADABLE[case]
    path = tmp_path / "submission.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(submission.read(path))


SPREADSHEETS = {
    "byte order mark": "\ufeffimage_name,class,rle\r\na.png,b,1 2\r\n",
    "no last line end": "image_name,class,rle\na.png,b,1 2",
    "quotes": 'image_name,class,rle\n"a.png","b","1 2"\n',
}


@pytest.mark.parametrize("case", SPREADSHEETS)
def test_files_saved_by_a_spreadsheet_are_read(tmp_path, case):
    path = tmp_path / "submission.csv"
    path.write_bytes(SPREADSHEETS[case].encode("utf-8"))
    assert list(submission.read(path)) == [RleRow("a.png", "b", "1 2")]


@pytest.mark.parametrize("word", ["", "nan", "NaN", "  "])
def test_an_empty_mask_has_many_names(tmp_path, word):
    path = tmp_path / "submission.csv"
    path.write_text(f"image_name,class,rle\na.png,b,{word}\n", encoding="utf-8")
    assert list(submission.read(path)) == [RleRow("a.png", "b", "")]


def test_a_row_is_found_again_where_it_stands(tmp_path):
    text = '\ufeffimage_name,class,rle\r\nä.png,"a, b",1 2\r\n"x\ny.png",c,\r\nz.png,d,3 4'
    path = tmp_path / "submission.csv"
    path.write_bytes(text.encode("utf-8"))
    placed = list(submission.read_places(path))
    content = path.read_bytes()
    assert [row.image_name for row, _ in placed] == ["ä.png", "x\ny.png", "z.png"]
    assert [place.line for _, place in placed] == [2, 4, 5]
    for row, place in placed:
        assert submission.parse_row(content[place.start : place.start + place.length]) == row


@pytest.mark.parametrize("text", [b"", b"a,b", b"\xff,b,c", b"a,b,c,d"])
def test_bytes_that_are_no_row_are_none(text):
    assert submission.parse_row(text) is None


def test_a_long_code_is_read(tmp_path):
    path, code = tmp_path / "submission.csv", " ".join(f"{i} 1" for i in range(1, 200001, 2))
    submission.write(path, [RleRow("a.png", "b", code)])
    assert next(submission.read(path)).rle == code


WASTE = LabelSpace("waste-like", ("cup", "bottle"))


def piece(x, y, width, height):
    return SoftMask((x, y, width, height), np.full((height, width), 255, np.uint8))


TWO_CUPS = {
    "cup": ((0.9, piece(0, 0, 2, 2)), (0.6, piece(6, 1, 3, 3)), (0.4, piece(3, 0, 1, 1))),
    "bottle": ((0.8, piece(7, 2, 2, 2)),),
}


@pytest.mark.parametrize(
    ("kind", "once", "cups"),
    [("instance", False, 13), ("instance", True, 4), ("semantic", False, 4)],
)
def test_a_row_holds_all_objects_of_a_class(kind, once, cups):
    prediction = Prediction("a_1", (5, 9), kind, TWO_CUPS)
    for rows in (
        encode(prediction, "a_1.png", replace(WASTE, once=once)),
        encode(prediction, "a_1.png", WASTE.names, once),
    ):
        areas = {row.label: decode_rle(row.rle, (5, 9)).area for row in rows}
        assert areas == {"cup": cups, "bottle": 4}


def test_objects_that_are_unlikely_make_no_row():
    unlikely = {"cup": ((0.4, piece(3, 0, 1, 1)),)}
    prediction = Prediction("a_1", (5, 9), "instance", unlikely)
    assert [row.rle for row in encode(prediction, "a_1.png", WASTE)] == ["", ""]
