from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import converters
from converters.files.provenance import (
    atomic_write_text,
    environment,
    link_or_copy,
    read_provenance,
    result_folder,
    write_provenance,
)


def test_result_appears_when_it_is_whole(tmp_path):
    out = tmp_path / "deep" / "out"
    with result_folder(out, "masks", {"command": "zoo convert"}) as folder:
        (folder / "a.txt").write_text("1")
        assert not out.exists()
    assert sorted(p.name for p in out.iterdir()) == ["a.txt", "provenance.json"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_previous_result(tmp_path, error):
    out = tmp_path / "out"
    with result_folder(out, "masks") as folder:
        (folder / "old.txt").write_text("old")

    def fail():
        with result_folder(out, "masks") as folder:
            (folder / "new.txt").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert sorted(p.name for p in out.iterdir()) == ["old.txt", "provenance.json"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_killed_run_is_cleared_away(tmp_path):
    out = tmp_path / "out"
    program = (
        "import os, sys; from pathlib import Path\n"
        "from converters.files.provenance import result_folder\n"
        "with result_folder(Path(sys.argv[1]), 'masks') as folder:\n"
        "    (folder / 'half.txt').write_text('x'); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(out)], check=False)
    assert done.returncode == 9
    assert not out.exists()
    with result_folder(out, "masks") as folder:
        (folder / "whole.txt").write_text("x")
    assert sorted(p.name for p in out.iterdir()) == ["provenance.json", "whole.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with result_folder(tmp_path / "out", "masks"):
        pass
    assert read_provenance(tmp_path / "out")["kind"] == "masks"


def test_result_behind_a_symbolic_link_stays_there(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with result_folder(tmp_path / "out", "masks") as folder:
        (folder / "a.txt").write_text("1")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "a.txt").is_file()


@pytest.mark.parametrize("kind", ["yolo", None, "file"])
def test_other_things_are_refused(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("x")
    elif kind:
        with result_folder(out, kind):
            pass
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("x")
    found = "a result of 'yolo'" if kind == "yolo" else "something else"
    with (
        pytest.raises(ValueError, match=f"result of 'masks' to replace; found {found}"),
        result_folder(out, "masks"),
    ):
        pass
    assert out.exists()


def test_provenance(tmp_path):
    write_provenance(tmp_path, ["zoo", "train"], {"lr": 1e-3}, 0, "abc")
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["kind"] == "run"
    assert record["command"] == ["zoo", "train"]
    assert (record["config"], record["seed"], record["split"]) == ({"lr": 1e-3}, 0, "abc")
    assert {"python", "numpy", "shapely"} <= set(record["versions"])
    assert str(tmp_path) not in json.dumps(record)


def test_the_commit_of_a_checkout_is_recorded():
    root = Path(converters.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("no checkout")
    found = subprocess.run(
        ["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert environment()["git"].removesuffix("-dirty") == found.stdout.strip()


def test_folder_without_provenance(tmp_path):
    assert read_provenance(tmp_path) == {}
    (tmp_path / "provenance.json").write_text("{")
    assert read_provenance(tmp_path) == {}


def test_text_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    atomic_write_text(path, "뼈\n")
    assert path.read_bytes() == "뼈\n".encode()
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "뼈\n"
    assert list(path.parent.iterdir()) == [path]


def test_link_or_copy(tmp_path, monkeypatch):
    source = tmp_path / "a.png"
    source.write_bytes(b"pixels")
    link = tmp_path / "link.png"
    link.symlink_to(source)
    link_or_copy(link, tmp_path / "out" / "a.png")
    assert os.path.samefile(source, tmp_path / "out" / "a.png")
    assert not (tmp_path / "out" / "a.png").is_symlink()

    with pytest.raises(FileExistsError):
        link_or_copy(link, tmp_path / "out" / "a.png")

    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(link, tmp_path / "out" / "b.png")
    assert not os.path.samefile(source, tmp_path / "out" / "b.png")
    assert (tmp_path / "out" / "b.png").read_bytes() == b"pixels"


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (Path(), tmp_path):
        expected = pytest.raises(ValueError, match="found the folder that you are in")
        with expected, result_folder(out, "phantom"):
            pass
    assert not list(tmp_path.iterdir())
    with result_folder(Path("phantom"), "phantom"):
        pass
