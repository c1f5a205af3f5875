"""Heads: the mean of the latents (2021), or one layer behind each output query (Perceiver IO)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol, cast, runtime_checkable

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import dropout, linear

from perceivers.nn.init import truncated_linear
from perceivers.nn.running_statistics import count_batch
from perceivers.registry import configclass
from perceivers.tasks.config import OutputPart
from perceivers.typing import Bool, Float, Tensor

ElementContent = tuple[Tensor, Tensor | None]
"""Content of a modality's elements, B x M x Cc, and B x M: True where an element is real, or None if all are."""


@configclass
class MeanPoolConfig:
    """Averages the latents and projects the mean.

    Attributes:
        num_outputs: Classes, or numbers to predict. None: taken from the data before the model is built.
        element_pools: Besides the latents, the content of each modality's elements is pooled by `mean`, `max` or both
            and projected, a direct path from the stem to the outputs. Empty: only the latents, as in the papers.
        standardize_pools: Standardize pooled elements by a batch norm. Without it, elements of few real parts (a text
            of unknown words) weigh less.
        latent_dropout: Share of the samples whose latents are left out of the outputs in training, so that the pools
            learn by themselves as much as they can. For pools only.
    """

    kind: Literal["mean_pool"] = "mean_pool"
    num_outputs: int | None = 1000
    element_pools: tuple[Literal["mean", "max"], ...] = ()
    standardize_pools: bool = True
    latent_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse shares outside of [0, 1)."""
        if not 0 <= self.latent_dropout < 1:
            raise ValueError(
                f"Expected a latent_dropout from 0 to below 1, got {self.latent_dropout}."
            )

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

    def for_labels(self) -> "MeanPoolConfig":
        """Return the same head with open outputs, for other labels."""
        return replace(self, num_outputs=None)

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


@runtime_checkable
class PoolsElements(Protocol):
    """A head that can pool elements beside the latents: its `forward` takes the content of each modality's elements.

    Attributes:
        element_pools: Pool of each modality's elements, by name. Empty: outputs are of the latents alone.
    """

    element_pools: nn.ModuleDict


class MeanPool(nn.Module):
    """Averages over the latents, then projects; pooled elements are projected beside them.

    The initial weights are zero, as in the papers' release: the first prediction is the same for all classes.

    Args:
        config: Number of outputs, and pools over elements.
        latent_channels: Width of the latents (D).
        content_channels: Width of the content of each modality's elements, without positions. For pools only.

    Raises:
        ValueError: If the number of outputs is not known yet.

    Reference: Perceiver (arXiv:2103.03206), appendices C and F. Pools over elements are not in the papers; a linear
    path beside a deep one is that of "Wide & Deep Learning" (arXiv:1606.07792).
    """

    def __init__(
        self,
        config: MeanPoolConfig,
        *,
        latent_channels: int,
        content_channels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.to_logits = nn.Linear(latent_channels, _known(config.num_outputs))
        nn.init.zeros_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)
        self.element_pools = nn.ModuleDict(
            {
                name: ElementPool(
                    config.element_pools,
                    width,
                    _known(config.num_outputs),
                    standardize=config.standardize_pools,
                )
                for name, width in (content_channels or {}).items()
                if config.element_pools
            }
        )

    def is_linear(self, name: str) -> bool:
        """Return whether the outputs are linear in the mean content of a modality's elements."""
        pools = self.element_pools
        return (
            name in pools and pools[name].kinds == ("mean",) and not self.config.standardize_pools
        )

    @torch.no_grad()
    def write_linear(
        self, name: str, projection: Float[Tensor, "K C"], biases: Float[Tensor, " K"]
    ) -> None:
        """Write the projection of the mean content of a modality's elements, and the biases of the outputs."""
        pool = cast("ElementPool", self.element_pools[name])
        pool.to_logits.weight.copy_(projection)
        self.to_logits.bias.copy_(biases)

    def forward(
        self, latents: Float[Tensor, "B N D"], contents: Mapping[str, ElementContent] | None = None
    ) -> Float[Tensor, "B K"]:
        """Return one row of outputs for each sample.

        Args:
            latents: Output of the encoder.
            contents: Content of the elements of each modality, for pools only.

        Raises:
            ValueError: If elements are to be pooled and none are given.
        """
        outputs = self.to_logits(latents.mean(dim=1))
        if not self.element_pools:
            return outputs
        if self.training and self.config.latent_dropout:
            kept = dropout(torch.ones_like(outputs[:, :1]), self.config.latent_dropout)
            outputs = self.to_logits.bias + (outputs - self.to_logits.bias) * kept
        if not contents:
            raise ValueError(
                "Expected the inputs beside the latents, since the head pools elements of "
                f"{', '.join(self.element_pools)}; got none: model.decode(latents, inputs, masks)."
            )
        for name, (content, real) in contents.items():
            outputs = outputs + self.element_pools[name](content, real)
        return outputs

    def pooled_elements(self, contents: Mapping[str, ElementContent]) -> list[Float[Tensor, "B P"]]:
        """Return the pooled content of each modality's elements, zeros where a sample has none."""
        found: list[Tensor] = []
        for name, (content, real) in contents.items():
            features, some = cast("ElementPool", self.element_pools[name]).features(content, real)
            found.append(features if some is None else features.where(some, 0.0))
        return found


