"""Architecture of a Hierarchical Perceiver, and the published sizes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from perceivers.models.flops import InputSize, attend_flops
from perceivers.models.hip_groups import plan_groups
from perceivers.registry import configclass

MOST_LAYERS = 10_000  # of a configuration; building a model takes time for each


@configclass
class HiPBlockConfig:
    """One block: latents of each group cross-attend to the group's input and are refined by self-attention.

    Attributes:
        num_groups: Groups, G. None attends to another.
        num_latents: Latents of each group, N.
        channels: Width of the latents, C.
        num_self_attends: Layers of self-attention.
        num_self_attend_heads: Heads of each layer.
        num_cross_attend_heads: Heads of the cross-attention, whose queries, keys and values are as wide as its input.
        cross_attend_widening_factor: Width of the MLP after the cross-attention, as a multiple of C.
        self_attend_widening_factor: Width of the MLP in a layer, as a multiple of C.
        num_train_latents: Latents in training: a random choice for each sample and group. None: all.
    """

    num_groups: int
    num_latents: int
    channels: int
    num_self_attends: int = 1
    num_self_attend_heads: int = 1
    num_cross_attend_heads: int = 1
    cross_attend_widening_factor: int = 1
    self_attend_widening_factor: int = 4
    num_train_latents: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.num_groups, self.num_latents, self.channels, self.num_self_attend_heads)
        if min(*sizes, self.num_cross_attend_heads, self.num_self_attends + 1) < 1:
            raise ValueError(f"Expected sizes of at least 1, got {self}.")
        if self.channels % self.num_self_attend_heads:
            raise ValueError(
                f"Expected num_self_attend_heads that divides channels={self.channels}, got "
                f"{self.num_self_attend_heads}."
            )
        if not 1 <= self.train_latents <= self.num_latents:
            raise ValueError(
                f"Expected num_train_latents from 1 to num_latents={self.num_latents}, got {self.num_train_latents}."
            )

    @property
    def train_latents(self) -> int:
        """Latents of each group in training."""
        return self.num_latents if self.num_train_latents is None else self.num_train_latents


@configclass
class HiPConfig:
    """Architecture of a Hierarchical Perceiver: blocks of fewer and fewer groups, a middle one of one group, and back.

    A single block is the Perceiver IO to which the paper compares: one group of the elements of all modalities, with
    learned positions that are added.

    Attributes:
        blocks: The blocks, an odd number. The middle one has one group; two blocks at equal distance from it have as
            many groups and latents as each other, since the later one adds the output of the earlier one to its
            queries.
        embed_channels: Width of the embedded elements and of their positions, E.
        regroup: Regrouping of latents before a block: `reshape` merges neighboring groups, or cuts them in order;
            `transpose_reshape` makes each new group of latents of all old groups.
        project_positions: Pass the positions of each modality through a linear layer without bias.
        attend_padding: Elements that fill up groups are attended to, as zeros, as in the release. Otherwise they are
            masked.
        dropout: Dropout of the output of each self-attention and its MLP.
        drop_path: Probability that a sample skips a self-attention, or its MLP, in training. What is kept is not
            scaled.
        latents: Latents that heads and decoders of a `Perceiver` get: those of the `middle` block, whose later blocks
            are then left out; or of the `last` block, group by group.

    Raises:
        ValueError: If groups, latents or heads do not divide, or the blocks are not symmetric.

    Reference: Hierarchical Perceiver (arXiv:2202.10890).
    """

    has_fusion_embeddings: ClassVar[bool] = False
    """Whether a `Fusion` gives elements of several modalities one width and a learned vector."""

    kind: Literal["hip"] = "hip"
    blocks: tuple[HiPBlockConfig, ...]
    embed_channels: int = 32
    regroup: Literal["reshape", "transpose_reshape"] = "reshape"
    project_positions: bool = False
    attend_padding: bool = True
    dropout: float = 0.0
    drop_path: float = 0.0
    latents: Literal["middle", "last"] = "middle"

    def __post_init__(self) -> None:
        blocks = self.blocks
        if len(blocks) % 2 == 0:
            raise ValueError(
                f"Expected an odd number of blocks, around a middle one; got {len(blocks)}."
            )
        layers = sum(block.num_self_attends + 1 for block in blocks)
        if layers > MOST_LAYERS:
            raise ValueError(f"Expected at most {MOST_LAYERS:,} layers, got {layers:,}.")
        if blocks[self.middle].num_groups != 1:
            raise ValueError(
                f"Expected one group in the middle block, number {self.middle} from 0; got "
                f"{blocks[self.middle].num_groups}."
            )
        for number, block in enumerate(blocks):
            mirror = blocks[-1 - number]
            if (block.num_groups, block.num_latents) != (mirror.num_groups, mirror.num_latents):
                raise ValueError(
                    f"Expected as many groups and latents in block {len(blocks) - 1 - number} as in block {number}, "
                    f"whose output it gets: {block.num_groups} and {block.num_latents}; got {mirror.num_groups} and "
                    f"{mirror.num_latents}."
                )
            if block.num_train_latents is not None and number != self.middle:
                raise ValueError("num_train_latents is of the middle block only.")
            self._check_input(number)
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} from 0 to below 1, got {getattr(self, name)}.")

    def _check_input(self, number: int) -> None:
        """Check that the output of the block before fits a block."""
        block = self.blocks[number]
        width = self.embed_channels if number == 0 else self.blocks[number - 1].channels
        if width < 1 or width % block.num_cross_attend_heads:
            raise ValueError(
                f"Expected num_cross_attend_heads of block {number} that divides the {width} channels of its input, "
                f"got {block.num_cross_attend_heads}."
            )
        if number == 0:
            return
        before = self.blocks[number - 1]
        for latents in {before.num_latents, before.train_latents}:
            if before.num_groups * latents % block.num_groups:
                raise ValueError(
                    f"Expected num_groups of block {number} that divides the {before.num_groups} x {latents} latents "
                    f"of the block before, got {block.num_groups}."
                )

    @property
    def middle(self) -> int:
        """Number of the middle block, from 0."""
        return len(self.blocks) // 2

    @property
    def used_blocks(self) -> tuple[HiPBlockConfig, ...]:
        """Blocks of an encoder: all, or those up to the middle one."""
        return self.blocks if self.latents == "last" else self.blocks[: self.middle + 1]

    @property
    def latent_channels(self) -> int:
        """Width of the latents of an encoder."""
        return self.used_blocks[-1].channels

    @property
    def num_latents(self) -> int:
        """Number of latents of an encoder, over all groups."""
        last = self.used_blocks[-1]
        return last.num_groups * last.num_latents

    def latent_values(self, num_elements: int) -> int:  # noqa: ARG002
        """Return the number of values of the latents of a sample of so many elements."""
        return self.num_latents * self.latent_channels

    def group_rows(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the elements of a group of each modality, from the numbers of their elements."""
        plan = plan_groups(
            {name: counts[name] for name in sorted(counts)}, self.blocks[0].num_groups
        )
        return {name: part.rows for name, part in plan.parts.items()}

    def for_labels(self) -> "HiPConfig":
        """Return the encoder of labels: without the blocks after the middle one."""
        return replace(self, latents="middle")

    def paper_flops(self, size: InputSize) -> int:
        """Return the operations of the embedding and the blocks for one sample."""
        width = self.embed_channels
        total = sum(2 * count * channels * width for count, channels in size.modalities.values())
        counts = {name: count for name, (count, _) in size.modalities.items()}
        rows = plan_groups(counts, self.blocks[0].num_groups).rows
        for number, block in enumerate(self.used_blocks):
            n, d = block.num_latents, block.channels
            if number:
                before = self.blocks[number - 1]
                rows = before.num_groups * before.num_latents // block.num_groups
                width = before.channels
            wide = {"c": width, "qk": width, "v": width}
            read = attend_flops(
                n, rows, d, **wide, widening_factor=block.cross_attend_widening_factor
            )
            layer = attend_flops(n, n, d, d, d, d, block.self_attend_widening_factor)
            total += block.num_groups * (read + block.num_self_attends * layer)
            skip = self.blocks[-1 - number].channels
            if number > self.middle and skip != d:
                total += 2 * block.num_groups * n * skip * d
        return total

    @property
    def reading_heads(self) -> tuple[int, ...]:
        """Heads of each attention to the input. Explanations have one map, through all blocks and over all heads."""
        return (1,)


