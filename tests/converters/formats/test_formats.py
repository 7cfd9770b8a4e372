"""What every format keeps. A line in FORMATS is all that a new one needs to be tested here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from shapely.geometry import box

import converters
from converters import loss as losses
from converters.files.images import read_pixels
from converters.files.provenance import read_provenance
from converters.masks import CropMask, rasterize_labels
from converters.splits.split import make_split
from converters.types import Frame, Instance, LabelSpace, Sample

MODULES = {name: converters.load_format(name) for name in converters.FORMATS}
WRITTEN = [name for name, module in MODULES.items() if hasattr(module, "write")]
# Of one class only: `rle_table/test_rle_table.py` has them.
NARROW = ("dsb2018", "airbus")
LAYOUTS = [
    (name, layout) for name in WRITTEN for layout in MODULES[name].LOSES if layout not in NARROW
]


@dataclass(frozen=True)
class Form:
    """A format in one of its layouts."""

    name: str
    layout: str

    @property
    def module(self) -> ModuleType:
        return MODULES[self.name]

    @property
    def loses(self) -> frozenset[str]:
        return self.module.LOSES[self.layout]

    def write(self, samples: list[Sample], out: Path, labels: LabelSpace, **more: Any) -> Any:
        return converters.write(
            samples, out, format=self.name, layout=self.layout, labels=labels, **more
        )


@pytest.fixture(params=LAYOUTS, ids="-".join)
def form(request) -> Form:
    return Form(*request.param)


def read_masks(
    out: Path, labels: LabelSpace
) -> dict[str, tuple[tuple[int, int], Mapping[str, CropMask]]]:
    """Key -> size and masks, of all that was written."""
    samples = converters.read(out, subset="all", labels=labels)
    return {s.key: (s.size_hw, rasterize_labels(s.instances, s.size_hw)) for s in samples}


def assert_equal(
    truth: Mapping[str, CropMask], back: Mapping[str, CropMask], size_hw: tuple[int, int]
) -> None:
    assert {n for n, m in back.items() if m.area} == {n for n, m in truth.items() if m.area}
    for label, mask in back.items():
        np.testing.assert_array_equal(mask.full(size_hw), truth[label].full(size_hw), label)


@pytest.mark.slow
def test_comes_back_to_the_pixel_unless_the_format_says_so(form, case, sample, labels, tmp_path):
    loss = form.write([sample], tmp_path / "out", labels)
    size_hw, back = read_masks(tmp_path / "out", labels)[sample.key]
    truth = rasterize_labels(sample.instances, sample.size_hw)
    assert size_hw == sample.size_hw
    assert loss.samples == 1
    if case.has & form.loses:
        assert loss == losses.measure(sample, back)
        assert loss
    else:
        assert_equal(truth, back, sample.size_hw)
        assert not loss
        assert loss.describe() == ""


def test_can_be_read_from_inside(form, drawn, labels, tmp_path, monkeypatch):
    samples = [sample for _, sample in drawn.values()][:3]
    form.write(samples, tmp_path / "out", labels)
    expected = converters.scan(tmp_path / "out", subset="all", labels=labels)
    monkeypatch.chdir(tmp_path / "out")
    found = converters.scan(Path(), subset="all", labels=labels)
    assert [(s.key, s.instances) for s in found[0]] == [(s.key, s.instances) for s in expected[0]]
    assert found[1] == expected[1]


@pytest.mark.parametrize(("first", "second"), list(product(WRITTEN, WRITTEN)))
@pytest.mark.slow
def test_every_pair_of_formats(first, second, drawn, labels, tmp_path):
    forms = [Form(name, next(iter(MODULES[name].LOSES))) for name in (first, second)]
    lost = forms[0].loses | forms[1].loses
    kept = [sample for case, sample in drawn.values() if not case.has & lost]
    forms[0].write(kept, tmp_path / "first", labels)
    between = converters.read(tmp_path / "first", subset="all", labels=labels)
    assert not forms[1].write(between, tmp_path / "second", labels)
    back = read_masks(tmp_path / "second", labels)
    assert len(back) == len(kept)
    for sample in kept:
        truth = rasterize_labels(sample.instances, sample.size_hw)
        assert_equal(truth, back[sample.key][1], sample.size_hw)


@pytest.mark.parametrize("name", converters.FORMATS)
def test_says_what_it_loses(name):
    for lost in MODULES[name].LOSES.values():
        assert {"overlaps", "holes", "parts", "objects", "subpixels"} >= lost


# Two objects that lie apart, and two that overlap.
CELLS = LabelSpace("cells", ("cell", "nucleus"))
APART = (Instance("cell", box(2, 2, 9, 9)), Instance("cell", box(20, 20, 30, 30)))
TOUCHING = (Instance("nucleus", box(3, 30, 12, 40)), Instance("nucleus", box(8, 33, 18, 44)))


def test_objects_of_a_class_stay_apart_or_are_counted(form, draw, tmp_path):
    cells = replace(draw("empty"), instances=(*APART, *TOUCHING))
    loss = form.write([cells], tmp_path / "out", CELLS)
    (back,) = converters.read(tmp_path / "out", subset="all", labels=CELLS)
    if "objects" in form.loses:
        assert (loss.objects, loss.masks, len(back.instances)) == (4, 2, 2)
        assert "4 objects joined with others of their class into 2 masks" in loss.describe()
    else:
        assert (loss.objects, loss.masks, len(back.instances)) == (0, 0, 4)
        assert loss.describe() == ""


def test_where_a_class_occurs_once_its_parts_are_one_object(form, draw, tmp_path):
    once = replace(CELLS, once=True)
    parts = replace(draw("empty"), instances=APART)
    assert not form.write([parts], tmp_path / "out", once)


def test_is_recognised_by_content(form, samples, labels, tmp_path):
    form.write(samples, tmp_path / "out", labels)
    assert converters.recognise(tmp_path / "out") == form.name


@pytest.mark.slow
def test_keeps_keys_groups_attributes_and_images(form, samples, labels, tmp_path):
    samples = [replace(s, attributes={"age": 31.0, "sex": "F"}) for s in samples]
    form.write(samples, tmp_path / "out", labels)
    again = converters.read(tmp_path / "out", labels=labels)
    for before, after in zip(samples, again, strict=True):
        assert (after.key, after.group) == (before.key, before.group)
        assert dict(after.attributes) == dict(before.attributes)
        assert after.frame is None
        assert after.image.read_bytes() == before.image.read_bytes()


def test_keeps_where_a_crop_lies(form, draw, labels, tmp_path):
    whole = draw("plain")
    part = replace(whole, size_hw=(32, 48), frame=Frame((5, 6, 24, 16), (48, 48), is_stored=False))
    form.write([part], tmp_path / "out", labels)
    (again,) = converters.read(tmp_path / "out", subset="all", labels=labels)
    assert again.frame == Frame((5, 6, 24, 16), (48, 48), is_stored=True)
    assert (again.key, again.size_hw) == (whole.key, (32, 48))
    np.testing.assert_array_equal(read_pixels(again), read_pixels(part))
    np.testing.assert_array_equal(
        cv2.resize(read_pixels(whole)[6:22, 5:29], (48, 32), interpolation=cv2.INTER_LANCZOS4),
        read_pixels(again),
    )


def test_same_stem_in_two_folders(form, draw, labels, tmp_path):
    first = draw("plain")
    other = Sample("train/DCM/ID002/image1661130828152", first.image, (48, 48), (), "ID002")
    form.write([first, other], tmp_path / "out", labels)
    back = read_masks(tmp_path / "out", labels)
    assert {key: len(masks) for key, (_, masks) in back.items()} == {first.key: 1, other.key: 0}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_second_run_replaces(form, samples, labels, tmp_path):
    form.write(samples, tmp_path / "out", labels)
    form.write(samples[:2], tmp_path / "out", labels)
    form.write(samples[:2], tmp_path / "out", labels)
    assert sorted(read_masks(tmp_path / "out", labels)) == [s.key for s in samples[:2]]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_processes(form, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    one = form.write(samples, tmp_path / "one", labels, split=split)
    two = form.write(samples, tmp_path / "two", labels, split=split, jobs=2)
    assert one == two
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_failure_leaves_nothing_and_keeps_what_was_there(form, samples, labels, tmp_path):
    out = tmp_path / "results" / "out"
    missing = Sample("train/DCM/ID009/gone", tmp_path / "gone.png", (4, 4))
    with pytest.raises(OSError, match=r"gone\.png"):
        form.write([*samples, missing], out, labels)
    assert list(out.parent.iterdir()) == []
    form.write(samples[:1], out, labels)
    before = contents(out)
    with pytest.raises(OSError, match=r"gone\.png"):
        form.write([*samples, missing], out, labels)
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


def test_foreign_folder_is_refused(form, samples, labels, tmp_path):
    precious = tmp_path / "out" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("x")
    with pytest.raises(ValueError, match="something else"):
        form.write(samples, tmp_path / "out", labels)
    assert precious.read_text() == "x"


def test_unknown_label_is_refused(form, samples, tmp_path):
    space = LabelSpace("waste", ("paper", "glass"))
    with pytest.raises(ValueError, match="expected a label of 'waste', found 'Radius'"):
        form.write(samples, tmp_path / "out", space)


def test_split_of_other_images_is_refused(form, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    with pytest.raises(ValueError, match="not in the data"):
        form.write(samples[:4], tmp_path / "out", labels, split=split)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        form.write(samples, tmp_path / "out", labels, split=split, fold=3)


def test_provenance_and_progress(form, samples, labels, tmp_path):
    split = make_split(samples, folds=3)
    seen: list[tuple[int, int]] = []
    report: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    command = {"command": "zoo convert data"}
    form.write(
        *(samples, tmp_path / "out", labels),
        split=split,
        fold=1,
        provenance=command,
        progress=report,
    )
    record = read_provenance(tmp_path / "out")
    assert record["kind"] == form.name
    assert (record["split"], record["fold"]) == (split.digest, 1)
    assert record["command"] == command["command"]
    assert seen[-6:] == [(i, 6) for i in range(1, 7)]


def test_no_samples_at_all(form, labels, tmp_path):
    assert form.write([], tmp_path / "out", labels).samples == 0
    assert read_masks(tmp_path / "out", labels) == {}


def test_unknown_layout_is_refused(samples, labels, tmp_path):
    with pytest.raises(ValueError, match="layout 'tiles': expected one of yolo's: polygons"):
        converters.write(samples, tmp_path / "out", format="yolo", layout="tiles", labels=labels)


# --- finding formats


def test_unknown_format():
    with pytest.raises(ValueError, match="expected one of handbone, yolo"):
        converters.load_format("coco8")


def test_folder_in_no_format(tmp_path, labels):
    with pytest.raises(ValueError, match="none that is known"):
        converters.read(tmp_path, labels=labels)
    with pytest.raises(ValueError, match="found nothing there"):
        converters.read(tmp_path / "gone", labels=labels)


@pytest.mark.parametrize("place", ["annotations.json", "annotations/val.json"])
@pytest.mark.parametrize("form", [None, "coco"])
def test_a_file_instead_of_its_folder(place, form, labels, tmp_path):
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"found another file: give its folder, .*data$"):
        converters.read(path, format=form, labels=labels)


def test_folder_in_two_formats(tree, labels):
    tree.hand("ID001/a", ("Ulna", [(1, 1), (5, 5), (1, 5)]))
    (tree.root / "masks").mkdir()
    (tree.root / "labels.yaml").write_text("")
    with pytest.raises(
        ValueError, match=r"several formats at once; name it \(--from\): handbone or masks"
    ):
        converters.read(tree.root, labels=labels)
    assert len(converters.read(tree.root, format="handbone", labels=labels)) == 1


def test_unknown_subset(tree, labels):
    with pytest.raises(ValueError, match="expected one of train, test, all"):
        converters.read(tree.root, subset="val", labels=labels)


@pytest.mark.slow
def test_nothing_heavy_is_imported_before_it_is_needed():
    program = (
        "import sys, converters\n"
        "for name in converters.FORMATS: converters.load_format(name)\n"
        "import converters.splits.split\n"
        "heavy = {'torch', 'datasets', 'pyarrow', 'sklearn', 'openpyxl', 'zoo', 'fusion'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", ["yolo", "coco", "labelme", "datumaro", "masks"])
def test_test_images_stay_test_images(name, drawn, labels, tmp_path):
    sample = next(sample for _, sample in drawn.values())
    keys = ("train/a", "train/b", "test/c")
    samples = [replace(sample, key=key, group=key) for key in keys]
    split = make_split(samples[:2], folds=2)
    converters.write(samples, tmp_path / "out", format=name, labels=labels, split=split)
    for subset, expected in (("train", keys[:2]), ("test", keys[2:]), ("all", sorted(keys))):
        found = converters.read(tmp_path / "out", subset=subset, labels=labels)
        assert [s.key for s in found] == list(expected), subset
