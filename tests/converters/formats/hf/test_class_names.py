"""Data sets of others, made by `datasets`: names in their columns, and numbers without names."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.formats.hf.class_names import column_names
from converters.masks import rasterize_labels
from converters.types import LabelSpace

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZE = (12, 9)
RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
NUMBERS = np.zeros(SIZE, np.uint8)
NUMBERS[1:6, 1:5] = 1
NUMBERS[7:9, 2:7] = 2


def a_list(kind):
    """A column of lists; versions before 4 have a list of Python for it."""
    return datasets.List(kind) if hasattr(datasets, "List") else [kind]


@pytest.fixture
def put(tmp_path):
    """Save maps with `datasets`, as Arrow or Parquet; returns the folder."""

    def make(*maps, label="label", layout="arrow", names=None, more=None, id2label=None, raw=None):
        columns = {
            "image": [Image.fromarray(RGB)] * len(maps),
            label: [one if isinstance(one, Image.Image) else Image.fromarray(one) for one in maps],
        }
        if raw is not None:
            columns[label] = [{"bytes": raw, "path": None}]
        kinds = {"image": datasets.Image(), label: datasets.Image()}
        if names is not None:
            columns["classes"] = [[0]] * len(maps)
            kinds["classes"] = a_list(datasets.ClassLabel(names=list(names)))
        for name, (kind, value) in (more or {}).items():
            kinds[name], columns[name] = kind, [value] * len(maps)
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
        root = tmp_path / "data set"
        if layout == "arrow":
            datasets.DatasetDict({"train": rows}).save_to_disk(str(root))
        else:
            (root / "data").mkdir(parents=True)
            rows.to_parquet(str(root / "data" / "train-00000-of-00001.parquet"))
        if id2label:
            (root / "id2label.json").write_text(json.dumps(id2label))
        return root

    return make


def areas(root, labels=None, note=None):
    return [
        {name: mask.area for name, mask in rasterize_labels(s.instances, s.size_hw).items()}
        for s in converters.read(root, labels=labels, note=note)
    ]


# --- numbers


@pytest.mark.parametrize("layout", ["arrow", "parquet"])
@pytest.mark.parametrize("label", ["label", "annotation", "mask"])
def test_numbers_are_classes_where_there_are_no_names(label, layout, put):
    said = []
    root = put(NUMBERS, np.minimum(NUMBERS, 1), label=label, layout=layout)
    assert converters.recognise(root) == "segformer"
    assert converters.label_space(root).names == ("1", "2")
    assert areas(root, note=said.append) == [{"1": 20, "2": 10}, {"1": 30}]
    assert said == [
        f"{label}: there is no id2label.json; numbers are taken for classes of their own, 0 and "
        "255 for none"
    ]


def test_numbers_stay_what_they_are_when_they_are_asked_for(put):
    """Splits and runs keep the classes, and ask for them: of their order nothing may be left."""
    root = put(np.where(NUMBERS == 1, 7, NUMBERS).astype(np.uint8))
    found = converters.label_space(root)
    kept = LabelSpace.of_record(found.record())
    assert areas(root, labels=kept) == areas(root) == [{"7": 20, "2": 10}]
    said = []
    assert areas(root, labels=kept.only(["7"]), note=said.append) == [{"7": 20}]
    assert said[1] == "label: left out numbers that are no class of 'data set': 2"


def test_names_are_given_to_numbers_by_aliases(put):
    root = put(np.where(NUMBERS == 0, 255, NUMBERS).astype(np.uint8))
    mine = LabelSpace("mine", ("dog", "cat"), aliases={"1": "cat", "2": "dog"})
    assert areas(root, labels=mine) == [{"cat": 20, "dog": 10}]


def test_names_without_numbers_go_by_order(put):
    assert areas(put(NUMBERS), labels=LabelSpace("mine", ("a", "b"))) == [{"a": 20, "b": 10}]


def test_a_border_is_no_class(put):
    values = NUMBERS.copy()
    values[6] = 255
    root = put(values)
    assert converters.label_space(root).names == ("1", "2")
    assert areas(root) == [{"1": 20, "2": 10}]


def test_a_map_of_0_and_255_is_that_of_one_class(put):
    root = put((NUMBERS > 0) * np.uint8(255))
    assert areas(root) == [{"255": 30}]
    said = []
    assert areas(root, LabelSpace("mine", ("hand",)), said.append) == [{"hand": 30}]
    assert "(255 is 'hand'), 0 for none" in said[0]


def saved_as(kind, pixels):
    """A map whose file `datasets` takes as it is; of an image without one it makes TIFF or PNG."""
    file = io.BytesIO()
    pixels.save(file, kind)
    return Image.open(file)


LARGE = np.choose(NUMBERS, [0, 255, 300]).astype(np.int32)
PALETTE = Image.fromarray(NUMBERS)
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
WIDE = {
    "32 bits": Image.fromarray(LARGE),
    "16 bits": Image.fromarray(LARGE.astype(np.uint16)),
    "16 bits, PNG": saved_as("PNG", Image.fromarray(LARGE.astype(np.uint16))),
}


@pytest.mark.parametrize("kind", WIDE)
def test_more_numbers_than_a_byte_holds(kind, put):
    root = put(WIDE[kind])
    assert converters.label_space(root).names == ("255", "300")
    assert areas(root) == [{"255": 20, "300": 10}]


@pytest.mark.parametrize("kind", [None, "PNG", "TIFF"])
def test_indexes_of_a_palette(kind, put):
    assert areas(put(saved_as(kind, PALETTE) if kind else PALETTE)) == [{"1": 20, "2": 10}]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (NUMBERS.astype(np.int32) - 1, "expected class numbers from 0 to 65535, found -1"),
        (LARGE * 1000, "expected class numbers from 0 to 65535, found 300000"),
        (NUMBERS.astype(np.float32), "label: expected class numbers, a grey image or one with a"),
        (LARGE[:7], r"expected a mask of (12, 9), found (7, 9)"),
    ],
)
def test_maps_in_tiff_that_are_refused(pixels, message, put):
    with pytest.raises(DataError) as error:
        converters.read(put(Image.fromarray(pixels)), labels=LabelSpace("mine", ("a",)))
    assert message in error.value.problems[0]


def test_a_tiff_that_is_cut_off(put):
    file = io.BytesIO()
    Image.fromarray(LARGE).save(file, "TIFF")
    root = put(NUMBERS, raw=file.getvalue()[:-300])
    with pytest.raises(DataError, match="row 0: expected a whole TIFF, found a damaged one"):
        converters.read(root, labels=LabelSpace("mine", ("a",)))


def test_maps_of_nothing_have_no_classes(put):
    with pytest.raises(ValueError, match="found none: give --labels"):
        converters.read(put(NUMBERS * 0))


def test_what_is_broken_is_said_once(put):
    root = put(NUMBERS, NUMBERS[:5], RGB)
    with pytest.raises(DataError) as error:
        converters.read(root)
    assert [line.split(": ", 2)[1] for line in error.value.problems] == ["row 1", "row 2"]
    assert len(converters.read(root, skips_broken=True)) == 1


def test_columns_that_are_not_understood(put):
    with pytest.raises(ValueError, match=r"found image, drawing: rename the two columns"):
        converters.read(put(NUMBERS, label="drawing"))


# --- names


@pytest.mark.parametrize("layout", ["arrow", "parquet"])
def test_a_list_of_classes_names_the_numbers(layout, put):
    root = put(NUMBERS, names=["background", "cat", "dog"], layout=layout)
    assert converters.label_space(root).names == ("cat", "dog")
    assert areas(root) == [{"cat": 20, "dog": 10}]


def test_names_without_a_background_go_by_order(put):
    said = []
    root = put(NUMBERS, names=["cat", "dog"])
    assert areas(root, note=said.append) == [{"cat": 20, "dog": 10}]
    assert "(1 is 'cat'), 0 and 255 for none" in said[0]


def test_more_numbers_than_names(put):
    with pytest.raises(DataError, match="classes of 'data set'; found 5 in 'train/000000'"):
        converters.read(put(NUMBERS + np.uint8(5), names=["cat", "dog"]))


def test_named_classes_are_chosen_by_name_and_alias(put):
    root = put(NUMBERS, names=["background", "cat", "dog"])
    mine = LabelSpace("mine", ("hound", "cat"), aliases={"dog": "hound"})
    assert areas(root, labels=mine) == [{"cat": 20, "hound": 10}]


def test_names_in_lists_of_objects(put):
    objects = {"bbox": a_list(datasets.Value("float32"))}
    objects["category"] = datasets.ClassLabel(names=["void", "cat", "dog"])
    value = [{"bbox": [0.0, 1.0], "category": 1}]
    root = put(NUMBERS, more={"objects": (a_list(objects), value)})
    assert column_names(root) == ("void", "cat", "dog")
    assert areas(root) == [{"cat": 20, "dog": 10}]


def test_a_number_beyond_the_names(put):
    root = put(NUMBERS, names=["background", "cat"])
    with pytest.raises(DataError, match="found 2 in 'train/000000'"):
        converters.read(root)


def test_id2label_comes_first(put):
    root = put(NUMBERS, names=["background", "x", "y"], id2label={"0": "void", "1": "b", "2": "a"})
    assert areas(root) == [{"b": 20, "a": 10}]


def test_the_class_of_a_whole_image_names_no_numbers(put):
    scene = datasets.ClassLabel(names=["airport", "alley", "arch"])
    root = put(NUMBERS, more={"scene_category": (scene, 1)})
    assert column_names(root) == ()
    assert areas(root) == [{"1": 20, "2": 10}]


def test_two_lists_of_classes_name_nothing(put):
    tags = a_list(datasets.ClassLabel(names=["night", "rain"]))
    root = put(NUMBERS, names=["background", "cat", "dog"], more={"tags": (tags, [1])})
    assert column_names(root) == ()


FEATURES = {
    "older lists": ([{"_type": "ClassLabel", "names": ["a", "b"]}], ("a", "b")),
    "an older sequence": (
        {"_type": "Sequence", "feature": {"c": {"_type": "ClassLabel", "names": ["a", "b"]}}},
        ("a", "b"),
    ),
    "a name twice": ([{"_type": "ClassLabel", "names": ["a", "a"]}], ()),
    "no texts": ([{"_type": "ClassLabel", "names": ["a", 1]}], ()),
    "no list": ([{"_type": "ClassLabel", "names": "ab"}], ()),
    "none": ([{"_type": "ClassLabel"}], ()),
    "a number": (7, ()),
}


@pytest.mark.parametrize(("feature", "expected"), FEATURES.values(), ids=FEATURES)
def test_what_files_say_of_their_columns(feature, expected, tmp_path):
    info = json.dumps({"info": {"features": {"classes": feature}}})
    write_arrow(tmp_path, {"huggingface": info})
    assert column_names(tmp_path) == expected


@pytest.mark.parametrize(
    "info", ["[]", "{}", "7", '{"info": 7}', '{"info": {"features": []}}', "{"]
)
def test_files_that_say_nothing_of_their_columns(info, tmp_path):
    write_arrow(tmp_path, {"huggingface": info})
    assert column_names(tmp_path) == ()


def test_lists_in_each_other_without_end(tmp_path):
    write_arrow(tmp_path, {"huggingface": '{"info": {"features": {"a": ' + "[" * 900 + "]" * 900})
    assert column_names(tmp_path) == ()


def write_arrow(root, metadata):
    (root / "train").mkdir()
    schema = pa.schema([("x", pa.string())], metadata=metadata)
    with pa.ipc.new_stream(str(root / "train" / "data-00000-of-00001.arrow"), schema):
        pass


# --- many classes


@pytest.mark.parametrize("layout", ["arrow", "parquet"])
def test_150_classes_of_others_come_back_from_ours(layout, put, tmp_path):
    values = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) * 150 // (SIZE[0] * SIZE[1])
    root = put(values.astype(np.uint8), names=["background", *(f"c{i}" for i in range(1, 150))])
    samples, labels = converters.read(root), converters.label_space(root)
    assert len(labels) == 149
    converters.write(samples, tmp_path / "out", format="segformer", layout=layout, labels=labels)
    assert converters.label_space(tmp_path / "out").names == labels.names
    assert areas(tmp_path / "out") == areas(root)
