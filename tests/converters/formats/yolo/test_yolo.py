from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapely.geometry import MultiPolygon, Polygon, box

import converters
from converters import DataError
from converters.edits.edits import Edits
from converters.formats.single_ring import joined_ring
from converters.formats.yolo import yolo
from converters.masks import crop, outline, rasterize, rasterize_labels, rings
from converters.splits.split import make_split
from converters.types import Instance, LabelSpace, Sample


@pytest.fixture
def folder(samples, labels, tmp_path):
    converters.write(samples, tmp_path / "out", format="yolo", labels=labels)
    return tmp_path / "out"


def lines_of(sample, labels):
    return [line.split() for line in yolo.label_text(sample, labels)[0].decode().splitlines()]


# --- one ring


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 16)] * 2), elements=st.integers(0, 1)))
@pytest.mark.slow
def test_ring_has_all_pixels_and_no_more_than_bridges(plane):
    if not plane.any():
        return
    mask = crop(plane)
    again = rasterize(Polygon(joined_ring(rings(mask))), plane.shape).full(plane.shape)
    assert (again >= plane).all()
    if isinstance(outline(mask), Polygon):
        np.testing.assert_array_equal(again, plane)


def test_bridge_between_parts_is_as_short_as_can_be():
    parts = MultiPolygon([box(0, 0, 9, 9), box(15, 4, 20, 9), box(30, 30, 39, 39)])
    ring = joined_ring(rings(rasterize(parts, (48, 48))))
    # 5 pixels from x = 9 to 15; 20 from (20, 9) to (30, 30), in diagonal and straight steps.
    assert rasterize(Polygon(ring), (48, 48)).area == 100 + 36 + 100 + 5 + 20


def test_hole_costs_nothing_and_parts_cost_their_bridge(draw, labels):
    assert not yolo.label_text(draw("two holes"), labels)[1]
    loss = yolo.label_text(draw("two parts"), labels)[1]
    assert (loss.parts, loss.holes) == (1, 0)
    assert loss.dice["Radius"] == pytest.approx(0.985, abs=0.01)


def test_overlapping_parts_need_no_bridge(draw, labels):
    assert not yolo.label_text(draw("parts that overlap"), labels)[1]


# --- the text


def test_coordinates_find_their_pixel_again():
    sizes = [(7, 5), (512, 512), (2048, 2048), (3060, 2000)]
    for size in {side for pair in sizes for side in pair}:
        text = yolo._words(size).astype(np.float32)
        assert (np.trunc(text * np.float32(size)) == np.arange(size)).all()


def test_width_and_height_are_not_swapped(draw, labels):
    (line,) = lines_of(draw("wide"), labels)
    points = np.array(line[1:], float).reshape(-1, 2)
    assert line[0] == "27"
    np.testing.assert_allclose(points.min(axis=0), (40.5 / 64, 3.5 / 24), atol=1e-6)
    np.testing.assert_allclose(points.max(axis=0), (60.5 / 64, 20.5 / 24), atol=1e-6)


def test_instances_of_a_label_stay_apart(draw, labels):
    base = draw("empty")
    two = (Instance("Ulna", box(1, 1, 5, 5)), Instance("Ulna", box(10, 10, 20, 20)))
    sample = Sample(base.key, base.image, base.size_hw, two)
    text, loss = yolo.label_text(sample, labels)
    assert [line.split()[0] for line in text.splitlines()] == [b"28", b"28"]
    assert not loss


def test_instance_outside_the_image_has_no_line(draw, labels):
    base = draw("empty")
    far = Sample(base.key, base.image, base.size_hw, (Instance("Ulna", box(90, 90, 99, 99)),))
    assert yolo.label_text(far, labels)[0] == b""


# --- the folder


def test_layout_without_a_split(folder, samples, labels):
    record = yaml.safe_load((folder / "data.yaml").read_text())
    assert record == {
        "train": "images/train",
        "val": "images/train",
        "names": dict(enumerate(labels.names)),
    }
    assert not (folder / "images" / "val").exists()
    stems = sorted(s.image.stem for s in samples)
    assert sorted(p.stem for p in (folder / "images/train").iterdir()) == stems
    assert sorted(p.name for p in (folder / "labels/train").iterdir()) == [
        f"{s}.txt" for s in stems
    ]


