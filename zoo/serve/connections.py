"""Connections: those that bring no request are closed, those that cannot be taken are told why.

Whoever keeps connections open keeps others out. What Uvicorn refuses by itself is answered as all
other errors are.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from zoo.serve.application import error_response

# In which a request's line and headers have to be there.
HEADER_S = 10.0


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 whose clients have so long to send a request's headers, the first and each later."""

    header_s = HEADER_S

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        # What is beyond the limit is answered here instead of by Uvicorn's own words.
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._application: Any = self.app
        self.app: Any = self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._await_request()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        response = error_response(400, "request: expected HTTP/1.1, found something else")
        events = (
            h11.Response(status_code=400, headers=response.raw_headers, reason=b"Bad Request"),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        # The task of this request is one of them.
        busy = max(len(self.connections), len(self.tasks) - 1)
        application = self._application
        if self._most is not None and busy >= self._most:
            what = f"server: expected fewer than {self._most} connections at a time: retry"
            application = error_response(503, what)
        await application(scope, receive, send)

    def _await_request(self) -> None:
        self.loop.call_later(self.header_s, self._close_without, self.cycle)

    def _close_without(self, before: Any) -> None:
        if self.cycle is before and not self.transport.is_closing():
            self.transport.close()
