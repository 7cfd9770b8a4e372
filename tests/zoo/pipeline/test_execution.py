"""Steps at work: each once, only what fits at a time, only what changed; a failure stays alone."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from zoo.pipeline import execution
from zoo.pipeline.execution import Capacity, ThisMachine, execute, lacking
from zoo.pipeline.record import Digests, History
from zoo.pipeline.steps import Step

pytestmark = pytest.mark.slow


class Quiet:
    def began(self, step, work): ...
    def ended(self, step, record): ...
    def kept(self, step, record): ...
    def left_out(self, step, lacking): ...
    def tick(self): ...


class Work:
    def __init__(self, step, command, place):
        self.step, self.command, self.place, self.left = step, command, place, 2

    def poll(self):
        self.left -= 1
        if self.left > 0:
            return None
        if self.left == 0:
            self.place.end(self)
        return int(self.step.name in self.place.failing)

    def stop(self):
        self.place.working.remove(self.step.name)

    def last_words(self):
        return "zoo: note: nothing\nzoo: it broke\n"


class Place(ThisMachine):
    """Does steps in this process: each writes its command, and what its sources hold."""

    def __init__(self, capacity=None, failing=()):
        super().__init__(capacity or Capacity(2))
        self.failing, self.ran, self.working, self.most = set(failing), [], [], 0

    def start(self, step, command, log):
        assert self.has_room(step)
        self._cores -= self._capacity.cores_of(step)
        self._gpus = self._gpus[self._capacity.gpus_of(step) :]
        self.working.append(step.name)
        self.most = max(self.most, len(self.working))
        self.ran.append(step.name)
        return Work(step, command, self)

    def end(self, work):
        step = work.step
        self.working.remove(step.name)
        self._cores += self._capacity.cores_of(step)
        self._gpus += ["0"] * self._capacity.gpus_of(step)
        if step.name in self.failing:
            return
        read = [Path(word).read_text() for word in work.command if Path(word).is_file()]
        for path in step.makes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(" ".join([*work.command, *read]))


def graph(out, a="a", **keys):
    """a and b are trained, c is fused of both, d checks it."""
    paths = {name: out / name for name in "abcd"}
    return {
        "a": Step("a", ("train", a), (paths["a"],), kind="device", **keys),
        "b": Step("b", ("train", "b"), (paths["b"],), kind="device"),
        "c": Step("c", ("fuse",), (paths["c"],), sources={"a": paths["a"], "b": paths["b"]}),
        "d": Step("d", ("check", paths["c"]), (), ("c",)),
    }


def run(out, steps, place=None):
    place = place or Place()
    history = History(out, Path("data"), Digests(out if out.is_dir() else None, out))
    out.mkdir(exist_ok=True)
    return execute(steps, history, place, Quiet()), place


def test_all_is_done_in_order_and_once(tmp_path):
    out = tmp_path / "out"
    outcome, place = run(out, graph(out))
    assert place.ran == ["a", "b", "c", "d"]
    assert set(outcome.done) == set("abcd")
    outcome, place = run(out, graph(out))
    assert place.ran == []
    assert set(outcome.done) == set("abcd")


def test_only_what_depends_on_a_change_is_done_anew(tmp_path):
    out = tmp_path / "out"
    run(out, graph(out))
    _, place = run(out, graph(out, a="other"))
    assert place.ran == ["a", "c", "d"]


def test_what_was_made_before_a_change_is_taken_back(tmp_path):
    out = tmp_path / "out"
    run(out, graph(out))
    first = (out / "c").read_text()
    run(out, graph(out, a="other"))
    assert (out / "c").read_text() != first
    outcome, place = run(out, graph(out))
    # What makes nothing has only said something: it says it again.
    assert place.ran == ["d"]
    assert (out / "c").read_text() == first
    assert set(outcome.done) == set("abcd")


def test_a_file_that_is_read_is_known_by_its_content(tmp_path):
    out, config = tmp_path / "out", tmp_path / "config.yaml"
    config.write_text("epochs: 1")
    steps = graph(out, reads=(config,))
    run(out, steps)
    os.utime(config, (1, 1))
    assert run(out, steps)[1].ran == []
    config.write_text("epochs: 2")
    assert run(out, steps)[1].ran == ["a"]


def test_the_same_result_changes_nothing_after_it(tmp_path):
    # As above: a is done anew, and what it makes is as before.
    out, config = tmp_path / "out", tmp_path / "config.yaml"
    config.write_text("x")
    run(out, graph(out, reads=(config,)))
    config.write_text("y")
    outcome, place = run(out, graph(out, reads=(config,)))
    assert place.ran == ["a"]
    assert set(outcome.done) == set("abcd")


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_text("x")])
def test_a_result_that_somebody_touched_is_made_anew(harm, tmp_path):
    out = tmp_path / "out"
    run(out, graph(out))
    before = (out / "a").read_text()
    harm(out / "a")
    _, place = run(out, graph(out))
    assert place.ran == ["a"]
    assert (out / "a").read_text() == before


def test_a_copy_goes_on_elsewhere(tmp_path):
    out, other = tmp_path / "out", tmp_path / "far" / "moved"
    run(out, graph(out))
    shutil.copytree(out, other)
    shutil.rmtree(out)
    for path in other.rglob("*"):
        os.utime(path, (5, 5))
    assert run(other, graph(other))[1].ran == []


def test_a_failure_stops_only_what_needs_it(tmp_path):
    out = tmp_path / "out"
    outcome, place = run(out, graph(out), Place(failing="a"))
    assert outcome.failed == {"a": "it broke"}
    assert place.ran == ["a", "b", "c", "d"]
    assert str(out / "a") not in (out / "c").read_text()
    # Mended: what lacked it is done anew with it.
    outcome, place = run(out, graph(out))
    assert place.ran == ["a", "c", "d"]
    assert str(out / "a") in (out / "c").read_text()


def test_without_any_source_nothing_is_fused(tmp_path):
    out = tmp_path / "out"
    outcome, _ = run(out, graph(out), Place(failing="ab"))
    assert outcome.left_out == {"c": ("a", "b"), "d": ("c",)}


@pytest.mark.parametrize(
    ("capacity", "most"), [(Capacity(2), 1), (Capacity(8, ("0",)), 1), (Capacity(8, ("0", "1")), 2)]
)
def test_as_many_networks_are_trained_at_a_time_as_there_are_gpus(capacity, most, tmp_path):
    out = tmp_path / "out"
    assert run(out, graph(out), Place(capacity))[1].most == most


@pytest.mark.parametrize(("gpus", "most"), [(2, 1), (3, 1), (4, 2)])
def test_a_network_that_trains_on_several_gpus_has_them_for_itself(gpus, most, tmp_path):
    out = tmp_path / "out"
    steps = {
        name: replace(step, devices=2) if step.kind == "device" else step
        for name, step in graph(out).items()
    }
    assert run(out, steps, Place(Capacity(8, tuple(map(str, range(gpus))))))[1].most == most


def test_a_step_sees_the_gpus_that_it_has(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(execution, "Process", lambda *given: found.append(given))
    place = ThisMachine(Capacity(8, ("0", "1", "2", "3")))
    step = Step("train a 0", ("train",), kind="device", devices=3)
    place.start(step, ["train"], tmp_path / "log")
    (_, _, own, give_back) = found[0]
    assert own["CUDA_VISIBLE_DEVICES"] == "0,1,2"
    assert not place.has_room(step)
    give_back()
    assert place.has_room(step)


def test_more_gpus_than_a_machine_has_are_refused_before_the_first_step(tmp_path):
    out = tmp_path / "out"
    steps = {
        name: replace(step, devices=4) if step.kind == "device" else step
        for name, step in graph(out).items()
    }
    place = Place(Capacity(8, ("0", "1")))
    with pytest.raises(ValueError, match=r"a: expected devices of at most 2, .* found 4"):
        run(out, steps, place)
    assert place.ran == []


def test_a_stop_is_taken_down_and_gone_on_from(tmp_path):
    out = tmp_path / "out"

    class Stopped(Quiet):
        def tick(self):
            raise KeyboardInterrupt

    history = History(out, Path("data"), Digests(None, out))
    place = Place()
    with pytest.raises(KeyboardInterrupt):
        execute(graph(out), history, place, Stopped())
    assert place.working == []
    assert history.read("a").state == "begun"
    assert run(out, graph(out))[1].ran == ["a", "b", "c", "d"]


def test_a_source_is_not_needed_where_the_step_says_so():
    step = Step("choose", ("x",), sources={"a": Path("a")}, needs_source=False)
    assert lacking(step, {}) == ()


def test_results_in_a_data_set_s_folder_are_no_part_of_it(tmp_path):
    out = tmp_path / "run"
    (tmp_path / "image.png").write_bytes(b"1")
    out.mkdir()
    before = Digests(None, out).of(tmp_path)
    (out / "files.json").write_text("{}")
    assert Digests(None, out).of(tmp_path) == before
    (tmp_path / "other.png").write_bytes(b"2")
    assert Digests(None, out).of(tmp_path) != before


def test_texts_about_a_data_set_are_no_part_of_it(tmp_path):
    (tmp_path / "image.png").write_bytes(b"1")
    before = Digests(None).of(tmp_path, is_read=True)
    for name in ("README.md", "train.log", ".DS_Store", "Thumbs.db", "~$table.xlsx"):
        (tmp_path / name).write_text("about it")
        assert Digests(None).of(tmp_path, is_read=True) == before
    (tmp_path / "labels.txt").write_text("0 0.5")
    assert Digests(None).of(tmp_path, is_read=True) != before


def test_what_is_new_other_or_gone_of_a_data_set_is_known(tmp_path):
    data, out = tmp_path / "data", tmp_path / "data" / "run"
    out.mkdir(parents=True)
    for name in "abc":
        (data / f"{name}.png").write_bytes(name.encode())
    (out / "result.png").write_bytes(b"1")
    first = Digests(out, out)
    assert first.changes(data) == []
    first.of(data, is_read=True)
    first.of(out / "result.png")
    first.save()
    assert Digests(out, out).changes(data) == []
    (data / "a.png").write_bytes(b"other")
    (data / "b.png").unlink()
    (data / "d.png").write_bytes(b"new")
    (data / "note.log").write_text("nothing")
    (out / "result.png").unlink()
    assert Digests(out, out).changes(data) == ["a.png", "b.png", "d.png"]


def test_a_data_set_is_walked_once_for_all_steps(tmp_path, monkeypatch):
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    (data / "image.png").write_bytes(b"1")
    steps = {name: replace(step, reads=(data,)) for name, step in graph(out).items()}
    asked = []
    walk = Digests.of
    monkeypatch.setattr(
        Digests, "of", lambda self, path, **how: asked.append(path) or walk(self, path)
    )
    run(out, steps)
    assert asked.count(data) == 1


def test_what_is_kept_aside_is_counted_and_forgotten_when_asked(tmp_path):
    out = tmp_path / "out"
    run(out, graph(out))
    history = History(out, Path("data"), Digests(None, out))
    assert history.earlier() == (0, 0)
    run(out, graph(out, a="other"))
    count, size = history.earlier()
    # a and what is fused of it.
    assert count == 2
    assert size > 0
    history.forget()
    assert history.earlier() == (0, 0)
    _, place = run(out, graph(out))
    assert place.ran == ["a", "c", "d"]


def test_results_of_models_with_points_are_kept_apart(tmp_path):
    out = tmp_path / "out"

    def steps(epochs):
        made = {name: out / name for name in ("v1.5", "v1.6")}
        return {
            name: Step(f"train {name}", ("train", epochs), (path,)) for name, path in made.items()
        }

    run(out, {step.name: step for step in steps("1").values()})
    run(out, {step.name: step for step in steps("2").values()})
    assert History(out, Path("data"), Digests(None, out)).earlier()[0] == 2
    _, place = run(out, {step.name: step for step in steps("1").values()})
    assert place.ran == []


def test_where_nothing_can_be_written_all_steps_are_stopped(tmp_path, monkeypatch):
    out = tmp_path / "out"

    class Full(Quiet):
        def tick(self):
            def refuse(self, name, record):
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(History, "write", refuse)
            raise KeyboardInterrupt

    place, closed = Place(Capacity(8, ("0", "1"))), []
    place.close = lambda: closed.append(True)
    with pytest.raises(OSError, match="No space left"):
        execute(graph(out), History(out, Path("data"), Digests(None, out)), place, Full())
    assert place.most == 2
    assert place.working == []
    assert closed
