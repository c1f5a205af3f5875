import base64
import io
import os
import signal
import threading

import numpy as np
import pytest

from perceivers.evaluation.predict import Predictor
from perceivers.server import decoding
from perceivers.server.openapi import docs_page
from perceivers.server.settings import UploadLimits
from support import modality_data as made
from support.server import client_of
from support.timing import PATIENCE, wait_until

PICTURE = made.png(0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder, "image") as client:
        yield client


def ask(client, route="/predict", **fields):
    return client.post(route, files={"image": ("a.png", PICTURE)}, data=fields)


def test_an_answer_is_what_the_predictor_says(client, folder):
    answer = ask(client)
    assert answer.status_code == 200
    told = answer.json()
    assert told["milliseconds"] > 0
    (folder / "a.png").write_bytes(PICTURE)
    (expected,) = Predictor(client.service.saved, device="cpu").predict(folder / "a.png")
    (said,) = told["answers"]
    wanted = expected.answer() | {"name": "a.png"}
    assert said | {"probabilities": {}, "top": []} == wanted | {
        "probability": pytest.approx(expected.probability, abs=1e-5),
        "probabilities": {},
        "top": [],
    }
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert len(ask(client, top="1").json()["answers"][0]["top"]) == 1


def test_the_only_input_may_be_called_file(client):
    answer = client.post("/predict", files={"file": ("../../a.PNG", PICTURE)})
    assert answer.status_code == 200


def test_an_explanation_has_a_map_for_each_read(client):
    told = ask(client, "/explain").json()
    assert (told["reads"], told["latents"], told["heads"]) == (2, 4, [1, 1])
    assert told["missing"] == []
    (view,) = told["views"]
    assert [one["cross_attention"] for one in view["maps"]] == ["all", 0, 1]
    one = ask(client, "/explain", read="1", latent="3", head="0").json()["views"][0]["maps"]
    assert [part["cross_attention"] for part in one] == [1]
    assert len(base64.b64decode(one[0]["values"])) == 4
    assert told["answers"] == ask(client).json()["answers"]
    assert ask(client, "/explain", latent="mean", read="all").status_code == 200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"read": "2"}, "from 0 to 1"),
        ({"latent": "-1"}, "'mean' or a number from 0 to 3"),
        ({"head": "\u0663"}, "from 0 to 0"),
        ({"unknown": "1"}, "There is no input 'unknown'"),
    ],
)
def test_an_explanation_of_what_is_not_there_is_refused(client, fields, words):
    answer = ask(client, "/explain", **fields)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_the_run_tells_what_it_reads_and_says(client):
    told = client.get("/run").json()
    assert told["name"] == "image"
    (one,) = told["inputs"]
    assert (one["name"], one["kind"]) == ("image", "image")
    assert ".png" in one["accept"]
    assert told["outputs"] == [{"name": "", "task": "classification", "names": list(made.LABELS)}]
    assert told["limits"]["pixels"] == 50_000_000


def test_nothing_is_loaded_from_elsewhere_and_every_answer_says_so(client):
    page, listed = client.get("/"), client.get("/docs")
    for answer in (page, listed, client.get("/health"), client.get("/nowhere")):
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org", "")
        assert "https://" not in answer.text
    assert "POST /explain" in listed.text
    assert "A file of .jpg" in listed.text
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/predict", "/explain", "/run", "/health", "/metrics"}
    assert docs_page(schema) == listed.text
    assert client.get("/nowhere").json()["error"].startswith("There is nothing at this address")
    assert client.get("/predict").status_code == 405


def test_a_name_of_another_host_is_refused(client):
    answer = client.get("/run", headers={"host": "evil.example:80"})
    assert answer.status_code == 421
    assert "--allowed-hosts" in answer.json()["error"]
    assert client.get("/health", headers={"host": "localhost:8000"}).status_code == 200


def test_requests_batches_and_restarts_are_counted(client):
    ask(client)
    told = client.get("/metrics").text
    assert 'perceivers_requests_total{route="/predict",status="200"}' in told
    assert "perceivers_batch_size_bucket" in told
    assert "perceivers_decoder_restarts_total" in told
    assert "perceivers_queue 0.0" in told


def test_killing_the_decoder_loses_only_the_request_that_it_worked_on(client):
    (process,) = client.service.decoders.processes
    before = client.service.decoders.restarts
    os.kill(process.pid, signal.SIGSTOP)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(client).status_code)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: client.service.num_requests == 3)
    wait_until(client.service.decoders._free.empty)  # the process has the first of them
    os.kill(process.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers) == [200, 200, 500]
    assert client.service.decoders.restarts == before + 1
    os.kill(process.pid, signal.SIGKILL)  # between two requests
    wait_until(lambda: not process.is_running)
    assert ask(client).status_code == 200
    assert client.service.decoders.restarts == before + 2


