"""`/generate` of a server: whole texts, streams of events, refused requests, and clients that go away."""

import json
import socket
import threading
import time
from contextlib import closing, contextmanager

import jsonschema_rs
import pytest
import torch
import uvicorn
from starlette.testclient import TestClient

from perceivers.evaluation import generate
from perceivers.evaluation.predict import Predictor
from perceivers.hub.checkpoint import load, save
from perceivers.server import generation
from perceivers.server.access import AccessRules
from perceivers.server.app import create_app
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings, UploadLimits
from perceivers.tasks.byte_tokens import FIRST_BYTE
from support.models import save_generating
from support.timing import PATIENCE, wait_until


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_generating(tmp_path_factory.mktemp("runs") / "bytes")


@contextmanager
def client_of(run, limits=None, token=None):
    service = Service(ServerSettings(str(run), device="cpu", limits=limits or UploadLimits()))
    app = create_app(service, token=token, access=AccessRules(hosts=frozenset(("localhost",))))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        client.service = service
        yield client


@pytest.fixture(scope="module")
def client(run):
    with client_of(run) as client:
        yield client


def events(text):
    """Return name and data of each event."""
    found = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return found


BODY = {"prompt": "the cat", "length": 30, "seed": 3}


def test_a_text_is_continued_as_by_the_predictor(client, run):
    reply = client.post("/generate", json=BODY)
    assert reply.status_code == 200
    answer = reply.json()
    expected = Predictor(load(run), device="cpu").generate(
        "the cat", length=30, temperature=0.8, seed=3
    )
    assert answer["text"] == expected
    assert (answer["tokens"], answer["prompt_is_cut"]) == (30, False)
    assert client.post("/generate", json=BODY | {"prompt": "a" * 200}).json()["prompt_is_cut"]
    assert client.post("/generate", json={}).json()["tokens"] == 256


def test_a_stream_has_the_same_text_in_parts(client, monkeypatch):
    monkeypatch.setattr(generation, "_SLICE_SECONDS", 0)
    reply = client.post("/generate", json=BODY | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-store"
    *parts, (name, end) = events(reply.text)
    assert len(parts) > 5
    assert {name for name, _ in parts} == {""}
    assert (name, end["tokens"]) == ("end", 30)
    whole = client.post("/generate", json=BODY).json()["text"]
    assert "".join(data["text"] for _, data in parts) == whole


def test_characters_of_several_bytes_are_never_divided(client, monkeypatch):
    monkeypatch.setattr(generation, "_SLICE_SECONDS", 0)
    rows = "aé€\n🙂".encode() + b"\xe2"
    monkeypatch.setattr(
        generate, "generate_tokens", lambda *_, **__: iter([[byte + FIRST_BYTE] for byte in rows])
    )
    *parts, _ = events(client.post("/generate", json={"stream": True}).text)
    assert [data["text"] for _, data in parts] == ["a", "é", "€", "\n", "🙂", "�"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"length": 0}, "'length' as integer from 1 to 4096, got 0"),
        ({"length": 5000}, "from 1 to 4096"),
        ({"length": "9"}, "'length' as integer"),
        ({"length": None}, "'length' as integer"),
        ({"length": 2.5}, "'length' as integer"),
        ({"length": True}, "'length' as integer"),
        ({"temperature": -1}, "'temperature' as number of at least 0, got -1"),
        ({"top_p": 1.5}, "'top_p' as number from 0 to 1"),
        ({"top_k": 0}, "'top_k' as integer of at least 1"),
        ({"seed": -1}, "'seed' as integer"),
        ({"num_latents": 99}, "'num_latents' as integer from 1 to 16"),
        ({"prompt": 5}, "'prompt' as string, got 5"),
        ({"prompt": "\ud800"}, "valid Unicode"),
        ({"stream": 1}, "'stream' as boolean"),
        ({"prompts": "a"}, "Expected the keys prompt, length"),
        (["a"], "a JSON object with prompt"),
    ],
)
def test_a_request_out_of_range_is_refused(client, body, words):
    reply = client.post(
        "/generate", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert reply.status_code == 422
    assert words in reply.json()["error"]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1e-300},
        {"temperature": 1e300},
        {"top_p": 0},
        {"top_k": 1},
        {"top_k": 10**30},
        {"length": 5.0},
        {"num_latents": None},
    ],
)
def test_extreme_settings_give_a_text(client, options):
    reply = client.post("/generate", json=BODY | options)
    assert reply.status_code == 200
    assert reply.json()["text"]


def test_other_bodies_are_refused(client):
    assert client.post("/generate", data={"prompt": "a"}).status_code == 415
    head = {"content-type": "application/json"}
    assert client.post("/generate", content=b"{", headers=head).status_code == 400
    assert client.post("/generate", content=b'{"top_p": NaN}', headers=head).status_code == 400
    assert client.get("/generate").status_code == 405


