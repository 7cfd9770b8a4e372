"""`zoo run` itself, on a toy: to the end, killed and gone on with, planned, and on a cluster."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from clusters import run_on_nodes

from fusion.rules.file import read_rule

pytestmark = [pytest.mark.slow, pytest.mark.long]

pytest.importorskip("torch")

RECIPE = """
phantom: {people: 3, test_people: 1, size: 256}
split: {folds: 2}
seed: 3
models:
  small: {family: smp, config: laptop, changes: {epochs: 6, size: [64, 64], workers: 0}}
  former: {family: segformer, config: laptop, changes: {epochs: 6, size: [64, 64], workers: 0}}
fusion: {refine: none}
"""
# The same answer, without a page about it.
ANSWER = RECIPE + "report: false\n"
# A head and three further nodes, one of which dies when all of them train.
NODES = """
import sys
import threading
import time
from pathlib import Path
from ray.cluster_utils import Cluster
from zoo.cli import main

def main_on_cluster(recipe, out):
    small = {"num_cpus": 1, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=small)
    others = [nodes.add_node(num_cpus=1) for _ in range(3)]

    def kill():
        while len(list(Path(out).glob("runs/*/fold-*/checkpoints/*"))) < 4:
            time.sleep(0.2)
        nodes.remove_node(others[0], allow_graceful=False)
        print("KILLED", flush=True)

    threading.Thread(target=kill, daemon=True).start()
    try:
        main(["run", recipe, "--out", out, "--on", nodes.address])
    finally:
        nodes.shutdown()

main_on_cluster(*sys.argv[1:])
"""
START = [sys.executable, "-m", "zoo"]


def start(*words, cwd):
    done = subprocess.run(
        [*START, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(autouse=True, scope="module")
def a_thread_a_step():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "toy.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def answer(recipe):
    file = recipe.with_name("answer.yaml")
    file.write_text(ANSWER, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = start("run", recipe, cwd=folder)
    return folder / "toy-run", done


@pytest.mark.timeout(900)
def test_it_ends_in_a_checked_answer_and_a_page(finished):
    out, done = finished
    with (out / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert len({row["image_name"] for row in csv.DictReader(file)}) == 2
    assert (out / "report" / "report.html").is_file()
    assert "submission.csv: valid" in done.stdout
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["patients"] == 1


def test_given_again_it_does_nothing(finished, zoo, capfd):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")}
    zoo("run", out)
    done = capfd.readouterr()
    assert "started" not in done.err + done.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "submission.csv: valid" in done.out


def test_a_dry_run_says_what_is_there(finished, zoo, capsys):
    out, _ = finished
    zoo("run", out, "--dry-run")
    assert set(_states(capsys.readouterr().out).values()) == {"done"}


def test_a_change_is_told_before_it_is_done(finished, recipe, zoo, capsys):
    out, _ = finished
    other = recipe.with_name("other.yaml")
    other.write_text(RECIPE.replace("epochs: 6", "epochs: 3", 1), encoding="utf-8")
    zoo("run", other, "--out", out, "--dry-run")
    state = _states(capsys.readouterr().out)
    assert state["train small 0"] == state["train small 1"] == "changed"
    assert state["train former 0"] == "done"
    assert state["fit"] == "waits"


def _states(said):
    """What a dry run says of each step."""
    found = re.findall(r"^(done|new|changed|waits) +(\w+(?: \w+)*)", said, re.MULTILINE)
    assert found
    return {name: state for state, name in found}


@pytest.mark.timeout(900)
def test_killed_twice_it_ends_the_same(finished, answer, tmp_path):
    whole, _ = finished
    out = tmp_path / "killed"
    # All but a network's second fold, and what follows from it, is done already.
    shutil.copytree(whole, out)
    for name in ("runs/small/fold-1", "val/small", "test/small"):
        shutil.rmtree(out / name)
    for name in ("fusion.yaml", "submission.csv", "scores.json"):
        (out / name).unlink()
    for reached in ("runs/small/fold-1/checkpoints/*", "val/small"):
        process = subprocess.Popen(
            [*START, "run", str(answer), "--out", str(out)],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 400
        while not any(out.glob(reached)):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # What it had started ends with it.
        while _commands_on(out):
            assert time.monotonic() < end
            time.sleep(0.1)
    start("run", answer, "--out", out, cwd=tmp_path)
    assert (out / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes()
    assert (out / "fusion.yaml").read_bytes() == (whole / "fusion.yaml").read_bytes()


def _commands_on(out):
    if not os.path.isdir("/proc"):
        pytest.skip("no /proc")
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if os.fsencode(out) in words and b"zoo.pipeline.child" in words:
            found.append(number)
    return found


def test_the_folder_of_something_else_is_refused(recipe, tmp_path, zoo, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    zoo("run", recipe, "--out", tmp_path / "mine", code=2)
    assert "expected nothing there, or the folder of a pipeline" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.timeout(900)
def test_a_refiner_is_one_more_source(finished, tmp_path, zoo, capsys):
    small = "{epochs: 1, size: [32, 32], patches_per_image: 2, width: 4, start: mean}"
    (tmp_path / "refined.yaml").write_text(f"{ANSWER}refiner: {{changes: {small}}}\n")
    out = tmp_path / "refined-run"
    # What it has in common with a pipeline that was copied is not done again.
    shutil.copytree(finished[0], out)
    zoo("run", tmp_path / "refined.yaml", "--out", out, "--dry-run")
    before = _states(capsys.readouterr().out)
    assert {name for name, state in before.items() if state == "done"} >= {
        *(f"train {model} {fold}" for model in ("small", "former") for fold in (0, 1)),
        *(f"predict {model} {part}" for model in ("small", "former") for part in ("val", "test")),
    }
    assert before["train refiner 1"] == "new"
    start("run", "refined.yaml", "--out", out, cwd=tmp_path)
    assert read_rule(out / "fusion.yaml").sources == ("former", "refiner", "small")
    assert len(list(out.glob("runs/refiner/fold-*/checkpoints/last.safetensors"))) == 2
    zoo("run", tmp_path / "refined.yaml", "--out", out, "--dry-run")
    assert set(_states(capsys.readouterr().out).values()) == {"done"}


@pytest.mark.timeout(1800)
def test_a_node_of_a_cluster_that_dies_changes_nothing(finished, answer, tmp_path, of_our_own):
    pytest.importorskip("ray")
    here, there = finished[0], tmp_path / "there"
    done = run_on_nodes(NODES, str(answer), str(there), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "KILLED" in done.stdout
    for name in ("submission.csv", "fusion.yaml"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
