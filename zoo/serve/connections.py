"""Connections that bring no request are closed: whoever keeps them open keeps others out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# In which a request's line and headers have to be there.
HEADER_S = 10.0


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 whose clients have so long to send a request's headers, the first and each later."""

    header_s = HEADER_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._await_request()

    def _await_request(self) -> None:
        self.loop.call_later(self.header_s, self._close_without, self.cycle)

    def _close_without(self, before: Any) -> None:
        if self.cycle is before and not self.transport.is_closing():
            self.transport.close()
