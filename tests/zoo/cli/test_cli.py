import json
import re
import subprocess
import sys

import pytest
import typer

from fusion.fit import FITS
from fusion.metrics.measures import FAST, MEASURES
from zoo.cli import app
from zoo.cli.options import COMMANDS

pytestmark = pytest.mark.slow

TINY = ("size=[64,64]", "epochs=1", "batch=4", "init=null", "cache=memory")


@pytest.fixture(scope="module")
def work(zoo, tmp_path_factory):
    """A data set, its folds, a trained run, and its predictions."""
    root = tmp_path_factory.mktemp("work")
    data = root / "data"
    zoo("phantom", data, "--people", 4, "--test-people", 1, "--size", 256)
    zoo("split", data, "--out", root / "split.json", "--folds", 2)
    source = ("--data", data, "--split", root / "split.json", "--fold", 0)
    zoo("train", "smp", "--config", "demo", *source, "--out", root / "run", *TINY)
    for subset in ("val", "test"):
        chosen = ("--data", data, "--subset", subset)
        zoo("predict", root / "run", *chosen, "--out", root / subset / "a")
        zoo("predict", root / "run", *chosen, "--tta", "hflip", "--out", root / subset / "b")
    return root


@pytest.mark.slow
def test_the_whole_way(zoo, work, capsys):
    stores = {s: (work / s / "a", work / s / "b") for s in ("val", "test")}
    rule, submission = work / "fusion.yaml", work / "submission.csv"
    zoo("fit", *stores["val"], "--data", work / "data", "--out", rule)
    zoo("fuse", *stores["test"], "--config", rule, "--out", submission)
    zoo("check", submission, "--data", work / "data")
    zoo("evaluate", submission, "--data", work / "data", "--json", work / "scores.json")
    scores = json.loads((work / "scores.json").read_text(encoding="utf-8"))
    assert scores["images"] == 2
    assert 0 <= scores["dice"] <= 1
    assert len(submission.read_text(encoding="utf-8").splitlines()) == 1 + 2 * 29
    assert "valid" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["mean", "vote", "hybrid"])
@pytest.mark.slow
def test_fusing_by_name(zoo, work, tmp_path, method):
    out = tmp_path / "submission.csv"
    zoo("fuse", work / "test" / "a", work / "test" / "b", "--out", out, "--method", method)
    zoo("check", out, "--data", work / "data")


@pytest.mark.slow
def test_a_store_and_its_submission_score_alike(zoo, work, tmp_path):
    store, out = work / "test" / "a", tmp_path / "submission.csv"
    zoo("fuse", store, "--out", out, "--method", "mean")
    for name, source in (("store", store), ("csv", out)):
        zoo("evaluate", source, "--data", work / "data", "--json", tmp_path / f"{name}.json")
    store_scores, csv_scores = (
        json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("store", "csv")
    )
    assert store_scores["dice"] == csv_scores["dice"]


def test_a_finished_run_is_not_trained_again(zoo, work, capsys):
    source = ("--data", work / "data", "--split", work / "split.json", "--fold", 0)
    before = (work / "run" / "metrics.csv").read_bytes()
    zoo("train", "smp", "--config", "demo", *source, "--out", work / "run", *TINY)
    assert (work / "run" / "metrics.csv").read_bytes() == before


def test_other_settings_do_not_continue_a_run(zoo, work, capsys):
    source = ("--data", work / "data", "--split", work / "split.json", "--fold", 1)
    changes = (*TINY, "optim.lr=0.125", "augment=[]")
    zoo("train", "smp", "--config", "demo", *source, "--out", work / "run", *changes, code=2)
    said = capsys.readouterr().err
    assert "same settings" in said
    assert "fold: 0 -> 1" in said
    assert "optim.lr: 0.0005 -> 0.125" in said
    assert "-> []" in said
    assert "epochs" not in said
    zoo("train", "segformer", "--config", "demo", *source, "--out", work / "run", code=2)
    assert ": family: smp -> segformer; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("subset", ["train", "test"])
