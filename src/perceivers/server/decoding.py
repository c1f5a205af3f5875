"""Decoding of uploads in separate processes.

Each process checks the header of an upload, decodes it and prepares the model's arrays, within a bounded memory. A
process that dies or takes too long is replaced, and only its request fails. Results are never unpickled, because a
file may have taken control of the decoder.
"""

import asyncio
import multiprocessing
import os
import pickle
import queue
import resource
import signal
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from starlette.exceptions import HTTPException

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sample_cache import pack, unpack
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, Sample, SampleRng, SampleTransform
from perceivers.data.modalities.series.decode import is_time_name, read_series
from perceivers.data.registry import get_modality
from perceivers.data.sources.samples import samples_of
from perceivers.data.tables.columns import InputColumn
from perceivers.server.channel import Channel
from perceivers.server.settings import UploadLimits
from perceivers.tasks.registry import TaskConfig

KEY = "upload"  # of packed results
_START_SECONDS = 120.0
_HAND_OVER_SECONDS = 5.0  # until an idle process has taken a job
_KILL_SECONDS = 5.0
_STUCK_SECONDS = 10.0  # after the deadline of a job
_REFUSALS = (413, 415, 422)
_LONGEST_REASON = 2000  # characters
_TOO_MUCH_MEMORY = "Decoding needs more memory than the limit for an upload. Send a smaller file."


@dataclass(frozen=True, slots=True)
class Upload:
    """Content of an uploaded file, and the suffix of its name if it is an accepted one, else ""."""

    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One sample to decode: a file or a plain value, by modality or column.

    For an explanation, it also gets the decoded values, and the middle clip only; as a prompt of generation the decoded
    values alone.
    """

    cells: dict[str, Upload | str]
    explained: bool = False
    is_prompt: bool = False


@dataclass(frozen=True, slots=True)
class PackedImage:
    """A decoded PIL image as an array, which can be packed."""

    pixels: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PreparedSample:
    """A decoded and prepared sample: for each clip, the array of each modality, None where it is missing.

    `values` are the decoded values of the modalities, for an explanation.
    """

    name: str
    modalities: tuple[str, ...]
    clips: tuple[tuple[Any, ...], ...]
    values: tuple[Any, ...] = ()

    def decoded(self) -> dict[str, Any]:
        """Return the decoded value of each modality, None where it is missing."""
        return {
            name: Image.fromarray(value.pixels) if isinstance(value, PackedImage) else value
            for name, value in zip(self.modalities, self.values, strict=True)
        }

    def sample(self) -> Sample:
        """Return the sample to collate."""
        clips = [dict(zip(self.modalities, clip, strict=True)) for clip in self.clips]
        return Sample(clips, None, self.name)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sample cannot be decoded: status code of the response, and one paragraph."""

    status: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """Settings of a decoding process: columns and preprocessing by modality, task, number of clips, and limits."""

    columns: dict[str, InputColumn]
    predicting: dict[str, Any]
    explaining: dict[str, Any]
    task: TaskConfig
    num_clips: int
    limits: UploadLimits


class TooLargeError(ValueError):
    """An upload above a limit. The message states its size and the limit."""


def check_limits(kind: str, media: EncodedItem, limits: UploadLimits) -> None:
    """Raise TooLargeError if the header of an upload states a size above a limit, before anything is decoded."""
    upload_sizes = get_modality(kind).upload_sizes
    if upload_sizes is None or media.is_missing:
        return
    for size in upload_sizes(media):
        most = getattr(limits, size.limit)
        if not size.count <= most:  # NaN is refused too
            raise TooLargeError(
                f"'{media.name}' holds {size.count:,.10g} {size.unit}; at most {most:,.10g} are accepted here. Send a "
                "smaller one."
            )


