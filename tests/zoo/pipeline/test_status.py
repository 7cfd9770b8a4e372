"""What `zoo status` tells of a pipeline and of the machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from converters.files.provenance import write_provenance
from zoo.pipeline.pipeline import Pipeline, is_pipeline
from zoo.pipeline.recipe import Recipe
from zoo.pipeline.record import slug
from zoo.pipeline.status import (
    LAST_LINES,
    data_of,
    describe_node,
    describe_status,
    list_steps,
    post,
)

RECORDS = {
    "split": {"key": "a", "state": "done", "seconds": 2.0},
    "train-unet-0": {"key": "b", "state": "begun"},
    "train-yolo-0": {"key": "c", "state": "failed", "seconds": 70.0, "message": "no room"},
}


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "run"
    for name in ("steps", "logs"):
        (out / name).mkdir(parents=True)
    write_provenance(out, ["zoo", "run"], kind="pipeline")
    for name, record in RECORDS.items():
        (out / "steps" / f"{name}.json").write_text(json.dumps(record))
    log = out / "logs" / "train-unet-0.log"
    log.write_text("$ zoo train\ntrain smp: 1/9 (epoch 1)\ntrain smp: 4/9, 0.2/s\nother words\n")
    return out


def test_steps_and_how_far_they_are(folder):
    lines = describe_status(folder, "")
    assert lines[0].endswith("run: steps: 1 begun, 1 done, 1 failed")
    assert "  train-unet-0: train smp: 4/9, 0.2/s" in lines
    assert "  train-yolo-0: failed after 70 s: no room" in lines


def test_the_machine(folder):
    told = describe_status(None, "")
    assert len(told) == 1
    for word in ("here: ", "load ", "memory ", "disk "):
        assert word in told[0]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the folder of `zoo run`"):
        describe_status(tmp_path, "")


def test_what_is_no_cluster_is_refused():
    with pytest.raises(ValueError, match="--on nonsense"):
        describe_status(None, "nonsense")


@pytest.mark.parametrize("code", [200, 500])
def test_it_is_posted(code):
    taken = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            taken.append(json.loads(self.rfile.read(length)))
            self.send_response(code)
            self.end_headers()

        def log_message(self, *words): ...

    with HTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x"
        if code == 200:
            post(["one", "two"], address)
        else:
            with pytest.raises(ValueError, match="--post: expected a webhook"):
                post(["one", "two"], address)
    assert taken == [{"text": "one\ntwo"}]


def test_an_address_that_is_none_is_not_shown():
    with pytest.raises(ValueError, match="--post") as error:
        post(["x"], "secret-token")
    assert "secret-token" not in str(error.value)


def test_steps_are_listed_with_their_last_words(folder):
    (folder / "logs" / "train-yolo-0.log").write_text("\n".join(f"line {n}" for n in range(50)))
    found = {step.name: step for step in list_steps(folder)}
    assert {name: step.state for name, step in found.items()} == {
        name: record["state"] for name, record in RECORDS.items()
    }
    assert found["train-yolo-0"].last_lines == tuple(f"line {n}" for n in range(50))[-LAST_LINES:]
    assert found["train-yolo-0"].seconds == 70
    assert found["train-unet-0"].progress == "train smp: 4/9, 0.2/s"
    assert 0 <= found["train-unet-0"].seconds < 300
    assert (found["split"].last_lines, found["split"].out) == ((), None)


RECIPE = """
phantom: {people: 4, test_people: 1}
models:
  unet: {family: smp, config: laptop, folds: 0}
  yolo: {family: yolo, config: laptop, folds: 0}
"""


def test_steps_that_have_not_begun_are_listed_in_the_order_of_the_graph(folder):
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "steps" / "train-older-0.json").write_text(json.dumps(RECORDS["split"]))
    steps = list_steps(folder)
    planned = Pipeline.open(Recipe.load(str(folder / "recipe.yaml")), folder).steps.values()
    names = [slug(step.name) for step in planned if step.words]
    assert [step.name for step in steps] == [*names, "train-older-0"]
    waiting = {name: "waiting" for name in names if name not in RECORDS}
    states = {step.name: step.state for step in steps if step.name != "train-older-0"}
    assert states == {**waiting, **{name: record["state"] for name, record in RECORDS.items()}}
    predict = next(step for step in steps if step.name == "predict-unet-test")
    assert predict.command[:2] == ("predict", str(folder / "runs" / "unet"))
    fuse = next(step for step in steps if step.name == "fuse")
    assert str(folder / "test" / "yolo") in fuse.command
    counted = f"1 begun, 2 done, 1 failed, {len(waiting)} waiting"
    assert describe_status(folder, "")[0].endswith(f"steps: {counted}")


def test_without_its_data_set_what_has_begun_is_listed(folder):
    text = RECIPE.replace("phantom: {people: 4, test_people: 1}", "data: ../gone")
    (folder / "recipe.yaml").write_text(text)
    assert {step.name for step in list_steps(folder)} == set(RECORDS)


def test_what_a_step_writes_is_told_by_its_command(folder):
    record = {**RECORDS["split"], "command": ["split", "data", "--out", "run/split.json"]}
    (folder / "steps" / "split.json").write_text(json.dumps(record))
    found = {step.name: step for step in list_steps(folder)}
    assert str(found["split"].out) == "run/split.json"


def test_the_data_set_is_that_of_the_recipe(folder, tmp_path):
    assert is_pipeline(folder)
    assert not is_pipeline(tmp_path)
    assert data_of(folder) is None
    (tmp_path / "mine").mkdir()
    models = "models: {unet: {family: smp, config: demo}}"
    (folder / "recipe.yaml").write_text(f"data: ../mine\n{models}\n")
    assert data_of(folder).resolve() == tmp_path / "mine"
    (folder / "recipe.yaml").write_text(f"data: ../gone\n{models}\n")
    assert data_of(folder) is None
    (folder / "data").mkdir()
    (folder / "recipe.yaml").write_text(f"phantom: {{people: 4}}\n{models}\n")
    assert data_of(folder) == folder / "data"


def test_what_waits_to_be_moved(folder):
    told = {"pipeline": "a1", "waiting": {"train unet 0: to the place": 12_000_000}}
    (folder / "transfers.json").write_text(json.dumps(told))
    lines = describe_status(folder, "")
    assert "  train unet 0: to the place: 12.0 MB wait to be moved" in lines


def test_a_node_s_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKZOO_NODE", str(tmp_path / "node"))
    assert "keeps" not in describe_node(str(tmp_path))
    kept = tmp_path / "node" / "files" / "ab"
    kept.mkdir(parents=True)
    with (kept / "abcd").open("wb") as file:
        file.truncate(300_000_000)
    assert f"{tmp_path / 'node'} keeps 0.3 GB of files" in describe_node(str(tmp_path))
