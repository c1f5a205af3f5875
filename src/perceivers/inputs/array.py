"""Arrays of any sense as input elements: each row is one, and its coordinates or its place state where it is."""

import math
from typing import Any, Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.positions import LearnedPositionsConfig, build_positions
from perceivers.inputs.registry import register_input
from perceivers.nn.init import truncated_linear
from perceivers.nn.position import fourier_features, num_channels
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

MOST_BANDS = 64


@configclass
class ArrayInputConfig:
    """Every row of an array is an element.

    Attributes:
        length: Elements of a sample at most, M. None: taken from the data before the model is built.
        num_channels: Values of an element. None: taken from the data.
        num_coordinates: Coordinates of an element, d, which stand behind its values; they are encoded by Fourier
            features. 0: each place of the row has a learned vector instead. None: taken from the data.
        num_bands: Frequencies for each coordinate. None: one for each whole frequency up to the highest, at most 64.
        max_resolution: Cells of a coordinate at its finest; the highest frequency is half of it. None: the side of
            a grid of `length` cells with d axes.
        position_channels: Width of the learned vectors.
        project_channels: Width of the values after a linear layer. None: as they are.

    Raises:
        ValueError: If a number is out of range.
    """

    kind: Literal["array"] = "array"
    length: int | None = None
    num_channels: int | None = None
    num_coordinates: int | None = 0
    num_bands: int | None = None
    max_resolution: float | None = None
    position_channels: int = 64
    project_channels: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.length, self.num_channels, self.num_bands, self.project_channels)
        if min(1 if size is None else size for size in (*sizes, self.position_channels)) < 1:
            raise ValueError(f"Expected length, channels and num_bands of at least 1, got {self}.")
        if (self.num_coordinates or 0) < 0:
            raise ValueError(f"Expected num_coordinates of at least 0, got {self.num_coordinates}.")
        if self.max_resolution is not None and self.max_resolution < 2:
            raise ValueError(
                "Expected max_resolution of at least 2 cells, which is a highest frequency of 1, got "
                f"{self.max_resolution}."
            )

    @property
    def value_grid(self) -> dict[str, Any] | None:
        """Size and channels of the grid of values that autoencoding reconstructs. None: elements have coordinates."""
        return (
            None
            if self.num_coordinates
            else {"size": (self.length,), "num_channels": self.num_channels}
        )


class ArrayInput(nn.Module):
    """Makes an element of each row: `[values | Fourier features]` with coordinates, else `[values | learned vector]`.

    Raises:
        ValueError: If sizes are not known yet.

    Reference: Perceiver (arXiv:2103.03206), section 3.2 and appendix D, for both encodings.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: ArrayInputConfig) -> None:
        super().__init__()
        sizes = (config.length, config.num_channels, config.num_coordinates)
        length, values, coordinates = sizes
        if length is None or values is None or coordinates is None:
            raise ValueError(
                f"Expected length, num_channels and num_coordinates of the arrays, got {sizes}."
            )
        self.config = config
        self.num_elements, self.axes = length, (length,)
        self.num_values, self.num_coordinates = values, coordinates
        width = config.project_channels
        self.project = None if width is None else truncated_linear(values, width)
        self.channels = values if width is None else width
        self.positions = None
        if not coordinates:
            learned = LearnedPositionsConfig(channels=config.position_channels)
            self.positions = build_positions(learned, (length,))
            self.channels += self.positions.channels
            return
        side = config.max_resolution
        self.max_resolution = max(2.0, length ** (1 / coordinates)) if side is None else side
        whole = min(MOST_BANDS, math.floor(self.max_resolution / 2))
        self.num_bands = whole if config.num_bands is None else config.num_bands
        self.channels += num_channels(coordinates, self.num_bands)

    def forward(
        self, x: Float[Tensor, "B M Ci"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of arrays, in the order of their rows.

        Raises:
            ValueError: If a row has another number of channels than the configuration states, or there are more rows
                than learned vectors.
        """
        width = self.num_values + self.num_coordinates
        if x.shape[2] != width:
            raise ValueError(
                f"Expected elements of {width} numbers ({self.num_values} values and {self.num_coordinates} "
                f"coordinates), got shape {tuple(x.shape)}."
            )
        if mask is not None:  # what stands in padding must reach nothing, nan included
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(~mask[..., None], 0.0)
        content = x[..., : self.num_values]
        if self.project is not None:
            content = self.project(content)
        return Elements(content, self._encoded(x), mask=mask)

    def example(self, batch_size: int) -> Float[Tensor, "B M Ci"]:
        """Return made-up arrays of the configured sizes."""
        width = self.num_values + self.num_coordinates
        return torch.zeros(batch_size, self.num_elements, width)

    def _encoded(self, x: Float[Tensor, "B M Ci"]) -> Float[Tensor, "M P"] | Float[Tensor, "B M P"]:
        """Return the position of each element."""
        if self.positions is None:
            return fourier_features(
                x[..., self.num_values :],
                num_bands=self.num_bands,
                max_resolution=(self.max_resolution,) * self.num_coordinates,
            )
        if x.shape[1] > self.num_elements:
            raise ValueError(
                f"Expected at most {self.num_elements} elements, one for each learned position, got {x.shape[1]}. "
                "Give elements coordinates to read any number of them."
            )
        table = self.positions((self.num_elements,), x.device)
        return table[: x.shape[1]]


def _default(stem_channels: int) -> ArrayInputConfig:
    return ArrayInputConfig(
        length=None, num_channels=None, num_coordinates=None, project_channels=stem_channels
    )


register_input(ArrayInputConfig, ArrayInput, preprocess="array", default=_default)
