"""Tables of run-length codes in the forms of competitions, and what is wrong with them."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters import DataError
from converters.masks import decode_rle, rasterize
from converters.types import Instance, LabelSpace, Sample

SIZE = (20, 30)


def kaggle_code(mask, *, by_columns=True, first=1, relative=False):
    """The encoder that Kaggle's notebooks share, with its variants."""
    pixels = (mask.T if by_columns else mask).flatten()
    pixels = np.concatenate([[0], pixels, [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    starts, lengths = runs[::2] - 1, runs[1::2]
    if relative:
        starts[1:] -= starts[:-1] + lengths[:-1]
    else:
        starts += first
    return " ".join(map(str, np.stack([starts, lengths], axis=1).ravel()))


def disk(x, y, radius, size_hw=SIZE):
    return cv2.circle(np.zeros(size_hw, np.uint8), (x, y), radius, 1, -1)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data" / "train").mkdir(parents=True)
    return tmp_path / "data"


def put(root, *names, size_hw=SIZE):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full(size_hw, 9, np.uint8))


def table(root, header, *rows, name="train.csv"):
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


def read(root, **more):
    """Key -> (label, mask) of each object, and what was said."""
    notes = []
    samples = converters.read(root, note=notes.append, **more)
    found = {
        sample.key: [
            (one.label, rasterize(one.geometry, sample.size_hw).full(sample.size_hw))
            for one in sample.instances
        ]
        for sample in samples
    }
    return found, notes


def assert_objects(found, *expected):
    assert [label for label, _ in found] == [label for label, _ in expected]
    for (_, mask), (_, true) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, true)


ONE, TWO, OVER = disk(8, 8, 5), disk(20, 10, 6), disk(12, 10, 6)


def test_airbus_several_rows_an_image_and_empty_cells(root):
    put(root, "train_v2/a.jpg", "train_v2/b.jpg")
    rows = [("a.jpg", kaggle_code(ONE)), ("b.jpg", ""), ("a.jpg", kaggle_code(OVER))]
    table(root, "ImageId,EncodedPixels", *rows, name="train_ship_segmentations_v2.csv")
    assert converters.recognise(root) == "rle_table"
    found, notes = read(root)
    assert_objects(found["train_v2/a"], ("object", ONE), ("object", OVER))
    assert found["train_v2/b"] == []
    unnamed, note = notes
    assert "column by column, the first pixel being 1: nothing shows first_pixel" in note
    assert "v2.csv: has no column of classes, all objects are called 'object': say" in unnamed
    (root / "rle_table.yaml").write_text("object: ship\n")
    found, notes = read(root)
    assert_objects(found["train_v2/a"], ("ship", ONE), ("ship", OVER))
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("ImageId_ClassId,EncodedPixels", lambda i, c, code: (f"{i}.jpg_{c}", code)),
        ("ImageId,ClassId,EncodedPixels", lambda i, c, code: (f"{i}.jpg", c, code)),
        ("Image_Label,EncodedPixels", lambda i, c, code: (f"{i}.jpg_{c}", code)),
        ("id,class,segmentation", lambda i, c, code: (i, c, code)),
        ("ImageId,ClassId,EncodedPixels", lambda i, c, code: (i, f"{c}.0", code)),
    ],
    ids=["severstal 2019", "severstal", "clouds", "uw-madison", "floats"],
)
def test_classes(header, row, root):
    put(root, "train/x_1.jpg", "train/y.jpg")
    objects = [row("x_1", 1, kaggle_code(ONE)), row("x_1", 4, kaggle_code(TWO))]
    table(root, header, *objects, row("y", 2, ""))
    assert converters.label_space(root).names == ("1", "2", "4")
    found, _ = read(root)
    assert_objects(found["train/x_1"], ("1", ONE), ("4", TWO))
    assert found["train/y"] == []
    (root / "rle_table.yaml").write_text("classes: {1: crack, 2: hole, 4: scratch}\n")
    assert converters.label_space(root).names == ("crack", "hole", "scratch")
    assert_objects(read(root)[0]["train/x_1"], ("crack", ONE), ("scratch", TWO))


