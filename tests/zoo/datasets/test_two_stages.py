"""Two stages as a user goes through them: a network on the whole hand, one on the wrist, fused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters
from converters.masks import CropMask, crop, tight_box
from converters.types import LabelSpace
from fusion import FUSIONS
from fusion.sources.manifest import Manifest
from fusion.sources.store import PredictionStore, StoreWriter, read_together
from fusion.types import Prediction, SoftMask
from zoo.datasets.crop_boxes import FirstBoxes, find_boxes, without_specks

pytestmark = pytest.mark.slow

LABELS = LabelSpace.load("hand_bones")
CARPALS = LABELS.groups["carpals"]
SMALL = ("size=[96,96]", "epochs=1", "batch=4", "cache=memory", "augment=[]")
MARGIN = 8


def _cut(zoo: Any, work: Path, out: str, boxes: Path, *further: Any, code: int = 0) -> Path:
    where = ("--crop", "carpals", "--margin", MARGIN, "--boxes", boxes)
    zoo("convert", work / "data", "--to", "masks", "--out", work / out, *where, *further, code=code)
    return work / out


@pytest.fixture(scope="module")
def work(zoo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage, the crops that it gives, and the second stage, plain and enlarged."""
    root = tmp_path_factory.mktemp("two_stages")
    data, split = root / "data", root / "split.json"
    zoo("phantom", data, "--people", 4, "--test-people", 1, "--size", 256, "--seed", 1)
    zoo("split", data, "--out", split, "--folds", 2)
    hands = ("--data", data, "--split", split, "--fold", 0)
    zoo("train", "smp", "--config", "demo", *hands, "--out", root / "runs" / "hand", *SMALL)
    for subset in ("val", "test"):
        chosen = ("--data", data, "--subset", subset, "--out", root / subset / "hand")
        zoo("predict", root / "runs" / "hand", *chosen)
    for name, scale in (("wrist", 1), ("wrist_x2", 2)):
        enlarged = ("--scale", scale)
        fold = ("--split", split, "--fold", 0, *enlarged)
        crops = _cut(zoo, root, name, root / "val" / "hand", *fold)
        run = root / "runs" / name
        zoo("train", "smp", "--config", "demo", "--data", crops, "--out", run, *SMALL)
        zoo("predict", run, "--data", crops, "--out", root / "val" / name)
        hidden = ("--subset", "test", *enlarged)
        tests = _cut(zoo, root, f"{name}_test", root / "test" / "hand", *hidden)
        zoo("predict", run, "--data", tests, "--subset", "test", "--out", root / "test" / name)
    return root


def _stores(work: Path, subset: str) -> list[PredictionStore]:
    return [PredictionStore(work / subset / name) for name in ("hand", "wrist", "wrist_x2")]


@pytest.mark.parametrize("subset", ["val", "test"])
@pytest.mark.slow
def test_all_stages_speak_of_the_same_images_in_one_frame(work: Path, subset: str) -> None:
    hand, *wrists = _stores(work, subset)
    boxes = find_boxes(hand.path, ["carpals"], LABELS)
    assert not boxes.blind
    for wrist in wrists:
        assert wrist.manifest.images == hand.manifest.images
        assert wrist.manifest.split == hand.manifest.split
        assert wrist.manifest.classes == tuple(n for n in LABELS.names if n in CARPALS)
        assert hand.manifest.classes == ()
        for key, (x, y, width, height) in boxes.found.items():
            x0, y0 = max(0, x - MARGIN), max(0, y - MARGIN)
            x1, y1 = min(256, x + width + MARGIN), min(256, y + height + MARGIN)
            assert wrist.manifest.domains[key] == (x0, y0, x1 - x0, y1 - y0)


def test_held_out_images_are_cut_where_the_first_stage_saw_the_bones(work: Path) -> None:
    held_out = set(PredictionStore(work / "val" / "hand").manifest.images)
    crops = converters.read(work / "wrist", labels=LABELS)
    truth = {s.key: s for s in converters.read(work / "data", labels=LABELS)}
    plain = {
        s.key: s.frame
        for s in converters.crops.crop(list(truth.values()), ["carpals"], MARGIN, LABELS)
    }
    differ = {s.key for s in crops if s.frame.box_xywh != plain[s.key].box_xywh}
    assert differ
    assert differ <= held_out
    assert {s.key for s in crops} == set(truth)


