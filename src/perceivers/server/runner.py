"""Processes and sockets of the server: run until SIGTERM or Ctrl+C."""

import http.client
import math
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from perceivers.server.access import AccessRules, is_loopback, with_token
from perceivers.server.app import RequestGuard, create_app
from perceivers.server.connections import ACCEPTED_AT_ONCE, LimitedProtocol
from perceivers.server.metrics import MULTIPROCESS_FOLDER
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings

_BACKLOG = 512
_LARGEST_HEADERS = 64 * 1024


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> int:
    """Serve a run until SIGTERM or Ctrl+C, and return the exit status.

    Requests accepted until then are answered first. `on_ready` gets a sentence with the address, as soon as the server
    answers.

    Raises:
        OSError: If the address is not available, or the folder is not a run's.
        AccessError: If other machines can reach the address, and it has no token.
        ValueError: If the model cannot read files.
    """
    settings = with_token(settings)
    with _listen(settings) as listening:
        service = Service(settings)  # reports errors of the run before any process is started
        if settings.workers == 1:
            server = _Server(_uvicorn_config(_create_app(settings, service), settings), service)
            _announce(service.name, settings, listening, on_ready)
            server.run(sockets=[listening])
            return 0 if server.started else 1
        name = service.name
        del service
        with tempfile.TemporaryDirectory(prefix="perceivers-") as folder:
            os.environ[MULTIPROCESS_FOLDER] = folder
            config = _uvicorn_config(partial(_create_app, settings), settings)
            _announce(name, settings, listening, on_ready)
            Multiprocess(config, sockets=[listening]).run()
    return 0


def _create_app(settings: ServerSettings, service: Service | None = None) -> RequestGuard:
    """Return the application. Worker processes call it without a service."""
    access = AccessRules.of(settings)
    return create_app(service or Service(settings), token=settings.token, access=access)


def _uvicorn_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        workers=settings.workers,
        factory=isinstance(app, partial),
        http=LimitedProtocol,
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        timeout_keep_alive=math.ceil(settings.connections.head_wait),
        h11_max_incomplete_event_size=_LARGEST_HEADERS,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.limits.wait) + 5,
    )


class _Server(uvicorn.Server):
    """A uvicorn server whose /health reports that it stops, and whose exit status is 0 after a signal."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests."""
        self._service.stopping = True
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals while the server runs. Unlike uvicorn's, do not raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


@contextmanager
def _listen(settings: ServerSettings) -> Generator[socket.socket]:
    """Yield a listening socket."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends small responses at once only over sockets whose protocol is stated as TCP.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(
                f"Cannot listen at {settings.host}, port {settings.port}: {reason}. Choose another --port (0 takes a "
                "free one), or stop what listens there."
            ) from error
        listening.listen(_BACKLOG)  # early connections wait instead of being refused
        listening.set_inheritable(True)
        yield listening


def _announce(
    name: str, settings: ServerSettings, listening: socket.socket, on_ready: Callable[[str], None]
) -> None:
    """Call `on_ready` as soon as the server answers."""
    host, port = settings.host, listening.getsockname()[1]
    is_open = settings.token is None and not is_loopback(host)
    warning = " Everybody who reaches this address can use it: it has no token." if is_open else ""
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)

    def wait() -> None:
        for _ in range(1200):
            connection = http.client.HTTPConnection(reachable, port, timeout=5)
            try:
                connection.request("GET", "/health")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
            else:
                with suppress(OSError):  # it stops already
                    listening.listen(_BACKLOG)  # asyncio has set how many it accepts at once
                on_ready(f"Serving {name} at {address} (Ctrl+C ends it).{warning}")
                return
            finally:
                connection.close()

    threading.Thread(target=wait, daemon=True).start()
