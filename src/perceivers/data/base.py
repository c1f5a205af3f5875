"""Splits, batches, the configuration of data, and helpers that all packages share."""

import difflib
import importlib
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from perceivers.registry import configclass
from perceivers.typing import Tensor


def require(module: str, extra: str | None) -> Any:
    """Import an optional module.

    Args:
        module: Name of the module.
        extra: Extra of this package that installs it. None: no extra does.

    Raises:
        ImportError: If it is not installed. The message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        package = f'"perceivers[{extra}]"' if extra else name
        raise ImportError(
            f"{name} is needed for this. Install it: pip install {package}"
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean '...'?" with the known name nearest to `name`, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


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
            `film` is a video with its audio track; `number` and `category` columns form one table.
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
    split_column: str | None = None
    test: str | None = None
    group: str | None = None
    validation_fraction: float = 0.1
    split_seed: int = 0
    max_bad: float = 0.01
    workers: int | None = None
    stream: bool = False
    shuffle_buffer: int = 2048
    clips: int = 1
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
    """

    inputs: dict[str, Tensor]
    targets: Tensor | dict[str, Tensor] | None = None
    masks: dict[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    num_clips: int = 1

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

    def __len__(self) -> int:
        """Return the number of samples."""
        return next(iter(self.inputs.values())).shape[0] // self.num_clips


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Generator[Path]:
    """Yield a temporary path to write to, and move it to `path` at the end: no reader ever sees half a file.

    On any error the temporary file is removed and `path` keeps its previous content. Missing folders are created.

    Args:
        path: Path of the finished file.
        sync: Wait until the content is on the disk, so that it also survives a power failure.

    Raises:
        OSError: If the file cannot be written, e.g. on a full disk.
    """
    # Random, since other threads, processes and machines may write the same file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        kept = " The previous file is unchanged." if path.is_file() else ""
        raise OSError(
            f"Could not write {path}: {reason}.{kept} Make room on the disk or choose another folder, then start "
            "again (a training run continues with --resume)."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
