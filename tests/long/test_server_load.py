"""A server beside hostile clients: others are answered, and memory and open files stay where they were."""

import asyncio
import contextlib
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from benchmarks.serving import load_on, request_of, serving
from benchmarks.serving_attacks import attack, num_files, send, stop_decoder

from support import modality_data as made
from support.runs import save_run
from support.timing import PATIENCE, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux' /proc"),
]
MEMORY = 200e6  # bytes that may come and go


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(save_run(tmp_path_factory.mktemp("load") / "run")) as (address, pid):
        yield address, pid


def predictions(address: str) -> list[bytes]:
    host = urlsplit(address).netloc
    return [request_of(made.png(0, number), "a.png", host) for number in range(4)]


def get(address: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\n\r\n".encode()


def test_clients_are_answered_beside_idle_connections_and_slow_bodies(server):
    address, pid = server

    async def run():
        await load_on(address, predictions(address), clients=8, seconds=2)
        async with attack(address, idle=1000, slow=64) as counts:
            async with asyncio.timeout(PATIENCE):
                while sum(counts.values()) < 1064:
                    await asyncio.sleep(0.1)
            return await load_on(address, predictions(address), clients=8, seconds=10, pid=pid)

    before = num_files(pid)
    load = asyncio.run(run())
    assert set(load.statuses) == {"200"}
    assert load.statuses["200"] >= 8
    assert max(load.memory) < load.memory[0] + MEMORY
    wait_until(lambda: num_files(pid) <= before + 8)


def test_memory_and_open_files_are_flat_over_many_requests(server):
    address, pid = server
    host = urlsplit(address).netloc
    others = [get(address, "/health"), get(address, "/run"), get(address, "/nowhere")]
    damaged = [request_of(b"no image", "a.png", host), request_of(b"", "", host)]
    requests = [*predictions(address), *others, *damaged, get(address, "/metrics")]

    async def run(each):
        return await load_on(address, requests, clients=8, requests_each=each, pid=pid)

    first = asyncio.run(run(125))  # every path was taken
    wait_until(lambda: num_files(pid) < 200)
    files = num_files(pid)
    load = asyncio.run(run(1250))
    assert sum(load.statuses.values()) == 10_000
    assert set(load.statuses) == {"200", "400", "404", "422"}
    assert load.memory[-1] < first.memory[-1] + MEMORY
    wait_until(lambda: num_files(pid) <= files + 8)


def test_a_decoder_that_is_stopped_during_a_large_upload_delays_others_only(server):
    address, pid = server
    found = asyncio.run(stop_decoder(address, pid, predictions(address)[0]))
    assert found["stopped"] == "504"
    assert found["others"] == ["200"] * 8


def test_few_descriptors_are_not_used_up_by_idle_connections(tmp_path):
    with serving(save_run(tmp_path / "run"), open_files=256) as (address, pid):
        place = urlsplit(address)
        with contextlib.ExitStack() as opened:
            for number in range(300):
                connection = socket.create_connection((place.hostname, place.port))
                opened.enter_context(connection)
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: lo" * (number % 2))
            for _ in range(20):
                assert asyncio.run(send(address, get(address, "/health"))) == "200"
            assert asyncio.run(send(address, predictions(address)[0])) == "200"
        wait_until(lambda: num_files(pid) < 100)
