"""Point clouds as input elements: each point is one, alone or with features of its nearest neighbors."""

from itertools import pairwise
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import batch_norm, pad

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.nn.init import lecun_linear, truncated_linear
from perceivers.nn.position import fourier_features
from perceivers.nn.running_statistics import count_batch
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor

AXES = 3


@configclass
class PointsInputConfig:
    """Every point is an element.

    Attributes:
        num_points: Points of a sample at most. None: taken from the data before the model is built.
        num_channels: Further channels of a point, behind x, y and z.
        num_bands: Frequencies for each axis. 0: an element is its coordinates and further channels.
        max_resolution: Cells of an axis at its finest; the highest frequency is half of it, 1,120 in the paper.
        mlp_channels: Widths of layers with a ReLU between them that see a point's whole element, each point by
            itself. Their output joins its coordinates and further channels. (): no such layers.
        project_channels: Width of the whole element after a linear layer. None: no such layer.

    Raises:
        ValueError: If a number is out of range.

    Reference: Perceiver (arXiv:2103.03206), section 4.3. The layers are ours: they make a small model learn from few
    point clouds.
    """

    kind: Literal["points"] = "points"
    num_points: int | None = 2048
    num_channels: int = 0
    num_bands: int = 64
    max_resolution: float = 2240.0
    mlp_channels: tuple[int, ...] = ()
    project_channels: int | None = None

    def __post_init__(self) -> None:
        widths = (*self.mlp_channels, self.project_channels or 1, self.num_points or 1)
        if min(widths) < 1 or min(self.num_channels, self.num_bands) < 0:
            raise ValueError(
                f"Expected widths and num_points of at least 1, num_channels and num_bands of at least 0, got {self}."
            )
        if self.max_resolution < 2:
            raise ValueError(
                "Expected max_resolution of at least 2 cells, which is a highest frequency of 1, got "
                f"{self.max_resolution}."
            )


class PointsInput(nn.Module):
    """Makes an element of each point: `[x y z | further channels | sines | cosines]`, 387 channels in the paper.

    The coordinates stand in the content, so the position encoding is that of `nn.position` without them. They
    may leave [-1, 1].

    Raises:
        ValueError: If the number of points is not known yet.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: PointsInputConfig) -> None:
        super().__init__()
        if config.num_points is None:
            raise ValueError("Expected the number of points of a sample, num_points, got None.")
        self.config = config
        self.num_elements, self.axes = config.num_points, (config.num_points,)
        self.in_channels = AXES + config.num_channels
        self.channels = whole = self.in_channels + 2 * AXES * config.num_bands
        self.mlp = None
        if config.mlp_channels:
            self.mlp = _layers(whole, config.mlp_channels)
            self.channels += config.mlp_channels[-1]
        self.project = None
        if config.project_channels is not None:
            self.project = truncated_linear(self.channels, config.project_channels)
            self.channels = config.project_channels

    def forward(
        self, x: Float[Tensor, "B M Ci"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of point clouds, in the order of their points, which means nothing.

        Raises:
            ValueError: If a point has another number of channels than the configuration states.
        """
        x, mask = _real_points(x, mask, self.in_channels)
        encoded = fourier_features(
            x[..., :AXES],
            num_bands=self.config.num_bands,
            max_resolution=(self.config.max_resolution,) * AXES,
        )
        content, positions = x, encoded[..., AXES:]
        if self.mlp is not None:
            seen = self.mlp(torch.cat([content, positions], dim=-1))
            content = torch.cat([content.to(seen.dtype), seen], dim=-1)
        if self.project is None:
            return Elements(content, positions, mask=mask)
        return Elements(self.project(torch.cat([content, positions], dim=-1)), mask=mask)

    def example(self, batch_size: int) -> Float[Tensor, "B M Ci"]:
        """Return made-up point clouds of the configured number of points."""
        return torch.zeros(batch_size, self.num_elements, self.in_channels)


