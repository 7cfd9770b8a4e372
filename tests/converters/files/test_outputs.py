"""Nothing is replaced but what a command recognises as its own; one command writes at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converters.files.outputs import check_file, csv_with, json_with, only_writer, real_place
from converters.files.provenance import result_folder

is_table = csv_with(("image", "class"))


@pytest.fixture
def written(tmp_path):
    with result_folder(tmp_path / "out", "masks") as folder:
        (folder / "masks").mkdir()
        (folder / "masks" / "a.png").write_bytes(b"1")
    return tmp_path / "out"


def replace(out):
    with result_folder(out, "masks") as folder:
        (folder / "new.txt").write_text("new")


# --- files


@pytest.mark.parametrize("text", ["", "image,class\n", "image,class,rle\na,b,1 2\n"])
def test_a_file_of_the_same_kind_is_replaced(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    check_file(tmp_path / "a.csv", "a table", is_table)
    check_file(tmp_path / "none.csv", "a table", is_table)


@pytest.mark.parametrize("text", ["thesis", "image,classes\n", "class,image\n", "\n"])
def test_another_file_is_kept(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv: expected nothing there, or a table to replace"):
        check_file(tmp_path / "a.csv", "a table", is_table)


def test_a_file_cannot_be_made_in_a_file(tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    place = tmp_path / "mine.txt" / "new" / "a.csv"
    with pytest.raises(ValueError, match=r"expected a file in a folder, but .*mine\.txt is none"):
        check_file(place, "a table", is_table)
    check_file(tmp_path / "new" / "folder" / "a.csv", "a table", is_table)


def test_a_file_cannot_be_made_in_a_protected_folder(tmp_path, monkeypatch):
    # Of the superuser the system refuses nothing.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=r"but .* is write-protected"):
        check_file(tmp_path / "new" / "a.csv", "a table", is_table)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="expected a file to write, found a folder"):
        check_file(tmp_path, "a table", is_table)


@pytest.mark.parametrize("text", ["[]", "{", "1", '{"folds": 1}', "[" * 100_000])
def test_json_is_recognised_by_its_keys(text):
    assert not json_with("folds", "seed")(text)
    assert json_with("folds", "seed")('{"seed": 1, "folds": 2, "more": 3}')


# --- links


def test_a_link_is_followed_only_to_a_free_place(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert real_place(tmp_path / "link") == tmp_path / "disk"
    (tmp_path / "disk").mkdir()
    assert real_place(tmp_path / "link") == tmp_path / "disk"
    (tmp_path / "disk" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"a symbolic link to .*disk: give that place itself"):
        real_place(tmp_path / "link")


def test_a_link_that_leads_in_a_circle_is_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="a: expected a place to write"):
        real_place(tmp_path / "a")


def test_a_result_behind_a_link_is_not_replaced(written, tmp_path):
    (tmp_path / "latest").symlink_to(written)
    with pytest.raises(ValueError, match=r"latest: .* a symbolic link to"):
        replace(tmp_path / "latest")
    assert (written / "masks" / "a.png").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_what_is_read_without_an_end_is_no_place_to_write(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="expected a file to write, found a device or a pipe"):
        check_file(tmp_path / "pipe", "a table", is_table)


# --- folders


def test_a_result_is_replaced_as_a_whole(written):
    replace(written)
    assert sorted(p.name for p in written.iterdir()) == ["new.txt", "provenance.json"]


CHANGES = {
    "a file more": lambda out: (out / "masks" / "thesis.tex").write_text("x"),
    "another content": lambda out: (out / "masks" / "a.png").write_bytes(b"corrected"),
    "a file less": lambda out: (out / "masks" / "a.png").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_result_that_somebody_changed_is_kept(change, written):
    change(written)
    before = sorted(written.rglob("*"))
    with pytest.raises(ValueError, match="found files that were added, changed or removed since"):
        replace(written)
    assert sorted(written.rglob("*")) == before


def test_caches_of_readers_do_not_count(written):
    (written / "masks" / "train.cache").write_bytes(b"x")
    (written / ".DS_Store").write_bytes(b"x")
    replace(written)
    assert (written / "new.txt").is_file()


def test_a_file_of_the_same_name_is_no_result(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "provenance.json").write_text('{"kind": "masks"}')
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="found something else"):
        replace(tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").is_file()


# --- one at a time

HOLD = """
import sys, pathlib
from converters.files.outputs import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="sockets without files are Linux's")
def test_a_second_command_is_refused_until_the_first_is_gone(holder, tmp_path):
    with (
        pytest.raises(ValueError, match="out: another command is writing there"),
        only_writer(tmp_path / "here" / ".." / "out"),
    ):
        pass
    with only_writer(tmp_path / "other"):
        pass
    holder.kill()
    holder.wait()
    with only_writer(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_starts_may_write_where_it_does(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with only_writer(tmp_path / "out"), only_writer(tmp_path / "out"):
        done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert done.stdout == "held\n"
    assert "MASKZOO_WRITES" not in os.environ
