"""What is told apart by its colour alone: from a folder of images to scores."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import box

import converters
from converters.files.images import has_colors
from converters.splits.split import VERSION, Split
from converters.types import Instance, LabelSpace, Sample
from fusion.sources.store import PredictionStore
from zoo.augmentation.pipeline import Augmentation
from zoo.data.items import SampleItems
from zoo.data.stores import DiskStore, Form, Made
from zoo.data.training_set import TrainingSet
from zoo.data.windows import Windows
from zoo.source import DataSource

LABELS = LabelSpace("paint", ("rust", "moss"))
SIDE = 64
# Red and green of the same grey value, on a ground of it.
COLORS = {"rust": (0, 57, 217), "moss": (60, 125, 60)}
GROUND = (98, 98, 98)


def _draw(folder: Path, number: int) -> Sample:
    generator = np.random.default_rng(number)
    image = np.full((SIDE, SIDE, 3), GROUND, np.uint8)
    instances = []
    for row, name in enumerate(generator.permutation(LABELS.names).tolist()):
        x, y = int(generator.integers(2, 30)), 2 + 32 * row
        image[y : y + 27, x : x + 31] = COLORS[name]
        instances.append(Instance(name, box(x, y, x + 30, y + 26)))
    path = folder / f"wall_{number}.png"
    cv2.imwrite(str(path), image)
    return Sample(path.stem, path, (SIDE, SIDE), tuple(instances), group=path.stem)


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("walls")
    images = folder / "images"
    images.mkdir()
    samples = [_draw(images, number) for number in range(12)]
    converters.write(samples, folder / "coco", format="coco", labels=LABELS)
    keys = [sample.key for sample in samples]
    split = Split(VERSION, 0, "given", (tuple(keys[:4]), tuple(keys[4:])), {k: k for k in keys})
    split.save(folder / "split.json")
    return folder, samples


def test_grey_tells_nothing(walls: tuple[Path, list[Sample]]) -> None:
    """Of what the other tests are about."""
    grey = cv2.imread(str(walls[1][0].image), cv2.IMREAD_GRAYSCALE)
    assert np.ptp(grey) <= 2


def test_radiographs_in_three_channels_are_grey() -> None:
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (64, 64, 1), np.uint8)
    noisy = np.clip(grey + generator.integers(-5, 6, (64, 64, 3)), 0, 255).astype(np.uint8)
    stain = np.full((64, 64, 3), (180, 90, 160), np.uint8)
    assert not has_colors(np.repeat(grey, 3, axis=2))
    assert not has_colors(noisy)
    assert has_colors(stain)


@pytest.mark.parametrize("with_windows", [False, True])
def test_a_training_set_shows_red_green_and_blue(
    walls: tuple[Path, list[Sample]], with_windows: bool, tmp_path: Path
) -> None:
    samples = walls[1]
    steps = [{"name": "CutMix", "p": 1.0}, {"name": "HorizontalFlip", "p": 0.5}]
    augment = Augmentation(steps, LABELS)
    windows = Windows((32, 32), LABELS, {"rust": 1.0}) if with_windows else None
    data = TrainingSet(SampleItems(samples, LABELS, 3), (SIDE, SIDE), augment, 0, windows=windows)
    image, mask = data[0, 3]
    assert image.shape == (3, *(windows.size_hw if windows else (SIDE, SIDE)))
    for number, name in enumerate(LABELS.names):
        inside = (mask[0].numpy() >> number & 1) > 0
        blue, green, red = COLORS[name]
        shown = np.median(image.numpy()[:, inside], axis=1) if inside.any() else None
        assert shown is None or shown.tolist() == [red, green, blue]
    made = Made(SampleItems(samples, LABELS, 3), Form((SIDE, SIDE)))
    kept = DiskStore(made, tmp_path)
    for _ in range(2):  # written, then read
        assert np.array_equal(kept[1].image, made[1].image)
    # Grey and colour share a folder, and are not taken for each other.
    grey = DiskStore(Made(SampleItems(samples, LABELS), Form((SIDE, SIDE))), tmp_path)
    assert grey[1].image.ndim == 2


def _config(family: str, folder: Path, **further: Any) -> Path:
    path = folder / f"{family}-{len(list(folder.iterdir()))}.yaml"
    common = {"size": [SIDE, SIDE], "epochs": 20, "batch": 4, "validate_every": 10, "device": "cpu"}
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
    raw = common | own | {"optim": {"lr": 5e-3, "warmup_steps": 2}} | further
    path.write_text(yaml.safe_dump(raw))
    return path


def _last_dice(run: Path) -> float:
    with (run / "metrics.csv").open() as file:
        return max(float(row["val_dice"]) for row in csv.DictReader(file) if row["val_dice"])


@pytest.mark.slow
@pytest.mark.learns
@pytest.mark.parametrize("family", ["smp", "segformer"])
def test_colours_are_taken_from_the_data(
    family: str,
    zoo: Callable[..., None],
    walls: tuple[Path, list[Sample]],
    tmp_path: Path,
    exceeds: Any,
) -> None:
    folder, _ = walls
    config = _config(family, tmp_path)
    split = ("--split", folder / "split.json", "--fold", 0)
    train = ("train", family, "--config", config, "--data", folder / "coco", *split)
    zoo(*train, "--out", tmp_path / "colour")
    zoo(*train, "--out", tmp_path / "grey", "in_channels=1")
    written = yaml.safe_load((tmp_path / "colour" / "config.yaml").read_text())
    assert written["in_channels"] == 3
    found, grey = _last_dice(tmp_path / "colour"), _last_dice(tmp_path / "grey")
    exceeds("Dice in colour", found, 0.8)
    exceeds("more than in grey", found - grey, 0.2)
    zoo("predict", tmp_path / "colour", "--data", folder / "coco", "--out", tmp_path / "store")
    store = PredictionStore(tmp_path / "store")
    assert len(list(store)) == 4


def test_augmented_copies_keep_their_colours(
    zoo: Callable[..., None], walls: tuple[Path, list[Sample]], tmp_path: Path
) -> None:
    folder, _ = walls
    config = _config("smp", tmp_path, augment=[{"name": "HorizontalFlip", "p": 1.0}])
    made = ("--config", config, "--out", tmp_path / "more", "--copies", 1, "--to", "coco")
    zoo("augment", "smp", "--data", folder / "coco", *made)
    found = DataSource.open(tmp_path / "more").read(LABELS)
    copies = [s for s in found if s.key.endswith("-aug1")]
    assert len(copies) == 12
    assert {tuple(c) for s in copies for c in cv2.imread(str(s.image)).reshape(-1, 3)} == {
        *COLORS.values(),
        GROUND,
    }
