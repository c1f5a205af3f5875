"""What a split and a batch are, and how reading data is configured."""

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
from pydantic import ConfigDict

from perceivers.typing import Tensor


def require(module: str, extra: str | None) -> Any:
    """Return an imported module that is not part of the core.

    Args:
        module: What to import.
        extra: The extra of this package that brings it. None: no extra does.

    Raises:
        ImportError: If it is not installed. The message says how to install it.
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
    """Return a sentence, with a blank before it, that suggests the known name nearest to `name`, or ""."""
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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which columns and rows of the data are used, and how they are read.

    Attributes:
        label: Column of the target. By default `label`, or the folder's name in a folder of classes. Several with
            commas between them, `digit,color`, are as many tasks, learned together; `digit,age:number` says what one
            of them holds.
        target: What the target is: one `class`, several `labels`, or a `number` (or several); or `nothing`, where the
            inputs are all that is learned from, whatever labels there are. `auto` looks at it.
        columns: Input columns by name, `{"left_image": "image"}`. By default those that hold media, text, series or
            arrays. `film` is a video with its sound; `number` and `category` columns make one table.
        split_column: Column whose value says to which split a row belongs.
        test: Value of `split_column` that marks the test split.
        group: Column whose values never stand on both sides of a split (a subject, a recording).
        validation_fraction: Share of train that is held out when no validation split is given.
        split_seed: Seed of that hold-out. The same for every run, so that runs can be compared.
        max_bad: Largest share of rows that may fail to decode before the run stops.
        workers: Processes that decode. By default, a share of the cores.
        stream: Read rows in the order of the shards instead of by index (data larger than the disk).
        shuffle_buffer: Rows among which a stream is shuffled.
        normalization: Where the mean and deviation of each channel come from: the training `data`, or
            `imagenet`'s well-known ones.
        crop_fraction: Side of the central crop in evaluation, as a share of the shorter side.
        largest_image: Longest side in pixels where the picture's size is taken from the data.
        clips: Overlapping clips of a longer recording whose scores are averaged, in `evaluate` and `predict`.
        cache: A folder in which decoded samples are kept between epochs and runs. By default they are kept in
            memory, as far as it goes.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

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
    normalization: Literal["data", "imagenet"] = "data"
    crop_fraction: float = 1.0
    largest_image: int = 224
    clips: int = 1
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePreprocessConfig:
    """What turns a picture into the model's array when nothing is random. Saved with the model.

    Attributes:
        size: Height and width in pixels.
        num_channels: 3 for RGB, 1 for gray.
        mean: Subtracted from each channel, of pixels in [0, 1].
        std: Each channel is divided by it after that.
        crop_fraction: Side of the central crop as a share of the shorter side; 224 of 256 on ImageNet.
        keep_aspect: Crop to the aspect of `size` first. Otherwise the whole picture is stretched.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["image"] = "image"
    size: tuple[int, int] = (224, 224)
    num_channels: int = 3
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_fraction: float = 0.875
    keep_aspect: bool = True


@dataclass(frozen=True, kw_only=True)
class ImageAugmentConfig:
    """What is random about a picture in training.

    Attributes:
        crop_scale: Smallest and largest area of the Inception crop, as a share of the picture. None: no crop.
        crop_ratio: Narrowest and widest aspect (width / height) of the crop.
        flip: Mirror half of the pictures left to right.
        randaugment: Number of layers and magnitude (0 to 10) of RandAugment. None: off.
        mixup: Alpha of mixup's beta distribution. 0: off.
        cutmix: Whether CutMix is used. With mixup too, each gets half of every batch.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["image"] = "image"
    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    randaugment: tuple[int, int] | None = None
    mixup: float = 0.0
    cutmix: bool = False


@runtime_checkable
class MapStyleSplit(Protocol):
    """One split, not decoded. Rows are told apart by their index."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def row(self, index: int) -> Mapping[str, Any]:
        """Return the raw cells of one row. Media are `EncodedItem` (bytes or a path, and a name for messages)."""
        ...

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, without reading the media."""
        ...


@runtime_checkable
class Row(Protocol):
    """A sample that is not decoded: the cells of the columns that the model reads, and what to call it."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def row(self) -> Mapping[str, Any]:
        """The raw cells by column."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples put together.

    Attributes:
        inputs: A tensor for each modality; its first axis is the batch.
        targets: Class indices, B; or B x K: shares of each class, labels, numbers. Of several tasks, these by task,
            with -1 and NaN where a sample lacks one. None where nothing is known.
        masks: For the modalities that were padded or are missing in some samples: B x L, True where the second axis
            of the input is real. L is 1 where a sample is there as a whole or missing as a whole.
        names: For each sample, where it came from (a file's name, a row), for messages and tables.
        num_clips: Clips of each sample. `inputs` and `masks` then hold B times as many, those of a sample side by side.
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
        """Return the batch with something done to each of its tensors."""

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
