"""`/generate` of a run of music: MIDI files as prompts and results, other forms, and what is refused."""

import base64
import json
import time
from types import SimpleNamespace

import jsonschema_rs
import pytest

from perceivers.data.modalities.music.events import decode_events, encode_events
from perceivers.data.modalities.music.midi_file import midi_bytes, parse_midi
from perceivers.data.modalities.music.score import Note, one_part
from perceivers.evaluation.music_format import MusicFormat
from perceivers.evaluation.predict import Predictor
from perceivers.hub.checkpoint import load
from perceivers.server import generation
from perceivers.server.settings import UploadLimits
from perceivers.tasks.pixel_vocabulary import PixelVocabulary
from perceivers.tasks.vocabulary import BaseVocabulary
from support.models import save_generating
from support.server import client_of

NOTES = [Note(one / 4, (one + 1) / 4, 60 + one % 12, 66) for one in range(12)]
SONG = midi_bytes(one_part(NOTES))
SETTINGS = {"length": 30, "seed": 3, "temperature": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save_generating(folder / "music", "music")
    return folder


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder, "music") as client:
        yield client


def prompt(data=SONG, name="start.mid"):
    return {"prompt": (name, data, "audio/midi")}


def test_a_piece_is_continued_as_by_the_predictor(client, folder):
    reply = client.post("/generate", files=prompt(), data=SETTINGS)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "audio/midi"
    assert reply.headers["content-disposition"] == 'attachment; filename="generated.mid"'
    assert reply.headers["x-tokens"] == "30"
    assert reply.headers["x-prompt-is-cut"] == "false"
    assert float(reply.headers["x-milliseconds"]) > 0
    predictor = Predictor(load(folder / "music"), device="cpu")
    expected = predictor.generate(SONG, **SETTINGS)
    assert parse_midi(reply.content, "a.mid") == parse_midi(midi_bytes(expected), "a.mid")
    encoded = base64.b64encode(SONG).decode()
    for value in (encoded, {"data": encoded, "name": "a.mid"}):
        same = client.post("/generate", json=SETTINGS | {"prompt": value})
        assert same.content == reply.content


def test_forms_of_a_request_without_a_prompt_and_of_the_answer(client):
    whole = client.post("/generate", json=SETTINGS | {"prompt": None, "format": "json"}).json()
    assert (whole["tokens"], whole["prompt_events"], len(whole["events"])) == (30, 0, 30)
    assert {"notes", "prompt_is_cut", "milliseconds"} < set(whole)
    reply = client.post("/generate", data=SETTINGS, files={"prompt": ("", b"")})
    assert reply.content == midi_bytes(decode_events(whole["events"]))
    image = client.post("/generate", data=SETTINGS | {"format": "png"}, files=prompt())
    assert image.headers["content-type"] == "image/png"
    assert image.content.startswith(b"\x89PNG")
    long = midi_bytes(one_part([Note(one, one + 0.5, 60, 64) for one in range(80)]))
    cut = client.post("/generate", data=SETTINGS | {"format": "json"}, files=prompt(long)).json()
    assert cut["prompt_is_cut"]
    assert cut["events"][: cut["prompt_events"]] == encode_events(parse_midi(long, "")).tolist()


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"length": "0"}, 422, "'length' as integer from 1 to 4096, got 0"),
        ({"length": "many"}, 422, "'length' as integer from 1 to 4096, got \"many\""),
        ({"temperature": "NaN"}, 422, "'temperature' as number"),
        ({"top_p": "[" * 9999}, 422, "'top_p' as number"),
        ({"format": "wav"}, 422, "'format' as one of mid, png, json, got 'wav'"),
        ({"stream": "true"}, 422, "Expected the fields prompt, length"),
        ({"length": ["5", "6"]}, 400, "'length' was given twice"),
    ],
)
def test_fields_out_of_range_are_refused(client, fields, status, words):
    reply = client.post("/generate", data=fields, files=prompt())
    assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text


