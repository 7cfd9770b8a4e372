"""The commands around data sets: convert, split, audit, and corrections in all of them."""

import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import box

import converters
from converters.files.images import read_pixels
from converters.types import Instance, LabelSpace, Sample
from zoo.source import DataSource

TINY = ("size=[64,64]", "epochs=1", "batch=4", "init=null", "cache=memory")


@pytest.fixture(scope="module")
def labels():
    return LabelSpace.load("hand_bones")


@pytest.fixture(scope="module")
def data(zoo, tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "data"
    zoo("phantom", root, "--people", 4, "--test-people", 1, "--size", 256)
    return root


def test_formats_are_listed_with_their_layouts(zoo, capsys):
    zoo("list", "formats")
    said = capsys.readouterr().out
    assert all(name in said for name in converters.FORMATS)
    assert "index (loses objects, overlaps, subpixels)" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--to", "YOLO"), "format 'YOLO' (did you mean 'yolo'?): expected one of handbone"),
        (("--to", "rle"), "(did you mean 'rle_table'?)"),
        (("--to", "ram_w600"), "expected one that can be written: handbone, yolo, masks,"),
        (("--to", "masks", "--layout", "indx"), "layout 'indx' (did you mean 'index'?)"),
        (("--to", "masks", "--out", "{mine}"), "mine"),
    ],
)
def test_what_cannot_be_is_said_before_data_are_read(
    options, said, zoo, data, tmp_path, capsys, monkeypatch
):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    monkeypatch.setattr(converters, "read", None)
    words = [word.format(mine=mine) for word in options]
    out = () if "--out" in words else ("--out", tmp_path / "out")
    zoo("convert", data, *out, *words, code=2)
    assert said in capsys.readouterr().err
    assert (mine / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_losses_are_said_per_class(zoo, data, tmp_path, capsys):
    zoo("convert", data, "--to", "masks", "--layout", "index", "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "pixels that lost one of several labels" in said
    assert "Triquetrum: mean Dice 0." in said
    assert "all 29 classes: mean Dice 0.9" in said


@pytest.mark.slow
def test_images_that_lie_elsewhere(zoo, data, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    zoo("convert", data, "--to", "coco", "--out", whole)
    shutil.move(whole / "images", tmp_path / "photos")
    zoo("convert", whole, "--to", "rle_table", "--out", out, code=2)
    assert "--images says where" in capsys.readouterr().err
    zoo("convert", whole, "--images", tmp_path / "photos", "--to", "rle_table", "--out", out)
    assert "nothing was lost" in capsys.readouterr().out
    expected, found = converters.read(data), converters.read(out)
    assert [sample.key for sample in found] == [sample.key for sample in expected]
    assert all(len(sample.instances) == 29 for sample in found)
    # Every command finds them so.
    elsewhere = ("--images", tmp_path / "photos")
    zoo("split", whole, *elsewhere, "--folds", 2, "--out", tmp_path / "split.json")
    zoo("audit", whole, *elsewhere, "--out", tmp_path / "audit")
    capsys.readouterr()


def test_what_was_read_in_another_way_is_no_thing_that_was_kept(zoo, tmp_path, capsys):
    """COCO's crowds become objects, and that is said: no word of nothing being lost."""
    root = tmp_path / "data"
    root.mkdir()
    cv2.imwrite(str(root / "a.png"), np.zeros((20, 30), np.uint8))
    square = {"segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]], "image_id": 1, "category_id": 1}
    record = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "iscrowd": 1, **square}, {"id": 2, "iscrowd": 0, **square}],
    }
    (root / "instances_train.json").write_text(json.dumps(record))
    zoo("convert", root, "--to", "coco", "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert "instances_train.json: 1 crowd regions (iscrowd: 1) are read as an object" in said.err
    assert "nothing was lost" not in said.out
    assert "every object that was read comes back with its pixels" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "test"])
