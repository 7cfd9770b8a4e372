"""What is said of a run at its end: its best epoch, its last one, and that it finds nothing."""

from pathlib import Path

import pytest
from shapely.geometry import box

from converters.types import Instance, LabelSpace, Sample
from zoo.runs.train import _finds_nothing, _lifted, describe_scores

LABELS = LabelSpace("toys", ("a", "b", "c"))


def write(out, *dice):
    rows = [f"{epoch},{value}" for epoch, value in enumerate(dice, 1)]
    (out / "metrics.csv").write_text("\n".join(["epoch,val_dice", *rows]) + "\n")


def test_the_best_epoch_is_told_and_the_last(tmp_path):
    write(tmp_path, 0.5, 0.8, 0.7)
    told = f"{tmp_path}: validation Dice 0.8000 in epoch 2 (0.7000 in the last, 3)"
    assert describe_scores(tmp_path) == told
    write(tmp_path, 0.5, 0.8)
    assert describe_scores(tmp_path) == f"{tmp_path}: validation Dice 0.8000"


def test_a_run_that_was_finished_is_said_to_be(tmp_path):
    write(tmp_path, 0.5, 0.8)
    assert describe_scores(tmp_path, before=1) == f"{tmp_path}: validation Dice 0.8000"
    told = " was finished already; another --out trains anew: validation Dice 0.8000"
    assert describe_scores(tmp_path, before=2) == f"{tmp_path}{told}"


def test_a_run_without_scores_is_done(tmp_path):
    assert describe_scores(tmp_path) == f"{tmp_path}: done"


@pytest.mark.parametrize(
    ("dice", "finds"), [("0.500000", False), ("0.504", False), ("0.51", True), ("0.0", False)]
)
def test_scores_of_absent_classes_alone_are_nothing_found(dice, finds):
    """Three of six pairs of an image and a class are absent, and count 1 each."""
    parts = (("a", "b"), ("b", "b"))
    held_out = [
        Sample(
            str(number),
            Path("x.png"),
            (9, 9),
            tuple(Instance(label, box(1, 1, 4, 4)) for label in own),
        )
        for number, own in enumerate(parts)
    ]
    assert _finds_nothing({"val_dice": dice}, held_out, LABELS) is not finds


def test_what_is_drawn_where_it_is_not_is_no_nothing():
    """Absent classes that are drawn everywhere bring the score below that of nothing."""
    held_out = [
        Sample(str(number), Path("x.png"), (9, 9), (Instance("a", box(1, 1, 4, 4)),))
        for number in range(2)
    ]
    nothing = {"val_dice": "0.6667", "a": "0.0", "b": "1.0", "c": "1.0"}
    drawn = {"val_dice": "0.5", "a": "0.5", "b": "0.0", "c": "1.0"}
    assert _finds_nothing(nothing, held_out, LABELS)
    assert not _finds_nothing(drawn, held_out, LABELS)


def test_a_score_of_absent_classes_alone_is_said_to_be_such():
    assert _lifted({"val_dice": "0.0012"}) == ""
    told = " (its Dice of 0.5299 is that of classes neither there nor found, which count 1)"
    assert _lifted({"val_dice": "0.5299"}) == told


def test_nothing_is_said_where_nothing_is_there():
    held_out = [Sample("0", Path("x.png"), (9, 9), ())]
    assert not _finds_nothing({"val_dice": "1.0"}, held_out, LABELS)
    assert not _finds_nothing({}, held_out, LABELS)
