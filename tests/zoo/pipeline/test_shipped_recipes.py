"""Shipped recipes as a whole: their own graphs, families and fusions, of small networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from shapely.geometry import box
from small_networks import shrink

import configs
import converters
from converters.types import Instance, LabelSpace, Sample

pytestmark = [pytest.mark.slow, pytest.mark.long]

pytest.importorskip("ultralytics")

# Of recipes that name no data, and need sizes for a V100.
RECIPES = ["soft_vote", "two_stage_ensemble", "vote", "focal_and_dice", "waste_pseudo_labels"]
SMALL = {"size": [64, 96], "epochs": 1, "batch": 2, "accumulate": 1, "workers": 0}
SMALL |= {"device": "cpu", "cache": "none", "validate_every": 1}
YOLO = {"model": "yolo11n-seg.yaml", "depth": 0.33, "width": 0.125, "max_channels": 128}
YOLO |= {"init": None, "imgsz": 96, "epochs": 1, "batch": 2, "workers": 0, "device": "cpu"}
SIZE_HW = (96, 128)


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--recipes"):
        pytest.skip("pytest --recipes runs it")


def small_config(family: str, name: str, folder: Path) -> str:
    """Write a shipped config of the same kind of network, but small; return the file."""
    raw = yaml.safe_load(configs.find(family, name).read_text(encoding="utf-8"))
    if family == "yolo":
        small = {**raw, **YOLO}
    else:
        small = {**raw, **SMALL, **shrink(family, raw)}
        if "channels" in raw:
            small["channels"] = raw["channels"]
    path = folder / f"{family}-{name}.yaml"
    path.write_text(yaml.safe_dump(small), encoding="utf-8")
    return str(path)


def small_recipe(name: str, data: Path, folder: Path) -> Path:
    recipe = yaml.safe_load(configs.find("recipes", name).read_text(encoding="utf-8"))
    for models in (recipe["models"], recipe.get("second_stages", {})):
        for model in models.values():
            model["config"] = small_config(model["family"], model["config"], folder)
    recipe["split"]["folds"] = 2
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"data": str(data), **recipe}), encoding="utf-8")
    return path


def waste(folder: Path) -> Path:
    """Colour pictures of two kinds of waste, some of which nobody has annotated."""

    def samples() -> Iterator[Sample]:
        generator = np.random.default_rng(0)
        for number in range(10):
            pixels = generator.integers(0, 90, (*SIZE_HW, 3), np.uint8)
            shapes = []
            for label, colour in (("Paper", (200, 200, 180)), ("Glass", (40, 180, 60))):
                x, y = generator.integers(2, 50, 2).tolist()
                pixels[y : y + 40, x : x + 40] = colour
                shapes.append(Instance(label, box(x, y, x + 39, y + 39)))
            key = f"{'test/' if number > 6 else ''}{number}"
            path = folder / f"{number}.png"
            cv2.imwrite(str(path), pixels)
            yield Sample(key, path, SIZE_HW, () if number > 6 else tuple(shapes))

    found = list(samples())
    converters.write(found, folder / "waste", format="coco", labels=LabelSpace.load("waste"))
    return folder / "waste"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_runs_as_a_whole(name: str, tmp_path: Path) -> None:
    def zoo(*words: object) -> str:
        command = [sys.executable, "-m", "zoo", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    if name.startswith("waste"):
        data = waste(tmp_path)
    else:
        data = tmp_path / "data"
        zoo("phantom", data, "--people", 3, "--test-people", 1, "--size", 256)
    recipe = small_recipe(name, data, tmp_path)
    out = tmp_path / "out"
    zoo("run", recipe, "--out", out)
    states = {path.stem: json.loads(path.read_text()) for path in (out / "steps").glob("*.json")}
    assert {state["state"] for state in states.values()} == {"done"}
    assert (out / "submission.csv").is_file()
    assert (out / "fusion.yaml").is_file()
    plan: Any = yaml.safe_load(recipe.read_text())
    models: dict[str, Any] = {**plan["models"], **plan.get("second_stages", {})}
    assert set(models) <= {path.name for path in (out / "runs").iterdir()}
    # Given again there is nothing left to do.
    again = zoo("run", recipe, "--out", out, "--dry-run").splitlines()
    assert sum(line.startswith("done ") for line in again) == len(states)
