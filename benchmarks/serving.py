"""A server under load on loopback: many clients at once, with batches and without.

    python -m benchmarks.serving                           a minute of 32 clients in three rounds
    python -m benchmarks.serving --run runs/birds --file robin.jpg

Three things take turns in every round, so that all of them meet the same machine: one client alone, 32 clients of a
server that computes one sample at a time (`--max-batch 1`), and 32 clients of the server as it is. Throughput,
latencies, failures and the memory of the server's processes are written to benchmarks/results/serving.json. Clients
and servers share the machine.
"""

import argparse
import asyncio
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks import facts
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub.checkpoint import save
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.tasks.classification import ClassificationConfig

__all__ = [
    "Load",
    "load_on",
    "main",
    "make_run",
    "process_tree",
    "request_of",
    "requests_of",
    "serving",
    "summary",
]

RESULTS = Path(__file__).parent / "results" / "serving.json"
IMAGES = 16  # different ones, sent in turn


@dataclass
class Load:
    """Results of a load on the server.

    Attributes:
        latencies: Seconds of each answered request.
        statuses: Number of answers by status.
        seconds: That all of it took.
        memory: Bytes of the server's processes, once a second.
        processor: Seconds of the processor that these took, which other work on the machine does not change.
    """

    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)
    processor: float = 0.0

    def add(self, other: "Load") -> None:
        """Add what was met in another round."""
        self.latencies += other.latencies
        for status, count in other.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count
        self.seconds += other.seconds
        self.memory += other.memory
        self.processor += other.processor


def make_run(folder: Path, size: int = 32) -> Path:
    """Write a run of the recipe `images` in size tiny with fresh weights: its predictions do not matter here."""
    config = get_recipe("images", size="tiny").model_config()
    image: Any = config.inputs["image"]
    labels = tuple(str(label) for label in range(10))
    config = replace(
        config,
        inputs={"image": replace(image, size=(size, size))},
        output=replace(config.output, num_outputs=len(labels)),
    )
    save(
        folder,
        build(config),
        preprocess={"image": ImagePreprocessConfig.imagenet(size=(size, size), crop_fraction=1.0)},
        task=ClassificationConfig(label_names=labels),
    )
    return folder


def request_of(data: bytes, name: str, host: str) -> bytes:
    """Return a whole request that asks for a prediction."""
    mark = b"------------------------perceivers"
    body = b"--%b\r\nContent-Disposition: form-data; name=file; filename=%b\r\n\r\n%b\r\n--%b--\r\n"
    content = body % (mark, name.encode(), data, mark)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n"
        f"Content-Type: multipart/form-data; boundary={mark.decode()}\r\n\r\n"
    )
    return head.encode() + content


@contextmanager
def serving(run: Path, *flags: str, open_files: int | None = None) -> Generator[tuple[str, int]]:
    """Run `perceivers serve` on a free port; gives its address and process. It must end with status 0.

    Args:
        run: The run that is served.
        *flags: Further arguments of the command.
        open_files: Limit of the open files of the process.
    """
    command = [sys.executable, "-m", "perceivers", "serve", str(run), "--port", "0"]
    command += ["--access-log", "off", *flags]  # its lines would fill the pipe
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            line = next((line for line in lines if line.startswith("Serving ")), "")
            if not line:
                msg = f"The server did not start: it ended with status {process.wait()}."
                raise RuntimeError(msg)
            yield line.split(" at ")[1].split()[0], process.pid
            process.send_signal(signal.SIGTERM)
            rest = "".join(lines)
            if process.wait(60) != 0:
                msg = f"Expected the server to end with status 0, got {process.returncode}: {rest}"
                raise RuntimeError(msg)
        finally:
            process.kill()


async def load_on(
    address: str,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float = math.inf,
    requests_each: float = math.inf,
    pid: int | None = None,
) -> Load:
    """Let clients ask one request after the other for a while, each over a connection of its own.

    Args:
        address: Address of the server.
        requests: Sent in turn.
        clients: Number of concurrent clients.
        seconds: For how long.
        requests_each: Number of requests of each client.
        pid: Process of the server, whose memory is measured.
    """
    found = Load()
    begun = time.monotonic()
    until = begun + seconds
    place = urlsplit(address)

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        turn = number
        while time.monotonic() < until and turn - number < requests_each:
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            status = await _answer(reader)
            found.latencies.append(time.perf_counter() - sent)
            found.statuses[status] = found.statuses.get(status, 0) + 1
            turn += 1
        writer.close()

    async def watch() -> None:
        while pid is not None:
            found.memory.append(_memory(pid))
            await asyncio.sleep(1)

    before = 0.0 if pid is None else _processor(pid)
    watching = asyncio.create_task(watch())
    try:
        await asyncio.gather(*(client(number) for number in range(clients)))
    finally:
        watching.cancel()
    found.seconds = time.monotonic() - begun
    found.processor = 0.0 if pid is None else _processor(pid) - before
    return found


