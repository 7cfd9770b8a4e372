"""Data sets that others wrote for Ultralytics: found, paired and filled as Ultralytics does."""

import unicodedata

import cv2
import numpy as np
import pytest
import yaml

import converters
from converters.masks import rasterize
from converters.types import LabelSpace

LABELS = LabelSpace("peer", ("a", "b"), aliases={"Alpha": "a"}, ignored=("dust",))
SQUARE = "0 .1 .1 .5 .1 .5 .5 .1 .5\n"
H, W = 20, 30


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((H, W), 9, np.uint8))[1].tobytes())


@pytest.fixture
def make(tmp_path):
    def build(config=None, file="data.yaml", images=("p", "q"), labels=("p", "q"), text=SQUARE):
        root = tmp_path / "data"
        for name in images:
            image(root / "images" / "train" / f"{name}.png")
        for name in labels:
            path = root / "labels" / "train" / f"{name}"
            path = path if path.suffix else path.with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        record = {"names": ["a", "b"], "train": "images/train", **(config or {})}
        (root / file).write_text(yaml.safe_dump(record))
        return root

    return build


def read(root, notes=None):
    tell = None if notes is None else notes.append
    return converters.read(root, labels=LABELS, format="yolo", note=tell)


# --- where images are

PLACES = {
    "a list": {"train": ["images/train"]},
    "Roboflow": {"train": "../train/images/../../images/train"},
    "Linux": {"train": "/content/ds/images/train"},
    "Windows": {"train": "C:\\Users\\me\\ds\\images\\train"},
    "Windows, path": {"path": "D:/2026/ds", "train": "images/train", "val": "images/train"},
    "path": {"path": "./", "train": "./images/train"},
    "names by number": {"names": {0: "a", 1: "b"}},
    "names by text": {"names": {"0": "a", "1": "b"}},
}


@pytest.mark.parametrize("config", PLACES.values(), ids=PLACES)
def test_images_are_found_as_ultralytics_finds_them(config, make):
    samples = read(make(config))
    assert [s.key for s in samples] == ["images/train/p", "images/train/q"]
    assert [[i.label for i in s.instances] for s in samples] == [["a"], ["a"]]


@pytest.mark.parametrize("place", ["", "./", "data/"])
def test_a_list_of_images_is_read(place, make):
    root = make({"path": "./", "train": "train.txt"})
    (root / "train.txt").write_text(f"{place}images/train/p.png\n\n")
    assert [s.key for s in read(root)] == ["images/train/p"]


def test_an_image_of_a_list_that_is_not_there_is_named(make):
    root = make({"train": "train.txt"})
    (root / "train.txt").write_text("images/train/p.png\nimages/train/gone.png\n")
    with pytest.raises(ValueError, match=r"train\.txt: expected images .*images/train/gone\.png"):
        read(root)


@pytest.mark.parametrize("file", ["data.yaml", "dataset.yaml", "waste.yml"])
def test_the_yaml_file_may_have_another_name(file, make):
    root = make(file=file)
    assert converters.recognise(root) == "yolo"
    assert len(read(root)) == 2


def test_no_yaml_file_is_one_line(make):
    root = make()
    (root / "data.yaml").unlink()
    with pytest.raises(ValueError, match=r"data: expected Ultralytics' data\.yaml or"):
        read(root)


# --- classes


def test_classes_are_found_by_name_and_alias_in_any_order(make):
    root = make({"names": ["dust", "b", "Alpha"]}, text=SQUARE + "2" + SQUARE[1:])
    assert [i.label for i in read(root)[0].instances] == ["a"]


def test_a_class_that_is_used_and_unknown_is_named(make):
    root = make({"names": ["a", "cat"]}, text="1" + SQUARE[1:])
    with pytest.raises(ValueError, match=r"'cat': expected a class of 'peer' .* 2 objects"):
        read(root)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kpt_shape": [17, 3]}, "found 'kpt_shape'"),
        ({"names": ["a", "a"]}, "found 'a' twice"),
        ({"names": "a"}, "expected 'names'"),
        ({"names": {"x": "a"}}, "expected 'names'"),
        ({"train": 5}, "'train': expected a folder"),
        ({"train": None}, "expected 'train'"),
        ({"train": ["images/gone"]}, "'images/gone', which is not there"),
    ],
)
def test_another_kind_of_file_is_one_line(config, message, make):
    with pytest.raises(ValueError, match=message):
        read(make(config))


