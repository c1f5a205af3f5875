"""Interface of modalities: a raw cell becomes an array, arrays become a batch with its mask."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.typing import Bool, Tensor


class MissingValueError(ValueError):
    """There is nothing of this modality: an empty cell, a video without an audio track.

    A sample of several modalities is then read without this one. Where it is the only one, the row is bad.
    """


class TooLongError(ValueError):
    """A sample that is too large to be decoded as a whole. A clip of it can be decoded."""


@dataclass(frozen=True, slots=True)
class DecodedValue:
    """Content of a cell, decoded but neither cut to size nor augmented.

    Attributes:
        value: A frozen dataclass of arrays, numbers, strings and None, or a single array, so that it can be kept.
        notes: A few fixed phrases on what had to be decided ("mixed to mono"), so that they can be counted.
    """

    value: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparable:
    """Description of a decoded value by which samples are compared.

    Attributes:
        features: A vector of one length for all samples; similar samples have a small angle.
        is_standardized: Whether each feature is divided by its standard deviation over the data first.
        thumbnail: Gray pixels of an image, 32 x 32, for nearly equal images.
        text: Normal form of a text, the same for texts that differ in case, blanks and punctuation only.
    """

    features: npt.NDArray[np.float32]
    is_standardized: bool = True
    thumbnail: npt.NDArray[np.uint8] | None = None
    text: str | None = None


_Value = TypeVar("_Value")

CellSampler = Callable[[int | None], Iterable[EncodedItem]]
"""Yields so many cells of the training split, evenly spaced, in an order that mixes the classes. None: all."""

SAMPLED_CELLS = 192
"""Cells from which a modality is measured, unless it needs another number."""


@runtime_checkable
class Chunking(Protocol):
    """Lengths and chunks of the samples of a modality, for tasks that learn from all parts of long samples."""

    unit: str
    """Plural of the unit of lengths: "bytes"."""

    def size(self, item: EncodedItem) -> int:
        """Return the length of a sample.

        Raises:
            ValueError: If it cannot be read.
        """
        ...

    def cut(self, item: EncodedItem, first: int, end: int) -> EncodedItem:
        """Return the chunk from `first` to before `end`, named after its place unless it is the whole sample."""
        ...


class BasePreprocessConfig:
    """Base of the `PreprocessConfig` dataclasses: how open fields (None, empty) are filled in."""

    def measure(self, cells: CellSampler) -> Any:  # noqa: ARG002
        """Return the configuration with its open fields taken from cells of the training data.

        Raises:
            ValueError: If no cell can be read. The message states the reason of the first.
        """
        return self

    def from_columns(self, kinds: Mapping[str, str]) -> Self:  # noqa: ARG002
        """Return the configuration with open fields taken from the kinds that are declared for the columns.

        Args:
            kinds: Kind by column, of a modality with several columns.
        """
        return self

    def channel_names(self) -> tuple[str, ...]:
        """Return the names of the channels, to be stated after they were measured."""
        return ()

    def constants(self, media: EncodedItem) -> dict[str, Any]:  # noqa: ARG002
        """Return fields and channels that have one value in a sample, to find those that equal the label."""
        return {}

    def assumed(self) -> dict[str, Any]:
        """Return values of fields that are assumed where no data are at hand and the field is open."""
        return {}

    def notes(self) -> tuple[str, ...]:
        """Return sentences on decisions about the training data, which `fit` prints."""
        return ()

    def input_fields(self) -> dict[str, Any]:
        """Return the fields of the input adapter's configuration that this one determines."""
        return {}

    def chunking(self) -> Chunking | None:
        """Return lengths and chunks of samples. None: they are not split."""
        return None

    def form_fields(self) -> dict[str, tuple[str, ...] | None]:
        """Return the fields that a person types in, by name: None for a number, else the categories to choose from.

        {}: the modality is given as a file or a text.
        """
        return {}

    def value_units(self) -> dict[str, Any]:
        """Return `mean`, `std`, `low` and `high` by which autoencoding brings values to the units of the data.

        {}: they keep the units of the model's input.
        """
        return {}

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return reconstructed values as a file of the modality holds them.

        Args:
            values: In the units of `value_units`, channels last.
        """
        return values

    loading_tip: ClassVar[str] = ""
    """Sentence on faster loading, printed where training waits for data."""

    has_mirrored: ClassVar[bool] = False
    """Whether `mirrored` returns another view of a sample."""

    def mirrored(self, x: Tensor) -> Tensor:
        """Return the mirrored view of a batch of the model's tensors, over which predictions may be averaged."""
        return x

    def from_input(self, config: Any) -> Self:  # noqa: ARG002
        """Return the configuration with open fields taken from the input adapter's, where that fixes them."""
        return self


