"""What commands write replaces nothing that is somebody's: one line, exit code 2, all kept."""

import json

import pytest

from converters.types import LabelSpace
from fusion.sources.store import Manifest, StoreWriter
from fusion.types import Prediction
from zoo.cli import main

pytestmark = pytest.mark.slow

LABELS = LabelSpace.load("hand_bones")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "data"
    run("phantom", folder, "--people", "4", "--test-people", "1", "--size", "256")
    return folder


@pytest.fixture
def store(tmp_path):
    manifest = Manifest("semantic", LABELS.name, LABELS.names, {"a": (8, 8, "a.png")})
    with StoreWriter(tmp_path / "store", manifest) as writer:
        writer.append(Prediction("a", (8, 8), "semantic", {}))
    return tmp_path / "store"


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def test_a_folder_that_merely_holds_a_manifest_is_kept(store, tmp_path, capsys):
    app = tmp_path / "webapp"
    (app / "src").mkdir(parents=True)
    (app / "manifest.json").write_text("{}")
    (app / "src" / "thesis.tex").write_text("precious")
    refused(capsys, "fuse", store, "--method", "mean", "--format", "store", "--out", app)
    assert (app / "src" / "thesis.tex").read_text() == "precious"


def test_a_store_with_somebody_s_file_in_it_is_kept(store, tmp_path, capsys):
    run("fuse", store, "--method", "mean", "--format", "store", "--out", tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("precious")
    command = ("fuse", store, "--method", "mean", "--format", "store", "--out", tmp_path / "b")
    assert "found one with 'notes.txt' in it" in refused(capsys, *command)
    assert (tmp_path / "b" / "notes.txt").read_text() == "precious"


def test_somebody_s_list_beside_a_submission_is_kept(store, tmp_path, capsys):
    flags = tmp_path / "out.flags.csv"
    flags.write_text("country,flag\n")
    refused(capsys, "fuse", store, "--method", "mean", "--out", tmp_path / "out.csv")
    assert flags.read_text() == "country,flag\n"
    assert not (tmp_path / "out.csv").exists()


# The contact sheet needs torch, which takes seconds to import.
@pytest.mark.parametrize("command", ["split", "evaluate", "runs", "augment", "report", "compare"])
def test_somebody_s_file_is_kept(command, data, store, tmp_path, capsys):
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("precious")
    arguments = {
        "split": (data, "--out", thesis),
        "evaluate": (store, "--data", data, "--json", thesis),
        "runs": (tmp_path, "--csv", thesis),
        "augment": ("smp", "--config", "demo", "--data", data, "--preview", thesis),
        "report": (store, "--data", data, "--out", tmp_path / "r", "--json", thesis),
        "compare": (store, store, "--out", tmp_path / "c", "--json", thesis),
    }
    error = refused(capsys, command, *arguments[command])
    assert "thesis.tex: expected nothing there, or " in error
    assert thesis.read_text() == "precious"


def test_other_folds_are_replaced_only_on_request(data, tmp_path, capsys):
    out = tmp_path / "split.json"
    command = ("split", str(data), "--folds", "2", "--out", str(out))
    run(*command)
    run(*command)
    before = out.read_text()
    assert "give --replace" in refused(capsys, *command, "--seed", "5")
    assert out.read_text() == before
    run(*command, "--seed", "5", "--replace")
    assert json.loads(out.read_text())["seed"] == 5


def test_an_image_of_a_result_can_be_changed_without_harm(data, tmp_path):
    for extra, is_shared in (([], False), (["--link"], True)):
        out = tmp_path / f"yolo{len(extra)}"
        run("convert", data, "--to", "yolo", "--out", out, *extra)
        image = next((out / "images").rglob("*.png"))
        source = next((data / "train" / "DCM").rglob(image.name))
        assert image.samefile(source) == is_shared
        assert image.read_bytes() == source.read_bytes()


def test_a_submission_says_where_it_came_from(store, tmp_path, capsys):
    out = tmp_path / "out.csv"
    run("fuse", store, "--method", "mean", "--out", out)
    record = tmp_path / "out.provenance.json"
    found = json.loads(record.read_text())
    assert found["command"][0] == "zoo"
    assert found["config"]["sources"] == [str(store)]
    assert "mean" in found["config"]["rule"].lower()
    assert LabelSpace.of_record(found["labels"]).names == LABELS.names
    assert "numpy" in found["versions"]
    # Again it is replaced; what is somebody's is kept, and no submission is written.
    run("fuse", store, "--method", "mean", "--out", out)
    out.unlink()
    record.write_text('{"precious": 1}')
    assert "the record of a submission" in refused(
        capsys, "fuse", store, "--method", "mean", "--out", out
    )
    assert record.read_text() == '{"precious": 1}'
    assert not out.exists()
