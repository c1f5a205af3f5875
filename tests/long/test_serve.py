"""A server as people start it: a process, real connections, many clients at once, and its end."""

import asyncio
import os
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import made_modalities as made
import pytest
from benchmarks.serving import Load, load_on, request_of, serving, summary
from runs import save_run


def exchange(address: str, sent: bytes) -> bytes:
    """Send bytes over a connection of its own and return all that comes back."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


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
def test_clients_at_once_are_answered_and_what_is_accepted_is_finished(tmp_path):
    run = save_run(tmp_path / "run")
    with serving(run, "--max-batch", "16") as (address, pid):
        host = urlsplit(address).netloc
        asked = [request_of(made.png(0, number), "a.png", host) for number in range(4)]
        load = asyncio.run(load_on(address, asked, clients=32, seconds=5, pid=pid))
        assert set(load.statuses) == {"200"}
        told = summary(load)
        assert told["requests"] >= 32
        assert told["memory_largest_mb"] > 50

        start = b"GET /run HTTP/1.1\r\nHost: localhost\r\nX-Long: "
        assert exchange(address, start + b"x" * 300_000).startswith(b"HTTP/1.1 4")
        assert exchange(address, b"\x00\xff\r\n\r\n").startswith(b"HTTP/1.1 4")
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(20_000))
        assert exchange(address, start + b"1\r\n" + many).startswith(b"HTTP/1.1 4")

        # One request is in the hands of a process that stands still, when the server is told to stop.
        decoder, answers = decoder_of(pid), []
        os.kill(decoder, signal.SIGSTOP)
        thread = threading.Thread(target=lambda: answers.append(exchange(address, asked[0])))
        thread.start()
        time.sleep(0.5)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            exchange(address, asked[0])
        os.kill(decoder, signal.SIGCONT)
        thread.join(30)
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
