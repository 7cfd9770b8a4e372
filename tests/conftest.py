"""Seeds that can be shifted, margins that are kept, and Ultralytics imported our way first.

Ultralytics' own import changes threads, Pillow, and the home.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Put together, so that this file is none.
SLOW_MODULE = re.compile("pytestmark = " + r"\[?pytest\.mark\.slow")


def pytest_collection(session: pytest.Session) -> None:
    # The process that only hands out tests imports none of them.
    is_working = hasattr(session.config, "workerinput") or session.config.option.dist == "no"
    if is_working and importlib.util.find_spec("ultralytics"):
        importlib.import_module("zoo.families.yolo.offline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed-shift",
        type=int,
        default=0,
        help="added to every seed that torch is given: what is learned shall not hang on it",
    )

    parser.addoption(
        "--clusters",
        action="store_true",
        help="also run tests of clusters whose machines share no disk: some ten minutes, alone",
    )
    parser.addoption(
        "--recipes",
        action="store_true",
        help="also run every shipped recipe as a whole, of small networks: some twenty minutes",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules that are slow as a whole unread where slow tests are not wanted.

    To import what they test takes longer than all quick tests together.
    """
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(SLOW_MODULE.search(collection_path.read_text(encoding="utf-8"))) or None


@pytest.fixture(scope="session", autouse=True)
def _shifted_seeds(request: pytest.FixtureRequest) -> Iterator[None]:
    shift = request.config.getoption("--seed-shift")
    if not shift:
        yield
        return
    import torch

    plain = torch.manual_seed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "manual_seed", lambda seed: plain(seed + shift))
        yield


@pytest.fixture(scope="session", autouse=True)
def _clusters_of_our_own() -> Iterator[None]:
    """Ray writes down in a folder which cluster runs here: not that of others, nor of other tests.

    The folder's name is short, for the names of sockets below it may not be long.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def exceeds(record_property: Callable[[str, object], None]) -> Callable[[str, float, float], None]:
    """Return a function: what was learned is more than a bound; both go to `--junitxml`.

    `tools/check_margins.py` collects how far above it is on other processors, threads and seeds.
    """

    def check(what: str, value: float, bound: float) -> None:
        record_property(f"margin: {what}", f"{value:.4g} > {bound:.4g}")
        assert value > bound, what

    return check
