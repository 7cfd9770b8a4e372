from __future__ import annotations

import json

import pytest

import converters
from converters.errors import DataError
from converters.formats.coco.files import annotation_files, matches

SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]
WHOLE = '{"images": [], "annotations": [], "categories": []}'
PLACE = "annotations/instances_val2017.json"


@pytest.fixture
def beside(data):
    """Put a file beside good annotations, and read all."""

    def put(place, content, labels):
        path = data.add([SQUARE]).save().parents[1] / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return converters.read(data.root, labels=labels)

    return put


BROKEN = {
    "empty": ("", "expected JSON, found an empty file"),
    "blank": (" \n", "expected JSON, found an empty file"),
    "UTF-16": (WHOLE.encode("utf-16"), "expected UTF-8, found byte 0xff at 0: save it as UTF-8"),
    "an empty list": ("[]", "expected an object with 'images', 'annotations' and 'categories'"),
    "an empty object": ("{}", "found the keys []"),
    "null": ("null", "'categories', found None"),
    "a number": ("7", "'categories', found 7"),
    "cut": (WHOLE[:-3], "expected JSON, found a broken file"),
    "cut early": (WHOLE[:14], "expected JSON, found a broken file"),
    "not UTF-8": ('{"images": "\xe4'.encode("latin-1"), "expected UTF-8, found byte 0xe4"),
    "images as an object": (WHOLE.replace("[]", "{}", 1), "'images' to be a list of objects"),
    "annotations as text": (WHOLE.replace('s": []', 's": "x"', 2), "to be a list of objects"),
    "a table with a number": (WHOLE.replace("[]", "[{}, 5]", 1), "found 5 at place 1"),
    "keys of another program": ('{"names": ["Ulna"]}', "found the keys ['names']"),
    "results": ('[{"image_id": 7, "category_id": 90, "score": 1}]', "list of COCO results"),
    "a list of files": ("[" + WHOLE + "]", "'categories', found a list"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_and_not_passed_over(content, message, beside, labels):
    with pytest.raises(DataError) as error:
        beside(PLACE, content, labels)
    (found,) = error.value.problems
    assert found.startswith(f"{PLACE}: expected")
    assert message in found


@pytest.mark.parametrize(
    "place",
    [
        "annotations/more.json",
        "annotations/val.JSON",
        "instances_val.json",
        "val.json",
        "valid/_annotations.coco.json",
        "extra/annotations.json",
    ],
)
@pytest.mark.parametrize("content", ["", "[]", WHOLE[:-3]])
def test_places_and_names_of_annotation_files(place, content, beside, labels):
    with pytest.raises(DataError, match=place):
        beside(place, content, labels)


@pytest.mark.parametrize(
    "place", ["coco_results.json", "predictions.json", "out/results.segm.json"]
)
def test_results_beside_annotation_files_are_left_out_and_said(place, data, labels):
    data.add([SQUARE]).save()
    content = BROKEN["results"][0]
    path = data.root / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    notes = []
    (sample,) = converters.read(data.root, labels=labels, note=notes.append)
    assert len(sample.instances) == 1
    assert notes == [f"{data.root}: left out lists of COCO results (predictions): {place}"]
    assert converters.label_space(data.root).names


STRAY = {
    "package.json": '{"name": "data", "images": 3}',
    "settings.json": "{ // with a comment\n}",
    ".vscode/tasks.json": "",
    "annotations/.hidden.json": "",
    "annotations/license.json": '{"text": "CC-BY"}',
    "split.json": "",
    "names.json": '["Ulna"]',
    "notes.json": "",
    "train_files.json": '["a.png"]',
    "deep/er/val.json": "",
}


@pytest.mark.parametrize(("place", "content"), STRAY.items(), ids=STRAY)
def test_stray_files_do_not_matter(place, content, beside, labels):
    (sample,) = beside(place, content, labels)
    assert len(sample.instances) == 1


def test_a_file_beside_annotation_files_with_any_name(new, tmp_path, labels):
    data = new(tmp_path / "data", "batch1.json", ".").add([SQUARE])
    data.save()
    (data.root / "batch2.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"batch2\.json: expected JSON, found an empty file"):
        converters.read(data.root, labels=labels)


def test_a_folder_that_is_called_like_a_file(data, labels):
    data.add([SQUARE]).save()
    (data.root / PLACE).mkdir()
    with pytest.raises(DataError, match="expected a JSON file, found: Is a directory"):
        converters.read(data.root, format="coco", labels=labels)


def test_a_broken_test_file_does_not_matter_for_training(data, labels):
    data.add([SQUARE]).save()
    (data.root / "annotations/instances_test2017.json").write_bytes(b"")
    assert len(converters.read(data.root, labels=labels)) == 1
    with pytest.raises(DataError, match="instances_test2017"):
        converters.read(data.root, labels=labels, subset="all")


@pytest.mark.parametrize("content", ["", WHOLE[:-9], WHOLE.encode("utf-16"), "[]"])
def test_the_format_is_known_by_a_broken_files_name(content, tmp_path, labels):
    path = tmp_path / PLACE
    path.parent.mkdir()
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert matches(tmp_path)
    with pytest.raises(DataError, match="instances_val2017"):
        converters.read(tmp_path, labels=labels)


# --- what is annotated for other tasks

OTHERS = {
    "panoptic": {"image_id": 7, "file_name": "a.png", "segments_info": []},
    "captions": {"id": 1, "image_id": 7, "caption": "a hand"},
    "labels": {"id": 1, "image_id": 7, "category_id": 90},
    "person_keypoints": {"image_id": 7, "category_id": 90, "keypoints": [1, 1, 2], "bbox": [1] * 4},
}


@pytest.mark.parametrize("subset", ["train2017", "val2017"])
@pytest.mark.parametrize("task", OTHERS)
def test_files_for_other_tasks_do_not_contradict(task, subset, data, labels):
    data.add([SQUARE]).save()
    data.content["annotations"] = [OTHERS[task]]
    data.place = f"annotations/{task}_{subset}.json"
    data.save()
    notes = []
    (sample,) = converters.read(data.root, labels=labels, note=notes.append)
    assert len(sample.instances) == 1
    assert [data.place in note for note in notes] == ([True] if subset == "val2017" else [])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("panoptic", "'a.png': expected its mask a.png in a folder beside the JSON file"),
        ("captions", "this is captions, which is not read"),
        ("labels", "this is labels of whole images, which is not read"),
        ("person_keypoints", "this is keypoints without outlines, which is not read"),
    ],
)
def test_files_for_other_tasks_alone(task, message, data, labels):
    data.content["annotations"] = [OTHERS[task]]
    data.place = f"annotations/{task}_train2017.json"
    data.save()
    _, (found,) = converters.scan(data.root, labels=labels)
    assert str(found).startswith(f"{data.place}: {message}")


def test_outlines_in_a_file_for_keypoints_are_read_where_nothing_else_has_them(
    new, tmp_path, labels
):
    data = new(tmp_path / "data").add([SQUARE])
    data.save()
    other = new(tmp_path / "data", "annotations/person_keypoints_val2017.json", "val2017")
    other.add([SQUARE], keypoints=[1, 1, 2]).save()
    found = converters.read(data.root, labels=labels)
    assert [s.key for s in found] == ["images/train2017/a", "val2017/a"]


@pytest.mark.parametrize("name", ["image_info_train2017", "train2017"])
def test_a_file_without_annotations_names_images_and_no_more(name, data, labels):
    data.add([SQUARE]).save()
    data.image("images/train2017/b.png", id=8)
    data.content["annotations"] = []
    data.place = f"annotations/{name}.json"
    data.save()
    found = converters.read(data.root, labels=labels)
    assert [(s.image.name, len(s.instances)) for s in found] == [("a.png", 1), ("b.png", 0)]


def test_files_of_other_names_are_read_beside_instances(new, tmp_path, labels):
    new(tmp_path / "data").add([SQUARE]).save()
    new(tmp_path / "data", "annotations/more.json", "more").add([SQUARE]).save()
    assert [s.key for s in converters.read(tmp_path / "data", labels=labels)] == [
        "images/train2017/a",
        "more/a",
    ]
    assert len(annotation_files(tmp_path / "data")) == 2


def test_json_that_only_mentions_a_key_is_no_annotation_file(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"images": 5, "annotations": []}))
    assert not matches(tmp_path)


def test_nothing_but_results(tmp_path, labels):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 7, "category_id": 90, "score": 1}]')
    with pytest.raises(ValueError, match=r"results.json: .*which is not read: .*'annotations'"):
        converters.read(tmp_path, format="coco")
    with pytest.raises(ValueError, match=r"results.json: .*put what has a high score"):
        converters.read(tmp_path, format="coco", labels=labels)
    path.write_text("[")
    with pytest.raises(ValueError, match="expected COCO's JSON files of subset 'all', found none"):
        converters.read(tmp_path, format="coco")
