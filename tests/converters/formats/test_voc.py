"""Pascal VOC's masks: numbers and colours, objects, test images; and what is wrong with them."""

from __future__ import annotations

import shutil
import unicodedata

import cv2
import numpy as np
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.formats.mask_pixels import voc_palette
from converters.masks import rasterize_labels
from converters.types import LabelSpace

SIZE = (20, 30)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


@pytest.fixture
def root(tmp_path):
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    return tmp_path / "voc"


def numbers():
    values = np.zeros(SIZE, np.uint8)
    values[2:9, 3:12] = 1
    values[10:18, 5:25] = 2
    values[9] = 255
    return values


def put(root, name, values, *, as_palette=True, palette=None):
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), image)
    mask = Image.fromarray(values)
    if as_palette:
        mask.putpalette(palette or PALETTE + [0] * (3 * 255 - len(PALETTE)) + [224, 224, 192])
    mask.save(root / "SegmentationClass" / f"{name}.png")


def masks(root, **more):
    (sample,) = converters.read(root, **more)
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


@pytest.mark.parametrize("as_palette", [True, False])
def test_numbers_are_classes(as_palette, root):
    put(root, "a", numbers(), as_palette=as_palette)
    assert converters.recognise(root) == "voc"
    found = masks(root)
    assert set(found) == {"1", "2"}
    for number in (1, 2):
        np.testing.assert_array_equal(found[str(number)], numbers() == number)


VOC = voc_palette()


@pytest.mark.parametrize(
    ("name", "palette", "names"),
    [
        ("2007_000032", VOC, ("aeroplane", "bicycle")),
        ("000032", VOC, ("1", "2")),  # others draw in this palette, too
        ("2007_000032", [*VOC[:3], 9, 9, 9, *VOC[6:]], ("1", "2")),
    ],
)
def test_pascal_voc_s_own_masks_have_its_classes_and_what_is_assumed_is_said(
    name, palette, names, root
):
    put(root, name, numbers(), palette=palette)
    assert converters.label_space(root).names == names
    notes: list[str] = []
    found = masks(root, note=notes.append)
    for number, label in enumerate(names, 1):
        np.testing.assert_array_equal(found[label], numbers() == number)
    is_its = "they are PASCAL VOC's" if names[0] != "1" else "which are called by their numbers"
    assert len(notes) == 1
    assert f"{is_its} ({', '.join(names)})" in notes[0]


def test_all_numbers_of_pascal_voc_are_its_classes(root):
    values = np.repeat(np.arange(20, dtype=np.uint8)[:, None] + 1, 30, axis=1)
    put(root, "000032", values, palette=VOC)
    found = converters.label_space(root).names
    assert (len(found), found[7], found[19]) == (20, "cat", "tvmonitor")


def test_names_are_given_by_aliases(root):
    put(root, "a", numbers())
    mine = LabelSpace("mine", ("dog", "cat"), aliases={"1": "cat", "2": "dog"})
    assert masks(root, labels=mine)["cat"].sum() == (numbers() == 1).sum()


@pytest.mark.parametrize("as_palette", [True, False])
def test_colours_are_named_by_a_labelmap(as_palette, root):
    values = numbers()
    values[9] = 0
    if not as_palette:
        values = np.array(PALETTE, np.uint8).reshape(-1, 3)[values]
    put(root, "a", values, as_palette=as_palette)
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"
    (root / "labelmap.txt").write_text(lines)
    assert converters.label_space(root).names == ("cat", "dog")
    np.testing.assert_array_equal(masks(root)["cat"], (numbers() == 1))


def test_objects_are_told_apart(root):
    put(root, "a", numbers())
    objects = (numbers() == 2).astype(np.uint8) * 3
    objects[:, 15:] *= 2
    (root / "SegmentationObject").mkdir()
    cv2.imwrite(str(root / "SegmentationObject" / "a.png"), objects)
    (sample,) = converters.read(root)
    assert [one.label for one in sample.instances] == ["1", "2", "2"]