def test_all_of_a_data_set_may_be_one_part(part, zoo, tmp_path, capsys):
    others = tmp_path / "others"
    (others / "images").mkdir(parents=True)
    cv2.imwrite(str(others / "images" / "a.png"), np.zeros((40, 40), np.uint8))
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]]}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [square],
    }
    (others / f"instances_{part}.json").write_text(json.dumps(content))
    zoo("convert", others, "--to", "yolo", "--subset", "all", "--out", tmp_path / "out")
    assert "1 images" in capsys.readouterr().out


def test_a_layout_of_another_format_is_refused(zoo, data, tmp_path, capsys):
    out = tmp_path / "out"
    zoo("convert", data, "--to", "yolo", "--layout", "index", "--out", out, code=2)
    assert "layout 'index': expected one of yolo's" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_crops_are_trained_on_and_predicted_in_the_whole_image(zoo, data, tmp_path, capsys):
    split, crops, run = tmp_path / "split.json", tmp_path / "crops", tmp_path / "run"
    zoo("split", data, "--out", split, "--folds", 2)
    wrist = ("--crop", "carpals", "--margin", 12, "--scale", 2)
    zoo("convert", data, "--to", "masks", "--out", crops, "--split", split, "--jobs", 2, *wrist)
    said = capsys.readouterr().out
    found = re.search(
        r"of 232 objects the crops leave out (\d+) and cut (\d+) at their edges", said
    )
    assert found
    objects = sum(len(sample.instances) for sample in converters.read(crops))
    assert objects == 232 - int(found[1])
    assert 0 < int(found[2]) < objects
    assert "nothing was lost" not in said
    zoo("train", "smp", "--config", "demo", "--data", crops, "--out", run, *TINY)
    zoo("predict", run, "--data", crops, "--out", tmp_path / "val")
    capsys.readouterr()
    zoo("evaluate", tmp_path / "val", "--data", data)
    assert "4 images" in capsys.readouterr().out
    zoo("evaluate", tmp_path / "val", "--data", crops, code=2)
    assert "take the data set of whole images" in capsys.readouterr().err
    # A second crop, where the first stage saw the bones.
    again = ("--crop", "carpals", "--boxes", tmp_path / "val", "--suggest")
    zoo("convert", data, *again, code=2)
    assert "expected a box of this image" in capsys.readouterr().err


@pytest.mark.slow
def test_crop_options_without_a_crop_are_refused(zoo, data, tmp_path, capsys):
    zoo("convert", data, "--to", "yolo", "--out", tmp_path / "out", "--margin", 3, code=2)
    assert "expected with --crop GROUP" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_are_described(zoo, data, tmp_path, capsys):
    out = ("--out", tmp_path / "split.json", "--folds", 2)
    zoo("split", data, *out, "--strategy", "stratified", "--describe")
    said = capsys.readouterr().out
    assert "patients" in said
    assert "fold 1" in said


@pytest.fixture
def corrections(data, tmp_path, labels):
    """Edits that exclude one patient and swap two labels, and the samples before."""
    samples = converters.read(data, labels=labels)
    first, last = samples[0], samples[-1]
    edits = {
        "version": 1,
        "exclude_groups": [{"group": last.group}],
        "swap_labels": [{"key": first.key, "labels": ["finger-1", "finger-3"]}],
    }
    path = tmp_path / "edits.yaml"
    path.write_text(yaml.safe_dump(edits), encoding="utf-8")
    return path, samples


def test_corrections_reach_what_is_written(zoo, data, tmp_path, labels, corrections):
    path, samples = corrections
    out = tmp_path / "out"
    zoo("convert", data, "--to", "coco", "--out", out, "--edits", path)
    again = converters.read(out, labels=labels)
    assert [s.key for s in again] == [s.key for s in samples[:-2]]
    before = {i.label: i.geometry.area for i in samples[0].instances}
    after = {i.label: i.geometry.area for i in again[0].instances}
    assert after["finger-1"] == pytest.approx(before["finger-3"], rel=0.2)
    assert after["finger-3"] == pytest.approx(before["finger-1"], rel=0.2)


