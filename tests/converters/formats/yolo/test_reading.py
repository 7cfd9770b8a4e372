"""Data sets that others wrote for Ultralytics: found, paired and filled as Ultralytics does."""

import unicodedata

import cv2
import numpy as np
import pytest
import yaml

import converters
from converters import DataError
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


# --- what follows an outline


def test_numbers_of_tracks_are_left_out_and_said(make):
    root = make(text=f"{SQUARE.strip()} 7\n\n{SQUARE.strip()} 12\n")
    notes = []
    found = read(root, notes)
    assert [len(sample.instances) for sample in found] == [2, 2]
    assert notes == [f"{root}: left out the numbers of tracks in 2 label files"]
    plain = read(make(text=SQUARE))
    assert plain[0].instances[0] == found[0].instances[0]


@pytest.mark.parametrize("ends", [("7", "7"), ("7", ""), ("0", "1"), ("7", ".5"), ("7", "8 9")])
def test_other_numbers_at_the_end_are_no_tracks(ends, make):
    root = make(text="".join(f"{SQUARE.strip()} {end}\n" for end in ends))
    with pytest.raises(DataError, match=r"expected (at least 3 points|coordinates from 0 to 1)"):
        read(root)


# --- without a YAML file


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_a_list_of_classes_stands_for_the_yaml_file(name, make):
    root = make()
    (root / "data.yaml").unlink()
    (root / name).write_text("a\nb\n")
    assert converters.recognise(root) == "yolo"
    assert converters.label_space(root).names == ("a", "b")
    notes = []
    found = read(root, notes)
    assert {s.key: [one.label for one in s.instances] for s in found} == {
        "images/train/p": ["a"],
        "images/train/q": ["a"],
    }
    assert notes == []


@pytest.mark.parametrize("place", ["", "images", "train/images"])
def test_without_a_yaml_file_images_lie_where_they_like(place, tmp_path):
    image(tmp_path / place / "p.png")
    text = tmp_path / place.replace("images", "labels") / "p.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(SQUARE)
    if place:
        image(tmp_path / "test" / "images" / "t.png")
    (tmp_path / "classes.txt").write_text("a\n")
    keys = [sample.key for sample in converters.read(tmp_path)]
    assert keys == [f"{place}/p".lstrip("/")]


def test_a_list_of_classes_without_labels_is_no_data_set(make):
    root = make(labels=())
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("a\nb\n")
    assert converters.recognise(root) == "images"


# --- where images are

PLACES = {
    "a list": {"train": ["images/train"]},
    "Roboflow": {"train": "../train/images/../../images/train"},
    "Linux": {"train": "/content/ds/images/train"},
    "Windows": {"train": "C:\\Users\\me\\ds\\images\\train"},
    "Windows, path": {"path": "D:/2026/ds", "train": "images/train", "val": "images/train"},
    "path": {"path": "./", "train": "./images/train"},
    "all that is there": {"train": "."},
    "a longer path of the author's": {"train": "datasets/ds/images/train"},
    "validation": {"val": None, "validation": "images/train"},
    "names by number": {"names": {0: "a", 1: "b"}},
    "names by text": {"names": {"0": "a", "1": "b"}},
}


@pytest.mark.parametrize("config", PLACES.values(), ids=PLACES)
def test_images_are_found_as_ultralytics_finds_them(config, make):
    samples = read(make(config))
    assert [s.key for s in samples] == ["images/train/p", "images/train/q"]
    assert [[i.label for i in s.instances] for s in samples] == [["a"], ["a"]]