@runtime_checkable
class Modality(Protocol):
    """Conversion of the cells of one modality to the model's tensors, built from a saved configuration.

    The three steps run in the workers: `decode` what a file holds, `transform` one sample of the model's size from
    it (a clip, a crop, an augmentation), `collate` samples into a batch.
    """

    has_clips: bool
    """Whether a sample is a clip of something longer, so that `clip_position` matters."""

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:
        """Return the content of a cell.

        Args:
            media: The cell.
            clip_position: Decode only the clip there, where that is cheaper. None: decode everything, so that it can be
                cached and cut anywhere.

        Raises:
            MissingValueError: If there is nothing of this modality.
            ValueError: If it cannot be decoded. The message names the file and the reason.
        """
        ...

    def transform(
        self, value: Any, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Any:
        """Return one sample of the model's size, as an array (or what `collate` of this class understands).

        Args:
            value: Of `decode`.
            clip_position: Position of the clip: 0 the first possible, 1 the last. Modalities of one file use the
                same window.
            rng: Random numbers of the augmentation. None: no augmentation.
        """
        ...

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, Bool[Tensor, "B L"] | None]:
        """Return samples as one tensor whose first axis is the batch, and which of its second axis is real.

        A sample that is None is missing: zeros, and nothing of it is real. The mask is None if all is real.
        """
        ...


@runtime_checkable
class HasExtent(Protocol):
    """A modality that is cut at the same place as another one, and so must be as large."""

    def extent(self, value: Any) -> tuple[int, int]:
        """Return height and width of a decoded value in pixels."""
        ...


def read_cells(
    cells: Iterable[EncodedItem], read: Callable[[EncodedItem], _Value], noun: str
) -> Iterator[_Value]:
    """Yield the result of `read` for the cells that can be read.

    Args:
        cells: A sample of the training split.
        read: Decodes a cell or its header.
        noun: Content of the cells, for messages: "image".

    Raises:
        ValueError: If none can be read. The message states the reason of the first.
    """
    failure: Exception | None = None
    found = False
    for cell in cells:
        try:
            value = read(cell)
        except ImportError:
            raise
        except Exception as error:  # named and counted when the row is trained on
            failure = failure or ValueError(error_reason(cell.name, error))
            continue
        found = True
        yield value
    if not found:
        raise ValueError(f"No {noun} of a sample can be read. {failure or 'It holds no rows.'}")


def error_text(error: Exception) -> str:
    """Return the message of an error while one sample is read, on one line; with its type if it was not foreseen."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(text.split())
    if isinstance(error, MemoryError):
        return "decoding it needs more memory than this process may use."
    if isinstance(error, ValueError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}."


def error_reason(name: str, error: Exception) -> str:
    """Return the reason why one sample cannot be read, from any error of a decoder. It has the name of the sample."""
    text = error_text(error)
    if name in text or (Path(name).name and Path(name).name in text):
        return text
    return f"'{name}' cannot be read: {text.rstrip('.')}."


def clip_positions(num_clips: int) -> tuple[float, ...]:
    """Return evenly spread positions of clips, from 0 to 1; a single one lies in the middle."""
    if num_clips < 1:
        raise ValueError(f"Expected at least one clip, got num_clips={num_clips}.")
    if num_clips == 1:
        return (0.5,)
    return tuple(clip / (num_clips - 1) for clip in range(num_clips))


def stack_padded(
    arrays: Sequence[npt.NDArray[Any] | None],
    *,
    like: tuple[int, ...],
    dtype: Any,
    multiple: int = 1,
) -> tuple[Tensor, Bool[Tensor, "B L"] | None]:
    """Return arrays of different lengths as one tensor, zeros behind the shorter ones; and which places are real.

    Args:
        arrays: Each L_i x the rest of `like`. None is missing.
        like: Shape of one sample. Its first axis is the length where all are missing; the others are those of all.
        dtype: NumPy data type of the tensor.
        multiple: The common length is rounded up to it, so that few different lengths occur, but to the length of
            `like` where that is shorter.

    Raises:
        ValueError: If an array has another shape than `like` behind its first axis.
    """
    lengths = [0 if array is None else array.shape[0] for array in arrays]
    longest = max(lengths) or max(like[0], 1)
    rounded = -(-longest // multiple) * multiple
    if multiple > 1 and rounded > like[0]:
        rounded = -(-longest // like[0]) * like[0]
    longest = rounded
    stacked = np.zeros((len(arrays), longest, *like[1:]), dtype=dtype)
    for place, array in enumerate(arrays):
        if array is None:
            continue
        if array.shape[1:] != like[1:]:
            raise ValueError(f"Expected samples of shape L x {like[1:]}, got {array.shape}.")
        stacked[place, : array.shape[0]] = array
    values = torch.from_numpy(stacked)
    if all(length == longest for length in lengths):
        return values, None
    return values, torch.arange(longest) < torch.tensor(lengths)[:, None]