class ElementPool(nn.Module):
    """Pools the content of one modality's elements, standardizes it by a batch norm where wanted, and projects it.

    Padding and masked elements contribute nothing. A sample without any element gets zeros and is left out of the
    statistics. In training, a single sample is standardized by the running statistics.

    Args:
        kinds: `mean`, `max` or both, side by side.
        channels: Width of the content.
        num_outputs: Number of outputs. The initial weights are zero.
        standardize: Use the batch norm.
    """

    def __init__(
        self, kinds: Sequence[str], channels: int, num_outputs: int, *, standardize: bool = True
    ) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.norm = (
            nn.BatchNorm1d(len(kinds) * channels, affine=False) if standardize else nn.Identity()
        )
        self.to_logits = nn.Linear(len(kinds) * channels, num_outputs, bias=False)
        nn.init.zeros_(self.to_logits.weight)

    def forward(
        self, content: Float[Tensor, "B M Cc"], real: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B K"]:
        """Return the part of the outputs that comes from this modality.

        Args:
            content: Content of the elements.
            real: True where an element is real. None: all are.
        """
        features, some = self.features(content, real)
        outputs = self.to_logits(features.to(content.dtype))
        return outputs if some is None else outputs.where(some, 0.0)

    def features(
        self, content: Float[Tensor, "B M Cc"], real: Bool[Tensor, "B M"] | None = None
    ) -> tuple[Float[Tensor, "B P"], Bool[Tensor, "B 1"] | None]:
        """Return the pooled and standardized content, and whether a sample has any element. None: all have."""
        x = content.to(torch.promote_types(content.dtype, torch.float32))
        if real is None:
            some, sums, count, largest = None, x.sum(dim=1), x.shape[1], x
        else:
            real = real.expand(-1, x.shape[1])
            some, hidden = real.any(dim=1, keepdim=True), ~real[..., None]
            sums = x.masked_fill(hidden, 0.0).sum(dim=1)
            count = real.sum(dim=1, keepdim=True).clamp(min=1)
            largest = x.masked_fill(hidden, float("-inf"))
        parts: list[Tensor] = []
        for kind in self.kinds:
            pooled = sums / count if kind == "mean" else largest.amax(dim=1)
            parts.append(pooled if some is None else pooled.where(some, 0.0))
        return self._standardized(torch.cat(parts, dim=-1), some), some

    def _standardized(
        self, pooled: Float[Tensor, "B P"], some: Bool[Tensor, "B 1"] | None
    ) -> Float[Tensor, "B P"]:
        """Return standardized features, with the statistics of samples that have an element, if there is a norm."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm1d):
            return pooled
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean, norm.running_var
        if self.training:
            weights = torch.ones_like(pooled[:, :1]) if some is None else some.to(pooled.dtype)
            count = weights.sum().clamp(min=1)
            has_variance = count > 1
            found = (pooled * weights).sum(dim=0) / count
            spread = ((pooled - found).square() * weights).sum(dim=0) / count
            with torch.no_grad():
                step = count_batch(norm) * has_variance.to(mean.dtype)
                mean.lerp_(found.to(mean.dtype), step)
                variance.lerp_((spread * count / (count - 1).clamp(min=1)).to(mean.dtype), step)
            mean = torch.where(has_variance, found, mean.clone())
            variance = torch.where(has_variance, spread, variance.clone())
        return (pooled - mean) * (variance + norm.eps).rsqrt()


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
