"""A server beside hostile clients on loopback: normal clients' latencies, memory and open files.

    python -m benchmarks.serving_attacks                   a minute of 8 clients beside 1,000 idle connections

One client alone, 8 clients, and 8 clients beside 1,000 idle or half-open connections and 64 slow bodies take turns.
Then 10,000 requests follow each other, and a decoding process is stopped (not killed) while it gets a large file. The
results are written to benchmarks/results/serving_attacks.json. Clients and servers share the machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import facts
from benchmarks.serving import (
    Load,
    load_on,
    make_run,
    process_tree,
    request_of,
    requests_of,
    serving,
    summary,
)

__all__ = ["attack", "decoder_of", "main", "num_files", "send", "stop_decoder"]

RESULTS = Path(__file__).parent / "results" / "serving_attacks.json"
_AGAIN_SECONDS = 5.0  # until a hostile client connects again


@asynccontextmanager
async def attack(address: str, *, idle: int, slow: int) -> AsyncGenerator[dict[str, int]]:
    """Keep hostile clients connected: idle ones, every second one with half of a head, and slow bodies.

    Each connects again when the server has closed its connection. Yields the number of connections by kind.
    """
    place, counts = urlsplit(address), {"idle": 0, "slow": 0}
    half = f"POST /predict HTTP/1.1\r\nHost: {place.netloc}\r\n"
    body = f"{half}Content-Type: multipart/form-data; boundary=m\r\nContent-Length: 100000\r\n\r\n"

    async def client(kind: str, head: bytes, seconds_of_byte: float | None) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(place.hostname, place.port)
                counts[kind] += 1
                try:
                    writer.write(head)
                    while not await _is_closed(reader, seconds_of_byte):
                        writer.write(b"-")
                finally:
                    writer.close()
            await asyncio.sleep(_AGAIN_SECONDS)

    clients = [client("idle", half.encode() * (number % 2), None) for number in range(idle)]
    clients += [client("slow", body.encode(), 1.0) for _ in range(slow)]
    tasks = [asyncio.create_task(one) for one in clients]
    try:
        yield counts
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _is_closed(reader: asyncio.StreamReader, seconds: float | None) -> bool:
    """Wait for the end of a connection. Return False if it does not come within the seconds."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(65536):
                pass
    except TimeoutError:
        return False
    return True


async def send(address: str, request: bytes) -> str:
    """Return the status of the response to a request over a connection of its own."""
    place = urlsplit(address)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split()[1].decode()
    finally:
        writer.close()


def num_files(pid: int) -> int:
    """Return the number of files and connections that a process and all that it has started have open."""
    return sum(len(list((folder / "fd").iterdir())) for folder in process_tree(pid))


def decoder_of(pid: int) -> int:
    """Return the decoding process of a server of one worker: the child of the child that forks."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [
        int(below)
        for child in children
        for below in Path(f"/proc/{child}/task/{child}/children").read_text().split()
    ]
    return found


async def _beside_attack(address: str, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one client, several, and several beside hostile ones, in turn."""
    requests = requests_of(address, None)
    await load_on(address, requests, clients=args.clients, seconds=2)  # warm
    loads = {"alone": Load(), "clients": Load(), "attacked": Load()}
    share = args.seconds / args.rounds
    counts: dict[str, int] = {}
    for _ in range(args.rounds):
        for name, clients, part in (("alone", 1, share / 4), ("clients", args.clients, share / 2)):
            loads[name].add(
                await load_on(address, requests, clients=clients, seconds=part, pid=pid)
            )
        async with attack(address, idle=args.idle, slow=args.slow) as found:
            load = await load_on(address, requests, clients=args.clients, seconds=share, pid=pid)
        loads["attacked"].add(load)
        counts = {name: counts.get(name, 0) + count for name, count in found.items()}
    results: dict[str, Any] = {name: summary(load) for name, load in loads.items()}
    alone = results["alone"]
    return {
        **results,
        "hostile_connections": counts,
        "p99_to_p99_of_one_client": round(results["attacked"]["p99_ms"] / alone["p99_ms"], 2),
        "p99_to_p50_of_one_client": round(results["attacked"]["p99_ms"] / alone["p50_ms"], 2),
    }


async def _many_requests(address: str, pid: int, count: int, clients: int) -> dict[str, Any]:
    """Return memory and open files of the server before and after many requests, and every tenth between."""
    requests = requests_of(address, None)
    rows: list[dict[str, float]] = []
    done = 0
    while done < count:
        part = await load_on(
            address, requests, clients=clients, requests_each=count // 10 // clients, pid=pid
        )
        done += len(part.latencies)
        rows.append(
            {
                "requests": done,
                "memory_mb": round(part.memory[-1] / 1e6, 1),
                "files": num_files(pid),
            }
        )
    return {"requests": done, "tenths": rows}


async def stop_decoder(address: str, pid: int, small: bytes) -> dict[str, Any]:
    """Stop the decoding process while it gets a large file, and return the statuses of this and of other requests."""
    host = urlsplit(address).netloc
    os.kill(decoder_of(pid), signal.SIGSTOP)
    started = time.monotonic()
    large = asyncio.create_task(send(address, request_of(bytes(20_000_000), "large.png", host)))
    await asyncio.sleep(1)
    others = await asyncio.gather(*(send(address, small) for _ in range(8)))
    return {
        "stopped": await large,
        "others": sorted(others),
        "seconds": round(time.monotonic() - started, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run")
        with serving(run) as (address, pid):
            attacked = asyncio.run(_beside_attack(address, pid, args))
            many = asyncio.run(_many_requests(address, pid, args.requests, args.clients))
            stopped = asyncio.run(stop_decoder(address, pid, requests_of(address, None)[0]))
    written = {
        "machine": facts.machine("cpu"),
        "clients": args.clients,
        "idle": args.idle,
        "slow": args.slow,
        "load_before": [round(one, 2) for one in before],
        "load_after": [round(one, 2) for one in os.getloadavg()],
        **attacked,
        "many_requests": many,
        "stopped_decoder": stopped,
    }
    print(json.dumps(written, indent=2))
    args.out.write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