def test_enlarged_crops_have_twice_the_pixels(work: Path) -> None:
    pairs = zip(
        *(converters.read(work / name, labels=LABELS) for name in ("wrist", "wrist_x2")),
        strict=True,
    )
    for plain, enlarged in pairs:
        assert enlarged.size_hw == tuple(2 * side for side in plain.size_hw)
        assert enlarged.frame == plain.frame


def test_the_second_stage_is_silent_on_what_its_crop_does_not_hold(work: Path) -> None:
    for found in PredictionStore(work / "val" / "wrist"):
        assert found.classes == frozenset(CARPALS)
        assert not any(found.speaks_of(name) for name in ("finger-1", "finger-7", "Radius"))
        assert any(found.speaks_of(name) for name in CARPALS)
        for name in CARPALS:
            x, y, width, height = tight_box(found.binary(name))
            left, top, across, down = found.domain_xywh
            inside = left <= x <= x + width <= left + across
            assert not width or (inside and top <= y <= y + height <= top + down)


def test_a_fusion_takes_fingers_from_the_first_stage_alone(work: Path) -> None:
    mean = FUSIONS["mean"]()
    changed = 0
    for hand, wrist in read_together(_stores(work, "val")[:2]):
        fused = mean((hand, wrist), LABELS)
        for name in ("finger-1", "finger-7", "finger-13"):
            alone = mean((hand,), LABELS).binary(name)
            np.testing.assert_array_equal(
                fused.binary(name).full((256, 256)), alone.full((256, 256)), err_msg=name
            )
        for name in CARPALS:
            pair = [p.binary(name).full((256, 256)) for p in (fused, hand)]
            changed += bool((pair[0] != pair[1]).any())
    assert changed


@pytest.mark.slow
def test_the_way_ends_in_a_valid_submission(
    zoo: Any, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("hand", "wrist", "wrist_x2")
    rule, out = tmp_path / "fusion.yaml", tmp_path / "submission.csv"
    zoo("fit", *(work / "val" / n for n in names), "--data", work / "data", "--out", rule)
    zoo("fuse", *(work / "test" / n for n in names), "--config", rule, "--out", out)
    zoo("check", out, "--data", work / "data")
    assert "valid" in capsys.readouterr().out
    rows = out.read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 2 * 29
    assert sum(row.endswith(",") for row in rows) < 29


# --- where to cut


def _store(folder: Path, found: dict[str, Any], size_hw: tuple[int, int] = (40, 50)) -> Path:
    images = {key: (*size_hw, f"{Path(key).name}.png") for key in found}
    manifest = Manifest("semantic", LABELS.name, LABELS.names, images)
    with StoreWriter(folder, manifest) as writer:
        for key, box in found.items():
            masks = {}
            if box:
                seen = SoftMask(tuple(map(float, box)), np.full((box[3], box[2]), 255, np.uint8))
                masks = {"Lunate": ((1.0, seen),)}
            writer.append(Prediction(key, size_hw, "semantic", masks))
    return folder


def test_where_none_is_seen_the_window_holds_all_others(tmp_path: Path) -> None:
    store = _store(tmp_path / "s", {"a": (4, 5, 6, 7), "b_c": None, "d": (20, 2, 10, 4)})
    boxes = find_boxes(store, ["carpals"], LABELS)
    assert boxes.blind == ("b_c",)
    assert boxes.complete() == {**boxes.found, "b_c": (4, 2, 26, 10)}


def test_images_of_other_sizes_are_compared_by_shares() -> None:
    found = {"a": (10, 0, 30, 20), "b": (2, 3, 4, 1)}
    sizes = {"a": (40, 50), "b": (10, 10), "c": (21, 7)}
    complete = FirstBoxes(Path("s"), found, sizes).complete()
    assert complete["c"] == (1, 0, 5, 11)  # 0.2 to 0.8 of 7, 0 to 0.5 of 21, to whole pixels


def test_a_first_stage_that_sees_nothing_is_refused(tmp_path: Path) -> None:
    store = _store(tmp_path / "s", {"a": None})
    with pytest.raises(ValueError, match="/s: expected an image with such objects, found none"):
        find_boxes(store, ["carpals"], LABELS).complete()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["110001", "110000", "110000"], (3, 2, 6, 3)),  # a sixth as large: a part
        (["1111000000", "1111000000", "1111000001"], (3, 2, 4, 3)),  # a twelfth: a speck
        (["111", "101", "111"], (3, 2, 3, 3)),  # a hole
        (["10", "01"], (3, 2, 2, 2)),  # corners touch: one part
        (["000100"], (6, 2, 1, 1)),
        (["000"], (0, 0, 0, 0)),
        ([""], (0, 0, 0, 0)),
    ],
)
def test_specks_are_no_bone(rows: list[str], expected: tuple[int, ...]) -> None:
    pixels = np.array([[int(c) for c in row] for row in rows], np.uint8).reshape(len(rows), -1)
    assert tight_box(without_specks(CropMask(3, 2, pixels))) == expected