def test_test_images_and_images_without_masks(root):
    for name in ("a", "b"):
        put(root, name, numbers())
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("b\n")
    (root / "JPEGImages" / "c.jpg").write_bytes((root / "JPEGImages" / "a.jpg").read_bytes())
    notes = []
    assert [s.key for s in converters.read(root, note=notes.append)] == ["a"]
    assert [s.key for s in converters.read(root, subset="test")] == ["test/b"]
    assert {s.key for s in converters.list_images(root, subset="all")} == {"a", "test/b"}
    assert f"{root}: left out 1 images without a mask in SegmentationClass (c, ...)" in notes


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / "JPEGImages" / "a.jpg").unlink(), "expected an image of this name"),
        (lambda r: put(r, "a", numbers()[:9]), "expected a mask of"),
        (lambda r: (r / "SegmentationClass" / "a.png").write_bytes(b"?"), "expected a PNG"),
        (
            lambda r: (r / "labelmap.txt").write_text("cat"),
            "labelmap.txt: line 1: expected name:r,g,b",
        ),
        (
            lambda r: (r / "labelmap.txt").write_text("cat:1,2,3::"),
            "expected a colour of labelmap.txt",
        ),
    ],
)
def test_what_is_broken_is_one_line(break_it, message, root):
    for name in ("a", "b"):
        put(root, name, numbers())
    break_it(root)
    with pytest.raises(ValueError, match=message) as error:
        converters.read(root)
    problems = error.value.problems if isinstance(error.value, DataError) else [str(error.value)]
    assert all("\n" not in problem for problem in problems)


LABELMAP = "background:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:60], lambda b: b[:-30]])
def test_a_damaged_mask_in_colours_is_one_line(damage, folder, root):
    put(root, "a", numbers() % 255)
    (root / "labelmap.txt").write_text(LABELMAP)
    (root / folder).mkdir(exist_ok=True)
    content = (root / "SegmentationClass" / "a.png").read_bytes()
    (root / folder / "a.png").write_bytes(damage(content))
    with pytest.raises(DataError, match=rf"a.png: {folder}: expected a") as error:
        converters.read(root)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass"])
def test_two_files_of_one_name_are_not_one(folder, root):
    for name in ("a", "b"):
        put(root, name, numbers())
    first = next((root / folder).glob("a.*"))
    first.with_suffix(".tif").write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=rf"{folder}/a.tif: expected one file of this name, found"):
        converters.read(root)
    assert [s.key for s in converters.read(root, skips_broken=True)] == ["b"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (":128,0,0::\n", "line 1: expected name:r,g,b, found ':128"),
        ("cat:1,2,3\ncat:1,2,4\n", "line 2: expected one colour of 'cat', found another"),
    ],
)
def test_a_labelmap_names_each_class_once(lines, message, root):
    put(root, "a", numbers())
    (root / "labelmap.txt").write_text(lines)
    with pytest.raises(ValueError, match=rf"labelmap.txt: {message}"):
        converters.read(root)


@pytest.mark.parametrize("name", ["labelmap.txt", "ImageSets/Segmentation/test.txt"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: p.write_text("cat:128,0,0::\n", encoding="utf-16"),
            "found byte 0x.*: save it as UTF-8",
        ),
        (lambda p: p.mkdir(), "expected a text, found: Is a directory"),
        (lambda p: p.symlink_to(p.name), "expected a text, found: Too many levels"),
    ],
)
def test_a_list_that_cannot_be_read_is_not_passed_over(make, message, name, root):
    put(root, "a", numbers())
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    make(root / name)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        converters.read(root)


def test_names_of_test_images_that_are_not_there_are_said(root):
    put(root, "a", numbers())
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("gone\n")
    notes = []
    converters.read(root, note=notes.append)
    assert any("test.txt: left out 1 names without an image (gone)" in note for note in notes)


