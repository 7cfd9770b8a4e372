import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import zoo.viewer.server as server
from zoo.viewer.server import check_installed, command_of, describe, reserved_port
from zoo.viewer.start import page_arguments

ROOT = Path(server.__file__).parents[2]


def test_it_is_for_this_computer_alone_and_tells_nobody():
    found = command_of(["--edits=e.yaml"], 8501)
    assert "--server.address=127.0.0.1" in found
    assert "--browser.gatherUsageStats=false" in found
    assert "--server.enableStaticServing=false" in found
    assert found[-2:] == ["--", "--edits=e.yaml"]


def test_it_says_how_to_reach_it_from_elsewhere():
    line = describe(8600)
    assert line.startswith("http://127.0.0.1:8600 ")
    assert "ssh -L 8600:127.0.0.1:8600 " in line
    assert "\n" not in line


def test_a_taken_port_is_refused_or_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ValueError, match=f"found port {port} taken"),
            reserved_port(port),
        ):
            pass
    with reserved_port(port) as found:
        assert found == port
    with reserved_port() as found:
        assert found >= 8501


@pytest.mark.parametrize("port", [-1, 0, 65536, 99999])
def test_what_is_no_port_is_refused(port):
    with (
        pytest.raises(ValueError, match=f"--port: expected a port, 1 to 65535, found {port}$"),
        reserved_port(port),
    ):
        pass


def test_two_viewers_that_start_at_once_take_different_ports():
    with reserved_port() as first, reserved_port() as second:
        assert first != second
        with (
            pytest.raises(ValueError, match=f"found port {first} taken"),
            reserved_port(first),
        ):
            pass
    with reserved_port(first) as again:
        assert again == first


def test_without_streamlit_the_command_says_how_to_get_it(monkeypatch, zoo, show, capsys):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maskzoo\[view\]'"):
        check_installed()
    zoo("view", show.data, code=2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (lambda s: [s.data, s.data], "expected one data set, found 2"),
        (lambda s: [s.folder / "nothing"], "found nothing"),
        (lambda s: [s.space], "expected the header image_name,class,rle"),
        (lambda s: [s.data, "--method", "mean"], "submissions to fuse, found none"),
        (lambda s: [*s.paths, "--method", "sum"], "method 'sum': expected one of"),
        (lambda s: [s.data, "--edits", s.space], "expected 1, found None"),
    ],
)
def test_mistakes_are_lines_in_the_terminal(zoo, show, capsys, arguments, expected):
    pytest.importorskip("streamlit")
    zoo("view", *arguments(show), code=2)
    assert expected in capsys.readouterr().err


def test_paths_are_told_to_the_page_whole(show, tmp_path, monkeypatch):
    monkeypatch.chdir(show.folder)
    found = page_arguments([Path("data"), Path("a")], Path("edits.yaml"), method="mean")
    assert found == [
        f"--edits={show.folder / 'edits.yaml'}",
        "--method=mean",
        "--",
        str(show.folder / "data"),
        str(show.folder / "a"),
    ]


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", "view", *map(str, arguments), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # pytest may have been started with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def is_open(port):
    with socket.socket() as place:
        return place.connect_ex(("127.0.0.1", port)) == 0


def look_around(address, show):
    """The server answers, and gives nothing but the page."""
    with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as answer:
        assert answer.status == 200
    assert b"import run" in Path(server.__file__).with_name("page.py").read_bytes()
    canvas = "component/zoo.viewer.views.zoo_canvas"
    for path in (
        f"{canvas}/../page.py",
        f"{canvas}/%2e%2e/page.py",
        f"{canvas}/{show.space}",
        f"app/static/{show.space.name}",
        f"media/{show.space}",
    ):
        # What it does not know it answers with the page itself, or not at all.
        assert not any(word in fetch(f"{address}/{path}") for word in (b"import run", b"tile-1"))


def fetch(address):
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 0, "ended\n"), (signal.SIGKILL, -9, "")]
)
def test_it_ends_with_the_command(show, tmp_path, number, code, said):
    pytest.importorskip("streamlit")
    with start(*show.paths, "--edits", tmp_path / "edits.yaml") as command:
        try:
            address = command.stdout.readline().split(" ")[0]
            assert address.startswith("http://127.0.0.1:")
            port = int(address.rpartition(":")[2])
            look_around(address, show)
            command.send_signal(number)
            out, err = command.communicate(timeout=30)
        finally:
            command.kill()
    assert (command.returncode, out, err) == (code, said, "")
    ends = time.monotonic() + 20
    while is_open(port) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not is_open(port)
