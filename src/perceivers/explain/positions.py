"""Similarity of learned positions: whether neighbors of a grid have similar vectors, and maps of a few places."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from perceivers.inputs.positions import LearnedPositions
from perceivers.models.hip_encoder import HiPEncoder
from perceivers.models.perceiver import Perceiver
from perceivers.typing import Float, Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PLACES = 512  # of which neighbors are ranked; evenly spaced
_MAPS = 4  # along each axis of an image at most


@dataclass(frozen=True, kw_only=True)
class PositionTable:
    """Learned positions of the elements of a modality.

    Attributes:
        vectors: One vector for each element, in reading order of the input, also where the model permutes elements.
        axes: Elements along each axis.
    """

    vectors: Float[Tensor, "M P"]
    axes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class NeighborRank:
    """Rank of the neighbors of places among all other places, ordered by cosine similarity of their vectors.

    Attributes:
        mean: Mean rank: 1 is the most similar place.
        best: Mean rank if neighbors were the most similar places: 2.5 for four neighbors.
        random: Mean rank of random vectors, half the number of places.
    """

    mean: float
    best: float
    random: float


@torch.no_grad()
def position_tables(model: Perceiver) -> dict[str, PositionTable]:
    """Return the learned positions of a model by modality: those of a Hierarchical Perceiver, or of input adapters.

    Modalities of a single element, and those with Fourier features or none, are left out.
    """
    found = dict[str, PositionTable]()
    for name, adapter in model.inputs.items():
        own = getattr(adapter, "positions", None)
        if not isinstance(own, LearnedPositions):
            own = getattr(own, "table", None)  # of rows, whose positions may be learned
        if isinstance(own, LearnedPositions):
            vectors = own(own.grid, own.table.device)
            found[name] = PositionTable(vectors=vectors.float().cpu(), axes=own.grid)
    encoder = model.encoder
    if isinstance(encoder, HiPEncoder):
        for name, vectors in encoder.trunk.element_positions().items():
            axes, table = encoder.grids[name].axes, vectors.float().cpu()
            if model.permutation is not None:
                table = table[model.element_order(name, math.prod(axes)).argsort().cpu()]
            found[name] = PositionTable(vectors=table, axes=axes)
    return {name: one for name, one in found.items() if math.prod(one.axes) > 1}


def similarity(table: PositionTable, places: Tensor | None = None) -> Float[Tensor, "n M"]:
    """Return the cosine similarity of the vectors of some places with all vectors. None: of all places."""
    vectors = normalize(table.vectors, dim=1)
    return (vectors if places is None else vectors[places]) @ vectors.T


def neighbor_rank(table: PositionTable) -> NeighborRank:
    """Return the mean rank of the neighbors of places by similarity: the next places along each axis.

    Of more than 512 places, as many are compared with all others.
    """
    count = math.prod(table.axes)
    step = max(1, count / _MOST_PLACES)
    places = torch.arange(min(count, _MOST_PLACES)).mul(step).long()
    values = similarity(table, places)
    rows = torch.arange(places.shape[0])
    values[rows, places] = -torch.inf  # not its own neighbor
    ranks = list[Tensor]()
    numbers = torch.zeros_like(places)
    strides = [math.prod(table.axes[axis + 1 :]) for axis in range(len(table.axes))]
    for stride, length in zip(strides, table.axes, strict=True):
        cell = places // stride % length
        for move in (-1, 1):
            there = (cell + move >= 0) & (cell + move < length)
            mine = values[rows[there], places[there] + move * stride][:, None]
            others = values[there]
            equal = (others == mine).sum(dim=1) - 1
            ranks.append((others > mine).sum(dim=1) + 0.5 * equal + 1)
            numbers += there
    best = (numbers * (numbers + 1)).sum().double() / (2 * numbers.sum())
    return NeighborRank(
        mean=torch.cat(ranks).double().mean().item(), best=best.item(), random=count / 2
    )


def rank_sentence(name: str, rank: NeighborRank) -> str:
    """Return a sentence on the neighbors of the positions of a modality."""
    return (
        f"{name}: neighbors have rank {rank.mean:,.1f} on average among all places by similarity of their learned "
        f"positions; {rank.best:,.1f} is the best possible, {rank.random:,.1f} that of a random order."
    )


def shown_places(axes: tuple[int, ...]) -> Tensor:
    """Return a few places, evenly spread over the axes, in reading order."""
    counts = [min(_MAPS, n) for n in axes] if len(axes) <= 2 else [1] * (len(axes) - 2)
    if len(axes) > 2:
        counts += [min(_MAPS, n) for n in axes[-2:]]
    lines = [((torch.arange(c) + 0.5) * n / c).long() for c, n in zip(counts, axes, strict=True)]
    places = torch.zeros((), dtype=torch.long)
    for line, length in zip(lines, axes, strict=True):
        places = places[..., None] * length + line
    return places.flatten()


def similarity_figure(name: str, table: PositionTable) -> "Figure":
    """Return a figure of the similarity of a few places with all others.

    A grid of two axes has a map for each place, at the place's location in the input; of more axes, maps are those of
    the middle of the others. One axis has a curve for each place.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = shown_places(table.axes)
    values = similarity(table, places)
    if len(table.axes) == 1:
        figure = Figure(figsize=(8, 3), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Any = figure.subplots()
        for place, line in zip(places.tolist(), values, strict=True):
            axes.plot(line.numpy(), linewidth=1, label=f"place {place}")
        axes.set(xlabel=f"place of {name}", ylabel="cosine similarity")
        axes.legend(frameon=False)
        return figure
    rows, columns = (min(_MAPS, n) for n in table.axes[-2:])
    height = min(max(table.axes[-2] / table.axes[-1], 0.25), 4.0)
    figure = Figure(figsize=(1.6 * columns + 1, 1.6 * rows * height + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subplots(rows, columns, squeeze=False)
    middle = tuple(n // 2 for n in table.axes[:-2])
    for part, place, line in zip(parts.flat, places.tolist(), values, strict=True):
        grid = line.reshape(table.axes)[middle].numpy()
        low = min(float(grid.min()), 0.0)
        image = part.imshow(grid, vmin=low, vmax=1, cmap="viridis")
        row, column = place // table.axes[-1] % table.axes[-2], place % table.axes[-1]
        part.plot(column, row, "+", color="red", markersize=5)
        part.set_axis_off()
        figure.colorbar(image, ax=part, fraction=0.046)
    return figure