LINES = {
    "below": "images/train/p.png\n\n",
    "from here": "./images/train/p.png\n",
    "CVAT": "data/images/train/p.png\r\n",
    "Windows": "data\\images\\train\\p.png\n",
    "another machine": "/kaggle/input/ds/images/train/p.png\n",
    "twice": "images/train/p.png\n./images/train/p.png\n",
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_a_list_of_images_is_read(lines, make):
    root = make({"path": "./", "train": "train.txt"})
    (root / "train.txt").write_text(lines)
    assert [s.key for s in read(root)] == ["images/train/p"]


def test_a_list_in_a_folder_is_about_that_folder(make):
    root = make({"train": "lists/train.txt"})
    (root / "lists").mkdir()
    (root / "images").rename(root / "lists" / "images")
    (root / "labels").rename(root / "lists" / "labels")
    (root / "lists" / "train.txt").write_text("./images/train/p.png\n")
    assert [s.key for s in read(root)] == ["lists/images/train/p"]


def test_paths_are_not_cut_behind_the_name_of_a_subset(make):
    """`/x/test/images` is not `images`, where all images lie."""
    root = make({"train": "/x/images", "test": "/x/test/images"})
    notes = []
    found = converters.read(root, subset="all", labels=LABELS, note=notes.append)
    assert [s.key for s in found] == ["images/train/p", "images/train/q"]
    assert "'/x/images' is not there: images is read" in notes[0]
    assert "'/x/test/images', which is not there: read without test images" in notes[1]
    with pytest.raises(ValueError, match="'test': expected a folder of images"):
        converters.read(root, subset="test", labels=LABELS)


def test_nothing_outside_the_folder_is_followed(make):
    root = make({"train": "../outside"})
    image(root.parent / "outside" / "p.png")
    with pytest.raises(
        ValueError, match=r"'train': expected a folder of images .*, which is outside"
    ):
        read(root)


@pytest.mark.parametrize("train", ["images", "images/train"])
@pytest.mark.parametrize("links", ["images", "both"])
def test_folders_that_are_links_are_followed(train, links, make, tmp_path):
    root = make({"train": train})
    (root / "images" / "train").rename(tmp_path / "pictures")
    (root / "images" / "train").symlink_to(tmp_path / "pictures")
    if links == "both":
        (root / "labels" / "train").rename(tmp_path / "texts")
        (root / "labels" / "train").symlink_to(tmp_path / "texts")
    notes = []
    found = read(root, notes)
    assert [(s.key, len(s.instances)) for s in found] == [
        ("images/train/p", 1),
        ("images/train/q", 1),
    ]
    assert notes == []


@pytest.mark.parametrize("place", ["images/again", "images/train/again", "again"])
@pytest.mark.parametrize("target", [".", "images", "images/train"])
def test_a_folder_that_is_reached_twice_is_read_once(place, target, make):
    root = make({"train": "images", "val": ["images/train", "images/again"]})
    (root / "images" / "again").symlink_to(root / "images" / "train")
    if not (root / place).exists():
        (root / place).symlink_to(root / target)
    notes = []
    assert [s.key for s in read(root, notes)] == ["images/train/p", "images/train/q"]
    assert notes == []


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


NO_FILE = {
    "none": ({}, "found none: write one"),
    "of another kind": ({"dataset.yml": "a: 1"}, r"found neither of them in dataset\.yml"),
    "several": (
        {name: "{names: [a], train: images}" for name in ("a.yaml", "b.yml")},
        r"found 2 files of the kind \(a\.yaml, b\.yml\): call the right one data\.yaml",
    ),
    "below": ({"ds/data.yaml": "{names: [a]}"}, r"in a folder below: give .*data/ds$"),
}


@pytest.mark.parametrize(("files", "message"), NO_FILE.values(), ids=NO_FILE)
def test_no_yaml_file_is_one_line(files, message, make):
    root = make()
    (root / "data.yaml").unlink()
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    with pytest.raises(ValueError, match=rf"data: expected Ultralytics' data\.yaml or .*{message}"):
        read(root)


def test_of_several_yaml_files_the_usual_one_is_taken(make):
    root = make(file="dataset.yaml")
    (root / "augmented.yaml").write_text("{names: [b, a], train: images}")
    assert [s.instances[0].label for s in read(root)] == ["a", "a"]


@pytest.mark.parametrize("name", ["dataset.yaml", "old.yml"])
def test_a_second_yaml_file_that_gives_the_numbers_to_other_classes_is_said(name, make):
    root, notes = make(), []
    (root / name).write_text(yaml.safe_dump({"names": {0: "b", 1: "a"}, "train": "images/train"}))
    assert [s.instances[0].label for s in read(root, notes)] == ["a", "a"]
    assert f"data.yaml: class 0 is 'a'; {name}, which calls it 'b', is passed over" in notes[0]
    (root / name).write_text(yaml.safe_dump({"names": ["a", "b", "c"], "train": "train.txt"}))
    notes.clear()
    assert len(read(root, notes)) == 2
    assert not any(name in note for note in notes)


# --- classes


def test_classes_are_found_by_name_and_alias_in_any_order(make):
    root = make({"names": ["dust", "b", "Alpha"]}, text=SQUARE + "2" + SQUARE[1:])
    assert [i.label for i in read(root)[0].instances] == ["a"]


def test_a_class_that_was_not_asked_for_is_left_out(make):
    root = make({"names": ["a", "cat"]}, text=f"{SQUARE}\n1{SQUARE[1:]}")
    notes = []
    found = converters.read(root, labels=LabelSpace("peer", ("a",)), note=notes.append)
    assert {one.label for sample in found for one in sample.instances} == {"a"}
    assert any("objects of 'cat', not asked for by 'peer'" in line for line in notes)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kpt_shape": [17, 3]}, "found 'kpt_shape'"),
        ({"names": ["a", "a"]}, "found 'a' twice"),
        ({"names": {"0": "a", "00": "b"}}, "found '0' twice"),
        ({"names": [True, "b"]}, "'names': expected class names, found True: put it in quotes"),
        ({"names": ["a", None]}, "'names': expected class names, found None: put it in quotes"),
        ({"names": {-1: "a"}}, "expected 'names'"),
        ({"names": ["a", "b"], "nc": 3}, "expected as many 'names' as 'nc' says, 3; found 2"),
        ({"names": "a"}, "expected 'names'"),
        ({"names": {"x": "a"}}, "expected 'names'"),
        ({"train": 5}, "'train': expected a folder"),
        ({"train": None}, "expected 'train'"),
        ({"train": ["images/gone"]}, "'images/gone', which is not there"),
        ({"train": "images/train/p.png"}, "p.png', which is another file"),
    ],
)
def test_another_kind_of_file_is_one_line(config, message, make):
    with pytest.raises(ValueError, match=message):
        read(make(config))


