from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import MultiPolygon, Polygon, box

import converters
from converters import DataError
from converters.formats.coco.drawn import draw
from converters.formats.datumaro import datumaro
from converters.masks import encode_coco_rle, pack, rasterize, rasterize_labels
from converters.splits.split import make_split
from converters.types import Frame, Instance, PackedInstances, Sample

LAYOUTS = tuple(datumaro.LOSES)
PYTHON = "ZOO_DATUMARO_PYTHON"
PROGRAM = Path(__file__).parent / "outside" / "read_datumaro.py"


def write(samples, out, labels, **more):
    return converters.write(samples, out, format="datumaro", labels=labels, **more)


def assert_equal(before, after, labels):
    """Same keys, sizes and pixels."""
    assert [s.key for s in after] == sorted(s.key for s in before)
    for one, two in zip(sorted(before, key=lambda s: s.key), after, strict=True):
        assert one.size_hw == two.size_hw
        first, second = (
            pack(rasterize_labels(s.instances, s.size_hw), labels, s.size_hw) for s in (one, two)
        )
        np.testing.assert_array_equal(first, second, one.key)


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def folder(samples, labels, tmp_path):
    write(samples, tmp_path / "out", labels)
    return tmp_path / "out"


def load(folder, subset="default"):
    return json.loads((folder / "annotations" / f"{subset}.json").read_text())


def save(record, folder, subset="default"):
    (folder / "annotations" / f"{subset}.json").write_text(json.dumps(record))


def change(folder, item, **more):
    """Change the entries of an item; returns its key."""
    record = load(folder)
    record["items"][item].update(more)
    save(record, folder)
    return record["items"][item]["id"]


def annotate(folder, *annotations):
    """Replace the annotations of the first item; returns what is wrong then, and the sample."""
    defaults = {"id": 1, "group": 0, "label_id": 28, "z_order": 0, "attributes": {}}
    return change(folder, 0, annotations=[{**defaults, **a} for a in annotations])


def shapes(instance, labels, size_hw=(48, 48)):
    sample = Sample("a", Path("a.png"), size_hw, (instance,))
    return annotations_of(sample, labels)


def annotations_of(sample, labels, layout="polygons"):
    return [json.loads(text) for text in datumaro.annotation_texts(sample, labels, layout)]


# --- what is written


def test_files_it_leaves(folder, samples):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    images = {f"images/default/{s.key}.png" for s in samples}
    assert names == {*images, "annotations/default.json", "images.json", "provenance.json"}


