"""A server answers what `zoo predict` and `zoo fuse` say, and refuses what it is not to take."""

from __future__ import annotations

import csv
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn

from converters.masks import decode_coco_rle, decode_rle
from converters.types import LabelSpace
from fusion.types import Prediction, SoftMask
from zoo.contract import PredictOptions
from zoo.export.exported import Exported
from zoo.serve.answers import as_coco, as_png, as_rle, choose_format
from zoo.serve.application import make_application
from zoo.serve.connections import ImpatientProtocol
from zoo.serve.metrics import Metrics
from zoo.serve.workers import Limits, RefusedError, Workers, read_upload

pytestmark = pytest.mark.slow


class Reply(NamedTuple):
    status: int
    kind: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client(NamedTuple):
    port: int
    metrics: Metrics

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            # A server that has read enough answers, and closes; the rest cannot be sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                line.request(method, path, body, named)
            found = line.getresponse()
            return Reply(found.status, found.getheader("content-type", ""), found.read())
        finally:
            line.close()


class Hasty(ImpatientProtocol):
    header_s = 1.0


@contextmanager
def serving(
    exported: Any, limits: Limits, hosts: tuple[str, ...] = (), most: int | None = None
) -> Iterator[Client]:
    metrics = Metrics()
    workers = Workers(exported, PredictOptions(), limits, metrics)
    application = make_application(workers, limits, metrics, hosts)
    config = uvicorn.Config(
        application, http=Hasty, log_level="warning", ws="none", limit_concurrency=most
    )
    server = uvicorn.Server(config)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield Client(place.getsockname()[1], metrics)
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def client(exported: tuple[Path, Path]) -> Iterator[Client]:
    with serving(Exported.open(exported[1]), Limits(body_bytes=100_000, pixels=10_000)) as found:
        yield found


def encoded(suffix: str, size: tuple[int, int] = (96, 64)) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    return cv2.imencode(suffix, picture)[1].tobytes()


def test_masks_are_those_of_predict_and_fuse(client, exported, toys, zoo, tmp_path):
    given = ("--data", toys.folder, "--from", "images", "--subset", "test")
    zoo("predict", exported[1], *given, "--out", tmp_path / "store")
    zoo("fuse", tmp_path / "store", "--method", "mean", "--out", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = {(r["image_name"], r["class"]): r["rle"] for r in csv.DictReader(file)}
    assert len(rows) == len(toys.samples) * len(toys.labels)
    for sample in toys.samples:
        found = client("POST", "/", sample.image.read_bytes()).json
        assert found["size"] == list(sample.size_hw)
        masks = {label: entry["rle"] for label, entry in found["masks"].items()}
        assert masks == {n: rows[sample.file_name, n] for n in toys.labels.names}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_all_formats_say_the_same(suffix, client, toys):
    body = encoded(suffix)
    codes = client("POST", "/", body).json["masks"]
    masks = {n: decode_rle(e["rle"], (96, 64)).full((96, 64)) for n, e in codes.items() if e["rle"]}
    assert masks
    coco = client("POST", "/?format=coco", body).json
    names = {entry["id"]: entry["name"] for entry in coco["categories"]}
    assert list(names.values()) == list(toys.labels.names)
    # COCO's are single objects: together they are the class's mask.
    decoded = {label: np.zeros((96, 64), np.uint8) for label in masks}
    for annotation in coco["annotations"]:
        plane = decode_coco_rle(annotation["segmentation"]).full((96, 64))
        assert 0.5 <= annotation["score"] <= 1
        assert not (decoded[names[annotation["category_id"]]] & plane).any()
        decoded[names[annotation["category_id"]]] |= plane
    assert len(coco["annotations"]) > len(masks)
    found = client("POST", "/", body, Accept="application/zip")
    assert found.kind == "application/zip"
    with zipfile.ZipFile(io.BytesIO(found.body)) as archive:
        for name in archive.namelist():
            raw = np.frombuffer(archive.read(name), np.uint8)
            label = name[4:-4]
            plane = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(plane, masks[label] * 255)
            np.testing.assert_array_equal(decoded[label], masks[label])
        assert len(archive.namelist()) == len(masks)


def test_dicom_is_read(client):
    pytest.importorskip("pydicom")
    from dicom_files import content, dataset

    pixels = np.random.default_rng(0).integers(0, 4000, (96, 64)).astype(np.uint16)
    assert client("POST", "/", content(dataset(pixels))).json["size"] == [96, 64]


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/", b"", 400, "body: expected an image's file"),
        ("/", b"no image", 415, "body: "),
        ("/", encoded(".png")[:200], 415, "body: "),
        ("/", b"\0" * 100_001, 413, "body: expected at most 100000 bytes, found 100001"),
        ("/", encoded(".jpg", (200, 100)), 413, "expected at most 10000 pixels, found 200 x 100"),
        ("/?format=gif", encoded(".png"), 400, "format: expected one of rle, coco, png"),
        ("/?path=/etc/passwd", encoded(".png"), 400, "request: expected ?format=, found 'path'"),
        ("/../../etc/passwd", encoded(".png"), 404, "request: expected POST /, GET /health"),
    ],
)
def test_what_is_refused(path, body, status, expected, client):
    found = client("POST", path, body)
    assert (found.status, found.kind) == (status, "application/json")
    assert set(found.json) == {"error"}
    assert expected in found.json["error"]
    assert len(found.json["error"].splitlines()) == 1


