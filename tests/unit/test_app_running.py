import http.client
import os
import signal
import socket
import threading
from contextlib import closing
from dataclasses import fields
from urllib.parse import urlsplit

import pytest
from runs import save_run
from timing import PATIENCE

from perceivers.cli.main import main
from perceivers.cli.serve import Options
from perceivers.data import base
from perceivers.server import runner as running
from perceivers.server.decoders import Decoders
from perceivers.server.limits import Limits
from perceivers.server.runner import Settings, from_environment, serve
from perceivers.server.service import Service


@pytest.fixture
def still(monkeypatch):
    """No processes: what decodes is tested elsewhere."""
    monkeypatch.setattr(Decoders, "start", lambda self: None)


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

    thread = threading.Thread(target=lambda: status.append(serve(Settings(run=run, port=0), say)))
    thread.start()
    assert ready.wait(PATIENCE)
    address = told[0].split(" at ")[1].split()[0]
    assert get(address, "/health")[0] == 200
    servers[0].handle_exit(signal.SIGTERM, None)
    assert servers[0]._service.stopping
    thread.join(PATIENCE)
    assert status == [0]


def test_signals_are_its_own_only_while_it_runs():
    before = signal.getsignal(signal.SIGTERM)
    server = running._Server(running._config(lambda: None, running.Limits()), None)
    with server.capture_signals():
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGTERM) == before


def test_several_workers_are_told_by_the_environment(tmp_path, still, monkeypatch):
    made = []

    class Workers:
        def __init__(self, config, sockets):
            assert config.workers == 2
            assert config.app == "perceivers.server.runner:from_environment"
            assert len(sockets) == 1

        def run(self):
            assert os.path.isdir(os.environ[running.FOLDER])  # noqa: PTH112
            made.append(from_environment())

    for name in (running.FOLDER, "PERCEIVERS_SERVE", "PERCEIVERS_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(running, "Multiprocess", Workers)
    monkeypatch.setattr(running, "_announce", lambda *_: None)
    settings = Settings(
        run=str(save_run(tmp_path / "run")), port=0, workers=2, token="secret", limits={"queue": 3}
    )
    assert serve(settings, print) == 0
    (gate,) = made
    assert gate.token == b"secret"
    assert "secret" not in os.environ["PERCEIVERS_SERVE"]
    assert gate.hosts is None


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

        monkeypatch.setattr(base, "require", missing)
        assert main(["serve", str(tmp_path)]) == 1
        assert 'pip install "perceivers[serve]"' in capsys.readouterr().err


def test_a_service_of_a_recipe_tells_its_name(tmp_path):
    folder = save_run(tmp_path / "run")
    (folder / "recipe.yaml").write_text("name: images\n")
    service = Service(folder, device="cpu")
    assert service.describe()["recipe"] == "images"
    assert service.describe()["reads"] == 1


def test_the_command_has_the_limits_of_the_server():
    """They stand there twice, because help is to import nothing."""
    flags = {field.name: field.default for field in fields(Options)}
    assert {f"max_{name}": value for name, value in vars(Limits()).items()}.items() <= flags.items()