def test_a_split_makes_subsets(samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    write(samples, tmp_path / "out", labels, split=split, fold=1)
    for subset, keys in {"train": split.train(1), "val": split.val(1)}.items():
        assert sorted(item["id"] for item in load(tmp_path / "out", subset)["items"]) == sorted(
            keys
        )
        assert all((tmp_path / "out/images" / subset / f"{key}.png").is_file() for key in keys)
    assert_equal(samples, converters.read(tmp_path / "out", labels=labels), labels)


TALL = Polygon(box(8, 8, 30, 30).exterior, [box(14, 12, 20, 26).exterior])
KINDS = {
    "one ring": (box(8, 8, 30, 30), ["polygon"]),
    "two parts": (MultiPolygon([box(3, 4, 12, 15), box(20, 20, 40, 40)]), ["polygon", "polygon"]),
    "a hole": (TALL, ["mask"]),
    "a part with a hole": (MultiPolygon([TALL, box(33, 33, 40, 40)]), ["mask"]),
    "on the border": (box(0, 0, 47, 47), ["polygon"]),
    "beyond the border": (box(-1, 0, 40, 40), ["mask"]),
    "too small for CVAT": (box(5, 5, 8, 8), ["mask"]),
    "large enough": (box(5, 5, 8, 9), ["polygon"]),
    "outside": (box(60, 60, 70, 70), []),
}


@pytest.mark.parametrize(("geometry", "kinds"), KINDS.values(), ids=KINDS)
def test_kind_of_shape(geometry, kinds, labels):
    found = shapes(Instance("Ulna", geometry), labels)
    assert [shape["type"] for shape in found] == kinds


def test_only_objects_of_several_parts_have_a_group(labels):
    two = MultiPolygon([box(3, 4, 12, 15), box(20, 20, 40, 40)])
    instances = tuple(Instance("Ulna", g) for g in (box(8, 8, 30, 30), two, TALL, two))
    found = annotations_of(Sample("a", Path("a.png"), (48, 48), instances), labels)
    assert [shape["group"] for shape in found] == [0, 1, 1, 0, 2, 2]
    assert [shape["id"] for shape in found] == [1, 2, 3, 4, 5, 6]


def test_points_lie_where_cvat_draws_them(labels):
    """A pixel's centre is half a pixel from its corner there."""
    (shape,) = shapes(Instance("Ulna", Polygon([(1, 2), (30, 2), (30, 20.25)])), labels)
    assert shape["points"] == [1.5, 2.5, 30.5, 2.5, 30.5, 20.75]


@pytest.mark.parametrize("x", [7.499, 7.4949, 7.5, 7.501, 8.499, 8.5, 8.501, 7.0051, 7.25])
def test_rounding_moves_no_point_to_another_pixel(x, labels):
    (shape,) = shapes(Instance("Ulna", Polygon([(x, 2), (30, 2), (30, 20)])), labels)
    back = np.round(shape["points"][0] - 0.5, 2)
    assert np.floor(back + 0.5) == np.floor(x + 0.5)
    assert abs(back - x) <= 0.01
    assert shape["points"][0] == round(shape["points"][0], 2)


# --- there and back


def test_comes_back_to_the_pixel(sample, labels, layout, tmp_path):
    assert not write([sample], tmp_path / "out", labels, layout=layout)
    assert_equal([sample], converters.read(tmp_path / "out", labels=labels), labels)


def test_vertices_and_parts_come_back(draw, labels, tmp_path):
    for kind in ("plain", "two parts", "crosses itself", "floats", "overlap"):
        sample = draw(kind)
        write([sample], tmp_path / "out", labels)
        (back,) = converters.read(tmp_path / "out", labels=labels)
        assert back.instances == sample.instances


def test_objects_of_one_class_stay_apart(draw, labels, tmp_path):
    two = MultiPolygon([box(3, 4, 12, 15), box(20, 20, 40, 40)])
    instances = tuple(Instance("Ulna", g) for g in (two, box(8, 8, 30, 30), two))
    sample = replace(draw("empty"), instances=instances)
    write([sample], tmp_path / "out", labels)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert back.instances == instances


def cvat(folder, out, rename=lambda key: key):
    """What CVAT does to a data set: import, export without images (its bindings.py).

    Image ids, labels by name and shapes are kept; groups are numbered again, those of one shape
    dropped; all else that an item says is replaced.
    """
    shutil.copytree(folder, out)
    for path in (out / "annotations").iterdir():
        record = json.loads(path.read_text())
        names = [label["name"] for label in record["categories"]["label"]["labels"]]
        order = sorted(names)
        for number, item in enumerate(record["items"]):
            item["attr"] = {"frame": number}
            item["id"] = rename(item["id"])
            item["image"] = {"path": ""}
            groups = [a["group"] for a in item["annotations"]]
            kept = [0, *sorted({g for g in groups if groups.count(g) > 1 and g})]
            for annotation in item["annotations"]:
                group, label = annotation["group"], names[annotation["label_id"]]
                annotation["group"] = kept.index(group) if group in kept else 0
                annotation.update(id=0, label_id=order.index(label), attributes={"occluded": False})
        labels = [{"name": name, "parent": "", "attributes": []} for name in order]
        categories = {
            "label": {"labels": labels, "attributes": ["occluded"]},
            "points": {"items": []},
        }
        path.write_text(
            json.dumps({"info": {}, "categories": categories, "items": record["items"]})
        )
    return out


@pytest.fixture
def everything(drawn):
    """All cases; keys, groups, attributes, and one crop."""
    made = [replace(sample, attributes={"age": 31}) for _, sample in drawn.values()]
    frame = Frame((5, 6, 24, 16), (48, 48), is_stored=False)
    return [*made, replace(made[0], key="crops/a", size_hw=(32, 48), frame=frame)]


def test_survives_cvat(everything, labels, layout, tmp_path):
    write(everything, tmp_path / "out", labels, layout=layout)
    back = converters.read(cvat(tmp_path / "out", tmp_path / "cvat"), labels=labels)
    assert_equal(everything, back, labels)
    before = {s.key: s for s in everything}
    for sample in back:
        one = before[sample.key]
        assert (sample.group, dict(sample.attributes)) == (one.group, dict(one.attributes))
        assert sample.frame == (one.frame and replace(one.frame, is_stored=True))


def test_an_export_alone_has_keys_but_no_groups(samples, labels, tmp_path):
    """Nothing tells that its polygons are ours, so that only masks keep their pixels."""
    write(samples, tmp_path / "out", labels, layout="masks")
    exported = cvat(tmp_path / "out", tmp_path / "cvat")
    (exported / "images.json").unlink()
    back = converters.read(exported, labels=labels)
    assert_equal(samples, back, labels)
    assert {sample.group for sample in back} == {""}


def test_without_our_index_the_items_say_it(samples, folder, labels):
    (folder / "images.json").unlink()
    back = converters.read(folder, labels=labels)
    assert [s.group for s in back] == [s.group for s in samples]


def test_ids_without_their_folders_are_found(samples, folder, labels, tmp_path):
    exported = cvat(folder, tmp_path / "cvat", lambda key: key.split("/")[-1])
    back = converters.read(exported, labels=labels)
    assert_equal(samples, back, labels)
    assert [s.group for s in back] == [s.group for s in samples]


def test_ids_that_two_keys_end_with_are_not_guessed(draw, labels, tmp_path):
    samples = [replace(draw("plain"), key=f"train/{name}/a") for name in ("ID1", "ID2")]
    write(samples, tmp_path / "out", labels)
    exported = cvat(tmp_path / "out", tmp_path / "cvat", lambda key: key.split("/")[-1])
    with pytest.raises(DataError, match="expected an image 'a' in images/default, found none"):
        converters.read(exported, labels=labels)


def test_a_subset_that_was_renamed(samples, folder, labels):
    (folder / "annotations" / "default.json").rename(folder / "annotations" / "Train.json")
    assert_equal(samples, converters.read(folder, labels=labels), labels)


def test_subsets(draw, labels, tmp_path):
    train = draw("plain")
    test = Sample("test/DCM/ID9/a", train.image, (48, 48))
    write([train, test], tmp_path / "out", labels)
    for subset, keys in {"train": [train.key], "test": [test.key]}.items():
        found = converters.read(tmp_path / "out", subset=subset, labels=labels)
        assert [s.key for s in found] == keys


def test_coco_is_something_else(samples, folder, labels, tmp_path):
    assert converters.recognise(folder) == "datumaro"
    place = tmp_path / "coco" / "annotations" / "instances_train.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"images": [], "annotations": [], "categories": [{"items": {"a": 1}}]}')
    assert not datumaro.matches(tmp_path / "coco")


# --- corrections by hand


def test_a_brush_stroke_joins_the_group_of_a_polygon(folder, labels):
    stroke = rasterize(box(30, 30, 40, 44), (48, 48))
    polygon = {"type": "polygon", "points": [8.5, 8.5, 20.5, 8.5, 20.5, 30.5], "group": 3}
    mask = {"type": "mask", "rle": encode_coco_rle(stroke, (48, 48)), "group": 3}
    key = annotate(folder, polygon, mask)
    sample = next(s for s in converters.read(folder, labels=labels) if s.key == key)
    (instance,) = sample.instances
    expected = rasterize(Polygon([(8, 8), (20, 8), (20, 30)]), (48, 48)).full((48, 48))
    expected |= stroke.full((48, 48))
    found = rasterize(instance.geometry, (48, 48)).full((48, 48))
    np.testing.assert_array_equal(found, expected)


def test_shapes_of_two_labels_in_a_group_are_two_objects(folder, labels):
    polygon = {"type": "polygon", "points": [8.5, 8.5, 20.5, 8.5, 20.5, 30.5], "group": 3}
    key = annotate(folder, polygon, {**polygon, "label_id": 27})
    sample = next(s for s in converters.read(folder, labels=labels) if s.key == key)
    assert [i.label for i in sample.instances] == ["Ulna", "Radius"]


@pytest.mark.parametrize(
    "annotation",
    [
        {"type": "label"},
        {"type": "caption", "caption": "ring on finger"},
        {"type": "mask", "rle": {"size": [48, 48], "counts": [48 * 48]}},
    ],
    ids=lambda annotation: annotation["type"],
)
def test_what_has_no_pixels_is_passed_over(folder, labels, annotation):
    key = annotate(folder, annotation)
    sample = next(s for s in converters.read(folder, labels=labels) if s.key == key)
    assert sample.instances == ()


BROKEN = {
    "bbox": ({"type": "bbox", "bbox": [1, 2, 3, 4]}, "found a shape of type 'bbox': draw it"),
    "skeleton": ({"type": "skeleton", "elements": []}, "found a shape of type 'skeleton'"),
    "no type": ({}, "found a shape of type 'None'"),
    "two points": ({"type": "polygon", "points": [1, 2, 3, 4]}, "3 points x, y, found 4 numbers"),
    "one number": ({"type": "polygon", "points": [0.5]}, "3 points x, y, found 1 numbers"),
    "odd": ({"type": "polygon", "points": [1, 2, 3, 4, 5, 6, 7]}, "found 7 numbers"),
    "words": ({"type": "polygon", "points": ["a"] * 6}, "a list of numbers x, y, found"),
    "nested": ({"type": "polygon", "points": [[1, 2], [3, 4], [5, 6]]}, "a list of numbers"),
    "huge": ({"type": "polygon", "points": [10**400] * 6}, "a list of numbers"),
    "NaN": ({"type": "polygon", "points": [1, 2, 3, 4, 5, float("nan")]}, "finite coordinates"),
    "no points": ({"type": "polygon"}, "not a shape: KeyError('points')"),
    "no code": ({"type": "mask"}, "not a shape: KeyError('rle')"),
    "other size": ({"type": "mask", "rle": {"size": [9, 9], "counts": ""}}, "a mask of (48, 48)"),
    "cut off": ({"type": "mask", "rle": {"size": [48, 48], "counts": "a"}}, "COCO RLE"),
    "no label": (
        {"type": "polygon", "points": [1, 1, 9, 1, 9, 9], "label_id": None},
        "a label from 0 to 28, found None",
    ),
    "a truth in points": (
        {"type": "polygon", "points": [1, 2, True, 4, 5, 6]},
        "a list of numbers",
    ),
    "a truth in a code": (
        {"type": "mask", "rle": {"size": [48, 48], "counts": [2303, True]}},
        "expected 'counts' to be a text or whole numbers, found [2303, True]",
    ),
    "a truth as label": (
        {"type": "polygon", "points": [1, 1, 9, 1, 9, 9], "label_id": True},
        "a label from 0 to 28, found True",
    ),
    "label 29": (
        {"type": "polygon", "points": [1, 1, 9, 1, 9, 9], "label_id": 29},
        "a label from 0 to 28, found 29",
    ),
}


@pytest.mark.parametrize(("annotation", "words"), BROKEN.values(), ids=BROKEN)
def test_broken_shape(folder, samples, labels, annotation, words):
    whole = {"type": "polygon", "points": [8.5, 8.5, 20.5, 8.5, 20.5, 30.5]}
    key = annotate(folder, annotation, whole)
    found, problems = converters.scan(folder, labels=labels)
    assert len(found) == len(samples)
    assert len(next(s for s in found if s.key == key).instances) == 1
    (problem,) = problems
    assert (problem.where, problem.key, problem.group) == (f"{key}, annotation 0", key, "ID001")
    assert words in problem.what


def test_a_label_that_was_not_asked_for(folder, labels):
    record = load(folder)
    record["categories"]["label"]["labels"][27]["name"] = "thumb"
    save(record, folder)
    notes = []
    converters.read(folder, labels=labels, note=notes.append)
    assert any("objects of 'thumb', not asked for by 'hand_bones'" in line for line in notes)
    assert "thumb" in converters.label_space(folder).names


def break_image(folder, key):
    path = folder / "images" / "default" / f"{key}.png"
    path.unlink()
    cv2.imwrite(str(path), np.zeros((40, 48), np.uint8))


ITEMS = {
    "no image": (lambda f, k: (f / f"images/default/{k}.png").unlink(), "found none: export with"),
    "other image": (break_image, "an image of (48, 48) (height, width), found (40, 48)"),
    "not an image": (
        lambda f, k: (f / f"images/default/{k}.png").write_bytes(b"?"),
        "without a readable header",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), ITEMS.values(), ids=ITEMS)
def test_broken_item(folder, samples, labels, spoil, words):
    # An item's image must not be broken in the data set that it is linked to.
    shutil.copytree(folder, folder.with_name("copy"))
    folder = folder.with_name("copy")
    spoil(folder, samples[0].key)
    found, problems = converters.scan(folder, labels=labels)
    assert [s.key for s in found] == [s.key for s in samples[1:]]
    (problem,) = problems
    assert (problem.key, problem.group) == (samples[0].key, samples[0].group)
    assert words in str(problem)


def test_paths_that_leave_the_folder_find_nothing(folder, samples, labels, tmp_path):
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((48, 48), np.uint8))
    (folder / "images.json").unlink()
    path = "../../../secret.png"
    change(folder, 0, id="secret", attr={}, image={"path": path, "size": [48, 48]})
    with pytest.raises(DataError, match=r"secret\.png' in images/default, found none"):
        converters.read(folder, labels=labels)