def test_a_mask_without_specks_lies_where_it_lay() -> None:
    plane = np.zeros((30, 20), np.uint8)
    plane[10:20, 5:15] = 1
    expected = plane.copy()
    plane[0, 0] = plane[29, 19] = 1
    found = without_specks(crop(plane))
    np.testing.assert_array_equal(found.full((30, 20)), expected)


def test_images_that_the_first_stage_is_blind_to_are_told(
    zoo: Any, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = list(PredictionStore(work / "test" / "hand").manifest.images)
    store = _store(tmp_path / "s", {keys[0]: (60, 70, 80, 90), keys[1]: None}, (256, 256))
    capsys.readouterr()
    cut = ("--crop", "carpals", "--boxes", store, "--subset", "test")
    zoo("convert", work / "data", "--to", "masks", "--out", tmp_path / "out", *cut)
    assert f"{keys[1]}: {store} sees no carpals; cut out where they lie in" in (
        re.sub(r"\s+", " ", capsys.readouterr().out)
    )
    found = converters.read(tmp_path / "out", labels=LABELS, subset="test")
    assert [s.frame.box_xywh for s in found] == [(60, 70, 80, 90)] * 2


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ((), "expected a box of this image, found none"),
        (("--subset", "test"), "expected a box of this image, found none"),
        (("--split", "split.json", "--fold", "1"), "expected a box of this image, found none"),
    ],
)
def test_images_without_a_prediction_are_not_cut_by_their_truth(
    zoo: Any, further: tuple[str, ...], said: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [work / part if part.endswith(".json") else part for part in further]
    capsys.readouterr()
    _cut(zoo, work, "refused", work / "val" / "hand", *given, code=2)
    assert said in capsys.readouterr().err
    assert not (work / "refused").exists()


def test_predictions_on_a_data_set_of_another_size_are_refused(
    zoo: Any, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = PredictionStore(work / "test" / "hand").manifest.images
    store = _store(tmp_path / "s", dict.fromkeys(keys, (60, 70, 80, 90)), (512, 512))
    _cut(zoo, work, "refused", store, "--subset", "test", code=2)
    said = capsys.readouterr().err
    assert "is (512, 512) there, the image (256, 256)" in said
    record = json.loads((work / "wrist" / "provenance.json").read_text(encoding="utf-8"))
    assert record["config"]["crop"]["first_stage"].endswith("hand")


@pytest.mark.slow
def test_out_of_fold_predictions_on_crops_are_a_source_too(
    zoo: Any, work: Path, tmp_path: Path
) -> None:
    # Boxes come from runs that held their image out, and so do the second stage's predictions.
    data, split = work / "data", work / "split.json"
    folds = ("--split", split, "--folds", "all", *SMALL)
    zoo("train", "smp", "--config", "demo", "--data", data, "--out", tmp_path / "hand", *folds)
    crops = _cut(zoo, work, "wrist_oof", tmp_path / "hand" / "oof")
    zoo("train", "smp", "--config", "demo", "--data", crops, "--out", tmp_path / "wrist", *folds)
    hand, wrist = (PredictionStore(tmp_path / name / "oof") for name in ("hand", "wrist"))
    for first, second in read_together((hand, wrist)):
        assert second.domain_xywh is not None
        assert second.classes == frozenset(CARPALS)
        assert first.domain_xywh is None
    tests = _cut(zoo, work, "tests_again", work / "test" / "hand", "--subset", "test")
    out = tmp_path / "test"
    zoo("predict", tmp_path / "wrist", "--data", tests, "--subset", "test", "--out", out)
    assert set(PredictionStore(out).manifest.classes) == set(CARPALS)