def test_a_decoder_that_hangs_during_a_large_upload_fails_only_this_one(folder, monkeypatch):
    monkeypatch.setattr(decoding, "_HAND_OVER_SECONDS", 0.5)
    with client_of(folder, "image") as client:
        (process,) = client.service.decoders.processes
        os.kill(process.pid, signal.SIGSTOP)
        large, small = [], []
        files = {"image": ("a.png", bytes(8_000_000))}  # more than a socket holds
        first = threading.Thread(
            target=lambda: large.append(client.post("/predict", files=files)),
        )
        first.start()
        wait_until(client.service.decoders._free.empty)  # the process has it
        others = [
            threading.Thread(target=lambda: small.append(ask(client).status_code)) for _ in range(3)
        ]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join(PATIENCE)
        assert large[0].status_code == 504
        assert "longer" in large[0].json()["error"]
        assert small == [200, 200, 200]
        assert process.starts == 2


def test_what_takes_too_long_gets_504_and_what_has_no_room_503(folder):
    with client_of(folder, "image", limits=UploadLimits(wait=3.0, queue=1, bytes=30_000)) as client:
        (process,) = client.service.decoders.processes
        os.kill(process.pid, signal.SIGSTOP)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(ask(client)))
        thread.start()
        wait_until(lambda: client.service.num_requests == 1)
        busy = ask(client)
        assert busy.status_code == 503
        assert busy.headers["retry-after"] == "1"
        thread.join(PATIENCE)
        assert answers[0].status_code == 504
        assert "longer" in answers[0].json()["error"]
        wait_until(
            lambda: ask(client).status_code == 200
        )  # a new process takes its time on a busy machine
        assert "perceivers_rejected_total 1.0" in client.get("/metrics").text

        large = client.post("/predict", files={"image": ("a.png", bytes(40_000))})
        assert large.status_code == 413
        assert "30,000 bytes" in large.json()["error"]

        def parts():  # without saying how many there will be
            yield b'--m\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            yield from (bytes(5000) for _ in range(20))

        kind = {"content-type": "multipart/form-data; boundary=m"}
        streamed = client.post("/predict", content=parts(), headers=kind)
        assert streamed.status_code == 413

        client.service.stopping = True
        assert client.get("/health").status_code == 503
        client.service.stopping = False
        process.deadline = 0.0  # long ago
        assert client.get("/health").json()["status"] == "decoding does not respond"
        process.deadline = None
        client.service.batcher._busy_since = 0.0
        assert client.get("/health").json()["status"] == "the model does not respond"
        client.service.batcher._busy_since = None
        client.service.batcher.stop()
        assert client.get("/health").json()["status"] == "the model has gone"
        assert ask(client).status_code == 503


def test_a_token_is_asked_for_where_there_is_something_to_learn(folder):
    with client_of(folder, "image", token="secret") as client:
        for route in ("/run", "/metrics", "/docs", "/openapi.json"):
            answer = client.get(route)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get(route, headers={"authorization": "Bearer wrong"}).status_code == 401
            assert client.get(route, headers={"authorization": "Basic secret"}).status_code == 401
            shown = {"authorization": "Bearer secret"}
            assert client.get(route, headers=shown).status_code == 200
        assert ask(client).status_code == 401
        assert client.get("/health").json() == {"status": "ok"}
        for route in ("/", "/static/app.js"):
            assert client.get(route).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://birds.example"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:81"}, 403),
    ],
)
def test_a_form_of_another_page_is_refused(client, headers, status):
    answer = client.post("/predict", files={"image": ("a.png", PICTURE)}, headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert "--allowed-origins" in answer.json()["error"]
    assert client.get("/run", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("application/x-www-form-urlencoded", b"%41" * 2_000_000, 413, "larger than 4,000,000"),
        ("multipart/form-data; boundary=m; charset=punycode", b"--m", 415, "charset 'punycode'"),
        ("application/json", b'{"samples": [' + b"[]," * 2_000_000, 413, "commas, colons and"),
        ("multipart/form-data; boundary=m", b"--m\r\nA: " + b"a" * 100_000, 400, "cannot be read"),
    ],
)
def test_a_body_that_takes_long_to_decode_is_refused(client, kind, body, status, words):
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert words in answer.json()["error"]


def test_a_sample_without_a_finite_output_is_refused(folder):
    with client_of(folder, "array") as client:
        buffer = io.BytesIO()
        np.save(buffer, np.full((5, 3), 3e38, np.float32))
        files = {"array": ("far.npy", buffer.getvalue())}
        for address in ("/predict", "/explain"):
            answer = client.post(address, files=files)
            assert answer.status_code == 422, answer.text
            assert "no finite output" in answer.json()["error"]