@pytest.mark.parametrize("name", ["/etc/a", "../a"])
def test_keys_that_leave_the_folder(folder, samples, labels, name):
    (folder / "images.json").unlink()
    image = {"path": f"{samples[0].key}.png"}
    change(folder, 0, id=name, attr={}, image=image)
    with pytest.raises(DataError, match="expected a relative path"):
        converters.read(folder, labels=labels)


def test_an_image_in_two_files(folder, samples, labels):
    shutil.copy(folder / "annotations/default.json", folder / "annotations/train.json")
    with pytest.raises(DataError, match=r"found it in default\.json already") as error:
        converters.read(folder, labels=labels)
    assert len(error.value.problems) == len(samples)


def test_an_image_twice_in_a_file(folder, labels):
    record = load(folder)
    record["items"].append(record["items"][0])
    save(record, folder)
    with pytest.raises(DataError) as error:
        converters.read(folder, labels=labels)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ['{"categories": {}, "items": [', '{"categories": {}}', '{"categories": {"label": {}}}'],
)
def test_file_that_is_none(folder, labels, text):
    (folder / "annotations/default.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations/default\.json: expected Datumaro's JSON"):
        converters.read(folder, labels=labels)


@pytest.mark.parametrize("item", [3, {}, {"id": 7}])
def test_item_without_an_id(folder, labels, item):
    record = load(folder)
    save({**record, "items": [item]}, folder)
    with pytest.raises(DataError, match="item 0: expected an 'id'"):
        converters.read(folder, labels=labels)