def test_a_body_of_unknown_length_ends_where_it_is_too_long(client):
    parts = (b"\0" * 30_000 for _ in range(10))
    found = client("POST", "/", parts)
    assert (found.status, "found more" in found.json["error"]) == (413, True)


def test_other_methods_and_addresses(client):
    assert client("GET", "/").status == 405
    assert client("GET", "/docs").status == 404
    assert client("GET", "/health").json == {"status": "ok"}


def test_counts(client):
    before = client("GET", "/metrics")
    client("POST", "/", encoded(".png"))
    client("POST", "/", b"no image")
    after = client("GET", "/metrics")
    assert after.kind.startswith("text/plain; version=0.0.4")

    def read(reply: Reply) -> dict[str, float]:
        lines = [x for x in reply.body.decode().splitlines() if not x.startswith("#")]
        return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines)}

    old, new = read(before), read(after)
    for name in ('zoo_answers_total{status="200"}', "zoo_seconds_count"):
        assert new[name] == old.get(name, 0) + 1
    assert (
        new['zoo_answers_total{status="415"}'] == old.get('zoo_answers_total{status="415"}', 0) + 1
    )
    assert new["zoo_waiting"] == new["zoo_computing"] == 0
    assert new['zoo_seconds_bucket{le="+Inf"}'] == new["zoo_seconds_count"]


def test_another_host_is_not_meant(exported):
    with serving(Exported.open(exported[1]), Limits(), ("127.0.0.1",)) as client:
        assert client("POST", "/", encoded(".png")).status == 200
        assert client("POST", "/", encoded(".png"), Host="evil.example:80").status == 421


# --- queue and time


class Slow:
    """A model that waits until it may answer."""

    labels = LabelSpace("one", ("a",))

    def __init__(self) -> None:
        self.may, self.begun = threading.Event(), threading.Semaphore(0)

    def predict(self, samples, options, is_apart=False):
        self.begun.release()
        assert self.may.wait(20)
        return [Prediction(s.key, s.size_hw, "semantic", {}) for s in samples]


def asks(client: Client, count: int, replies: list[Reply]) -> list[threading.Thread]:
    def ask() -> None:
        replies.append(client("POST", "/", encoded(".png")))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_says_so_at_once_and_loses_nothing():
    slow = Slow()
    with serving(slow, Limits(jobs=1, queue=2)) as client:
        replies: list[Reply] = []
        threads = asks(client, 3, replies)
        wait_until(lambda: (client.metrics.computing, client.metrics.waiting) == (1, 2))
        refused = client("POST", "/", encoded(".png"))
        assert (refused.status, "queue: expected at most 2" in refused.json["error"]) == (503, True)
        slow.may.set()
        for thread in threads:
            thread.join(20)
        assert [reply.status for reply in replies] == [200] * 3
        assert client("POST", "/", encoded(".png")).status == 200


def test_who_waits_too_long_is_told():
    slow = Slow()
    with serving(slow, Limits(jobs=1, queue=2, answer_s=0.3)) as client:
        replies: list[Reply] = []
        for thread in asks(client, 2, replies):
            thread.join(20)
        assert [reply.status for reply in replies] == [504, 504]
        assert client.metrics.waiting == 0
        slow.may.set()
        wait_until(lambda: client.metrics.computing == 0)
        assert client("POST", "/", encoded(".png")).status == 200


def test_an_upload_that_does_not_come():
    with (
        serving(Slow(), Limits(upload_s=0.2)) as client,
        socket.create_connection(("127.0.0.1", client.port)) as line,
    ):
        line.settimeout(20)
        line.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nabc")
        assert line.recv(1000).startswith(b"HTTP/1.1 408 ")


# --- answers without a server


# Of pycocotools, which does not know the newest NumPy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_hole_two_parts_the_border_and_nothing():
    labels = LabelSpace("three", ("ring_1", "two parts", "none"), {})
    ring, parts = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    ring[0:20, 40:60], ring[5:10, 45:50] = 255, 0
    parts[2:6, 2:6] = parts[30:40, 0:9] = 200
    box = (0.0, 0.0, 60.0, 40.0)
    masks = {"ring_1": ((1.0, SoftMask(box, ring)),), "two parts": ((0.78, SoftMask(box, parts)),)}
    prediction = Prediction("image", (40, 60), "semantic", masks)
    found = json.loads(as_rle(prediction, labels)[0])["masks"]
    assert found["none"] == {"rle": "", "area": 0, "score": 0.0}
    for label, plane in (("ring_1", ring), ("two parts", parts)):
        mask = decode_rle(found[label]["rle"], (40, 60)).full((40, 60))
        np.testing.assert_array_equal(mask, plane > 127)
        assert found[label]["area"] == (plane > 127).sum()
    coco = pytest.importorskip("pycocotools.mask")
    first, second = json.loads(as_coco(prediction, labels)[0])["annotations"]
    np.testing.assert_array_equal(coco.decode(first["segmentation"]), ring > 127)
    assert second["bbox"] == coco.toBbox(second["segmentation"]).tolist()
    with zipfile.ZipFile(io.BytesIO(as_png(prediction, labels)[0])) as archive:
        assert archive.namelist() == ["000-ring_1.png", "001-two_parts.png"]