_SIZES: Mapping[str, Mapping[str, Any]] = {
    "hip_mini": {
        "embed_channels": 32,
        "num_groups": (16, 1, 16),
        "num_self_attends": (2, 1, 1),
        "num_latents": (128, 64, 128),
        "channels": (128, 1024, 128),
        "num_self_attend_heads": (4, 32, 4),
    },
    "hip_16": {
        "embed_channels": 32,
        "num_groups": (16, 4, 1, 1, 1, 4, 16),
        "num_self_attends": (2, 2, 18, 2, 1, 1, 1),
        "num_latents": (128, 256, 256, 64, 256, 256, 128),
        "channels": (128, 256, 512, 1024, 512, 256, 128),
        "num_self_attend_heads": (4, 8, 16, 32, 16, 8, 4),
    },
    "hip_16x3": {
        "embed_channels": 32,
        "num_groups": (16, 1, 16),
        "num_self_attends": (2, 18, 2),
        "num_latents": (128, 256, 128),
        "channels": (128, 1024, 128),
        "num_self_attend_heads": (4, 32, 4),
    },
    "hip_256": {
        "embed_channels": 16,
        "num_groups": (256, 64, 16, 4, 1, 1, 1, 4, 16, 64, 256),
        "num_self_attends": (1, 1, 2, 2, 18, 2, 1, 1, 1, 1, 1),
        "num_latents": (32, 64, 128, 256, 256, 64, 256, 256, 128, 64, 32),
        "channels": (64, 96, 128, 256, 512, 1024, 256, 128, 64, 32, 16),
        "num_self_attend_heads": (1, 2, 4, 8, 16, 32, 16, 8, 4, 2, 1),
    },
    "hip_io_mini": {
        "embed_channels": 128,
        "num_groups": (1,),
        "num_self_attends": (2,),
        "num_latents": (128,),
        "channels": (128,),
        "num_self_attend_heads": (2,),
        "self_attend_widening_factor": (2,),
    },
    "hip_io_c_50m": {
        "embed_channels": 512,
        "num_groups": (1,),
        "num_self_attends": (8,),
        "num_latents": (1024,),
        "channels": (512,),
        "num_cross_attend_heads": (8,),
        "num_self_attend_heads": (8,),
        "cross_attend_widening_factor": (4,),
    },
    "hip_io_c_150m": {
        "embed_channels": 896,
        "num_groups": (1,),
        "num_self_attends": (12,),
        "num_latents": (1024,),
        "channels": (896,),
        "num_cross_attend_heads": (16,),
        "num_self_attend_heads": (16,),
        "cross_attend_widening_factor": (4,),
    },
}
HIP_SIZES = tuple(_SIZES)
"""Names of the architectures of DeepMind's release."""