def test_layout_with_a_split(samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    converters.write(samples, tmp_path / "out", format="yolo", labels=labels, split=split, fold=2)
    held_out = sorted(key.split("/")[-1] for key in split.val(2))
    assert sorted(p.stem for p in (tmp_path / "out/images/val").iterdir()) == held_out
    assert sorted(p.stem for p in (tmp_path / "out/labels/val").iterdir()) == held_out
    assert len(list((tmp_path / "out/images/train").iterdir())) == 4
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["val"] == "images/val"


def test_names_that_clash_get_a_number(draw, labels, tmp_path):
    image = draw("plain").image
    upper = image.with_name(image.name.replace("image", "IMAGE"))
    shutil.copy(image, upper)
    keys = ["a/x", "b/x", "c/X"]
    samples = [Sample(k, i, (48, 48)) for k, i in zip(keys, (image, image, upper), strict=True)]
    converters.write(samples, tmp_path / "out", format="yolo", labels=labels)
    index = json.loads((tmp_path / "out/images.json").read_text())
    stem = image.stem
    assert list(index) == [stem, f"{stem}-2", f"{upper.stem}-3"]
    assert [entry["key"] for entry in index.values()] == keys


# --- reading


def test_read_after_a_move(folder, samples, labels, tmp_path):
    moved = tmp_path / "elsewhere" / "yolo"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    again = converters.read(moved, labels=labels)
    assert [s.key for s in again] == [s.key for s in samples]


def test_read_a_data_set_of_others(folder, samples, labels):
    (folder / "images.json").unlink()
    record = yaml.safe_load((folder / "data.yaml").read_text())
    record["names"] = list(labels.names)
    (folder / "data.yaml").write_text(yaml.safe_dump(record))
    again = converters.read(folder, labels=labels)
    assert [s.key for s in again] == [f"images/train/{s.image.stem}" for s in samples]


def test_an_image_that_lost_its_label_file_is_refused(folder, samples, labels):
    (folder / "labels/train" / f"{samples[0].image.stem}.txt").unlink()
    with pytest.raises(ValueError, match="expected its label file, which was written, found none"):
        converters.read(folder, labels=labels)


def test_an_image_that_was_written_and_is_gone_is_refused(folder, samples, labels, tmp_path):
    (folder / "images/train" / samples[0].image.name).unlink()
    with pytest.raises(ValueError, match=r"expected the image that images\.json names, found none"):
        converters.read(folder, labels=labels)
    record = {"version": 1, "exclude_images": [{"key": samples[0].key}]}
    (tmp_path / "edits.yaml").write_text(yaml.safe_dump(record))
    edits = Edits.load(tmp_path / "edits.yaml")
    assert len(converters.read(folder, labels=labels, edits=edits)) == len(samples) - 1


def test_an_image_without_a_label_file_is_empty_where_nobody_wrote_one(folder, samples, labels):
    (folder / "labels/train" / f"{samples[0].image.stem}.txt").unlink()
    (folder / "images.json").unlink()
    notes: list[str] = []
    assert converters.read(folder, labels=labels, note=notes.append)[0].instances == ()
    assert "1 images without a label file" in notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.1 0.1 0.2 0.2", "found only a box"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "at least 3 points x y, found 7"),
        ("29 0.1 0.1 0.2 0.2 0.3 0.3", "a class of data.yaml, 0 to 28, found 29"),
        ("-1 0.1 0.1 0.2 0.2 0.3 0.3", "a class of data.yaml, 0 to 28, found -1"),
        ("x 0.1 0.1 0.2 0.2 0.3 0.3", "a class and coordinates"),
    ],
)
def test_read_reports_broken_labels(folder, samples, labels, line, message):
    for sample in samples[:2]:
        (folder / "labels/train" / f"{sample.image.stem}.txt").write_text(line)
    with pytest.raises(DataError, match=message) as error:
        converters.read(folder, labels=labels)
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a]", "expected 'train' with folders of images"),
        ("train: x", "expected 'names', a list"),
        ("{", "data.yaml: expected YAML, found"),
        ("7", "expected Ultralytics' data set, a mapping of keys"),
    ],
)
def test_read_refuses_other_yaml(folder, labels, text, message):
    (folder / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        converters.read(folder, labels=labels)


def test_read_refuses_folders_that_are_not_there(folder, labels):
    record = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump({**record, "train": "images/gone"}))
    with pytest.raises(ValueError, match="expected a folder of images below"):
        converters.read(folder, labels=labels)


