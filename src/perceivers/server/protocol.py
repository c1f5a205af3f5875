"""HTTP as uvicorn speaks it, but what is no request of HTTP gets its reason as well, and time to read it."""

import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Http"]

_DRAIN = 1.0  # seconds in which the rest may still come: closed at once, the answer would be lost with it


class Http(H11Protocol):
    """A connection. Headers are bounded by uvicorn's `h11_max_incomplete_event_size`."""

    is_refused = False

    def data_received(self, data: bytes) -> None:
        """Take what arrives; of a connection that was refused, nothing more."""
        if not self.is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong, and close the connection a moment later.

        Args:
            msg: Of uvicorn.
        """
        self.is_refused = True
        transport: Any = self.transport
        reason = (
            f"{msg} Its first line and headers must be those of HTTP/1.1, and no longer than 64 kB."
        )
        body = json.dumps({"error": reason}).encode()
        head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.loop.call_later(_DRAIN, transport.close)