# --- images and label files


def test_labels_in_a_folder_of_another_name_are_refused(make):
    root = make()
    (root / "labels").rename(root / "label")
    with pytest.raises(ValueError, match=r"any of 2 images, and 2 other text files \(label/"):
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


def test_no_images_are_refused(make):
    root = make()
    for name in "pq":
        (root / "images" / "train" / f"{name}.png").rename(
            root / "images" / "train" / f"{name}.gif"
        )
    with pytest.raises(ValueError, match=r"expected images in images/train, found 2 .*p\.gif"):
        read(root)


def test_a_folder_without_images_beside_others_is_said(make):
    root = make({"val": "images/val"})
    (root / "images" / "val").mkdir()
    notes = []
    assert len(read(root, notes)) == 2
    assert "expected images in images/val, found nothing" in notes[0]


def labels_of(root, place, text=SQUARE):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_labels_beside_images_are_read(make):
    root = make({"train": "./"})
    for folder in ("images", "labels"):
        for path in (root / folder / "train").iterdir():
            path.rename(root / path.name)
    notes = []
    (root / "about.txt").write_text("By hand.\n")
    assert [len(s.instances) for s in read(root, notes)] == [1, 1]
    assert notes == []
    (root / "q.txt").rename(root / "q_mask.txt")
    with pytest.raises(ValueError, match=r"\(q\.png\), and 1 label files .* \(q_mask\.txt\)"):
        read(root)


@pytest.mark.parametrize("folder", ["label/val", "labels_val", "images/val", "."])
def test_labels_elsewhere_of_images_without_are_refused(folder, make):
    root = make({"val": "images/val"})
    image(root / "images" / "val" / "r.png")
    labels_of(root, f"{folder}/r.txt")
    message = r"1 images without a label file \(images/val/r\.png\), and 1 label files without"
    with pytest.raises(ValueError, match=message):
        read(root)


NO_LABELS = {
    "classes": ("labels/train/classes.txt", "a\nb\n"),
    "a licence": ("r.txt", "Do with it what you want.\n"),
    "of another image": ("runs/r1.txt", SQUARE),
}