@configclass
class NeighborPointsInputConfig:
    """Every point is an element, with features of its nearest neighbors.

    Attributes:
        num_points: Points of a sample at most. None: taken from the data before the model is built.
        num_channels: Further channels of a point, behind x, y and z.
        num_neighbors: Nearest points, the point itself included, that each layer of the stem compares a point with.
        stem_channels: Channels of a point after each layer of the stem; the last are its content.
        num_bands: Frequencies for each axis of the positions.
        max_resolution: Cells of an axis at its finest; the highest frequency of the positions is half of it.

    Raises:
        ValueError: If a number is out of range.

    Reference: Dynamic Graph CNN (arXiv:1801.07829), with one graph for all layers, that of the coordinates.
    """

    kind: Literal["neighbor_points"] = "neighbor_points"
    num_points: int | None = 1024
    num_channels: int = 0
    num_neighbors: int = 16
    stem_channels: tuple[int, ...] = (64, 128)
    num_bands: int = 4
    max_resolution: float = 8.0

    def __post_init__(self) -> None:
        widths = (*self.stem_channels, self.num_points or 1, self.num_neighbors, self.num_bands)
        if not self.stem_channels or min(widths) < 1 or self.num_channels < 0:
            raise ValueError(
                "Expected num_points, num_neighbors, num_bands and one or more stem_channels of at least 1, "
                f"num_channels of at least 0, got {self}."
            )
        if self.max_resolution < 2:
            raise ValueError(
                "Expected max_resolution of at least 2 cells, which is a highest frequency of 1, got "
                f"{self.max_resolution}."
            )


class NeighborPointsInput(nn.Module):
    """Makes an element of each point: features of its neighborhood, then its coordinates with Fourier features.

    Distances are those of the coordinates, so further channels do not decide which points are neighbors.

    Raises:
        ValueError: If the number of points is not known yet.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: NeighborPointsInputConfig) -> None:
        super().__init__()
        if config.num_points is None:
            raise ValueError("Expected the number of points of a sample, num_points, got None.")
        self.config = config
        self.num_elements, self.axes = config.num_points, (config.num_points,)
        self.in_channels = AXES + config.num_channels
        widths = (self.in_channels, *config.stem_channels)
        self.layers = nn.ModuleList(NeighborLayer(*pair) for pair in pairwise(widths))
        self.channels = widths[-1] + AXES * (1 + 2 * config.num_bands)

    def forward(
        self, x: Float[Tensor, "B M Ci"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Elements:
        """Return the elements of point clouds, in the order of their points, which means nothing.

        Raises:
            ValueError: If a point has another number of channels than the configuration states.
        """
        x, mask = _real_points(x, mask, self.in_channels)
        content = self._features(x, mask)
        positions = fourier_features(
            x[..., :AXES],
            num_bands=self.config.num_bands,
            max_resolution=(self.config.max_resolution,) * AXES,
        )
        return Elements(content, positions, mask=mask)

    def _features(
        self, x: Float[Tensor, "B M Ci"], mask: Bool[Tensor, "B M"] | None
    ) -> Float[Tensor, "B M Co"]:
        """Return the output of the stem. In training, padding is left out, and so of the statistics of the norms."""
        batch, total, _ = x.shape
        neighbors = nearest_neighbors(x[..., :AXES], self.config.num_neighbors, mask)
        first = total * torch.arange(batch, device=x.device)[:, None, None]
        points, rows, real = x.flatten(0, 1), (neighbors + first).flatten(0, 1), None
        if self.training and mask is not None:
            real = mask.flatten().nonzero()[:, 0]
            place = mask.flatten().cumsum(0) - 1
            points, rows = points[real], place[rows[real]]
        for layer in self.layers:
            points = layer(points, rows)
        if real is not None:
            places = points.new_zeros(batch * total, points.shape[1])
            points = places.index_copy(0, real, points)
        return points.reshape(batch, total, points.shape[1])

    def example(self, batch_size: int) -> Float[Tensor, "B M Ci"]:
        """Return made-up point clouds of the configured number of points."""
        return torch.zeros(batch_size, self.num_elements, self.in_channels)


class NeighborLayer(nn.Module):
    """Adds to a linear map of each point the largest difference to its neighbors in every channel of another.

    `relu(norm(max_j A x_j - A x_i) + norm(B x_i))`: both maps see single points, and the products are as many as
    points, not as edges. Differences are small beside the coordinates, so they have a norm of their own.

    Args:
        in_channels: Channels of a point.
        out_channels: Channels of a point after it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.edge = nn.Linear(in_channels, out_channels, bias=False)
        self.point = nn.Linear(in_channels, out_channels, bias=False)
        self.edge_norm, self.point_norm = (nn.BatchNorm1d(out_channels) for _ in range(2))

    def forward(self, x: Float[Tensor, "n Ci"], rows: Int[Tensor, "n k"]) -> Float[Tensor, "n Co"]:
        """Return the points after the layer.

        Args:
            x: The points of all samples.
            rows: The rows of each point's neighbors in `x`.
        """
        mapped = self.edge(x)
        edge = neighbor_max(mapped, rows) - mapped
        return (_normed(self.edge_norm, edge) + _normed(self.point_norm, self.point(x))).relu()


