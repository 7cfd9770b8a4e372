"""The viewer's server: Streamlit in a process of its own, for this computer alone."""

from __future__ import annotations

import getpass
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

ADDRESS = "127.0.0.1"
PORT = 8501
_PORTS = 50
_LAST_PORT = (1 << 16) - 1
_PAGE = Path(__file__).with_name("page.py")
# Nothing is sent to anybody, nothing but the page is served, and only this computer reaches it.
_SETTINGS = {
    "server.address": ADDRESS,
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "server.enableStaticServing": "false",
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.baseUrlPath": "",
    "browser.gatherUsageStats": "false",
    "browser.serverAddress": "localhost",
    "client.toolbarMode": "minimal",
    "global.developmentMode": "false",
    "logger.level": "error",
}
_STARTS_WITHIN_S, _ENDS_WITHIN_S = 60.0, 5.0


def check_installed() -> None:
    """Make sure that Streamlit is there.

    Raises:
        ValueError: it is not; says how to install it.
    """
    if find_spec("streamlit") is None:
        raise ValueError(
            "zoo view: expected the package streamlit, found none; "
            "install it with: pip install 'maskzoo[view]'"
        )


@contextmanager
def reserved_port(wanted: int | None = None) -> Iterator[int]:
    """Yield a port of the loopback address: the wanted one, else the first free one from 8501.

    Until the context ends no other viewer of this user takes it, also before the server listens.

    Raises:
        ValueError: it is taken, or no port.
    """
    from filelock import FileLock, Timeout

    if wanted is not None and not 1 <= wanted <= _LAST_PORT:
        raise ValueError(f"--port: expected a port, 1 to {_LAST_PORT}, found {wanted}")
    for port in [wanted] if wanted is not None else range(PORT, PORT + _PORTS):
        lock = FileLock(Path(tempfile.gettempdir()) / f"zoo-view-{_user()}-{port}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            try:
                if _is_free(port):
                    yield port
                    return
            finally:
                lock.release()
    which = f"port {wanted}" if wanted is not None else f"one of {PORT} to {PORT + _PORTS - 1}"
    raise ValueError(f"--port: expected a free port, found {which} taken; choose another one")


def _is_free(port: int) -> bool:
    with socket.socket() as place:
        # As servers do: what a closed connection still holds counts as free.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def command_of(arguments: Sequence[str], port: int) -> list[str]:
    """Return the command that serves the page.

    Args:
        arguments: of the page, see `zoo.viewer.page`.
        port: on the loopback address.
    """
    settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    serve = [sys.executable, "-m", "zoo.viewer.launch", "run", str(_PAGE), f"--server.port={port}"]
    return [*serve, *settings, "--", *arguments]


def describe(port: int) -> str:
    """Return in one line where the page is, and how to reach it from another computer."""
    tunnel = f"ssh -L {port}:{ADDRESS}:{port} {_user()}@{socket.gethostname()}"
    return (
        f"http://{ADDRESS}:{port} (only from this computer; from another one: {tunnel}, then the "
        "same address there); Ctrl-C ends it"
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


@contextmanager
def serving(arguments: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server until the context ends; it is ready when the context begins.

    Raises:
        ValueError: it does not start.
    """
    # A session of its own: a Ctrl-C is for the command, which ends the server in good order.
    with subprocess.Popen(
        command_of(arguments, port),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            _wait_until_ready(server, port)
            yield server
        finally:
            server.terminate()
            try:
                server.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    # Whatever proxies the user has, this computer is asked itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ends = time.monotonic() + _STARTS_WITHIN_S
    while server.poll() is None and time.monotonic() < ends:
        with suppress(urllib.error.URLError, OSError):
            opener.open(f"http://{ADDRESS}:{port}/_stcore/health", timeout=2).close()
            return
        time.sleep(0.1)
    raise ValueError(
        f"zoo view: expected a server on port {port}, found none: Streamlit ended with code "
        f"{server.poll()}; see the lines above"
    )


def serve(
    arguments: Sequence[str], port: int | None, opens_browser: bool, say: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        arguments: of the page.
        port: wanted; None takes a free one.
        opens_browser: show the page in the user's browser.
        say: for the line that says where it is.

    Raises:
        ValueError: Streamlit is missing or does not start, the port is taken, or it ended itself.
    """
    check_installed()
    try:
        with reserved_port(port) as chosen, serving(arguments, chosen) as server:
            say(describe(chosen))
            if opens_browser:
                webbrowser.open(f"http://{ADDRESS}:{chosen}")
            code = server.wait()
        raise ValueError(f"zoo view: the server ended by itself with code {code}")
    except KeyboardInterrupt:
        say("ended")
