"""The graph of a recipe: complete, in order, and of commands that exist as they are called."""

from dataclasses import replace
from pathlib import Path

import pytest
import typer.main

import configs
from zoo.cli import app
from zoo.config import check_config
from zoo.pipeline.execution import lacking
from zoo.pipeline.pipeline import Pipeline, check_models
from zoo.pipeline.recipe import KIND, Recipe
from zoo.pipeline.steps import Builder
from zoo.pipeline.survey.facts import DataFacts

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
    "a refiner": {"refiner": True},
    "a refiner in each round": {"refiner": True, "pseudo": {"rounds": 1}},
    "the data set's own division": {"split": {"strategy": "given"}},
    "one model": {"second_stages": {}, "models": {"unet": UNET}},
}


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_the_data_set_s_own_division_is_one_fold(tmp_path):
    found = steps(tmp_path, split={"strategy": "given"})
    assert [name for name in found if name.startswith("train unet")] == ["train unet 0"]
    assert "given" in found["split"].command(found)
    found = steps(tmp_path, replace(TESTED, own_folds=3), split={"strategy": "given"})
    assert {f"train unet {fold}" for fold in range(3)} <= found.keys()


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
    check_models(recipe)
    header = configs.find(KIND, name).read_text(encoding="utf-8")
    assert header.startswith("# ")


def test_a_refiner_learns_from_all_others_and_is_fused_with_them(tmp_path):
    found = steps(tmp_path, refiner=True)
    out = tmp_path / "out"
    others = ("unet", "former", "wrist")
    training = found["train refiner 1"]
    assert (
        training.command(found)[-1] == f"sources=[{','.join(str(out / 'val' / o) for o in others)}]"
    )
    assert training.command({"model unet"})[-1] == f"sources=[{out / 'val' / 'unet'}]"
    assert set(training.sources) == {f"model {name}" for name in others}
    answering = found["predict refiner test"].command({"model unet", "model former"})
    assert answering[-1] == f"--sources={out / 'test' / 'unet'},{out / 'test' / 'former'}"
    assert not any("sources" in word for word in found["predict refiner val"].command(found))
    assert "model refiner" in found["fit"].sources
    assert "model refiner" in found["fuse"].sources


def test_without_any_model_there_is_no_refiner(tmp_path):
    found = steps(tmp_path, refiner=True)
    assert lacking(found["train refiner 0"], {"split", "phantom"}) != ()
    assert lacking(found["train refiner 0"], {"split", "phantom", "model unet"}) == ()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"refiner": {"folds": 1}}, "expected none: it learns in all folds"),
        ({"refiner": {"family": "smp"}}, "expected refiner, found 'smp'"),
        ({"refiner": {"changes": {"sources": ["x"]}}}, "its sources are the recipe's models"),
        ({"refiner": True, **one_fold()}, "expected models of all folds"),
        ({"refiner": True, "models": {"refiner": UNET}, "second_stages": {}}, "is the name of"),
    ],
)
def test_a_refiner_that_cannot_be_is_refused(keys, found):
    with pytest.raises(ValueError, match=found):
        Recipe.model_validate({**ALL, **keys})


def test_no_refiner_is_none():
    assert Recipe.model_validate({**ALL, "refiner": False}).refiner is None


def test_what_is_read_beside_the_data_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patients.csv").write_text("name,patientid\n", encoding="utf-8")
    (tmp_path / "rule.yaml").write_text("x", encoding="utf-8")
    found = steps(
        tmp_path,
        phantom=None,
        data="data",
        test="new",
        split={"folds": 2, "group_by": "patients.csv:patientid"},
        fusion={"config": "rule.yaml"},
    )
    assert Path("patients.csv") in found["split"].reads
    assert Path("rule.yaml") in found["fuse"].reads
    assert all(Path("new") in found[name].reads for name in ("check", "predict unet test"))


def test_a_model_of_several_devices_trains_on_as_many(tmp_path):
    models = {
        "one": {"family": "smp", "config": "laptop"},
        "two": {"family": "smp", "config": "laptop", "changes": {"devices": 2}},
    }
    recipe = check_config(Recipe, {"data": "data", "models": models}, "test")
    steps = Pipeline.open(recipe, tmp_path / "out", DataFacts(True, False)).steps
    assert {steps[f"train one {fold}"].devices for fold in range(3)} == {1}
    assert {steps[f"train two {fold}"].devices for fold in range(3)} == {2}
    assert steps["predict two val"].devices == 1


def test_what_a_network_cannot_be_shown_is_said_before_it_trains():
    beit = {"family": "nets", "config": "waste_upernet_beit_base_640"}
    models = {"beit": {**beit, "predict": {"tta": ["hflip", "scale:0.75"]}}}
    recipe = check_config(Recipe, {"data": "data", "models": models}, "test")
    with pytest.raises(
        ValueError, match=r"model 'beit': images of 480 x 480 .* \[640, 640\] alone"
    ):
        check_models(recipe)


@pytest.mark.parametrize(
    ("crop", "found"),
    [("carpal", "did you mean 'carpals'?"), ("nonsense", "found 'nonsense'"), ("Ulna", "")],
)
def test_a_crop_of_no_class_is_told_before_anything_trains(crop, found, tmp_path):
    stage = {**ALL["second_stages"]["wrist"], "crop": [crop]}
    recipe = Recipe.model_validate({**ALL, "second_stages": {"wrist": stage}})
    if not found:
        assert Pipeline.open(recipe, tmp_path / "out").steps
        return
    with pytest.raises(ValueError, match="second stage 'wrist': crop: expected classes") as told:
        Pipeline.open(recipe, tmp_path / "out")
    assert found in str(told.value)
