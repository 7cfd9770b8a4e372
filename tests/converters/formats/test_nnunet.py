"""nnU-Net's raw data sets: numbers, regions that overlap, old descriptions, and what is refused."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

import converters
from converters import DataError
from converters.masks import rasterize, rasterize_labels
from converters.splits.split import make_split
from converters.types import Instance, LabelSpace, Sample

SIZE = (24, 40)
LABELS = {"background": 0, "lung": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def index_map():
    values = np.zeros(SIZE, np.uint8)
    values[2:12, 2:20], values[4:8, 4:9] = 1, 2
    return values


@pytest.fixture
def data(tmp_path):
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
    for name in ("case_1", "case_2"):
        cv2.imwrite(str(tmp_path / f"imagesTr/{name}_0000.png"), np.full(SIZE, 99, np.uint8))
        cv2.imwrite(str(tmp_path / f"labelsTr/{name}.png"), index_map())
    cv2.imwrite(str(tmp_path / "imagesTs/case_3_0000.png"), np.full(SIZE, 99, np.uint8))
    return described(tmp_path, LABELS)


def described(root, labels):
    content = {"channel_names": {"0": "xray"}, "labels": labels, "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def planes(root):
    sample = converters.read(root)[0]
    return {n: m.full(SIZE) for n, m in rasterize_labels(sample.instances, SIZE).items()}


def test_numbers_are_classes(data):
    assert converters.recognise(data) == "nnunet"
    assert converters.label_space(data).names == ("lung", "tumour")
    np.testing.assert_array_equal(planes(data)["lung"], index_map() == 1)
    np.testing.assert_array_equal(planes(data)["tumour"], index_map() == 2)
    keys = {part: [s.key for s in converters.read(data, subset=part)] for part in ("train", "test")}
    assert keys == {"train": ["case_1", "case_2"], "test": ["test/case_3"]}
    listed = converters.list_images(data, subset="all")
    assert [s.key for s in listed] == ["case_1", "case_2", "test/case_3"]


@pytest.mark.parametrize("place", [".", "dataset.json"])
def test_regions_overlap(place, data):
    described(data, REGIONS)
    found = planes(data / place)
    np.testing.assert_array_equal(found["whole"], index_map() > 0)
    np.testing.assert_array_equal(found["core"], index_map() == 2)
    assert list(found) == ["whole", "core"]


def test_test_images_may_have_maps(data):
    (data / "labelsTs").mkdir()
    cv2.imwrite(str(data / "labelsTs/case_3.png"), index_map())
    (sample,) = converters.read(data, subset="test")
    assert {one.label for one in sample.instances} == {"lung", "tumour"}


def test_old_descriptions_have_names_by_numbers(data):
    described(data, {"0": "background", "1": "lung", "2": "tumour"})
    assert converters.label_space(data).names == ("lung", "tumour")


def test_what_is_ignored_is_no_class(data):
    values = index_map()
    values[0] = 3
    cv2.imwrite(str(data / "labelsTr/case_1.png"), values)
    with pytest.raises(
        DataError, match=r"labelsTr/case_1\.png: expected a number of dataset\.json"
    ):
        converters.read(data)
    described(data, {**LABELS, "ignore": 3})
    assert list(planes(data)) == ["lung", "tumour"]


@pytest.mark.parametrize(
    "labels",
    [
        *(None, {}, {"a": "b"}, {"background": 0}, {"a": None}, [1]),
        *({"a": 1, "b": 1}, {"a": 0, "b": 1}),
    ],
)
def test_descriptions_without_classes_are_refused(labels, data):
    described(data, labels)
    with pytest.raises(ValueError, match=r"dataset\.json: expected"):
        converters.label_space(data)


def test_several_files_an_image_are_refused(data):
    cv2.imwrite(str(data / "imagesTr/case_1_0001.png"), np.full(SIZE, 99, np.uint8))
    with pytest.raises(ValueError, match=r"case_1_0001\.png: expected one file an image"):
        converters.read(data)


def test_what_has_no_partner_is_said(data):
    (data / "labelsTr/case_2.png").unlink()
    notes = []
    assert [s.key for s in converters.read(data, note=notes.append)] == ["case_1"]
    assert "left out 1 images without a map in labelsTr (case_2, ...)" in notes[-1]
    (data / "imagesTr/case_1_0000.png").unlink()
    with pytest.raises(DataError, match="expected an image case_1_0000, found none"):
        converters.read(data)


def test_names_that_end_in_four_digits_are_names(data):
    for year in ("2020", "2021"):
        cv2.imwrite(str(data / f"imagesTr/scan_{year}.png"), np.full(SIZE, 9, np.uint8))
        cv2.imwrite(str(data / f"labelsTr/scan_{year}.png"), index_map())
    assert [s.key for s in converters.read(data)][2:] == ["scan_2020", "scan_2021"]


def test_a_second_map_and_other_folders_are_told(data):
    (data / "imagesVal").mkdir()
    cv2.imwrite(str(data / "imagesVal/x_0000.png"), np.full(SIZE, 9, np.uint8))
    notes = []
    converters.read(data, note=notes.append)
    assert "left out 1 images that are no part of a pair" in notes[0]
    cv2.imwrite(str(data / "labelsTr/case_1.tif"), index_map())
    with pytest.raises(DataError, match="expected one map of this name"):
        converters.read(data)


def test_pixels_that_nobody_annotated_are_said(data):
    described(data, {**LABELS, "ignore": "3"})
    notes = []
    converters.read(data, note=notes.append)
    assert notes == [f"{data}: pixels of the number 3 ('ignore') are no class"]


# --- writing

HANDS = LabelSpace("hands", ("wrist", "thumb", "index"))
WRIST, THUMB = Instance("wrist", box(2, 2, 20, 12)), Instance("thumb", box(12, 6, 30, 20))
INDEX = Instance("index", box(15, 8, 25, 22))


@pytest.fixture
def hand(tmp_path):
    """Make a sample with its image; `channels` is 1 or 3."""

    def make(name, instances=(), channels=1, suffix=".png"):
        path = tmp_path / "pictures" / f"{name.replace('/', '_')}{suffix}"
        path.parent.mkdir(exist_ok=True)
        shape = SIZE if channels == 1 else (*SIZE, channels)
        cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        return Sample(name, path, SIZE, tuple(instances), group=name)

    return make


def written(samples, out, labels=HANDS, **more):
    loss = converters.write(samples, out, format="nnunet", labels=labels, **more)
    assert not loss
    return json.loads((out / "dataset.json").read_text())


def test_classes_that_share_pixels_become_regions(hand, tmp_path):
    samples = [hand("a", (WRIST, THUMB)), hand("b", (THUMB, INDEX, WRIST))]
    found = written(samples, tmp_path / "out")
    # Their own numbers, then wrist with thumb, thumb with index, and all three.
    assert found["labels"] == {
        "background": 0,
        "wrist": [1, 4, 6],
        "thumb": [2, 4, 5, 6],
        "index": [3, 5, 6],
    }
    assert (found["regions_class_order"], found["numTraining"]) == ([1, 2, 3], 2)
    # As nnU-Net makes a region of a map.
    values = cv2.imread(str(tmp_path / "out/labelsTr/b.png"), cv2.IMREAD_UNCHANGED)
    for instance in samples[1].instances:
        plane = np.isin(values, found["labels"][instance.label])
        np.testing.assert_array_equal(plane, rasterize(instance.geometry, SIZE).full(SIZE) > 0)


def test_without_shared_pixels_these_are_plain_labels(hand, tmp_path):
    found = written([hand("a", (WRIST,)), hand("b", (THUMB,))], tmp_path / "out")
    assert found["labels"] == {"background": 0, "wrist": 1, "thumb": 2, "index": 3}
    assert "regions_class_order" not in found


def test_all_images_have_the_channels_of_one_with_colours(hand, tmp_path):
    samples = [hand("a"), hand("b", suffix=".bmp")]
    assert written(samples, tmp_path / "grey")["channel_names"] == {"0": "grey"}
    both = written([*samples, hand("c", channels=3, suffix=".jpg")], tmp_path / "out")
    assert both["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    for name in "abc":
        pixels = cv2.imread(str(tmp_path / f"out/imagesTr/{name}_0000.png"), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (*SIZE, 3)


def test_all_folds_of_a_split_are_written_and_test_images_lie_apart(hand, tmp_path):
    samples = [hand(f"hand_{number}", (WRIST, THUMB)) for number in range(4)]
    tests = [hand("test/new"), hand("test/known", (THUMB,))]
    split = make_split(samples, folds=2)
    found = written([*samples, *tests], tmp_path / "out", split=split)
    assert found["numTraining"] == 4
    folds = json.loads((tmp_path / "out/splits_final.json").read_text())
    assert [fold["val"] for fold in folds] == [sorted(keys) for keys in split.folds]
    assert all(sorted(f["train"] + f["val"]) == [s.key for s in samples] for f in folds)
    assert sorted(p.name for p in (tmp_path / "out/labelsTs").iterdir()) == ["known.png"]
    notes = []
    back = converters.read(tmp_path / "out", subset="all", note=notes.append)
    assert {s.key: len(s.instances) for s in back} == {
        **{s.key: 2 for s in samples},
        **{"test/new": 0, "test/known": 1},
    }
    assert notes == []


def test_names_may_end_in_a_channel(hand, tmp_path):
    samples = [hand(name, (WRIST,)) for name in ("a", "a_0000", "a_0001")]
    written(samples, tmp_path / "out")
    assert [s.key for s in converters.read(tmp_path / "out")] == [s.key for s in samples]


def test_a_name_made_of_two_is_nobody_else_s(hand, tmp_path):
    keys = ("d1/s", "d2/s", "s-2", "d3/S")
    written([hand(key, (WRIST,)) for key in keys], tmp_path / "out")
    index = json.loads((tmp_path / "out/images.json").read_text())
    assert {fields["key"]: name for name, fields in index.items()} == {
        "d1/s": "s",
        "d2/s": "s-3",
        "s-2": "s-2",
        "d3/S": "S-4",
    }
    # Written again, names stay.
    back = converters.read(tmp_path / "out")
    written(back, tmp_path / "again")
    assert json.loads((tmp_path / "again/images.json").read_text()) == index


def test_frames_of_an_animation_are_left_out(hand, tmp_path):
    sample = hand("a", (WRIST,))
    frames = [Image.fromarray(np.full(SIZE, value, np.uint8)) for value in (50, 90)]
    frames[0].save(sample.image, save_all=True, append_images=frames[1:])
    written([sample], tmp_path / "out")
    with Image.open(tmp_path / "out/imagesTr/a_0000.png") as image:
        assert getattr(image, "n_frames", 1) == 1


def test_a_background_alone_is_refused(hand, tmp_path):
    labels = LabelSpace("rooms", ("nothing",), background="nothing", exclusive="by_class")
    with pytest.raises(ValueError, match="'rooms': expected a class beside the background"):
        converters.write([hand("a")], tmp_path / "out", format="nnunet", labels=labels)


def test_a_background_that_is_a_class_is_number_0(hand, tmp_path):
    labels = LabelSpace("rooms", ("nothing", "wrist"), background="nothing", exclusive="by_class")
    found = written([hand("a", (WRIST,))], tmp_path / "out", labels)
    assert found["labels"] == {"background": 0, "wrist": 1}
    assert len(converters.read(tmp_path / "out", labels=labels)[0].instances) == 1


@pytest.mark.parametrize("name", ["background", "ignore"])
def test_names_that_mean_something_else_are_refused(name, hand, tmp_path):
    labels = LabelSpace("odd", (name, "wrist"))
    with pytest.raises(ValueError, match=f"a meaning of its own for the class '{name}'"):
        converters.write([hand("a")], tmp_path / "out", format="nnunet", labels=labels)
    assert not (tmp_path / "out").exists()


def test_volumes_are_told_as_what_they_are(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "case_1.nii.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "dataset.json").write_text('{"labels": {"a": 1}, "file_ending": ".nii.gz"}')
    with pytest.raises(ValueError, match=r"labelsTr/case_1\.nii\.gz: volumes are not read: save"):
        converters.read(tmp_path)


def test_an_empty_folder_is_told_as_empty(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="found none that is known: the folder is empty"):
        converters.recognise(tmp_path)
