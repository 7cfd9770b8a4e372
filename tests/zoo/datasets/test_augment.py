"""`zoo augment`: the contact sheet, and data sets on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import converters
from converters.files.provenance import read_provenance
from converters.masks import rasterize_labels
from converters.splits.split import Split, check_leakage, make_split
from zoo.datasets.augment import preview, write
from zoo.source import DataSource

FLIP = [{"name": "HorizontalFlip", "p": 1.0}]
MIX = [{"name": "CutMix", "p": 1.0}]


def _quiet(done: int, total: int, note: str) -> None:
    """A progress report that nobody sees."""


@pytest.fixture(scope="module")
def source(toys: Any, tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    out = tmp_path_factory.mktemp("source") / "data"
    # Two objects of a class that touch, and a bone at the border.
    first = toys.samples[0]
    twin = replace(first.instances[1], label="tile-2")
    samples = [replace(first, instances=(*first.instances, twin)), *toys.samples[1:]]
    converters.write(samples, out, format="handbone", labels=toys.labels)
    return DataSource.open(out, "handbone")


def _write(toys: Any, source: DataSource, out: Path, **further: Any) -> tuple[int, str]:
    options: dict[str, Any] = {"copies": 2, "data_format": "handbone", "seed": 3}
    steps = further.pop("steps", FLIP)
    options |= {"command": ["zoo", "augment"], "report": _quiet} | further
    return write(steps, toys.labels, source, out, **options)


@pytest.mark.slow
def test_the_sheet_has_a_row_a_sample(toys: Any, source: DataSource, tmp_path: Path) -> None:
    sheets = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for sheet, count in zip(sheets, (2, 1, 2), strict=True):
        assert preview(MIX, toys.labels, (96, 64), source, sheet, count, seed=1) == count
    pixels = [cv2.imread(str(sheet)) for sheet in sheets]
    assert pixels[0].shape[0] == 2 * pixels[1].shape[0]
    assert np.array_equal(pixels[0], pixels[2])
    # The first picture is the sample, the others are not.
    width = pixels[0].shape[1] // 5
    assert not np.array_equal(pixels[0][:400, :width], pixels[0][:400, width : 2 * width])


def test_the_sheet_wants_a_sample(toys: Any, source: DataSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count: expected at least 1"):
        preview(FLIP, toys.labels, (96, 64), source, tmp_path / "a.png", 0)


def test_copies_are_augmented_with_their_objects(
    toys: Any, source: DataSource, tmp_path: Path
) -> None:
    assert _write(toys, source, tmp_path / "out")[0] == 18
    originals = {s.key: s for s in source.read(toys.labels)}
    found = {s.key: s for s in converters.read(tmp_path / "out", labels=toys.labels)}
    assert len(found) == 18
    for key, sample in originals.items():
        copy = found[f"{key}-aug2"]
        assert copy.group == sample.group
        assert copy.attributes["augmented_from"] == key
        assert [i.label for i in copy.instances] == [i.label for i in sample.instances]
        whole, flipped = (rasterize_labels(s.instances, s.size_hw) for s in (sample, copy))
        for label, mask in whole.items():
            expected = mask.full(sample.size_hw)[:, ::-1]
            assert np.array_equal(flipped[label].full(sample.size_hw), expected)
        pixels = cv2.imread(str(copy.image), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(pixels[:, ::-1], cv2.imread(str(sample.image), cv2.IMREAD_GRAYSCALE))


def test_originals_stay_as_they_are(toys: Any, source: DataSource, tmp_path: Path) -> None:
    _write(toys, source, tmp_path / "out", steps=MIX)
    found = {s.key: s for s in converters.read(tmp_path / "out", labels=toys.labels)}
    for sample in source.read(toys.labels):
        assert found[sample.key].instances == sample.instances
        assert found[sample.key].image.read_bytes() == sample.image.read_bytes()


def test_what_is_held_out_has_no_copies(toys: Any, source: DataSource, tmp_path: Path) -> None:
    samples = source.read(toys.labels)
    split = make_split(samples, folds=3, seed=0, strategy="group")
    split.save(tmp_path / "split.json")
    held_out = set(split.val(1))
    out = tmp_path / "out"
    _write(toys, source, out, split_path=tmp_path / "split.json", fold=1)
    new, found = Split.load(out / "split.json"), converters.read(out, labels=toys.labels)
    new.check(found)
    check_leakage(new, found)
    assert set(new.val(1)) == held_out
    assert len(new.train(1)) == 3 * len(split.train(1))
    for key, group in new.groups.items():
        assert group == split.groups[key.split("-aug")[0]]


def test_the_same_seed_writes_the_same(toys: Any, source: DataSource, tmp_path: Path) -> None:
    steps = [{"name": "Affine", "rotate": [-30, 30], "p": 1.0}, *MIX]
    for name, options in (("a", {}), ("b", {}), ("c", {"seed": 4})):
        _write(toys, source, tmp_path / name, copies=1, steps=steps, **options)
    a, b, c = (_images(tmp_path / name) for name in "abc")
    assert a == b
    assert sum(a[key] != c[key] for key in a) == 6


def _images(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def test_provenance_and_nothing_else_beside_it(
    toys: Any, source: DataSource, tmp_path: Path
) -> None:
    _write(toys, source, tmp_path / "out")
    record = read_provenance(tmp_path / "out")
    assert record["config"] == {"augment": FLIP, "copies": 2}
    assert record["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_copies_of_copies_are_refused(toys: Any, source: DataSource, tmp_path: Path) -> None:
    _write(toys, source, tmp_path / "out")
    again = DataSource.open(tmp_path / "out", "handbone")
    with pytest.raises(ValueError, match="expected a data set without augmented copies"):
        _write(toys, again, tmp_path / "more")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"copies": 0}, "copies: expected at least 1"),
        ({"steps": [{"name": "Nothing"}]}, r"augment\.0: unknown transform"),
    ],
)
def test_bad_options(
    toys: Any, source: DataSource, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _write(toys, source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