@pytest.mark.parametrize(("place", "text"), NO_LABELS.values(), ids=NO_LABELS)
def test_texts_that_are_no_labels_are_no_reason_to_refuse(place, text, make):
    root = make(images=("p", "q", "r"))
    labels_of(root, place, text)
    notes = []
    assert len(read(root, notes)) == 3
    assert [note.split(": ")[1] for note in notes] == [
        "1 images without a label file (images/train/r.png)"
    ]


def test_labels_of_test_images_in_another_folder_are_said(make):
    root = make({"test": "images/test"})
    image(root / "images" / "test" / "r.png")
    labels_of(root, "label/test/r.txt")
    notes = []
    assert [s.key for s in converters.read(root, subset="test", labels=LABELS, note=notes.append)]
    assert "1 label files without an image (label/test/r.txt)" in notes[0]


@pytest.mark.parametrize("place", ["images/test", "test/images", "test"])
def test_test_images_that_the_yaml_does_not_name(make, place):
    root = make()
    image(root / place / "r.png")
    found = converters.read(root, subset="test", labels=LABELS)
    assert [s.key for s in found] == [f"{place}/r"]
    assert len(converters.read(root, subset="all", labels=LABELS)) == 3
    assert len(read(root)) == 2


@pytest.mark.parametrize(
    ("places", "keys"),
    [
        (["test_images"], ["test/r"]),
        (["test_images/images"], ["test/images/r"]),
        (["images/test2017"], ["images/test2017/r"]),
        (["images/test_a", "test"], ["images/test/r", "test/r"]),
        (["test2017", "test_masks", "test-labels", "latest"], ["test2017/r"]),
    ],
)
def test_other_folders_of_test_images(places, keys, make):
    root = make()
    for place in places:
        image(root / place / "r.png")
    assert [s.key for s in converters.read(root, subset="test", labels=LABELS)] == keys
    assert len(converters.read(root, subset="all", labels=LABELS)) == 2 + len(keys)
    assert len(read(root)) == 2


@pytest.mark.parametrize("place", ["test_images/r.png", "test/r.jpg"])
def test_two_test_images_of_one_key_are_refused(place, make):
    root = make()
    image(root / "test" / "r.png")
    image(root / place)
    with pytest.raises(DataError, match=r"r\.png"):
        converters.read(root, subset="test", labels=LABELS)


def test_test_images_need_no_labels(make):
    root = make({"test": "images/test"})
    image(root / "images" / "test" / "r.png")
    notes = []
    assert len(converters.read(root, subset="all", labels=LABELS, note=notes.append)) == 3
    assert notes == []


def test_labels_of_test_images_do_not_stand_for_those_of_training_images(make):
    root = make({"test": "images/test"}, labels=())
    image(root / "images" / "test" / "r.png")
    labels_of(root, "labels/test/r.txt")
    with pytest.raises(ValueError, match="found none for any of 2 images"):
        converters.read(root, subset="all", labels=LABELS)


def test_images_that_no_list_names_are_said_and_own_their_labels(make):
    root = make({"train": "train.txt"}, labels=("q",))
    (root / "train.txt").write_text("images/train/p.png\nimages/train/r.png\n")
    image(root / "images" / "train" / "r.png")
    labels_of(root, "labels/train/r.txt")
    notes = []
    assert [len(s.instances) for s in read(root, notes)] == [0, 1]
    assert "1 images without a label file (images/train/p.png)" in notes[0]
    assert "1 images with labels that the YAML file does not name (images/train/q.png)" in notes[1]


def test_files_of_unknown_kinds_are_said(make):
    root = make()
    (root / "images" / "train" / "r.heic").write_bytes(b"x")
    notes = []
    read(root, notes)
    assert "images/train/r.heic" in notes[0]


def test_an_empty_label_file_is_an_image_without_objects(make):
    notes = []
    root = make(text="")
    assert [s.instances for s in read(root, notes)] == [(), ()]
    # No file is wrong, but so much emptiness is said.
    (said,) = notes
    assert said.startswith(f"{root}: none of its 2 images has an object of the classes")


