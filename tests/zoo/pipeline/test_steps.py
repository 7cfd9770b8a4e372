"""The graph of a recipe: complete, in order, and of commands that exist as they are called."""

import pytest
import typer.main

import configs
from zoo.cli import app
from zoo.pipeline.recipe import KIND, Recipe
from zoo.pipeline.steps import Builder, DataFacts

UNET = {"family": "smp", "config": "laptop"}
ALL = {
    "phantom": {"people": 4},
    "labels": "hand_bones",
    "broken": "skip",
    "split": {"folds": 2, "strategy": "stratified", "group_by": "folder"},
    "formats": ["masks"],
    "models": {
        "unet": {**UNET, "changes": {"epochs": 2}, "predict": {"tta": ["hflip"], "window": 128}},
        "former": {"family": "segformer", "config": "laptop"},
    },
    "second_stages": {"wrist": {**UNET, "of": "unet", "crop": ["carpals"], "margin": 8}},
    "fusion": {"objective": "shared"},
    "outputs": ["coco"],
}
TESTED, UNTESTED = DataFacts(True, True), DataFacts(False, False)


def steps(tmp_path, facts=TESTED, **keys):
    recipe = Recipe.model_validate({**ALL, **keys})
    return Builder(recipe, tmp_path / "out", facts).steps()


def one_fold(**keys):
    models = {name: {**model, "folds": 1} for name, model in ALL["models"].items()}
    stages = {name: {**model, "folds": 1} for name, model in ALL["second_stages"].items()}
    models["yolo"] = {"family": "yolo", "config": "laptop", "format": "yolo", "folds": 1}
    return {"models": models, "second_stages": stages, **keys}


CASES = {
    "all folds": {},
    "one fold": one_fold(),
    "pseudo labels": {"pseudo": {"rounds": 2}},
    "own rule": {"fusion": {"config": "staple"}},
    "one model": {"second_stages": {}, "models": {"unet": UNET}},
}


@pytest.mark.parametrize("facts", [TESTED, UNTESTED], ids=["tested", "untested"])
@pytest.mark.parametrize("name", CASES)
def test_every_command_is_one_that_zoo_takes(name, facts, tmp_path):
    if "pseudo" in CASES[name] and not facts.has_test:
        pytest.skip("nothing to label")
    group = typer.main.get_command(app)
    found = steps(tmp_path, facts, **CASES[name])
    for step in found.values():
        words = step.command(found)
        if words and not words[0].startswith("@"):
            # Raises where an option is unknown, or a value of the wrong type.
            group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("name", CASES)
def test_what_a_step_waits_for_comes_before_it(name, tmp_path):
    before = set()
    for step in steps(tmp_path, **CASES[name]).values():
        assert set(step.waits_for) <= before
        before.add(step.name)


@pytest.mark.parametrize("name", CASES)
def test_no_two_steps_make_the_same(name, tmp_path):
    made = [path for step in steps(tmp_path, **CASES[name]).values() for path in step.makes]
    assert len(made) == len(set(made))


@pytest.mark.parametrize("name", CASES)
def test_what_a_command_names_in_the_folder_is_made_before(name, tmp_path):
    found = steps(tmp_path, **CASES[name])
    out = str(tmp_path / "out")
    for step in found.values():
        waited = _all_before(step, found)
        there = [path for other in waited for path in found[other].makes]
        there += step.makes
        for word in step.command(found):
            if word.startswith(out):
                # The folder of all folds is that of each.
                assert any(str(path).startswith(word) or word == str(path) for path in there), (
                    step.name,
                    word,
                )


def _all_before(step, found):
    before = set(step.waits_for)
    for name in step.waits_for:
        before |= _all_before(found[name], found)
    return before


def test_a_source_that_failed_is_not_in_the_command(tmp_path):
    found = steps(tmp_path)
    command = found["fit"].command({"model former", "split"})
    assert command[:2] == ["fit", str(tmp_path / "out" / "val" / "former")]
    assert command[2] == "--data"


def test_every_fold_is_trained(tmp_path):
    found = steps(tmp_path)
    assert {"train unet 0", "train unet 1", "train wrist 0", "train wrist 1"} <= found.keys()


def test_pseudo_labels_need_images_to_label(tmp_path):
    with pytest.raises(ValueError, match="found none to learn from"):
        steps(tmp_path, UNTESTED, pseudo={})


def test_pseudo_labels_are_learned_by_first_stages(tmp_path):
    found = steps(tmp_path, pseudo={"floor": 0.7})
    label = found["round 1 label"]
    assert label.words[label.words.index("--floor") + 1] == "0.7"
    learning = {name for name, step in found.items() if "--also" in step.words}
    assert learning == {f"round 1 train {m} {f}" for m in ("unet", "former") for f in (0, 1)}


@pytest.mark.parametrize("name", sorted(configs.names(KIND)))
def test_a_shipped_recipe_is_of_configs_and_commands_that_exist(name, tmp_path):
    recipe = Recipe.load(name)
    if not recipe.phantom:
        recipe = recipe.model_copy(update={"data": "data"})
    group = typer.main.get_command(app)
    found = Builder(recipe, tmp_path / "out", TESTED).steps()
    for step in found.values():
        words = step.command(found)
        if words and not words[0].startswith("@"):
            group.commands[words[0]].make_context(words[0], words[1:])
    for model in recipe.all_models.values():
        configs.find(model.family, model.config)
    header = configs.find(KIND, name).read_text(encoding="utf-8")
    assert header.startswith("# ")
