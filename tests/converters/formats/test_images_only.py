"""Folders of images without annotations: recognised last, and test images throughout."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import converters
from converters.types import LabelSpace

LABELS = LabelSpace("mine", ("cat",))
SIZE = (20, 31)


def draw(path, size_hw=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, size_hw, np.uint8))
    return path


@pytest.fixture
def root(tmp_path):
    draw(tmp_path / "set" / "P1" / "left.png")
    draw(tmp_path / "set" / "P2" / "left.jpg", (9, 8))
    draw(tmp_path / "set" / "b.png")
    draw(tmp_path / "set" / ".hidden" / "c.png")
    (tmp_path / "set" / "patients.csv").write_text("name,age\n")
    (tmp_path / "set" / "README.txt").write_text("from the archive\n")
    return tmp_path / "set"


@pytest.mark.parametrize("subset", ["test", "all"])
def test_all_are_test_images(root, subset):
    assert converters.recognise(root) == "images"
    found = converters.read(root, subset=subset, labels=LABELS)
    assert {s.key: s.size_hw for s in found} == {
        "P1/left": SIZE,
        "P2/left": (9, 8),
        "b": SIZE,
    }
    assert not any(sample.instances for sample in found)


def test_there_is_nothing_to_learn_from(root):
    for read in (
        lambda: converters.read(root, labels=LABELS),
        lambda: converters.label_space(root),
        lambda: converters.read(root, subset="test"),
    ):
        with pytest.raises(ValueError, match="expected annotations, found only images") as error:
            read()
        assert len(str(error.value).splitlines()) == 1


def test_of_two_of_one_name_the_suffix_tells(root):
    draw(root / "b.jpg")
    found = converters.read(root, subset="test", labels=LABELS)
    assert [s.key for s in found] == ["P1/left", "P2/left", "b.jpg", "b.png"]


def test_a_broken_image_is_said(root):
    (root / "b.png").write_bytes(b"none")
    with pytest.raises(converters.DataError, match=r"b\.png: expected an image"):
        converters.read(root, subset="test", labels=LABELS)


@pytest.mark.parametrize(
    "place", ["a.json", "P1/a.XML", "a.yml", "P1/left.txt", "masks/a", "P1/hand_labels/a"]
)
def test_what_may_be_an_annotation_is_not_passed_over(root, place):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text("0 1 2")
    with pytest.raises(ValueError, match="found none that is known"):
        converters.recognise(root)
    assert len(converters.read(root, format="images", subset="test", labels=LABELS)) >= 3


def test_no_image_at_all(tmp_path):
    (tmp_path / "README.txt").write_text("none")
    with pytest.raises(ValueError, match="found none that is known"):
        converters.recognise(tmp_path)


def test_they_can_be_converted(root, tmp_path):
    samples = converters.read(root, subset="test", labels=LABELS)
    converters.write(samples, tmp_path / "out", format="labelme", labels=LABELS)
    back = converters.read(tmp_path / "out", subset="all", labels=LABELS)
    assert [s.key for s in back] == [s.key for s in samples]


def test_dicom_files_of_an_archive(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_files import content, dataset

    pixels = np.random.default_rng(0).integers(0, 4096, SIZE).astype(np.uint16)
    for place in ("DICOM/PA1/IM1", "DICOM/PA2/IM1", "a.dcm"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(dataset(pixels, ImagerPixelSpacing=[0.1, 0.2])))
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert converters.recognise(tmp_path) == "images"
    found = converters.read(tmp_path, subset="test", labels=LABELS)
    assert [s.key for s in found] == ["DICOM/PA1/IM1", "DICOM/PA2/IM1", "a"]
    assert all(s.attributes == {"spacing_mm": [0.1, 0.2]} for s in found)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.xml", b"", r"a.xml \(empty\)"),
        ("a.json", "[1]".encode("utf-16"), r"a.json \(UTF-16: save it as UTF-8\)"),
        ("a.csv", "ImageId,EncodedPixels\n".encode("utf-16"), r"a.csv \(UTF-16"),
        ("a.csv", b"EncodedPixels;Height\nx;1\n", "a.csv; name it"),
        ("a.tsv", b"EncodedPixels\tHeight\nx\t1\n", "a.tsv; name it"),
        ("a.json", b'{"shapes": [', r"a.json \(expected JSON, found a broken file"),
        ("a.json", b'[{"image_id": 1, "score": 1}]', r"a.json \(COCO results, which are pred"),
        ("a.csv", b"", r"a.csv \(empty\)"),
    ],
)
def test_annotations_that_are_not_known_are_named(name, content, why, tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9), np.uint8))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"none that is known among {why}"):
        converters.recognise(tmp_path)


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("obj.data", ": labels of YOLO need a data.yaml with 'names' and 'train'"),
        ("masks/x.png", ": masks/ needs a labels.yaml beside it with 'name' and 'names'"),
        ("zip/set/data.yaml", ": labels of YOLO need a data.yaml"),
        ("set/data.yaml", ", but one in a folder below: give .*set"),
    ],
)
def test_what_is_nearly_a_data_set_is_told_what_it_lacks(place, hint, tmp_path):
    draw(tmp_path / "images" / "x.png")
    path = draw(tmp_path / place) if place.endswith(".png") else tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".png":
        path.write_text("{names: [a], train: images}" if path.suffix == ".yaml" else "x\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.txt").write_text("0 .1 .1 .2 .2 .1 .2\n")
    with pytest.raises(ValueError, match=f"none that is known{hint}"):
        converters.recognise(tmp_path)


VOC_BOX = b"<annotation><object><name>a</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
FOREIGN = {
    "Annotations/x.xml": (VOC_BOX, "nothing but boxes .*: export the annotations for segmentation"),
    "_annotations.createml.json": (b'[{"label": "a", "coordinates": {}}]', "nothing but boxes"),
    "a/b/x.xml": (b"<annotation><object><polygon><pt/></polygon></object></annotation>", "LabelMe"),
    "x.json": (
        b'{"annotations": [{"predicted_iou": 1, "stability_score": 1}]}',
        "Segment Anything",
    ),
    "ann/a.json": (
        b'{"version": "2.0", "schema_ref": "https://darwin-public/2.0/schema.json", "item": {}}',
        "V7's JSON",
    ),
    "gtFine/train/x_gtFine_labelIds.txt": (b"", "Cityscapes needs leftImg8bit"),
    "x_atr.txt": (b"", "ADE20K's colours"),
}


@pytest.mark.parametrize("place", FOREIGN)
def test_annotations_of_others_are_told_with_what_to_do(place, tmp_path):
    content, told = FOREIGN[place]
    draw(tmp_path / "leftImg8bit" / "x.png")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(content)
    with pytest.raises(ValueError, match=told) as error:
        converters.recognise(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert "name it" not in str(error.value)


def test_label_files_in_another_folder_are_not_passed_over(tmp_path):
    draw(tmp_path / "shots" / "x.png")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / "x.txt").write_text("0 .1 .1 .2 .2 .1 .2\n")
    with pytest.raises(ValueError, match=r"none that is known: labels of YOLO need a data\.yaml"):
        converters.recognise(tmp_path)


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "labels.zip", "a.json.gz"])
def test_a_file_beside_images_that_is_not_read_is_named(name, tmp_path):
    draw(tmp_path / "x.png")
    (tmp_path / name).write_text("x,cat,1 2\n")
    with pytest.raises(ValueError, match=rf"left out 1 files that are not read \({name}\)"):
        converters.label_space(tmp_path)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data.7Z"])
def test_an_archive_is_to_be_unpacked(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match="found an archive: unpack it, and give the folder"):
        converters.read(tmp_path / name)


def test_a_table_of_patients_is_no_annotation(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((9, 9), np.uint8))
    (tmp_path / "patients.csv").write_text("image,patient\nx,1\n")
    assert converters.recognise(tmp_path) == "images"
