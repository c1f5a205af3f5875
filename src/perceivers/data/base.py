"""Splits, batches, the configuration of data, and helpers that all packages share."""

import difflib
import errno
import io
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field, NonNegativeInt, PositiveInt

from perceivers.escaping import encode_text
from perceivers.registry import configclass
from perceivers.typing import Tensor


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean '...'?" with the known name nearest to `name`, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden: `.cache`, `._1.png`, the `__MACOSX` of an archive."""
    return name.startswith(".") or name == "__MACOSX"


SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
"""Each split with the names that folders, files and Hugging Face splits give it."""


def split_of(name: str) -> str | None:
    """Return the split (`train`, `validation`, `test`) that a name stands for, or None."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


@configclass
class DataConfig:
    """Columns and rows of the data, and how they are read.

    Attributes:
        label: Target column. By default `label`, or the folder's name in a folder of classes. Several columns,
            `digit,color`, are as many tasks, learned together; `digit,age:number` declares the kind of one of them.
        target: Kind of the target: one `class`, several `labels`, or a `number` (or several); or `nothing`, to learn
            from the inputs only. `auto` infers it.
        columns: Input columns by name, `{"left_image": "image"}`. By default those of files, text, series or arrays.
            `film` is a video with its audio track; `number` and `category` columns form one table; `auto` infers
            the kind; `*` stands for all other columns but the label.
        files: Folder of the files whose names without suffix are in a column of the table.
        suffix: Suffix of these files, `.jpg`. By default the only one in the folder.
        series_files: Each table file is one series, whose rows are its time steps, instead of a sample for each row.
        split_column: Column that divides the rows into splits.
        test: Value of `split_column` in the test split.
        group: Column whose values never occur on both sides of a split (a subject, a session).
        validation_fraction: Share of train that is held out if there is no validation split.
        split_seed: Seed of that hold-out, independent of the training seed so that runs can be compared.
        max_bad: Largest share of rows that may fail to decode before the run stops.
        workers: Number of worker processes. By default, a share of the cores.
        stream: Read rows in the order of the shards instead of by index (data larger than the disk).
        shuffle_buffer: Size of the shuffle buffer of a stream, in rows.
        clips: Number of clips of longer audio, video or series whose scores are averaged in `evaluate` and `predict`.
        cache: Folder of decoded samples, shared by epochs and runs. By default they are cached in memory.
    """

    label: str | None = None
    target: Literal["auto", "class", "labels", "number", "nothing"] = "auto"
    columns: dict[str, str] | None = None
    files: str | None = None
    suffix: str | None = None
    series_files: bool = False
    split_column: str | None = None
    test: str | None = None
    group: str | None = None
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    split_seed: NonNegativeInt = 0
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.01
    workers: NonNegativeInt | None = None
    stream: bool = False
    shuffle_buffer: PositiveInt = 2048
    clips: PositiveInt = 1
    cache: str | None = None


@runtime_checkable
class MapStyleSplit(Protocol):
    """A split with rows that are read by index, not decoded."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def row(self, index: int) -> Mapping[str, Any]:
        """Return the raw cells of one row: `EncodedItem`s and plain values."""
        ...

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, without reading files."""
        ...


@runtime_checkable
class Row(Protocol):
    """A row that is not decoded: its cells and its name in messages."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    @property
    def row(self) -> Mapping[str, Any]:
        """The raw cells by column."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of samples.

    Attributes:
        inputs: A tensor for each modality; its first axis is the batch.
        targets: Class indices, B; or B x K: class probabilities, labels, numbers. Of several tasks, these by task, -1
            and NaN if unknown. None without targets.
        masks: For padded or partly missing modalities: B x L, True if an element of the second axis is real. L is 1 if
            samples are complete or missing as a whole.
        names: Name of each sample (a file, a row), for messages and tables.
        num_clips: Number of clips per sample. `inputs` and `masks` then hold B * num_clips, clips of a sample adjacent.
        rows: Index of each sample in its split. Empty: they are of a stream, or mixed.
    """

    inputs: dict[str, Tensor]
    targets: Tensor | dict[str, Tensor] | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    num_clips: int = 1
    rows: tuple[int, ...] = ()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return self.changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with `change` applied to each of its tensors."""

        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(tensor) for name, tensor in tensors.items()}

        inputs, targets = each(self.inputs), self.targets
        if targets is not None:
            targets = each(targets) if isinstance(targets, dict) else change(targets)
        return replace(self, inputs=inputs, targets=targets, masks=each(self.masks))

    def select(self, samples: Sequence[int]) -> "Batch":
        """Return the batch of these samples of it, by position."""
        clips = [self.num_clips * one + clip for one in samples for clip in range(self.num_clips)]
        targets = self.targets
        if targets is not None:
            several = isinstance(targets, dict)
            targets = {k: x[samples] for k, x in targets.items()} if several else targets[samples]
        return replace(
            self,
            inputs={name: x[clips] for name, x in self.inputs.items()},
            targets=targets,
            masks={name: x[clips] for name, x in self.masks.items()},
            names=tuple(self.names[one] for one in samples),
            rows=tuple(self.rows[one] for one in samples) if self.rows else (),
        )

    def __len__(self) -> int:
        """Return the number of samples."""
        return next(iter(self.inputs.values())).shape[0] // self.num_clips


_UMASK = os.umask(0)
os.umask(_UMASK)  # it can only be read by setting it


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Generator[Path]:
    """Yield a temporary path to write to, and move it to `path` at the end: no reader ever sees half a file.

    On any error the temporary file is removed and `path` keeps its previous content. Missing folders are created. The
    name may hold any bytes. The target of a symbolic link is replaced, not the link; a device or pipe is written to.

    Args:
        path: Path of the finished file.
        sync: Wait until the content is on the disk, so that it also survives a power failure.

    Raises:
        OSError: If the file cannot be written, e.g. on a full disk.
    """
    named = path
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    special = _is_special(path)  # such as /dev/stdout
    folder = Path(tempfile.gettempdir()) if special else path.parent
    # Random, since other threads, processes and machines may write the same file. See `is_temporary`.
    temporary = folder / f".{_shortened(path.name)}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        if special:
            with temporary.open("rb") as file, path.open("wb") as device:
                shutil.copyfileobj(file, device)
            return
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        else:  # some writers make private files
            temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    except OSError as error:
        raise OSError(_write_failure(named, error)) from error
    except Exception as error:
        if is_disk_full(error):  # safetensors and torch report a full disk by errors of their own
            raise OSError(_write_failure(named, error)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading. A pipe, device or socket, whose reading may never end, is refused.

    Raises:
        OSError: If it is missing, no regular file, or cannot be read.
    """
    if _is_special(path):
        raise OSError(
            f"'{path}' is a pipe, device or socket: expected a regular file. Copy its content to a file first."
        )
    return path.open("rb")


def atomic_write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 by `atomic_write`. Names in it that are not UTF-8 are written with their bytes."""
    with atomic_write(path) as new:
        new.write_bytes(encode_text(text))


def _is_special(path: Path) -> bool:
    """Return whether a path is a pipe, device or socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is that of a full disk, also as text of another library."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK_FULL:
            return True
        if any(os.strerror(number).lower() in str(cause).lower() for number in _DISK_FULL[:2]):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _write_failure(path: Path, error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    kept = " The previous file is unchanged." if path.is_file() else ""
    room = "Make room on the disk or choose" if is_disk_full(error) else "Choose"
    return (
        f"Could not write {path}: {reason.rstrip('.')}.{kept} {room} another folder, then start again (a training run "
        "continues with --resume)."
    )


def _shortened(name: str) -> str:
    """Return a file name that is short enough for a prefix and a suffix, within the usual limit of 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:200])


def is_temporary(name: str) -> bool:
    """Return whether a file of this name is a temporary one of `atomic_write`, or of safetensors inside of it."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.part|\.tmp\w{6}", name, flags=re.DOTALL) is not None


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder. No other process may write there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()
