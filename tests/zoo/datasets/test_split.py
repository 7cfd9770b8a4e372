"""What `zoo split` and `zoo convert` say of patients that nobody knows, and of parts."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters.splits.split import Split, given_split, make_split
from converters.splits.table import describe
from converters.types import Instance, LabelSpace, Sample
from zoo.datasets.convert import convert
from zoo.datasets.split import describe_leaks, describe_unknown, own_parts, pair_sides, split
from zoo.source import DataSource

LABELS = LabelSpace("one", ("a",))


def samples_of(keys, group=""):
    return [
        Sample(key, Path(f"{key}.png"), (8, 8), group=group and f"{group}{key}") for key in keys
    ]


HANDS = [f"ID{n}_{side}" for n in range(6) for side in "LR"]
SIDES = {
    "suffix": (["a_L", "a_R"], 1),
    "word": (["hand-left-1", "hand-right-1"], 1),
    "folder": (["Left/1", "Right/1"], 1),
    "behind a number": (["12L", "12R"], 1),
    "one side only": (["a_L", "b_R"], 0),
    "letters of a word": (["al", "ar", "rail", "lair"], 0),
    "both in one name": (["l_r_1", "r_l_1"], 0),
}


@pytest.mark.parametrize(("keys", "count"), SIDES.values(), ids=SIDES)
def test_left_and_right_are_told_by_names(keys, count):
    assert len(pair_sides(keys)) == count


def test_images_of_nobody_known_are_said():
    samples = samples_of(HANDS)
    split = make_split(samples, folds=3)
    home = {key: number for number, keys in enumerate(split.folds) for key in keys}
    apart = sum(home[f"ID{n}_L"] != home[f"ID{n}_R"] for n in range(6))
    (line,) = describe_unknown(samples, split)
    assert line.startswith("no patients are known: every image counts as its own; 6 pairs")
    assert f"ID0_L and ID0_R: {apart} of them are in two folds" in line
    assert line.endswith("--group-by tells whose an image is")


def test_some_images_of_nobody_known_are_counted():
    samples = samples_of("xyz") + samples_of("ab", group="person")
    (line,) = describe_unknown(samples, make_split(samples, folds=2))
    assert line.startswith("no patient is known of 3 images: each counts as its own; --group-by")


def test_versions_of_one_image_are_kept_together_and_said(tmp_path):
    square = Instance("a", box(1, 1, 5, 5))
    images = []
    for number, name in enumerate("abcd" * 3):
        key, pixels = f"{name}_jpg.rf.{number}f", np.full((8, 8), 9 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{key}.png"), pixels)
        images.append(Sample(key, tmp_path / f"{key}.png", (8, 8), (square,)))
    converters.write(images, tmp_path / "set", format="coco", labels=LABELS)
    data, out = DataSource(tmp_path / "set", "coco"), tmp_path / "split.json"
    said = split(data, out, None, 2, "group", 0, describe=False)
    assert "12 images are versions of 4 by their names, such as a_jpg: versions of an image" in said
    folds = Split.load(out).folds
    homes = [{key.split("_jpg")[0] for key in keys} for keys in folds]
    assert not homes[0] & homes[1]


def test_test_images_that_are_versions_of_others_are_said():
    learned = samples_of(["train/a_jpg.rf.1f", "train/b_jpg.rf.2f", "train/c"])
    tests = samples_of(["test/a_jpg.rf.3f", "test/c", "test/d_jpg.rf.4f"])
    (line,) = describe_leaks(learned, [*learned, *tests])
    assert line.startswith("1 test images are versions of images to learn from by their names")
    assert "such as test/a_jpg.rf.3f of train/a_jpg.rf.1f: a score on them tells too much" in line
    assert describe_leaks(learned, learned) == []


def test_nothing_is_said_where_all_patients_are_known():
    samples = samples_of(HANDS, group="person")
    assert describe_unknown(samples, make_split(samples, folds=3)) == []


@pytest.mark.parametrize(("group", "is_shown"), [("", False), ("person", True)])
def test_patients_are_counted_only_where_they_are_known(group, is_shown):
    samples = samples_of(HANDS, group=group)
    header, total, *_ = str(describe(make_split(samples, folds=3), samples, LABELS)).splitlines()
    shown = ["images", *(["patients"] if is_shown else []), "objects"]
    assert header.split()[: len(shown)] == shown
    assert "bent" not in header
    objects = sum(len(sample.instances) for sample in samples)
    assert total.split()[len(shown)] == str(objects)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["train/images/a", "valid/images/b"], ["train", "valid"]),
        (["images/train/a", "images/val/b"], ["train", "val"]),
        (["train2017/a", "val2017/b"], ["train2017", "val2017"]),
        (["train/DCM/ID001/a", "train/DCM/ID002/b"], []),
        (["val", "train"], []),
    ],
)
def test_parts_that_are_dealt_anew_are_said(keys, found):
    assert own_parts(samples_of(keys)) == found


@pytest.fixture
def in_two_parts(tmp_path):
    """A YOLO data set of two parts, a and b."""
    for part, key in (("train", "a"), ("val", "b")):
        (tmp_path / "set" / "images" / part).mkdir(parents=True)
        (tmp_path / "set" / "labels" / part).mkdir(parents=True)
        image = np.full((8, 8), ord(key), np.uint8)
        cv2.imwrite(str(tmp_path / "set" / "images" / part / f"{key}.png"), image)
        label = tmp_path / "set" / "labels" / part / f"{key}.txt"
        label.write_text("0 .25 .25 .75 .25 .75 .75\n", encoding="utf-8")
    write_yolo(tmp_path / "set", "")
    return tmp_path / "set"


def write_yolo(folder, more):
    text = f"names: [a]\ntrain: images/train\nval: images/val\n{more}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def test_parts_that_become_one_are_said(in_two_parts, tmp_path):
    said: list[str] = []
    data, out = DataSource(in_two_parts, "yolo"), tmp_path / "out"
    given = {"command": [], "report": lambda *_: None, "say": said.append}
    convert(data, "coco", out, None, **given)
    (line,) = said
    assert line.startswith("the data set's own parts train, val become one, all to learn from")
    assert "`zoo split --strategy given` keeps the data set's own" in line
    write_yolo(in_two_parts, "test: images/test\n")
    for kind, name in (("images", "c.png"), ("labels", "c.txt")):
        (in_two_parts / kind / "test").mkdir()
        old = in_two_parts / kind / "train" / name.replace("c", "a")
        (in_two_parts / kind / "test" / name).write_bytes(old.read_bytes())
    said.clear()
    convert(DataSource(in_two_parts, "yolo"), "yolo", tmp_path / "other", None, **given)
    assert "no validation part (data.yaml's val names the training images)" in said[0]
    assert said[1:] == ["1 test image is left out: --subset all takes all"]


def test_the_data_set_s_own_parts_are_a_split(in_two_parts, tmp_path):
    data, out = DataSource(in_two_parts, "yolo"), tmp_path / "split.json"
    said = split(data, out, None, 5, "given", 0, describe=True)
    assert said.startswith(f"{out}: 2 images; the one fold, 0, holds out 1\n")
    made = Split.load(out)
    assert (made.val(0), made.train(0)) == (("images/val/b",), ("images/train/a",))
    assert made.held_out == ("images/val/b",)
    assert [s.key for s in data.holding_out(out).read(LABELS, "val")] == ["images/val/b"]
    given = {"command": [], "report": lambda *_: None, "split_path": out}
    convert(data, "yolo", tmp_path / "out", None, **given)
    assert [path.stem for path in (tmp_path / "out/images/val").iterdir()] == ["b"]
    assert Split.load(tmp_path / "out" / "split.json") == made


@pytest.mark.parametrize(
    ("keys", "found"),
    [(["train/a", "train/b"], "found not both"), (["train/a", "val/b", "c"], "'c' in neither")],
)
def test_a_data_set_without_both_parts_has_no_split_of_its_own(keys, found, tmp_path):
    for number, key in enumerate(keys):
        (tmp_path / "set" / key).parent.mkdir(parents=True, exist_ok=True)
        image = np.full((8, 8), 9 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "set" / f"{key}.png"), image)
        shape = {"label": "a", "points": [[1, 1], [5, 1], [5, 5]], "shape_type": "polygon"}
        record = {"shapes": [shape], "imagePath": f"{Path(key).name}.png"}
        (tmp_path / "set" / f"{key}.json").write_text(json.dumps(record), encoding="utf-8")
    data = DataSource(tmp_path / "set", "labelme")
    with pytest.raises(ValueError, match=f"--strategy given: .*{found}: take another strategy"):
        split(data, tmp_path / "split.json", None, 5, "given", 0, describe=False)


def test_lists_of_voc_are_a_split(tmp_path):
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate("abc"):
        cv2.imwrite(str(root / f"JPEGImages/{name}.jpg"), np.full((8, 8), 50 * number, np.uint8))
        cv2.imwrite(str(root / f"SegmentationClass/{name}.png"), np.eye(8, dtype=np.uint8))
    lists = root / "ImageSets/Segmentation"
    for name, stems in (("train", "ac"), ("val", "b"), ("trainval", "abc")):
        (lists / f"{name}.txt").write_text("\n".join(stems), encoding="utf-8")
    data, out = DataSource(root, "voc"), tmp_path / "split.json"
    assert own_parts(data.list_images()) == ["train", "val"]
    split(data, out, None, 5, "given", 0, describe=False)
    assert Split.load(out).val(0) == ("b",)
    assert data.list_images() == [replace(s, instances=()) for s in data.read(data.labels())]
    (lists / "val.txt").write_text("a\nb", encoding="utf-8")
    with pytest.raises(ValueError, match="'a' in neither"):
        split(data, tmp_path / "other.json", None, 5, "given", 0, describe=False)


def test_one_fold_keeps_patients_together():
    samples = samples_of("ab", group="p")
    with pytest.raises(ValueError, match="found no both"):
        given_split(samples, [{"a", "b"}])
    with pytest.raises(ValueError, match="'x' is in fold 0 and what is learned from"):
        given_split([replace(sample, group="x") for sample in samples], [{"a"}])


def test_an_image_to_learn_from_that_is_a_test_image_is_refused(in_two_parts, tmp_path):
    write_yolo(in_two_parts, "test: images/val\n")
    data, out = DataSource(in_two_parts, "yolo"), tmp_path / "out"
    with pytest.raises(ValueError, match="found 'images/val/b' among both"):
        split(data, tmp_path / "split.json", None, 2, "group", 0, describe=False)
    with pytest.raises(ValueError, match="found 'images/val/b' among both"):
        convert(data, "coco", out, None, subset="all", command=[], report=lambda *_: None)
    assert not out.exists()
    assert not (tmp_path / "split.json").exists()


def test_corrections_that_leave_nothing_write_nothing(in_two_parts, tmp_path):
    edits = tmp_path / "edits.yaml"
    keys = ["images/train/a", "images/val/b"]
    edits.write_text(json.dumps({"version": 1, "exclude_images": [{"key": k} for k in keys]}))
    data = DataSource.open(in_two_parts, edits=edits)
    with pytest.raises(ValueError, match="'train' that the corrections leave, found none"):
        convert(data, "coco", tmp_path / "out", None, command=[], report=lambda *_: None)


def test_a_table_that_may_tell_patients_is_named(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("file;PatientID\n", encoding="utf-8")
    samples = samples_of("xyz")
    (line,) = describe_unknown(samples, make_split(samples, folds=3), [table])
    assert line.endswith("--group-by people.csv:PatientID may tell whose an image is")


def test_a_word_beside_the_same_folds_stays(in_two_parts, tmp_path):
    data, out = DataSource(in_two_parts, "yolo"), tmp_path / "split.json"
    given = (out, None, 2, "group", 0)
    split(data, *given, describe=False)
    text = json.dumps(json.loads(out.read_text(encoding="utf-8")) | {"comment": "mine"})
    out.write_text(text, encoding="utf-8")
    split(data, *given, describe=False)
    assert out.read_text(encoding="utf-8") == text


@pytest.mark.slow
@pytest.mark.parametrize("by", ["", "folder", r"p\d", "people.csv:who", "hospital"])
def test_python_deals_the_folds_that_the_command_deals(zoo, tmp_path, monkeypatch, by):
    monkeypatch.chdir(tmp_path)
    labels, samples = LabelSpace("toy", ("tile",)), []
    for n in range(12):
        image = tmp_path / f"p{n % 4}_{n}.png"
        cv2.imwrite(str(image), np.full((20, 30), n, np.uint8))
        drawn = (Instance("tile", box(2, 2, 12, 12)),)
        key, known = f"{n % 3}/{image.stem}", {"hospital": "NSWE"[n // 3]}
        samples.append(Sample(key, image, (20, 30), drawn, attributes=known))
    converters.write(samples, tmp_path / "data", format="coco", labels=labels)
    rows = "".join(f"p{n % 4}_{n}.png,{n % 5}\n" for n in range(12))
    (tmp_path / "people.csv").write_text(f"file,who\n{rows}")
    options = ["--group-by", by] if by else []
    zoo("split", "data", "--out", "split.json", "--folds", 3, "--seed", 5, *options)
    read = converters.read(tmp_path / "data")
    made = converters.split(read, 3, 5, group_by=by, tables=["people.csv"])
    assert made == Split.load(tmp_path / "split.json")
    assert len(set(made.groups.values())) == {"": 12, "folder": 3, "people.csv:who": 5}.get(by, 4)


def test_python_refuses_one_image_in_two_folds(tmp_path):
    samples = []
    for n in range(4):
        image = tmp_path / f"{n}.png"
        cv2.imwrite(str(image), np.full((20, 30), n % 3, np.uint8))
        samples.append(Sample(image.stem, image, (20, 30)))
    with pytest.raises(
        converters.DataError, match=r"the same file as '0' .* and '3' .*: `zoo audit` drafts"
    ):
        converters.split(samples, 4)