class Decoder:
    """Decodes and prepares uploads."""

    def __init__(self, settings: DecoderSettings) -> None:
        self.settings = settings
        clips = LoaderSettings(batch_size=1, num_clips=settings.num_clips)
        self._predicting = SampleTransform(settings.columns, settings.predicting, None, clips)
        single = LoaderSettings(batch_size=1)
        self._explaining = SampleTransform(settings.columns, settings.explaining, None, single)

    def decode(self, job: Job) -> PreparedSample | Refusal:
        """Return the prepared sample, or a refusal for whatever decoding raises."""
        try:
            return self._prepare(job)
        except Exception as error:
            found = _refusal(error)
            names = [
                name + cell.suffix if isinstance(cell, Upload) else name
                for name, cell in job.cells.items()
            ]
            if any(name in found.reason for name in names):
                return found
            return Refusal(found.status, f"'{' + '.join(names)}': {found.reason}")

    def _prepare(self, job: Job) -> PreparedSample:
        columns, task = self.settings.columns, self.settings.task
        cells = {
            name: EncodedItem(name, value=cell)
            if isinstance(cell, str)
            else EncodedItem(name + cell.suffix, data=cell.data)
            for name, cell in job.cells.items()
        }
        for name, media in cells.items():
            kind = _kind(name, columns)
            if kind is not None:
                check_limits(kind, media, self.settings.limits)
        sample = next(iter(samples_of(_row(cells, columns), columns)))
        reader = self._explaining if job.explained else self._predicting
        values: dict[str, Any] = {}
        has_values = job.explained or job.is_prompt
        if has_values:
            values, _, _ = self._explaining.decode(sample.row, clip_position=0.5)
        if job.is_prompt:
            read = Sample([], None, sample.name)
        elif job.explained:
            read = Sample(reader.clips(values, SampleRng(), sample.name), None, sample.name)
        else:
            read, _ = reader.sample(sample.row, SampleRng())
        if read.clips:
            task.check_sample(read.clips[0], "the text")
        modalities = tuple(reader.columns)
        clips = tuple(tuple(clip[name] for name in modalities) for clip in read.clips)
        decoded = tuple(
            PackedImage(np.asarray(value)) if isinstance(value, Image.Image) else value
            for value in (values[name] for name in modalities if has_values)
        )
        name = " + ".join(media.name for media in cells.values())
        return PreparedSample(name, modalities, clips, decoded)


def _refusal(error: Exception) -> Refusal:
    """Return the status and the reason of a sample that cannot be decoded."""
    if isinstance(error, TooLargeError):
        return Refusal(413, str(error))
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return Refusal(413, _TOO_MUCH_MEMORY)
    if isinstance(error, BadRowError):
        return Refusal(422, error.reason)
    if isinstance(error, ImportError):  # an extra is missing on the server
        return Refusal(415, f"This server cannot read such files: {error}")
    if isinstance(error, KeyError):
        return Refusal(422, str(error.args[0]) if error.args else "Something is missing.")
    return Refusal(422, " ".join(str(error).split()) or type(error).__name__)


def serve_jobs(connection: socket.socket, settings: DecoderSettings) -> None:
    """Decode jobs until the other end of the connection is closed. The main function of a decoding process."""
    channel = Channel(connection)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its decoders itself
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    decoder = Decoder(settings)
    limit_memory(settings.limits.memory)
    channel.send(b"ready")
    try:
        while True:
            job = cast("Job", pickle.loads(channel.receive()))
            channel.send(pack(KEY, decoder.decode(job)))
    except (EOFError, OSError):
        channel.close()


