"""ASGI middleware around every request: accepted headers, limits of bodies, security headers, and metrics."""

import asyncio
import time

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perceivers.server.access import AccessRules
from perceivers.server.service import Service
from perceivers.server.settings import ConnectionLimits

# The page loads from this server only, and may embed media as data.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
}
_UNCOUNTED_BYTES = (
    2**18
)  # of each body: small requests are answered also while large ones fill the memory


class RequestGuard:
    """Checks of the headers and the body of each request, security headers of its response, and metrics."""

    def __init__(self, app: FastAPI, service: Service, access: AccessRules) -> None:
        self.app: ASGIApp = app
        self.metrics, self.limits = service.metrics, service.limits
        self.connections = service.connection_limits
        self.access = access
        self.log = service.access_log
        self.held = HeldBytes(service.connection_limits.max_held_bytes)
        self._routes = {route.path for route in app.routes if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, size = time.monotonic(), 500, 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size
            size += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        wait = self.limits.wait
        body = BoundedBody(receive, self.limits.bytes, wait, self.connections, self.held)
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        try:
            await (refusal or self.app)(scope, body.receive, send_with_headers)
        finally:
            body.release()
            path: str = scope["path"]
            other = "static" if path.startswith("/static/") else "other"
            route = path if path in self._routes else other
            seconds = time.monotonic() - started
            self.metrics.count_request(route, status, seconds)
            self.log.add(scope, status, size, seconds)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        """Return the response to a request that must not reach the application."""
        refused = self.access.refusal(method, headers)
        if refused is not None:
            status, reason = refused
            return JSONResponse({"error": reason}, status)
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.limits.bytes:
            return JSONResponse({"error": _too_large(self.limits.bytes).detail}, 413)
        return None


class HeldBytes:
    """Bytes of all bodies in progress, up to a bound."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0

    def take(self, count: int) -> None:
        """Count further bytes. Raise HTTPException if they exceed the bound."""
        if self.count + count > self.most:
            reason = "The server holds as many uploads as it can. Try again in a second."
            raise HTTPException(503, reason, headers={"retry-after": "1"})
        self.count += count


class BoundedBody:
    """The body of a request, with bounds on its size, duration and rate.

    Args:
        receive: Function that returns the next message of the client.
        most: Bytes of the body.
        wait: Seconds until it must be complete.
        limits: The smallest rate, and the seconds that it is not required.
        held: Bytes of all bodies together.
    """

    def __init__(
        self, receive: Receive, most: int, wait: float, limits: ConnectionLimits, held: HeldBytes
    ) -> None:
        self._receive = receive
        self._most, self._wait, self._limits, self._held = most, wait, limits, held
        self._started = time.monotonic()
        self._size = 0
        self._counted = 0
        self._is_read = False

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: Above a bound on sizes, or if the client sends too slowly.
            TimeoutError: If the body is not complete in time.
        """
        if self._is_read:  # only the end of the connection can follow
            return await self._receive()
        message = await self._next()
        count = len(message.get("body", b""))
        self._size += count
        if self._size > self._most:
            raise _too_large(self._most)
        counted = max(self._size - _UNCOUNTED_BYTES, 0)
        self._held.take(counted - self._counted)
        self._counted = counted
        self._is_read = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Release the bytes of a request that is answered."""
        self._held.count -= self._counted
        self._counted = 0

    async def _next(self) -> Message:
        seconds = self._limits.grace + self._size / self._limits.min_rate
        until = self._started + min(seconds, self._wait)
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                return await self._receive()
        except TimeoutError:
            if seconds >= self._wait:
                raise
            reason = (
                f"The body arrived more slowly than {self._limits.min_rate:,} bytes a second. Send it again over a "
                "faster connection."
            )
            raise HTTPException(408, reason) from None


def _too_large(limit: int) -> HTTPException:
    reason = f"The request is larger than the limit of {limit:,} bytes. Send a smaller file."
    return HTTPException(413, reason)
