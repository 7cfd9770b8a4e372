"""The server's addresses: images are posted to `/`; `/health` and `/metrics` are looked at."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from zoo.machine.faults import describe_fault
from zoo.serve.answers import choose_format
from zoo.serve.metrics import MEDIA_TYPE, Metrics
from zoo.serve.workers import Limits, RefusedError, Workers

_RETRY_S = "1"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def make_application(
    workers: Workers, limits: Limits, metrics: Metrics, hosts: Sequence[str] = _LOCAL
) -> Starlette:
    """Return the application; it works on images until its workers are closed.

    Args:
        workers: predict.
        limits: of what comes from outside.
        metrics: count.
        hosts: names by which it may be called; a page in a browser that calls it by another one
            is not meant. Empty takes any.
    """
    intake = Intake(limits.body_bytes * (limits.jobs + limits.queue))

    async def predict(request: Request) -> Response:
        start, status = time.perf_counter(), 500
        try:
            _check_host(request, hosts)
            form = _format(request)
            _check_kind(request)
            workers.check_room()
            content = await _read_body(request, limits, intake)
            start = time.perf_counter()
            body, kind = await workers.submit(content, form)
            status = 200
            return Response(body, media_type=kind)
        except ClientDisconnect:
            status = 499
            return error_response(status, "body: expected an image, found that the client has gone")
        except RefusedError as error:
            status = error.status
            return error_response(status, str(error))
        # What else went wrong is the machine's; the client learns that it was.
        except Exception as error:
            fault = describe_fault(error)
            status = 503 if fault else 500
            return error_response(
                status, fault or "server: something went wrong that is not the image's"
            )
        finally:
            metrics.answered(status, time.perf_counter() - start)

    async def health(request: Request) -> Response:
        return Response(json.dumps({"status": "ok"}), media_type="application/json")

    async def show(request: Request) -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    async def refuse(request: Request, error: Exception) -> Response:
        known = error if isinstance(error, HTTPException) else HTTPException(500)
        expected = "expected POST /, GET /health or GET /metrics"
        found = f"{request.method:.10} {request.url.path!r:.80}"
        return error_response(known.status_code, f"request: {expected}, found {found}")

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        workers.close()

    return Starlette(
        routes=[
            Route("/", predict, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", show),
        ],
        exception_handlers={HTTPException: refuse},
        lifespan=life,
    )


def error_response(status: int, message: str) -> Response:
    """Return an error as one line of JSON."""
    headers = {"Retry-After": _RETRY_S} if status in (503, 504) else {}
    # What was not read of a body must not be taken for the next request.
    headers["Connection"] = "close"
    text = json.dumps({"error": message}, ensure_ascii=False)
    return Response(text, status, headers, "application/json")


def _check_host(request: Request, hosts: Sequence[str]) -> None:
    name = request.headers.get("host", "").rpartition(":")
    host = name[0] if name[0] and name[2].isdecimal() else request.headers.get("host", "")
    if hosts and host.lower() not in hosts:
        raise RefusedError(
            421, f"host: expected {', '.join(hosts)}, found '{host:.80}'; see zoo serve --host"
        )


def _format(request: Request) -> str:
    if unknown := sorted(set(request.query_params) - {"format"}):
        raise RefusedError(400, f"request: expected ?format=, found '{unknown[0]:.40}'")
    try:
        asked = request.query_params.get("format")
        return choose_format(asked, request.headers.get("accept", ""))
    except ValueError as error:
        raise RefusedError(400, str(error)) from None


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise RefusedError(
            415,
            f"body: expected the image's file itself, as curl --data-binary @FILE sends it, found "
            f"a form ({kind:.40})",
        )


class Intake:
    """Counts the bytes of all bodies that are coming in, of which memory holds so many.

    Args:
        most: so many.
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    def add(self, size: int) -> None:
        """Take down some bytes more.

        Raises:
            RefusedError: they are too many.
        """
        self._held += size
        if self._held > self._most:
            raise RefusedError(503, "body: expected fewer uploads at a time: retry")

    def drop(self, size: int) -> None:
        """Take down that a body is no longer coming in."""
        self._held -= size


async def _read_body(request: Request, limits: Limits, intake: Intake) -> bytes:
    """Read a body, no more of it and no longer than allowed."""
    most = limits.body_bytes
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > most:
        raise RefusedError(413, f"body: expected at most {most} bytes, found {told}")
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.upload_s):
            async for part in request.stream():
                size += len(part)
                intake.add(len(part))
                if size > most:
                    raise RefusedError(413, f"body: expected at most {most} bytes, found more")
                parts.append(part)
    except TimeoutError:
        raise RefusedError(
            408, f"body: expected within {limits.upload_s:g} s, found {size} bytes by then"
        ) from None
    finally:
        intake.drop(size)
    if not size:
        raise RefusedError(
            400, "body: expected an image's file (PNG, JPEG, TIFF, DICOM, ...), found nothing"
        )
    return b"".join(parts)
