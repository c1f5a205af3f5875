"""Processes and sockets: a run is served until somebody says that it is over."""

import http.client
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from perceivers.server.limits import Limits
from perceivers.server.metrics import FOLDER
from perceivers.server.protocol import Http

__all__ = ["Settings", "from_environment", "serve"]

_SETTINGS = "PERCEIVERS_SERVE"  # for the processes of several workers
_TOKEN = "PERCEIVERS_TOKEN"
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "[::1]", "::1"))
_LARGEST_HEADERS = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run is served. See the options of `perceivers serve`."""

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    decoders: int = 1
    token: str | None = None
    device: str = "auto"
    max_batch: int = 32
    batch_wait: float = 4.0
    limits: dict[str, Any] = field(default_factory=dict[str, Any])


def serve(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve a run until SIGTERM or Ctrl+C, and return the exit status.

    What is accepted until then is answered first.

    Args:
        settings: How.
        say: Called with a sentence that tells where, as soon as the server answers.

    Raises:
        OSError: If the address cannot be had, or the folder is not a run's.
        ValueError: If the model cannot read files, or a limit is none.
    """
    from perceivers.server.service import Service

    limits = Limits(**settings.limits)
    token = settings.token or os.environ.get(_TOKEN) or None
    with _bound(settings) as listening:
        where = _address(settings.host, listening.getsockname()[1])
        service = _service(settings, Service)  # says what is wrong with the run before anybody asks
        if settings.workers == 1:
            config = _config(_application(service, settings, token), limits)
            server = _Server(config, service)
            _announce(service.name, where, settings, say)
            server.run(sockets=[listening])
            return 0 if server.started else 1
        name = service.name
        del service
        if token is not None:
            os.environ[_TOKEN] = token
        os.environ[_SETTINGS] = json.dumps({**asdict(settings), "token": None})
        with tempfile.TemporaryDirectory(prefix="perceivers-") as folder:
            os.environ[FOLDER] = folder
            config = _config("perceivers.server.runner:from_environment", limits, settings.workers)
            _announce(name, where, settings, say)
            Multiprocess(config, sockets=[listening]).run()
    return 0


def from_environment() -> Any:
    """Return the application of one of several workers, told by the environment that the first process made."""
    from perceivers.server.service import Service

    settings = Settings(**json.loads(os.environ[_SETTINGS]))
    return _application(_service(settings, Service), settings, os.environ.get(_TOKEN) or None)


def _service(settings: Settings, kind: Any) -> Any:
    return kind(
        settings.run,
        limits=Limits(**settings.limits),
        device=settings.device,
        largest_batch=settings.max_batch,
        wait=settings.batch_wait / 1000,
        decoders=settings.decoders,
    )


def _application(service: Any, settings: Settings, token: str | None) -> Any:
    from perceivers.server.server import application

    inside = settings.host in _LOOPBACK and token is None
    return application(service, token=token, hosts=_LOOPBACK if inside else None)


def _config(app: Any, limits: Limits, workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        workers=workers,
        factory=isinstance(app, str),
        http=Http,
        h11_max_incomplete_event_size=_LARGEST_HEADERS,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(limits.wait) + 5,
    )


class _Server(uvicorn.Server):
    """A server that says that it stops, and leaves with status 0 when it was told to."""

    def __init__(self, config: uvicorn.Config, service: Any) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking requests."""
        self._service.stopping = True
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals while it runs; they do not end the process a second time afterwards."""
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
def _bound(settings: Settings) -> Generator[socket.socket]:
    """Take the address.

    Raises:
        OSError: If it cannot be had. The message says what to do.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            msg = (
                f"Cannot listen at {settings.host}, port {settings.port}: {reason}. Choose another --port (0 takes a "
                "free one), or stop what listens there."
            )
            raise OSError(msg) from error
        listening.listen(512)  # so that who comes early waits instead of being refused
        listening.set_inheritable(True)
        yield listening


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(name: str, where: str, settings: Settings, say: Callable[[str], None]) -> None:
    """Say where the server is as soon as it answers."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    port = int(where.rpartition(":")[2])

    def wait() -> None:
        for _ in range(1200):
            asking = http.client.HTTPConnection(reached, port, timeout=5)
            try:
                asking.request("GET", "/health")
                asking.getresponse().read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
            else:
                say(f"Serving {name} at {where} (Ctrl+C ends it)")
                return
            finally:
                asking.close()

    threading.Thread(target=wait, daemon=True).start()