def test_limits_and_tokens(run):
    limits = UploadLimits(characters=20, tokens=10)
    with client_of(run, limits, token="secret") as client:
        assert client.post("/generate", json={}).status_code == 401
        head = {"authorization": "Bearer secret"}
        assert client.post("/generate", json={}, headers=head).json()["tokens"] == 10
        reply = client.post("/generate", json={"prompt": "a" * 21}, headers=head)
        assert reply.status_code == 413
        client.service.num_requests = limits.queue
        reply = client.post("/generate", json={"stream": True}, headers=head)
        assert reply.status_code == 503
        client.service.num_requests = 0


def test_what_takes_too_long_ends(run, monkeypatch):
    class Slow(generation.GeneratedText):
        def part(self):
            time.sleep(0.2)
            return "a"

    monkeypatch.setattr("perceivers.server.service.GeneratedText", Slow)
    with client_of(run, UploadLimits(wait=0.5)) as client:
        assert client.post("/generate", json=BODY).status_code == 504
    monkeypatch.setattr(Slow, "part", lambda _: time.sleep(1))
    with client_of(run, UploadLimits(wait=0.5)) as client:  # before the first part
        assert client.post("/generate", json=BODY | {"stream": True}).status_code == 504


def test_a_stream_that_fails_ends_with_an_error(run, monkeypatch):
    class Slow(generation.GeneratedText):
        count = 0

        def part(self):
            self.count += 1
            return "a" if self.count == 1 else time.sleep(1)

    monkeypatch.setattr("perceivers.server.service.GeneratedText", Slow)
    with client_of(run, UploadLimits(wait=0.5)) as client:
        first, last = events(client.post("/generate", json=BODY | {"stream": True}).text)
        assert first == ("", {"text": "a"})
        assert last[0] == "error"
        assert "longer than the limit" in last[1]["error"]


def test_a_model_without_finite_outputs_is_refused(run, tmp_path):
    found = load(run)
    with torch.no_grad():
        found.model.encoder.model.to_logits.weight.fill_(float("nan"))
    kept = {name: getattr(found.config, name) for name in ("preprocess", "task", "columns")}
    save(tmp_path / "run", found.model, **kept)
    with client_of(tmp_path / "run") as client:
        for body in (BODY, BODY | {"stream": True}, BODY | {"temperature": 0}):
            reply = client.post("/generate", json=body)
            assert reply.status_code == 422
            assert "train it again" in reply.json()["error"]


def test_the_description_has_the_fields_and_both_forms(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/generate"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "text/event-stream",
    }
    body = operation["requestBody"]["content"]["application/json"]
    jsonschema_rs.validate(body["schema"], body["example"])
    reply = operation["responses"]["200"]["content"]["application/json"]
    jsonschema_rs.validate(reply["schema"], reply["example"])
    jsonschema_rs.validate(reply["schema"], client.post("/generate", json=BODY).json())
    described = client.get("/run").json()
    assert described["generation"] == body["schema"]["properties"]
    assert "POST /generate" in client.get("/docs").text


@contextmanager
def served(run):
    """Serve a run from a thread and give its service and port."""
    service = Service(ServerSettings(str(run), device="cpu"))
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started)
        try:
            yield service, listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def opened(port, **fields):
    """Return a connection that has sent a request."""
    body = json.dumps(fields).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = "POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return closing(connection)


@pytest.mark.parametrize("stream", [True, False])
def test_a_text_whose_client_has_gone_is_not_continued(run, stream, monkeypatch):
    monkeypatch.setattr(generation, "_SLICE_SECONDS", 0)
    parts = []

    class Endless(generation.GeneratedText):
        def part(self):
            parts.append(time.sleep(0.01))
            return "a"

    monkeypatch.setattr("perceivers.server.service.GeneratedText", Endless)
    with served(run) as (service, port):
        with opened(port, stream=stream) as connection:
            if stream:
                assert b"text/event-stream" in connection.recv(4096)
            wait_until(lambda: len(parts) > 3)
        wait_until(lambda: service.num_requests == 0)
        count = len(parts)
        time.sleep(0.2)
        assert len(parts) <= count + 1


def test_texts_and_predictions_are_computed_in_turn(run):
    with served(run) as (service, port):
        with opened(port, length=4000, stream=True) as first, opened(port, **BODY) as second:
            assert first.recv(100)
            answer = second.recv(4096)
            assert b"200 OK" in answer  # while the first one goes on
            assert service.num_requests == 1
        wait_until(lambda: service.num_requests == 0)