def nearest_neighbors(
    xyz: Float[Tensor, "B M 3"], count: int, mask: Bool[Tensor, "B M"] | None = None
) -> Int[Tensor, "B M k"]:
    """Return the indices of the nearest points of each point, itself included.

    Masked points are neighbors of none. Where fewer than `count` points are real, the point itself fills the rest.
    """
    points = xyz.detach().to(torch.promote_types(xyz.dtype, torch.float32))
    total = points.shape[1]
    own = torch.arange(total, device=xyz.device)[None, :, None]
    if mask is None:
        points = points - points.mean(dim=1, keepdim=True)  # products of large numbers are inexact
        lengths = points.square().sum(dim=-1)
    else:
        real = mask[..., None]
        centers = points.sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp(min=1)
        points = (points - centers).masked_fill(~real, 0.0)
        lengths = points.square().sum(dim=-1).masked_fill(~mask, torch.inf)
    # Infinitely far points at the end, so that there are enough whatever the number of points is.
    keys, lengths = pad(points, (0, 0, 0, count)), pad(lengths, (0, count), value=torch.inf)
    distances = torch.baddbmm(lengths[:, None], points, keys.transpose(1, 2), alpha=-2.0)
    found = distances.topk(count, dim=-1, largest=False, sorted=False)
    return torch.where(found.values < torch.inf, found.indices, own)


def neighbor_max(x: Float[Tensor, "n C"], rows: Int[Tensor, "n k"]) -> Float[Tensor, "n C"]:
    """Return the largest value of each channel among some rows of `x` for each point."""
    if torch.compiler.is_compiling() or x.dtype not in _BITS:
        return x[rows].amax(dim=1)
    with torch.no_grad():
        source = _largest_rows(x, rows)
    return x.gather(0, source)


_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def _largest_rows(flat: Float[Tensor, "n C"], rows: Int[Tensor, "n k"]) -> Int[Tensor, "n C"]:
    """Return for each channel the row of the largest value among some rows.

    Nothing of size n x k x C is stored, and nothing is compared twice: the last bits of each number hold which
    neighbor it is of, so that the maximum of numbers brings its index along. Numbers that agree up to these bits
    count as equal.
    """
    count = rows.shape[1]
    last = (1 << (count - 1).bit_length()) - 1
    cleared = flat.view(_BITS[flat.dtype]) & ~last
    best = cleared.index_select(0, rows[:, 0]).view(flat.dtype)
    taken = torch.empty_like(cleared)
    for neighbor in range(1, count):
        torch.index_select(cleared, 0, rows[:, neighbor], out=taken)
        torch.maximum(best, taken.bitwise_or_(neighbor).view(flat.dtype), out=best)
    return rows.gather(1, (best.view(cleared.dtype) & last).long().clamp(max=count - 1))


def _normed(norm: nn.BatchNorm1d, x: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return normalized points; fewer than two have no deviation and get the statistics of evaluation."""
    mean, var, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias
    if not norm.training or x.shape[0] < 2:
        return batch_norm(x, mean, var, weight, bias, training=False, eps=norm.eps)
    momentum = count_batch(norm)
    return batch_norm(x, mean, var, weight, bias, training=True, momentum=momentum, eps=norm.eps)


def _real_points(
    x: Float[Tensor, "B M Ci"], mask: Bool[Tensor, "B L"] | None, channels: int
) -> tuple[Float[Tensor, "B M Ci"], Bool[Tensor, "B M"] | None]:
    """Return points with zeros in padding, and a mask of single points.

    Raises:
        ValueError: If a point has another number of channels.
    """
    if x.shape[2] != channels:
        raise ValueError(
            f"Expected points of {channels} numbers (x, y, z and {channels - AXES} further channels), got shape "
            f"{tuple(x.shape)}."
        )
    if mask is None:
        return x, None
    mask = mask.expand(-1, x.shape[1])  # what stands in padding must reach nothing, nan included
    return x.masked_fill(~mask[..., None], 0.0), mask


def _layers(in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with a ReLU between each two."""
    layers: list[nn.Module] = []
    for before, after in zip((in_channels, *widths), widths, strict=False):
        layers += [nn.ReLU(), lecun_linear(before, after)]
    return nn.Sequential(*layers[1:])


def _default(stem_channels: int) -> NeighborPointsInputConfig:
    return NeighborPointsInputConfig(
        num_points=None, stem_channels=(stem_channels, 2 * stem_channels)
    )


register_input(
    PointsInputConfig,
    PointsInput,
    preprocess="points",
    raw=lambda: PointsInputConfig(num_points=None, num_bands=0),
)
register_input(
    NeighborPointsInputConfig, NeighborPointsInput, preprocess="points", default=_default
)