def test_what_other_lists_name_has_to_be_there(root):
    put(root, "a", numbers())
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("a.jpg\nJPEGImages/a.jpg\n\na 1\n")
    assert len(converters.read(root)) == 1
    (folder / "val.txt").write_text("gone\n")
    with pytest.raises(
        DataError, match=r"val\.txt: 'gone': expected its image and its mask, found"
    ):
        converters.read(root)
    assert len(converters.read(root, skips_broken=True)) == 1
    (root / "JPEGImages" / "gone.jpg").write_bytes((root / "JPEGImages" / "a.jpg").read_bytes())
    assert len(converters.read(root)) == 1  # an image without a mask is said
    (folder / "val.txt").write_text("gone\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"val\.txt: expected a text in UTF-8, found byte 0xff"):
        converters.read(root)


def test_without_any_sound_mask_the_first_broken_one_is_named(root):
    put(root, "a", numbers())
    (root / "SegmentationClass" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"SegmentationClass/a.png: expected a PNG"):
        converters.read(root)


def test_colours_without_a_labelmap_say_what_to_add(root):
    put(root, "a", numbers())
    put(root, "b", np.array(PALETTE, np.uint8).reshape(-1, 3)[numbers() % 4], as_palette=False)
    with pytest.raises(DataError, match="found colours: add labelmap"):
        converters.read(root)


# --- colours without a table

RED, PINK = (200, 0, 0), (255, 0, 127)
LAYOUTS = [("JPEGImages", "SegmentationClass"), ("images", "masks")]


def colours():
    values = np.zeros((*SIZE, 3), np.uint8)
    values[2:9, 3:12] = RED
    values[10:18, 5:25] = PINK
    values[9] = 224, 224, 192
    return values


def put_colours(root, layout, name, values, suffix=".png", **options):
    for folder, pixels, end in zip(layout, (values[..., 0], values), (".jpg", suffix), strict=True):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"{name}{end}", **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_colours_without_a_table_are_classes(layout, tmp_path):
    put_colours(tmp_path, layout, "a", colours())
    put_colours(tmp_path, layout, "black", np.zeros((*SIZE, 3), np.uint8))
    assert converters.recognise(tmp_path) == "voc"
    assert converters.label_space(tmp_path).names == ("color_c80000", "color_ff007f")
    sample, black = converters.read(tmp_path)
    assert (sample.key, black.key, len(black.instances)) == ("a", "black", 0)
    found = {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}
    for name, colour in (("color_c80000", RED), ("color_ff007f", PINK)):
        np.testing.assert_array_equal(found[name], (colours() == colour).all(axis=-1))
    mine = LabelSpace("mine", ("bone",), aliases={"color_ff007f": "bone"})
    sample, _ = converters.read(tmp_path, labels=mine)
    assert [one.label for one in sample.instances] == ["bone"]


def test_colours_in_folders_below_and_with_opaque_alpha(tmp_path):
    opaque = np.dstack([colours(), np.full(SIZE, 255, np.uint8)])
    for name in ("train/a", "test/a"):
        put_colours(tmp_path, LAYOUTS[1], name, colours())
        Image.fromarray(opaque).save(tmp_path / "masks" / f"{name}.png")
    assert [s.key for s in converters.read(tmp_path)] == ["train/a"]
    (sample,) = converters.read(tmp_path, subset="test")
    assert sample.key == "test/a"
    assert len(sample.instances) == 2


def test_a_table_names_colours_of_plain_folders_too(tmp_path):
    put_colours(tmp_path, LAYOUTS[1], "a", colours())
    (tmp_path / "labelmap.txt").write_text("bone:200,0,0::\nnail:255,0,127::\n")
    (sample,) = converters.read(tmp_path)
    assert sorted(one.label for one in sample.instances) == ["bone", "nail"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_smoothed_edges_are_refused(layout, tmp_path):
    sharp = np.zeros((200, 200, 3), np.uint8)
    cv2.circle(sharp, (90, 100), 60, RED, -1)
    cv2.circle(sharp, (130, 80), 40, PINK, -1)
    put_colours(tmp_path, layout, "a", cv2.GaussianBlur(sharp, (0, 0), 1.5))
    for read in (converters.read, converters.label_space):
        with pytest.raises(ValueError, match=r"a\.png: expected a colour for each class") as error:
            read(tmp_path)
        assert len(str(error.value).splitlines()) == 1


def test_our_masks_and_class_numbers_are_not_taken_for_colours(tmp_path):
    put_colours(tmp_path, LAYOUTS[1], "a", colours())
    (tmp_path / "labels.yaml").write_text("name: a\nnames: [b]\n")
    assert converters.recognise(tmp_path) == "masks"
    (tmp_path / "labels.yaml").unlink()
    Image.fromarray(numbers()).save(tmp_path / "masks" / "a.png")
    assert converters.recognise(tmp_path) == "mask_folders"


# --- labelme's


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationClassPNG"])
@pytest.mark.parametrize("first", ["", "__ignore__\n"])
def test_class_names_name_the_numbers(first, folder, root):
    put(root, "a", numbers())
    (root / "SegmentationClass").rename(root / folder)
    # Arrays of the same masks.
    (root / "SegmentationClass").mkdir(exist_ok=True)
    (root / "class_names.txt").write_text(f"{first}_background_\ndog\ncat\n")
    assert converters.label_space(root).names == ("dog", "cat")
    found = masks(root)
    np.testing.assert_array_equal(found["dog"], numbers() == 1)
    np.testing.assert_array_equal(found["cat"], numbers() == 2)


def test_a_number_behind_the_class_names_is_told(root):
    put(root, "a", numbers())
    (root / "class_names.txt").write_text("_background_\ndog\n")
    with pytest.raises(DataError, match=r"a.png: expected .* one of 2 in class_names.txt, found 2"):
        converters.read(root)


@pytest.mark.parametrize("how", ["empty", "folder"])
def test_an_empty_mask_and_a_table_that_is_a_folder_are_told(how, tmp_path):
    root = tmp_path / "voc"
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).mkdir(parents=True)
    cv2.imwrite(str(root / "JPEGImages" / "a.png"), np.zeros((8, 9, 3), np.uint8))
    mask = root / "SegmentationClass" / "a.png"
    if how == "empty":
        mask.write_bytes(b"")
        (root / "labelmap.txt").write_text("disc:128,0,0::\n")
        expected = "SegmentationClass: expected"
    else:
        cv2.imwrite(str(mask), np.zeros((8, 9, 3), np.uint8))
        (root / "labelmap.txt").mkdir()
        expected = "labelmap.txt: expected a text"
    with pytest.raises(ValueError, match=expected):
        converters.read(root, format="voc")


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("test/t.jpg", "test/t"),
        ("test_images/a/t.jpg", "test/a/t"),
        ("images/test2017/t.jpg", "images/test2017/t"),
    ],
)
def test_images_of_a_test_folder_without_masks_are_to_be_answered(place, key, tmp_path):
    put_colours(tmp_path, LAYOUTS[1], "a", colours())
    (tmp_path / place).parent.mkdir(parents=True)
    Image.fromarray(colours()).save(tmp_path / place)
    notes = []
    assert [s.key for s in converters.read(tmp_path, note=notes.append)] == ["a"]
    (one,) = converters.read(tmp_path, subset="test", note=notes.append)
    assert (one.key, one.instances) == (key, ())
    assert [s.key for s in converters.list_images(tmp_path, subset="test")] == [key]
    assert len(converters.read(tmp_path, subset="all", note=notes.append)) == 2
    assert not [note for note in notes if "left out" in note]


