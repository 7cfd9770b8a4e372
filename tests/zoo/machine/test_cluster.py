"""What a Ray cluster is told, and what is said where there is none; without starting any."""

import os
import socket
from types import SimpleNamespace

import pytest

from zoo.machine import cluster

TOKEN = "RAY_AUTH_TOKEN"


class FakeRay:
    """A Ray that does not start, and notes the token that it was given."""

    exceptions = SimpleNamespace(RayTaskError=ZeroDivisionError, RayError=ZeroDivisionError)

    def __init__(self, error):
        self.error, self.token, self.is_down = error, None, False

    def is_initialized(self):
        return False

    def init(self, address, **options):
        self.token = os.environ.get(TOKEN)
        raise self.error

    def shutdown(self):
        self.is_down = True


@pytest.fixture
def say_on(monkeypatch, tmp_path):
    """Return a function: ask for work on a Ray that fails; the fake, and what is said of it."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Set and taken away again, so that what the command sets does not outlive the test.
    monkeypatch.setenv(TOKEN, "")
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(on, error=None):
        fake = FakeRay(error or RuntimeError("no room. And more.\nAnd a trace"))
        monkeypatch.setattr(cluster, "import_optional", lambda *names: fake)
        with pytest.raises(ChildProcessError) as caught:
            list(cluster.map_anywhere(abs, [1], on=on))
        assert fake.is_down
        return fake, str(caught.value)

    return run


def test_a_cluster_of_ours_gets_a_token_that_nobody_knows(say_on, tmp_path):
    token = say_on("ray")[0].token
    assert len(token) == 64
    assert set(token) <= set("0123456789abcdef")
    assert list(tmp_path.iterdir()) == []


def test_the_token_of_a_process_stays(say_on):
    assert say_on("ray")[0].token == say_on("ray")[0].token


@pytest.mark.parametrize("place", ["variable", "path", "file"])
def test_a_token_of_the_user_is_left_alone(say_on, monkeypatch, tmp_path, place):
    given = {"variable": TOKEN, "path": "RAY_AUTH_TOKEN_PATH"}
    if place in given:
        monkeypatch.setenv(given[place], "mine")
    else:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("mine", encoding="utf-8")
    assert say_on("ray")[0].token == ("mine" if place == "variable" else "")


def test_another_cluster_gets_no_token_of_ours(say_on):
    assert say_on("auto")[0].token == ""


NO_ANSWER = ConnectionError("Failed to connect to Ray cluster at host:1")
NEEDS = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"


@pytest.mark.parametrize(
    ("on", "error", "start", "asks"),
    [
        ("auto", NO_ANSWER, "--on auto: Failed to connect", True),
        ("ray", NO_ANSWER, "--on ray: Failed to connect", True),
        ("auto", None, "--on auto: no room;", True),
        ("ray", None, "Ray did not start: no room", False),
    ],
)
def test_what_does_not_answer_is_one_line(say_on, on, error, start, asks):
    said = say_on(on, error)[1]
    assert said.startswith(start)
    assert (NEEDS in said) is asks
    assert "\n" not in said


class Starting(FakeRay):
    """A Ray that notes where it is to go."""

    def init(self, address, **options):
        self.address = address
        raise self.error


@pytest.mark.parametrize(("is_alive", "expected"), [(True, None), (False, "local")])
def test_a_cluster_that_was_killed_is_not_waited_for(is_alive, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv(TOKEN, "x")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if is_alive:
            place.listen()
        (tmp_path / "ray").mkdir()
        file = tmp_path / "ray" / "ray_current_cluster"
        file.write_text(f"127.0.0.1:{place.getsockname()[1]}")
        fake = Starting(RuntimeError("no room"))
        with pytest.raises(ChildProcessError):
            cluster.connect(fake, None)
    assert fake.address == expected
