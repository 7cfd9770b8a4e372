"""Images are listed without a mask being decoded, and files are asked once for their classes."""

import cv2
import numpy as np
import pytest

import converters
from converters.formats import masks_reading
from converters.formats.mask_folders import voc
from converters.splits.split import Split
from zoo.datasets.split import split
from zoo.source import DataSource

pytestmark = pytest.mark.slow

LAYOUTS = ("packed", "per-class", "groups", "index")


@pytest.fixture
def write(toys, tmp_path):
    """Return a function: write the toys in a layout of `masks`, or as `voc` or `labelme`."""

    def make(layout):
        root = tmp_path / layout
        if layout == "labelme":
            converters.write(toys.samples, root, format="labelme", labels=toys.labels)
        elif layout == "voc":
            for name in ("JPEGImages", "SegmentationClass"):
                (root / name).mkdir(parents=True)
            for sample in toys.samples:
                mask = np.zeros(sample.size_hw, np.uint8)
                mask[20:40, 10:30] = 1
                cv2.imwrite(str(root / "JPEGImages" / sample.image.name), cv2.imread(sample.image))
                cv2.imwrite(str(root / "SegmentationClass" / f"{sample.image.stem}.png"), mask)
        else:
            common = {"format": "masks", "labels": toys.labels, "layout": layout}
            converters.write(toys.samples, root, **common)
        return root

    return make


@pytest.fixture
def decoded(monkeypatch):
    """The masks that are decoded."""
    found = []
    for module in (masks_reading, voc):
        original = module.read_mask_pixels

        def count(content, *rest, original=original):
            found.append(content)
            return original(content, *rest)

        monkeypatch.setattr(module, "read_mask_pixels", count)
    return found


@pytest.mark.parametrize("layout", [*LAYOUTS, "voc"])
def test_folds_by_group_need_no_mask(write, decoded, tmp_path, layout):
    source = DataSource.open(write(layout))
    split(source, tmp_path / "listed.json", None, 3, "group", 0, describe=False)
    assert decoded == []
    split(source, tmp_path / "read.json", None, 3, "group", 0, describe=True)
    assert decoded
    assert (tmp_path / "listed.json").read_bytes() == (tmp_path / "read.json").read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stratified_folds_read_each_mask_once(write, decoded, tmp_path, layout):
    root = write(layout)
    split(DataSource.open(root), tmp_path / "s.json", None, 3, "stratified", 0, describe=False)
    assert len(decoded) == len(list((root / "masks").rglob("*.png")))
    assert len(Split.load(tmp_path / "s.json").keys) == 6


@pytest.mark.parametrize("layout", [*LAYOUTS, "voc", "labelme"])
@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_the_list_is_what_is_read_without_its_objects(write, layout, subset):
    root = write(layout)
    read = converters.read(root, subset=subset)
    listed = converters.list_images(root, subset=subset)
    assert [(s.key, s.size_hw, s.group, s.image, dict(s.attributes)) for s in listed] == [
        (s.key, s.size_hw, s.group, s.image, dict(s.attributes)) for s in read
    ]
    assert all(not sample.instances for sample in listed)
    assert subset == "test" or all(sample.instances for sample in read)


@pytest.mark.parametrize("layout", ["voc", "per-class"])
def test_what_is_wrong_with_images_is_found(write, layout):
    root = write(layout)
    images = sorted((root / ("JPEGImages" if layout == "voc" else "images")).iterdir())
    images[0].write_bytes(b"no image")
    images[1].unlink()
    for ask in (converters.read, converters.list_images):
        with pytest.raises(converters.DataError) as caught:
            ask(root)
        assert len(caught.value.problems) == 2


@pytest.mark.parametrize("layout", ["voc", "packed"])
@pytest.mark.parametrize("how", ["gone", "empty", "other size"])
def test_what_is_wrong_with_masks_from_outside_is_found(write, layout, how):
    root = write(layout)
    mask = next((root / ("SegmentationClass" if layout == "voc" else "masks")).rglob("*.png"))
    if how == "other size":
        cv2.imwrite(str(mask), np.zeros((8, 8, 4), np.uint8))
    elif how == "empty":
        mask.write_bytes(b"")
    elif layout == "voc":
        pytest.skip("an image without a mask is left out, and said")
    else:
        mask.unlink()
    for ask in (converters.read, converters.list_images):
        with pytest.raises(converters.DataError, match=mask.name):
            ask(root)


def test_masks_of_16_bits_are_listed(write):
    root = write("index")
    for path in (root / "masks").rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16))
    read = converters.read(root)
    assert [s.key for s in converters.list_images(root)] == [s.key for s in read]


def test_broken_images_that_are_skipped_are_in_no_fold(write, tmp_path):
    root = write("per-class")
    next((root / "masks").rglob("*.png")).write_bytes(b"no mask")
    source = DataSource.open(root, broken="skip")
    split(source, tmp_path / "s.json", None, 2, "group", 0, describe=False)
    assert set(Split.load(tmp_path / "s.json").keys) == {
        s.key for s in source.read(source.labels())
    }
    assert len(Split.load(tmp_path / "s.json").keys) == 5


@pytest.mark.parametrize("layout", ["voc", "labelme"])
def test_files_are_asked_for_their_classes_once(write, layout, monkeypatch):
    root = write(layout)
    module = converters.load_format(layout)
    original, asked = module.label_space, []

    def count(place):
        asked.append(place)
        return original(place)

    monkeypatch.setattr(module, "label_space", count)
    source = DataSource.open(root)
    labels = source.labels()
    for subset in ("train", "all"):
        assert source.of_groups({"a": "b"}).read(labels, subset)
    assert source.choosing(labels.names[0]).read(labels)
    assert asked == [root]
