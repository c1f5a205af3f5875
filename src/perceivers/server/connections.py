"""Connections of a worker: how many it holds, and how long it waits for their clients.

uvicorn bounds neither the time until a request's head is complete nor the number of open connections, and a response
that nobody reads keeps its connection open. Here a connection is closed

- if no complete head arrives within `head_wait` seconds of the connection, of its last response or of the first byte;
- if the response is taken more slowly than `min_rate`, or not within the seconds of a request;
- if more than `max_connections` are open: the one that has waited longest for its client makes room for the new one.

Bodies are bounded by the middleware, whose response states the reason.
"""

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from uvicorn.protocols.http.h11_impl import H11Protocol

from perceivers.server.log_filter import RepeatFilter
from perceivers.server.settings import ConnectionLimits

STATE_KEY = "connections"  # of the application's lifespan state
ACCEPTED_AT_ONCE = 16  # sockets that the loop accepts before it handles the first of them
_TICK_SECONDS = 0.5
_DRAIN_SECONDS = 1.0
_MOST_REFUSED = 16  # at once; more are closed without a reason
_RESERVED_FILES = (
    64 + _MOST_REFUSED
)  # descriptors for decoders, files of the page and accepted sockets not yet handled
_FEWEST = 8  # connections, whatever the limit of open files
_NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LOGGERS = ("perceivers.server", "uvicorn.error", "asyncio")
_HTTP_PHRASES = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}

