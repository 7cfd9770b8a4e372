"""A step that was begun through a common place goes on here, or through another one.

The cluster is a thread of this process, which does what a node does.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_training import STOP, start_training

pytest.importorskip("fsspec")

from zoo.pipeline import cluster, execution, head, node
from zoo.pipeline.command import carry_out
from zoo.pipeline.execution import Capacity, ThisMachine, execute
from zoo.pipeline.head import ApartCluster
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.record import Digests, History
from zoo.pipeline.steps import Step
from zoo.pipeline.storage.transfer import Place
from zoo.pipeline.transfers import TRANSFERS, Transfers, clear_places

pytestmark = pytest.mark.slow

EPOCHS = 5


class RayTaskError(Exception):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Ray:
    """Does tasks in a thread."""

    exceptions = SimpleNamespace(RayTaskError=RayTaskError, RayError=RayTaskError)

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)

    def remote(self, function):
        def start(order):
            return self._pool.submit(function, order)

        return SimpleNamespace(options=lambda **keys: SimpleNamespace(remote=start))

    def wait(self, tasks, timeout=None):
        return [task for task in tasks if not task.exception(60)] or tasks, []

    def get(self, task):
        if error := task.exception():
            raise RayTaskError(error)
        return task.result()


class Quiet:
    def __init__(self):
        self.told = []

    def began(self, step, work): ...
    def ended(self, step, record): ...
    def kept(self, step, record): ...
    def left_out(self, step, lacking): ...
    def tick(self): ...
    def brought(self, step, told):
        self.told.append(told)


@pytest.fixture(autouse=True)
def a_cluster(monkeypatch, tmp_path):
    @contextmanager
    def joined(on):
        yield Ray()

    monkeypatch.setattr(cluster, "joined", joined)
    monkeypatch.setattr(cluster, "check_nodes", lambda ray, needs: None)
    monkeypatch.setattr(cluster, "working_nodes", lambda ray: [{"Resources": {"CPU": 1}}])
    monkeypatch.setattr(head, "_check_nodes", lambda ray, place: None)
    monkeypatch.setattr(node, "start_process", start_training)
    monkeypatch.setattr(node, "_LOOK", 0.05)
    monkeypatch.setattr(execution, "start_process", start_training)
    monkeypatch.setenv("MASKZOO_NODE", str(tmp_path / "node"))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Return the folder of the head, with a data set in it."""
    folder = tmp_path / "head"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "image.txt").write_text("hands", encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def training(out, pause="0"):
    run = out / "runs" / "a"
    words = (Path("data"), run, str(EPOCHS), pause)
    return {"train a": Step("train a", words, (run,), reads=(Path("data"),), kind="device")}


def run(out, through="", stop=None, pause="0"):
    """Carry it out, to an epoch or the end; return how it ended, and what was said of it."""
    out.mkdir(exist_ok=True)
    steps, history = training(out, pause), History(out, Path("data"), Digests(None, out))
    place = ApartCluster("ray", through, steps, history) if through else ThisMachine(Capacity(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STOP, str(stop))
        watcher = Quiet()
        outcome = execute(steps, history, place, watcher)
    assert bool(outcome.failed) == (stop is not None)
    return outcome, watcher.told


def epochs(out):
    """The epochs of each start, as the log has them."""
    starts = (out / "logs" / "train-a.log").read_text(encoding="utf-8").split("\n$ zoo ")[1:]
    return [[int(w.split()[0]) for w in start.split("epoch ")[1:]] for start in starts]


def url(tmp_path, name):
    return f"file://{tmp_path}/{name}"


def files_at(tmp_path, name="place"):
    return [path for path in (tmp_path / name).rglob("*") if path.is_file()]


def test_it_goes_on_here(work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=2)
    assert not (out / "runs" / "a" / "last.ckpt").exists()
    _, told = run(out)
    assert told[0].endswith(f"MB brought back from {url(tmp_path, 'place')}")
    assert epochs(out) == [[1, 2], [3, 4, 5]]
    assert (out / "runs" / "a" / "weights").read_text() == "hands 5"


def test_it_goes_on_through_another_place(work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=2)
    run(out, url(tmp_path, "other"))
    assert epochs(out) == [[1, 2], [3, 4, 5]]


def test_what_was_done_since_is_what_goes_on(work, tmp_path):
    # There, here, and there again: what was there first is older.
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=1)
    run(out, stop=2)
    run(out, url(tmp_path, "place"), stop=3)
    run(out, stop=4)
    run(out, url(tmp_path, "place"))
    assert epochs(out) == [[1], [2], [3], [4], [5]]


def test_an_older_state_there_does_not_count(work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=1)
    os.rename(tmp_path / "place", tmp_path / "away")
    run(out, stop=3)
    os.rename(tmp_path / "away", tmp_path / "place")
    run(out, url(tmp_path, "place"))
    assert epochs(out) == [[1], [1, 2, 3], [4, 5]]


@pytest.mark.parametrize("harm", ["gone", "unset", "damaged"])
def test_where_it_cannot_be_reached_that_is_said(harm, work, tmp_path, monkeypatch):
    out = Path("out")
    monkeypatch.setenv("THE_PLACE", url(tmp_path, "place"))
    run(out, "env:THE_PLACE", stop=2)
    if harm == "gone":
        shutil.rmtree(tmp_path / "place")
    elif harm == "unset":
        monkeypatch.delenv("THE_PLACE")
    else:
        for path in (tmp_path / "place" / "working").rglob("blobs/*/*"):
            path.write_text("damaged")
    _, told = run(out)
    assert len(told) == 1
    assert "env:THE_PLACE" in told[0]
    assert told[0].endswith(": it begins anew")
    assert "\n" not in told[0]
    assert epochs(out) == [[1, 2], [1, 2, 3, 4, 5]]


def test_it_goes_on_where_the_folder_was_moved_between(work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=2)
    os.rename(out, tmp_path / "moved")
    run(tmp_path / "moved", stop=3)
    run(tmp_path / "moved", url(tmp_path, "place"), stop=4)
    os.rename(tmp_path / "moved", out)
    run(out, url(tmp_path, "place"))
    # What was said at the place comes with it.
    assert epochs(out) == [[1, 2], [3], [4], [4, 5]]
    assert (out / "runs" / "a" / "weights").read_text() == "hands 5"


@pytest.mark.parametrize("through", [False, True])
def test_it_goes_on_where_the_recipe_was_another_one_between(through, work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"), stop=2)
    run(out, url(tmp_path, "place") if through else "", pause="0.01")
    assert epochs(out)[1] == [1, 2, 3, 4, 5]
    run(out)
    assert epochs(out)[2] == [3, 4, 5]


def test_a_step_that_ended_there_is_not_done_again(work, tmp_path, monkeypatch):
    out = Path("out")
    with pytest.MonkeyPatch.context() as patch:

        def lost(errand):
            raise OSError("the cable")

        patch.setattr(head._Errand, "_bring", lost)
        steps, history = training(out), History(out, Path("data"), Digests(None, out))
        place = ApartCluster("ray", url(tmp_path, "place"), steps, history)
        assert execute(steps, history, place, Quiet()).failed == {"train a": "the cable"}
    monkeypatch.setattr(execution, "start_process", None)
    outcome, _ = run(out)
    assert outcome.ran == ["train a"]
    assert (out / "runs" / "a" / "weights").read_text() == "hands 5"
    assert run(out)[0].ran == []


def test_what_was_decoded_here_is_not_moved(work, tmp_path):
    out = Path("out")
    run(out, stop=2)
    assert (out / "runs" / "a" / "cache" / "decoded").is_file()
    run(out, url(tmp_path, "place"), stop=3)
    assert not any(path.read_text() == "large" for path in files_at(tmp_path))
    assert epochs(out) == [[1, 2], [3]]


@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_what_another_pipeline_removed_is_put_again(harm, work, tmp_path, monkeypatch):
    out, harmed = Path("out"), []
    do = node.do_order

    def do_later(order):
        if not harmed:
            harmed.append(order)
            for path in (tmp_path / "place" / "blobs").glob("*/*"):
                path.write_text("x") if harm == "damaged" else path.unlink()
        return do(order)

    monkeypatch.setattr(head, "do_order", do_later)
    run(out, url(tmp_path, "place"))
    assert harmed
    assert (out / "runs" / "a" / "weights").read_text() == "hands 5"


def test_a_result_that_was_damaged_there_is_made_again(work, tmp_path, monkeypatch):
    out, bring, harmed = Path("out"), head._Errand._bring, []

    def bring_damaged(errand):
        if not harmed:
            harmed.append(errand)
            for path in (tmp_path / "place" / "working").rglob("blobs/*/*"):
                path.write_text("damaged")
        bring(errand)

    monkeypatch.setattr(head._Errand, "_bring", bring_damaged)
    run(out, url(tmp_path, "place"))
    assert harmed
    assert (out / "runs" / "a" / "weights").read_text() == "hands 5"


# --- what is left there


def test_nothing_is_left_of_a_pipeline_that_ended(work, tmp_path):
    out = Path("out")
    run(out, url(tmp_path, "place"))
    assert files_at(tmp_path)
    # None goes on from it: it is not kept even so long.
    assert not any(path.read_text() == str(EPOCHS) for path in files_at(tmp_path))
    (line,) = clear_places(out)
    assert line.startswith(f"{url(tmp_path, 'place')}: 2 files removed")
    assert files_at(tmp_path) == []
    assert Transfers.read(out).through == ()
    assert clear_places(out) == []


def test_what_another_pipeline_needs_stays(work, tmp_path):
    out, other = Path("out"), Path("other")
    run(out, url(tmp_path, "place"))
    run(other, url(tmp_path, "place"), stop=2)
    clear_places(out)
    place, name = Place(url(tmp_path, "place")), Transfers.read(other).pipeline
    assert place.listing("pipelines") == [name]
    # The image; and what goes on.
    assert [path.read_text() for path in (tmp_path / "place" / "blobs").glob("*/*")] == ["hands"]
    run(other, url(tmp_path, "place"))
    assert epochs(other)[-1] == [1, 2, 3, 4, 5]
    clear_places(other)
    assert files_at(tmp_path) == []


def test_each_place_is_cleared_and_one_that_does_not_answer_is_named(work, tmp_path, monkeypatch):
    out = Path("out")
    monkeypatch.setenv("THE_PLACE", url(tmp_path, "place"))
    run(out, "env:THE_PLACE", stop=2)
    run(out, url(tmp_path, "other"))
    monkeypatch.delenv("THE_PLACE")
    lines = clear_places(out)
    name = Transfers.read(out).pipeline
    assert f"zoo clear env:THE_PLACE --pipeline {name}" in lines[0]
    assert "2 files removed" in lines[1]
    assert files_at(tmp_path, "other") == []
    assert Transfers.read(out).through == ("env:THE_PLACE",)
    monkeypatch.setenv("THE_PLACE", url(tmp_path, "place"))
    clear_places(out)
    assert files_at(tmp_path) == []


def test_what_is_kept_of_transfers_may_be_damaged(tmp_path):
    kept = Transfers("abc", ("file:///x",), {"a": 1})
    kept.write(tmp_path)
    assert Transfers.read(tmp_path) == kept
    assert Transfers.read(tmp_path / "none") == Transfers()
    for text in ("", "[]", '{"pipeline": "../x"}', '{"pipeline": "a", "waiting": 3}'):
        (tmp_path / TRANSFERS).write_text(text, encoding="utf-8")
        assert Transfers.read(tmp_path) == Transfers()
    assert replace(kept, waiting={}).waiting == {}


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_ends_well_clears_the_place_unless_asked_to_keep(
    keep, work, tmp_path, monkeypatch
):
    out, place, said = Path("out"), url(tmp_path, "place"), []
    out.mkdir()
    recipe = {"data": "data", "models": {"a": {"family": "smp", "config": "laptop"}}}
    history = History(out, Path("data"), Digests(None, out))
    pipeline = Pipeline(Recipe.model_validate(recipe), out, training(out), history)
    monkeypatch.setenv(STOP, "2")
    with pytest.raises(ValueError, match="train a failed"):
        carry_out(pipeline, ["zoo"], said.append, "ray", place, keep)
    assert files_at(tmp_path)
    monkeypatch.delenv(STOP)
    carry_out(pipeline, ["zoo"], said.append, "ray", place, keep)
    assert bool(files_at(tmp_path)) == keep
    assert (f"{place}: 2 files removed" in "\n".join(said)) != keep
    # What was kept goes when that is not asked for, also from here.
    carry_out(pipeline, ["zoo"], said.append)
    assert files_at(tmp_path) == []
