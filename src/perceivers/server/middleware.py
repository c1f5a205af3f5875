"""What every request passes: who may ask, how much may be sent, which headers an answer has, and what is counted."""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from perceivers.server.metrics import Metrics

__all__ = ["Gate", "TooMuchError"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The page talks to this server alone; pictures, films and sounds that it shows may lie within itself.
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=()"),
)
_OPEN = (
    "/",
    "/health",
    "/docs",
    "/openapi.json",
)  # and what lies under /static: they tell nothing of the run
_DRAIN = 1.0  # seconds in which the rest of what is too large may still come, so that its sender reads the answer


class TooMuchError(Exception):
    """A body larger than the limit."""


class Gate:
    """Wraps an application.

    Args:
        app: The application.
        metrics: Where requests are counted.
        routes: Paths that are counted by name.
        most: Bytes of a body.
        seconds: That a body may take to arrive.
        token: What must be shown. None: everybody may ask.
        hosts: By which names the server may be called. None: any. A page elsewhere that makes a browser take its own
            name for this address is so refused.
    """

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        routes: frozenset[str],
        most: int,
        seconds: float,
        token: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.routes = routes
        self.most = most
        self.seconds = seconds
        self.token = None if token is None else token.encode()
        self.hosts = hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                extra = [pair for pair in HEADERS if pair[0] not in given]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        body = _Body(receive, self.most, started + self.seconds)
        try:
            refused = self._refused(scope)
            if refused is None:
                await self.app(scope, body.receive, told)
            else:
                await _answer(told, *refused)
            if not body.is_read:
                await body.drain()
        finally:
            path = scope["path"]
            route = (
                path
                if path in self.routes
                else "static"
                if path.startswith("/static/")
                else "other"
            )
            self.metrics.answered(route, status, time.monotonic() - started)

    def _refused(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        """Return status and reason if a request goes no further."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self.hosts is not None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name not in self.hosts:
                return 421, (
                    "This server is reached by the name localhost or its address only. Behind a proxy, give it a "
                    "--token: then any name will do."
                )
        path: str = scope["path"]
        is_open = path in _OPEN or path.startswith("/static/")
        if self.token is not None and not is_open:
            shown = headers.get(b"authorization", b"")
            scheme, _, value = shown.partition(b" ")
            right = hmac.compare_digest(value.strip(), self.token)
            if scheme.lower() != b"bearer" or not right:
                return (
                    401,
                    "This server wants a token: send the header `Authorization: Bearer TOKEN`.",
                )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            return 413, too_much(self.most)
        return None


class _Body:
    """The body of a request, which may be no larger than a limit."""

    def __init__(self, receive: Receive, most: int, until: float) -> None:
        self._receive = receive
        self._most = most
        self._until = until
        self._size = 0
        self.is_read = False

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            TooMuchError: If all of it together is too large.
            TimeoutError: If it takes too long to arrive.
        """
        if self.is_read:  # now only the end of the connection can come
            return await self._receive()
        async with asyncio.timeout(max(self._until - time.monotonic(), 0)):
            message = await self._receive()
        self._size += len(message.get("body", b""))
        self.is_read = not message.get("more_body", False)
        if self._size > self._most:
            raise TooMuchError(too_much(self._most))
        return message

    async def drain(self) -> None:
        """Take what still comes for a moment: who writes reads the answer only when it is done or refused."""
        until = time.monotonic() + _DRAIN
        while not self.is_read and self._size < 2 * self._most and time.monotonic() < until:
            try:
                async with asyncio.timeout(max(until - time.monotonic(), 0)):
                    message = await self._receive()
            except TimeoutError:
                return
            self._size += len(message.get("body", b""))
            self.is_read = not message.get("more_body", False)


def too_much(most: int) -> str:
    """Return what is said of a body that is too large."""
    return f"What was sent is larger than the {most:,} bytes that are accepted here. Send a smaller file."


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 413:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
