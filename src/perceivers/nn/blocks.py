"""The two building blocks of every Perceiver: cross-attend and self-attend.

Both are pre-norm, both end with an MLP, and neither is followed by another norm.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from perceivers.nn.attention import Attention, KeyValueSource
from perceivers.nn.init import lecun_linear
from perceivers.nn.recompute import recompute
from perceivers.typing import Bool, Float, Tensor

LAYER_NORM_EPS = 1e-5  # dm-haiku's default, which the release uses

Gelu = Literal["tanh", "exact"]
"""The GELU in its tanh form, as in DeepMind's release, or exact, as in Hugging Face's models."""

Activation = Gelu | Literal["squared_relu"]
"""Activation of an MLP: a GELU, or the squared ReLU of Perceiver AR and the Hierarchical Perceiver."""


@runtime_checkable
class NormalizableSource(Protocol):
    """Elements that are normalized and attended to without being put together into one array."""

    def normalized(self, norm: nn.LayerNorm) -> KeyValueSource:
        """Return the elements after a LayerNorm."""
        ...


class SquaredReLU(nn.Module):
    """Square of the positive part (arXiv:2109.08668)."""

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        """Return the activation."""
        return torch.relu(x).square()


class MLP(nn.Sequential):
    """Two linear layers around an activation.

    Args:
        channels: Width of input and output.
        widening_factor: Width of the hidden layer, as a multiple of `channels`.
        activation: Form of the GELU, or the squared ReLU.
    """

    def __init__(
        self, channels: int, *, widening_factor: int = 1, activation: Activation = "tanh"
    ) -> None:
        gelu = nn.GELU(approximate="tanh" if activation == "tanh" else "none")
        super().__init__(
            lecun_linear(channels, widening_factor * channels),
            SquaredReLU() if activation == "squared_relu" else gelu,
            lecun_linear(widening_factor * channels, channels),
        )


class _MLPResidual(nn.Module):
    """Base of both blocks: a residual MLP, applied to each element separately."""

    mlp_norm: nn.LayerNorm
    mlp: MLP
    recompute_mlp = False
    """Whether training recomputes the MLP and its norm in the backward pass instead of keeping activations."""

    def mlp_residual(self, x: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        """Return the elements after the MLP, with the residual."""
        if self.recompute_mlp and self.training and torch.is_grad_enabled():
            return x + self.branch(recompute(self._mlp, x))
        return x + self.branch(self._mlp(x))

    def branch(self, x: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        """Return the output of a layer as it is added to the residual. Overridden for dropout."""
        return x

    def _mlp(self, x: Float[Tensor, "B Q C"]) -> Float[Tensor, "B Q C"]:
        return self.mlp(self.mlp_norm(x))


class CrossAttend(_MLPResidual):
    """Cross-attention of a query array to a source array, followed by an MLP.

    Args:
        query_channels: Width of the queries (D for latents).
        source_channels: Width of the source (C for inputs).
        num_heads: Heads of the attention.
        widening_factor: Width of the MLP's hidden layer, as a multiple of `query_channels`.
        qk_channels: Total width of queries and keys. By default, `source_channels`, as in the papers.
        v_channels: Total width of the values. By default, `qk_channels`.
        use_query_residual: Add the query to the attention output. Off where queries hold positions only.
        activation: Activation of the MLP.

    Reference: Perceiver (arXiv:2103.03206), appendix C; Perceiver IO (arXiv:2107.14795), equations 4 to 6.
    """

    def __init__(
        self,
        query_channels: int,
        source_channels: int,
        *,
        num_heads: int = 1,
        widening_factor: int = 1,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        use_query_residual: bool = True,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.use_query_residual = use_query_residual
        self.query_norm = nn.LayerNorm(query_channels, eps=LAYER_NORM_EPS)
        self.source_norm = nn.LayerNorm(source_channels, eps=LAYER_NORM_EPS)
        self.attention = Attention(
            query_channels,
            source_channels,
            num_heads=num_heads,
            qk_channels=source_channels if qk_channels is None else qk_channels,
            v_channels=v_channels,
        )
        self.mlp_norm = nn.LayerNorm(query_channels, eps=LAYER_NORM_EPS)
        self.mlp = MLP(query_channels, widening_factor=widening_factor, activation=activation)

    def forward(
        self,
        query: Float[Tensor, "#B Q Cq"],
        source: "Float[Tensor, 'B S Cs'] | NormalizableSource",
        source_mask: Bool[Tensor, "B S"] | Bool[Tensor, "B Q S"] | None = None,
        query_mask: Bool[Tensor, "B Q"] | None = None,
    ) -> Float[Tensor, "B Q Cq"]:
        """Return the queries after cross-attention to the source.

        Args:
            query: The queries.
            source: The source: an array, or elements with a cheaper implementation of attention.
            source_mask: True where a source element is real, False where it is padding; for all queries, or for each.
                Only for an array.
            query_mask: True where a query is real. The attention output of the others is zero. Only with an array.
        """
        norm = self.source_norm
        normalized = norm(source) if isinstance(source, Tensor) else source.normalized(norm)
        read = self.attention(self.query_norm(query), normalized, source_mask, query_mask)
        x = query + read if self.use_query_residual else read
        return self.mlp_residual(x)


class SelfAttend(_MLPResidual):
    """One layer of the latent transformer: self-attention of the latents, followed by an MLP.

    Args:
        channels: Width of the latents (D).
        num_heads: Heads of the attention.
        widening_factor: Width of the MLP's hidden layer, as a multiple of `channels`. 1 in both papers.
        qk_channels: Total width of queries and keys. By default, `channels`.
        v_channels: Total width of the values. By default, `channels`.
        activation: Activation of the MLP.

    Reference: Perceiver (arXiv:2103.03206), appendix C.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int = 8,
        widening_factor: int = 1,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.attention = Attention(
            channels,
            channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=channels if v_channels is None else v_channels,
        )
        self.mlp_norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.mlp = MLP(channels, widening_factor=widening_factor, activation=activation)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Return the array after one layer. `mask` is True where an element is real."""
        y = self.norm(x)
        x = x + self.branch(self.attention(y, y, mask))
        return self.mlp_residual(x)
