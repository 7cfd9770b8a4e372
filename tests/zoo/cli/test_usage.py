"""What is wrong with the words of a command is one line, and says where to read more."""

from __future__ import annotations

import re

import pytest

from zoo.cli import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["convert", "--nonsense"], r"no such option: --nonsense \(see zoo convert --help\)"),
        (
            ["train", "smp", "--epochs", "2"],
            r"no such option: --epochs; keys of the config are written epochs=2 \(see zoo train",
        ),
        (
            ["train", "smp", "--batch-size=4"],
            r"no such option: --batch-size; keys of the config are written batch_size=4 \(see",
        ),
        (["convet"], r"no such command 'convet'. Did you mean 'convert'\? \(see zoo --help\)"),
        # How an argument is called depends on Typer's version.
        (["train"], r"missing argument '.*' \(see zoo train --help\)"),
        (["list", "cats"], "invalid value for '.*': 'cats' is not one of 'configs', 'models'"),
        (["convert", "--jobs", "two"], "invalid value for '--jobs': .*'two'"),
        (["convert", "--to"], "option '--to' requires an argument"),
        (["convert", "--to", "yolo", "--data"], "option '--data' requires an argument"),
        (
            ["predict", "x", "--tta", "scale:0.75", "--tta=hflip"],
            "option '--tta' expected once, found 2 times; where it takes several, commas stand",
        ),
    ],
)
def test_it_is_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.match(f"zoo: {line}", said.err)
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["fuse", "--help"], 0)])
def test_help_is_shown(words, code, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    said = capsys.readouterr()
    assert "Usage: zoo" in said.out + said.err
    assert "see zoo" not in said.err


@pytest.mark.parametrize("words", [["--data", "DATA"], ["--data=DATA"], ["DATA"]])
@pytest.mark.parametrize("command", [["convert", "--to", "yolo"], ["audit"], ["split"]])
def test_a_data_set_is_named_alike_everywhere(command, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*command, *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("zoo: DATA: expected a data set")


def test_what_takes_several_may_be_given_again(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "smp", "--also", "a", "--also", "b", "--debug", "--debug"])
    assert "expected once" not in capsys.readouterr().err


def test_a_data_set_is_named_once(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["convert", "--data", "a", "b", "--to", "yolo"])
    assert ended.value.code == 2
    assert "--data: expected one data set, found b and a" in capsys.readouterr().err


def test_a_data_set_too_many_is_told_how_it_is_named(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["predict", "runs/a", str(tmp_path)])
    assert ended.value.code == 2
    assert f"; --data {tmp_path} names a data set" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "runs/a", "size=512"])
    assert "names a data set" not in capsys.readouterr().err