async def _answer(reader: asyncio.StreamReader) -> str:
    """Read one answer and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().splitlines()
    length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
    await reader.readexactly(length)
    return lines[0].split()[1]


def process_tree(pid: int) -> list[Path]:
    """Return the folders in /proc of a process and of all that it has started."""
    found: list[Path] = []
    waiting = [pid]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        try:
            for task in (folder / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended meanwhile
            continue
        found.append(folder)
    return found


def _memory(pid: int) -> int:
    """Return the bytes of a process and all that it has started; shared ones are counted once."""
    total = 0
    for folder in process_tree(pid):
        lines = (folder / "smaps_rollup").read_text().splitlines()
        total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _processor(pid: int) -> float:
    """Return the seconds of the processor that a process and all that it has started took."""
    ticks = 0
    for folder in process_tree(pid):
        after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def summary(load: Load) -> dict[str, Any]:
    """Return the summary of a load, in milliseconds and MB."""
    sorted_ = sorted(load.latencies)
    quarter = max(len(load.memory) // 4, 1)
    found: dict[str, Any] = {
        "requests": len(sorted_),
        "seconds": round(load.seconds, 1),
        "statuses": load.statuses,
        "per_second": round(len(sorted_) / load.seconds, 1),
        "processor_ms": round(1000 * load.processor / len(sorted_), 2),
    }
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("longest", 1.0)):
        at = min(int(share * len(sorted_)), len(sorted_) - 1)
        found[f"{name}_ms"] = round(1000 * sorted_[at], 1)
    if load.memory:
        found["memory_first_quarter_mb"] = round(statistics.mean(load.memory[:quarter]) / 1e6, 1)
        found["memory_last_quarter_mb"] = round(statistics.mean(load.memory[-quarter:]) / 1e6, 1)
        found["memory_largest_mb"] = round(max(load.memory) / 1e6, 1)
    return found


def requests_of(address: str, file: Path | None) -> list[bytes]:
    """Return requests for predictions of a file, or of images of noise."""
    host = urlsplit(address).netloc
    if file is not None:
        return [request_of(file.read_bytes(), file.name, host)]
    return [request_of(data, "picture.png", host) for data in _images()]


def _images() -> list[bytes]:
    import io

    rng = np.random.default_rng(0)
    found: list[bytes] = []
    for _ in range(IMAGES):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        found.append(buffer.getvalue())
    return found


async def _measured(
    run: Path, args: argparse.Namespace, flags: Sequence[str]
) -> Mapping[str, Load]:
    found = {"alone": Load(), "one_by_one": Load(), "batched": Load()}
    share = args.seconds / args.rounds
    with (
        serving(run, *flags) as (batched, pid),
        serving(run, *flags, "--max-batch", "1") as (single, other),
    ):
        sent = {address: requests_of(address, args.file) for address in (batched, single)}
        for address, requests in sent.items():  # warm: every size of batch was there
            await load_on(address, requests, clients=args.clients, seconds=share / 4)
        for number in range(args.rounds):
            alone = await load_on(batched, sent[batched], clients=1, seconds=share / 4, pid=pid)
            one = await load_on(
                single,
                sent[single],
                clients=args.clients,
                seconds=share / 2,
                pid=other,
            )
            many = await load_on(
                batched, sent[batched], clients=args.clients, seconds=share, pid=pid
            )
            for name, load in (("alone", alone), ("one_by_one", one), ("batched", many)):
                found[name].add(load)
            print(
                f"round {number + 1}: {summary(many)['per_second']} a second, load {os.getloadavg()[0]:.1f}"
            )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, help="a run folder; by default fresh weights, 32 x 32")
    parser.add_argument("--file", type=Path, help="what is sent; by default images of noise")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args, flags = parser.parse_known_args(argv)
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run or make_run(Path(folder) / "run")
        found = asyncio.run(_measured(run, args, flags))
    summaries = {name: summary(load) for name, load in found.items()}
    ratio = summaries["batched"]["per_second"] / summaries["one_by_one"]["per_second"]
    single = summaries["alone"]["p50_ms"]
    written = {
        "machine": facts.machine("cpu"),
        "clients": args.clients,
        "load_before": [round(one, 2) for one in before],
        "load_after": [round(one, 2) for one in os.getloadavg()],
        **summaries,
        "batching": round(ratio, 2),
        "batching_to_one_client": round(
            summaries["batched"]["per_second"] / summaries["alone"]["per_second"], 2
        ),
        "batching_by_processor": round(
            summaries["one_by_one"]["processor_ms"] / summaries["batched"]["processor_ms"], 2
        ),
        "p99_in_single_requests": round(summaries["batched"]["p99_ms"] / single, 2),
    }
    print(json.dumps(written, indent=2))
    args.out.write_text(json.dumps(written, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
