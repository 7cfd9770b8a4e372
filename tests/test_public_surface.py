"""What others may build on: names, registries, docstrings, commands."""

import ast
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import converters
import fusion
from zoo import families

EXPECTED = {
    converters: {
        *("FORMATS", "SUBSETS", "DataError", "MissingDependency", "Problem"),
        *(
            "check_target",
            "label_space",
            "is_data_set",
            "list_images",
            "load_format",
            "own_labels",
            "read",
            "scan",
            "show",
            "split",
            "write",
        ),
    },
    fusion: {
        *("FUSIONS", "Prediction", "PredictionStore", "Rule", "SoftMask", "fuse", "score", "show"),
        *("MaskObject", "objects_of", "predict_objects", "read_rule", "split_prediction"),
        *("Classwise", "Hybrid", "Max", "Mean", "Staple", "Vote", "Weighted"),
    },
}
COMMANDS = {
    *("phantom", "split", "convert", "audit", "augment", "train", "predict"),
    *("sweep", "runs", "doctor", "soup", "fit", "fuse", "evaluate", "check", "compare", "report"),
    *("list", "demo", "ablate", "run", "status", "clear", "view", "export", "serve", "review"),
}
CORE = (converters, fusion)
MODULES = sorted(
    {p.__name__ for p in CORE}
    | {m.name for p in CORE for m in pkgutil.walk_packages(p.__path__, f"{p.__name__}.")}
)


@pytest.mark.parametrize("package", EXPECTED, ids=lambda package: package.__name__)
def test_exported_names(package):
    assert set(package.__all__) == EXPECTED[package]
    assert all(hasattr(package, name) for name in package.__all__)


def test_families_are_found_by_name():
    assert {"FAMILIES", "Family", "load_family"} <= set(vars(families))
    for module in families.FAMILIES.values():
        found = importlib.util.find_spec(module)
        assert found is not None, module
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
        assigned = {
            getattr(target, "id", None)
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        }
        assert "FAMILY" in assigned, module


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match=f"expected one of {', '.join(families.FAMILIES)}"):
        families.load_family("perceptron")


@pytest.mark.parametrize("name", converters.FORMATS)
def test_formats_keep_their_contract(name):
    module = converters.load_format(name)
    assert callable(module.matches)
    assert hasattr(module, "read") or hasattr(module, "write")
    assert bool(module.LOSES) == hasattr(module, "write")
    for lost in module.LOSES.values():
        assert lost <= {"overlaps", "holes", "parts", "objects", "subpixels"}


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=f"expected one of {', '.join(converters.FORMATS)}"):
        converters.load_format("bitmap")


@pytest.mark.parametrize("name", fusion.FUSIONS)
def test_fusions_keep_their_contract(name):
    rule = fusion.FUSIONS[name]
    assert dataclasses.is_dataclass(rule)
    assert list(inspect.signature(rule.__call__).parameters) == ["self", "predictions", "labels"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule().new = 1


def public_definitions(tree, prefix=""):
    for node in tree.body:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node, f"{node.name}.")


@pytest.mark.parametrize("module", MODULES)
def test_public_names_say_what_they_are_for(module):
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    silent = [name for name, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert not silent


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_commands():
    from zoo.cli import app

    commands = typer.main.get_command(app).commands
    assert set(commands) == COMMANDS
    assert all(command.help for command in commands.values())


def test_help_names_every_command():
    root = Path(fusion.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        encoding="utf-8",
    )
    assert all(f" {name} " in done.stdout for name in COMMANDS)
