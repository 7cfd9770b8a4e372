"""`zoo run` itself, on a toy: to the end, killed and gone on with, planned, and on a cluster."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from fusion.rules.file import read_rule

pytestmark = pytest.mark.slow

pytest.importorskip("torch")

RECIPE = """
phantom: {people: 3, test_people: 1, size: 256}
split: {folds: 2}
seed: 3
models:
  small: {family: smp, config: laptop, changes: {epochs: 2, size: [64, 64], workers: 0}}
  former: {family: segformer, config: laptop, changes: {epochs: 2, size: [64, 64], workers: 0}}
"""
START = [sys.executable, "-m", "zoo"]


def zoo(*words, cwd, code=0):
    done = subprocess.run(
        [*START, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "toy.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = zoo("run", recipe, cwd=folder)
    return folder / "toy-run", done


@pytest.mark.timeout(900)
def test_it_ends_in_a_checked_answer_and_a_page(finished):
    out, done = finished
    with (out / "submission.csv").open(encoding="utf-8", newline="") as file:
        assert len({row["image_name"] for row in csv.DictReader(file)}) == 2
    assert (out / "report" / "report.html").is_file()
    assert "submission.csv: valid" in done.stdout
    assert json.loads((out / "scores.json").read_text(encoding="utf-8"))["patients"] == 1


def test_given_again_it_does_nothing(finished):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")}
    done = zoo("run", out, cwd=out.parent)
    assert "started" not in done.stderr + done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "submission.csv: valid" in done.stdout


def test_a_dry_run_says_what_is_there(finished):
    out, _ = finished
    lines = zoo("run", out, "--dry-run", cwd=out.parent).stdout.splitlines()
    states = {line.split()[0] for line in lines[1:] if re.match(r"(done|new|changed|waits)", line)}
    assert states == {"done"}


def test_a_change_is_told_before_it_is_done(finished, recipe):
    out, _ = finished
    other = recipe.with_name("other.yaml")
    other.write_text(
        RECIPE.replace("small: {family: smp", "small: {family: smp", 1).replace(
            "epochs: 2", "epochs: 3", 1
        ),
        encoding="utf-8",
    )
    lines = zoo("run", other, "--out", out, "--dry-run", cwd=out.parent).stdout.splitlines()
    state = {line[9:28].strip(): line.split()[0] for line in lines}
    assert state["train small 0"] == state["train small 1"] == "changed"
    assert state["train former 0"] == "done"
    assert state["fit"] == "waits"


@pytest.mark.timeout(900)
def test_killed_twice_it_ends_the_same(finished, recipe, tmp_path):
    whole, _ = finished
    out = tmp_path / "killed"
    for reached in ("runs/small/fold-1/checkpoints/*", "val/former"):
        process = subprocess.Popen(
            [*START, "run", str(recipe), "--out", str(out)],
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
    zoo("run", recipe, "--out", out, cwd=tmp_path)
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


def test_the_folder_of_something_else_is_refused(recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = zoo("run", recipe, "--out", tmp_path / "mine", cwd=tmp_path, code=2)
    assert "expected nothing there, or the folder of a pipeline" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.timeout(900)
def test_a_refiner_is_one_more_source(tmp_path):
    small = "{epochs: 1, size: [32, 32], patches_per_image: 2, width: 4, start: mean}"
    text = RECIPE.replace("\n  former:", "\n#  former:") + f"refiner: {{changes: {small}}}\n"
    (tmp_path / "toy.yaml").write_text(text + "report: false\n", encoding="utf-8")
    zoo("run", "toy.yaml", cwd=tmp_path)
    out = tmp_path / "toy-run"
    assert read_rule(out / "fusion.yaml").sources == ("refiner", "small")
    assert len(list(out.glob("runs/refiner/fold-*/checkpoints/last.safetensors"))) == 2
    states = zoo("run", "toy-run", "--dry-run", cwd=tmp_path).stdout
    assert re.search(r"done +train refiner 1", states)
    assert "changed" not in states
