from __future__ import annotations

import contextlib
import json
import os

import cv2
import numpy as np
import pytest
from pycocotools import mask as pycoco
from pycocotools.coco import COCO
from shapely.geometry import box

import converters
from converters.formats.coco.coco import annotation_texts
from converters.masks import rasterize, rasterize_labels
from converters.splits.split import make_split
from converters.types import Instance, LabelSpace, Sample

# pycocotools does not know NumPy 2's keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LAYOUTS = ("polygons", "rle")
SIZE = (20, 30)
SQUARE = [2, 3, 8, 3, 8, 9, 2, 9]


def write_image(path, size_hw):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size_hw, 7, np.uint8))
    return path


def write(samples, out, labels, **more):
    return converters.write(samples, out, format="coco", labels=labels, **more)


def load(path):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return COCO(str(path))


# --- what others read of what we write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pycocotools_finds_our_pixels_areas_and_boxes(case, sample, labels, layout, tmp_path):
    write([sample], tmp_path / "out", labels, layout=layout)
    coco = load(tmp_path / "out/annotations/instances_train.json")
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["height"], image["width"]) == sample.size_hw
    found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
    drawn = [i for i in sample.instances if rasterize(i.geometry, sample.size_hw).area]
    assert [a["id"] for a in found] == list(range(1, len(drawn) + 1))
    for instance, annotation in zip(drawn, found, strict=True):
        truth = rasterize(instance.geometry, sample.size_hw).full(sample.size_hw)
        code = coco.annToRLE(annotation)
        np.testing.assert_array_equal(coco.annToMask(annotation), truth)
        assert annotation["area"] == pycoco.area(code)
        assert annotation["bbox"] == pycoco.toBbox(code).tolist()
        assert coco.loadCats(annotation["category_id"])[0]["name"] == instance.label
        assert annotation["iscrowd"] == 0


def test_categories_count_from_1_and_know_their_group(samples, labels, tmp_path):
    write(samples, tmp_path / "out", labels)
    record = json.loads((tmp_path / "out/annotations/instances_train.json").read_bytes())
    categories = record["categories"]
    assert [(c["id"], c["name"]) for c in categories] == list(enumerate(labels.names, 1))
    assert categories[0]["supercategory"] == "fingers"
    assert categories[-1]["supercategory"] == "forearm"


@pytest.mark.parametrize(
    ("name", "is_code"), [("plain", False), ("two parts", False), ("hole", True)]
)
def test_only_holes_need_a_run_length_code(name, is_code, draw, labels):
    sample = draw(name)
    (text,) = annotation_texts(sample, labels)
    assert isinstance(json.loads(b"{%b}" % text)["segmentation"], dict) == is_code


def test_torchvision_reads_both_subsets(samples, labels, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write(samples, tmp_path / "out", labels, split=make_split(samples, folds=3))
    seen = {}
    for subset in ("train", "val"):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            found = datasets.CocoDetection(
                tmp_path / "out/images" / subset,
                str(tmp_path / f"out/annotations/instances_{subset}.json"),
            )
        for number, (image, objects) in zip(found.ids, found, strict=True):
            assert image.size == (48, 48)
            seen[number] = [o["id"] for o in objects]
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    ids = [number for own in seen.values() for number in own]
    assert sorted(ids) == list(range(1, len(ids) + 1))


def test_supervision_finds_our_pixels_in_codes(samples, labels, tmp_path):
    supervision = pytest.importorskip("supervision")
    write(samples, tmp_path / "out", labels, layout="rle")
    found = supervision.DetectionDataset.from_coco(
        str(tmp_path / "out/images/train"),
        str(tmp_path / "out/annotations/instances_train.json"),
        force_masks=True,
    )
    assert tuple(found.classes) == labels.names
    for sample in samples:
        path = next(p for p in found.annotations if sample.image.name in p)
        detections = found.annotations[path]
        assert len(detections) == len(sample.instances)
        for i, instance in enumerate(sample.instances):
            truth = rasterize(instance.geometry, sample.size_hw).full(sample.size_hw)
            assert labels.names[detections.class_id[i]] == instance.label
            np.testing.assert_array_equal(detections.mask[i], truth)


def read(data, labels, **more):
    data.save()
    return converters.read(data.root, labels=labels, **more)


# --- there and back


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_objects_of_a_class_stay_apart(layout, labels, tmp_path):
    image = write_image(tmp_path / "source/a_b.png", (48, 64))
    boxes = [box(3, 4, 10, 30), box(8, 20, 40, 25), box(50, 2, 63, 47)]
    sample = Sample("x/a_b", image, (48, 64), tuple(Instance("Ulna", b) for b in boxes), "x")
    write([sample], tmp_path / "out", labels, layout=layout)
    (again,) = converters.read(tmp_path / "out", labels=labels)
    for before, after in zip(sample.instances, again.instances, strict=True):
        truth = rasterize(before.geometry, sample.size_hw).full(sample.size_hw)
        np.testing.assert_array_equal(
            rasterize(after.geometry, sample.size_hw).full(sample.size_hw), truth
        )


def test_names_of_any_script(tmp_path):
    labels = LabelSpace("odd", ('a "b" \\', "뼈"))
    image = write_image(tmp_path / "source/손.png", (9, 9))
    sample = Sample("손", image, (9, 9), (Instance("뼈", box(1, 1, 5, 5)),), "환자", {"x": "é"})
    write([sample], tmp_path / "out", labels)
    (again,) = converters.read(tmp_path / "out", labels=labels)
    assert (again.key, again.group, again.attributes) == ("손", "환자", {"x": "é"})
    assert again.instances[0].label == "뼈"


def test_the_waste_data_as_it_comes(tmp_path, new):
    data = new(tmp_path / "data", "train.json", "batch_01_vt")
    data.content["images"][0]["file_name"] = "batch_01_vt/a.png"
    names = LabelSpace.load("waste").names
    data.content["categories"] = [{"id": i, "name": n} for i, n in enumerate(names) if i]
    for category in (2, 10, 2):
        data.add([SQUARE], category=category)
    data.save()
    data.place = "train_all.json"
    (sample,) = read(data, LabelSpace.load("waste"))
    assert [i.label for i in sample.instances] == ["Paper", "Clothing", "Paper"]
    assert set(rasterize_labels(sample.instances, SIZE)) == {"Paper", "Clothing"}