def limit_memory(extra: int) -> None:
    """Limit the address space of this process to `extra` bytes beyond its current size, and disable core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = Path("/proc/self/statm")
    if size.exists():
        limit = int(size.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _died() -> HTTPException:
    return HTTPException(
        500,
        "The decoding process ended before it was done, perhaps because it ran out of memory. It is restarted, and "
        "other requests are not affected. Try again; if it happens again, the file cannot be decoded here.",
    )


class _StartingError(TimeoutError):
    """A process is not ready yet, but may become so."""


class DecoderProcess:
    """Handle of one decoding process, which is restarted whenever it has died."""

    def __init__(self, settings: DecoderSettings) -> None:
        self.settings = settings
        self.starts = 0
        self.deadline: float | None = None  # of the current job
        self._process: BaseProcess | None = None
        self._channel: Channel | None = None
        self._ready_until: float | None = None  # None: it is ready

    @property
    def pid(self) -> int | None:
        """Process id, None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises HTTPException if it ends before."""
        self._start()
        try:
            self._wait_until_ready(time.monotonic() + _START_SECONDS)
        except Exception as error:
            self.stop()
            raise _died() from error

    def run(self, job: Job, deadline: float) -> PreparedSample | Refusal:
        """Decode a job before a deadline by `time.monotonic`.

        Decoding may take half of a request's time: others that wait for a process that hangs are still answered.

        Raises:
            HTTPException: If the process dies.
            TimeoutError: If it takes too long. The process is killed, unless it has only begun to start.
        """
        seconds = self.settings.limits.wait / 2
        own = time.monotonic() + seconds
        self.deadline = min(deadline, own)
        try:
            if not self.is_running:
                self.stop()
                self._start()
            self._wait_until_ready(self.deadline)
            return self._exchange(job, self.deadline)
        except _StartingError:
            raise
        except TimeoutError:
            self.stop()
            reason = (
                f"Decoding took longer than {seconds:g} s. Send a smaller file, or try again later."
            )
            raise TimeoutError(reason if own < deadline else "") from None
        except Exception as error:  # a process that a file has taken control of may send anything
            self.stop()
            raise _died() from error
        finally:
            self.deadline = None

    def _start(self) -> None:
        # Forked from a process with one thread that has imported everything: starting takes milliseconds.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        ours, theirs = Channel.pair()
        process = context.Process(
            target=serve_jobs, args=(theirs.connection, self.settings), daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._channel = process, ours
        self._ready_until = time.monotonic() + _START_SECONDS
        self.starts += 1

    def stop(self) -> None:
        """Kill the process."""
        process, channel = self._process, self._channel
        self._process = self._channel = self._ready_until = None
        if process is not None:
            process.kill()
            process.join(_KILL_SECONDS)
        if channel is not None:
            channel.close()

    def _exchange(self, job: Job, deadline: float) -> PreparedSample | Refusal:
        """Hand over a job and return its result. Raise whatever happens to the process meanwhile."""
        channel = self._channel
        if channel is None:
            raise EOFError
        handed_over = min(deadline, time.monotonic() + _HAND_OVER_SECONDS)
        channel.send(pickle.dumps(job, protocol=pickle.HIGHEST_PROTOCOL), handed_over)
        result = unpack(channel.receive(deadline, self.settings.limits.memory), KEY)
        if isinstance(result, Refusal):
            status = result.status if result.status in _REFUSALS else 422
            return Refusal(status, str(result.reason)[:_LONGEST_REASON])
        if not isinstance(result, PreparedSample):
            raise TypeError("Expected a prepared sample.")
        return result

    def _wait_until_ready(self, deadline: float) -> None:
        """Wait until the process has started. Raise TimeoutError at the deadline."""
        until, channel = self._ready_until, self._channel
        if until is None or channel is None:
            return
        if channel.has_message(min(deadline, until)):
            channel.receive(deadline, most=100)
            self._ready_until = None
        elif time.monotonic() < until:
            raise _StartingError
        else:
            raise TimeoutError


class DecoderPool:
    """A pool of decoding processes."""

    def __init__(self, settings: DecoderSettings, count: int) -> None:
        self.processes = [DecoderProcess(settings) for _ in range(count)]
        self._free: queue.SimpleQueue[DecoderProcess] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")

    @property
    def restarts(self) -> int:
        """Number of times that a process was started again."""
        return sum(max(process.starts - 1, 0) for process in self.processes)

    @property
    def is_alive(self) -> bool:
        """Whether a process can take jobs: False if all are long past their deadlines."""
        now = time.monotonic() - _STUCK_SECONDS
        return any(one.deadline is None or one.deadline > now for one in self.processes)

    def start(self) -> None:
        """Start all processes and wait until they are ready."""
        for process in self.processes:
            process.start()
            self._free.put(process)

    async def decode(self, job: Job, deadline: float) -> PreparedSample | Refusal:
        """Decode a job as soon as a process is free. Raises what `DecoderProcess.run` raises."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
            return await loop.run_in_executor(self._threads, self._run, job, deadline)

    def stop(self) -> None:
        """Stop all processes. Jobs in progress fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            process.stop()

    def _run(self, job: Job, deadline: float) -> PreparedSample | Refusal:
        if time.monotonic() >= deadline:
            raise TimeoutError
        process = self._free.get()
        try:
            return process.run(job, deadline)
        finally:
            self._free.put(process)


def _kind(name: str, columns: Mapping[str, InputColumn]) -> str | None:
    """Return the kind of modality of a cell, named by its modality or one of its columns."""
    if name in columns:
        return columns[name].kind
    return next((part.kind for part in columns.values() if name in part.all_columns), None)


def _row(cells: Mapping[str, EncodedItem], columns: Mapping[str, InputColumn]) -> dict[str, Any]:
    """Return cells as a row for `samples_of`, a series of several columns split into them."""
    row: dict[str, Any] = {}
    for name, media in cells.items():
        part = columns.get(name)
        if part is None or not part.columns:
            several = part is None and _kind(name, columns) in {"text", "table"}
            row[name] = media.value if several and media.data is None else media
        elif part.kind == "series":
            row[name] = _series_columns(media, part)
        elif len(part.columns) == 1:
            row[part.columns[0]] = media.value if media.data is None else media
        else:
            raise ValueError(
                f"'{name}' consists of {', '.join(part.columns)}: send each as a separate field."
            )
    return row


def _series_columns(media: EncodedItem, part: InputColumn) -> dict[str, Any]:
    """Return the channels of a series file by the columns that the model reads."""
    series, _ = read_series(media)
    found: dict[str, Any] = {name: series.values[:, i] for i, name in enumerate(series.names)}
    if series.times is not None:
        times = series.times
        found |= {name: times for name in part.columns if is_time_name(name) and name not in found}
    missing = [name for name in part.columns if name not in found and not is_time_name(name)]
    if missing:
        names = ", ".join(series.names) or "columns without names"
        raise ValueError(
            f"'{media.name}' has no column '{missing[0]}'. Expected {', '.join(part.columns)}; got {names}."
        )
    return {name: found.get(name) for name in part.columns}
