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
from converters.formats.writing import is_test_name, part_of

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
    (tmp_path / "class_dict.csv").write_text(text.replace("1", "3"))
    with pytest.raises(ValueError, match="expected a number of its own as id"):
        converters.read(tmp_path)


def test_a_table_without_background_begins_at_its_first_id(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    put(tmp_path, "masks/a.png", value=2)
    (tmp_path / "class_dict.csv").write_text("id,name,r,g,b\n1,road,9,0,0\n2,sky,0,9,0\n")
    assert {*areas(tmp_path)["a.png"]} == {"sky"}