def test_other_label_space_is_refused(folder):
    with pytest.raises(ValueError, match="expected classes of 'waste'"):
        converters.read(folder, labels=LabelSpace("waste", ("paper", "glass")))


# --- the reader that will use the labels


@pytest.fixture(scope="session")
def ultralytics(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setenv("YOLO_AUTOINSTALL", "false")
        patch.setenv("YOLO_VERBOSE", "false")
        yield pytest.importorskip("ultralytics")


def masks_of_ultralytics(out, subset, size_px):
    """Image stem -> class -> mask, as its own reader gives them for training."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(out / "data.yaml"))
    options = get_cfg(overrides={"overlap_mask": False, "mask_ratio": 1})
    dataset = YOLODataset(
        img_path=data[subset],
        data=data,
        task="segment",
        imgsz=size_px,
        augment=False,
        rect=False,
        hyp=options,
    )
    found = {}
    for i in range(len(dataset)):
        row = dataset[i]
        classes = row["cls"].numpy().ravel().astype(int).tolist()
        planes = row["masks"].numpy().astype(np.uint8)
        stem = row["im_file"].rsplit("/", 1)[-1].rsplit(".", 1)[0]
        found[stem] = dict(zip(classes, planes, strict=False)) if classes else {}
    return found


KINDS = ["plain", "hole", "two holes", "two parts", "island in a hole", "overlap", "empty"]
KINDS += ["crosses itself", "parts that overlap", "border", "beyond the border"]


@pytest.mark.slow
def test_ultralytics_finds_the_same_pixels(ultralytics, draw, labels, tmp_path):
    drawn = {kind: draw(kind) for kind in KINDS}
    samples = []
    for i, (kind, sample) in enumerate(drawn.items()):
        image = sample.image.with_name(f"image{i}_{kind.replace(' ', '_')}.png")
        shutil.copy(sample.image, image)
        samples.append(Sample(kind, image, sample.size_hw, sample.instances))
    out = tmp_path / "out"
    converters.write(samples, out, format="yolo", labels=labels)
    found = masks_of_ultralytics(out, "train", 48)
    written = {s.key: s for s in converters.read(out, labels=labels)}
    for sample in samples:
        ours = rasterize_labels(written[sample.key].instances, sample.size_hw)
        theirs = found[sample.image.stem]
        assert {labels.names[c] for c in theirs} == set(ours)
        for c, plane in theirs.items():
            expected = ours[labels.names[c]].full(sample.size_hw)
            # Halves of a diagonal step may be truncated to either side.
            assert (plane != expected).sum() <= 2, sample.key


def test_ultralytics_finds_an_image_that_is_not_square(ultralytics, draw, labels, tmp_path):
    sample = draw("wide")
    converters.write([sample], tmp_path / "out", format="yolo", labels=labels)
    ((_, plane),) = masks_of_ultralytics(tmp_path / "out", "train", 64)[sample.image.stem].items()
    above = (64 - 24) // 2
    expected = np.zeros((64, 64), np.uint8)
    expected[above : above + 24] = rasterize(sample.instances[0].geometry, (24, 64)).full((24, 64))
    np.testing.assert_array_equal(plane, expected)


def test_ultralytics_finds_the_held_out_images(ultralytics, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    converters.write(samples, tmp_path / "out", format="yolo", labels=labels, split=split, fold=0)
    for subset, keys in {"train": split.train(0), "val": split.val(0)}.items():
        found = masks_of_ultralytics(tmp_path / "out", subset, 64)
        assert sorted(found) == sorted(key.split("/")[-1] for key in keys)


def test_ultralytics_at_the_size_of_a_bone(ultralytics, draw, labels, tmp_path):
    size = 640
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    around = np.stack([320 + 250 * np.cos(angle), 300 + 60 * np.sin(angle + 0.5)], axis=1)
    image = tmp_path / "image_1.png"
    cv2.imwrite(str(image), np.zeros((size, size), np.uint8))
    sample = Sample("image_1", image, (size, size), (Instance("Radius", Polygon(around)),))
    converters.write([sample], tmp_path / "out", format="yolo", labels=labels)
    plane = masks_of_ultralytics(tmp_path / "out", "train", size)["image_1"][27]
    truth = rasterize(sample.instances[0].geometry, (size, size)).full((size, size))
    dice = 2 * (plane & truth).sum() / (plane.sum() + truth.sum())
    assert dice > 0.9999
