import asyncio
import contextlib
import errno
import http.client
import json
import logging
import resource
import socket
import threading
from contextlib import closing
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from perceivers.server import connections
from perceivers.server.access import AccessRules
from perceivers.server.connections import STATE_KEY, ConnectionTable, LimitedProtocol
from perceivers.server.log_filter import RepeatFilter
from perceivers.server.middleware import RequestGuard
from perceivers.server.service import Service
from perceivers.server.settings import ConnectionLimits, UploadLimits
from support.timing import PATIENCE, wait_until

LARGE = 32 * 2**20  # more than the system buffers for a client that does not read


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(connections, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(connections, "_DRAIN_SECONDS", 0.05)


class Served:
    """A server of a few routes within a thread of the test."""

    def __init__(self, limits: ConnectionLimits, uploads: UploadLimits) -> None:
        self.closed: list[str] = []
        self.statuses: list[int] = []
        self.table = ConnectionTable(limits, uploads.wait, self.closed.append)

        @contextlib.asynccontextmanager
        async def lifespan(_):
            async with self.table:
                yield {STATE_KEY: self.table}

        app = FastAPI(lifespan=lifespan)

        @app.post("/size")
        async def size(request: Request) -> int:
            return len(await request.body())

        @app.get("/large")
        async def large() -> Response:
            return Response(bytes(LARGE))

        @app.exception_handler(TimeoutError)
        async def late(_: Request, __: Exception) -> Response:
            return JSONResponse({"error": "late"}, 504)

        metrics = SimpleNamespace(count_request=lambda _, status, __: self.statuses.append(status))
        log = SimpleNamespace(add=lambda *_: None)
        service = Mock(
            Service, metrics=metrics, limits=uploads, connection_limits=limits, access_log=log
        )
        self.guard = RequestGuard(app, service, AccessRules())
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        config = uvicorn.Config(
            self.guard, http=LimitedProtocol, log_config=None, timeout_graceful_shutdown=5
        )
        self.server = uvicorn.Server(config)
        self.opened = contextlib.ExitStack()
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    def connect(self, sent: bytes = b"") -> socket.socket:
        """Open a connection and send the beginning of a request."""
        port = self.socket.getsockname()[1]
        connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        connection.sendall(sent)
        return self.opened.enter_context(connection)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, object]:
        """Return status and JSON of a whole request."""
        port = self.socket.getsockname()[1]
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(client):
            client.request(method, path, body)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def served(uploads: UploadLimits | None = None, **limits):
    found = Served(ConnectionLimits(**limits), uploads or UploadLimits())
    found.thread.start()
    wait_until(lambda: found.server.started)
    try:
        yield found
    finally:
        found.opened.close()
        found.server.should_exit = True
        found.thread.join(PATIENCE)
        assert not found.thread.is_alive()


def received(connection: socket.socket) -> bytes:
    """Return all that is received until the server closes the connection."""
    with contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b""


def complete(connection: socket.socket) -> bytes:
    """Return one response with a body of JSON."""
    found = connection.recv(1000)
    while not found.partition(b"\r\n\r\n")[2]:
        found += connection.recv(1000)
    length = int(found.lower().partition(b"content-length:")[2].split()[0])
    while len(found.partition(b"\r\n\r\n")[2]) < length:
        found += connection.recv(1000)
    return found


HALF = b"GET /large HTTP/1.1\r\nHost: loc"
HEAD = b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


def test_a_connection_without_a_whole_head_is_closed():
    with served(head_wait=0.3) as server:
        idle, half = server.connect(), server.connect(HALF)
        answer = received(half)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"not complete after 0.3 s" in answer
        assert received(idle) == b""
        used = server.connect(HEAD % 2 + b"ab")
        assert b"\r\n\r\n2" in received(used)  # and is closed when nothing follows
        dripping = server.connect(HEAD % 2 + b"ab" + HALF)
        assert received(dripping).count(b"HTTP/1.1") in (1, 2)
        wait_until(lambda: len(server.table) == 0)
        assert {"idle", "head"} <= set(server.closed)


def test_a_new_connection_takes_the_place_of_the_one_that_waits_longest():
    with served(max_connections=3, head_wait=60.0) as server:
        known = server.connect(HEAD % 2 + b"ab")
        complete(known)
        waiting = [server.connect() for _ in range(4)]
        assert server.request("POST", "/size", b"abc") == (200, 3)
        assert received(waiting[0]) == b""
        assert received(waiting[1]) == b""
        known.sendall(HEAD % 2 + b"ab")
        assert b"200 OK" in complete(known)
        assert server.closed.count("full") >= 2


