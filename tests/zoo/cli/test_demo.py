"""The demo itself, with fewer people and smaller images."""

import csv
import json

import pytest

from zoo.cli import demo
from zoo.pipeline.recipe import Phantom, Recipe, SplitPlan

pytestmark = [pytest.mark.slow, pytest.mark.long]

pytest.importorskip("ultralytics")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    whole = Recipe.load(demo.RECIPE)
    smaller = {
        "phantom": Phantom(people=4, test_people=2, size=256),
        "split": SplitPlan(folds=2),
    }
    text = demo.run_demo(out, 1, whole.model_copy(update=smaller))
    return out, text


@pytest.mark.timeout(900)
def test_the_table_has_every_source_and_rule(finished):
    _, text = finished
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert rows[:7] == ["Dice", "smp", "segformer", "yolo", "mean", "vote", "hybrid"]


def test_the_submission_covers_the_test_images(finished):
    out, _ = finished
    with (out / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 29


@pytest.mark.learns
def test_the_shipped_weights_know_hands(finished, exceeds):
    out, _ = finished
    scores = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    exceeds("Dice", min(entry["dice"] for entry in scores.values()), 0.6)


def test_the_submission_is_the_hybrid_s(finished):
    out, _ = finished
    submitted = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    compared = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert submitted["dice"] == compared["hybrid"]["dice"]


def test_the_report_stands_alone(finished):
    out, _ = finished
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "hybrid" in page


def test_fusion_was_fitted_on_images_that_nobody_learnt_from(finished):
    out, _ = finished
    manifests = [json.loads((p / "manifest.json").read_text()) for p in (out / "val").iterdir()]
    assert {m["subset"] for m in manifests} == {"val"}
    assert len({m["split"] for m in manifests}) == 1
    fitted = {key for m in manifests for key, *_ in m["images"]}
    split = json.loads((out / "split.json").read_text(encoding="utf-8"))
    assert fitted == set(split["folds"][0]["val"])
