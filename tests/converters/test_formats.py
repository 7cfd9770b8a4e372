"""What every format keeps. A line in FORMATS is all that a new one needs to be tested here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import converters
from converters import loss as losses
from converters.files import read_provenance
from converters.masks import CropMask, rasterize_labels, unpack_labels
from converters.splits import make_split
from converters.types import LabelSpace, Sample

WRITTEN = [n for n in converters.FORMATS if hasattr(converters.load_format(n), "write")]


@pytest.fixture(params=WRITTEN)
def name(request) -> str:
    return request.param


@pytest.fixture
def module(name) -> ModuleType:
    return converters.load_format(name)


def masks_back(
    name: str, out: Path, labels: LabelSpace
) -> dict[str, tuple[tuple[int, int], Mapping[str, CropMask]]]:
    """Key -> size and masks, of all that was written."""
    module = converters.load_format(name)
    if hasattr(module, "read"):
        samples = converters.read(out, subset="all", labels=labels)
        return {s.key: (s.size_hw, rasterize_labels(s.instances, s.size_hw)) for s in samples}
    pytest.importorskip("datasets")
    splits = [s for s in module.SPLITS if (out / s).is_dir()]
    rows = [module.decode_row(row) for s in splits for row in module.open_split(out, s)]
    return {key: (packed.shape[:2], unpack_labels(packed, labels)) for key, _, packed in rows}


def assert_equal(
    truth: Mapping[str, CropMask], back: Mapping[str, CropMask], size_hw: tuple[int, int]
) -> None:
    assert {n for n, m in back.items() if m.area} == {n for n, m in truth.items() if m.area}
    for label, mask in back.items():
        np.testing.assert_array_equal(mask.full(size_hw), truth[label].full(size_hw), label)


def test_comes_back_to_the_pixel_unless_the_format_says_so(
    name, module, case, sample, labels, tmp_path
):
    loss = module.write([sample], tmp_path / "out", labels)
    size_hw, back = masks_back(name, tmp_path / "out", labels)[sample.key]
    truth = rasterize_labels(sample.instances, sample.size_hw)
    assert size_hw == sample.size_hw
    assert loss.samples == 1
    if case.has & module.LOSES:
        assert loss == losses.measure(sample, back)
        assert loss
        assert min(loss.dice.values()) > 0.9
    else:
        assert_equal(truth, back, sample.size_hw)
        assert not loss
        assert loss.describe() == ""


def test_says_what_it_loses(module):
    assert isinstance(module.LOSES, frozenset)
    assert {"overlaps", "holes", "parts", "subpixels"} >= module.LOSES


def test_is_recognised_by_content(name, module, samples, labels, tmp_path):
    module.write(samples, tmp_path / "out", labels)
    assert converters.recognise(tmp_path / "out") == name


def test_keeps_keys_groups_and_images(name, module, samples, labels, tmp_path):
    module.write(samples, tmp_path / "out", labels)
    assert sorted(masks_back(name, tmp_path / "out", labels)) == sorted(s.key for s in samples)
    if hasattr(module, "read"):
        again = converters.read(tmp_path / "out", labels=labels)
        assert [s.group for s in again] == [s.group for s in samples]
        for before, after in zip(samples, again, strict=True):
            assert after.image.read_bytes() == before.image.read_bytes()


def test_same_stem_in_two_folders(name, module, draw, labels, tmp_path):
    first = draw("plain")
    other = Sample("train/DCM/ID002/image1661130828152", first.image, (48, 48), (), "ID002")
    module.write([first, other], tmp_path / "out", labels)
    back = masks_back(name, tmp_path / "out", labels)
    assert {key: len(masks) for key, (_, masks) in back.items()} == {first.key: 1, other.key: 0}


def test_second_run_replaces(name, module, samples, labels, tmp_path):
    module.write(samples, tmp_path / "out", labels)
    module.write(samples[:2], tmp_path / "out", labels)
    module.write(samples[:2], tmp_path / "out", labels)
    assert sorted(masks_back(name, tmp_path / "out", labels)) == [s.key for s in samples[:2]]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


def test_failure_leaves_nothing_and_keeps_what_was_there(module, samples, labels, tmp_path):
    out = tmp_path / "results" / "out"
    missing = Sample("train/DCM/ID009/gone", tmp_path / "gone.png", (4, 4))
    with pytest.raises(OSError, match=r"gone\.png"):
        module.write([*samples, missing], out, labels)
    assert list(out.parent.iterdir()) == []
    module.write(samples[:1], out, labels)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match=r"gone\.png"):
        module.write([*samples, missing], out, labels)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(out.parent.iterdir()) == [out]


def test_foreign_folder_is_refused(module, samples, labels, tmp_path):
    precious = tmp_path / "out" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("x")
    with pytest.raises(ValueError, match="something else"):
        module.write(samples, tmp_path / "out", labels)
    assert precious.read_text() == "x"


def test_unknown_label_is_refused(module, samples, tmp_path):
    space = LabelSpace("waste", ("paper", "glass"))
    with pytest.raises(ValueError, match="expected a label of 'waste', found 'Radius'"):
        module.write(samples, tmp_path / "out", space)


def test_split_of_other_images_is_refused(module, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    with pytest.raises(ValueError, match="not in the data"):
        module.write(samples[:4], tmp_path / "out", labels, split=split)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        module.write(samples, tmp_path / "out", labels, split=split, fold=3)


def test_provenance_and_progress(name, module, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    seen: list[tuple[int, int]] = []
    module.write(
        samples,
        tmp_path / "out",
        labels,
        split=split,
        fold=1,
        provenance={"command": "zoo convert data"},
        progress=lambda done, total: seen.append((done, total)),
    )
    record = read_provenance(tmp_path / "out")
    assert record["kind"] == name
    assert (record["command"], record["split"], record["fold"]) == (
        "zoo convert data",
        split.digest,
        1,
    )
    assert seen == [(i, 6) for i in range(1, 7)]


def test_no_samples_at_all(name, module, labels, tmp_path):
    assert module.write([], tmp_path / "out", labels).samples == 0
    assert masks_back(name, tmp_path / "out", labels) == {}


# --- finding formats


def test_unknown_format():
    with pytest.raises(ValueError, match="expected one of handbone, yolo"):
        converters.load_format("coco8")


def test_folder_in_no_format(tmp_path, labels):
    with pytest.raises(ValueError, match="none that is known"):
        converters.read(tmp_path, labels=labels)
    with pytest.raises(ValueError, match="found nothing there"):
        converters.read(tmp_path / "gone", labels=labels)


def test_folder_in_two_formats(tree, labels):
    tree.hand("ID001/a", ("Ulna", [(1, 1), (5, 5), (1, 5)]))
    (tree.root / "masks").mkdir()
    (tree.root / "labels.yaml").write_text("")
    with pytest.raises(ValueError, match="several formats at once; name it: handbone or masks"):
        converters.read(tree.root, labels=labels)
    assert len(converters.read(tree.root, format="handbone", labels=labels)) == 1


def test_unknown_subset(tree, labels):
    with pytest.raises(ValueError, match="expected one of train, test, all"):
        converters.read(tree.root, subset="val", labels=labels)


def test_format_that_is_only_written(samples, labels, tmp_path):
    converters.load_format("segformer").write(samples[:1], tmp_path / "out", labels)
    with pytest.raises(ValueError, match="'segformer' is only written; readable are handbone"):
        converters.read(tmp_path / "out", labels=labels)


def test_nothing_heavy_is_imported_before_it_is_needed():
    program = (
        "import sys, converters\n"
        "for name in converters.FORMATS: converters.load_format(name)\n"
        "import converters.splits\n"
        "heavy = {'torch', 'datasets', 'pyarrow', 'sklearn', 'openpyxl', 'zoo', 'fusion'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
