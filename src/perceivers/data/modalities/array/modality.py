"""Arrays as a modality: M elements of C channels, with coordinates or without."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.decode import ArrayValue, array_upload_sizes, read_array
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    read_cells,
    stack_padded,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    register_modality,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted

Numbers = npt.NDArray[np.float32]

MOST_ELEMENTS = 16_384  # of a model, where their number is taken from the data


@configclass
class ArrayPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of an array into the model's when nothing is random. Saved with the model.

    Attributes:
        length: Elements of a sample at most, M. None: taken from the data, see `measure_array`.
        num_channels: Values of an element, C. None: taken from the data.
        num_coordinates: Coordinates of an element, d. 0: its place in the row states where it is. None: taken from
            the data.
        mean: Subtracted from each channel. (): nothing is.
        std: Each channel is divided by it after that. (): by nothing.
        low: Value of each coordinate that becomes -1. (): coordinates stay as they are.
        high: Value of each coordinate that becomes 1.

    Raises:
        ValueError: If a number is out of range, or the tuples do not fit the channels and coordinates.
    """

    kind: Literal["array"] = "array"
    length: int | None = None
    num_channels: int | None = None
    num_coordinates: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        least = {"length": 1, "num_channels": 1, "num_coordinates": 0}
        for name, smallest in least.items():
            number = getattr(self, name)
            if number is not None and number < smallest:
                raise ValueError(f"Expected {name} of at least {smallest}, got {number}.")
        channels, axes = self.num_channels or 0, self.num_coordinates or 0
        if {len(self.mean), len(self.std)} - {0, channels} or min(self.std, default=1) <= 0:
            raise ValueError(
                f"Expected mean and std of {counted(channels, 'number')} each, std above 0, for num_channels="
                f"{self.num_channels}; got mean={self.mean} and std={self.std}."
            )
        if len(self.low) != len(self.high) or len(self.low) not in {0, axes}:
            raise ValueError(
                f"Expected low and high of {counted(axes, 'number')} each for num_coordinates={self.num_coordinates}, "
                f"got low={self.low} and high={self.high}."
            )

    def measure(self, cells: CellSampler) -> "ArrayPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_array`."""
        return measure_array(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"length": 100, "num_channels": 8, "num_coordinates": 0}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {
            "length": self.length,
            "num_channels": self.num_channels,
            "num_coordinates": self.num_coordinates,
        }

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return normalized values in the units of the data."""
        if not self.mean or not self.std:
            return values
        std, mean = (np.asarray(row, dtype=np.float32) for row in (self.std, self.mean))
        return values * std + mean


@configclass
class ArrayAugmentConfig:
    """Augmentation of an array in training.

    Attributes:
        noise: Standard deviation of what is added to each value, as a share of its channel's.
        scale: Smallest and largest factor of all values of a sample, after the mean is subtracted.
        drop: Largest share of the elements that is left out. One always stays.
        mixup: Alpha of mixup's beta distribution. 0: off.

    Raises:
        ValueError: If a range is empty or a number is out of range.
    """

    kind: Literal["array"] = "array"
    noise: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    drop: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if self.noise < 0 or self.mixup < 0 or not 0 <= self.drop < 1 or not 0 < low <= high:
            raise ValueError(
                "Expected noise and mixup of at least 0, drop in [0, 1) and scale=(smallest, largest) above 0, "
                f"got {self}."
            )


class ArrayModality:
    """Reads arrays of elements.

    Raises:
        ValueError: If sizes are not known yet.
    """

    has_clips: bool = False

    def __init__(
        self, preprocess: ArrayPreprocessConfig, augment: ArrayAugmentConfig | None = None
    ) -> None:
        length, channels = preprocess.length, preprocess.num_channels
        if length is None or channels is None or preprocess.num_coordinates is None:
            raise ValueError(
                f"Expected sizes of the arrays, got length={length}, num_channels={channels} and num_coordinates="
                f"{preprocess.num_coordinates}. Measure them first."
            )
        self.preprocess, self.augment = preprocess, augment
        self.length, self.num_channels = length, channels
        self.num_coordinates = preprocess.num_coordinates

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return the elements of a cell as an `ArrayValue` of the configured channels and coordinates."""
        array = read_array(media)
        notes: list[str] = []
        if array.values.shape[1] != self.num_channels:
            raise ValueError(
                f"Expected {counted(self.num_channels or 0, 'channel')} for each element of '{media.name}' "
                f"(M x {self.num_channels}), got {array.values.shape[0]:,} x {array.values.shape[1]}. Give all arrays "
                "the same channels."
            )
        there = 0 if array.coordinates is None else array.coordinates.shape[1]
        if self.num_coordinates == 0 and there:
            array = replace(array, coordinates=None)
            notes.append("coordinates left out")
        elif there != self.num_coordinates:
            raise ValueError(
                f"Expected {self.num_coordinates} coordinates for each element of '{media.name}', got {there}. An .npz "
                "file holds them beside its 'values' as 'coordinates', M x d."
            )
        elif array.made:
            notes.append("coordinates made from the array's axes")
        if array.values.shape[0] > self.length:
            notes.append("elements drawn" if self.num_coordinates else "cut to length")
        return DecodedValue(array, tuple(notes))

    def transform(
        self,
        value: Any,
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> Numbers:
        """Return one sample: at most `length` x (C + d), values before coordinates.

        Surplus elements with coordinates are thinned: evenly by row, or at random with `rng`.
        Those without are cut to the first ones in a row, or to a random window. Elements that are not real are left
        out where coordinates state where the others are; else their row is nan, which `collate` turns into the mask.
        """
        array: ArrayValue = value
        values, places, mask = array.values, array.coordinates, array.mask
        if places is not None and mask is not None:
            values, places, mask = values[mask], places[mask], None
        chosen = self._chosen(values.shape[0], rng)
        values = values[chosen]
        hidden = np.zeros(values.shape[0], dtype=bool) if mask is None else ~mask[chosen]
        if len(self.preprocess.mean):
            values = values - np.asarray(self.preprocess.mean, dtype=np.float32)
        if len(self.preprocess.std):
            values = values / np.asarray(self.preprocess.std, dtype=np.float32)
        augment = self.augment
        if augment is not None and rng is not None:
            values = _augmented(values, augment, rng)
            hidden |= _dropped(hidden, augment.drop, rng)
        if places is None:
            return np.where(hidden[:, None], np.float32(np.nan), values)
        kept = ~hidden
        return np.concatenate([values[kept], self._scaled(places[chosen][kept])], axis=1)

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"] | None]:
        """Return samples as B x M x (C + d), and which elements are real. None is a missing sample."""
        like = (self.length, self.num_channels + self.num_coordinates)
        stacked, mask = stack_padded(samples, like=like, dtype=np.float32)
        hidden = np.isnan(stacked.numpy()[..., 0])
        if not hidden.any():
            return stacked, mask
        stacked.numpy()[hidden] = 0
        real = torch.from_numpy(~hidden)
        return stacked, real if mask is None else real & mask

    def _chosen(self, count: int, rng: np.random.Generator | None) -> Any:
        """Return the indices of the elements that are kept, in order."""
        if count <= self.length:
            return slice(None)
        if not self.num_coordinates:
            start = 0 if rng is None else int(rng.integers(count - self.length + 1))
            return slice(start, start + self.length)
        if rng is None:
            return np.linspace(0, count - 1, self.length).round().astype(np.int64)
        return np.sort(rng.choice(count, self.length, replace=False))

    def _scaled(self, places: Numbers) -> Numbers:
        """Return coordinates scaled so that `low` is -1 and `high` is 1."""
        if not len(self.preprocess.low):
            return places
        low = np.asarray(self.preprocess.low)
        span = np.asarray(self.preprocess.high) - low
        span[span <= 0] = 2.0  # a coordinate that never changes stays at -1
        return (2 * (places - low) / span - 1).astype(np.float32)


def _augmented(values: Numbers, augment: ArrayAugmentConfig, rng: np.random.Generator) -> Numbers:
    """Return standardized values scaled and with noise."""
    if augment.scale != (1.0, 1.0):
        values = (values * rng.uniform(*augment.scale)).astype(np.float32)
    if augment.noise:
        noise = rng.standard_normal(values.shape, dtype=np.float32)
        values = (values + noise * augment.noise).astype(np.float32)
    return values


def _dropped(
    hidden: npt.NDArray[np.bool_], drop: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return the mask of dropped elements; at least one visible element stays."""
    dropped = np.zeros_like(hidden)
    real = rng.permutation(np.flatnonzero(~hidden)) if drop else np.empty(0, dtype=np.int64)
    if real.size:
        left = max(1, round(real.size * (1 - rng.uniform(0, drop))))
        dropped[real[left:]] = True
    return dropped


def measure_array(
    cells: Iterable[EncodedItem], config: ArrayPreprocessConfig
) -> ArrayPreprocessConfig:
    """Return a configuration whose open fields fit a sample of cells.

    `length` becomes that of the longest, at most 16,384; channels and coordinates those of most of them. Mean,
    deviation and the range of the coordinates are measured where they are not set.

    Raises:
        ValueError: If none of the cells can be read. The message states the reason of the first.
    """
    arrays = list(read_cells(cells, read_array, "array"))
    widths = [array.values.shape[1] for array in arrays]
    channels = config.num_channels or max(widths, key=widths.count)
    depths = [0 if array.coordinates is None else array.coordinates.shape[1] for array in arrays]
    axes = config.num_coordinates
    axes = max(depths, key=depths.count) if axes is None else axes
    length = config.length or min(MOST_ELEMENTS, max(a.values.shape[0] for a in arrays))
    config = replace(config, length=length, num_channels=channels, num_coordinates=axes)
    real = [
        a.values if a.mask is None else a.values[a.mask]
        for a in arrays
        if a.values.shape[1] == channels
    ]
    if real and not config.mean and not config.std:
        config = replace(config, **_moments(real))
    places = [
        a.coordinates if a.mask is None else a.coordinates[a.mask]
        for a in arrays
        if a.coordinates is not None and a.coordinates.shape[1] == axes
    ]
    if places and not config.low:
        together = np.concatenate(places)
        low, high = together.min(axis=0).tolist(), together.max(axis=0).tolist()
        config = replace(config, low=tuple(low), high=tuple(high))
    return config


def _moments(real: Sequence[npt.NDArray[np.float32]]) -> dict[str, tuple[float, ...]]:
    values = np.concatenate(real).astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    std[std < 1e-6 * (1e-6 + np.abs(mean))] = 1  # a constant channel has no deviation to divide by
    return {
        "mean": tuple(float(f"{number:.5g}") for number in mean),
        "std": tuple(float(f"{number:.5g}") for number in std),
    }


def _default(_: OwnDataSize) -> tuple[ArrayPreprocessConfig, ArrayAugmentConfig]:
    return ArrayPreprocessConfig(), ArrayAugmentConfig(noise=0.05)


register_modality(
    ModalitySpec(
        name="array",
        noun="arrays",
        preprocessing=(Preprocessing(ArrayPreprocessConfig, ArrayModality, _default),),
        augment=ArrayAugmentConfig,
        suffixes=("npy", "npz"),
        magic=lambda data: (
            data.startswith(b"\x93NUMPY") or (data[:4] == b"PK\x03\x04" and b".npy" in data[:512])
        ),
        column_kinds={"array": ColumnKind("arrays", stored_as=("points",))},
        recipe="arrays",
        mixup="share",
        upload_sizes=array_upload_sizes,
    )
)