_logger = logging.getLogger("perceivers.server")


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn with limits, and a JSON reason for connections that it refuses.

    Attributes:
        since: Time of the connection, of its last response, or of the first byte of a head or request.
        address: Address of the client, for IPv6 its network of 64 bits.
    """

    since = 0.0
    address = ""
    _table: "ConnectionTable"
    _is_refused = False
    _has_part = False  # of a head
    _unsent = 0  # bytes that the client had not taken at the last check
    _unsent_total = 0
    _unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Register the connection, or refuse it if the table is full."""
        super().connection_made(transport)
        self.since = time.monotonic()
        self.address = _network_of(self.client[0] if self.client else "")
        table = self._table = self.app_state[STATE_KEY]
        if not table.add(self):
            if len(table) > table.largest + _MOST_REFUSED:
                transport.abort()
                return
            reason = "The server has too many connections. Try again in a second."
            self.refuse(503, reason, "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        self._table.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle received data; drop it once the connection is refused."""
        if self._is_refused:
            return
        if self.is_waiting and not self._has_part:
            self._has_part, self.since = True, time.monotonic()
        super().data_received(data)
        if not self.is_waiting:
            self._has_part = False
            self._table.note_request(self)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._has_part, self.since = False, time.monotonic()
        super().on_response_complete()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    @property
    def is_receiving(self) -> bool:
        """Whether the body of a request is incomplete."""
        return not self.is_waiting and self.cycle.more_body

    @property
    def unsent(self) -> int:
        """Bytes of responses that the client has not taken."""
        return self.transport.get_write_buffer_size()

    def check(self, now: float, limits: ConnectionLimits, wait: float) -> str | None:
        """Close the connection if its client is too slow, and return the reason as a word for the metrics."""
        if self._is_too_slow_reader(now, limits, wait):
            self.transport.abort()
            return "slow"
        if self.transport.is_closing() or self._is_refused or not self.is_waiting:
            return None
        if now - self.since <= limits.head_wait:
            return None
        if self._has_part:
            self.refuse(408, f"The request's head was not complete after {limits.head_wait:g} s.")
            return "head"
        self.transport.close()
        return "idle"

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. uvicorn closes at once, so that a client that still sends sees no response."""
        form = "Its first line and headers must be those of HTTP/1.1, and no longer than 64 kB."
        self.refuse(400, f"{msg} {form}")

    def refuse(self, status: int, reason: str, headers: str = "") -> None:
        """Send a reason, and close the connection shortly afterwards."""
        if self._is_refused:
            return
        self._is_refused = True
        transport: Any = self.transport
        body = json.dumps({"error": reason}).encode()
        head = (
            f"HTTP/1.1 {status} {_HTTP_PHRASES[status]}\r\ncontent-type: application/json\r\n{headers}"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        transport.write(head.encode() + body)
        self.loop.call_later(_DRAIN_SECONDS, transport.close)

    def _is_too_slow_reader(self, now: float, limits: ConnectionLimits, wait: float) -> bool:
        """Follow the bytes that wait for the client, from check to check."""
        unsent = self.unsent
        if not unsent:
            self._unsent = 0
            return False
        if not self._unsent:
            self._unsent_since, self._unsent_total = now, 0
        self._unsent_total += max(unsent - self._unsent, 0)
        self._unsent = unsent
        allowed = min(limits.grace + self._unsent_total / limits.min_rate, wait)
        return now - self._unsent_since > allowed


class ConnectionTable:
    """All connections of a worker. A context that checks them and limits what is logged about them.

    Args:
        limits: Bounds on connections.
        wait: Seconds of a request.
        on_closed: Called with a word for each connection that was closed or refused.
    """

    def __init__(
        self, limits: ConnectionLimits, wait: float, on_closed: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self.wait = wait
        self.largest = limits.max_connections
        self._on_closed = on_closed
        self._open: set[LimitedProtocol] = set()
        self._new: dict[LimitedProtocol, None] = {}  # those without a request yet
        self._by_address: dict[str, int] = {}
        self._filter = RepeatFilter()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    async def __aenter__(self) -> Self:
        """Start the checks, in the event loop of the worker."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._filter)
        self.largest = _free_descriptors(self.limits.max_connections)
        if self.largest < self.limits.max_connections:
            _logger.warning(
                "The limit of open files allows %d connections, fewer than --max-connections %d. Raise it with "
                "`ulimit -n`.",
                self.largest,
                self.limits.max_connections,
            )
        self._timer = loop.call_later(_TICK_SECONDS, self._check)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the checks."""
        assert self._timer is not None
        self._timer.cancel()
        asyncio.get_running_loop().set_exception_handler(None)
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._filter)

    def add(self, connection: LimitedProtocol) -> bool:
        """Register a connection and make room for it. Return False if there is no room."""
        address = connection.address
        if self._by_address.get(address, 0) >= self.limits.max_connections_per_address:
            has_room = self._close_longest(address)
        else:
            has_room = len(self._open) < self.largest or self._close_longest()
        # Refused ones are registered as well, until they are closed.
        self._open.add(connection)
        self._new[connection] = None
        self._by_address[address] = self._by_address.get(address, 0) + 1
        if not has_room:
            self._count("refused", address)
        return has_room

    def note_request(self, connection: LimitedProtocol) -> None:
        """Note that a connection has sent the head of a request."""
        self._new.pop(connection, None)

    def remove(self, connection: LimitedProtocol) -> None:
        """Release a connection."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        self._new.pop(connection, None)
        left = self._by_address[connection.address] - 1
        if left:
            self._by_address[connection.address] = left
        else:
            del self._by_address[connection.address]

    def _close_longest(self, address: str | None = None) -> bool:
        """Close the connection (of one address) whose client is waited for since longest.

        Those that have never sent a request come first, those that send a body last. Return False if no client is
        waited for.
        """
        # New ones are in the order of their arrival.
        longest = next((one for one in self._new if address in (None, one.address)), None)
        if longest is None:
            waited = [
                (one.is_receiving, one.since, id(one), one)
                for one in self._open
                if address in (None, one.address) and (one.is_waiting or one.is_receiving)
            ]
            longest = min(waited)[-1] if waited else None
        if longest is None:
            return False
        self.remove(longest)
        longest.transport.abort()
        self._count("full", longest.address)
        return True

    def _check(self) -> None:
        """Close connections of slow clients, now and after each tick."""
        now = time.monotonic()
        try:
            for connection in list(self._open):
                closed = connection.check(now, self.limits, self.wait)
                if closed is not None:
                    self._count(closed)
            self._check_unsent()
        finally:
            self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._check)

    def _check_unsent(self) -> None:
        """Close the connections with most bytes of responses while these exceed the bound together."""
        unsent = {one: one.unsent for one in self._open}
        total = sum(unsent.values())
        for connection in sorted(unsent, key=unsent.__getitem__, reverse=True):
            if total <= self.limits.max_held_bytes:
                return
            total -= unsent[connection]
            connection.transport.abort()
            self._count("slow")

    def _count(self, reason: str, address: str = "") -> None:
        self._on_closed(reason)
        if address:
            _logger.warning(
                "%d connections are open, at most %d are accepted and %d of one address; the last is of %s. Those that "
                "wait longest for their clients are closed.",
                len(self._open),
                self.largest,
                self.limits.max_connections_per_address,
                address,
            )

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle errors of the event loop: no descriptor left for a connection, for example."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_RESOURCES:
            _logger.warning("A connection cannot be accepted: %s.", error.strerror)
            self._close_longest()
        else:
            loop.default_exception_handler(context)


def _network_of(address: str) -> str:
    """Return the address of a client, or its IPv6 network of 64 bits, which one client owns as a whole."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(address).version == 6:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return address


def _free_descriptors(wanted: int) -> int:
    """Return the number of connections that the limit of open files allows, raised for as many as wanted."""
    folder = Path("/dev/fd")
    used = (sum(1 for _ in folder.iterdir()) if folder.exists() else 64) + _RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = used + wanted
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(max(soft - used, _FEWEST), wanted)
