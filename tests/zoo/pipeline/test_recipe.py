"""Recipes: what is refused, and that they mean the same from wherever they are read."""

import pytest

from zoo.pipeline.recipe import Recipe

UNET = {"family": "smp", "config": "laptop"}


def write(folder, text):
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def recipe(**keys):
    return Recipe.model_validate({"data": "chest", "models": {"unet": UNET}, **keys})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: a\nphantom: {}\nmodels: {u: {family: smp, config: x}}", "found both"),
        ("data: a\nmodels: {}", "models"),
        ("data: a\nmodels: {u: {family: smpp, config: x}}", "'models.u.family': expected one of"),
        ("data: a\nmodel: {}\nmodels: {u: {family: smp, config: x}}", "unknown key 'model'"),
        ("data: a\nmodels: {a/b: {family: smp, config: x}}", "names of letters"),
        (
            "data: a\nmodels: {u: {family: smp, config: x, folds: 0}, v: {family: smp, config: x}}",
            "the same folds",
        ),
        ("data: a\nmodels: {u: {family: smp, config: x, format: masks}}", "one fold"),
        (
            "data: a\nmodels: {u: {family: smp, config: x}}\nsecond_stages: {w: "
            "{of: v, crop: [carpals], family: smp, config: x}}",
            "expected a model or an earlier second stage (u), found 'v'",
        ),
        ("data: a\nfusion: {objective: beauty}\nmodels: {u: {family: smp, config: x}}", "beauty"),
        ("- a\n", "mine.yaml"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(text, expected, tmp_path):
    with pytest.raises(ValueError, match=r"mine\.yaml") as error:
        Recipe.load(write(tmp_path, text))
    assert expected in str(error.value)


def test_changes_become_words():
    model = recipe(
        models={"unet": {**UNET, "changes": {"epochs": 3, "size": [64, 64], "optim": {"lr": 0.1}}}}
    ).models["unet"]
    assert model.words() == ["epochs=3", "size=[64, 64]", "optim.lr=0.1"]


def test_places_are_those_of_the_recipe_s_own_folder(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    text = "data: ../chest\nmodels: {u: {family: smp, config: mine.yaml}}\n"
    found = Recipe.load(write(folder, text))
    assert found.data == str(tmp_path / "chest")
    assert found.models["u"].config == str(folder / "mine.yaml")


def test_a_recipe_that_is_kept_elsewhere_means_the_same(tmp_path):
    first = Recipe.load(
        write(tmp_path, "data: chest\nedits: fix.yaml\nmodels: {u: {family: smp, config: laptop}}")
    )
    other = tmp_path / "deep" / "run"
    other.mkdir(parents=True)
    assert Recipe.load(write(other, first.seen_from(other).dumps())) == first