def test_nuclei_lie_in_folders_of_their_own(root):
    put(root, "stage1_train/n1/images/n1.png", "stage1_train/n1/masks/n1.png")
    table(root, "ImageId,EncodedPixels", ("n1", kaggle_code(ONE)), ("n1", kaggle_code(TWO)))
    found, _ = read(root)
    assert_objects(found["stage1_train/n1/images/n1"], ("object", ONE), ("object", TWO))


def test_siim_counts_from_the_run_before(root):
    put(root, "train/a.png", "train/b.png")
    table(
        root,
        "ImageId, EncodedPixels",
        ("a", " " + kaggle_code(ONE, relative=True)),
        ("b", " -1"),
    )
    found, notes = read(root)
    assert_objects(found["train/a"], ("object", ONE))
    assert found["train/b"] == []
    assert any("each start from the end of the run before" in note for note in notes)


@pytest.mark.parametrize("broken", ["1 5 3 5", "31 5 1 5", "31 5 21 5 11 5", "5 9 5 9 5 9 5 9"])
def test_a_broken_row_among_few_makes_no_relative_table(broken, root):
    put(root, "train/a.png", "train/b.png")
    table(root, "id,class,rle", ("a", "cat", broken), ("b", "dog", "100 10"))
    with pytest.raises(DataError, match=r"row 2: expected sorted runs .*'relative: true'"):
        read(root)
    found, _ = read(root, skips_broken=True)
    ((label, mask),) = found["train/b"]
    assert label == "dog"
    assert np.flatnonzero(mask.T).tolist() == list(range(99, 109))


def test_sartorius_says_how_large_images_are(root):
    put(root, "train/a.png", "train/b.png")
    header = "id,annotation,width,height,cell_type"
    code = kaggle_code(ONE, by_columns=False)
    rows = [("a", code, 30, 20, "cort"), ("b", code, 20, 30, "cort")]
    table(root, header, *rows)
    with pytest.raises(DataError, match=r"train.csv: row 3: expected .* height 30, found 20"):
        read(root)
    found, _ = read(root, skips_broken=True)
    assert_objects(found["train/a"], ("cort", ONE))


@pytest.mark.parametrize(("mark", "name"), [(";", "train.csv"), ("\t", "train.tsv")])
def test_other_marks_between_columns(mark, name, root):
    put(root, "train/a.png")
    rows = ["image,class,rle", f"a.png,cort,{kaggle_code(ONE)}"]
    (root / name).write_text("\n".join(rows).replace(",", mark))
    assert converters.recognise(root) == "rle_table"
    found, _ = read(root)
    assert_objects(found["train/a"], ("cort", ONE))


@pytest.mark.parametrize("code", ["1_0 5", "\u0661 5", "\uff11 5"])
def test_numbers_as_only_python_reads_them_are_refused(code, root):
    put(root, "train/a.png")
    table(root, "image,class,rle", ("a", "cort", code))
    with pytest.raises(DataError, match=r"train.csv: row 2: expected a code of whole numbers"):
        read(root)
    with pytest.raises(ValueError, match="expected whole numbers"):
        decode_rle(code, SIZE)


def test_codes_that_excel_has_cut_off_are_refused(root):
    put(root, "train/a.png", "train/b.png", size_hw=(400, 400))
    code = " ".join(f"{start} 1" for start in range(10001, 99999, 2))
    cut = code[: 2**15 - 1]
    assert len(cut.split()) % 2 == 0
    header = "image,class,rle"
    table(root, header, ("a", "cort", cut), ("b", "cort", "1 2"))
    with pytest.raises(DataError, match=r"row 2: expected a whole code, found one that ends after"):
        read(root)
    found, _ = read(root, skips_broken=True)
    assert set(found) == {"train/b"}
    table(root, header, ("a", "cort", cut), ("b", "cort", code))
    found, _ = read(root)
    assert set(found) == {"train/a", "train/b"}


def test_our_submissions_count_row_by_row(root):
    put(root, "train/a.png", size_hw=(20, 20))
    square = disk(6, 9, 4, (20, 20))
    table(root, "image_name,class,rle", ("a.png", "Ulna", kaggle_code(square, by_columns=False)))
    with pytest.raises(ValueError, match=r"none that is known among train\.csv"):
        converters.recognise(root)
    found, notes = read(root, format="rle_table")
    assert_objects(found["train/a"], ("Ulna", square))
    assert "row by row, the first pixel being 1: nothing shows order and first_pixel" in notes[0]


