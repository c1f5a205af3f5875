"""What a process of its own does with an upload: look at its header, decode it, prepare the model's arrays.

Whatever a file makes a decoder do happens there, within a bounded memory. What comes back is never unpickled.
"""

import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from perceivers.data.encoded_item import Media
from perceivers.data.loading.sample_cache import pack
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, Chances, Reader, Sample
from perceivers.data.modalities.series.decode import is_time_name, read_recording
from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation.inputs import samples_of
from perceivers.server.limits import Limits, TooLargeError, check
from perceivers.tasks.masked import MaskedBytesConfig, check_blanks
from perceivers.tasks.registry import TaskConfig

__all__ = ["Decoder", "Job", "Prepared", "Refusal", "Setup", "Upload", "serve_jobs"]

KEY = "upload"  # under which what comes back is packed


@dataclass(frozen=True, slots=True)
class Upload:
    """One file that was sent.

    Attributes:
        suffix: Of its name, if it is one that is accepted, else "".
        data: Its bytes.
    """

    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """What was sent for one sample.

    Attributes:
        cells: A file or what was written, by modality or column.
        whole: Whether what was decoded comes back too, as an explanation needs it, and only its middle clip.
    """

    cells: dict[str, Upload | str]
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample as a `Reader` has prepared it.

    Attributes:
        name: What was given.
        modalities: All that the model reads.
        clips: For each clip, what each modality prepared; None where that is missing.
        values: What was decoded of each modality, where it was asked for.
    """

    name: str
    modalities: tuple[str, ...]
    clips: tuple[tuple[Any, ...], ...]
    values: tuple[Any, ...] = ()

    def sample(self) -> Sample:
        """Return it as `Reader.collate` takes it."""
        clips = [dict(zip(self.modalities, clip, strict=True)) for clip in self.clips]
        return Sample(clips, None, self.name)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a sample cannot be read.

    Attributes:
        status: Of the answer, as HTTP counts.
        reason: One paragraph.
    """

    status: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the process must know of the run.

    Attributes:
        columns: Where each modality lies.
        predicting: How each is prepared for a prediction.
        explaining: How each is prepared for an explanation.
        task: What was learned.
        num_clips: Of a longer recording, in a prediction.
        limits: What is accepted.
    """

    columns: dict[str, InputColumn]
    predicting: dict[str, Any]
    explaining: dict[str, Any]
    task: TaskConfig
    num_clips: int
    limits: Limits


class Decoder:
    """Decodes and prepares what is sent.

    Args:
        setup: What must be known of the run.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        clips = LoaderSettings(batch_size=1, num_clips=setup.num_clips)
        self._predicting = Reader(setup.columns, setup.predicting, None, clips)
        single = LoaderSettings(batch_size=1)
        self._explaining = Reader(setup.columns, setup.explaining, None, single)

    def answer(self, job: Job) -> Prepared | Refusal:
        """Return a sample, or why it cannot be read. Whatever a decoder raises is the file's fault."""
        try:
            return self._prepared(job)
        except TooLargeError as error:
            return Refusal(413, str(error))
        except MemoryError:
            reason = (
                "What was sent needs more memory than one upload may take here. Send a smaller one."
            )
            return Refusal(413, reason)
        except BadRowError as error:
            return Refusal(422, error.reason)
        except ImportError as error:  # an extra is missing on the server
            return Refusal(415, f"This server cannot read such files: {error}")
        except KeyError as error:
            return Refusal(422, str(error.args[0]) if error.args else "Something is missing.")
        except Exception as error:
            return Refusal(422, " ".join(str(error).split()) or type(error).__name__)

    def _prepared(self, job: Job) -> Prepared:
        limits, columns = self.setup.limits, self.setup.columns
        cells = {name: _media(name, cell) for name, cell in job.cells.items()}
        for name, media in cells.items():
            kind = _kind(name, columns)
            if kind is not None:
                check(kind, media, limits)
        sample = next(iter(samples_of(_row(cells, columns), columns)))
        reader = self._explaining if job.whole else self._predicting
        if job.whole:
            values, _, _ = reader.decode(sample.row, moment=0.5)
            read = Sample(reader.clips(values, Chances(), sample.name), None, sample.name)
        else:
            read, _ = reader.sample(sample.row, Chances())
            values = {}
        if isinstance(self.setup.task, MaskedBytesConfig):
            check_blanks(read.clips[0][self.setup.task.modality].tolist(), "the text")
        modalities = tuple(reader.columns)
        clips = tuple(tuple(clip[name] for name in modalities) for clip in read.clips)
        decoded = tuple(_plain(values[name]) for name in modalities) if job.whole else ()
        return Prepared(" + ".join(cells), modalities, clips, decoded)


def _plain(value: Any) -> Any:
    """Return a picture as an array, which can be sent; anything else as it is."""
    return np.asarray(value) if isinstance(value, Image.Image) else value


def _media(name: str, cell: Upload | str) -> Media:
    """Return what was sent as a cell of a table."""
    if isinstance(cell, str):
        return Media(name, value=cell)
    return Media(name + cell.suffix, data=cell.data)


def _kind(name: str, columns: Mapping[str, InputColumn]) -> str | None:
    """Return as what a cell is read that stands for a modality or one of its columns."""
    if name in columns:
        return columns[name].kind
    return next((part.kind for part in columns.values() if name in part.all_columns), None)


def _row(cells: Mapping[str, Media], columns: Mapping[str, InputColumn]) -> dict[str, Any]:
    """Return cells as a dict that `samples_of` takes apart: a recording of several columns by its columns."""
    row: dict[str, Any] = {}
    for name, media in cells.items():
        part = columns.get(name)
        if part is None or not part.columns:
            several = part is None and _kind(name, columns) in {"text", "table"}
            row[name] = media.value if several and media.data is None else media
        elif part.kind == "series":
            row[name] = _by_column(media, part)
        elif len(part.columns) == 1:
            row[part.columns[0]] = media.value if media.data is None else media
        else:
            msg = f"'{name}' is made of {', '.join(part.columns)}: send each of them as a field of its own."
            raise ValueError(msg)
    return row


def _by_column(media: Media, part: InputColumn) -> dict[str, Any]:
    """Return the channels of a recording file by the columns that the model reads.

    Raises:
        ValueError: If a column is missing.
    """
    recording, _ = read_recording(media)
    found: dict[str, Any] = {
        name: recording.values[:, place] for place, name in enumerate(recording.names)
    }
    if recording.times is not None:
        times = recording.times
        found |= {name: times for name in part.columns if is_time_name(name) and name not in found}
    missing = [name for name in part.columns if name not in found and not is_time_name(name)]
    if missing:
        told = ", ".join(recording.names) or "columns without names"
        msg = f"'{media.name}' has no column '{missing[0]}'. Expected {', '.join(part.columns)}; got {told}."
        raise ValueError(msg)
    return {name: found.get(name) for name in part.columns}


def serve_jobs(connection: Connection, setup: Setup) -> None:
    """Answer jobs until the other end is closed. Runs in a process of its own.

    Args:
        connection: Where jobs come from, and answers go to as bytes.
        setup: What must be known of the run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    decoder = Decoder(setup)
    bound_memory(setup.limits.memory)
    connection.send_bytes(b"ready")
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send_bytes(pack(KEY, decoder.answer(cast("Job", job))))


def bound_memory(most: int) -> None:
    """Let this process take so many bytes beyond what it has now, and leave no core behind when it dies.

    Args:
        most: Bytes of addresses. Where the system does not tell what it has, nothing is bounded.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    told = Path("/proc/self/statm")
    if told.exists():
        now = int(told.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + most, now + most))
