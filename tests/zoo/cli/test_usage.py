"""What is wrong with the words of a command is one line, and says where to read more."""

from __future__ import annotations

import pytest

from zoo.cli import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["convert", "--nonsense"], "no such option: --nonsense (see zoo convert --help)"),
        (["convet"], "no such command 'convet'. Did you mean 'convert'? (see zoo --help)"),
        (["train"], "missing argument 'family' (see zoo train --help)"),
        (["list", "cats"], "invalid value for 'topic': 'cats' is not one of 'configs', 'models'"),
        (["convert", "--jobs", "two"], "invalid value for '--jobs': "),
        (["convert", "--to"], "option '--to' requires an argument"),
    ],
)
def test_it_is_one_line(words, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"zoo: {line}")
    assert said.err.count("\n") == 1
    assert "'two'" in said.err or words[-1] != "two"


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["fuse", "--help"], 0)])
def test_help_is_shown(words, code, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == code
    said = capsys.readouterr()
    assert "Usage: zoo" in said.out + said.err
    assert "see zoo" not in said.err
