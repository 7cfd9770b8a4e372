"""A data set of which a file, a split or some rows are gone is not half a data set."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import converters
from converters import DataError
from converters.formats.hf import dataset as hf_dataset
from converters.formats.hf import rows as hf_rows
from converters.formats.hf.splits import find_splits
from converters.splits.split import make_split


@pytest.fixture
def write(samples, labels, tmp_path, monkeypatch):
    """Write six samples, two to a file, in `train` and `validation`."""
    monkeypatch.setattr(hf_rows, "ROWS_PER_FILE", 2)

    def make(layout):
        split = make_split(samples, folds=3)
        converters.write(
            *(samples, tmp_path / "out"),
            format="segformer",
            layout=layout,
            labels=labels,
            split=split,
            fold=1,
        )
        return tmp_path / "out"

    return make


GONE = {
    "a file of Parquet": (
        *("parquet", "data/train-00001-of-00002.parquet"),
        "expected 2 files of split 'train' as their names say, found no train-00001-of-00002.parqu",
    ),
    "a split of Parquet": (
        *("parquet", "data/validation-00000-of-00001.parquet"),
        "expected files of split 'validation' as README.md (data/validation-*.parquet) says, found",
    ),
    "a file of Arrow": (
        *("arrow", "train/data-00000-of-00002.arrow"),
        "expected 2 files of split 'train' as their names say, found no data-00000-of-00002.arrow",
    ),
    "a split of Arrow": (
        *("arrow", "validation/data-00000-of-00001.arrow"),
        "expected files of split 'validation' as dataset_dict.json says, found none: put them back",
    ),
}


@pytest.mark.parametrize("kind", GONE)
def test_a_file_that_is_gone(kind, write, labels):
    layout, name, message = GONE[kind]
    out = write(layout)
    (out / name).unlink()
    with pytest.raises(DataError) as error:
        converters.read(out, labels=labels)
    assert message in error.value.problems[0]


def test_a_split_with_a_missing_file_is_not_opened(write):
    out = write("parquet")
    (out / "data/train-00000-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="expected 2 files of split 'train' as their names say"):
        hf_dataset.open_split(out, "train")
    assert len(hf_dataset.open_split(out, "validation")) == 2


def test_an_arrow_file_that_lost_its_last_rows(write, labels):
    """A stream that ends between two batches looks whole."""
    out = write("arrow")
    path = out / "train/data-00000-of-00002.arrow"
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    with pa.ipc.new_stream(str(path), table.schema) as sink:
        sink.write_table(table.slice(0, 1))
    with pytest.raises(DataError, match=r"expected 4 rows of split 'train' as train/dataset_info"):
        converters.read(out, labels=labels)


CARD = """---
dataset_info:
  features: []
  splits:
  - name: train
    num_examples: {rows}
---
"""


@pytest.mark.parametrize(("rows", "is_whole"), [(4, True), (5, False)])
def test_rows_that_the_card_counts(rows, is_whole, write, labels):
    out = write("parquet")
    (out / "README.md").write_text(CARD.format(rows=rows))
    if is_whole:
        assert len(converters.read(out, labels=labels)) == 6
        return
    with pytest.raises(DataError, match=r"expected 5 rows of split 'train' as README\.md says"):
        converters.read(out, labels=labels)


def test_rows_that_the_older_card_counts(write, labels):
    out = write("parquet")
    record = {"default": {"splits": {"test": {"name": "test", "num_examples": 3}}}}
    (out / "dataset_infos.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"expected 3 rows of split 'test' as dataset_infos\.json"):
        converters.read(out, labels=labels)


@pytest.mark.parametrize("text", ["---\n[\n---\n", "---\nconfigs: 7\n---", "# plain", "---"])
def test_a_card_that_says_nothing(text, write, labels):
    out = write("parquet")
    (out / "README.md").write_text(text)
    assert len(converters.read(out, labels=labels)) == 6


def test_files_of_two_data_sets(write, labels):
    out = write("parquet")
    first = out / "data/train-00000-of-00002.parquet"
    (out / "data/train-00000-of-00001.parquet").write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=r"of one number, found train-00000-of-00001\.parquet"):
        converters.read(out, labels=labels)


def test_a_file_twice_under_the_hubs_older_names(write, labels):
    out = write("parquet")
    first = out / "data/train-00000-of-00002.parquet"
    first.with_name("train-00000-of-00002-0a1b2c.parquet").write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=r"expected one of train-00000-of-00002-0a1b2c\.parquet"):
        converters.read(out, labels=labels)


def test_keys_that_come_twice_are_named(write, labels):
    out = write("parquet")
    first = out / "data/train-00000-of-00002.parquet"
    table = pq.read_table(first)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), first)
    with pytest.raises(DataError) as error:
        converters.read(out, labels=labels)
    (problem,) = error.value.problems
    assert "row 2: expected a key of its own, found 'train/DCM/ID001" in problem
    assert problem.endswith("which train-00000-of-00002.parquet, row 0 has")


def test_splits_of_any_name_are_read(write, labels):
    out = write("parquet")
    first = out / "data/validation-00000-of-00001.parquet"
    first.rename(first.with_name("held-out-00000-of-00001.parquet"))
    (out / "README.md").unlink()
    assert list(find_splits(out)) == ["train", "held-out"]
    assert len(converters.read(out, labels=labels)) == 6