@pytest.mark.slow
def test_weights_are_fitted_on_held_out_images_only(zoo, work, tmp_path, capsys, subset):
    chosen = ("--data", work / "data", "--subset", subset)
    zoo("predict", work / "run", *chosen, "--out", tmp_path / "learnt")
    zoo("fit", tmp_path / "learnt", "--data", work / "data", "--out", tmp_path / "f.yaml", code=2)
    assert "held-out" in capsys.readouterr().err
    assert not (tmp_path / "f.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "smp", "--config", "none", "--out", "{t}/r"), "no such file"),
        (("train", "smp", "--config", "demo", "--out", "{t}/r", "sise=3"), "unknown key 'sise'"),
        (("train", "smp", "--config", "demo", "--out", "{t}/r", "epochs=many"), "'epochs'"),
        (("train", "smp", "--config", "demo", "--out", "{t}/r", "init=nothing"), "no such file"),
        (("train", "magic", "--config", "demo", "--out", "{t}/r"), "expected one of smp"),
        (("train", "UNet++", "--out", "{t}/r"), "smp --config unetplusplus_efficientnet_b3"),
        (("train", "yolo11x", "--out", "{t}/r"), "a family: yolo --config yolo11x_1024"),
        (("train", "RF-DETR", "--out", "{t}/r"), "'rfdetr' is how it is written"),
    ],
)
@pytest.mark.slow
def test_a_bad_training_command_is_one_line(zoo, work, tmp_path, capsys, arguments, said):
    source = ("--data", work / "data", "--split", work / "split.json")
    zoo(*(a.format(t=tmp_path) for a in arguments), *source, code=2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "r").exists()


def test_a_rule_with_other_sources_is_refused(zoo, work, tmp_path, capsys):
    rule = tmp_path / "fusion.yaml"
    rule.write_text("method: hybrid\nsources: [x, y]\nclasses: {}\n", encoding="utf-8")
    stores = (work / "test" / "a", work / "test" / "b")
    zoo("fuse", *stores, "--config", rule, "--out", tmp_path / "s.csv", code=2)
    assert "expects the sources x, y" in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.slow
def test_a_submission_of_other_images_is_refused(zoo, work, tmp_path, capsys):
    out = tmp_path / "s.csv"
    zoo("fuse", work / "val" / "a", "--out", out, "--method", "mean")
    zoo("check", out, "--data", work / "data", "--subset", "test", code=2)
    told = capsys.readouterr().err
    assert re.search(r"expected images of .*data, subset 'test', such as .* found 4 others", told)
    # Just those that the split beside the data holds out are meant where nothing else is said.
    zoo("check", out, "--data", work / "data")
    assert f"taken: subset val; split {work / 'split.json'}" in capsys.readouterr().out


def test_missing_data_is_one_line(zoo, tmp_path, capsys):
    zoo("split", tmp_path / "nothing", "--out", tmp_path / "s.json", code=2)
    assert "expected a data set's folder" in capsys.readouterr().err


@pytest.mark.parametrize("topic", ["families", "formats", "fusions", "configs"])
def test_listing(zoo, topic, capsys):
    zoo("list", topic)
    assert len(capsys.readouterr().out.splitlines()) >= 3


@pytest.mark.slow
def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "zoo", "--debug", "split", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from zoo.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'cv2', 'torch', 'shapely', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.fixture(scope="module")
def helps():
    """What is said of each option of the commands around predictions: command -> option -> text."""
    commands = typer.main.get_command(app).commands
    names = ("fit", "fuse", "check", "evaluate", "compare", "report")
    return {name: {p.name: p.help for p in commands[name].params} for name in names}


def test_help_lists_groups_and_commands_in_the_order_of_the_work(zoo, capsys):
    zoo("--help")
    lines = capsys.readouterr().out.splitlines()
    groups = [line.split()[1] for line in lines if line.startswith("╭─")]
    assert groups == ["Options", "Data", "Models", "Results", "The", "Looking"]
    found = [line.split()[1] for line in lines if re.match(r"│ [a-z]", line)]
    assert found == list(COMMANDS)


def test_every_option_is_explained_in_a_sentence(helps):
    for command, options in helps.items():
        for name, text in options.items():
            assert text, (command, name)
            assert name == "help" or (text[0].isupper() and text[-1] == "."), (command, name, text)


def test_what_is_offered_is_what_there_is(helps):
    metrics = helps["evaluate"]["metrics"]
    assert f"Some of {', '.join(MEASURES)}, with" in metrics
    assert f"fast ({', '.join(FAST)})" in metrics
    assert helps["fit"]["method"] == f"The rule: {', '.join(FITS)}."
