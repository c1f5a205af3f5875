"""`perceivers serve`: answer over HTTP, with a page."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from perceivers.cli.parsing import Device, parse, wrong_arguments

__all__ = ["run"]

_EXAMPLES = """
  perceivers serve runs/birds                            then open http://127.0.0.1:8000
  perceivers serve runs/birds --port 8080 --workers 2    two processes, each with the model
  PERCEIVERS_TOKEN=secret perceivers serve runs/birds --host 0.0.0.0
  curl -F file=@robin.jpg http://127.0.0.1:8000/predict
"""


@dataclass(frozen=True)
class Options:
    """Answer for a run over HTTP: a page to drop files on, predictions and explanations as JSON.

    Stops on SIGTERM and Ctrl+C when what it has accepted is answered, with status 0.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        host: The address to listen at. By default this machine alone can reach it.
        port: The port. 0 takes a free one and says which.
        workers: Processes, each with the model.
        decoders: Processes of each worker that decode what is sent.
        token: What requests must show (`Authorization: Bearer TOKEN`). Better set in PERCEIVERS_TOKEN: the arguments
            of a process can be seen by all users of the machine.
        device: Where to compute. `auto` takes an accelerator if there is one.
        max_batch: Samples that go through the model at once, at most.
        batch_wait: Milliseconds that a sample waits for others that are on their way.
        max_queue: Requests of a worker that are worked on or wait. Others get 503.
        max_wait: Seconds until a request gets 504.
        max_bytes: Of a request.
        max_pixels: Of a picture or frame.
        max_seconds: Of a sound or film.
        max_points: Of a cloud or mesh.
        max_characters: Of a text.
        max_numbers: Of a recording or an array.
        max_memory: Bytes that decoding may take.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    decoders: int = 1
    token: str | None = None
    device: Device = "auto"
    max_batch: int = 32
    batch_wait: float = 4.0
    max_queue: int = 64
    max_wait: float = 30.0
    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_seconds: float = 600.0
    max_points: int = 2_000_000
    max_characters: int = 1_000_000
    max_numbers: int = 20_000_000
    max_memory: int = 2 * 2**30


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="serve", examples=_EXAMPLES)
    for name in ("workers", "decoders", "max_batch"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            wrong_arguments(
                "serve", f"Expected --{flag} of at least 1, got {getattr(options, name)}."
            )
    if not 0 <= options.port < 2**16:
        wrong_arguments("serve", f"Expected --port from 0 to 65535, got {options.port}.")
    from perceivers.data.base import require

    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from perceivers.server.runner import Settings, serve

    given = {name: value for name, value in vars(options).items() if not name.startswith("max_")}
    limits = {
        name.removeprefix("max_"): value
        for name, value in vars(options).items()
        if name.startswith("max_") and name != "max_batch"
    }
    settings = Settings(**given, max_batch=options.max_batch, limits=limits)
    return serve(settings, lambda told: print(told, file=sys.stderr))
