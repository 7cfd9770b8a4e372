"""Ultralytics, imported so that it stays on this machine and out of the user's home.

By itself the package looks for a network, reports its use to Google Analytics, installs packages,
downloads weights and fonts, writes to `~/.config/Ultralytics`, sets OpenMP to one thread, and puts
its own function in place of Pillow's `Image.open`. Its switches are environment variables that it
reads once, at its import: so this module comes before any other import of it.

The package `ultralytics-platform`, on which it depends, is a client of Ultralytics' servers. It is
imported on demand only, and its callbacks need an API key; nothing here asks for it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch  # before Ultralytics: torch reads the number of threads that it is about to change
from PIL import Image

_SWITCHES = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    # No eval of what a network's YAML file says, no pickles beyond a list of known classes.
    "ULTRALYTICS_SAFE_LOAD": "true",
}
_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


def _prepare() -> None:
    os.environ.update(_SWITCHES)
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = os.path.join(tempfile.gettempdir(), f"maskzoo-ultralytics-{uuid.uuid4().hex}")
        # First, so that what ends the process just after the folder is there leaves none.
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.mkdir(folder, 0o700)
        os.environ["YOLO_CONFIG_DIR"] = folder


def _import() -> None:
    threads, omp = cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS")
    shown, open_image = np.get_printoptions(), Image.open
    try:
        import ultralytics  # noqa: F401
    finally:
        cv2.setNumThreads(threads)
        np.set_printoptions(**shown)
        torch.set_printoptions(profile="default")
        Image.open = open_image
        if omp is None:
            os.environ.pop("OMP_NUM_THREADS", None)


def _silence() -> None:
    # For a process that had imported the package before: the same, and only in memory.
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.events import events

    events.enabled = False
    for name in ("sync", *_INTEGRATIONS):
        dict.__setitem__(SETTINGS, name, False)


@contextmanager
def files_as_given() -> Iterator[None]:
    """Let Ultralytics open the very file that it is told, and none from a network.

    By itself it strips apostrophes and spaces from a path, renames what looks like a YOLOv5, and
    asks a server for what it does not find then.
    """
    from ultralytics.utils import downloads

    search = downloads.attempt_download_asset
    downloads.attempt_download_asset = lambda file, *_, **__: str(file)
    try:
        yield
    finally:
        downloads.attempt_download_asset = search


@contextmanager
def acting_as(rank: int) -> Iterator[None]:
    """Tell Ultralytics which of the processes this is that train together.

    Its trainer and its loader have read that from the environment when they were imported, which
    is before the processes knew of each other.

    Args:
        rank: the process's number; -1 says that it trains alone.
    """
    from ultralytics.data import build
    from ultralytics.engine import trainer

    places = ((trainer, "RANK"), (trainer, "LOCAL_RANK"), (build, "RANK"))
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, rank)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


_prepare()
_import()
_silence()
