"""Names of classes beside predictions that are not written as the data set's are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converters.types import LabelSpace, Sample
from fusion.interchange.files.files import open_written
from fusion.interchange.files.written import KnownImages

SIZE_HW = (40, 60)
LABELS = LabelSpace(
    "chest", ("Left Lung", "Right Lung", "Heart"), aliases={"Cor": "Heart"}, ignored=("Rib",)
)


def known_of(labels: LabelSpace) -> KnownImages:
    samples = {"one": Sample("one", Path("one.png"), SIZE_HW)}
    return KnownImages(samples, labels, dict(enumerate((*LABELS.names, "Spine"))))


def planes(count: int) -> Any:
    found = np.zeros((count, *SIZE_HW), np.float32)
    for number in range(count):
        found[number, 2 : 5 + 5 * number, 2:20] = 1
    return found


def _arrays(folder: Path, names: Sequence[str]) -> Path:
    np.save(folder / "one.npy", planes(len(names)))
    (folder / "classes.txt").write_text("\n".join(names))
    return folder / "classes.txt"


def _npz(folder: Path, names: Sequence[str]) -> Path:
    np.savez(folder / "one.npz", probabilities=planes(len(names)), classes=list(names))
    return folder / "one.npz"


def _maps(folder: Path, names: Sequence[str]) -> Path:
    values = np.zeros(SIZE_HW, np.uint8)
    for number in range(len(names)):
        values[10 * number : 10 * number + 2 + number, 5:10] = number + 1
    cv2.imwrite(str(folder / "one.png"), values)
    record = {"background": 0} | {name: number for number, name in enumerate(names, 1)}
    (folder / "dataset.json").write_text(json.dumps({"labels": record}))
    return folder / "dataset.json"


def _labels(folder: Path, names: Sequence[str]) -> Path:
    lines = (f"{n} .1 .1 .{n + 2} .1 .{n + 2} .3 .1 .3" for n in range(len(names)))
    (folder / "one.txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("\n".join(names))
    return folder / "classes.txt"


WAYS = (_arrays, _npz, _maps, _labels)
Way = Callable[[Path, Sequence[str]], Path]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "names", [("left lung", "Right_lung", "heart"), ("LEFT-LUNG", "rightLung", "COR")]
)
def test_case_and_separators_do_not_matter(way: Way, names: Sequence[str], tmp_path: Path) -> None:
    way(tmp_path, names)
    said: list[str] = []
    found = open_written(tmp_path, known_of(LABELS), Path("data"), note=said.append)
    areas = [found.predict("one").binary(label).area for label in LABELS.names]
    assert 0 < areas[0] < areas[1] < areas[2]
    assert not [line for line in said if "left out" in line]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_known_is_told_apart_from_what_is_not_asked_for(
    way: Way, tmp_path: Path
) -> None:
    where = way(tmp_path, ("Left Lung", "Rihgt Lung", "spine", "liver", "rib"))
    said: list[str] = []
    found = open_written(tmp_path, known_of(LABELS), Path("data"), note=said.append)
    assert set(found.predict("one").masks) == {"Left Lung"}
    assert said[:2] == [
        f"{where}: left out spine, rib, not asked for by 'chest'",
        f"{where}: left out Rihgt Lung (did you mean 'Right Lung'?), liver, not known to 'chest'",
    ]


@pytest.mark.parametrize("way", WAYS)
def test_where_no_class_is_known_it_is_said_what_may_be_meant(way: Way, tmp_path: Path) -> None:
    where = way(tmp_path, ("lung left", "Haert"))
    with pytest.raises(ValueError, match=r"Haert \(did you mean 'Heart'\?\)") as error:
        open_written(tmp_path, known_of(LABELS), Path("data"))
    assert str(error.value).startswith(f"{where}: expected classes of 'chest' (Left Lung, ")


def test_names_that_two_classes_have_but_for_separators_are_nobodys() -> None:
    known = known_of(LabelSpace("a", ("finger-1-1", "finger-11", "Tip", "tip", "Cup")))
    named = ("finger_1_1", "Finger 11", "TIP", "tip", "cup", "finger-1", "")
    assert [known.canonical(name) for name in named] == [
        *("finger-1-1", "finger-11", None, "tip", "Cup", None, None)
    ]
