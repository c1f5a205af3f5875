import http.client
import os
import pickle
import signal
import socket
import threading
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from perceivers import optional
from perceivers.cli.main import main
from perceivers.recipes.registry import get_recipe
from perceivers.runs.folder import write_run_recipe
from perceivers.server import runner as running
from perceivers.server.decoding import DecoderPool
from perceivers.server.runner import serve
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings, UploadLimits
from support.runs import save_run
from support.timing import PATIENCE


@pytest.fixture
def still(monkeypatch):
    """No processes: what decodes is tested elsewhere."""
    monkeypatch.setattr(DecoderPool, "start", lambda self: None)


def get(address: str, path: str) -> tuple[int, bytes]:
    place = urlsplit(address)
    asking = http.client.HTTPConnection(place.hostname, place.port, timeout=PATIENCE)
    with closing(asking):
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.status, answer.read()


def test_a_server_tells_where_it_is_and_ends_when_it_is_told(tmp_path, still, monkeypatch):
    servers, told, ready = [], [], threading.Event()

    class Kept(running._Server):
        def __init__(self, *args):
            servers.append(self)
            super().__init__(*args)

    monkeypatch.setattr(running, "_Server", Kept)
    run = str(save_run(tmp_path / "run"))
    status = []

    def say(words):
        told.append(words)
        ready.set()

    thread = threading.Thread(
        target=lambda: status.append(serve(ServerSettings(run=run, port=0), say))
    )
    thread.start()
    assert ready.wait(PATIENCE)
    address = told[0].split(" at ")[1].split()[0]
    assert get(address, "/health")[0] == 200
    servers[0].handle_exit(signal.SIGTERM, None)
    assert servers[0]._service.stopping
    thread.join(PATIENCE)
    assert status == [0]


def test_signals_are_its_own_only_while_it_runs(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    settings = ServerSettings(run=str(save_run(tmp_path / "run")), device="cpu")
    server = running._Server(running._uvicorn_config(lambda: None, settings), Service(settings))
    with server.capture_signals():
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGTERM) == before


def test_several_workers_get_the_settings(tmp_path, still, monkeypatch):
    made = []

    class Workers:
        def __init__(self, config, sockets):
            assert config.workers == 2
            assert config.factory
            self.app = pickle.loads(pickle.dumps(config)).app  # as in another process
            assert len(sockets) == 1

        def run(self):
            assert os.path.isdir(os.environ[running.MULTIPROCESS_FOLDER])  # noqa: PTH112
            made.append(self.app())

    for name in (running.MULTIPROCESS_FOLDER, "PERCEIVERS_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(running, "Multiprocess", Workers)
    monkeypatch.setattr(running, "_announce", lambda *_: None)
    settings = ServerSettings(
        run=str(save_run(tmp_path / "run")),
        port=0,
        workers=2,
        token="secret",
        limits=UploadLimits(queue=3),
    )
    assert serve(settings, print) == 0
    assert "secret" not in os.environ.values()
    (app,) = made
    with TestClient(app, base_url="http://birds.example") as client:
        assert client.get("/run").status_code == 401
        told = client.get("/run", headers={"authorization": "Bearer secret"})
        assert told.status_code == 200
        assert told.json()["limits"]["queue"] == 3


def test_small_responses_are_sent_at_once(tmp_path):
    settings = ServerSettings(run=str(tmp_path), port=0)
    with running._listen(settings) as listening:
        # asyncio disables Nagle's algorithm only where the socket states its protocol.
        assert listening.proto == socket.IPPROTO_TCP


class TestBadStarts:
    def test_there_is_no_such_run(self, tmp_path, capsys):
        assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 1
        assert "does not exist" in capsys.readouterr().err

    def test_the_port_is_taken(self, tmp_path, capsys):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            assert main(["serve", str(tmp_path), "--port", port]) == 1
        told = capsys.readouterr().err
        assert f"port {port}: Address already in use. Choose another --port" in told
        assert len(told.splitlines()) == 1

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--workers", "0"), "--workers of at least 1"),
            (("--port", "70000"), "--port from 0 to 65535"),
        ],
    )
    def test_arguments_are_wrong(self, flags, words, tmp_path, capsys):
        assert main(["serve", str(tmp_path), *flags]) == 2
        assert words in capsys.readouterr().err

    def test_a_limit_is_none(self, tmp_path, capsys):
        assert main(["serve", str(tmp_path), "--max-bytes", "0", "--port", "0"]) == 1
        assert "above zero for bytes" in capsys.readouterr().err

    def test_the_extra_is_missing(self, tmp_path, capsys, monkeypatch):
        def missing(module, extra):
            raise ImportError(f'{module} is needed. Install it: pip install "perceivers[{extra}]"')

        monkeypatch.setattr(optional, "require", missing)
        assert main(["serve", str(tmp_path)]) == 1
        assert 'pip install "perceivers[serve]"' in capsys.readouterr().err


def test_a_service_of_a_recipe_tells_its_name(tmp_path):
    folder = save_run(tmp_path / "run")
    write_run_recipe(folder, get_recipe("images"))
    service = Service(ServerSettings(str(folder), device="cpu"))
    assert service.description["recipe"] == "images"
    assert service.description["reads"] == 1


def test_the_limits_of_the_server_are_flags_of_the_command(tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(running, "serve", lambda settings, _: served.append(settings) or 0)
    assert main(["serve", str(tmp_path), "--max-pixels", "10", "--max-wait", "2"]) == 0
    assert main(["serve", str(tmp_path)]) == 0
    assert served[0].limits == UploadLimits(pixels=10, wait=2.0)
    assert served[1] == ServerSettings(str(tmp_path))
