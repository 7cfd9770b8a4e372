"""Data sets of others: images beside maps of class numbers."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import converters
from converters import DataError
from converters.files.images import read_pixels
from converters.formats.hf import dataset as hf_dataset
from converters.masks import rasterize_labels
from converters.types import LabelSpace

SIZE = (10, 8)
SPACE = LabelSpace("peer", ("a", "b"), ignored=("background",))
INDEXES = np.zeros(SIZE, np.uint8)
INDEXES[1:6, 1:5] = 1
INDEXES[7:9, 2:7] = 2
PALETTE = Image.fromarray(INDEXES)
PALETTE.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])


def saved(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    opened = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    opened.save(file, kind, **options)
    return file.getvalue()


RGB = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
IMAGE = saved(RGB, "JPEG")


@pytest.fixture
def put(tmp_path):
    """Make a data set as `save_to_disk` does."""

    def make(*maps, names=("image", "label"), id2label=None, split="train", image=IMAGE):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        file = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        rows = [
            {names[0]: {"bytes": image, "path": None}, names[1]: one and {"bytes": one}}
            for one in maps
        ]
        schema = pa.schema([(name, file) for name in names])
        with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), schema) as sink:
            sink.write_table(pa.Table.from_pylist(rows, schema))
        (tmp_path / "data" / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
        if id2label is not None:
            (tmp_path / "data" / "id2label.json").write_text(json.dumps(id2label))
        return tmp_path / "data"

    return make


def areas(folder, labels=SPACE, note=None):
    samples = converters.read(folder, subset="all", labels=labels, note=note)
    return [
        {n: m.area for n, m in rasterize_labels(s.instances, s.size_hw).items()} for s in samples
    ]


def test_as_many_numbers_as_classes_begin_with_0(put):
    said = []
    assert areas(put(saved(np.minimum(INDEXES, 1))), note=said.append) == [{"a": 50, "b": 30}]
    assert said == [
        "label: there is no id2label.json; the numbers 0 to 1 are taken for the classes of 'peer' "
        "in their order (0 is 'a'), 255 for none"
    ]


def test_one_number_more_than_classes_makes_0_none(put):
    said = []
    maps = [saved(INDEXES), saved(np.minimum(INDEXES, 1))]
    assert areas(put(*maps), note=said.append) == [{"a": 20, "b": 10}, {"a": 30}]
    assert "the numbers 1 to 2 are taken for the classes of 'peer' in their order" in said[0]
    assert said[0].endswith("(1 is 'a'), 0 and 255 for none")


MAPS = {
    "grey": saved(INDEXES),
    "16 bits": saved(INDEXES.astype(np.uint16)),
    "palette": saved(PALETTE),
    "with 255": saved(np.where(INDEXES == 0, 255, INDEXES).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", MAPS)
def test_numbers_by_id2label(kind, put):
    folder = put(MAPS[kind], id2label={"0": "background", "1": "b", "2": "a"})
    assert areas(folder) == [{"b": 20, "a": 10}]


def test_the_number_0_needs_no_name(put):
    assert areas(put(saved(INDEXES), id2label={"1": "b", "2": "a"})) == [{"b": 20, "a": 10}]


@pytest.mark.parametrize(
    "names", [("image", "annotation"), ("pixel_values", "labels"), ("image", "mask")]
)
def test_other_names_of_the_columns(names, put):
    folder = put(saved(INDEXES), names=names)
    assert converters.recognise(folder) == "segformer"
    assert areas(folder) == [{"a": 20, "b": 10}]


def test_images_and_keys(put):
    folder = put(saved(INDEXES), saved(INDEXES))
    first, second = converters.read(folder, labels=SPACE)
    assert (first.key, second.key) == ("train/000000", "train/000001")
    assert first.image.name == "train_000000.jpg"
    assert first.image.read_bytes() == IMAGE
    assert read_pixels(first).shape == SIZE


def test_a_test_split_without_maps_is_said(put):
    folder, said = put(None, split="test"), []
    assert converters.read(folder, subset="train", labels=SPACE) == []
    assert len(converters.read(folder, subset="test", labels=SPACE, note=said.append)) == 1
    assert said[0].startswith("label: 1 images without a map are taken for images without objects")


def test_turned_images_have_turned_maps(put):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.fromarray(np.ascontiguousarray(np.rot90(RGB))), "JPEG", exif=exif)
    folder = put(saved(INDEXES), image=turned)
    assert areas(folder) == [{"a": 20, "b": 10}]


REFUSED = {
    "a number beyond": (
        *(saved(INDEXES + np.uint8(2)), None),
        "expected class numbers 0 to 1, or 1 to 2 and 0 for none, of the classes of 'peer'; fou",
    ),
    "a number without a name": (saved(INDEXES), {"0": "a", "1": "b"}, "found 2 in 'train/000000'"),
    "colours": (saved(RGB), None, "row 0: label: expected class numbers, a grey image or one with"),
    "other size": (saved(INDEXES[:4]), None, r"row 0: expected a mask of (10, 8), found (4, 8)"),
    "no image": (b"?", None, "row 0: expected a PNG, found a file that is none"),
    "cut off": (saved(INDEXES)[:-20], None, "row 0: expected a whole PNG, found a damaged one"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_maps_that_are_refused(kind, put):
    content, id2label, message = REFUSED[kind]
    with pytest.raises(DataError) as error:
        areas(put(content, id2label=id2label))
    (problem,) = error.value.problems
    assert message in problem


@pytest.mark.parametrize("names", [("image", "caption"), ("x", "label")])
def test_columns_that_are_not_understood(names, put):
    with pytest.raises(ValueError, match=f"found {names[0]}, {names[1]}: rename the two columns"):
        areas(put(saved(INDEXES), names=names))


@pytest.mark.parametrize("record", [[], {}, {"a": "b"}, {"0": 1}])
def test_id2label_that_is_none(record, put):
    with pytest.raises(ValueError, match=r"id2label\.json: expected numbers with class names"):
        areas(put(saved(INDEXES), id2label=record))


def test_a_number_that_id2label_has_twice(put):
    with pytest.raises(
        ValueError, match=r"id2label\.json: expected each number once, found 1 twice"
    ):
        areas(put(saved(INDEXES), id2label={"1": "a", "01": "b"}))


def test_rows_of_others_cannot_be_opened_as_ours(put):
    folder = put(saved(INDEXES))
    assert not hf_dataset.is_own(folder)


def bomb() -> bytes:
    content = bytearray(saved(INDEXES))
    content[16:24] = struct.pack(">II", 50_000, 50_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


@pytest.mark.parametrize("names", [("image", "label"), None])
def test_a_bomb_is_refused_before_it_is_decoded(names, put, draw, labels, tmp_path, monkeypatch):
    if names:
        folder, space = put(bomb(), names=names), SPACE
    else:
        monkeypatch.setattr(hf_dataset, "encode_mask", lambda packed: bomb())
        converters.write([draw("plain")], tmp_path / "out", format="segformer", labels=labels)
        folder, space = tmp_path / "out", labels
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="expected a mask of at most"):
            areas(folder, space)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    if not names:
        with pytest.raises(ValueError, match="expected a mask of at most"):
            hf_dataset.decode_row(hf_dataset.open_split(folder, "train")[0])
