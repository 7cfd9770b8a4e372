"""A fusion as COCO's results: read back, scored by pycocotools, with the file's own ids."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import converters
from fusion.sources.store import PredictionStore

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def data(toys, tmp_path):
    """The images as COCO's data set, all in one annotation file with ids of its own."""
    root = tmp_path / "coco"
    converters.write(toys.samples, root, format="coco", labels=toys.labels)
    (file,) = (root / "annotations").glob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    images = {entry["id"]: 100 + 7 * place for place, entry in enumerate(record["images"])}
    for entry in record["images"]:
        entry["id"] = images[entry["id"]]
    for entry in record["categories"]:
        entry["id"] = 50 - entry["id"]
    for entry in record["annotations"]:
        entry["image_id"] = images[entry["image_id"]]
        entry["category_id"] = 50 - entry["category_id"]
    file.write_text(json.dumps(record), encoding="utf-8")
    return root


@pytest.fixture
def annotations(data):
    return next((data / "annotations").glob("*.json"))


def change_annotations(path, change):
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def fused(zoo, stores, data, tmp_path):
    """Return a function: fuse into a list of results."""

    def fuse(*options, name="results.json", place=None, code=0):
        out = tmp_path / name
        zoo("fuse", *stores, "--out", out, "--method", "mean", "--format", "coco_results",
            "--data", place or data, *options, code=code)  # fmt: skip
        return out

    return fuse


def test_pycocotools_finds_the_objects(fused, annotations):
    out = fused()
    truth = COCO(str(annotations))
    found = truth.loadRes(str(out))
    judged = COCOeval(truth, found, "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    # Blurred truth with holes: near it, and scored.
    assert judged.stats[1] > 0.95
    scores = [entry["score"] for entry in json.loads(out.read_text(encoding="utf-8"))]
    assert 0.5 <= min(scores) < max(scores) <= 1
    for entry in found.anns.values():
        x, y, w, h = entry["bbox"]
        plane = truth.annToMask(entry)
        rows, columns = np.nonzero(plane)
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w, y + h) == (columns.max() + 1, rows.max() + 1)


def test_results_come_back_as_the_store_that_is_written(
    zoo, fused, stores, data, tmp_path, leftovers
):
    out = fused()
    zoo("convert", out, "--to", "store", "--data", data, "--out", tmp_path / "back")
    zoo("fuse", *stores, "--out", tmp_path / "store", "--method", "mean", "--format", "store")
    back, store = PredictionStore(tmp_path / "back"), PredictionStore(tmp_path / "store")
    expected_keys = store.keys()
    assert set(back.keys()) == set(expected_keys)
    for key in expected_keys:
        for label in store.manifest.names:
            expected = store[key].binary(label).full(store[key].size_hw)
            assert np.array_equal(back[key].binary(label).full(back[key].size_hw), expected)
    assert leftovers(tmp_path) == []


def test_the_same_comes_twice_and_replaces_itself(fused):
    out = fused()
    first = out.read_bytes()
    assert fused().read_bytes() == first


def test_unsure_objects_are_left_out(fused, capsys):
    every = json.loads(fused().read_text(encoding="utf-8"))
    floor = float(np.median([entry["score"] for entry in every]))
    some = json.loads(fused("--floor", floor, name="sure.json").read_text(encoding="utf-8"))
    assert 0 < len(some) < len(every)
    assert min(entry["score"] for entry in some) >= floor - 1e-6
    left_out = len(every) - len(some)
    assert f"left out as uncertain: {left_out} (" in capsys.readouterr().out


def test_objects_of_a_class_are_kept_apart(zoo, tmp_path):
    plain = tmp_path / "many"
    size, images = 64, []
    boxes = [(4, 4, 12, 12), (30, 30, 20, 10), (4, 40, 8, 8)]
    (plain / "images").mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(plain / "images" / f"{number}.png"), np.zeros((size, size), np.uint8))
        images.append(
            {"id": f"i{number}", "file_name": f"{number}.png", "width": size, "height": size}
        )
    entries = [
        {
            "id": 10 * image + place + 1,
            "image_id": f"i{image}",
            "category_id": "7",
            "iscrowd": 0,
            "bbox": list(box),
            "area": box[2] * box[3],
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }
        for image in range(3)
        for place, box in enumerate(boxes)
        for x, y, w, h in [box]
    ]
    record = {
        "images": images,
        "annotations": entries,
        "categories": [{"id": "7", "name": "blob"}],
    }
    (plain / "annotations.json").write_text(json.dumps(record), encoding="utf-8")
    given = [
        {**{k: e[k] for k in ("image_id", "category_id", "segmentation")}, "score": 0.8}
        for e in entries
    ]
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    zoo("convert", tmp_path / "given.json", "--to", "store", "--data", plain,
        "--out", tmp_path / "one")  # fmt: skip
    out = tmp_path / "out.json"
    zoo("fuse", tmp_path / "one", "--method", "mean", "--format", "coco_results",
        "--data", plain, "--out", out)  # fmt: skip
    found = json.loads(out.read_text(encoding="utf-8"))
    # The ids are as they are written, texts here.
    assert Counter(e["image_id"] for e in found) == {"i0": 3, "i1": 3, "i2": 3}
    assert {e["category_id"] for e in found} == {"7"}
    assert {tuple(e["bbox"][2:]) for e in found} == {(12.0, 12.0), (20.0, 10.0), (8.0, 8.0)}


