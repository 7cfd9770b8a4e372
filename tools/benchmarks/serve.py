"""Load on `zoo serve`, as a process of its own on the loopback address: latency, and nothing lost.

Clients send one image after the other, each as soon as it has the answer to the last one: as many
requests are under way as there are clients. A client that is told to come again (503) does so; what
was answered is held against what the server has counted.
"""

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

START = "import sys; sys.argv[0] = 'zoo'; from zoo.__main__ import run; run()"


@dataclass
class Load:
    """What clients have seen.

    Attributes:
        seconds: of each answer with masks, the last byte of the request to the last of the answer.
        answers: status -> how often; -1 is none.
        different: answers with masks that differ from the first to the same image.
    """

    seconds: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    different: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def run(
    folder: Annotated[Path, typer.Argument(help="Of `zoo export`.")],
    seconds: Annotated[float, typer.Option(help="How long requests are sent.")] = 60,
    clients: Annotated[int, typer.Option(help="That send at a time.")] = 4,
    queue: Annotated[int, typer.Option(help="Of the server.")] = 8,
    size: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 1024,
    threads: Annotated[int, typer.Option(help="Of the server, an image.")] = 0,
) -> None:
    """Send images for a while and print latency, throughput and what was lost."""
    images = [_picture(seed, size) for seed in range(4)]
    words = [folder, "--port", 0, "--queue", queue, "--threads", threads]
    server = subprocess.Popen(
        [sys.executable, "-c", START, "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = server.stdout.readline() if server.stdout else ""
        port = int(line.partition("http://127.0.0.1:")[2].partition(",")[0])
        first = [_ask(port, image)[1] for image in images]
        load, ends = Load(), time.monotonic() + seconds
        started = time.monotonic()
        senders = [
            threading.Thread(target=_send, args=(port, images, first, number, ends, load))
            for number in range(clients)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        took = time.monotonic() - started
        counted = _counted(port)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    _tell(load, took, counted - len(images), code, clients)


def _picture(seed: int, size: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)
    smooth = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", smooth)[1].tobytes()


def _ask(port: int, image: bytes) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        line.request("POST", "/", image)
        found = line.getresponse()
        return found.status, found.read()
    except (OSError, http.client.HTTPException):
        return -1, b""
    finally:
        line.close()


def _send(
    port: int, images: list[bytes], first: list[bytes], number: int, ends: float, load: Load
) -> None:
    while time.monotonic() < ends:
        number = (number + 1) % len(images)
        start = time.perf_counter()
        status, body = _ask(port, images[number])
        took = time.perf_counter() - start
        with load.lock:
            load.answers[status] += 1
            if status == 200:
                load.seconds.append(took)
                load.different += body != first[number]
        if status == 503:
            time.sleep(0.05)


def _counted(port: int) -> int:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    line.request("GET", "/metrics")
    text = line.getresponse().read().decode()
    line.close()
    rows = dict(r.rsplit(" ", 1) for r in text.splitlines() if not r.startswith("#"))
    return int(rows['zoo_answers_total{status="200"}'])


def _tell(load: Load, took: float, counted: int, code: int, clients: int) -> None:
    p50, p95, most = (1000 * np.percentile(load.seconds, q) for q in (50, 95, 100))
    record = {
        "clients": clients,
        "seconds": round(took, 1),
        "answers": {str(status): n for status, n in sorted(load.answers.items())},
        "images_per_second": round(len(load.seconds) / took, 2),
        "p50_ms": round(float(p50)),
        "p95_ms": round(float(p95)),
        "most_ms": round(float(most)),
        "lost": load.answers[-1] + abs(counted - len(load.seconds)),
        "different": load.different,
        "exit_code": code,
    }
    print(json.dumps(record, indent=1))
