"""Options of `perceivers serve` and limits of uploads, as one dataclass each.

The command line is made from these, and its help must not import torch: keep this module light.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Upper bounds on requests.

    Attributes:
        bytes: Bytes of a request.
        pixels: Pixels of an image or of a video frame.
        seconds: Seconds of an audio file or a video.
        points: Points or triangles of a point cloud or mesh.
        characters: Bytes of a text in UTF-8.
        numbers: Numbers of a series or an array.
        tokens: Tokens of a generated text.
        memory: Bytes that a decoding process may allocate beyond what it has when it starts.
        wait: Seconds until a request gets 504, including its transfer.
        queue: Requests of a worker in progress or waiting. Others get 503.
        samples: Samples of one request.

    Raises:
        ValueError: If one of them is not above zero.
    """

    bytes: Annotated[int, tyro.conf.arg(name="max-bytes")] = 64 * 2**20
    pixels: Annotated[int, tyro.conf.arg(name="max-pixels")] = 50_000_000
    seconds: Annotated[float, tyro.conf.arg(name="max-seconds")] = 600.0
    points: Annotated[int, tyro.conf.arg(name="max-points")] = 2_000_000
    characters: Annotated[int, tyro.conf.arg(name="max-characters")] = 1_000_000
    numbers: Annotated[int, tyro.conf.arg(name="max-numbers")] = 20_000_000
    tokens: Annotated[int, tyro.conf.arg(name="max-tokens")] = 4096
    memory: Annotated[int, tyro.conf.arg(name="max-memory")] = 2 * 2**30
    wait: Annotated[float, tyro.conf.arg(name="max-wait")] = 30.0
    queue: Annotated[int, tyro.conf.arg(name="max-queue")] = 64
    samples: Annotated[int, tyro.conf.arg(name="max-samples")] = 64

    def __post_init__(self) -> None:
        _check_positive(self)


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """Upper bounds on the connections of a worker.

    Attributes:
        max_connections: Open connections. A further one takes the place of the one that waits longest for its client.
        max_connections_per_address: Open connections of one client, likewise. Raise it behind a proxy.
        head_wait: Seconds until the first line and the headers of a request are complete, and until the next request of
            an idle connection.
        min_rate: Bytes a second of a body or a response, after the first seconds (`grace`). Slower ones are ended.
        grace: Seconds until `min_rate` is required.
        max_held_bytes: Bytes of all requests in progress, and of all responses that clients have not taken.

    Raises:
        ValueError: If one of them is not above zero.
    """

    max_connections: int = 1000
    max_connections_per_address: int = 256
    head_wait: float = 5.0
    min_rate: int = 1024
    grace: Annotated[float, tyro.conf.arg(name="min-rate-after")] = 5.0
    max_held_bytes: int = 2**30

    def __post_init__(self) -> None:
        _check_positive(self)


def _check_positive(limits: "UploadLimits | ConnectionLimits") -> None:
    for one in fields(limits):
        value = getattr(limits, one.name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"Expected a limit above zero for {one.name}, got {value}.")


@dataclass(frozen=True)
class ServerSettings:
    """Serve a run over HTTP: a page for uploads, predictions and explanations as JSON.

    SIGTERM and Ctrl+C stop it with status 0, after all accepted requests have been answered.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        host: The address to listen at. By default it can be reached from this machine only.
        port: The port. 0 takes a free one and prints it.
        workers: Number of processes, each with the model.
        decoders: Number of processes that decode uploads, for each worker.
        token: Required of requests (`Authorization: Bearer TOKEN`), and of a server that other machines can reach.
            Better set in PERCEIVERS_TOKEN: all users of the machine can see the arguments of a process.
        no_token: Serve without a token, also to other machines.
        allowed_hosts: Further names in the Host header of requests, or `*` for any. By default any name with a token,
            else those of this machine.
        allowed_origins: Origins of other web pages that may use this server, such as https://birds.example, or `*`
            for all.
        device: Where to compute. `auto` takes an accelerator if there is one.
        max_batch: Largest number of samples in a forward pass.
        batch_wait: Milliseconds that a sample waits for others to form a batch.
        access_log: One line for each request on standard error, to read or as JSON.
        log_level: Smallest level of the server's own messages.
        limits: Upper bounds on requests.
        connections: Upper bounds on connections.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    decoders: int = 1
    token: str | None = None
    no_token: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    max_batch: int = 32
    batch_wait: float = 4.0
    access_log: Literal["text", "json", "off"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    limits: Annotated[UploadLimits, tyro.conf.arg(name="")] = field(default_factory=UploadLimits)
    connections: Annotated[ConnectionLimits, tyro.conf.arg(name="")] = field(
        default_factory=ConnectionLimits
    )
