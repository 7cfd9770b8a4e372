"""`--subset val`: what a fold, or all of them, hold out is checked and scored."""

import json
from dataclasses import replace

import pytest

import converters
from converters.splits.split import VERSION, Split
from converters.types import LabelSpace
from fusion.sources import submission
from zoo.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(work):
    return converters.read(work / "data")


@pytest.fixture
def split(samples, tmp_path, monkeypatch):
    """Two folds, whose images are not in the order of their keys."""
    keys = [sample.key for sample in samples]
    path = tmp_path / "split.json"
    folds = (tuple(keys[4:]), tuple(keys[:4]))
    Split(VERSION, 0, "given", folds, {key: key for key in keys}).save(path)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def write_csv(files, samples, tmp_path):
    """Return a function: write a source's rows of these samples, in this order."""

    def write(chosen):
        found: dict[str, list[submission.RleRow]] = {}
        for row in submission.read(files[0]):
            found.setdefault(row.image_name, []).append(row)
        path = tmp_path / "some.csv"
        submission.write(path, (row for n in chosen for row in found[samples[n].file_name]))
        return path

    return write


def run(capsys, *words, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, words)))
    said = capsys.readouterr()
    assert (ended.value.code or 0) == code, said
    return said.out + said.err


ORDER = (4, 5, 0, 1, 2, 3)


@pytest.mark.parametrize(
    ("chosen", "options"),
    [
        # By folds, and by name, as `zoo fuse --data` writes them.
        *((ORDER, ()), (range(6), ())),
        *(((4, 5), ("--fold", 0)), (range(4), ("--fold", 1))),
    ],
)
def test_held_out_images_are_checked_and_scored(
    work, split, samples, write_csv, tmp_path, capsys, chosen, options
):
    path = write_csv(chosen)
    common = ("--data", work / "data", "--subset", "val", *options)
    said = run(capsys, "check", path, *common)
    assert "taken: split split.json" in said
    assert "valid" in said
    run(capsys, "evaluate", path, *common, "--split", split, "--json", tmp_path / "s.json")
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["per_image"]) == {samples[n].key for n in chosen}


def test_a_store_is_scored_where_the_fold_holds_its_images_out(work, split, samples, capsys):
    common = ("--data", work / "data", "--subset", "val")
    assert "6 images" in run(capsys, "evaluate", work / "a", *common)
    assert "2 images" in run(capsys, "evaluate", work / "a", *common, "--fold", 0)


@pytest.mark.parametrize("chosen", [range(6), ORDER, (5, 4, 3, 2, 1, 0)])
def test_only_test_images_have_an_order(chosen, work, write_csv, capsys):
    said = run(capsys, "check", write_csv(chosen), "--data", work / "data", "--subset", "train")
    assert "valid" in said


def test_a_split_or_a_fold_says_that_held_out_images_are_meant(work, split, samples, capsys):
    said = run(capsys, "evaluate", work / "a", "--data", work / "data", "--fold", 0)
    assert "taken: subset val; split split.json" in said
    assert "2 images" in said
    said = run(capsys, "evaluate", work / "a", "--data", work / "data", "--split", split)
    assert "6 images" in said


@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_one_fold_s_images_are_not_all_of_them_and_the_fold_is_named(
    work, split, write_csv, capsys, command
):
    path = write_csv((4, 5))
    said = run(capsys, command, path, "--data", work / "data", "--subset", "val", code=2)
    assert "these are the images of fold 0: give --fold 0" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--subset", "val"), "--split SPLIT.json, found none"),
        (
            ("--subset", "test", "--fold", 0),
            "--fold: expected --subset val with it, found --subset test",
        ),
        (("--subset", "val", "--split", "none.json"), "none.json"),
    ],
)
def test_what_does_not_say_which_images_is_refused(
    work, files, tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.chdir(tmp_path)
    for command in ("check", "evaluate"):
        said = run(capsys, command, files[0], "--data", work / "data", *options, code=2)
        assert words in said


def test_a_split_s_patients_and_classes_are_those_of_what_it_holds_out(
    work, samples, write_csv, tmp_path, monkeypatch, capsys
):
    keys = [sample.key for sample in samples]
    labels = converters.label_space(work / "data")
    unknown = [replace(sample, group="") for sample in samples]
    converters.write(unknown, tmp_path / "set", format="coco", labels=labels)
    first = labels.names[0]
    labels = LabelSpace("renamed", ("mine",), aliases={first: "mine"})
    folds = (tuple(keys[4:]), tuple(keys[:4]))
    groups = {key: f"person {key in folds[0]}" for key in keys}
    split = Split(VERSION, 0, "given", folds, groups, labels=labels)
    split.save(tmp_path / "split.json")
    monkeypatch.chdir(tmp_path)
    rows = [row for row in submission.read(write_csv(range(6))) if row.label == first]
    submission.write(tmp_path / "one.csv", (row._replace(label="mine") for row in rows))
    data = ("--data", tmp_path / "set", "--subset", "val")
    assert "6 images of 2 patients" in run(capsys, "evaluate", tmp_path / "one.csv", *data)


def test_test_images_are_said_to_be_such(work, samples, split, tmp_path, capsys):
    data, labels = tmp_path / "set", converters.label_space(work / "data")
    converters.write(samples, data, format="labelme", labels=labels)
    first = next(data.rglob(f"{samples[0].image.stem}.png"))
    first.with_name("new.png").write_bytes(first.read_bytes())
    path = tmp_path / "test.csv"
    submission.write(path, [submission.RleRow("new.png", labels.names[0], "1 2")])
    said = run(capsys, "check", path, "--data", data, "--subset", "val", code=2)
    assert "these are test images: leave --subset val out" in said
    assert "missing image" not in said