def test_suffixes_and_accents_are_written_in_two_ways(make):
    here, there = (unicodedata.normalize(form, "Röntgen") for form in ("NFC", "NFD"))
    root = make({"train": "train.txt"}, images=(here, "q"), labels=(there, "q.TXT"))
    (root / "train.txt").write_text(f"images/train/{there}.png\nimages/train/q.png\n")
    assert [len(s.instances) for s in read(root)] == [1, 1]


def test_class_names_may_write_accents_in_either_way(make):
    here, there = (unicodedata.normalize(form, "Würfel") for form in ("NFC", "NFD"))
    root = make({"names": [there]})
    (found, _) = converters.read(root, labels=LabelSpace("german", (here,)))
    assert found.instances[0].label == here


@pytest.mark.parametrize("labels", [("p", "q"), ("q",)])
def test_two_images_of_one_label_file_are_refused(labels, make):
    root = make(labels=labels)
    image(root / "images" / "train" / "p.jpg")
    with pytest.raises(ValueError, match=r"found p\.\w+ with the same label file"):
        read(root)


def test_two_label_files_of_one_image_are_refused(make):
    with pytest.raises(ValueError, match=r"p\.TXT: expected one label file .* found p\.txt"):
        read(make(labels=("p", "p.TXT", "q")))


@pytest.mark.parametrize(
    ("content", "line"), [(b"\xff\xfe0\x00", 1), (SQUARE.encode() + b"\n0 \xb5 .1", 3)]
)
def test_labels_in_another_encoding_are_named_with_their_line(content, line, make):
    root = make()
    (root / "labels" / "train" / "p.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train/p\.txt: line {line}: expected .* UTF-8"):
        read(root)


BOX = "0 .5 .5 .1 .1\n"


def test_a_data_set_of_boxes_is_refused_in_one_line_with_a_remedy(make):
    with pytest.raises(DataError) as error:
        read(make(text=2 * BOX))
    (problem,) = error.value.problems
    assert problem.startswith("data.yaml: expected outlines of objects, found nothing but 4 boxes")
    assert "export the annotations for segmentation" in problem


def test_boxes_among_outlines_are_named_with_their_lines(make):
    with pytest.raises(DataError) as error:
        read(make(text=SQUARE + BOX))
    assert [problem.split(": expected")[0] for problem in error.value.problems] == [
        f"labels/train/{name}.txt: line 2" for name in "pq"
    ]


@pytest.mark.parametrize("value", ["1.2", "-.2", "3", "nan", "inf", "400"])
def test_coordinates_far_outside_are_refused(value, make):
    with pytest.raises(ValueError, match="line 1: expected coordinates from 0 to 1"):
        read(make(text=f"0 .1 .1 .5 .1 {value} .5\n"))


def test_numbers_as_only_python_reads_them_are_refused(make):
    with pytest.raises(
        ValueError, match=r"p\.txt: line 1: expected a class and coordinates, found"
    ):
        read(make(text="0 .1_5 .1 .5 .1 .5 .5 .1 .5\n", images=("p",), labels=("p",)))


# Class, box, and points with 2, 1 or 0: seen, hidden, not there.
POSE = "0 .5 .5 .4 .6 .4 .3 1 .6 .4 1 .5 .7 1 0 0 0\n"
POSES = {
    "an even number of points": POSE,
    "an odd number of points": "0 .5 .5 .4 .6 .4 .3 2 .6 .4 1 .5 .7 2\n" * 2,
    "of two objects": POSE + "1 .2 .2 .2 .2 .2 .2 1.0 .25 .2 1 0 0 0 .12 .2 1\n",
}


@pytest.mark.parametrize("text", POSES.values(), ids=POSES)
def test_key_points_are_no_outlines(text, make):
    with pytest.raises(
        DataError, match=r"p\.txt: .*: these are key points \(pose\), which have no"
    ) as e:
        read(make(text=text))
    assert len(e.value.problems) == 2