def test_without_an_idle_connection_a_new_one_is_refused():
    with served(max_connections_per_address=1) as server:
        busy = server.connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert busy.recv(10)
        server.table._close_longest = lambda *_: False  # whatever the moment of the request
        answer = received(server.connect())
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
        assert "refused" in server.closed


def test_slow_bodies_end_and_take_no_place_of_others():
    with served(grace=0.5, max_connections=100) as server:
        slow = [server.connect(HEAD % 1000 + b"a") for _ in range(20)]
        assert server.request("POST", "/size", b"abc") == (200, 3)
        for connection in slow:
            answer = complete(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"more slowly than 1,024 bytes" in answer
        wait_until(lambda: server.statuses.count(408) == 20)
        assert server.guard.held.count == 0


def test_a_body_must_be_complete_within_the_seconds_of_a_request():
    with served(UploadLimits(wait=0.3)) as server:
        answer = complete(server.connect(HEAD % 1000 + b"a"))
        assert answer.startswith(b"HTTP/1.1 504")


def test_a_response_that_nobody_reads_ends():
    with served(UploadLimits(wait=1.0)) as server:
        sleeping = server.connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "slow" in server.closed)
        wait_until(lambda: len(server.table) == 0)
        assert len(received(sleeping)) < LARGE


def test_responses_that_nobody_reads_are_bounded_together():
    with served(max_held_bytes=LARGE) as server:
        for _ in range(4):
            server.connect(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: "slow" in server.closed)
        assert server.request("POST", "/size", b"abc") == (200, 3)


def test_bodies_are_bounded_together_but_for_small_ones():
    with served(max_held_bytes=2**20) as server:
        held = server.connect(HEAD % 2**21 + bytes(2**20))
        wait_until(lambda: server.guard.held.count > 2**19)
        status, answer = server.request("POST", "/size", bytes(2**20))
        assert status == 503
        assert "as many uploads as it can" in str(answer)
        assert server.request("POST", "/size", bytes(1000)) == (200, 1000)
        held.close()
        wait_until(lambda: server.guard.held.count == 0)


def test_a_large_body_that_is_refused_gets_its_reason():
    with served(UploadLimits(bytes=1000)) as server:
        status, answer = server.request("POST", "/size", bytes(20_000_000))
        assert status == 413
        assert "1,000 bytes" in str(answer)


def test_what_is_not_http_gets_a_reason():
    with served() as server:
        assert received(server.connect(b"\x00\r\n\r\n")).startswith(b"HTTP/1.1 400")


def test_trouble_of_the_event_loop_closes_a_connection_and_is_logged_once(caplog):
    async def run():
        loop = asyncio.get_running_loop()
        async with ConnectionTable(ConnectionLimits(), 1.0, closed.append) as table:
            one = Mock(LimitedProtocol, address="", since=0.0, unsent=0)
            one.transport = SimpleNamespace(abort=lambda: closed.append("aborted"))
            table.add(one)
            error = OSError(errno.EMFILE, "Too many open files")
            for _ in range(100):
                loop.call_exception_handler({"message": "accept", "exception": error})
            loop.call_exception_handler({"message": "another", "exception": ValueError("other")})
            assert len(table) == 0

    closed: list[str] = []
    asyncio.run(run())
    assert closed == ["aborted", "full"]
    assert caplog.text.count("Too many open files") == 1
    assert "other" in caplog.text


def test_a_repeated_message_states_how_often_it_came():
    found = RepeatFilter(seconds=0.0)
    record = logging.LogRecord("a", logging.WARNING, "file", 1, "no %s", ("place",), None)
    assert found.filter(record)
    found.seconds = 1000.0
    assert not found.filter(record)
    assert not found.filter(record)
    assert found.filter(logging.LogRecord("a", logging.INFO, "file", 1, "no", (), None))
    found.seconds = 0.0
    assert found.filter(record)
    assert record.getMessage() == "no place (2 more like this since the last message)"


def test_connections_leave_descriptors_for_the_server(monkeypatch):
    current = [(256, 256)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: current[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: current.append(both))
    assert 8 <= connections._free_descriptors(1000) < 256
    current.append((100, 5000))
    assert connections._free_descriptors(1000) == 1000
    assert 1000 < current[-1][0] <= 5000
    assert current[-1][1] == 5000
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert connections._free_descriptors(1000) == 1000


def test_an_ipv6_client_is_its_network():
    assert connections._network_of("2001:db8::1") == connections._network_of("2001:db8::2")
    assert connections._network_of("127.0.0.1") == "127.0.0.1"
    assert connections._network_of("") == ""
