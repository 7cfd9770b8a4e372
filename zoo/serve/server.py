"""Starts and ends the server: on this computer alone unless asked, and never in the midst of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.errors import import_optional
from zoo.contract import PredictOptions
from zoo.export.description import FILE, is_exported
from zoo.export.exported import Exported
from zoo.progress import note
from zoo.serve.metrics import Metrics
from zoo.serve.workers import Limits, Workers

EXTRA = "serve"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Connections beside those whose images wait or are worked on.
_FURTHER = 64
_IDLE_S = 5


def serve(
    folder: Path,
    *,
    host: str,
    port: int,
    limits: Limits,
    options: PredictOptions,
    threads: int = 0,
    say: Callable[[str], None],
) -> None:
    """Answer requests until a signal ends it; what was begun is finished first.

    Args:
        folder: of `zoo export`.
        host: an address of this computer; 127.0.0.1 is seen by itself alone.
        port: 0 takes a free one.
        limits: of what comes from outside.
        options: how the model predicts.
        threads: that one image may use; 0 takes the machine's cores.
        say: is told where it listens.

    Raises:
        ValueError: no exported model, or the address is taken.
        MissingDependency: Starlette or Uvicorn is not installed.
    """
    uvicorn: Any = import_optional("uvicorn", EXTRA)
    import_optional("starlette", EXTRA)
    # Late: what it needs is not always there.
    from zoo.serve.application import make_application
    from zoo.serve.connections import ImpatientProtocol

    if not is_exported(folder):
        raise ValueError(
            f"{folder}: expected an exported model with {FILE}, found none: zoo export RUN --out "
            "FOLDER"
        )
    exported = Exported.open(folder, options.device, threads)
    for source in exported.sources:
        source.plan(options)
    metrics = Metrics()
    workers = Workers(exported, options, limits, metrics)
    is_local = host in LOOPBACK
    names = ("localhost", "127.0.0.1", "[::1]") if is_local else ()
    application = make_application(workers, limits, metrics, names)
    config = uvicorn.Config(
        application,
        http=ImpatientProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_IDLE_S,
        limit_concurrency=limits.queue + limits.jobs + _FURTHER,
        proxy_headers=False,
        ws="none",
    )
    with _listen(host, port) as place:
        if exported.columns:
            shown = ", ".join(exported.columns)
            note(f"metadata: images come without {shown}: the networks are shown them as missing")
        say(_told(folder, host, place.getsockname()[1], is_local))
        uvicorn.Server(config).run(sockets=[place])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind((host, port))
        place.listen()
    except (OSError, OverflowError) as error:
        place.close()
        raise ValueError(f"--host {host} --port {port}: expected a free address: {error}") from None
    return place


def _told(folder: Path, host: str, port: int, is_local: bool) -> str:
    shown = f"[{host}]" if ":" in host else host
    line = f"{folder}: listens on http://{shown}:{port}"
    if is_local:
        return (
            f"{line}, for this computer alone; from another one: "
            f"ssh -L {port}:127.0.0.1:{port} USER@THIS-COMPUTER"
        )
    return (
        f"{line}, for all who reach it, without password or encryption: put it behind a proxy that "
        "has them"
    )
