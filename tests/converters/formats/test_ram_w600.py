from __future__ import annotations

import cv2
import numpy as np
import pytest

import converters
from converters import DataError
from converters.masks import rasterize_labels
from converters.types import LabelSpace

SIZE = (40, 30)


def write_image(path, size_hw):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size_hw, 7, np.uint8))
    return path


@pytest.fixture(scope="module")
def wrists():
    return LabelSpace.load("ram_w600")


def make(root, name="0172_0003_L", subset="train", planes=None, dtype=np.uint8):
    write_image(root / "images" / f"{name}.bmp", SIZE)
    if planes is None:
        planes = np.zeros((14, *SIZE), dtype)
        planes[0, 3:20, 4:9] = 1
        planes[0, 8:11, 5:7] = 0
        planes[6, 15:30, 6:25] = 1
    path = root / "masks" / subset / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, planes)
    return path, planes


@pytest.fixture
def root(tmp_path):
    return tmp_path / "RAM-W600" / "BoneSegmentation"


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64])
def test_masks_come_back_to_the_pixel(dtype, root, wrists):
    _, planes = make(root, dtype=dtype)
    (sample,) = converters.read(root.parent, labels=wrists)
    assert sample.key == "BoneSegmentation/images/0172_0003_L"
    assert (sample.group, sample.size_hw) == ("0172", SIZE)
    masks = rasterize_labels(sample.instances, SIZE)
    assert list(masks) == ["Capitate", "Scaphoid"]
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask.full(SIZE), planes[wrists.index[name]])


def test_subsets_are_the_folders(root, wrists):
    for number, subset in enumerate(["train", "val", "test"]):
        make(root, f"000{number}_0001_R", subset)
    found = {
        subset: [s.group for s in converters.read(root, subset=subset, labels=wrists)]
        for subset in converters.SUBSETS
    }
    assert found == {
        "train": ["0000", "0001"],
        "test": ["0002"],
        "all": ["0000", "0001", "0002"],
    }


def test_no_masks_of_a_subset(root, wrists):
    make(root)
    with pytest.raises(ValueError, match=r"masks/\*/\*.npy of subset 'test', found none"):
        converters.read(root, subset="test", labels=wrists)


def test_bones_have_their_names_in_other_label_spaces(root):
    planes = np.ones((14, *SIZE), np.uint8)
    make(root, planes=planes)
    (sample,) = converters.read(root, labels=LabelSpace.load("ram_h1200"))
    assert [i.label for i in sample.instances] == [
        *("Capitate", "Radius", "Ulna", "Hamate", "Lunate", "Pisifrom_Triquetrum", "Scaphoid"),
        *("Trapezium", "Trapezoid", "MC1", "MC2", "MC3", "MC4", "MC5"),
    ]


def test_the_merged_bone_is_none_of_ours(root, labels):
    make(root, planes=np.ones((14, *SIZE), np.uint8))
    make(root, "0001_0001_R", planes=np.ones((14, *SIZE), np.uint8))
    notes = []
    samples = converters.read(root, labels=labels, note=notes.append)
    left_out = "left out 2 objects of 'Pisifrom&Triquetrum', not asked for by 'hand_bones'"
    assert notes == [f"{root}: {left_out}"]
    assert [len(s.instances) for s in samples] == [13, 13]
    assert [len(s.instances) for s in converters.read(root)] == [14, 14]


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        (np.zeros((13, *SIZE), np.uint8), "(14, 40, 30) (classes, height, width) as the image has"),
        (np.zeros((14, 30, 40), np.uint8), "found uint8 (14, 30, 40)"),
        (np.zeros((*SIZE, 14), np.uint8), "found uint8 (40, 30, 14)"),
        (np.zeros((14, *SIZE), np.float32), "found float32"),
        (np.full((14, *SIZE), 255, np.uint8), "expected 0 and 1, found 255 to 255"),
        (np.full((14, *SIZE), -1, np.int8), "expected 0 and 1, found -1 to -1"),
    ],
)
def test_arrays_that_are_no_masks(planes, message, root, wrists):
    make(root, planes=planes)
    _, (problem,) = converters.scan(root, labels=wrists)
    assert str(problem).startswith("masks/train/0172_0003_L.npy: expected")
    assert message in str(problem)
    assert (problem.key, problem.group) == ("images/0172_0003_L", "0172")


def test_pickles_are_not_opened(root, wrists, tmp_path):
    path, _ = make(root)
    trap = tmp_path / "opened"

    class Trap:
        def __reduce__(self):
            return (trap.touch, ())

    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    _, (problem,) = converters.scan(root, labels=wrists)
    assert "found a broken file" in str(problem)
    assert not trap.exists()


@pytest.mark.slow
def test_broken_files(root, wrists):
    path, _ = make(root)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    broken = [b"", whole[:-1], whole[:60], b"PK\x03\x04" + whole]
    for _ in range(100):
        head = bytearray(whole)
        head[rng.integers(0, 128)] = rng.integers(0, 256)
        broken.append(bytes(head))
    for content in broken[:4]:
        path.write_bytes(content)
        _, (problem,) = converters.scan(root, labels=wrists)
        assert "expected a NumPy array, found a broken file" in str(problem)
    for content in broken[4:]:
        path.write_bytes(content)
        samples, problems = converters.scan(root, labels=wrists)
        assert len(samples) + len(problems) == 1


def test_a_mask_without_an_image(root, wrists):
    make(root)
    (root / "images/0172_0003_L.bmp").unlink()
    _, (problem,) = converters.scan(root, labels=wrists)
    assert str(problem) == "images/0172_0003_L.bmp: expected an image, found nothing there"


def test_images_without_masks_are_said(root, wrists):
    make(root)
    write_image(root / "images" / "0200_0001_R.bmp", SIZE)
    said = []
    assert len(converters.read(root, labels=wrists, note=said.append)) == 1
    assert said == ["images: 1 left out that have no masks (0200_0001_R.bmp, ...)"]


def test_masks_of_one_image_in_two_subsets(root, wrists):
    make(root, subset="train")
    make(root, subset="val")
    with pytest.raises(DataError, match="expected one image of this key, found"):
        converters.read(root, labels=wrists)


def test_arrays_of_others_are_not_taken_for_wrists(tmp_path):
    make(tmp_path, name="scene_12")
    assert not converters.is_data_set(tmp_path)


def test_is_only_read(samples, labels, tmp_path):
    with pytest.raises(ValueError, match="'ram_w600': expected one that can be written"):
        converters.write(samples, tmp_path / "out", format="ram_w600", labels=labels)
