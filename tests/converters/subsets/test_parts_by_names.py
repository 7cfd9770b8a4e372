"""Test images that folders, names or lists of others call so in their own words."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import converters
from converters.subsets.names import is_test_name, part_of

SIZE = (20, 30)
AREA = 7 * 9


def put(root: Path, *places: str, value: int | None = None) -> None:
    """Write images, no two of which are the same, or with a value masks of one square."""
    for place in places:
        grey = 60 + zlib.crc32(place.encode()) % 120
        pixels = np.full(SIZE, grey, np.uint8)
        if value is not None:
            pixels = np.zeros(SIZE, np.uint8)
            pixels[2:9, 3:12] = value
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / place), pixels)


def names(root: Path, subset: str) -> list[str]:
    return sorted(sample.image.name for sample in converters.read(root, subset=subset))


def check_parts(root: Path, train: Sequence[str], test: Sequence[str]) -> None:
    assert names(root, "train") == sorted(train)
    assert names(root, "test") == sorted(test)
    assert names(root, "all") == sorted([*train, *test])


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("test", True),
        ("TestSet", True),
        ("TESTSET", True),
        ("testB", True),
        ("test_public", True),
        ("test-dev2017", True),
        ("stage2_test_final", True),
        ("Test Images", True),
        ("tensile_test", False),
        ("latest", False),
        ("contest", False),
        ("testimony", False),
        ("train_test", False),
    ],
)
def test_what_a_name_says(name: str, is_test: bool) -> None:
    assert is_test_name(name) == is_test


def test_words_that_capitals_divide() -> None:
    assert [part_of(name) for name in ("TestSet.json", "testA", "TrainSet", "trainTest")] == [
        "test",
        "test",
        "train",
        "",
    ]


@pytest.mark.parametrize(
    ("train", "train_masks", "test", "test_masks"),
    [
        ("ISIC_Training_Data", "ISIC_Training_GT", "ISIC_Test_v2_Data", "ISIC_Test_v2_GT"),
        ("train/images", "train/masks", "testA/images", "testA/masks"),
        ("train/images", "train/masks", "hidden_test/images", "hidden_test/masks"),
        ("uavid_train/Images", "uavid_train/Labels", "uavid_test/Images", "uavid_test/Labels"),
    ],
)
def test_folders_of_test_images_with_masks(
    train: str, train_masks: str, test: str, test_masks: str, tmp_path: Path
) -> None:
    for name in "ab":
        put(tmp_path, f"{train}/{name}.png")
        put(tmp_path, f"{train_masks}/{name}.png", value=1)
    put(tmp_path, f"{test}/c.png")
    put(tmp_path, f"{test_masks}/c.png", value=1)
    check_parts(tmp_path, ["a.png", "b.png"], ["c.png"])


def test_a_folder_of_something_that_is_called_test_is_learned_from(tmp_path: Path) -> None:
    for place in ("tensile_test", "microscopy"):
        put(tmp_path, f"{place}/images/{place}.png")
        put(tmp_path, f"{place}/masks/{place}.png", value=1)
    check_parts(tmp_path, ["microscopy.png", "tensile_test.png"], [])


def test_names_of_files(tmp_path: Path) -> None:
    for name in ("train_1", "train_2", "testA_1"):
        put(tmp_path, f"{name}.bmp")
        put(tmp_path, f"{name}_anno.bmp", value=1)
    check_parts(tmp_path, ["train_1.bmp", "train_2.bmp"], ["testA_1.bmp"])


def test_names_of_files_that_are_not_all_of_a_part_say_nothing(tmp_path: Path) -> None:
    for name in ("rail_1", "train_2", "test_1"):
        put(tmp_path, f"images/{name}.bmp")
        put(tmp_path, f"masks/{name}.bmp", value=1)
    check_parts(tmp_path, ["rail_1.bmp", "test_1.bmp", "train_2.bmp"], [])


@pytest.mark.parametrize("place", ["test.txt", "splits/Test.txt", "annotations/testing.csv"])
@pytest.mark.parametrize(
    "line",
    ["{}", "{}.png", "images/{}.png masks/{}.png", "{} 1 1 1", "/data/set/images/{}.png,x", '"{}"'],
)
def test_lists_beside_the_folders(place: str, line: str, tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, f"images/{name}.png")
        put(tmp_path, f"masks/{name}.png", value=1)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(f"# names\n{line.replace('{}', 'b')}\n", encoding="utf-8-sig")
    check_parts(tmp_path, ["a.png", "c.png"], ["b.png"])


def test_a_list_of_all_images_is_not_believed(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path, f"images/{name}.png")
        put(tmp_path, f"masks/{name}.png", value=1)
    (tmp_path / "test.txt").write_text("a\nb\n")
    check_parts(tmp_path, ["a.png", "b.png"], [])


def test_copies_of_test_images_are_not_learned_from(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, f"images/{name}.png")
        put(tmp_path, f"masks/{name}.png", value=1)
    for folder in ("images", "masks"):
        (tmp_path / "test" / folder).mkdir(parents=True)
        shutil.copy(tmp_path / folder / "b.png", tmp_path / "test" / folder)
    put(tmp_path, "test/images/c.png")  # another image of that name
    put(tmp_path, "test/masks/c.png", value=1)
    notes: list[str] = []
    found = converters.read(tmp_path, note=notes.append)
    assert [sample.key for sample in found] == ["a", "c"]
    assert any("left out 1 images that are test images, too (b)" in note for note in notes)


def test_test_images_of_the_same_names_as_others(tmp_path: Path) -> None:
    """KITTI: masks of the training images alone; the test images have the same names."""
    for name in "ab":
        put(tmp_path, f"training/image_02/{name}.png", f"testing/image_02/{name}.png")
        put(tmp_path, f"instances/{name}.png", value=1)
    found = converters.read(tmp_path, subset="all")
    masked = {sample.image.parts[-3] for sample in found if sample.instances}
    assert masked == {"training"}
    assert len(converters.read(tmp_path, subset="test")) == 2


def test_stages_of_a_competition(tmp_path: Path) -> None:
    for name in ("p", "q"):
        put(tmp_path, f"stage1_train/{name}/images/{name}.png")
        put(tmp_path, f"stage1_train/{name}/masks/{name}1.png", value=255)
    put(tmp_path, "stage1_test/r/images/r.png")
    check_parts(tmp_path, ["p.png", "q.png"], ["r.png"])


# --- pairs


def areas(root: Path) -> dict[str, dict[str, float]]:
    found = converters.read(root, subset="all")
    return {s.image.name: {one.label: one.geometry.area for one in s.instances} for s in found}


def test_masks_of_two_collections_in_one_folder(tmp_path: Path) -> None:
    put(tmp_path, "images/M_1.png", "images/C_1.png")
    put(tmp_path, "masks/M_1.png", "masks/C_1_mask.png", value=255)
    assert [*areas(tmp_path)] == ["C_1.png", "M_1.png"]
    assert all(len(own) == 1 for own in areas(tmp_path).values())


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("train/train-org-img/a.png", "train/train-label-img/a_lab.png"),
        ("2_Ortho_RGB/top_1_RGB.png", "5_Labels_all/top_1_label.png"),
        ("Slide_01/01_a.png", "GT_01/01_a.png"),
        ("images/train2017/a.png", "stuffthingmaps/train2017/a.png"),
    ],
)
def test_layouts_of_public_data_sets(image: str, mask: str, tmp_path: Path) -> None:
    put(tmp_path, image)
    put(tmp_path, mask, value=1)
    assert [*areas(tmp_path)] == [Path(image).name]
    assert all(len(own) == 1 for own in areas(tmp_path).values())


def test_folders_of_classes_whose_masks_have_their_letters(tmp_path: Path) -> None:
    put(tmp_path, "images/I_1.png")
    for label, end in (("exudates", "EX"), ("haemorrhages", "HE")):
        put(tmp_path, f"masks/{label}/I_1_{end}.png", value=255)
    assert {name: {*own} for name, own in areas(tmp_path).items()} == {
        "I_1.png": {"exudates", "haemorrhages"}
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_s_ids_are_the_numbers(delimiter: str, tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=3)
    rows = ["id,name,r,g,b", "3,car,0,0,99", "0,background,0,0,0", "1,road,28,64,28"]
    text = "\n".join(rows).replace(",", delimiter)
    (tmp_path / "class_dict.csv").write_text(text)
    assert {*areas(tmp_path)["a.png"]} == {"car"}


def test_a_table_without_background_begins_at_its_first_id(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=2)
    (tmp_path / "class_dict.csv").write_text("id,name,r,g,b\n1,road,9,0,0\n2,sky,0,9,0\n")
    assert {*areas(tmp_path)["a.png"]} == {"sky"}


# --- what is no test image


def pairs(root: Path, *places: str) -> None:
    """Write images in `images` folders, each with a mask beside it in `masks`."""
    for place in places:
        put(root, f"{place}.png")
        put(root, f"{place.replace('images', 'masks')}.png", value=255)


@pytest.mark.parametrize(
    "folders",
    [
        ("bus", "train", "crash_test"),
        ("pre_training", "post_training", "field_test"),
        ("patient_7", "patient_test1"),
        ("sample_a", "test_sample_b"),
    ],
)
def test_folders_that_are_called_test_for_another_reason(
    folders: tuple[str, ...], tmp_path: Path
) -> None:
    pairs(tmp_path, *(f"images/{folder}/{n}" for n, folder in enumerate(folders)))
    check_parts(tmp_path, [f"{n}.png" for n in range(len(folders))], [])


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("blood_test.csv", "patient,hb\nb,12\n"),
        ("README_test.txt", "b was taken in rain\n"),
        ("boxes/test_0.txt", "b 0.5 0.5 0.1 0.1\n"),
        ("tests/test.txt", "b\n"),
        ("test.txt", "x\ny\nz\nb\n"),
        ("test.txt", "b\nb\nb\nb\n"),
        # Columns that are of no parts.
        ("results.csv", "image,set\na,A\nb,B\n"),
        ("split.csv", "image,split\na,1\nb,2\n"),
        ("split.csv", "image,split\na,test\nb,test\nc,test\n"),
        ("classes.csv", "name,usage\na,train test\nx,test\n"),
        ("images.csv", "image,dataset\na,ISIC_Test\nb,ISIC_Train\n"),
        # Each image is a test image in one fold.
        ("cv.csv", "image,fold,split\na,0,test\nb,0,train\na,1,train\nb,1,test\n"),
    ],
)
def test_files_that_are_no_lists_of_test_images(place: str, text: str, tmp_path: Path) -> None:
    pairs(tmp_path, "images/a", "images/b", "images/c")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text)
    check_parts(tmp_path, ["a.png", "b.png", "c.png"], [])


def test_a_list_of_names_that_learned_images_have_too(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{part}/images/{n}" for part in ("train", "test") for n in "ab"))
    (tmp_path / "test.txt").write_text("a\nb\n")
    assert len(converters.read(tmp_path)) == len(converters.read(tmp_path, subset="test")) == 2


def test_a_path_of_a_part_is_of_no_other_part(tmp_path: Path) -> None:
    pairs(tmp_path, "train/images/a", "train/images/b")
    put(tmp_path, "test/images/a.png")
    (tmp_path / "test.txt").write_text("test/images/a.png\n")
    assert {s.key for s in converters.read(tmp_path)} == {"train/a", "train/b"}


def test_keys_stay_apart(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in "abc"), "test/images/a", "test/images/b")
    (tmp_path / "test.txt").write_text("images/a.png\ntest/images/a.png\ntest/images/b.png\n")
    assert {s.key for s in converters.read(tmp_path)} == {"b", "c"}
    assert len(converters.read(tmp_path, subset="test")) == 3
    assert len(converters.read(tmp_path, subset="all")) == 5


@pytest.mark.parametrize(
    "text", [",image,mask\n0,b.png,b.png\n", "patient_id,image_path\np,images/b.png\n"]
)
def test_the_column_of_images_counts(text: str, tmp_path: Path) -> None:
    pairs(tmp_path, "images/0", "images/b", "images/c")
    (tmp_path / "test.csv").write_text(text)
    check_parts(tmp_path, ["0.png", "c.png"], ["b.png"])


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("split.csv", "image,split\n0,train\nb,test\nc,val\n"),
        ("data.csv", "id,path,Subset\n0,images/0.png,Training\n1,images/b.png,Testing\n"),
        ("splits/all.csv", "image;data_split\n0.png;train\nb.png;TEST\n"),
        ("test.csv", "image,set\nb,A\n"),
        ("participants.tsv", "age\timage\tsplit\n\t0\ttrain\n71\tb\ttest\n\tc\tval\n"),
        ("test.tsv", "image\tset; of\nb\tA\n"),
        # A column of any name, of which all cells are parts.
        ("participants.tsv", "file\tused for\n0\ttrain\nb\ttest\nc\tvalidation\n"),
        # What else has these numbers: whose they are, in however many rows.
        ("split.csv", "subject,xray,split\nb,0.png,train\n0,b.png,test\n0,c.png,train\n"),
        ("split.csv", "# made by hand\n\nimage,split\n0,train\nb,test\n# c,test\n"),
        ("split.csv", "#image,split\n0,train\nb,test\n"),
        ("split.csv", 'image,note,split\n0,"one\n# two",train\nb,"x, y",test\n'),
        ("split.csv", '"image";"a,b,c,d";"split"\n0;x;train\nb;y;test\n'),
        # The row's number is no name; a column may say something else.
        ("split.csv", "no,id,split\n0,c,train\n1,b,test\n"),
        ("split.csv", "image,dataset,split\n0,X_Test,train\nb,X_Train,test\nc,X_Test,val\n"),
        ("split.csv", "image,phase,split\n0,baseline,train\nb,baseline,test\n"),
        ("split.csv", "No.,slide,split\n1,0,train\n2,b,test\n"),
        # A row for each object, and words of other parts.
        ("objects.csv", "image,class,split\n0,x,train\nb,x,test\nb,y,test\nb,z,test\nc,x,\n"),
        # A row that ends too early.
        ("split.csv", "image,split\n0,train\nb,test\nc\n"),
    ],
)
def test_a_table_may_have_a_column_of_parts(place: str, text: str, tmp_path: Path) -> None:
    pairs(tmp_path, "images/0", "images/b", "images/c")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(text)
    check_parts(tmp_path, ["0.png", "c.png"], ["b.png"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_tables_as_spreadsheets_write_them(encoding: str, tmp_path: Path) -> None:
    pairs(tmp_path, "images/0", "images/b", "images/c")
    text = "image\tby\tsplit\n0\tMüller\ttrain\nb\tMüller\ttest\n"
    (tmp_path / "split.tsv").write_bytes(text.encode(encoding))
    check_parts(tmp_path, ["0.png", "c.png"], ["b.png"])


@pytest.mark.parametrize("names", ["sub-1_run-{}", "sub-1/{}"])
def test_a_table_may_have_a_row_for_each_patient(names: str, tmp_path: Path) -> None:
    for n in (1, 2, 11):
        pairs(tmp_path, *(f"images/{names.format(k)}".replace("sub-1", f"sub-{n}") for k in "ab"))
    (tmp_path / "participants.tsv").write_text(
        "age\tparticipant_id\tgroup\n1\tsub-1\ttest\n2\tsub-2\ttrain\n3\tsub-11\tval\n"
    )
    found = {s.key: s.attributes.get("subset") for s in converters.read(tmp_path, subset="all")}
    assert sum(key.startswith("test/") for key in found) == 2
    assert all(("sub-1/" in key or "sub-1_" in key) == key.startswith("test/") for key in found)
    assert sorted(map(str, found.values())) == ["None", "None", "train", "train", "val", "val"]


def test_a_table_says_what_is_held_out(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in "abc"))
    put(tmp_path, "images/d.png")
    (tmp_path / "split.csv").write_text("image,set\na,train\nb,val\nc,train\nd,test\n")
    for found in (converters.read(tmp_path), converters.list_images(tmp_path)):
        assert [s.attributes for s in found] == [{"subset": p} for p in ("train", "val", "train")]


def test_an_image_of_several_folds_is_of_no_part(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in "abc"))
    rows = ("1,a,train", "1,b,val", "1,c,test", "2,a,val", "2,b,val")
    (tmp_path / "folds.csv").write_text("\n".join(["fold,image,split", *rows]))
    found = {s.key: s.attributes for s in converters.read(tmp_path)}
    assert found == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # Statistics, logs, scores, remarks and annotators: with numbers that are names of images.
        ("summary.csv", "set,images,objects\ntrain,8,40\ntest,2,9\n"),
        ("labels.csv", "name,count,usage\ncat,3,train\ndog,5,test\n"),
        ("history.csv", "phase,step,loss\ntrain,1,.5\nval,2,.4\ntrain,3,.4\nval,4,.3\n"),
        ("meta.csv", "image,comment\n1,test\n2,training\n3,\n4,\n5,\n6,\n7,\n8,\n"),
        ("readers.csv", "person,role,group\n1,reader,train\n2,reader,test\n"),
        ("cv.csv", "image,f0,f1\n" + "".join(f"{n},train,test\n" for n in range(9))),
    ],
)
def test_tables_about_something_else_move_nothing(name: str, text: str, tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in range(1, 9)))
    (tmp_path / name).write_text(text)
    found = converters.read(tmp_path, subset="all")
    assert {s.key: s.attributes for s in found} == {f"{n}": {} for n in range(1, 9)}


def test_a_column_that_is_called_so_goes_before_others(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in range(1, 9)))
    numbers = range(1, 9)
    scores = [f"{n},{'test' if n < 3 else 'train'},.9" for n in numbers]
    (tmp_path / "scores.csv").write_text("\n".join(["image,set,dice", *scores]))
    rows = [f"{n},{'test' if n % 2 else 'train'},{'test' if n > 6 else 'train'}" for n in numbers]
    (tmp_path / "split.csv").write_text("\n".join(["image,origin,split", *rows]))
    check_parts(tmp_path, [f"{n}.png" for n in range(1, 7)], ["7.png", "8.png"])


def test_a_coarser_column_of_numbers_is_not_that_of_images(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in range(1, 11)))
    rows = [f"{(n + 1) // 2},{n},{'test' if n > 6 else 'train'}" for n in range(1, 11)]
    (tmp_path / "split.csv").write_text("\n".join(["case,image,split", *rows]))
    check_parts(tmp_path, [f"{n}.png" for n in range(1, 7)], ["7.png", "8.png", "9.png", "10.png"])


def test_patients_are_not_read_by_their_age(tmp_path: Path) -> None:
    ages = (11, 42, 33)
    for who in range(1, 4):
        pairs(tmp_path, *(f"images/P{who}/{who}{n}" for n in (1, 2)))
    rows = [f"P{w},{age},{'test' if w == 3 else 'train'}" for w, age in enumerate(ages, 1)]
    (tmp_path / "participants.csv").write_text("\n".join(["participant_id,age,group", *rows]))
    check_parts(tmp_path, ["11.png", "12.png", "21.png", "22.png"], ["31.png", "32.png"])


def test_more_test_images_than_others_leave_what_is_held_out(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in "abcdefghij"))
    rows = [f"{n},{'test' if n < 'g' else 'val' if n == 'g' else 'train'}" for n in "abcdefghij"]
    (tmp_path / "split.csv").write_text("\n".join(["image,split", *rows]))
    found = {s.key: s.attributes["subset"] for s in converters.read(tmp_path)}
    assert found == {"g": "val", "h": "train", "i": "train", "j": "train"}


def test_a_column_of_numbers_is_not_taken_for_a_few_more_images(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in range(1, 9)))
    rows = [f"{n % 8 + 1},{n}.png,{'test' if n == 3 else 'train'}" for n in (*range(1, 7), 31, 39)]
    (tmp_path / "split.csv").write_text("\n".join(["subject,file,split", *rows]))
    check_parts(tmp_path, [f"{n}.png" for n in (1, 2, 4, 5, 6, 7, 8)], ["3.png"])


def test_a_table_that_names_no_image_is_told(tmp_path: Path) -> None:
    pairs(tmp_path, "images/a", "images/b")
    (tmp_path / "split.csv").write_text("image,split\nx,train\ny,test\n")
    notes: list[str] = []
    assert len(converters.read(tmp_path, note=notes.append)) == 2
    assert any("split.csv: tells which images are test images, but names none" in n for n in notes)


def test_tables_that_say_otherwise_each_are_not_believed(tmp_path: Path) -> None:
    pairs(tmp_path, "images/a", "images/b", "images/c")
    (tmp_path / "split.csv").write_text("image,split\na,test\nb,train\n")
    (tmp_path / "split_old.csv").write_text("image,split\na,train\nb,test\n")
    notes: list[str] = []
    assert len(converters.read(tmp_path, note=notes.append)) == 3
    assert any("none is believed (split.csv, split_old.csv)" in note for note in notes)


def test_tables_of_other_images_each_are_believed(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"images/{n}" for n in "abcd"))
    (tmp_path / "site1.csv").write_text("image,split\na,test\nb,train\n")
    (tmp_path / "site2.csv").write_text("image,split\nc,train\nd,test\n")
    check_parts(tmp_path, ["b.png", "c.png"], ["a.png", "d.png"])


def test_a_table_does_not_move_images_out_of_the_folder_train(tmp_path: Path) -> None:
    pairs(tmp_path, *(f"{part}/images/{part}{n}" for part in ("train", "test") for n in "ab"))
    text = "image,split\ntraina,test\ntrainb,train\ntesta,train\ntestb,test\n"
    (tmp_path / "split.csv").write_text(text)
    found = {s.image.stem for s in converters.read(tmp_path) if isinstance(s.image, Path)}
    assert found == {"traina", "trainb"}


def test_lines_that_name_nothing_are_said(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for case in ("c1", "c2", "c3"):
        put(tmp_path, f"{case}/mask.png", value=255)
        photo = generator.integers(0, 255, (*SIZE, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / case / "image.png"), photo)
    (tmp_path / "test.txt").write_text("c2/image.png\nc9/image.png\n")
    notes: list[str] = []
    found = converters.read(tmp_path, note=notes.append)
    assert [s.key for s in found] == ["c1/image", "c3/image"]
    assert any("left out 1 lines that name no image (c9/image.png)" in note for note in notes)


def test_folds_with_tests_of_their_own_lose_no_image(tmp_path: Path) -> None:
    pairs(tmp_path, "fold_1/train/images/a", "fold_1/test/images/b")
    for mine, other in (("train/images/b", "test/images/b"), ("test/images/a", "train/images/a")):
        for kind in ("images", "masks"):
            target = tmp_path / "fold_2" / f"{mine.replace('images', kind)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "fold_1" / f"{other.replace('images', kind)}.png", target)
    assert len(converters.read(tmp_path)) == 2


def test_masks_of_both_parts_in_one_folder(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    put(tmp_path, "masks/a.png", "masks/b.png", "masks/c.png", value=255)
    check_parts(tmp_path, ["a.png", "b.png"], ["c.png"])


@pytest.mark.parametrize("names", [("target_imgs", "target_masks"), ("label_imgs", "label_masks")])
def test_folders_of_photographs_that_sound_like_masks(
    names: tuple[str, str], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    for number in range(3):
        put(tmp_path, f"{names[1]}/{number}.png", value=255)
        photo = generator.integers(0, 255, (*SIZE, 3), np.uint8)
        (tmp_path / names[0]).mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / names[0] / f"{number}.png"), photo)
    assert {s.image.parent.name for s in converters.read(tmp_path)} == {names[0]}


@pytest.mark.parametrize(
    ("header", "rows", "value", "label"),
    [
        ("index,name,r,g,b,pixel_value", ["0,road,9,0,0,2", "1,car,0,9,0,1"], 2, "road"),
        ("id,name,r,g,b,class_id", ["100,road,9,0,0,1", "101,car,0,9,0,2"], 2, "car"),
        ("id,name,r,g,b", ["-1,plate,1,1,9", "1,road,9,0,0", "2,car,0,9,0"], 2, "car"),
        (",name,r,g,b", ["2,car,0,9,0", "1,road,9,0,0"], 1, "road"),
    ],
)
def test_the_column_that_masks_fit(
    header: str, rows: list[str], value: int, label: str, tmp_path: Path
) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=value)
    (tmp_path / "class_dict.csv").write_text("\n".join([header, *rows]))
    assert {*areas(tmp_path)["a.png"]} == {label}


def test_a_table_that_counts_from_1_where_masks_count_from_0(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=1)
    (tmp_path / "class_dict.csv").write_text(
        "id,name,r,g,b\n1,background,0,0,0\n2,road,9,0,0\n3,car,0,9,0\n"
    )
    with pytest.raises(ValueError, match="found them from 1 on and no 3 in the masks"):
        converters.read(tmp_path)


@pytest.mark.parametrize("name", ["class_dict.csv", "classes.csv"])
def test_a_table_without_colours(name: str, tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=2)
    (tmp_path / name).write_text("id;name\n0;background\n1;road\n2;car\n")
    assert {*areas(tmp_path)["a.png"]} == {"car"}
    (tmp_path / name).write_text("id,name\n1,road\n1,car\n")
    with pytest.raises(ValueError, match="expected each number once, found 1 twice"):
        converters.read(tmp_path)


def test_a_table_of_a_classifier_names_no_classes_of_masks(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=2)
    (tmp_path / "labels.csv").write_text("id,label\n0001,cat\n0002,cat\n")
    assert {*areas(tmp_path)["a.png"]} == {"object"}