def test_broken_index(folder, labels):
    (folder / "images.json").write_text('{"a": 3}')
    with pytest.raises(ValueError, match=r"images\.json: expected names with their keys"):
        converters.read(folder, labels=labels)


# --- the library itself


def run_datumaro(folder, out):
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} names no Python that has Datumaro")
    command = [python, "-W", "ignore", str(PROGRAM), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_datumaro_reads_and_writes_the_same(everything, labels, layout, tmp_path):
    write(everything, tmp_path / "out", labels, layout=layout)
    found = run_datumaro(tmp_path / "out", tmp_path / "again")
    assert found["detected"] == ["datumaro"]
    items = {item["id"]: item for item in found["items"]}
    assert sorted(items) == sorted(sample.key for sample in everything)
    for sample in everything:
        item = items[sample.key]
        assert tuple(item["size"]) == tuple(item["pixels"][:2]) == sample.size_hw
        assert_annotations(item["annotations"], sample, labels, layout)
    back = converters.read(tmp_path / "again", labels=labels)
    assert_equal(everything, back, labels)
    assert [s.group for s in back] == [s.group for s in sorted(everything, key=lambda s: s.key)]


def assert_annotations(found, sample, labels, layout):
    """Datumaro's own masks are ours, and its polygons have our points."""
    expected = annotations_of(sample, labels, layout)
    assert len(found) == len(expected)
    truth = rasterize_labels(sample.instances, sample.size_hw)
    for theirs, ours in zip(found, expected, strict=True):
        assert theirs["label"] == labels.names[ours["label_id"]]
        assert (theirs["type"], theirs["group"]) == (ours["type"], ours["group"])
        if theirs["type"] == "polygon":
            np.testing.assert_allclose(theirs["points"], ours["points"], atol=1e-4)
            continue
        bits = np.frombuffer(bytes.fromhex(theirs["bits"]), np.uint8)
        height, width = sample.size_hw
        mask = np.unpackbits(bits, count=height * width).reshape(height, width)
        np.testing.assert_array_equal(mask, truth[theirs["label"]].full(sample.size_hw))


OUTER = (10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0, 10.0, 10.0)
INNER = (15.0, 15.0, 15.0, 25.0, 25.0, 25.0, 25.0, 15.0, 15.0, 15.0)


SPIRAL = [2.5, 1.5, 20.0, 3.0, 18.5, 30.0, 9.0, 12.0]
PARTS = ([1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0], [12.0, 2.0, 20.0, 2.0, 20.0, 9.0, 12.0, 9.0])
BRIDGE = [1.0, 1.0, 21.0, 1.0, 21.0, 21.0, 1.0, 21.0, 1.0, 1.0, 6.0, 6.0, 6.0, 9.0, 9.0, 9.0]
PIXEL = [5.0, 5.0, 6.0, 5.0, 6.0, 6.0, 5.0, 6.0]
BEYOND = [-3.0, 20.0, 50.0, 22.0, 50.0, 39.0, -3.0, 42.0]
DRAWN = ([SPIRAL], [*PARTS], [BRIDGE], [PIXEL], [BEYOND], [[*OUTER, *INNER]])


def drawn_sample(shapes, labels, folder):
    image = folder / "drawn.png"
    cv2.imwrite(str(image), np.zeros((40, 50), np.uint8))
    outlines, _ = draw(shapes, (40, 50))
    return Sample("a", image, (40, 50), PackedInstances.of(labels.names[: len(shapes)], outlines))


@pytest.mark.parametrize("shapes", [DRAWN, (*DRAWN[:3], DRAWN[5])], ids=["some-leave", "inside"])
def test_polygons_that_are_drawn_are_written_as_they_are(labels, layout, shapes, tmp_path):
    """A spiral, two parts, holes by a bridge; what is one pixel or leaves the image is a mask."""
    sample = drawn_sample(shapes, labels, tmp_path)
    found = annotations_of(sample, labels, layout)
    polygons = [own["points"] for own in found if own["type"] == "polygon"]
    kept = [SPIRAL, *PARTS, BRIDGE, [*OUTER, *INNER]]
    assert polygons == ([] if layout == "masks" else kept)
    write([sample], tmp_path / "out", labels, layout=layout)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert_equal([sample], [back], labels)
    index = json.loads((tmp_path / "out" / "images.json").read_text())
    assert index["a"].get("drawn") == (None if layout == "masks" else "coco")


def test_polygons_that_are_drawn_come_back_from_cvat(labels, tmp_path):
    """CVAT keeps ids and shapes, and no more."""
    sample = drawn_sample(DRAWN, labels, tmp_path)
    write([sample], tmp_path / "out", labels)
    record = load(tmp_path / "out")
    del record["items"][0]["attr"]
    save(record, tmp_path / "out")
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert_equal([sample], [back], labels)


def test_drawn_polygons_of_many_digits_become_outlines_of_their_pixels(labels, layout, tmp_path):
    sample = drawn_sample([[[2.125, 1.5, 20.0, 3.0, 18.5, 30.0]]], labels, tmp_path)
    filled = replace(sample, instances=tuple(sample.instances))
    texts = datumaro.annotation_texts(sample, labels, layout)
    assert texts == datumaro.annotation_texts(filled, labels, layout)
    write([sample], tmp_path / "out", labels, layout=layout)
    (back,) = converters.read(tmp_path / "out", labels=labels)
    assert_equal([sample], [back], labels)


def test_datumaro_fills_drawn_polygons_as_we_do(labels, layout, tmp_path):
    sample = drawn_sample(DRAWN, labels, tmp_path)
    write([sample], tmp_path / "out", labels, layout=layout)
    (item,) = run_datumaro(tmp_path / "out", tmp_path / "again")["items"]
    truth = rasterize_labels(sample.instances, sample.size_hw)
    pixels = {name: np.zeros((40, 50), bool) for name in labels.names}
    for own in item["annotations"]:
        bits = np.frombuffer(bytes.fromhex(own["bits"]), np.uint8)
        pixels[own["label"]] |= np.unpackbits(bits, count=2000).reshape(40, 50).astype(bool)
    for name, mask in truth.items():
        np.testing.assert_array_equal(pixels[name], mask.full(sample.size_hw))