def test_images_that_a_list_names_without_masks_are_to_be_answered(root):
    for name in "ab":
        put(root, name, numbers())
    (root / "SegmentationClass" / "b.png").unlink()
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "test.txt").write_text("b\n")
    notes = []
    found = converters.read(root, subset="all", note=notes.append)
    assert {s.key: len(s.instances) > 0 for s in found} == {"a": True, "test/b": False}
    assert [s.key for s in converters.list_images(root, subset="test")] == ["test/b"]
    assert [s.key for s in converters.list_images(root, subset="train")] == ["a"]
    assert not any("without a mask" in note for note in notes)


def test_two_test_images_of_one_key_are_refused(tmp_path):
    put_colours(tmp_path, LAYOUTS[1], "a", colours())
    for place in ("test/t.png", "test/t.bmp", "test_images/t.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.fromarray(colours()).save(tmp_path / place)
    with pytest.raises(DataError, match=r"expected one image of this key, found .* and "):
        converters.read(tmp_path, subset="test")


def test_masks_of_test_images_elsewhere_are_said(tmp_path):
    put_colours(tmp_path, LAYOUTS[1], "a", colours())
    put_colours(tmp_path / "test", LAYOUTS[1], "t", colours())
    notes = []
    found = converters.read(tmp_path, subset="test", note=notes.append)
    assert [s.key for s in found] == ["test/images/t"]
    assert any("left out 1 masks of test images (test/masks/t.png)" in note for note in notes)


def test_masks_of_voc_and_sbd_have_voc_s_classes(root):
    put(root, "2007_000032", numbers(), as_palette=False)
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    assert set(masks(root)) == {"aeroplane", "bicycle"}
    (root / "SegmentationClass").mkdir()
    put(root, "2007_000032", numbers())
    notes: list[str] = []
    masks(root, note=notes.append)
    assert "left out 1 images that are no part of a pair of image and mask" in notes[-1]
    assert "(in SegmentationClassAug)" in notes[-1]


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("b", "JPEGImages/b.jpg"),
        ("b", "/JPEGImages/b.jpg /SegmentationClass/b.png"),
        ("my image", "my image"),
        (unicodedata.normalize("NFD", "bäume"), unicodedata.normalize("NFC", "bäume")),
    ],
)
def test_a_list_names_test_images_in_several_ways(named, line, root):
    for name in ("a", named):
        put(root, name, numbers())
    listed = root / "ImageSets/Segmentation/test.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text(f"{line}\n", encoding="utf-8")
    assert [s.key for s in converters.read(root)] == ["a"]
    assert [s.key for s in converters.read(root, subset="test")] == [f"test/{named}"]


