"""Classes of which a pixel has one, the whole way: painted, learned by softmax, scored by mIoU."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import box

import converters
from converters.masks import class_masks
from converters.splits.split import VERSION, Split
from converters.types import PAINTED, Instance, LabelSpace, Sample

NAMES = ("ground", "bag", "can", "cap")
LABELS = LabelSpace("litter", NAMES, background="ground", exclusive="large_first")
SIDE = 64
COLORS = {"bag": (40, 90, 200), "can": (190, 170, 40), "cap": (60, 200, 80)}


def _draw(folder: Path, number: int) -> Sample:
    """A bag with a can on it, and a cap on that; annotated whole, the smallest first."""
    generator = np.random.default_rng(number)
    x, y = generator.integers(0, 16, 2).tolist()
    places = {"bag": (x, y, 44, 44), "can": (x + 8, y + 8, 28, 28), "cap": (x + 14, y + 14, 13, 13)}
    image = generator.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
    for name, (left, top, width, height) in places.items():
        image[top : top + height, left : left + width] = COLORS[name]
    instances = tuple(
        Instance(name, box(left, top, left + width - 1, top + height - 1))
        for name, (left, top, width, height) in reversed(places.items())
    )
    path = folder / f"litter_{number}.png"
    cv2.imwrite(str(path), image)
    return Sample(path.stem, path, (SIDE, SIDE), instances, group=path.stem)


@pytest.fixture(scope="module")
def litter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("litter")
    (folder / "images").mkdir()
    samples = [_draw(folder / "images", number) for number in range(12)]
    LABELS.save(folder / "litter.yaml")
    converters.write(samples, folder / "coco", format="coco", labels=LABELS)
    keys = [sample.key for sample in samples]
    Split(VERSION, 0, "given", (tuple(keys[:4]), tuple(keys[4:])), {k: k for k in keys}).save(
        folder / "split.json"
    )
    return folder, samples


# --- painting


@pytest.mark.parametrize("order", PAINTED)
def test_a_pixel_has_one_label(order: Any, litter: tuple[Path, list[Sample]]) -> None:
    sample = litter[1][0]
    labels = replace(LABELS, exclusive=order)
    masks = class_masks(sample.instances, sample.size_hw, labels)
    plane = sum(mask.full(sample.size_hw).astype(int) for mask in masks.values())
    assert (plane == 1).all()
    areas = {name: mask.area for name, mask in masks.items()}
    if order == "as_annotated":  # the bag comes last, and hides the others
        assert areas == {"ground": SIDE**2 - 44**2, "bag": 44**2}
    else:
        expected = {"ground": SIDE**2 - 44**2, "bag": 44**2 - 28**2, "can": 28**2 - 13**2}
        assert areas == expected | {"cap": 13**2}


def test_classes_order_is_not_that_of_size(litter: tuple[Path, list[Sample]]) -> None:
    sample = litter[1][0]
    turned = LabelSpace("litter", NAMES[::-1], exclusive="by_class")
    masks = class_masks(sample.instances, sample.size_hw, turned)
    assert {name: mask.area for name, mask in masks.items()} == {"bag": 44**2}


def test_an_unknown_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nnames: [a, b]\nexclusive: smallest\n")
    with pytest.raises(ValueError, match=r"mine.yaml: .*exclusive: expected one of large_first"):
        LabelSpace.load(str(path))
    path.write_text("name: mine\nnames: [a, b]\nexclusive: true\n")
    assert LabelSpace.load(str(path)).exclusive == "large_first"
    path.write_text("name: mine\nnames: [a, b]\nexclusive: 3\n")
    with pytest.raises(ValueError, match="'exclusive': expected true, or one of large_first"):
        LabelSpace.load(str(path))


def test_index_maps_lose_nothing(litter: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    """Where a pixel has one label anyway; where classes may share pixels they lose the overlaps."""
    samples = litter[1]
    kept = converters.write(samples, tmp_path / "a", format="masks", layout="index", labels=LABELS)
    assert not kept
    free = replace(LABELS, exclusive=None)
    lost = converters.write(samples, tmp_path / "b", format="masks", layout="index", labels=free)
    assert lost.shared_px > 0
    back = converters.read(tmp_path / "a")
    assert converters.label_space(tmp_path / "a") == LABELS
    by_key = {sample.key: sample for sample in samples}
    for after in back:
        before = by_key[after.key]
        ours, theirs = (class_masks(s.instances, s.size_hw, LABELS) for s in (before, after))
        assert ours.keys() == theirs.keys()
        for name, mask in ours.items():
            assert np.array_equal(mask.full((SIDE, SIDE)), theirs[name].full((SIDE, SIDE)))


# --- learning


def _config(family: str, path: Path) -> Path:
    own = {
        "smp": {"encoder": "tu-lcnet_035", "options": {"decoder_channels": [32, 24, 16, 16, 8]}},
        "segformer": {
            "network": {
                "hidden_sizes": [8, 16, 32, 32],
                "depths": [1, 1, 1, 1],
                "num_attention_heads": [1, 2, 2, 2],
                "decoder_hidden_size": 32,
            }
        },
    }[family]
    raw = {
        "size": [SIDE, SIDE],
        "epochs": 25,
        "batch": 4,
        "validate_every": 25,
        "device": "cpu",
        "loss": {"ce": 0.5, "dice": 0.5},
        "optim": {"lr": 5e-3, "warmup_steps": 2},
    }
    path.write_text(yaml.safe_dump(raw | own))
    return path


@pytest.mark.slow
@pytest.mark.learns
@pytest.mark.parametrize("family", ["smp", "segformer"])
def test_from_coco_to_a_submission(
    family: str,
    zoo: Callable[..., None],
    litter: tuple[Path, list[Sample]],
    tmp_path: Path,
    exceeds: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = litter
    config = _config(family, tmp_path / "config.yaml")
    data = ("--data", folder / "coco")
    split = ("--split", folder / "split.json", "--fold", 0)
    run, store = tmp_path / "run", tmp_path / "store"
    zoo("train", family, "--config", config, *data, *split, "--out", run)
    with (run / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    # SegFormer's logits have a quarter of 64 pixels.
    exceeds("mIoU", float(row["val_miou"]), {"smp": 0.7, "segformer": 0.4}[family])
    assert float(row["val_miou"]) < float(row["val_dice"])
    zoo("predict", run, *data, "--out", store)
    scores = tmp_path / "scores.json"
    zoo("evaluate", store, *data, "--json", scores)
    found = json.loads(scores.read_text())["miou"]
    # What training said, by another way.
    assert found["overall"] == pytest.approx(float(row["val_miou"]), abs=1e-5)
    assert set(found["classes"]) == set(NAMES)
    zoo("fuse", store, "--out", tmp_path / "fused.csv")
    again = tmp_path / "again.json"
    zoo("evaluate", tmp_path / "fused.csv", *data, "--subset", "all", "--json", again, code=2)
    with (tmp_path / "fused.csv").open() as file:
        assert {r["class"] for r in csv.DictReader(file)} == set(NAMES)
    zoo("train", family, "--config", config, *data, *split, "labels=hand_bones", code=2)
    assert "loss.ce: expected a label space of which a pixel has one" in capsys.readouterr().err