@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("first", [0, 1])
def test_codes_show_how_pixels_are_counted(by_columns, first, root):
    put(root, "train/a.png")
    corner, last = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    corner[:3, :4], last[-3:, -4:] = 1, 1
    masks = [ONE, TWO, corner, last]
    rows = [("a", kaggle_code(mask, by_columns=by_columns, first=first)) for mask in masks]
    table(root, "id,rle", *rows)
    found, notes = read(root)
    assert_objects(found["train/a"], *(("object", mask) for mask in masks))
    # A run that ends with the image says that the first is 1.
    assert [note for note in notes if "codes are read" in note] == []


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", ["columns", "rows"])
def test_what_the_options_say_counts(order, first, root):
    put(root, "train/a.png", size_hw=(20, 20))
    mask = disk(6, 9, 4, (20, 20))
    code = kaggle_code(mask, by_columns=order == "columns", first=first)
    table(root, "picture,code", ("a", code))
    options = f"order: {order}\nfirst_pixel: {first}\nimage: picture\nrle: code\nobject: cell\n"
    (root / "rle_table.yaml").write_text(options + "relative: false\n")
    found, notes = read(root)
    assert_objects(found["train/a"], ("cell", mask))
    assert notes == []


def test_test_tables_and_submissions(root):
    put(root, "train/a.png", "test/b.png")
    code = kaggle_code(ONE)
    table(root, "id,rle", ("a", code))
    table(root, "id,rle", ("b", code), name="test.csv")
    table(root, "id,rle", ("b", "1 2"), name="sample_submission.csv")
    assert list(read(root, subset="train")[0]) == ["train/a"]
    assert list(read(root, subset="test")[0]) == ["test/b"]
    assert list(read(root, subset="all")[0]) == ["test/b", "train/a"]


def test_images_in_no_table_are_left_out_and_said(root):
    put(root, "train/a.png", "train/b.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    found, notes = read(root)
    assert list(found) == ["train/a"]
    assert any("left out 1 images that no table names (train/b.png)" in note for note in notes)


def test_paths_of_another_place_are_said(root):
    put(root, "train/one/k0.png", "train/two/k0.png", "train/k1.png")
    rows = [("two/k0.png", kaggle_code(ONE)), ("../x/k1.jpg", kaggle_code(TWO))]
    table(root, "id,rle", *rows)
    found, notes = read(root)
    assert list(found) == ["train/k1", "train/two/k0"]
    said = [note for note in notes if "last part" in note]
    assert len(said) == 1
    assert "1 images were found by the last part of their path, such as '../x/k1.jpg'" in said[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "1 2 3"), r"train.csv: row 3: expected pairs 'start length', found 3 numbers"),
        (("a", "1 x"), r"train.csv: row 3: expected a code of whole numbers .*found '1 x'"),
        (("a", "1 0"), r"row 3: expected starts of at least 0 and lengths .*found '1 0'"),
        (("a", "-4 3"), r"row 3: expected starts of at least 0 .*found '-4 3'"),
        (("a", "599 5"), r"row 3: expected 600 pixels \(20 x 30\), found a run that ends at 603"),
        (("a", "5 9 7 3 400 20"), r"row 3: expected sorted runs that do not overlap"),
        (("a", "1 2", "3"), r"row 3: expected 2 columns, found 3"),
        (("", "1 2"), r"row 3: expected the name of an image, found none"),
        (("z", "1 2"), r"row 3: expected one image 'z' in the folder, found none"),
        (("twice", "1 2"), r"row 3: expected one image 'twice' in the folder, found 2, such as"),
        (("broken", "1 2"), "train/broken.png: expected an image, found a file without a read"),
    ],
    ids=lambda value: value[1][:12] if isinstance(value, tuple) else None,
)
def test_broken_rows(row, message, root):
    put(root, "train/a.png", "one/twice.png", "two/twice.png")
    (root / "train" / "broken.png").write_bytes(b"no image")
    table(root, "ImageId,EncodedPixels", ("a.png", kaggle_code(TWO)), row)
    with pytest.raises(DataError, match=message) as error:
        read(root)
    assert len(error.value.problems) == 1


