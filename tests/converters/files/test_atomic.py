"""Results appear whole or not at all; only our own unfinished ones are cleared away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from converters.files import atomic as writing
from converters.files.atomic import MARK, claim, clear_leftovers, workplace
from converters.files.provenance import atomic_write_text, result_folder
from fusion.sources import submission
from fusion.sources.submission import RleRow

DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
HALF_FILE = """
import sys
from pathlib import Path
from converters.files.atomic import unfinished
with unfinished(Path(sys.argv[1])) as place:
    place.write_text("half")
    {die}
"""
HALF_FOLDER = """
import sys
from pathlib import Path
from converters.files.provenance import result_folder
with result_folder(Path(sys.argv[1]), "masks") as folder:
    (folder / "half.txt").write_text("x")
    {die}
"""
BETWEEN_MOVES = """
import os, sys
from pathlib import Path
from converters.files import atomic
from converters.files.provenance import result_folder
move, moved = os.replace, []
def move_and_die(source, target):
    move(source, target)
    moved.append(target)
    if Path(target).name == atomic._PREVIOUS:
        {die}
with result_folder(Path(sys.argv[1]), "masks") as folder:
    (folder / "new.txt").write_text("new")
    os.replace = move_and_die
"""
WAITS = """
import sys
from pathlib import Path
from converters.files.atomic import unfinished
with unfinished(Path(sys.argv[1])) as place:
    place.write_text("first")
    print("ready", flush=True)
    sys.stdin.readline()
"""


def run(program, out):
    done = subprocess.run([sys.executable, "-c", program.format(die=DIE), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def waiting(tmp_path):
    """A process that writes `out` until it gets a line."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


WRITERS = {
    "text": lambda out: atomic_write_text(out, "whole"),
    "submission": lambda out: submission.write(out, [RleRow("a_1.png", "Ulna", "1 2")]),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_somebody_s_files_stay(tmp_path, write):
    foreign = ["out.partial", "out.replaced", ".out.partial", ".out.abcdefgh.partial", "x.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    write(tmp_path / "out")
    assert names(tmp_path) == sorted([*foreign, "out"])
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)


def test_somebody_s_folders_stay(tmp_path):
    foreign = ["out.partial", "out.replaced", ".out.abcdefgh.partial"]
    for name in foreign:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("mine")
    for _ in range(2):
        with result_folder(tmp_path / "out", "masks"):
            pass
    assert names(tmp_path) == sorted([*foreign, "out"])
    assert all(names(tmp_path / name) == ["thesis.tex"] for name in foreign)


@pytest.mark.parametrize("text", ["mine\n", "\xff"])
def test_another_mark_is_not_ours(tmp_path, text):
    left = tmp_path / ".out.abcdefgh.partial"
    left.mkdir()
    (left / MARK).write_text(text, encoding="latin-1")
    atomic_write_text(tmp_path / "out", "whole")
    assert left.is_dir()


@pytest.mark.parametrize("program", [HALF_FILE, HALF_FOLDER])
@pytest.mark.slow
def test_what_a_kill_leaves_does_not_heap_up(tmp_path, program):
    out = tmp_path / "out_1"
    for _ in range(2):
        run(program, out)
        assert len(names(tmp_path)) == 1
        assert not out.exists()
    atomic_write_text(out, "whole")
    assert names(tmp_path) == ["out_1"]


def test_leftovers_of_other_results_stay_until_theirs_is_written(tmp_path):
    run(HALF_FILE, tmp_path / "a")
    atomic_write_text(tmp_path / "b", "whole")
    assert len(names(tmp_path)) == 2
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["b"]


def test_a_kill_between_two_moves_loses_nothing(tmp_path):
    out = tmp_path / "out"
    with result_folder(out, "masks") as folder:
        (folder / "old.txt").write_text("old")
    run(BETWEEN_MOVES, out)
    assert not out.exists()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["out"]
    assert names(out) == ["new.txt", "provenance.json"]


def test_a_previous_result_comes_back_where_the_new_one_is_gone(tmp_path):
    left = tmp_path / ".out.abcdefgh.partial"
    (left / writing._PREVIOUS).mkdir(parents=True)
    (left / writing._PREVIOUS / "old.txt").write_text("old")
    (left / MARK).touch()
    clear_leftovers(tmp_path)
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["old.txt"])


@pytest.mark.parametrize("marked", [True, False])
def test_a_kill_at_the_very_start_leaves_nothing_for_long(tmp_path, marked):
    left = tmp_path / ".out.abcdefgh.partial"
    left.mkdir()
    if marked:
        (left / MARK).touch()
    atomic_write_text(tmp_path / "out", "whole")
    assert names(tmp_path) == ["out"]


def test_a_target_in_use_is_written_by_both(tmp_path, waiting):
    out = tmp_path / "out"
    atomic_write_text(out, "second")
    assert out.read_text() == "second"
    assert len(names(tmp_path)) == 2
    waiting.communicate("go on\n")
    assert (waiting.returncode, out.read_text(), names(tmp_path)) == (0, "first", ["out"])


def test_what_came_in_the_meantime_is_not_replaced(tmp_path):
    def write():
        with result_folder(tmp_path / "out", "masks"):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.tex").write_text("mine")

    with pytest.raises(ValueError, match="out: expected nothing there"):
        write()
    assert (names(tmp_path), names(tmp_path / "out")) == (["out"], ["thesis.tex"])


def test_a_workplace_goes_with_its_block(tmp_path):
    with workplace(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.png").write_bytes(b"1")
        (folder / "link").symlink_to(tmp_path)
    assert names(tmp_path) == []


def test_results_have_usual_rights(tmp_path):
    (tmp_path / "plain").mkdir()
    with result_folder(tmp_path / "out", "masks"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_without_locks_results_are_written_and_leftovers_stay(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(writing.fcntl, "flock", refuse)
    left = tmp_path / ".out.abcdefgh.partial"
    left.mkdir()
    (left / MARK).touch()
    atomic_write_text(tmp_path / "out", "whole")
    assert names(tmp_path) == [left.name, "out"]


# --- work that goes on


def test_work_goes_on_after_a_kill(tmp_path):
    program = (
        "import sys; from pathlib import Path; from converters.files.atomic import claim\n"
        "place = claim(Path(sys.argv[1]), 'work')\n"
        "(place.folder / 'part').write_text('done')\n{die}"
    )
    run(program, tmp_path / "work")
    place = claim(tmp_path / "work", "work")
    assert names(place.folder) == [MARK, "part"]
    place.clear()
    assert names(place.folder) == [MARK]
    place.remove()
    assert names(tmp_path) == []


def test_work_in_use_is_refused(tmp_path):
    place = claim(tmp_path / "work", "work")
    with pytest.raises(ValueError, match="work: another command is writing there"):
        claim(tmp_path / "work", "work")
    place.release()
    claim(tmp_path / "work", "work")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_work_is_not_done_in_somebody_s_place(tmp_path, kind):
    work = tmp_path / "work"
    if kind == "folder":
        work.mkdir()
        (work / "thesis.tex").write_text("mine")
    else:
        work.write_text("mine")
    with pytest.raises(ValueError, match="work: expected half a cake, found another thing"):
        claim(work, "half a cake")
    assert work.exists()


# Newer Pythons warn of threads, which earlier tests may have left; the copy does nothing with them.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_copy_of_the_process_unlocks_nothing(tmp_path):
    place = claim(tmp_path / "work", "work")
    child = os.fork()
    if not child:
        place.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ValueError, match="another command"):
        claim(tmp_path / "work", "work")