def test_coco_holds_the_objects_that_are_sure_enough():
    labels = LabelSpace("cells", ("cell",))
    pixels = np.full((4, 4), 255, np.uint8)
    seen = tuple(
        (score, SoftMask((x, 1.0, 4.0, 4.0), pixels)) for x, score in ((1.0, 0.9), (9.0, 0.4))
    )
    prediction = Prediction("image", (12, 20), "instance", {"cell": seen})
    (found,) = json.loads(as_coco(prediction, labels)[0])["annotations"]
    assert (found["bbox"], found["score"]) == ([1, 1, 4, 4], 0.9)


@pytest.mark.parametrize(
    ("asked", "accept", "expected"),
    [
        (None, "", "rle"),
        (None, "*/*", "rle"),
        (None, "application/coco+json", "coco"),
        (None, "text/html, image/png;q=0.8", "png"),
        ("rle", "application/zip", "rle"),
    ],
)
def test_what_is_asked_for(asked, accept, expected):
    assert choose_format(asked, accept) == expected


def test_a_bomb_is_refused_by_its_header():
    # A picture of 400 million pixels in a few kilobytes.
    bomb = cv2.imencode(".png", np.zeros((2000, 2000), np.uint8))[1].tobytes()
    with pytest.raises(RefusedError, match="expected at most 1000000 pixels, found 2000 x 2000"):
        read_upload(bomb, 10**6)


def test_limits_are_positive():
    with pytest.raises(ValueError, match="expected positive numbers"):
        replace(Limits(), jobs=0)


# --- the command


STARTED = "import sys; sys.argv[0] = 'zoo'; from zoo.__main__ import run; run()"


def start(*arguments: object) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    line = process.stdout.readline()
    assert "for this computer alone; from another one: ssh -L " in line
    return process, int(line.partition("http://127.0.0.1:")[2].partition(",")[0])


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "told to end")],
)
def test_a_signal_ends_it_when_all_is_answered(number, code, word, exported):
    process, port = start(exported[1], "--tta", "hflip")
    with process:
        client, replies = Client(port, Metrics()), list[Reply]()
        assert client("POST", "/", encoded(".png")).status == 200
        threads = asks(client, 4, replies)
        wait_until(lambda: b"zoo_computing 1" in client("GET", "/metrics").body or len(replies) > 2)
        os.kill(process.pid, number)
        for thread in threads:
            thread.join(20)
        assert [reply.status for reply in replies] == [200] * 4
        assert process.wait(20) == code
        assert process.stderr
        assert process.stderr.read().splitlines()[-1] == f"zoo: {word}"


def test_what_cannot_be_served(exported, zoo, capsys, tmp_path):
    zoo("serve", exported[0], code=2)
    assert "expected an exported model with model.json" in capsys.readouterr().err
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        port = place.getsockname()[1]
        zoo("serve", exported[1], "--port", port, code=2)
    assert f"--port {port}: expected a free address" in capsys.readouterr().err
    zoo("serve", exported[1], "--jobs", 0, code=2)
    assert "expected positive numbers" in capsys.readouterr().err


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_who_does_not_end_his_headers_is_not_waited_for(before, client):
    with socket.create_connection(("127.0.0.1", client.port)) as line:
        line.settimeout(10)
        if before:
            line.sendall(before)
            said = b""
            while b"ok" not in said:
                part = line.recv(4096)
                assert part
                said += part
        line.sendall(b"GET /hea")
        start = time.monotonic()
        assert line.recv(4096) == b""
        assert 0.5 < time.monotonic() - start < 8
    assert client("GET", "/health").status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000,
    ],
)
def test_what_is_no_http_is_told_as_all_else_is(sent, client):
    with socket.create_connection(("127.0.0.1", client.port), 20) as line:
        line.sendall(sent)
        head, _, body = b"".join(iter(lambda: line.recv(1000), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(body) == {"error": "request: expected HTTP/1.1, found something else"}


def test_too_many_connections_are_told_as_all_else_is():
    with serving(Slow(), Limits(), most=3) as client:
        lines = [socket.create_connection(("127.0.0.1", client.port), 20) for _ in range(2)]
        try:
            reply = client("GET", "/health")
            assert (reply.status, reply.kind) == (503, "application/json")
            expected = "server: expected fewer than 3 connections at a time: retry"
            assert reply.json == {"error": expected}
        finally:
            for line in lines:
                line.close()
        wait_until(lambda: client("GET", "/health").status == 200)


def test_a_form_is_told_how_images_are_sent(client):
    kind = "multipart/form-data; boundary=x"
    found = client("POST", "/", b"--x--", Content_Type=kind)
    assert found.status == 415
    assert "--data-binary @FILE" in found.json["error"]