@pytest.mark.parametrize(
    ("data", "name", "status", "words"),
    [
        (b"RIFF....WAVEfmt ", "a.wav", 415, "Expected music for 'music', got audio"),
        (b"hello", "a.mid", 422, "Cannot read"),
        (SONG[:-9], "a.mid", 422, "is cut short"),
        (midi_bytes(one_part([])), "a.mid", 422, "holds no notes"),
    ],
)
def test_files_that_cannot_be_read_are_refused(client, data, name, status, words):
    reply = client.post("/generate", files=prompt(data, name))
    assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"prompt": "***"}, 422, "Expected base64 for 'prompt'"),
        ({"prompt": 5}, 422, "Expected a file in base64 for 'prompt'"),
        ({"stream": True}, 422, "Expected the keys prompt, length"),
        ({"format": 1}, 422, "'format' as string"),
    ],
)
def test_json_that_does_not_fit_is_refused(client, body, status, words):
    reply = client.post("/generate", json=body)
    assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text


def test_other_bodies_are_refused(client):
    reply = client.post("/generate", content=SONG, headers={"content-type": "audio/midi"})
    assert reply.status_code == 415
    assert "multipart/form-data or application/json" in reply.json()["error"]
    assert client.get("/generate").status_code == 405


def test_limits_hold_for_files(folder, monkeypatch):
    limits = UploadLimits(characters=60, tokens=10)
    with client_of(folder, "music", limits=limits, token="secret") as client:
        head = {"authorization": "Bearer secret"}
        assert client.post("/generate", json={}).status_code == 401
        assert client.post("/generate", json={}, headers=head).headers["x-tokens"] == "10"
        reply = client.post("/generate", files=prompt(), headers=head)
        assert reply.status_code == 413
        assert "bytes of MIDI; at most 60" in reply.json()["error"]
        client.service.num_requests = limits.queue
        assert client.post("/generate", files=prompt(), headers=head).status_code == 503
        client.service.num_requests = 0

    monkeypatch.setattr(generation.GeneratedFile, "part", lambda _: time.sleep(0.2) or b"")
    with client_of(folder, "music", limits=UploadLimits(wait=0.5)) as client:
        assert client.post("/generate", json={}).status_code == 504


def test_other_requests_have_their_turn_while_a_file_is_generated(folder, monkeypatch):
    monkeypatch.setattr(generation, "_SLICE_SECONDS", 0)
    parts = []
    part = generation.GeneratedFile.part
    monkeypatch.setattr(
        generation.GeneratedFile, "part", lambda self: parts.append(part(self)) or parts[-1]
    )
    with client_of(folder, "music") as client:
        reply = client.post("/generate", json=SETTINGS)
    assert parts == [b""] * 30 + [reply.content, None]


def test_runs_without_a_form_that_returns_files_are_not_continued(folder):
    """Of no tokens, of samples, and of a vocabulary without a form."""
    predictor = Predictor(load(folder / "music"), device="cpu")
    assert isinstance(generation.served_format(predictor), MusicFormat)
    for vocabulary in (None, PixelVocabulary(), BaseVocabulary(kind="other")):
        predictor.config = SimpleNamespace(task=SimpleNamespace(vocabulary=vocabulary))
        assert generation.served_format(predictor) is None


def test_the_description_has_the_forms_of_files(client):
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/generate"]["post"]
    done = operation["responses"]["200"]
    assert set(done["content"]) == {"audio/midi", "image/png", "application/json"}
    assert set(done["headers"]) == {"X-Tokens", "X-Prompt-Is-Cut", "X-Milliseconds"}
    bodies = operation["requestBody"]["content"]
    assert set(bodies) == {"multipart/form-data", "application/json"}
    body = bodies["application/json"]
    jsonschema_rs.validate(body["schema"], body["example"])
    prompt_schema = bodies["multipart/form-data"]["schema"]["properties"]["prompt"]
    assert prompt_schema["format"] == "binary"
    assert ".mid" in prompt_schema["description"]
    reply = done["content"]["application/json"]
    whole = client.post("/generate", json=SETTINGS | {"format": "json"}).json()
    jsonschema_rs.validate(reply["schema"], whole)
    jsonschema_rs.validate(reply["schema"], reply["example"])
    assert client.get("/run").json()["generation"] == body["schema"]["properties"]
    assert "POST /generate" in client.get("/docs").text
    assert json.dumps(document)
