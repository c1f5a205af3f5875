"""Heads: the mean of the latents (2021), or one layer behind each output query (Perceiver IO)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import linear

from perceivers.nn.init import truncated_linear
from perceivers.registry import configclass
from perceivers.tasks.base import OutputPart
from perceivers.typing import Float, Tensor


@configclass
class MeanPoolConfig:
    """Averages the latents and projects the mean.

    Attributes:
        num_outputs: Classes, or numbers to predict. None: taken from the data before the model is built.
    """

    kind: Literal["mean_pool"] = "mean_pool"
    num_outputs: int | None = 1000

    def fit_to(self, parts: Mapping[str, OutputPart]) -> "MeanPoolConfig":
        """Return the same head with the size that a task needs, of `task.output_parts()`.

        Raises:
            ValueError: If the task needs other outputs than `label`, one row of numbers for each sample.
        """
        if not parts:
            return self
        if set(parts) != {"label"}:
            raise ValueError(
                f"Expected a decoder with the outputs {', '.join(sorted(parts))}; got {self.kind}."
            )
        return replace(self, num_outputs=parts["label"].num_outputs or None)

    def fit_to_inputs(self, inputs: Mapping[str, Any]) -> "MeanPoolConfig":
        """Return the same head, which is independent of the inputs."""
        return self

    def rename_modalities(self, names: Mapping[str, str]) -> "MeanPoolConfig":
        """Return the same head, which is independent of the inputs."""
        return self


@configclass
class LinearHeadConfig:
    """One linear layer behind each query, or two with a tanh between them.

    Attributes:
        num_outputs: Classes, or numbers to predict for each query. None: taken from the data before the model is built.
        init: Initial weights: `truncated` as any projection, or `zeros`, as for optical flow.
        scale: Factor of its outputs; 0.01 for optical flow.
        hidden_channels: Width of a first layer, followed by tanh, as behind GLUE's queries. None: only one layer.
    """

    kind: Literal["linear"] = "linear"
    num_outputs: int | None = 1000
    init: Literal["truncated", "zeros"] = "truncated"
    scale: float = 1.0
    hidden_channels: int | None = None


@configclass
class TiedHeadConfig:
    """Dot products with the byte embeddings of a text input.

    Attributes:
        modality: Name of the text input.
    """

    kind: Literal["tied"] = "tied"
    modality: str = "text"


HeadConfig = Annotated[LinearHeadConfig | TiedHeadConfig, Field(discriminator="kind")]


@runtime_checkable
class HasEmbedding(Protocol):
    """An input adapter with an embedding of each token, which a head can be tied to."""

    embedding: nn.Embedding


class MeanPool(nn.Module):
    """Averages over the latents, then projects.

    The initial weights are zero, as in the papers' release: the first prediction is the same for all classes.

    Args:
        config: Number of outputs.
        latent_channels: Width of the latents (D).

    Raises:
        ValueError: If the number of outputs is not known yet.

    Reference: Perceiver (arXiv:2103.03206), appendices C and F.
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
        config: Number of outputs and initial weights.
        channels: Width of the decoded queries, E.

    Raises:
        ValueError: If the number of outputs is not known yet.

    Reference: Perceiver IO (arXiv:2107.14795), appendix E; the release's `final_layer`. Two layers: its section
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

    def forward(self, x: Float[Tensor, "B O E"], table: None = None) -> Float[Tensor, "B O K"]:
        """Return the outputs of each query."""
        if self.to_hidden is not None:
            x = self.to_hidden(x).tanh()
        outputs = self.to_logits(x)
        return outputs if self.scale == 1.0 else outputs * self.scale


class TiedHead(nn.Module):
    """Compares decoded queries with the embedding of every byte, shared with the input. Only the bias is separate.

    Args:
        num_outputs: Number of bytes and special tokens.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.1; the release's `EmbeddingDecoder`.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    def forward(
        self, x: Float[Tensor, "B O E"], table: Float[Tensor, "K E"]
    ) -> Float[Tensor, "B O K"]:
        """Return a logit for every byte, from the embedding of each."""
        return linear(x, table, self.bias)


def build_head(
    config: LinearHeadConfig | TiedHeadConfig, *, channels: int, tables: dict[str, tuple[int, int]]
) -> LinearHead | TiedHead:
    """Return the module for a configuration.

    Args:
        config: Configuration of the head.
        channels: Width of the decoded queries.
        tables: Number and width of the byte embeddings of each text.

    Raises:
        ValueError: If the embeddings that the head is tied to do not exist or have another width.
    """
    if isinstance(config, LinearHeadConfig):
        return LinearHead(config, channels=channels)
    if tables.get(config.modality, (0, 0))[1] != channels:
        known = ", ".join(f"'{name}' of {width}" for name, (_, width) in tables.items()) or "none"
        raise ValueError(
            f"Expected the byte embeddings of the text '{config.modality}' to be as wide as the decoded queries, "
            f"{channels} channels; the model has embeddings of {known}."
        )
    return TiedHead(tables[config.modality][0])


def _known(num_outputs: int | None) -> int:
    if num_outputs is None:
        raise ValueError("Expected the number of classes, num_outputs=K, got None.")
    return num_outputs
