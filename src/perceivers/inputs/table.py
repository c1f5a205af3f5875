"""Rows of numbers and categories as input elements: one for each field."""

import math
from itertools import accumulate
from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.nn.init import truncated_normal_
from perceivers.nn.principal import principal_components
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


@configclass
class TableInputConfig:
    """Every field of a row is an element.

    Attributes:
        num_numbers: Fields that hold numbers. None: taken from the data before the model is built.
        category_sizes: Different values of each field that holds a category. None: taken from the data.
        channels: Width of an element.
        init_scale: Standard deviation of all vectors at the start.
        pieces: Whether a number also has a vector for each of six ranges, in units of its deviation: it is added as
            far as the number lies in the range or beyond, so that what a number means may bend.
    """

    kind: Literal["table"] = "table"
    num_numbers: int | None = None
    category_sizes: tuple[int, ...] | None = None
    channels: int = 64
    init_scale: float = 1.0
    pieces: bool = False


_KNOTS = (-2.0, -1.0, -0.4, 0.0, 0.4, 1.0, 2.0)


class TableInput(nn.Module):
    """Makes an element of each field: a number times a learned vector, or a category's learned vector.

    A learned vector of the field is added, so that the model knows which one it is; numbers have an offset too.

    Reference: the ranges are a piecewise linear encoding (arXiv:2203.05556), here of standardized numbers.

    Raises:
        ValueError: If the fields are not known, or elements would have a single channel.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: TableInputConfig) -> None:
        super().__init__()
        self.config = config
        if config.num_numbers is None or config.category_sizes is None:
            raise ValueError(
                "Expected how many fields there are, got "
                f"num_numbers={config.num_numbers} and category_sizes={config.category_sizes}."
            )
        sizes = config.category_sizes
        self.num_numbers = config.num_numbers
        self.num_elements = config.num_numbers + len(sizes)
        self.axes = (self.num_elements,)
        self.channels = config.channels
        if self.num_elements < 1 or min(sizes, default=1) < 1 or self.channels < 2:
            raise ValueError(
                "Expected at least one field, one name for each category and two channels, got "
                f"num_numbers={config.num_numbers}, category_sizes={sizes} and channels={config.channels}."
            )
        self.weight = _vectors(self.num_numbers, config)
        self.bias = nn.Parameter(torch.zeros(self.num_numbers, self.channels))
        self.pieces = None
        if config.pieces:
            shape = (self.num_numbers, len(_KNOTS) - 1, self.channels)
            self.pieces = nn.Parameter(torch.zeros(shape))
        self.categories = _vectors(sum(sizes), config)
        self.fields = _vectors(self.num_elements, config)
        starts = torch.tensor(
            [0, *accumulate(sizes)][: len(sizes)], dtype=torch.int64, device="cpu"
        )
        self.register_buffer("starts", starts, persistent=False)

    def forward(
        self, x: Float[Tensor, "B F"], mask: Bool[Tensor, "B Fm"] | None = None
    ) -> Elements:
        """Return the elements of rows, numbers first.

        Raises:
            ValueError: If there are other fields than the configuration states.
        """
        if x.shape[1] != self.num_elements:
            raise ValueError(
                f"Expected rows of {self.num_elements} fields (B x {self.num_elements}), got shape {tuple(x.shape)}."
            )
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(
                ~mask, 0.0
            )  # what is missing may be anything, and must still be an index
        numbers = x[:, : self.num_numbers, None] * self.weight + self.bias
        if self.pieces is not None:
            inside = _inside(x[:, : self.num_numbers]).to(numbers.dtype)
            numbers = numbers + torch.einsum("bfk,fkc->bfc", inside, self.pieces)
        places = x[:, self.num_numbers :].round().to(torch.int64)
        places = places + self.get_buffer("starts").to(x.device)
        content = torch.cat([numbers, self.categories[places]], dim=1) + self.fields
        return Elements(content, mask=mask)

    def linear_features(
        self, x: Float[Tensor, "B F"], mask: Bool[Tensor, "B Fm"] | None
    ) -> Float[Tensor, "B R"]:
        """Return the weight of each vector in the mean content of a row: numbers, ranges, categories, fields."""
        real = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand(x.shape)
        x = x.masked_fill(~real, 0.0)
        given = real.to(x.dtype)
        parts = [x[:, : self.num_numbers]]
        if self.pieces is not None:
            inside = _inside(x[:, : self.num_numbers]) * given[:, : self.num_numbers, None]
            parts.append(inside.flatten(1))
        places = x[:, self.num_numbers :].round().to(torch.int64) + self.get_buffer("starts")
        categories = x.new_zeros(x.shape[0], len(self.categories))
        parts += [categories.scatter_(1, places, given[:, self.num_numbers :]), given]
        return torch.cat(parts, dim=1) / given.sum(dim=1, keepdim=True).clamp(min=1)

    @torch.no_grad()
    def write_vectors(
        self, weights: Float[Tensor, "R K"]
    ) -> tuple[Float[Tensor, "K C"], Float[Tensor, " K"]]:
        """Write the weights of a linear model of `linear_features` into the first channels of all vectors.

        Outputs beyond half of the channels are approximated by their principal components.

        Returns:
            The projection of the mean content that gives the outputs of the linear model, and zero, the constant to
            subtract.
        """
        coordinates, axes = principal_components(weights, max(self.channels // 2, 1))
        count = axes.shape[1]
        gain = (coordinates.square().mean().sqrt() / self.config.init_scale).clamp(min=1e-6)
        pieces = [] if self.pieces is None else [self.pieces]
        vectors = [self.weight, *pieces, self.categories, self.fields]
        rows = [math.prod(one.shape[:-1]) for one in vectors]
        for one, part in zip(vectors, (coordinates / gain).split(rows), strict=True):
            one[..., :count] = part.reshape(*one.shape[:-1], count)
        self.bias[:, :count] = 0.0
        projection = weights.new_zeros(weights.shape[1], self.channels)
        projection[:, :count] = axes * gain
        return projection, weights.new_zeros(weights.shape[1])

    def example(self, batch_size: int) -> Float[Tensor, "B F"]:
        """Return rows of the configured size, all zeros: mean numbers and first categories."""
        return torch.zeros(batch_size, self.num_elements)


def _inside(numbers: Float[Tensor, "B N"]) -> Float[Tensor, "B N P"]:
    """Return the position of each number in each range, from 0 below to 1 beyond it."""
    knots = torch.tensor(_KNOTS, dtype=numbers.dtype, device=numbers.device)
    return ((numbers[..., None] - knots[:-1]) / (knots[1:] - knots[:-1])).clamp(0, 1)


def _vectors(count: int, config: TableInputConfig) -> nn.Parameter:
    vectors = nn.Parameter(torch.empty(count, config.channels))
    truncated_normal_(vectors, config.init_scale)
    return vectors


def _default(stem_channels: int) -> TableInputConfig:
    return TableInputConfig(num_numbers=None, category_sizes=None, channels=stem_channels)


register_input(TableInputConfig, TableInput, preprocess="table", default=_default)