def hip_config(name: str, **changes: Any) -> HiPConfig:
    """Return an architecture of DeepMind's release.

    Args:
        name: `hip_16` and `hip_256` of the paper, `hip_mini`, `hip_16x3`, or the Perceiver IO models `hip_io_mini`,
            `hip_io_c_50m` and `hip_io_c_150m`, which have learned positions and a single block.
        changes: Other fields of `HiPConfig`.

    Raises:
        ValueError: If there is no such architecture.

    Reference: Hierarchical Perceiver (arXiv:2202.10890), table of architectures; DeepMind's release.
    """
    if name not in _SIZES:
        raise ValueError(f"Expected an architecture out of {', '.join(_SIZES)}; got '{name}'.")
    sizes = dict(_SIZES[name])
    embed_channels = sizes.pop("embed_channels")
    blocks = hip_blocks(**sizes)
    return replace(HiPConfig(blocks=blocks, embed_channels=embed_channels), **changes)


def hip_blocks(**sizes: tuple[int | None, ...]) -> tuple[HiPBlockConfig, ...]:
    """Return blocks from the values of each field, one for each block: `num_groups=(16, 1, 16)`."""
    rows = zip(*sizes.values(), strict=True)
    return tuple(HiPBlockConfig(**dict(zip(sizes, row, strict=True))) for row in rows)