# --- images and label files


def test_labels_in_a_folder_of_another_name_are_refused(make):
    root = make()
    (root / "labels").rename(root / "label")
    with pytest.raises(ValueError, match=r"any of 2 images; 2 text files elsewhere \(label/"):
        read(root)


def test_labels_of_other_names_are_refused(make):
    with pytest.raises(ValueError, match=r"q\.png\), and 1 label files .*q_mask\.txt"):
        read(make(labels=("p", "q_mask")))


def test_an_image_without_labels_is_said(make):
    notes = []
    samples = read(make(labels=("p",)), notes)
    assert [len(s.instances) for s in samples] == [1, 0]
    assert "1 images without a label file (images/train/q.png)" in notes[0]


def test_a_label_file_without_an_image_is_said(make):
    notes = []
    assert len(read(make(labels=("p", "q", "r")), notes)) == 2
    assert "1 label files without an image (labels/train/r.txt)" in notes[0]


def test_files_of_unknown_kinds_are_said(make):
    root = make()
    (root / "images" / "train" / "r.heic").write_bytes(b"x")
    notes = []
    read(root, notes)
    assert "images/train/r.heic" in notes[0]


def test_an_empty_label_file_is_an_image_without_objects(make):
    notes = []
    assert [s.instances for s in read(make(text=""), notes)] == [(), ()]
    assert notes == []


def test_suffixes_and_accents_are_written_in_two_ways(make):
    here, there = (unicodedata.normalize(form, "Röntgen") for form in ("NFC", "NFD"))
    samples = read(make(images=(here, "q"), labels=(there, "q.TXT")))
    assert [len(s.instances) for s in samples] == [1, 1]


def test_two_images_of_one_label_file_are_refused(make):
    root = make()
    image(root / "images" / "train" / "p.jpg")
    with pytest.raises(ValueError, match=r"found p\.\w+ with the same label file"):
        read(root)


@pytest.mark.parametrize("value", ["1.2", "-.2", "3", "nan", "inf", "400"])
def test_coordinates_far_outside_are_refused(value, make):
    with pytest.raises(ValueError, match="line 1: expected coordinates from 0 to 1"):
        read(make(text=f"0 .1 .1 .5 .1 {value} .5\n"))


# --- pixels


def outlines(seed):
    """Outlines as they come: whole pixels around an ellipse or a zigzag."""
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(40, 900, 2))
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 30))))
    radius = rng.uniform(0.05, 0.45, len(angle)) * min(width, height)
    x, y = width / 2 + radius * np.cos(angle), height / 2 + radius * np.sin(angle)
    return (height, width), np.stack([x, y], axis=1).astype(np.int32)


@pytest.mark.parametrize("offset", [0, 0.5])
@pytest.mark.parametrize("digits", [6, 17])
def test_labels_are_filled_as_ultralytics_fills_them(offset, digits, tmp_path):
    """`offset` 0: as Ultralytics, supervision and JSON2YOLO write them; .5: as we do."""
    for seed in range(60):
        size_hw, points = outlines(seed)
        root = tmp_path / str(seed)
        (root / "images").mkdir(parents=True)
        (root / "labels").mkdir()
        cv2.imwrite(str(root / "images" / "i.png"), np.zeros(size_hw, np.uint8))
        values = ((points + offset) / size_hw[::-1]).ravel()
        text = " ".join(f"{value:.{digits}f}" for value in values)
        (root / "labels" / "i.txt").write_text(f"0 {text}\n")
        (root / "data.yaml").write_text("names: [a, b]\ntrain: images\n")
        (instance,) = read(root)[0].instances
        expected = cv2.fillPoly(np.zeros(size_hw, np.uint8), [points], (1,))
        found = rasterize(instance.geometry, size_hw).full(size_hw)
        np.testing.assert_array_equal(found, expected)