def test_a_class_of_the_number_0_is_one_where_a_table_names_it(root):
    put(root, "a", numbers())
    (root / "class_names.txt").write_text("wall\nfloor\ndoor\n")
    found = masks(root)
    np.testing.assert_array_equal(found["wall"], numbers() == 0)
    np.testing.assert_array_equal(found["door"], numbers() == 2)


def test_pairs_in_folders_are_read_and_hidden_ones_are_not(root):
    for folder in ("later", "test", ".ipynb_checkpoints"):
        for home in ("JPEGImages", "SegmentationClass"):
            (root / home / folder).mkdir()
        put(root, f"{folder}/b", numbers())
    elsewhere = root.parent / "elsewhere"
    for home in ("JPEGImages", "SegmentationClass"):
        (elsewhere / home).mkdir(parents=True)
    put(elsewhere, "c", numbers())
    for home in ("JPEGImages", "SegmentationClass"):
        (root / home / "linked").symlink_to(elsewhere / home)
    put(root, "a", numbers())
    assert [s.key for s in converters.read(root)] == ["a", "later/b", "linked/c"]
    assert [s.key for s in converters.read(root, subset="test")] == ["test/b"]


@pytest.mark.parametrize(
    "line",
    ["/home/me/VOC2012/JPEGImages/{}.jpg", "VOC2012/JPEGImages/{}.jpg", "{0}.jpg,x/{0}.png"],
)
@pytest.mark.parametrize("place", ["ImageSets/Segmentation", "ImageSets", "."])
@pytest.mark.parametrize("name", ["test.txt", "Testing.txt"])
def test_test_images_as_others_list_them(line, place, name, root):
    for key in "abc":
        put(root, key, numbers())
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / name).write_text(line.format("b") + "\n")
    assert [s.key for s in converters.read(root)] == ["a", "c"]
    assert [s.key for s in converters.read(root, subset="test")] == ["test/b"]


@pytest.mark.parametrize(
    ("parts", "tests"), [(("train", "valid", "test"), ["test/a"]), (("task_1", "task_2"), [])]
)
def test_exports_beside_each_other(parts, tests, tmp_path):
    """CVAT's, of parts or tasks: each has a table, and objects of its own."""
    for number, part in enumerate(parts):
        (tmp_path / part / "JPEGImages").mkdir(parents=True)
        (tmp_path / part / "SegmentationClass").mkdir()
        (tmp_path / part / "SegmentationObject").mkdir()
        colours = np.zeros((*SIZE, 3), np.uint8)
        colours[2:9, 3:12] = colours[2:9, 12:20] = (9, 0, 0)
        objects = colours.copy()
        objects[2:9, 12:20] = (0, 9, 0)
        put(tmp_path / part, "a", colours, as_palette=False)
        Image.fromarray(objects).save(tmp_path / part / "SegmentationObject" / "a.png")
        other = f"sort_{number}:0,0,9::\n"
        (tmp_path / part / "labelmap.txt").write_text(f"background:0,0,0::\ntumor:9,0,0::\n{other}")
    assert converters.recognise(tmp_path) == "voc"
    sorts = {f"sort_{number}" for number in range(len(parts))}
    assert {*converters.label_space(tmp_path).names} == {"tumor", *sorts}
    found = converters.read(tmp_path, subset="all")
    assert [s.key for s in found] == [f"{part}/a" for part in sorted(parts)]
    assert [[one.label for one in s.instances] for s in found] == [["tumor", "tumor"]] * len(parts)
    assert [s.key for s in converters.read(tmp_path, subset="test")] == tests
    listed = converters.read(tmp_path)
    assert [s.key for s in listed] == [f"{part}/a" for part in parts if f"{part}/a" not in tests]


def test_data_sets_beside_each_other_are_several(tmp_path):
    for name in ("cats", "roads"):
        for folder in ("JPEGImages", "SegmentationClass"):
            (tmp_path / name / folder).mkdir(parents=True)
        put(tmp_path / name, name, numbers())
    assert converters.recognise(tmp_path) != "voc"
    (tmp_path / "roads").rename(tmp_path / "cats_test")
    assert converters.recognise(tmp_path) == "voc"


def test_sets_beside_each_other_are_named(tmp_path):
    root = tmp_path / "zoo"
    for name in ("cheetah", "fox"):
        for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
            (root / name / folder).mkdir(parents=True)
        for stem in "ab":
            put(root / name, stem, numbers())
            objects = root / name / "SegmentationObject" / f"{stem}.png"
            shutil.copy(root / name / "SegmentationClass" / f"{stem}.png", objects)
    with pytest.raises(ValueError, match=r"2 in folders below: give .*cheetah or .*fox"):
        converters.recognise(root)
