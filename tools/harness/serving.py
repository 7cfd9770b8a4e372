"""A server in a process of its own, and requests as no client should make them."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from converters.files.images import decode_image, stored_size_hw
from harness.mutations import BYTES

NAME = "serve"
SECONDS = 20
# A network of 64 x 64 pixels has answered by then.
_PATIENCE_S = 2.0
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OPTIONS = ("--port", "0", "--max-mb", "1", "--max-pixels", "300000", "--threads", "1")
_LISTENS = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")
# Of what an allocator keeps; one that loses an image a request would grow by far more.
_MOST_GROWTH_KB = 48 * 1024
_WARM = 40
_SUFFIXES = (".png", ".jpg", ".tif", ".bmp", ".webp")
Request = tuple[bytes, bytes]
"""Head and body as they are sent."""


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 where the line was closed without a word."""

    status: int
    body: bytes

    @property
    def error(self) -> str:
        """What it says that is wrong; "" where that is not in the form that is promised."""
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(self.body)["error"])
        return ""


class Server:
    """`zoo serve` on an exported model.

    Args:
        exported: its folder.
    """

    def __init__(self, exported: Path) -> None:
        command = [sys.executable, "-m", "zoo", "serve", str(exported), *_OPTIONS]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if self.process.stdout is None:
            raise RuntimeError("expected the server's words, found none")
        said = self.process.stdout.readline()
        if (found := _LISTENS.search(said)) is None:
            raise RuntimeError(f"expected a server that listens, found {said!r}")
        self.port = int(found[1])

    def ask(self, head: bytes, body: bytes) -> Reply:
        """Send bytes and return what comes back until the line is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as line:
            with suppress(BrokenPipeError, ConnectionResetError):
                line.sendall(head + body)
            return _read(line)

    def memory_kb(self) -> int:
        """Return how much memory it has in use."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return int(found[1]) if found else 0

    def end(self) -> int:
        """Tell it to end; return its exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)


def _read(line: socket.socket) -> Reply:
    content = b""
    line.settimeout(_PATIENCE_S)
    with suppress(ConnectionResetError):
        while True:
            try:
                part = line.recv(1 << 16)
            except TimeoutError:
                # It waits for what was announced: that does not come.
                line.settimeout(SECONDS)
                line.shutdown(socket.SHUT_WR)
                continue
            if not part:
                break
            content += part
    head, _, body = content.removeprefix(_CONTINUE).partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return Reply(int(words[1]) if len(words) > 2 else 0, body)


@contextmanager
def serving(exported: Path) -> Iterator[Server]:
    """Start a server, and end it."""
    server = Server(exported)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()


# --- requests


def post(body: bytes, path: str = "/", **headers: str) -> Request:
    """Return a sound request."""
    named = {
        "Host": "127.0.0.1",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{k.replace('_', '-')}: {v}" for k, v in named.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1"), body


def _flip_head(request: Request, rng: random.Random) -> Request:
    kind = rng.choice([*BYTES.values()])
    return kind(bytearray(request[0]), rng), request[1]


def _length(request: Request, rng: random.Random) -> Request:
    told = rng.choice(
        ("0", "-1", "1", "99999999999999999999", "0x10", "1e3", "", "7, 7", "1\r\n\t2")
    )
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: " + told.encode(), request[0])
    return head, request[1]


def _chunked(request: Request, rng: random.Random) -> Request:
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", request[0])
    size = rng.choice((b"%x" % len(request[1]), b"ffffffffffffffffffff", b"-1", b"zz", b"5;a=b"))
    return head, size + b"\r\n" + request[1] + rng.choice((b"\r\n0\r\n\r\n", b"", b"\r\n"))


def _line(request: Request, rng: random.Random) -> Request:
    first = rng.choice(
        (
            *("GET / HTTP/1.1", "POST /x HTTP/1.1", "PUT / HTTP/1.1", "POST / HTTP/9.9", "POST /"),
            *("POST /?format=tiff HTTP/1.1", "POST /?format= HTTP/1.1", "POST /?a=1 HTTP/1.1"),
            *("POST /?format=coco&format=rle HTTP/1.1", "POST /%00 HTTP/1.1", "\0", "POST"),
            *("POST /?format=" + "x" * 9000 + " HTTP/1.1", "POST //..//etc/passwd HTTP/1.1"),
            *("POST http://elsewhere/ HTTP/1.1", "DELETE /health HTTP/1.1", "HEAD / HTTP/1.1"),
        )
    )
    _, _, rest = request[0].partition(b"\r\n")
    return first.encode("latin-1") + b"\r\n" + rest, request[1]


def _header(request: Request, rng: random.Random) -> Request:
    further = rng.choice(
        (
            *("Expect: 100-continue", "Content-Encoding: gzip", "Accept: application/zip"),
            *("Accept: " + "a/b," * 9000, "X: " + "y" * 99_000, "Accept: \xff", "Upgrade: h2c"),
            *("Content-Type: multipart/form-data; boundary=x", "Host: elsewhere", ": x", "X"),
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
        )
    )
    head = request[0].removesuffix(b"\r\n") + further.encode("latin-1") + b"\r\n\r\n"
    return head, request[1]


_WAYS: tuple[Callable[[Request, random.Random], Request], ...] = (
    *(_flip_head, _length, _chunked, _line, _header),
)


@dataclass
class ServeFuzzer:
    """Asks a server what nobody should ask.

    Attributes:
        server: it.
        image: grey, uint8 (H, W): the picture that it is asked about.
        seed: of everything.
    """

    server: Server
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    seed: int

    def __post_init__(self) -> None:
        self._answers: dict[bytes, bytes] = {}
        self._memory_kb = 0

    def case(self, number: int) -> tuple[str, str]:
        """Send one request; return what it was, and what is wrong with the answer."""
        rng = random.Random(f"{self.seed} {NAME} {number}")
        suffix = rng.choice(_SUFFIXES)
        body = cv2.imencode(suffix, self.image)[1].tobytes()
        kind = rng.choice(list(BYTES)) if rng.random() < 0.6 else "sound"
        body = body if kind == "sound" else BYTES[kind](bytearray(body), rng)
        request, way = post(body), "plain"
        if kind == "sound" or rng.random() < 0.2:
            change = rng.choice(_WAYS)
            request, way = change(request, rng), change.__name__.strip("_")
        start = time.monotonic()
        try:
            reply = self.server.ask(*request)
        except TimeoutError:
            return f"{suffix} {kind}, {way}", f"no answer after {SECONDS} s"
        wrong = [
            *(self._about(reply, body) if way == "plain" else _about_any(reply)),
            *self._health(number),
        ]
        if (took := time.monotonic() - start) > SECONDS / 2:
            wrong.append(f"answered after {took:.0f} s")
        return f"{suffix} {kind}, {way}: {reply.status}", "; ".join(wrong)

    def _about(self, reply: Reply, body: bytes) -> Iterator[str]:
        """What is wrong with the answer to a sound request about a file that may be broken."""
        if reply.status != 200:
            yield from ["closed without a word"] if reply.status == 0 else _about_any(reply)
            return
        try:
            pixels = decode_image(body, cv2.IMREAD_GRAYSCALE)
            size = list(stored_size_hw(body))
        except ValueError as error:
            yield f"masks of what is no image: {error}"
            return
        if json.loads(reply.body)["size"] != size:
            yield f"masks of another size than {size}"
        if reply.body != self._answers.setdefault(pixels.tobytes(), reply.body):
            yield "other masks than of the same pixels before"

    def _health(self, number: int) -> Iterator[str]:
        if self.server.process.poll() is not None:
            yield f"the server has ended: {self.server.process.returncode}"
            return
        found = self.server.ask(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b""
        )
        if (found.status, found.body) != (200, b'{"status": "ok"}'):
            yield f"health: {found}"
        used = self.server.memory_kb()
        if number < _WARM or not self._memory_kb:
            self._memory_kb = max(self._memory_kb, used)
        elif used > self._memory_kb + _MOST_GROWTH_KB:
            yield f"memory has grown from {self._memory_kb} to {used} kB"
            self._memory_kb = used


def _about_any(reply: Reply) -> Iterator[str]:
    """What is wrong with an answer, whatever was asked."""
    if reply.status == 200:
        return
    # What is no HTTP is refused by Uvicorn, or not answered.
    if reply.status == 0 or b"Invalid HTTP request" in reply.body:
        return
    if not 400 <= reply.status < 500:
        yield f"status {reply.status}: {reply.body[:200]!r}"
    elif len(reply.error.splitlines()) != 1 and reply.body:
        yield f"not one line: {reply.body[:200]!r}"
