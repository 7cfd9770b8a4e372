"""What the page is told on its command line, opened once for all who look at it."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence
from pathlib import Path

from zoo.viewer.collection import Collection
from zoo.viewer.desk import Desk

_OPENED: dict[str, Desk] = {}
_ONE_AT_A_TIME = threading.Lock()


def open_desk(arguments: Sequence[str]) -> Desk:
    """Open what the arguments of `page_arguments` name; the second time it is there.

    Raises:
        ValueError: as `Collection.open`.
    """
    given = _parse(arguments)
    key = repr(vars(given))
    with _ONE_AT_A_TIME:
        if key not in _OPENED:
            _OPENED[key] = _open(given)
        return _OPENED[key]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--edits", required=True, type=Path)
    parser.add_argument("--data_format")
    parser.add_argument("--labels_name")
    parser.add_argument("--method")
    parser.add_argument("--config", type=Path)
    return parser.parse_args(arguments)


def _open(given: argparse.Namespace) -> Desk:
    collection = Collection.open(
        given.paths,
        given.edits,
        data_format=given.data_format,
        labels_name=given.labels_name,
        method=given.method,
        config=given.config,
    )
    desk = Desk(collection)
    # The first page is ready before anybody asks for it.
    desk.prepare(sorted(collection.entries)[:1])
    return desk
