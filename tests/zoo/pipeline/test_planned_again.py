"""A data set that was planned for before: what is asked now counts, and what was asked stays."""

from pathlib import Path

import pytest

import converters
from converters.files.provenance import write_provenance
from converters.splits.grouping import group_by
from converters.splits.split import make_split
from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.pipeline import command
from zoo.pipeline import plan as planning
from zoo.pipeline.command import PlanOptions
from zoo.pipeline.pipeline import KIND, RECIPE
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.survey.rates import Cost

pytestmark = pytest.mark.slow

pytest.importorskip("torch")

BY = "(ID[0-9]+)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_phantom(Path("data"), PhantomConfig(people=3, test_people=1, size=256))
    monkeypatch.setattr(planning, "cost_of", lambda *given: Cost(0.5, 1e9))
    return tmp_path


def find(**given):
    """What is found for the data set, kept as `zoo run` keeps it; and what is said of it."""
    lines = []
    recipe, place, _ = command._find("data", None, PlanOptions(**given), lines.append)
    place.mkdir(exist_ok=True)
    if not (place / "provenance.json").is_file():
        write_provenance(place, ["zoo", "run"], kind=KIND)
    (place / RECIPE).write_text(recipe.seen_from(place).dumps(), encoding="utf-8")
    return Recipe.load(str(place / RECIPE)), lines


def test_a_plan_is_taken_where_nothing_else_is_asked(folder):
    first, _ = find(hours=2, group_by=BY, seed=4, labels="Radius,Ulna")
    for given in ({}, {"seed": 4}, {"group_by": BY}, {"hours": 2, "labels": "Radius,Ulna"}):
        again, lines = find(**given)
        assert lines == [f"taken: recipe {Path('data-run', RECIPE)}, planned before"]
        assert again == first


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"group_by": "folder"}, "--group-by"),
        ({"labels": "Radius"}, "--labels"),
        ({"seed": 5}, "--seed"),
        ({"hours": 3.0}, "--hours"),
        ({"broken": "skip"}, "--broken"),
    ],
)
def test_what_is_asked_anew_is_planned_anew_and_the_rest_stays(folder, given, option):
    before = {"hours": 2.0, "group_by": BY, "seed": 4, "labels": "Radius,Ulna"}
    find(**before)
    recipe, lines = find(**given)
    assert lines[0] == f"planned anew, for {option} differs from {Path('data-run', RECIPE)}"
    wanted = {"broken": "refuse", **before, **given}
    found = {key: getattr(recipe, key) for key in ("hours", "seed", "labels", "broken")}
    assert {**found, "group_by": recipe.split.group_by} == wanted


def test_on_paper_another_machine_has_its_own_hours_and_the_rest_stays(folder):
    find(hours=2.0, group_by=BY, labels="Radius,Ulna")
    given = PlanOptions(machine="1xV100")
    recipe, _, profile = command._find("data", None, given, lambda line: None)
    assert recipe.hours is None
    assert (recipe.split.group_by, recipe.labels) == (BY, "Radius,Ulna")
    # Six images with two bones each.
    assert profile.objects == 12


def test_groups_of_a_table_stay_the_same_by_whatever_path(folder):
    names = sorted(path.stem for path in Path("data").rglob("*.png"))
    table = Path("people.csv")
    rows = [f"{name},{number // 2}" for number, name in enumerate(names)]
    table.write_text("\n".join(["name,who", *rows]))
    find(group_by="people.csv:who")
    _, lines = find(group_by=f"{table.absolute()}:who")
    assert lines[0].startswith("taken: ")


def test_a_split_beside_the_data_says_whose_an_image_is(folder):
    samples = group_by(converters.read("data"), BY)
    make_split(samples, folds=3).save(Path("data/split.json"))
    first, lines = find()
    assert not any("no patient is known" in line for line in lines)
    again, lines = find(group_by=BY)
    assert lines[0].startswith("taken: ")
    assert again == first
    with pytest.raises(ValueError, match=r"--group-by \(image.*split\.json, which is taken"):
        find(group_by="(image[0-9]+)")
