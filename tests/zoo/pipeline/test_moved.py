"""A pipeline that lies elsewhere, or is called by another path, is done as before."""

import os
import shutil
from pathlib import Path

import pytest

from zoo.pipeline.pipeline import KIND, RECIPE, Pipeline, check_folder
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.record import Digests, History
from zoo.pipeline.steps import Builder
from zoo.pipeline.survey.facts import DataFacts

pytestmark = pytest.mark.slow

# Names everything by files that a recipe can name by files.
NAMING_FILES = """
data: smp
test: val
edits: mend.yaml
labels: classes.yaml
split: {folds: 2, group_by: patients.csv:patient}
models:
  unet: {family: smp, config: own.yaml, changes: {init: old.safetensors}}
second_stages:
  wrist: {of: unet, crop: [a], family: smp, config: demo, enlarger: large.onnx}
refiner: true
pseudo: {rounds: 1}
fusion: {config: rule.yaml}
outputs: [coco]
"""
PHANTOM = """
phantom: {people: 4}
split: {folds: 2}
models:
  smp: {family: smp, config: demo}
"""
FILES = (
    *("smp/a.png", "val/b.png", "mend.yaml", "classes.yaml", "patients.csv", "old.safetensors"),
    *("large.onnx", "rule.yaml"),
)


def open_pipeline(recipe, out):
    chosen = Recipe.load(str(recipe))
    builder = Builder(chosen, out, DataFacts(True, True))
    history = History(out, builder.data, Digests(None, out))
    return Pipeline(chosen, out, builder.steps(), history)


def carry_out(pipeline):
    made = {}
    for name, step in pipeline.steps.items():
        key = pipeline.history.key(step, made)
        made[name] = key
        if step.words:
            begun = pipeline.history.begin(step, key, step.command(made))
            for path in step.makes:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{pipeline.out.name} {name}", encoding="utf-8")
            made[name] = pipeline.history.end(step, begun, 0.0, None).made
    text = pipeline.recipe.seen_from(Path(os.path.realpath(pipeline.out))).dumps()
    (pipeline.out / RECIPE).write_text(text, encoding="utf-8")


def undone(recipe, out):
    return {
        name: state for name, state in open_pipeline(recipe, out).state().items() if state != "done"
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a folder in which a recipe that names all by files was carried out, into `demo`."""
    folder = tmp_path / "project"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    (folder / "own.yaml").write_text("init: old.safetensors\n", encoding="utf-8")
    (folder / "toy.yaml").write_text(NAMING_FILES, encoding="utf-8")
    monkeypatch.chdir(folder)
    carry_out(open_pipeline(Path("toy.yaml"), Path("demo")))
    assert undone(Path("toy.yaml"), Path("demo")) == {}
    return folder


def test_a_relative_path_and_a_whole_one_are_the_same(project, monkeypatch):
    assert undone(project / "toy.yaml", project / "demo") == {}
    monkeypatch.chdir(project.parent)
    assert undone(Path("project/toy.yaml"), Path("project/demo")) == {}
    assert undone(Path("project/demo") / RECIPE, Path("project/demo")) == {}
    monkeypatch.chdir(project / "demo")
    assert undone(Path(RECIPE), Path()) == {}


@pytest.mark.parametrize("move", [os.rename, shutil.copytree])
def test_all_of_it_may_be_moved(move, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far").mkdir()
    move(project, tmp_path / "far" / "other")
    shutil.rmtree(project, ignore_errors=True)
    other = Path("far/other")
    assert undone(other / "toy.yaml", other / "demo") == {}
    assert undone(other / "demo" / RECIPE, other / "demo") == {}


def test_it_may_be_called_by_a_link(project, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    link = tmp_path / "deep" / "er" / "link"
    link.symlink_to(project / "demo")
    # Its data set lies beside what the link leads to, not beside the link.
    assert undone(link / RECIPE, link) == {}


def test_a_link_to_the_folder_of_a_pipeline_is_followed(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "provenance.json").write_text(f'{{"kind": "{KIND}"}}', encoding="utf-8")
    (tmp_path / "toy.yaml").write_text(PHANTOM, encoding="utf-8")
    (tmp_path / "link").symlink_to("run")
    opened = Pipeline.open(Recipe.load(str(tmp_path / "toy.yaml")), tmp_path / "link")
    assert opened.out == tmp_path / "run"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").symlink_to("other")
    with pytest.raises(ValueError, match="found a symbolic link"):
        check_folder(tmp_path / "elsewhere")


@pytest.mark.parametrize("out", ["demo", "smp", "train", "masks"])
def test_a_folder_may_be_called_as_a_config_is(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(PHANTOM + "formats: [masks]\n", encoding="utf-8")
    carry_out(open_pipeline(recipe, Path(out)))
    os.rename(out, "moved")
    assert undone(recipe, Path("moved")) == {}
    assert undone(recipe, tmp_path / "moved") == {}


@pytest.mark.parametrize("name", [*FILES, "own.yaml"])
def test_what_a_recipe_names_is_known_by_its_contents(name, project):
    with (project / name).open("a", encoding="utf-8") as file:
        file.write("\n# other")
    assert undone(Path("toy.yaml"), Path("demo"))
