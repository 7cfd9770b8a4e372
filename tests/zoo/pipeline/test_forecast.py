"""What a pipeline takes on paper: how long, and the bytes that move."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from zoo.phantom.config import PhantomConfig
from zoo.phantom.tree import write_phantom
from zoo.pipeline import command, forecast, pipeline
from zoo.pipeline import plan as planning
from zoo.pipeline.command import PlanOptions, run_command
from zoo.pipeline.forecast import schedule
from zoo.pipeline.steps import Step
from zoo.pipeline.survey import profile
from zoo.pipeline.survey.rates import Cost

pytestmark = pytest.mark.slow

RECIPE = """
data: data
split: {folds: 2}
models:
  small: {family: smp, config: laptop, changes: {epochs: 10, size: [64, 64]}}
refiner: true
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_phantom(Path("data"), PhantomConfig(people=2, test_people=1, size=256))
    Path("toy.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(forecast, "cost_of", lambda *given: Cost(0.5, 1e9))
    monkeypatch.setattr(planning, "cost_of", lambda *given: Cost(0.5, 1e9))
    return tmp_path


def told(what, **given):
    lines = []
    options = PlanOptions(**given)
    run_command(what, None, options, dry_run=True, on="", command=[], say=lines.append)
    return lines


def row(lines, name):
    return (
        next(line for line in lines if line.startswith(name + " ")).removeprefix(name).split("  ")
    )


def hours_and_bytes(lines):
    said = next(line for line in lines if " steps, " in line and "machine" in line)
    return said.partition(" of work: ")[2].partition(" on ")[0], said.rpartition("; ")[2].split()


def test_more_machines_take_less_time_and_move_more(folder):
    one, four = told("toy.yaml", machine="1xV100"), told("toy.yaml", machine="4xV100")
    assert "on 1 machine;" in " ".join(one)
    assert "on 4 machines;" in " ".join(four)
    (_, first), (_, then) = hours_and_bytes(one), hours_and_bytes(four)
    data = sum(path.stat().st_size for path in Path("data").rglob("*") if path.is_file())
    # Every further machine is brought the data.
    gained = (float(then[0]) - float(first[0])) * {"MB": 1e6}[then[1]]
    assert gained == pytest.approx(3 * data, abs=1e5)


def test_a_step_is_told_what_it_is_brought(folder):
    lines = told("toy.yaml", machine="1xV100")
    assert "+ data" in " ".join(row(lines, "train small 0"))
    assert "+ data" not in " ".join(row(lines, "fuse"))
    # Two runs' weights, without what their training goes on from.
    assert float(" ".join(row(lines, "predict small val")).split()[2]) == pytest.approx(20, rel=0.2)


def test_as_if_there_were_more_images(folder):
    few = told("toy.yaml", machine="1xV100")
    many = told("toy.yaml", machine="1xV100", images=400000)
    assert "h" in " ".join(row(many, "train small 0")).split()[1]
    assert "GB" in hours_and_bytes(many)[1]
    assert "MB" in hours_and_bytes(few)[1]


def test_images_without_a_machine_are_refused(folder):
    with pytest.raises(ValueError, match="--images: expected with --dry-run --machine"):
        told("toy.yaml", images=10)


def test_images_to_answer_are_looked_at_once(folder, monkeypatch):
    calls, look = [], pipeline.look_at_test

    def counted(*given):
        calls.append(given)
        return look(*given)

    for module in (pipeline, profile):
        monkeypatch.setattr(module, "look_at_test", counted)
    monkeypatch.setattr(forecast, "_run_size", lambda *given: 1e7)
    assert told("data", machine="1xV100")
    assert len(calls) == 1
    assert command.Pipeline is pipeline.Pipeline


@pytest.mark.parametrize(("machines", "seconds"), [(1, 9), (2, 5), (9, 4)])
def test_machines_share_the_steps(machines, seconds):
    steps = {
        "a": Step("a", ("x",)),
        "b": Step("b", ("x",)),
        "c": Step("c", ("x",)),
        "both": Step("both", needs=("a", "b")),
        "end": Step("end", ("x",), needs=("both",)),
    }
    assert schedule(steps, {"a": 3, "b": 2, "c": 3, "end": 1}, machines) == seconds


@pytest.mark.parametrize(("machines", "seconds"), [(1, 6), (2, 6), (4, 3)])
def test_a_network_on_two_gpus_takes_two(machines, seconds):
    steps = {name: Step(name, ("train",), kind="device", devices=2) for name in "ab"}
    assert schedule(steps, {"a": 3, "b": 3}, machines) == seconds


@pytest.mark.parametrize(
    ("on", "through", "found"),
    [
        ("", "file:///x", "expected with --on"),
        ("ray", "sftp://me:secret@host/x", "expected no password"),
    ],
)
def test_a_place_that_cannot_be_is_refused(folder, on, through, found):
    with pytest.raises(ValueError, match=found) as error:
        run_command(
            "toy.yaml",
            None,
            PlanOptions(),
            dry_run=True,
            on=on,
            through=through,
            command=[],
            say=print,
        )
    assert "secret" not in str(error.value)