def assert_refused(capsys, tmp_path, said):
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(said in line for line in lines), lines
    assert not (tmp_path / "results.json.fusing").exists()


def test_data_sets_without_ids_are_refused(fused, work, capsys, tmp_path):
    fused(place=work / "data", code=2)
    assert_refused(capsys, tmp_path, "expected a COCO data set, found none in")
    assert not (tmp_path / "results.json").exists()


def test_images_are_needed(zoo, stores, capsys, tmp_path):
    zoo("fuse", *stores, "--method", "mean", "--format", "coco_results",
        "--out", tmp_path / "results.json", code=2)  # fmt: skip
    assert_refused(capsys, tmp_path, "--format coco_results: expected --data")


def test_a_class_without_a_category_is_refused(fused, annotations, capsys, tmp_path):
    def change(record):
        last = record["categories"].pop()["id"]
        record["annotations"] = [e for e in record["annotations"] if e["category_id"] != last]

    change_annotations(annotations, change)
    fused(code=2)
    assert_refused(capsys, tmp_path, "lacks 1 of the classes, such as")


def test_one_of_several_files_has_to_be_named(fused, annotations, capsys, tmp_path):
    second = annotations.with_name("instances_again.json")
    second.write_bytes(annotations.read_bytes())
    fused(code=2)
    assert_refused(capsys, tmp_path, "say which one is meant")
    named = fused(place=annotations)
    assert len(COCO(str(annotations)).loadRes(str(named)).anns) > 6


def test_another_file_is_not_replaced(fused, capsys, tmp_path):
    (tmp_path / "results.json").write_text('{"my": "notes"}', encoding="utf-8")
    fused(code=2)
    assert_refused(capsys, tmp_path, "found another file: move it")
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == '{"my": "notes"}'


def test_its_name_ends_in_json(fused, capsys, tmp_path):
    fused(name="results.csv", code=2)
    assert_refused(capsys, tmp_path, "expected the name of a list of results (.json)")


def test_a_detector_s_objects_come_as_it_has_found_them(zoo, data, annotations, capsys, tmp_path):
    truth = json.loads(annotations.read_text(encoding="utf-8"))
    given = [
        {
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "segmentation": entry["segmentation"],
            "score": round(0.05 + 0.01 * (place % 90), 2),
        }
        for place, entry in enumerate(truth["annotations"])
    ]
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    zoo("convert", tmp_path / "given.json", "--to", "store", "--data", data,
        "--out", tmp_path / "det")  # fmt: skip

    def scores(entries):
        return Counter((e["image_id"], e["category_id"], round(e["score"], 2)) for e in entries)

    def fuse(name, *options):
        out = tmp_path / name
        zoo("fuse", tmp_path / "det", "--method", "mean", "--format", "coco_results",
            "--data", data, "--out", out, *options)  # fmt: skip
        return json.loads(out.read_text(encoding="utf-8"))

    assert scores(fuse("all.json")) == scores(given)
    assert "det: its objects are written as it has found them" in capsys.readouterr().err
    sure = [entry for entry in given if entry["score"] >= 0.3]
    assert scores(fuse("sure.json", "--floor", 0.3)) == scores(sure)
    assert f"left out as uncertain: {len(given) - len(sure)} (" in capsys.readouterr().out


def test_masks_have_the_size_that_the_annotations_say(zoo, stores, toys, tmp_path):
    root = tmp_path / "polygons"
    converters.write(toys.samples, root, format="coco", labels=toys.labels, layout="polygons")
    (file,) = (root / "annotations").glob("*.json")

    def change(record):
        for entry in record["images"]:
            entry["width"] += 1
            entry["height"] -= 1

    change_annotations(file, change)
    out = tmp_path / "results.json"
    zoo("fuse", *stores, "--method", "mean", "--format", "coco_results", "--data", root,
        "--out", out)  # fmt: skip
    truth = COCO(str(file))
    judged = COCOeval(truth, truth.loadRes(str(out)), "segm")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[1] > 0.95
