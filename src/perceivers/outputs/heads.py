"""From what was read to predictions: the mean of the latents (2021), or one layer behind each query (Perceiver IO)."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.nn.functional import linear

from perceivers.nn.init import truncated_linear
from perceivers.typing import Float, Tensor

__all__ = [
    "HeadConfig",
    "LinearHead",
    "LinearHeadConfig",
    "MeanPool",
    "MeanPoolConfig",
    "TiedHead",
    "TiedHeadConfig",
    "build_head",
]


@dataclass(frozen=True, kw_only=True)
class MeanPoolConfig:
    """Averages the latents and projects the mean.

    Attributes:
        num_outputs: Classes, or numbers to predict. None: taken from the data before the model is built.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["mean_pool"] = "mean_pool"
    num_outputs: int | None = 1000

    def with_num_outputs(self, num_outputs: int) -> "MeanPoolConfig":
        """Return the same head for so many classes."""
        return replace(self, num_outputs=num_outputs)


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """One linear layer behind each query, or two with a tanh between them.

    Attributes:
        num_outputs: Classes, or numbers to predict for each query. None: taken from the data before the model is built.
        init: How its weights begin: `truncated` as any projection, or at `zeros`, as those of optical flow.
        scale: What its outputs are multiplied by; 0.01 for optical flow.
        hidden_channels: Width of a first layer, whose tanh the second reads, as behind GLUE's queries. None: there is
            only one layer.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["linear"] = "linear"
    num_outputs: int | None = 1000
    init: Literal["truncated", "zeros"] = "truncated"
    scale: float = 1.0
    hidden_channels: int | None = None


@dataclass(frozen=True, kw_only=True)
class TiedHeadConfig:
    """The vectors of the bytes that the input is made of, which the answers are compared with.

    Attributes:
        modality: The text whose vectors they are.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["tied"] = "tied"
    modality: str = "text"


HeadConfig = Annotated[LinearHeadConfig | TiedHeadConfig, Field(discriminator="kind")]


class MeanPool(nn.Module):
    """Averages over the latents first and projects then, in this order.

    The weights begin at zero, as in the papers' release: the first prediction is the same for all classes.

    Args:
        config: Number of outputs.
        latent_channels: Width of the latents (D).

    Raises:
        ValueError: If the number of outputs is not known yet.

    Source: Perceiver (arXiv:2103.03206), appendices C and F.
    """

    def __init__(self, config: MeanPoolConfig, *, latent_channels: int) -> None:
        super().__init__()
        self.config = config
        self.to_logits = nn.Linear(latent_channels, _known(config.num_outputs))
        nn.init.zeros_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)

    def forward(self, latents: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        """Return one row of outputs for each sample."""
        return self.to_logits(latents.mean(dim=1))


class LinearHead(nn.Module):
    """One linear layer for every query, or two.

    Args:
        config: Number of outputs and how the weights begin.
        channels: Width of what was read.

    Raises:
        ValueError: If the number of outputs is not known yet.

    Source: Perceiver IO (arXiv:2107.14795), appendix E; the release's `final_layer`. Two layers: its section
    4.1 and appendix F.
    """

    def __init__(self, config: LinearHeadConfig, *, channels: int) -> None:
        super().__init__()
        self.scale = config.scale
        self.num_outputs = _known(config.num_outputs)
        self.to_hidden = None
        if config.hidden_channels is not None:
            self.to_hidden = truncated_linear(channels, config.hidden_channels)
            channels = config.hidden_channels
        self.to_logits = truncated_linear(channels, self.num_outputs)
        if config.init == "zeros":
            nn.init.zeros_(self.to_logits.weight)

    def forward(
        self,
        x: Float[Tensor, "B O E"],
        table: None = None,  # noqa: ARG002
    ) -> Float[Tensor, "B O K"]:
        """Return the outputs of each query."""
        if self.to_hidden is not None:
            x = self.to_hidden(x).tanh()
        outputs = self.to_logits(x)
        return outputs if self.scale == 1.0 else outputs * self.scale


class TiedHead(nn.Module):
    """Compares what was read with the vector of every byte. The vectors are those of the input; only a bias is its own.

    Args:
        num_outputs: Bytes and special marks.

    Source: Perceiver IO (arXiv:2107.14795), section 4.1; the release's `EmbeddingDecoder`.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(
        self, x: Float[Tensor, "B O E"], table: Float[Tensor, "K E"]
    ) -> Float[Tensor, "B O K"]:
        """Return a logit for every byte.

        Args:
            x: What each query has read.
            table: The vector of each byte.
        """
        return linear(x, table, self.bias)


def build_head(
    config: LinearHeadConfig | TiedHeadConfig, *, channels: int, tables: dict[str, tuple[int, int]]
) -> LinearHead | TiedHead:
    """Return the module for a configuration.

    Args:
        config: Of the head.
        channels: Width of what was read.
        tables: Number and width of the learned vectors of each text.

    Raises:
        ValueError: If the vectors that the head is tied to do not exist or have another width.
    """
    if isinstance(config, LinearHeadConfig):
        return LinearHead(config, channels=channels)
    if tables.get(config.modality, (0, 0))[1] != channels:
        known = ", ".join(f"'{name}' of {width}" for name, (_, width) in tables.items()) or "none"
        msg = (
            f"Expected the vectors of the text '{config.modality}' to be as wide as what is compared with them, "
            f"{channels} channels; the model has vectors of {known}."
        )
        raise ValueError(msg)
    return TiedHead(tables[config.modality][0])


def _known(num_outputs: int | None) -> int:
    if num_outputs is None:
        msg = "Expected the number of classes, num_outputs=K, got None."
        raise ValueError(msg)
    return num_outputs
