from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from zoo.cli.options import hide_address
from zoo.config import NoticeConfig, RunConfig, check_config, dump_config
from zoo.run_files.metrics import MetricsFile
from zoo.tracking import alerts
from zoo.tracking.alerts import (
    IdleClock,
    Notifier,
    Watch,
    gpus_of,
    noticed,
    read_utilisation,
)


class Inbox(HTTPServer):
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.texts: list[str] = []
        self.types: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/SECRET"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        inbox = cast("Inbox", self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inbox.types.append(self.headers["Content-Type"])
        inbox.texts.append(body["text"])
        assert list(body) == ["text"]
        self.send_response(inbox.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Inbox()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _config(url: str, **notice: Any) -> RunConfig:
    return check_config(RunConfig, {"notice": {"url": url, **notice}}, "test")


def _notice(url: str, **further: Any) -> NoticeConfig:
    found = _config(url, **further).notice
    assert found is not None
    return found


def _train(job: Any, *scores: float) -> None:
    file = MetricsFile(job.out / "metrics.csv", ("epoch", "val_dice"))
    for score in scores:
        file.append({"epoch": len(file.rows) + 1, "val_dice": score})


def test_a_run_that_ends(make_job: Any, inbox: Inbox) -> None:
    job = make_job("fold-0")
    with noticed(_config(inbox.url), job):
        _train(job, 0.25, 0.75, 0.5)
    assert inbox.texts == ["fold-0: finished, validation Dice 0.7500, 0 min"]
    assert inbox.types == ["application/json"]


def test_a_run_that_was_finished_is_not_told_again(make_job: Any, inbox: Inbox) -> None:
    job = make_job()
    _train(job, 0.5)
    with noticed(_config(inbox.url), job):
        pass
    assert inbox.texts == []


@pytest.mark.parametrize("error", [RuntimeError("ID001/image_L"), SystemExit(143)])
def test_a_run_that_fails(make_job: Any, inbox: Inbox, error: BaseException) -> None:
    with pytest.raises(type(error)), noticed(_config(inbox.url), make_job("fold-0")):
        raise error
    # The error's own words may name a patient's file.
    assert inbox.texts == ["fold-0: failed after 0 min"]


def test_stopping_it_by_hand_is_no_failure(make_job: Any, inbox: Inbox) -> None:
    with pytest.raises(KeyboardInterrupt), noticed(_config(inbox.url), make_job()):
        raise KeyboardInterrupt
    assert inbox.texts == []


def test_only_what_was_asked_for(make_job: Any, inbox: Inbox) -> None:
    job = make_job()
    with noticed(_config(inbox.url, on=["failed"]), job):
        _train(job, 0.5)
    assert inbox.texts == []


def test_nothing_by_default(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notifier, "post", lambda *_: pytest.fail("posted"))
    job = make_job()
    with noticed(RunConfig(), job):
        _train(job, 0.5)


def test_the_address_from_a_variable(
    make_job: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", inbox.url)
    assert Notifier(_notice("env:HOOK")).post("finished", "hello")
    assert inbox.texts == ["hello"]


@pytest.mark.parametrize(("value", "found"), [("", "none"), ("xoxb-1", "something else")])
def test_a_variable_without_an_address(
    make_job: Any, monkeypatch: pytest.MonkeyPatch, value: str, found: str
) -> None:
    monkeypatch.setenv("HOOK", value)
    with (
        pytest.raises(ValueError, match=f"in the variable HOOK, found {found}") as caught,
        noticed(_config("env:HOOK"), make_job()),
    ):
        pytest.fail("the run began")
    assert "xoxb" not in str(caught.value)


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_stops_nothing(
    make_job: Any, inbox: Inbox, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    inbox.status = status
    job = make_job()
    with noticed(_config(inbox.url), job):
        _train(job, 0.5)
    assert "a notice could not be posted: HTTPError" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/SECRET", "http://[SECRET", "http://host:SECRET/", "https:///SECRET"]
)
def test_an_address_that_leads_nowhere(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert not Notifier(_notice(url)).post("finished", "hello")
    assert "could not be posted" in caplog.text
    assert "SECRET" not in caplog.text


def test_the_address_is_written_nowhere() -> None:
    config = _config("https://hooks.example.com/SECRET")
    assert "SECRET" not in repr(config) + dump_config(config) + str(config.model_dump())


@pytest.mark.parametrize(
    "text",
    [
        "notice.url=https://chat/SECRET",
        "notice={url: 'https://chat/SECRET', on: [failed]}",
        'notice={"url":"http://chat/SECRET"}',
    ],
)
def test_a_command_is_kept_without_the_address(text: str) -> None:
    (kept,) = hide_address([text])
    assert "SECRET" not in kept
    assert kept[:10] == text[:10]
    assert kept.count("}") == text.count("}")


def test_a_bad_address_is_not_shown() -> None:
    with pytest.raises(ValueError, match=r"'notice\.url': .*env:NAME") as caught:
        _config("hooks.example.com/SECRET")
    assert "SECRET" not in str(caught.value)


def test_an_idle_gpu_is_told_once_until_it_works_again() -> None:
    clock = IdleClock(below=5, seconds=60)
    seen = [(0, 0), (30, 4.9), (59, 0), (60, 0), (90, 0), (100, 80), (110, 0), (169, 0), (170, 0)]
    found = [now for now, percent in seen if clock.observe(now, {"0": percent})]
    assert found == [60, 170]


def test_gpus_idle_each_for_itself() -> None:
    clock = IdleClock(below=5, seconds=60)
    clock.observe(0, {"0": 0, "1": 90})
    clock.observe(30, {"0": 0, "1": 1})
    assert clock.observe(60, {"0": 0, "1": 1}) == ["0"]
    assert clock.observe(90, {"0": 0, "1": 1}) == ["1"]


def test_no_answer_is_not_idleness() -> None:
    clock = IdleClock(below=5, seconds=60)
    assert clock.observe(0, {}) == clock.observe(1000, {}) == []


@pytest.mark.parametrize(
    ("device", "count", "visible", "gpus"),
    [
        ("auto", 1, None, ("0",)),
        ("cuda:3", 1, None, ("3",)),
        ("cuda:1", 1, "4,6", ("6",)),
        ("cuda", 2, "GPU-ab, GPU-cd,GPU-ef", ("GPU-ab", "GPU-cd")),
        ("auto", 1, "", ()),
        ("mps", 1, None, ()),
        ("cpu", 4, "0,1", ()),
    ],
)
def test_the_gpus_of_a_run(device: str, count: int, visible: str | None, gpus: Any) -> None:
    assert gpus_of(device, count, visible) == gpus


def test_the_watch_posts(tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _notice(inbox.url, idle_minutes=2, disk_below_gb=1e9)
    run = tmp_path / "fold-0"
    run.mkdir()
    watch = Watch(config, Notifier(config), run, ["0", "1"], lambda gpus: {"0": 99.0, "1": 0.0})
    for now in (0, 60, 120, 180):
        watch.look(now)
    disk, idle = inbox.texts
    assert idle == "fold-0: GPU 1 idles, below 5 % for 2 min"
    assert disk.startswith("fold-0: the disk has ")


def test_the_watch_runs_beside_the_training(
    make_job: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "SECONDS_BETWEEN_LOOKS", 0.01)
    posted = threading.Event()
    monkeypatch.setattr(Notifier, "post", lambda *_: posted.set() or True)
    with noticed(_config(inbox.url, on=["disk"], disk_below_gb=1e9), make_job()):
        assert posted.wait(5)
    assert not any(thread.name == "zoo-watch" for thread in threading.enumerate())


def test_a_watch_that_fails_disturbs_nobody(
    make_job: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alerts, "SECONDS_BETWEEN_LOOKS", 0.01)
    ended = threading.Event()

    def fail(path: Path) -> None:
        ended.set()
        raise OSError("stale file handle of ID001")

    monkeypatch.setattr(alerts.shutil, "disk_usage", fail)
    job = make_job()
    with noticed(_config(inbox.url), job):
        assert ended.wait(5)
        _train(job, 0.5)
    assert len(inbox.texts) == 1
    assert "the watch ended: OSError" in caplog.text
    assert "ID001" not in caplog.text


def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nprintf "97\\n 3\\n"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert read_utilisation(["4", "5"]) == {"4": 97.0, "5": 3.0}
    assert "-i 4,5" in (tmp_path / "nvidia-smi.log").read_text()
    assert read_utilisation(["4"]) == {}
    assert read_utilisation([]) == {}


def test_without_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_utilisation(["0"]) == {}