@pytest.mark.slow
def test_a_split_from_before_the_corrections_still_holds(zoo, data, tmp_path, corrections):
    path, _ = corrections
    split, out, run = tmp_path / "split.json", tmp_path / "out", tmp_path / "run"
    zoo("split", data, "--out", split, "--folds", 2)
    given = ("--split", split, "--edits", path)
    zoo("convert", data, "--to", "yolo", "--out", out, *given)
    zoo("train", "smp", "--config", "demo", "--data", data, "--out", run, *given, *TINY)
    zoo("train", "smp", "--config", "demo", "--data", out, "--out", tmp_path / "run2", *TINY)
    zoo(
        "train",
        "smp",
        "--config",
        "demo",
        "--data",
        data,
        "--out",
        run,
        "--split",
        split,
        *TINY,
        code=2,
    )


@pytest.mark.slow
def test_scores_leave_excluded_images_out(zoo, data, tmp_path, corrections, capsys):
    path, _ = corrections
    split, run, store = tmp_path / "split.json", tmp_path / "run", tmp_path / "val"
    zoo("split", data, "--out", split, "--folds", 2)
    zoo("train", "smp", "--config", "demo", "--data", data, "--split", split, "--out", run, *TINY)
    zoo("predict", run, "--data", data, "--subset", "all", "--out", store)
    capsys.readouterr()
    zoo("evaluate", store, "--data", data, "--edits", path)
    assert "8 images" in capsys.readouterr().out


def test_a_broken_image_can_be_excluded(zoo, data, tmp_path, labels, capsys):
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    key = converters.read(broken, labels=labels)[0].key
    image = broken / f"{key}.png"
    image.write_bytes(image.read_bytes()[:1000])
    zoo("convert", broken, "--to", "coco", "--out", tmp_path / "out", code=2)
    assert "cut off" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    edits = tmp_path / "edits.yaml"
    edits.write_text(yaml.safe_dump({"version": 1, "exclude_images": [{"key": key}]}))
    zoo("convert", broken, "--to", "coco", "--out", tmp_path / "out", "--edits", edits)
    assert len(converters.read(tmp_path / "out", labels=labels)) == 7


@pytest.mark.slow
def test_the_same_image_in_two_patients_is_refused_by_split(zoo, data, tmp_path, labels, capsys):
    leaky = tmp_path / "data"
    shutil.copytree(data, leaky)
    samples = converters.read(leaky, labels=labels)
    shutil.copyfile(leaky / f"{samples[0].key}.png", leaky / f"{samples[-1].key}.png")
    zoo("split", leaky, "--out", tmp_path / "split.json", "--folds", 4, code=2)
    assert "same" in capsys.readouterr().err
    assert not (tmp_path / "split.json").exists()


@pytest.mark.slow
def test_an_audit_leaves_a_page_findings_and_a_draft(zoo, data, tmp_path, capsys):
    out = tmp_path / "audit"
    zoo("audit", data, "--out", out, "--describe")
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert isinstance(json.loads((out / "findings.json").read_text(encoding="utf-8")), list)
    draft = yaml.safe_load((out / "edits.yaml").read_text(encoding="utf-8"))
    assert draft["version"] == 1


