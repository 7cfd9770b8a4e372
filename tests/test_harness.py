"""A short run of the fuzzer and of the killer: every command keeps their rule, the server too."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.long]


def run(tool, *options):
    command = [sys.executable, ROOT / "tools" / tool, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_broken_inputs(tmp_path):
    said = run("fuzz.py", "--count", 60, "--seed", 3, "--keep", tmp_path)
    assert "60 cases, 0 against the rule" in said


def test_odd_requests(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("uvicorn")
    options = ("--trained", "--only", "serve", "--seed", 3, "--keep", tmp_path)
    assert "60 cases, 0 against the rule" in run("fuzz.py", "--count", 60, *options)


def test_killed_commands():
    said = run("kill.py", "--count", 6, "--seed", 3, "--no-trained", "--only", "[cf][ou]*[ob]")
    assert "6 cases, 0 against the rule" in said
