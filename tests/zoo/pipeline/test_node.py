"""A step on a machine of its own: brought by digest, put back, gone on with where another died."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from toy_training import STOP, TRAINING, start_training

pytest.importorskip("fsspec")

from zoo.pipeline import node
from zoo.pipeline.head import needed_later, needed_results
from zoo.pipeline.node import Order, do_order
from zoo.pipeline.steps import Step
from zoo.pipeline.storage.cache import Cache, cache_limit
from zoo.pipeline.storage.holdings import Holdings
from zoo.pipeline.storage.transfer import Place, blob, digest_file
from zoo.pipeline.storage.working import State, Working

# A node that is a process, which can be killed.
ON_A_NODE = """
import subprocess, sys
from zoo.pipeline import node
from zoo.pipeline.node import Order, do_order
node._LOOK = 0.05
def start(command, stream, environment, folder=None):
    words = [sys.executable, "-c", {training!r}, *command]
    return subprocess.Popen(words, cwd=folder, stdout=stream, stderr=stream, env=environment)
node.start_process = start
do_order({order})
"""


@pytest.fixture(autouse=True)
def training(monkeypatch, tmp_path):
    monkeypatch.setattr(node, "start_process", start_training)
    monkeypatch.setattr(node, "_LOOK", 0.05)
    monkeypatch.setenv("MASKZOO_NODE", str(tmp_path / "first"))


@pytest.fixture
def place(folder_place):
    return Place(folder_place)


def order(place, tmp_path, epochs=3, pause=0.0):
    """A training whose data set is at the place alone."""
    image = tmp_path / "image.txt"
    image.write_text("hands", encoding="utf-8")
    digest = digest_file(image)
    place.put_all({digest: image}, lambda size: None)
    image.unlink()
    needs = (Holdings(place, "x").hold({"/head/data/image.txt": (5, digest)}),)
    command = ("../data", "toy-run/runs/a", str(epochs), str(pause))
    makes = ("/head/work/toy-run/runs/a",)
    return Order(
        place.url, "working/x/train-a-1", command, "/head/work", needs, makes, dict(os.environ), 1
    )


def test_what_a_step_makes_is_put_back(place, tmp_path):
    asked = order(place, tmp_path)
    assert do_order(asked) == 0
    working = Working(place, asked.working)
    state = working.read()
    assert state.has_ended
    # Without what was decoded.
    assert {Path(path).name for path in state.files} == {"last.ckpt", "weights"}
    working.bring(state, [tmp_path / "back"], lambda size: None)
    assert (tmp_path / "back" / "weights").read_text() == "hands 3"
    assert "epoch 3 of hands" in working.read_log()
    assert list((tmp_path / "first" / "tasks").iterdir()) == []
    needed = needed_later(state.files)
    working.finish(needed)
    assert not place.exists(asked.working)
    assert set(needed) == {"/0/weights"}
    assert place.missing(digest for _, digest in needed.values()) == set()


def test_a_step_may_make_nothing(place, tmp_path):
    asked = replace(order(place, tmp_path), command=("../data", "a", "1", "0"), makes=())
    assert do_order(asked) == 0
    assert Working(place, asked.working).read() == State({}, True)


def test_a_step_that_has_ended_is_not_done_again(place, tmp_path, monkeypatch):
    asked = order(place, tmp_path)
    do_order(asked)
    monkeypatch.setattr(node, "start_process", None)
    assert do_order(asked) == 0


def test_what_was_brought_is_not_brought_again(place, tmp_path):
    asked = order(place, tmp_path)
    do_order(asked)
    log = Working(place, asked.working).read_log()
    place.remove(asked.working)
    do_order(asked)
    again = Working(place, asked.working).read_log()
    assert ": 1 files brought, 0.0 MB" in log
    assert ": 0 files brought, 0.0 MB" in again


def test_a_step_that_fails_keeps_what_it_has_made(place, tmp_path):
    asked = order(place, tmp_path, epochs="three")
    assert do_order(asked) != 0
    state = Working(place, asked.working).read()
    assert not state.has_ended
    assert "ValueError" in Working(place, asked.working).read_log()


@pytest.mark.slow
@pytest.mark.long
def test_a_machine_that_dies_loses_what_it_did_since_the_last_checkpoint(
    place, tmp_path, monkeypatch
):
    asked = order(place, tmp_path, epochs=40, pause=0.25)
    code = ON_A_NODE.format(training=TRAINING, order=asked_text(asked))
    first = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    working = Working(place, asked.working)
    end = time.monotonic() + 120
    while "epoch 4 " not in working.read_log() or not working.read().files:
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    put = working.read()
    assert not put.has_ended
    monkeypatch.setenv("MASKZOO_NODE", str(tmp_path / "second"))
    assert do_order(asked) == 0
    before, _, after = working.read_log().partition("; goes on with 1 files")
    assert "epoch 1 of" in before
    assert "epoch 1 of" not in after
    first_later = int(after.split("epoch ")[1].split()[0])
    assert 1 < first_later <= 40
    working.get(working.read().files["/0/weights"][1], tmp_path / "back")
    assert (tmp_path / "back").read_text() == "hands 40"
    # One checkpoint lies there, not forty.
    folder = Path(place.url.removeprefix("file://")) / asked.working / "blobs"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


def asked_text(asked):
    fields = ("url", "working", "command", "folder", "needs", "makes", "cores")
    text = ", ".join(f"{name}={getattr(asked, name)!r}" for name in fields)
    return f"Order({text}, environment={{}})"


def test_a_checkpoint_that_was_damaged_is_told_and_the_step_begins_anew(
    place, tmp_path, monkeypatch
):
    asked = order(place, tmp_path)
    monkeypatch.setenv(STOP, "2")
    assert do_order(asked) != 0
    working = Working(place, asked.working)
    digest = working.read().files["/0/last.ckpt"][1]
    place.write_text(f"{asked.working}/{blob(digest)}", "9")
    monkeypatch.delenv(STOP)
    assert do_order(asked) == 0
    assert "what was made elsewhere is lost, it begins anew: working/x/" in working.read_log()
    working.bring(working.read(), [tmp_path / "back"], lambda size: None)
    assert (tmp_path / "back" / "last.ckpt").read_text() == "3"


def test_what_a_killed_step_left_is_cleared_away(place, tmp_path):
    tasks = tmp_path / "first" / "tasks"
    left = node.claim(tasks / "dead", "x")
    (left.folder / "large").write_text("x")
    held = node.claim(tasks / "alive", "x")
    left.release()
    (tasks / "mine").mkdir()
    do_order(order(place, tmp_path))
    assert {path.name for path in tasks.iterdir()} == {"alive", "mine"}
    held.release()


# --- the cache


def fill(cache, tmp_path, sizes):
    made = {}
    for name, size in sizes.items():
        file = tmp_path / name
        file.write_bytes(name.encode() * size)
        digest = digest_file(file)
        made[name] = (file.stat().st_size, digest)
        cache.keep(file, digest)
        os.utime(cache.file(digest), (len(made), 10**9))
    return made


def test_a_cache_forgets_what_was_not_used_for_longest(tmp_path):
    cache = Cache(tmp_path / "cache", 250)
    made = fill(cache, tmp_path, {"a": 100, "b": 100, "c": 100, "d": 100})
    # A step has it, however old it is.
    cache.bring({"/a": made["a"]}, None, tmp_path / "task")
    os.utime(cache.file(made["a"][1]), (0, 10**9))
    cache.trim()
    kept = {name for name, (_, digest) in made.items() if cache.file(digest).is_file()}
    assert kept == {"a", "d"}
    assert cache.size() == 200


def test_two_steps_wait_for_one_download(tmp_path):
    cache, asked = Cache(tmp_path / "cache", 1e9), []

    def get(digest, file):
        asked.append(digest)
        time.sleep(0.2)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")

    threads = [
        threading.Thread(target=cache.bring, args=({"/a": (1, "ab")}, get, tmp_path / str(n)))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["ab"]
    assert [(tmp_path / str(n) / "a").read_text() for n in range(3)] == ["x"] * 3


def test_a_file_that_a_step_has_written_to_is_brought_again(tmp_path):
    cache, tree = Cache(tmp_path / "cache", 1e9), {"/a": (1, "ab")}

    def get(digest, file):
        file.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new").write_text("x")
        (tmp_path / "new").replace(file)

    assert cache.bring(tree, get, tmp_path / "0") == (1, 1)
    assert cache.bring(tree, get, tmp_path / "1") == (0, 0)
    (tmp_path / "0" / "a").write_text("y")
    assert cache.bring(tree, get, tmp_path / "2") == (1, 1)
    assert (tmp_path / "2" / "a").read_text() == "x"


def test_a_limit_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("MASKZOO_NODE_GB", "much")
    with pytest.raises(ValueError, match="MASKZOO_NODE_GB: expected gigabytes"):
        cache_limit()


# --- what a step needs


def test_a_step_is_brought_what_its_command_names(tmp_path, monkeypatch):
    out = tmp_path / "out"
    steps = {
        "split": Step("split", ("split",), (out / "split.json",)),
        "train a 0": Step("train a 0", ("train",), (out / "runs/a/fold-0",), ("split",)),
        "train b 0": Step("train b 0", ("train",), (out / "runs/b/fold-0",), ("split",)),
        "predict a": Step(
            "predict a", ("predict", str(out / "runs/a")), (out / "val/a",), ("train a 0",)
        ),
        "model a": Step("model a", needs=("predict a",)),
        "refine": Step(
            "refine",
            ("train", "--split", str(out / "split.json")),
            (out / "runs/r",),
            sources={"model a": out / "val/a"},
            joined="sources=[{}]",
        ),
        "choose": Step("choose", ("@choose",), (), ("refine",), takes=(out / "runs/r",)),
    }

    def needed(name):
        command = steps[name].command(steps)
        found = needed_results(steps[name], command, steps, out)
        return {path.relative_to(out).as_posix() for path in found}

    assert needed("predict a") == {"runs/a/fold-0"}
    assert needed("refine") == {"split.json", "val/a"}
    assert needed("choose") == {"runs/r"}
    # A config may be called as the folder is.
    steps["predict b"] = Step("predict b", ("predict", "out", "runs/b"), (), ("train b 0",))
    monkeypatch.chdir(tmp_path)
    assert needed("predict b") == set()