def test_codes_that_contradict_each_other(root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", "0 5"), ("a", "597 4"))
    with pytest.raises(DataError, match=r"train.csv: .*found 0 in row 2 and a run .* in row 3"):
        read(root)


def test_an_image_in_two_tables(root):
    put(root, "train/a.png")
    for name in ("train.csv", "train_v2.csv"):
        table(root, "id,rle", ("a", kaggle_code(ONE)), name=name)
    with pytest.raises(DataError, match=r"train_v2.csv: row 2: .*in train.csv too: keep one"):
        read(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("order: column\n", "rle_table.yaml: 'order': expected columns or rows, found 'column'"),
        ("first_pixel: true\n", "'first_pixel': expected 0 or 1, found True"),
        ("start: 0\n", "'start': expected one of order, first_pixel"),
        ("classes: 3\n", "'classes': expected a list of names"),
        ("classes: [[a]]\n", "'classes': expected a list of names"),
        ("classes: [null]\n", "'classes': expected a list of names"),
        ("classes: {1: [a]}\n", "'classes': expected a list of names"),
        ("classes: {1: ''}\n", "'classes': expected a list of names"),
        ("classes: [a, a]\n", "'classes': expected each name once"),
        ("image: 3\n", "'image': expected a text, found 3"),
        ("- 3\n", "a mapping of keys"),
    ],
)
def test_broken_options(options, message, root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    (root / "rle_table.yaml").write_text(options)
    with pytest.raises(ValueError, match=message):
        read(root)


@pytest.mark.parametrize("content", [b'id,rle\na,"1 2\n', b"id,rle\na,\xff\xfe\n"])
def test_a_table_that_is_none(content, root):
    put(root, "train/a.png")
    (root / "train.csv").write_bytes(content)
    for labels in (None, LabelSpace("mine", ("object",))):
        with pytest.raises(ValueError, match=r"train.csv: expected a CSV file in UTF-8"):
            converters.read(root, labels=labels)


def test_a_broken_table_beside_a_sound_one(root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    (root / "more.csv").write_text('id,rle\na,"1 2\n')
    with pytest.raises(DataError, match=r"more.csv: expected a CSV file in UTF-8"):
        read(root)


@pytest.mark.parametrize(
    "row", ["5 9223372036854775807", "1 1 9223372036854775807 9223372036854775807 5 5"]
)
def test_numbers_whose_sum_overflows_are_a_problem_of_their_row(row, root):
    put(root, "train/a.png", "train/b.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)), ("b", row))
    with pytest.raises(DataError, match=r"row 3: expected starts and lengths inside an image"):
        read(root)


def test_our_submissions_beside_a_table_are_no_part_of_it(root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    table(root, "image_name,class,rle", ("a.png", "bone", "1 2"), name="fused.csv")
    found, notes = read(root)
    assert_objects(found["train/a"], ("object", ONE))
    assert any("left out tables in the form of our submissions: fused.csv" in n for n in notes)


def test_options_that_fit_no_table_are_said(root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    (root / "rle_table.yaml").write_text("image: picture\n")
    with pytest.raises(ValueError, match=r"found none: say in rle_table.yaml what they are called"):
        read(root)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.symlink_to("gone.yaml")])
def test_options_that_cannot_be_read_are_not_passed_over(make, root):
    put(root, "train/a.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)))
    make(root / "rle_table.yaml")
    with pytest.raises(ValueError, match=r"rle_table.yaml: expected any of order"):
        read(root)


def test_no_table_at_all(root):
    put(root, "train/a.png")
    table(root, "id,age", ("a", 3))
    with pytest.raises(ValueError, match=r"expected a CSV file with columns such as ImageId"):
        converters.read(root, format="rle_table", labels=LabelSpace("mine", ("object",)))


@pytest.mark.parametrize("layout", ["columns", "rows", "columns0", "rows0"])
def test_written_codes_are_kaggles(layout, root, draw, tmp_path, labels):
    sample = draw("two parts")
    converters.write([sample], tmp_path / "out", format="rle_table", layout=layout, labels=labels)
    with (tmp_path / "out" / "train.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    mask = rasterize(sample.instances[0].geometry, sample.size_hw).full(sample.size_hw)
    code = kaggle_code(
        mask, by_columns=layout.startswith("columns"), first=0 if layout.endswith("0") else 1
    )
    assert row == {
        "ImageId": sample.image.name,
        "ClassId": "Radius",
        "EncodedPixels": code,
    }


def cells(root, names=("cell",)):
    """Two images; of the first class two objects that touch, of the others one."""
    put(root, "train/a.png", "train/b.png")
    shapes = [Instance(names[0], box(2, 2, 9, 9)), Instance(names[0], box(9, 5, 15, 12))]
    shapes += [Instance(name, box(20, 2, 25, 15)) for name in names[1:]]
    return [
        Sample("a", root / "train/a.png", SIZE, tuple(shapes)),
        Sample("b", root / "train/b.png", SIZE),
    ]


@pytest.mark.parametrize("layout", ["dsb2018", "airbus"])
def test_writes_as_competitions_of_one_class_want_it(layout, root, tmp_path):
    labels = LabelSpace("cells", ("cell",))
    samples = cells(root)
    loss = converters.write(
        samples, tmp_path / "out", format="rle_table", labels=labels, layout=layout
    )
    assert not loss
    with (tmp_path / "out/train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ImageId", "EncodedPixels"]
    suffix = "" if layout == "dsb2018" else ".png"
    codes = [kaggle_code(rasterize(one.geometry, SIZE).full(SIZE)) for one in samples[0].instances]
    assert rows == [[f"a{suffix}", code] for code in codes] + [[f"b{suffix}", ""]]
    back = {sample.key: sample for sample in converters.read(tmp_path / "out")}
    assert [one.label for one in back["a"].instances] == ["cell", "cell"]
    two = LabelSpace("two", ("cell", "nucleus"))
    with pytest.raises(ValueError, match="expected one class, as it names none, found 2"):
        converters.write(samples, tmp_path / "no", format="rle_table", labels=two, layout=layout)
    assert not (tmp_path / "no").exists()


def test_writes_a_row_an_image_and_class_as_severstal_wants_it(root, tmp_path):
    labels = LabelSpace("steel", ("scratch", "dent", "hole"))
    samples = cells(root, ("scratch", "hole"))
    loss = converters.write(
        samples, tmp_path / "out", format="rle_table", labels=labels, layout="severstal"
    )
    assert (loss.objects, loss.masks) == (2, 1)
    with (tmp_path / "out/train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ImageId_ClassId", "EncodedPixels"]
    first, second, third = (rasterize(o.geometry, SIZE).full(SIZE) for o in samples[0].instances)
    expected = [kaggle_code(first | second), "", kaggle_code(third), "", "", ""]
    keys = [f"{name}.png_{number}" for name in "ab" for number in (1, 2, 3)]
    assert rows == [list(pair) for pair in zip(keys, expected, strict=True)]
    back = converters.read(tmp_path / "out", labels=labels)
    assert [one.label for one in back[0].instances] == ["scratch", "hole"]


def test_images_may_lie_elsewhere(root, tmp_path):
    put(root, "pictures/a.png")
    (tmp_path / "tables").mkdir()
    mask = disk(10, 8, 5)
    table(
        tmp_path / "tables", "ImageId,ClassId,EncodedPixels", ["a.png", "cell", kaggle_code(mask)]
    )
    (sample,) = converters.read(tmp_path / "tables", images=root)
    assert (sample.key, sample.image) == ("pictures/a", root / "pictures/a.png")


def test_a_dot_in_a_name_begins_no_suffix(root):
    put(root, "a.b.png", "a.png")
    table(root, "ImageId,ClassId,EncodedPixels", ["x/a.b", "cell", "5 9"], ["a.jpg", "cell", "9 9"])
    found = {sample.key: len(sample.instances) for sample in converters.read(root)}
    assert found == {"a.b": 1, "a": 1}


@pytest.mark.parametrize("images", [("a.jpg", "b_1.jpg"), ("a", "b_1")])
def test_one_column_whose_classes_have_its_mark(root, images):
    """By the image's suffix, else by the names of the images that are there."""
    put(root, "train_images/a.jpg", "train_images/b_1.jpg")
    a, b = images
    rows = [(f"{a}_vessel_wall", kaggle_code(ONE)), (f"{b}_lumen", kaggle_code(TWO))]
    table(root, "Image_Label,EncodedPixels", *rows, (f"{b}_vessel_wall", ""))
    assert set(converters.label_space(root).names) == {"vessel_wall", "lumen"}
    found, _ = read(root)
    assert_objects(found["train_images/a"], ("vessel_wall", ONE))
    assert_objects(found["train_images/b_1"], ("lumen", TWO))


def test_one_column_whose_classes_the_options_name(root):
    put(root, "train/a.jpg", "train/a_vessel.jpg")
    (root / "rle_table.yaml").write_text("classes: {vessel_wall: wall}\n")
    table(root, "Image_Label,EncodedPixels", ("a_vessel_wall", kaggle_code(ONE)))
    found, _ = read(root)
    assert_objects(found["train/a"], ("wall", ONE))


def test_images_of_a_test_folder_are_to_be_answered(root):
    put(root, "train_images/a.jpg", "train_images/b.jpg", "test_images/c.jpg")
    table(root, "ImageId,ClassId,EncodedPixels", ("a.jpg", "x", kaggle_code(ONE)))
    table(
        root, "ImageId,ClassId,EncodedPixels", ("c.jpg", "x", "1 1"), name="sample_submission.csv"
    )
    found, notes = read(root)
    assert list(found) == ["train_images/a"]
    assert any("left out 1 images that no table names (train_images/b.jpg)" in n for n in notes)
    assert read(root, subset="test")[0] == {"test/c": []}
    assert list(read(root, subset="all")[0]) == ["test/c", "train_images/a"]


def test_a_test_image_that_is_broken_is_named(root):
    put(root, "train_images/a.jpg")
    (root / "test_images").mkdir()
    (root / "test_images" / "c.jpg").write_bytes(b"none")
    table(root, "ImageId,ClassId,EncodedPixels", ("a.jpg", "x", kaggle_code(ONE)))
    assert list(read(root)[0]) == ["train_images/a"]
    with pytest.raises(DataError, match=r"test_images/c\.jpg: expected an image"):
        read(root, subset="all")
    assert list(read(root, subset="all", skips_broken=True)[0]) == ["train_images/a"]


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        (
            "train.csv",
            "test_images/c.jpg",
            r"row 3: expected one image 'c.jpg' .*, found none, but",
        ),
        (
            "val_rle.csv",
            "test/c.png",
            "row 3: expected one image 'c.jpg' in the folder, found none",
        ),
        ("test.csv", "train_images/c.jpg", "found none, but train_images/c.jpg of another part"),
    ],
)
def test_a_table_of_one_part_means_no_image_of_the_other(name, other, message, root):
    put(root, "images/a.jpg", other)
    rows = [(image, "x", kaggle_code(ONE)) for image in ("a.jpg", "c.jpg")]
    table(root, "ImageId,ClassId,EncodedPixels", *rows, name=name)
    for subset in ("train", "test", "all"):
        with pytest.raises(DataError, match=message):
            read(root, subset=subset)


def test_a_table_of_training_images_may_name_a_folder_of_test_images(root):
    put(root, "train/a.jpg", "test/c.jpg")
    rows = [(image, "x", kaggle_code(ONE)) for image in ("a.jpg", "test/c.jpg")]
    table(root, "ImageId,ClassId,EncodedPixels", *rows)
    assert list(read(root, subset="test")[0]) == ["test/c"]


@pytest.mark.parametrize("name", ["train_test_split.csv", "test-and-val.csv"])
def test_a_table_of_both_parts_leaves_the_division_to_the_folders(name, root):
    put(root, "train/a.png", "test/b.png")
    table(root, "id,rle", ("a", kaggle_code(ONE)), ("b", kaggle_code(TWO)), name=name)
    assert list(read(root, subset="train")[0]) == ["train/a"]
    assert list(read(root, subset="test")[0]) == ["test/b"]


def of_both(root, *pairs):
    codes = [kaggle_code(disk(5 + 3 * i, 9, 2 + i)) for i in range(len(pairs))]
    table(root, "Image_Label,EncodedPixels", *zip(pairs, codes, strict=True))


def test_a_class_that_another_row_has_for_certain_divides_a_text(root):
    put(root, "train/case.jpg", "train/case_big.jpg")
    of_both(root, "case_vessel", "case_big_vessel")
    found, _ = read(root)
    assert [(key, [label for label, _ in own]) for key, own in found.items()] == [
        ("train/case", ["vessel"]),
        ("train/case_big", ["vessel"]),
    ]
    put(root, "train/x.jpg")
    of_both(root, "x_big_vessel", "case_big_vessel")
    found, _ = read(root)
    assert [label for label, _ in found["train/case"]] == ["big_vessel"]


@pytest.mark.parametrize(
    "pairs",
    [
        ("case_vessel", "case_big_vessel", "case_big_vessel", "case_big_big_vessel"),
        ("x_vessel", "x_big_vessel", "case_big_vessel"),
        ("case_big_vessel",),
    ],
)
def test_a_text_that_may_be_divided_in_two_ways_is_refused(pairs, root):
    put(root, "train/case.jpg", "train/case_big.jpg", "train/x.jpg")
    of_both(root, *pairs)
    with pytest.raises(DataError, match=r"may be '(big_)+vessel' of 'case' or '.*' of 'case_big'"):
        converters.read(root, labels=LabelSpace("two", ("vessel", "big_vessel")))


def test_classes_that_the_options_name_need_their_image(root):
    put(root, "train/case.jpg", "train/case_big.jpg")
    (root / "rle_table.yaml").write_text("classes: [vessel, big_vessel]\n")
    of_both(root, "case_vessel", "case_big_vessel")
    with pytest.raises(
        DataError, match="row 3: expected IMAGE_CLASS, found 'case_big_vessel', which"
    ):
        read(root)


@pytest.mark.parametrize("folder", ["test_masks", "test-labels", "masks", "Test Annotations/x"])
def test_what_lies_in_a_folder_of_masks_is_no_image(folder, root):
    put(root, "train/a.png", "test/x.png", f"{folder}/x_mask.png", f"{folder}/a.png")
    table(root, "ImageId,EncodedPixels", ("a", kaggle_code(ONE)))
    assert list(read(root, subset="all")[0]) == ["test/x", "train/a"]


def test_an_image_in_a_folder_of_masks_by_its_name_has_to_be_named_with_it(root):
    put(root, "face_mask/a.png")
    table(root, "ImageId,EncodedPixels", ("a", kaggle_code(ONE)))
    with pytest.raises(DataError, match=r"found none, but face_mask/a\.png in a folder of masks"):
        read(root)
    table(root, "ImageId,EncodedPixels", ("face_mask/a.png", kaggle_code(ONE)))
    assert list(read(root)[0]) == ["face_mask/a"]


@pytest.mark.parametrize("place", ["test/a.png", "test_images/a.jpg"])
def test_two_test_images_of_one_key_are_refused(place, root):
    put(root, "train/b.png", "test/a.jpg", place)
    table(root, "ImageId,EncodedPixels", ("b", kaggle_code(ONE)))
    with pytest.raises(DataError, match="expected one image of this key"):
        read(root, subset="test")


@pytest.mark.parametrize(
    ("header", "row", "is_clear"),
    [
        ("image,class,class,rle", ("a.png", "x", "y", "1 2"), False),
        ("image,class,rle,EncodedPixels", ("a.png", "x", "1 2", "5 2"), False),
        # Who has drawn it.
        ("image,class,rle,annotation", ("a.png", "x", "1 2", "Ann"), True),
    ],
)
def test_two_columns_that_may_be_meant(header, row, is_clear, root):
    put(root, "train/a.png")
    table(root, header, row)
    if is_clear:
        assert [label for label, _ in read(root)[0]["train/a"]] == ["x"]
        return
    with pytest.raises(ValueError, match=r"train\.csv: expected one column '.*', found '.*' and '"):
        converters.read(root)


def test_a_column_that_the_options_choose_is_taken(root):
    put(root, "train/a.png")
    table(root, "image,Class,class,rle", ("a.png", "x", "y", "1 2"))
    (root / "rle_table.yaml").write_text("class: Class\n")
    assert [label for label, _ in read(root)[0]["train/a"]] == ["x"]
