"""Imports run one way, zoo -> fusion -> converters -> configs, and torch is the zoo's alone."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import configs
import converters
import fusion
import zoo

PACKAGES = {
    package.__name__: Path(package.__file__).parent
    for package in (configs, converters, fusion, zoo)
}
ALLOWED = {
    "configs": {"configs"},
    "converters": {"configs", "converters"},
    "fusion": {"configs", "converters", "fusion"},
    "zoo": {"configs", "converters", "fusion", "zoo"},
}
OURS = {*ALLOWED, "tests", "tools"}
HEAVY = {
    *("torch", "torchvision", "torchmetrics", "transformers", "ultralytics", "lightning"),
    *("timm", "segmentation_models_pytorch", "monai", "albumentations", "safetensors"),
}
OPTIONAL = {"datasets"}  # a format may need it, late
IMPORTERS = {"import_module", "import_optional", "__import__"}

FILES = {
    f"{name}/{path.relative_to(root).as_posix()}": path
    for name, root in PACKAGES.items()
    for path in sorted(root.rglob("*.py"))
}


def imported(tree):
    """Yield the full names that a piece of code imports, late ones and those by text as well."""
    for node in ast.walk(tree):
        yield from imported_by(node)


def imported_by(node):
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in IMPORTERS:
            yield str(node.args[0].value)


@cache
def parsed(file):
    return ast.parse(FILES[file].read_text(encoding="utf-8"))


@cache
def tops(file):
    return {name.partition(".")[0] for name in imported(parsed(file))}


def test_the_search_finds_imports_of_every_kind():
    code = """
import a.b
from c.d import e
def late():
    from f import g
    importlib.import_module("h.i")
    import_optional("j", "extra")
if TYPE_CHECKING:
    from k import l
"""
    found = {name.partition(".")[0] for name in imported(ast.parse(code))}
    assert found == {"a", "c", "f", "h", "j", "k"}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.slow
def test_imports_run_one_way(file):
    assert tops(file) & OURS <= ALLOWED[file.partition("/")[0]]


@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith("zoo/")])
def test_no_torch_below_the_zoo(file):
    assert not tops(file) & HEAVY


MODULES = {
    file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): file for file in FILES
}
MOST_FILES = 18  # flat in a folder
FACADES = {*ALLOWED, "zoo.__main__"}


def needs(module):
    """Return the modules that one imports anywhere: late, by text, for the type checker too."""
    needed = set()
    for node in ast.walk(parsed(MODULES[module])):
        names = set(imported_by(node)) & set(MODULES)
        # `from package import module` needs the module, not what the package itself holds.
        needed |= names - {getattr(node, "module", None)} or names
    return needed - {module}


def room(module):
    """Return the folder that a module lies in; what a whole package shows is a room of its own."""
    if module in FACADES:
        return f"{module} (facade)"
    return module if MODULES[module].endswith("__init__.py") else module.rpartition(".")[0]


@cache
def graph():
    return {module: needs(module) for module in MODULES}


@pytest.mark.slow
def test_modules_do_not_import_each_other_in_a_circle():
    list(TopologicalSorter(graph()).static_order())


@pytest.mark.slow
def test_no_import_runs_back_up_from_folder_to_folder():
    rooms: dict[str, set[str]] = {}
    for module, others in graph().items():
        rooms.setdefault(room(module), set()).update(map(room, others - {module}))
    list(TopologicalSorter({r: others - {r} for r, others in rooms.items()}).static_order())


@pytest.mark.parametrize("name", PACKAGES)
def test_folders_are_small_enough_to_look_over(name):
    folders = {path.parent for file, path in FILES.items() if file.startswith(f"{name}/")}
    full = {f.name: n for f in folders if (n := len(list(f.glob("*.py")))) > MOST_FILES}
    assert not full


@pytest.mark.slow
def test_all_code_of_ultralytics_lies_in_one_folder():
    users = {file for file in FILES if "ultralytics" in tops(file)}
    assert users
    assert all(file.startswith("zoo/families/yolo/") for file in users)


BLOCKED = """
import importlib, importlib.abc, pkgutil, sys

HEAVY = set({heavy!r})

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Wall())
for package in {packages!r}:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        importlib.import_module(module.name)
        print(module.name)
assert not HEAVY & set(sys.modules)
"""


def run(code):
    paths = f"import sys; sys.path[:0] = {[str(root.parent) for root in PACKAGES.values()]!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", paths + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_converters_and_fusion_work_without_torch():
    code = BLOCKED.format(
        heavy=sorted(HEAVY | OPTIONAL), packages=["configs", "converters", "fusion"]
    )
    modules = run(code)
    assert {
        "converters.masks",
        "fusion.rules.hybrid",
        "fusion.sources.store",
        "fusion.fit.hybrid",
    } <= modules


@pytest.mark.parametrize(
    "module", ["zoo.cli", "zoo.families", "zoo.results.fuse", "zoo.results.scoring"]
)
@pytest.mark.slow
def test_commands_that_do_not_train_start_without_torch(module):
    code = BLOCKED.format(heavy=sorted(HEAVY | OPTIONAL), packages=[])
    run(f"{code}\nimport {module}\nassert not HEAVY & set(sys.modules)")


@pytest.mark.slow
def test_who_fuses_does_not_load_what_fits():
    slow = ["scipy", "sklearn", "pandas"]
    modules = "fusion, fusion.rules.file, fusion.sources.ensemble, zoo.results.fuse"
    modules += ", zoo.results.fused_objects"
    run(f"import sys, {modules}\nfound = set({slow!r}) & set(sys.modules)\nassert not found, found")


def test_the_command_line_starts_without_arrays():
    slow = ["numpy", "cv2", "shapely", "pyarrow", "scipy", "sklearn", "pydantic"]
    run(f"import sys, zoo.cli\nfound = set({slow!r}) & set(sys.modules)\nassert not found, found")


# Texts that the program itself has made, and what is no file of JSON or YAML.
_OWN_TEXTS = {
    "converters/files/json_files.py",
    "converters/files/json_lists.py",
    "converters/files/outputs.py",
    "converters/strict_yaml.py",
    "zoo/families/catalogue.py",
    "zoo/options.py",
    "zoo/phantom/faults.py",
    "zoo/phantom/spoils.py",
    "zoo/results/chunks.py",
    "zoo/run_files/checkpoints.py",
    "zoo/runs/train.py",
}


def test_files_of_json_and_yaml_have_one_reader_each():
    calls = re.compile(r"json\.loads?\(|yaml\.(safe_load|load|full_load)\(")
    readers = {name for name, path in FILES.items() if calls.search(path.read_text("utf-8"))}
    assert readers <= _OWN_TEXTS, sorted(readers - _OWN_TEXTS)