@pytest.mark.slow
def test_what_the_other_part_has_is_said_where_one_is_empty(zoo, tmp_path, capsys):
    generator = np.random.default_rng(0)
    for folder, most in (("images", 255), ("masks", 2)):
        (tmp_path / "set" / "test" / folder).mkdir(parents=True)
        for name in "ab":
            pixels = generator.integers(0, most, (20, 30), np.uint8) * (255 // (most - 1))
            cv2.imwrite(str(tmp_path / "set" / "test" / folder / f"{name}.png"), pixels)
    words = ("convert", tmp_path / "set", "--to", "coco", "--out", tmp_path / "out")
    zoo(*words, code=2)
    told = "found none, but 2 test images: --subset test"
    assert capsys.readouterr().err.rstrip().endswith(told)
    zoo(*words, "--subset", "test")
    assert "all 2 are test images: with no others beside them" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("form", converters.written_formats())
def test_test_images_alone_are_where_the_command_says(form, zoo, data, tmp_path, capsys):
    zoo("convert", data, "--subset", "test", "--to", form, "--out", tmp_path / "out")
    stay = "they stay so, and are read by --subset test" in capsys.readouterr().out
    written = DataSource.open(tmp_path / "out", form)
    parts = [len(written.list_part(subset)) for subset in ("train", "test")]
    assert (parts[0] == 0, parts[1] == 0) == (stay, not stay)


@pytest.mark.slow
def test_mere_images_are_predicted_and_teach_nothing(zoo, data, tmp_path, capsys):
    split, run, images = tmp_path / "split.json", tmp_path / "run", tmp_path / "images"
    zoo("split", data, "--out", split, "--folds", 2)
    zoo("train", "smp", "--config", "demo", "--data", data, "--split", split, "--out", run, *TINY)
    for path in sorted((data / "test" / "DCM").rglob("*.png")):
        images.mkdir(exist_ok=True)
        shutil.copy(path, images / path.name)
    count = len(list(images.iterdir()))
    capsys.readouterr()
    zoo("predict", run, "--data", images)
    said = capsys.readouterr().out
    assert said.startswith("taken: subset test; out ")
    assert f"predictions of {count} images" in said
    manifest = json.loads((run / "test" / "manifest.json").read_text())
    assert [row[0] for row in manifest["images"]] == sorted(p.stem for p in images.iterdir())
    for more in ([], ["--labels", "hand_bones"]):
        out = tmp_path / "other"
        train = ("train", "smp", "--config", "demo", "--data", images, "--split", split)
        zoo(*train, "--out", out, *more, code=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert "expected annotations, found only images" in line
        assert not out.exists()
        zoo("split", images, "--out", tmp_path / "s.json", *more, code=2)
        assert "expected annotations, found only images" in capsys.readouterr().err


def deepen(root):
    """Make the images of a tree such as radiographs are: 12 bits in 16."""
    for path in root.rglob("*.png"):
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16)
        cv2.imwrite(str(path), 800 + 9 * pixels)


@pytest.mark.slow
def test_images_of_16_bits_are_converted_and_it_is_said_once(zoo, data, tmp_path, capsys):
    deep = tmp_path / "deep"
    shutil.copytree(data, deep)
    deepen(deep)
    zoo("convert", deep, "--to", "yolo", "--out", tmp_path / "yolo", "--jobs", 2)
    said = capsys.readouterr().out
    assert said.count("(DICOM, or grey of 16 bits) are written as 8 bits") == 1
    shown = converters.read(deep)
    written = {sample.key: sample for sample in converters.read(tmp_path / "yolo")}
    for sample in shown:
        file = cv2.imread(str(written[sample.key].image), cv2.IMREAD_UNCHANGED)
        assert file.dtype == np.uint8
        np.testing.assert_array_equal(file, read_pixels(sample))
        assert file.min() == 0
        assert file.max() == 255
    zoo("convert", data, "--to", "yolo", "--out", tmp_path / "plain")
    assert "8 bits" not in capsys.readouterr().out


@pytest.mark.slow
def test_it_imports_neither_fusion_nor_families(tmp_path):
    square = Instance("cell", box(2, 2, 6, 6))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    sample = Sample("a", tmp_path / "a.png", (9, 9), (square,))
    labels = LabelSpace("cells", ("cell",))
    converters.write([sample], tmp_path / "set", format="coco", labels=labels)
    code = """
import sys, zoo.cli
try:
    zoo.cli.main(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
found = {"pyarrow", "scipy", "sklearn", "fusion", "zoo.contract"} & set(sys.modules)
assert not found, found
"""
    words = ["convert", tmp_path / "set", "--to", "yolo", "--out", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", code, *map(str, words)], check=True)