OUTLINES = {
    "along the edge": "0 .5 .5 .9 .9 1 .4 1 .9 .4 1 .5 .7 1 .9 .2 0\n",
    "no box": "0 .5 .5 .1 .1 .9 .3 1 .6 .4 1 .5 .7 1 .2 .2 0\n",
    "another line": POSE + "0 .1 .1 .5 .1 .5 .5 .1 .5 .1 .2 .1 .2 .1 .2 .1 .2\n",
    "few points": "0 .5 .5 .4 .6 .4 .3 1 .6 .4 1\n",
}


@pytest.mark.parametrize("text", OUTLINES.values(), ids=OUTLINES)
def test_outlines_that_look_a_little_like_key_points(text, make):
    assert all(sample.instances for sample in read(make(text=text)))


# --- paths as Ultralytics takes them


@pytest.mark.parametrize("path", ["../there", "{tmp_path}/there"])
def test_a_path_elsewhere_counts_from_inside_its_folder(path, make, tmp_path, monkeypatch):
    there = make().rename(tmp_path / "there")
    root = make({"path": path.replace("{tmp_path}", str(tmp_path))})
    monkeypatch.chdir(root)
    for data in (".", "data.yaml", "../data"):
        found = converters.read(data, labels=LABELS)
        assert len(found) == 2
        assert all(sample.image.resolve().is_relative_to(there) for sample in found)


def places(root, file="data.yaml"):
    """The images that are read by the folder and by the file, and what is said."""
    found = []
    for data in (root, root / file):
        notes = []
        samples = converters.read(data, labels=LABELS, note=notes.append)
        found.append(([sample.image.as_posix() for sample in samples], notes))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    "config",
    [
        {"train": "{there}/images/train"},
        {"path": "{there}"},
        {"path": "../there"},
        {"path": "{there}", "train": "{there}/images/train"},
        {"path": ".", "train": "{there}/images/train", "val": ["{there}/images/train"]},
        {"path": "{there}/labels", "train": "{there}/images"},
        {"path": "/nobody/has/this", "train": "{there}/images/train"},
    ],
)
def test_images_that_are_where_the_file_says_come_before_those_beside_it(config, make, tmp_path):
    there = make().rename(tmp_path / "there")
    root = make(config)
    text = (root / "data.yaml").read_text().replace("{there}", there.as_posix())
    (root / "data.yaml").write_text(text)
    found, notes = places(root)
    assert found == [f"{there.as_posix()}/images/train/{name}.png" for name in "pq"]
    assert notes == [f"{root / 'data.yaml'}: its images are read from {there}"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"path": "/nobody/has/this"},
            "'path': '/nobody/has/this' is not there: images are looked",
        ),
        ({"train": "/x/images/train"}, "'train': '/x/images/train' is not there: images/train is"),
        ({"train": "C:\\x\\images\\train"}, "is not there: images/train is read"),
    ],
)
def test_images_beside_the_file_that_stand_for_others_are_said(config, said, make):
    root = make(config)
    found, notes = places(root)
    assert found == [f"{root.as_posix()}/images/train/{name}.png" for name in "pq"]
    assert len(notes) == 1
    assert said in notes[0]


@pytest.mark.parametrize(
    "config", [{"train": "/" + "a" * 5000}, {"path": "a" * 5000}, {"path": "/"}]
)
def test_paths_that_nothing_can_have(config, make):
    root = make({"train": "images/train", **config})
    if "train" in config:
        with pytest.raises(ValueError, match="which is not there"):
            read(root)
    else:
        assert len(read(root)) == len(read(root / "data.yaml")) == 2


def test_images_of_several_data_sets_are_refused(make, tmp_path):
    there = make().rename(tmp_path / "there")
    root = make({"val": f"{there.as_posix()}/images/train"})
    for data in (root, root / "data.yaml"):
        with pytest.raises(
            ValueError, match="expected all images below the folder of one data set"
        ):
            converters.read(data, labels=LABELS)


def test_a_list_whose_lines_name_other_images_that_are_there_is_refused(make, tmp_path):
    there = make().rename(tmp_path / "there")
    root = make({"train": "train.txt"})
    (root / "train.txt").write_text(f"{there.as_posix()}/images/train/p.png\n")
    with pytest.raises(DataError, match="1 lines that name others, which are there"):
        read(root)
