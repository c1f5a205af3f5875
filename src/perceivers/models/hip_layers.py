"""Block of a Hierarchical Perceiver: cross-attention and self-attention within groups."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import dropout

from perceivers.models.hip_config import HiPBlockConfig, HiPConfig
from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.nn.init import lecun_linear, lecun_normal_
from perceivers.typing import Bool, Float, Int, Tensor

RunLayer = Callable[..., Tensor]
"""Calls a layer with its arguments: `run_layer` of an encoder, which may recompute activations."""


def learned_table(rows: int, channels: int) -> nn.Parameter:
    """Return learned vectors, initialized as in the release: their variance is 1 / `rows`."""
    return nn.Parameter(lecun_normal_(torch.empty(rows, channels), rows))


class GroupedSelfAttend(SelfAttend):
    """Self-attention within groups and an MLP, both of which training may skip for a sample.

    Args:
        block: Widths of the block.
        config: Dropout of the architecture.
    """

    def __init__(self, block: HiPBlockConfig, config: HiPConfig) -> None:
        super().__init__(
            block.channels,
            num_heads=block.num_self_attend_heads,
            widening_factor=block.self_attend_widening_factor,
            activation="squared_relu",
        )
        self.num_groups = block.num_groups
        self.dropout, self.drop_path = config.dropout, config.drop_path

    def branch(self, x: Float[Tensor, "BG N C"]) -> Float[Tensor, "BG N C"]:
        """Return the output of a layer after dropout; in training it is zero for a random share of the samples."""
        if not self.training:
            return x
        if self.dropout:
            x = dropout(x, self.dropout)
        if self.drop_path:
            kept = draw_kept(x.shape[0] // self.num_groups, self.drop_path, x.device)
            x = x * kept.to(x.dtype).repeat_interleave(self.num_groups)[:, None, None]
        return x


class HiPBlock(nn.Module):
    """Latents of each group cross-attend to the group's input, then self-attention within groups.

    All groups share the weights; each has its own latents. Groups are part of the batch of every attention call.

    Args:
        block: Shape of the block.
        config: Architecture.
        input_channels: Width of the input, which is that of queries, keys and values of the cross-attention.
        skip_channels: Width of the output that is added to the queries. None: nothing is added.
    """

    def __init__(
        self,
        block: HiPBlockConfig,
        config: HiPConfig,
        *,
        input_channels: int,
        skip_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.config = block
        self.latents = learned_table(block.num_groups * block.num_latents, block.channels)
        self.project_skip: nn.Module | None = None
        if skip_channels not in (None, block.channels):
            self.project_skip = lecun_linear(skip_channels, block.channels)
        self.cross_attend = CrossAttend(
            block.channels,
            input_channels,
            num_heads=block.num_cross_attend_heads,
            widening_factor=block.cross_attend_widening_factor,
            activation="squared_relu",
        )
        self.self_attends = nn.ModuleList(
            GroupedSelfAttend(block, config) for _ in range(block.num_self_attends)
        )

    def forward(
        self,
        x: Float[Tensor, "B G M Ci"],
        *,
        skip: Float[Tensor, "B G N Cs"] | None = None,
        mask: Bool[Tensor, "B G *N M"] | None = None,
        run: RunLayer,
    ) -> Float[Tensor, "B G N C"]:
        """Return the latents of each group.

        Args:
            x: Input of each group.
            skip: Output of an earlier block, which is added to the queries.
            mask: True where the input is real, for all latents of a group or for each.
            run: Calls each layer.
        """
        queries = self._queries(x.shape[0])
        if skip is not None:
            queries = queries + (skip if self.project_skip is None else self.project_skip(skip))
        flat = None if mask is None else mask.flatten(0, 1)
        z = run(self.cross_attend, queries.flatten(0, 1), x.flatten(0, 1), flat)
        for layer in self.self_attends:
            z = run(layer, z)
        return z.unflatten(0, (-1, self.config.num_groups))

    def _queries(self, batch_size: int) -> Float[Tensor, "B G N C"]:
        """Return the learned latents of each group; in training, where there are fewer, a random choice of them."""
        block = self.config
        latents = self.latents.unflatten(0, (block.num_groups, block.num_latents))
        latents = latents.expand(batch_size, -1, -1, -1)
        if not self.training or block.train_latents == block.num_latents:
            return latents
        chosen = draw_latents(batch_size, block, latents.device)
        return latents.gather(2, chosen[..., None].expand(-1, -1, -1, block.channels))


def draw_latents(
    batch_size: int, block: HiPBlockConfig, device: torch.device
) -> Int[Tensor, "B G n"]:
    """Return the indices of a random choice of latents for each sample and group, in random order."""
    draws = torch.rand(batch_size, block.num_groups, block.num_latents, device=device)
    return draws.argsort(dim=-1)[..., : block.train_latents]


def draw_kept(batch_size: int, share: float, device: torch.device) -> Float[Tensor, " B"]:
    """Return 0 for a random share of the samples, whose layer is dropped, and 1 for the others."""
    return (torch.rand(batch_size, device=device) >= share).float()


def grouped_head(channels: int, source_channels: int) -> CrossAttend:
    """Return a head whose queries cross-attend to the latents of their group, without a residual of the query."""
    return CrossAttend(
        channels, source_channels, use_query_residual=False, activation="squared_relu"
    )


def decode_groups(
    head: nn.Module,
    queries: Float[Tensor, "#B G M E"],
    latents: Float[Tensor, "B G N C"],
    run: RunLayer,
) -> Float[Tensor, "B G M E"]:
    """Return the output of a head for the queries of each group."""
    queries = queries.expand(latents.shape[0], -1, -1, -1)
    found = run(head, queries.flatten(0, 1), latents.flatten(0, 1))
    return found.unflatten(0, (-1, latents.shape[1]))
