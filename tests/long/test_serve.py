"""A server as people start it: a process, real connections, many clients at once, and its end."""

import asyncio
import os
import shlex
import signal
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from benchmarks.serving import Load, load_on, request_of, serving, summary

from support import modality_data as made
from support.docs import ROOT, steps
from support.runs import save_run
from support.server import client_of
from support.timing import PATIENCE, wait_until

pytestmark = pytest.mark.quick


def exchange(address: str, sent: bytes) -> bytes:
    """Send bytes over a connection of its own and return all that comes back."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def is_refused(address: str) -> bool:
    """Return whether nothing listens at an address."""
    place = urlsplit(address)
    try:
        socket.create_connection((place.hostname, place.port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def decoder_of(pid: int) -> int:
    """Return the process that decodes: the child of a child that is no tracker."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [
        int(below)
        for child in children
        for below in Path(f"/proc/{child}/task/{child}/children").read_text().split()
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux' /proc")
@pytest.mark.slow
def test_clients_at_once_are_answered_and_what_is_accepted_is_finished(tmp_path):
    run = save_run(tmp_path / "run")
    with serving(run, "--max-batch", "16") as (address, pid):
        host = urlsplit(address).netloc
        asked = [request_of(made.png(0, number), "a.png", host) for number in range(4)]
        load = asyncio.run(load_on(address, asked, clients=32, seconds=3, pid=pid))
        assert set(load.statuses) == {"200"}
        told = summary(load)
        assert told["requests"] >= 32
        assert told["memory_largest_mb"] > 50

        start = b"GET /run HTTP/1.1\r\nHost: localhost\r\nX-Long: "
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(20_000))
        for wrong in (b"x" * 2_000_000, b"1\r\n" + many, b"\x00\r\n\r\n"):
            answer = exchange(address, start + wrong)
            assert answer.startswith(b"HTTP/1.1 400")
            assert b"no longer than 64 kB" in answer

        metrics = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        # One request is in the hands of a process that stands still, when the server is told to stop.
        decoder, answers = decoder_of(pid), []
        os.kill(decoder, signal.SIGSTOP)
        thread = threading.Thread(target=lambda: answers.append(exchange(address, asked[0])))
        thread.start()
        wait_until(lambda: b"perceivers_queue 1.0" in exchange(address, metrics))
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: is_refused(address))
        os.kill(decoder, signal.SIGCONT)
        thread.join(PATIENCE)
        assert answers[0].startswith(b"HTTP/1.1 200")
    # `serving` has seen that it ended with status 0.


def test_loads_are_added_up():
    load = Load([0.1, 0.2], {"200": 2}, 1.0, [10, 10])
    load.add(Load([0.3], {"200": 1, "503": 1}, 1.0, [20]))
    told = summary(load)
    assert told["requests"] == 3
    assert told["statuses"] == {"200": 3, "503": 1}
    assert told["p50_ms"] == 200.0
    assert told["longest_ms"] == 300.0
    assert told["memory_last_quarter_mb"] == pytest.approx(0.0, abs=0.1)


def test_the_requests_of_the_page_are_answered(tmp_path):
    for name in ("robin.jpg", "wren.jpg"):
        (tmp_path / name).write_bytes(made.png(0, 0))
    asked = [
        step.text for step in steps(ROOT / "docs" / "serve.md") if step.text.startswith("curl ")
    ]
    asked = [command for command in asked if "/generate" not in command]  # of a run that generates
    assert len(asked) == 9
    with client_of(tmp_path, "image") as client:
        for text in asked:
            words = iter(shlex.split(text)[1:])
            files, fields, headers, address, body = [], {}, {}, "", None
            for word in words:
                if word == "-H":
                    name, _, value = next(words).partition(": ")
                    headers[name] = value
                elif word == "-F":
                    name, _, value = next(words).partition("=")
                    if value.startswith("@"):
                        files.append((name, (value[1:], (tmp_path / value[1:]).read_bytes())))
                    else:
                        fields[name] = value
                elif word == "--data-binary":
                    body = (tmp_path / next(words)[1:]).read_bytes()
                else:
                    address = word
            route = address.removeprefix("http://127.0.0.1:8000")
            assert route != address
            sent = {"content": body} if body else {"files": files, "data": fields}
            is_get = not (files or body)
            answer = client.get(route) if is_get else client.post(route, headers=headers, **sent)
            assert answer.status_code == 200, (text, answer.text)
