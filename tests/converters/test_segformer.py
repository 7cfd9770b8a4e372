from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest

from converters import MissingDependency, segformer
from converters.masks import rasterize_labels, unpack
from converters.splits import make_split


@pytest.fixture
def split(samples):
    return make_split(samples, folds=3)


@pytest.fixture
def folder(samples, labels, split, tmp_path):
    segformer.write(samples, tmp_path / "out", labels, split=split, fold=1)
    return tmp_path / "out"


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def test_load_from_disk(folder, samples, split, datasets):
    found = datasets.load_from_disk(str(folder))
    assert sorted(found["train"]["key"]) == sorted(split.train(1))
    assert sorted(found["validation"]["key"]) == sorted(split.val(1))
    by_key = {s.key: s for s in samples}
    for row in (*found["train"], *found["validation"]):
        sample = by_key[row["key"]]
        assert (row["group"], row["height"], row["width"]) == (sample.group, 48, 48)
        original = cv2.imread(str(sample.image), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(np.asarray(row["image"]), original)
        masks = rasterize_labels(sample.instances, sample.size_hw)
        bits = unpack(np.asarray(row["mask"]), 29)
        assert {k: m.area for k, m in masks.items()} == {
            f: n
            for f, n in zip(labels_of(folder), bits.sum(axis=(1, 2)).tolist(), strict=True)
            if n
        }


def labels_of(folder):
    return segformer.read_labels(folder)


def test_load_dataset_finds_the_files_by_the_card(folder, split, datasets, tmp_path):
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert sorted(found["train"]["key"]) == sorted(split.train(1))
    assert sorted(found["validation"]["key"]) == sorted(split.val(1))
    assert found["train"][0]["mask"].mode == "RGBA"


def test_without_a_split_there_is_only_train(samples, labels, tmp_path, datasets):
    segformer.write(samples, tmp_path / "out", labels)
    assert list(datasets.load_from_disk(str(tmp_path / "out"))) == ["train"]
    with pytest.raises(ValueError, match="split 'validation', found only: train"):
        segformer.open_split(tmp_path / "out", "validation")


def test_open_split_and_decode_row(folder, samples, datasets):
    rows = segformer.open_split(folder, "validation")
    key, image, packed = segformer.decode_row(rows[0])
    sample = next(s for s in samples if s.key == key)
    np.testing.assert_array_equal(image, cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE))
    assert (image.dtype, packed.dtype, packed.shape) == (np.uint8, np.uint8, (48, 48, 4))


def test_image_bytes_are_those_of_the_file(folder, samples, datasets):
    by_key = {s.key: s for s in samples}
    for row in segformer.open_split(folder, "train"):
        assert row["image"]["bytes"] == by_key[row["key"]].image.read_bytes()
        assert row["image"]["path"] == by_key[row["key"]].file_name


def test_many_rows_go_to_several_files(samples, labels, tmp_path, monkeypatch, datasets):
    monkeypatch.setattr(segformer, "ROWS_PER_FILE", 4)
    monkeypatch.setattr(segformer, "ROWS_PER_BATCH", 3)
    segformer.write(samples, tmp_path / "out", labels)
    files = sorted(p.name for p in (tmp_path / "out/train").glob("*.arrow"))
    assert files == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    rows = segformer.open_split(tmp_path / "out", "train")
    assert rows["key"][:] == [s.key for s in samples]


def test_reading_leaves_no_files(folder, datasets):
    before = sorted(folder.rglob("*"))
    list(segformer.open_split(folder, "train"))
    assert sorted(folder.rglob("*")) == before


def test_id2label(folder, labels):
    record = json.loads((folder / "id2label.json").read_text())
    assert record["0"] == "finger-1"
    assert record["28"] == "Ulna"
    assert segformer.read_labels(folder) == labels.names
    (folder / "id2label.json").write_text('{"1": "a"}')
    with pytest.raises(ValueError, match="expected numbers with class names"):
        segformer.read_labels(folder)


def test_folder_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="expected a data set in format 'segformer'"):
        segformer.open_split(tmp_path, "train")


def test_rows_that_do_not_fit():
    image = bytes(cv2.imencode(".png", np.zeros((4, 6), np.uint8))[1])
    mask = bytes(cv2.imencode(".png", np.zeros((4, 5, 4), np.uint8))[1])
    with pytest.raises(ValueError, match=r"a: image \(4, 6\), but mask \(4, 5\)"):
        segformer.decode_row({"key": "a", "image": {"bytes": image}, "mask": {"bytes": mask}})
    with pytest.raises(ValueError, match="a: expected an image"):
        segformer.decode_row({"key": "a", "image": {"bytes": b"?"}, "mask": {"bytes": mask}})


def test_missing_library_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 'segzoo\[train\]'"):
        segformer.open_split(folder, "train")
