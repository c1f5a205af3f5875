"""Bodies of requests (forms of several samples, JSON, single files), OpenAPI, CORS, settings and the access log."""

import base64
import json

import jsonschema_rs
import pytest
import tyro
from starlette.exceptions import HTTPException

from perceivers.cli.main import main
from perceivers.server.access_log import AccessLog
from perceivers.server.bodies import json_samples, raw_types, split_samples
from perceivers.server.environment import VariableError, settings_from, variables
from perceivers.server.forms import InputField
from perceivers.server.openapi import ERRORS
from perceivers.server.settings import ServerSettings, UploadLimits
from support import modality_data as made
from support.docs import ROOT
from support.server import client_of

IMAGES = [made.png(number % 2, number) for number in range(3)]
TEXT = [base64.b64encode(image).decode() for image in IMAGES]
FIELDS = [
    InputField(name="image", kind="image", accept=(".png", ".jpg")),
    InputField(name="note", kind="text", accept=(".txt",)),
    InputField(name="age", kind="table", number=True),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder, "image", limits=UploadLimits(samples=3)) as client:
        yield client


def form(client, number: int):
    return client.post("/predict", files={"image": (f"{number}.png", IMAGES[number])})


def test_several_samples_are_answered_as_each_alone(client):
    alone = [form(client, number).json()["answers"][0] for number in range(3)]
    files = [("image", (f"{number}.png", image)) for number, image in enumerate(IMAGES)]
    together = client.post("/predict", files=files).json()["answers"]
    samples = [{"image": {"data": text, "name": f"{n}.png"}} for n, text in enumerate(TEXT)]
    from_json = client.post("/predict", json={"samples": samples}).json()["answers"]
    for found in (together, from_json):
        assert [one["name"] for one in found] == ["0.png", "1.png", "2.png"]
        for one, other in zip(found, alone, strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_a_sample_that_cannot_be_read_fails_no_other(client):
    files = [("image", ("a.png", IMAGES[0])), ("image", ("b.png", b"noise"))]
    reply = client.post("/predict", files=files)
    good, bad = reply.json()["answers"]
    assert (reply.status_code, good["name"], bad["name"]) == (200, "a.png", "b.png")
    assert (bad["status"], set(bad)) == (422, {"version", "name", "error", "status"})
    assert client.post("/predict", files=files[1:]).status_code == 422


def test_a_body_may_be_the_file_itself(client):
    expected = form(client, 0).json()["answers"][0]
    sent = {"content": IMAGES[0], "headers": {"content-type": "image/png"}}
    (found,) = client.post("/predict?top=1&name=0.png", **sent).json()["answers"]
    assert found["name"] == "0.png"
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    assert len(found["top"]) == 1
    sent["headers"] = {"content-type": "application/octet-stream"}
    (found,) = client.post("/predict", **sent).json()["answers"]
    assert found["name"] == "item 0"
    assert client.post("/explain?read=1", **sent).status_code == 200


def test_data_addresses_and_parameters_of_the_body_win(client):
    body = {"samples": [{"image": f"data:image/png;base64,{TEXT[0]}"}], "top": 2}
    (found,) = client.post("/predict?top=1", json=body).json()["answers"]
    assert (len(found["top"]), found["name"]) == (2, "image.png")


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"json": {"samples": []}}, 422, "one or more samples, got a list without elements"),
        ({"json": {"samples": [3]}}, 422, "sample 0 as an object"),
        ({"json": {"image": TEXT[0]}}, 422, "Expected the keys samples, top; got 'image'"),
        ({"json": [1]}, 422, "Expected a JSON object with samples, got a list"),
        ({"json": {"samples": [{"image": 3}]}}, 422, "Expected a file in base64"),
        ({"json": {"samples": [{"image": "no base64!"}]}}, 422, "Expected base64 for 'image'"),
        ({"json": {"samples": [{"image": ""}]}}, 422, "got an empty one"),
        ({"json": {"samples": [{"img": TEXT[0]}]}}, 422, "Did you mean 'image'?"),
        ({"json": {"samples": [{"image": TEXT[0]}], "top": True}}, 422, "a number for 'top'"),
        ({"json": {"samples": [{"image": TEXT[0]}] * 4}}, 413, "holds 4 samples; at most 3"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "is no JSON"),
        (
            {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}},
            400,
            "is no JSON",
        ),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "body is empty"),
        ({"content": b"x", "headers": {"content-type": "audio/wav"}}, 415, "multipart/form-data"),
        (
            {"files": [("image", ("a.png", IMAGES[0])), ("file", ("b.png", IMAGES[0]))]},
            400,
            "twice",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused(client, sent, status, words):
    reply = client.post("/predict", **sent)
    assert (reply.status_code, words in reply.json()["error"]) == (status, True), reply.text


def test_one_sample_is_explained_at_a_time(client):
    body = {"samples": [{"image": TEXT[0]}] * 2}
    assert client.post("/explain", json=body).status_code == 422
    body = {"samples": [{"image": TEXT[0]}], "read": "all", "latent": 1, "head": "mean"}
    assert client.post("/explain", json=body).status_code == 200


def test_values_of_json_are_those_of_a_form():
    body = {"samples": [{"image": TEXT[0], "note": "good", "age": 3.5}, {"age": 4}], "top": 2}
    first, second = json_samples(json.dumps(body).encode(), FIELDS, ("top",))
    assert first == [
        ("top", "2", ""),
        ("image", IMAGES[0], ""),
        ("note", "good", ""),
        ("age", "3.5", ""),
    ]
    assert second == [("top", "2", ""), ("age", "4", "")]
    for wrong in ({"note": {"data": TEXT[0]}}, {"age": None}, {"age": True}):
        with pytest.raises(HTTPException, match="of sample 0, got"):
            json_samples(json.dumps({"samples": [wrong]}).encode(), FIELDS, ("top",))
    with pytest.raises(HTTPException, match="NaN"):
        json_samples(b'{"samples": [{"age": NaN}]}', FIELDS, ("top",))


def test_inputs_of_several_samples_are_given_equally_often():
    fields = [("image", b"1", ""), ("age", "1", ""), ("image", b"2", ""), ("age", "2", "")]
    found = split_samples([("top", "3", ""), *fields], ("top",))
    assert found == [[("top", "3", ""), *fields[:2]], [("top", "3", ""), *fields[2:]]]
    with pytest.raises(HTTPException, match="equally often"):
        split_samples(fields[:3], ("top",))
    with pytest.raises(HTTPException, match="'top' was given twice"):
        split_samples([("top", "3", "")] * 2, ("top",))


def test_only_a_model_of_one_file_takes_a_body_of_one_file():
    assert raw_types(FIELDS) == raw_types(FIELDS[2:]) == {}
    assert raw_types(FIELDS[:1]) == {
        "application/octet-stream": "",
        "image/png": ".png",
        "image/jpeg": ".jpg",
    }
    assert raw_types(FIELDS[1:2])["text/plain"] == ""


def test_the_description_has_every_body_error_and_answer(client):
    document = client.get("/openapi.json").json()
    predict = document["paths"]["/predict"]["post"]
    assert set(predict["responses"]) == {"200", *ERRORS}
    for reply in predict["responses"].values():
        (content,) = reply["content"].values()
        assert content["example"]
    types = {"multipart/form-data", "application/json", "image/png", "application/octet-stream"}
    assert types <= set(predict["requestBody"]["content"])
    names = {one["name"] for one in document["paths"]["/explain"]["post"]["parameters"]}
    assert names == {"top", "read", "latent", "head", "name"}
    answer = form(client, 0).json()["answers"][0]
    schema = document["components"]["schemas"]["Answer"]
    jsonschema_rs.validate(schema, answer)
    (example,) = schema["examples"]
    jsonschema_rs.validate(schema, example)
    assert set(example["probabilities"]) == set(made.LABELS)
    page = client.get("/docs").text
    for words in (
        "latent",
        "application/json",
        "probabilities",
        "Retry-After",
        "The queue is full",
    ):
        assert words in page


def test_pages_of_allowed_origins_get_answers(folder):
    with client_of(folder, "image", origins=frozenset(("https://birds.example",))) as client:
        head = {"origin": "https://birds.example", "access-control-request-method": "POST"}
        head["access-control-request-headers"] = "authorization,content-type"
        reply = client.options("/predict", headers=head)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://birds.example"
        reply = client.get("/health", headers={"origin": "https://birds.example"})
        assert reply.headers["access-control-allow-origin"] == "https://birds.example"
        reply = client.get("/health", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in reply.headers


def test_health_has_a_head(client):
    reply = client.head("/health")
    assert (reply.status_code, reply.content) == (200, b"")


def test_each_request_is_a_line(client, monkeypatch):
    lines = []
    monkeypatch.setattr(client.service.access_log, "_write", lines.append)
    client.get("/health?token=secret", headers={"authorization": "Bearer secret"})
    client.get("/a%0Ab")
    first, second = lines
    assert '"GET /health" 200' in first
    assert '"GET /a%0Ab" 404' in second
    assert "secret" not in first
    assert all(line.count("\n") == 1 for line in lines)


def test_the_log_may_be_json_or_off(capsys):
    scope = {"client": ("127.0.0.1", 5), "method": "GET", "raw_path": b"/run", "path": "/run"}
    AccessLog("json").add(scope, 200, 17, 0.0123)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": "/run",
        "status": 200,
        "bytes": 17,
        "milliseconds": 12.3,
    }
    AccessLog("off").add(scope, 200, 17, 0.0123)
    assert capsys.readouterr().err == ""
    AccessLog("text").add({"method": "GET", "path": "/ä\n"}, 404, 0, 0.0)
    assert "\n" not in capsys.readouterr().err[:-1]


def test_every_setting_has_a_variable():
    found = {
        "PERCEIVERS_SERVE_RUN": "runs/birds",
        "PERCEIVERS_SERVE_PORT": "8080",
        "PERCEIVERS_SERVE_NO_TOKEN": "yes",
        "PERCEIVERS_SERVE_ALLOWED_ORIGINS": "https://a.example, https://b.example",
        "PERCEIVERS_SERVE_MAX_BYTES": "1000",
        "PERCEIVERS_SERVE_MIN_RATE_AFTER": "2.5",
        "PERCEIVERS_SERVE_ACCESS_LOG": "json",
        "PERCEIVERS_SERVE_PRT": "1",
        "HOME": "/root",
    }
    settings, unknown = settings_from(found)
    assert unknown == ["PERCEIVERS_SERVE_PRT"]
    assert (settings.run, settings.port, settings.no_token) == ("runs/birds", 8080, True)
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert (settings.limits.bytes, settings.connections.grace) == (1000, 2.5)
    assert settings.access_log == "json"
    settings, _ = settings_from({})
    assert settings.run is tyro.MISSING
    assert (settings.port, settings.limits) == (ServerSettings(run="a").port, UploadLimits())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "x", "expected a whole number, got 'x'"),
        ("BATCH_WAIT", "x", "expected a number"),
        ("DEVICE", "tpu", "expected one of auto, cpu, cuda, mps"),
        ("NO_TOKEN", "maybe", "expected one of 1, true"),
        ("MAX_BYTES", "-1", "above zero"),
    ],
)
def test_a_variable_that_does_not_fit_is_refused(name, value, words, monkeypatch, capsys):
    with pytest.raises(VariableError, match=words):
        settings_from({f"PERCEIVERS_SERVE_{name}": value})
    monkeypatch.setenv(f"PERCEIVERS_SERVE_{name}", value)
    assert main(["serve", "runs/birds"]) == 2
    assert f"PERCEIVERS_SERVE_{name}" in capsys.readouterr().err


def test_flags_win_over_variables(monkeypatch, capsys):
    monkeypatch.setenv("PERCEIVERS_SERVE_RUN", "runs/birds")
    monkeypatch.setenv("PERCEIVERS_SERVE_WORKERS", "0")
    monkeypatch.setenv("PERCEIVERS_SERVE_PORT_8000_TCP", "tcp://10.0.0.1")
    assert main(["serve"]) == 2
    errors = capsys.readouterr().err
    assert "--workers of at least 1, got 0" in errors
    assert "Ignored PERCEIVERS_SERVE_PORT_8000_TCP" in errors
    assert main(["serve", "--workers", "2", "--port", "99999"]) == 2
    assert "--port from 0 to 65535, got 99999" in capsys.readouterr().err


def test_every_variable_is_documented():
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    for one in variables().values():
        assert f"| `{one.name}` | `{one.flag}` |" in text, one.name


def test_a_completion_is_a_script_without_the_examples(capsys):
    assert main(["serve", "--tyro-print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--max-samples" in script
    assert "examples:" not in script
    assert main(["serve", "--help"]) == 0
    assert "examples:" in capsys.readouterr().out
