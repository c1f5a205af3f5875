"""Point clouds as input elements: each point is one, with Fourier features of where it is."""

from typing import Literal

import torch
from torch import nn

from perceivers.inputs.elements import Elements
from perceivers.inputs.registry import register_input
from perceivers.nn.init import lecun_linear, truncated_linear
from perceivers.nn.position import fourier_features
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

AXES = 3


@configclass
class PointsInputConfig:
    """Every point is an element.

    Attributes:
        num_points: Points of a sample at most. None: taken from the data before the model is built.
        num_channels: Further channels of a point, behind x, y and z.
        num_bands: Frequencies for each axis.
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
        if min(widths) < 1 or self.num_channels < 0 or self.num_bands < 1:
            raise ValueError(
                f"Expected widths, num_points and num_bands of at least 1, num_channels of at least 0, got {self}."
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
        if x.shape[2] != self.in_channels:
            raise ValueError(
                f"Expected points of {self.in_channels} numbers (x, y, z and {self.config.num_channels} further "
                f"channels), got shape {tuple(x.shape)}."
            )
        if mask is not None:  # what stands in padding must reach nothing, nan included
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(~mask[..., None], 0.0)
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


def _layers(in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Return linear layers with a ReLU between each two."""
    layers: list[nn.Module] = []
    for before, after in zip((in_channels, *widths), widths, strict=False):
        layers += [nn.ReLU(), lecun_linear(before, after)]
    return nn.Sequential(*layers[1:])


def _default(stem_channels: int) -> PointsInputConfig:
    # The paper's highest frequency is for 2,000 points of 40 classes; a few bands suit small data.
    return PointsInputConfig(
        num_points=None,
        num_bands=8,
        max_resolution=32.0,
        mlp_channels=(stem_channels, 2 * stem_channels),
    )


register_input(PointsInputConfig, PointsInput, preprocess="points", default=_default)
