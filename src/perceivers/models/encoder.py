"""Encoder of both papers: a latent array cross-attends to the input T times, with self-attention in between."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import nn

from perceivers.cross_attention.choice import AttnImplementation
from perceivers.cross_attention.source import ElementSource
from perceivers.inputs.elements import Elements
from perceivers.models.flops import InputSize, attend_flops
from perceivers.nn.attention import Attention
from perceivers.nn.blocks import CrossAttend, Gelu, SelfAttend
from perceivers.nn.init import truncated_normal_
from perceivers.nn.recompute import recompute
from perceivers.registry import configclass
from perceivers.typing import Float, Tensor

MOST_LAYERS = 10_000  # of a configuration; building a model takes time for each


@configclass
class PerceiverEncoderConfig:
    """Shape of the encoder. The defaults are the 2021 paper's ImageNet model.

    Attributes:
        num_latents: Length of the latent array, N.
        latent_channels: Width of the latent array, D.
        num_cross_attends: Cross-attentions to the input, T. 1 in Perceiver IO.
        cross_attends_at: `interleaved` spreads the cross-attentions evenly over the blocks; `start` puts all of them
            before the first block.
        num_blocks: Blocks of the latent transformer.
        num_self_attends_per_block: Layers in a block. 0: no self-attention.
        num_cross_attend_heads: Heads of each cross-attention.
        num_self_attend_heads: Heads of each layer.
        cross_attend_widening_factor: Width of the MLP after a cross-attention, as a multiple of D.
        self_attend_widening_factor: Width of the MLP in a layer, as a multiple of D.
        cross_attend_qk_channels: Width of queries and keys of a cross-attention. By default that of the input, C.
        cross_attend_v_channels: Width of the values of a cross-attention. By default `cross_attend_qk_channels`.
        self_attend_qk_channels: Width of queries and keys of a layer. By default D.
        self_attend_v_channels: Width of the values of a layer. By default D.
        use_query_residual: Add the attention output to the latents. Otherwise it replaces them.
        share_cross_attends: Cross-attentions with the same weights. The paper's rule is `all_but_first`:
            sharing the first, too, made training unstable.
        share_blocks: All blocks have the same weights, the first included (as the paper's 44.9 M weights imply).
        gelu: Form of the GELU in every MLP: `tanh` as in DeepMind's release, or `exact` as in Hugging Face's models.
        latent_init_scale: Standard deviation of the initial latent array.
        attn_implementation: Implementation of cross-attention to the input; all give the same numbers up to rounding.
            `auto` chooses the one with the fewest operations; `structured`, `absorbed` and `projected` force one.
        unroll_time: Each cross-attention gets a part of the time axis: number t of T the t-th of T equal parts (one
            frame, or a group of frames). It applies to every segment along its first axis, which is time in videos,
            spectrograms, audio, series and texts; a segment with fewer cells than T (a table) is used completely each
            time. Parts are counted on the padded batch, so it must be padded to one length.
    """

    has_fusion_embeddings: ClassVar[bool] = True
    """Whether a `Fusion` gives elements of several modalities one width and a learned vector."""

    kind: Literal["perceiver"] = "perceiver"
    num_latents: int = 512
    latent_channels: int = 1024
    num_cross_attends: int = 8
    cross_attends_at: Literal["interleaved", "start"] = "interleaved"
    num_blocks: int = 8
    num_self_attends_per_block: int = 6
    num_cross_attend_heads: int = 1
    num_self_attend_heads: int = 8
    cross_attend_widening_factor: int = 1
    self_attend_widening_factor: int = 1
    cross_attend_qk_channels: int | None = None
    cross_attend_v_channels: int | None = None
    self_attend_qk_channels: int | None = None
    self_attend_v_channels: int | None = None
    use_query_residual: bool = True
    share_cross_attends: Literal["all_but_first", "all", "none"] = "all_but_first"
    share_blocks: bool = True
    gelu: Gelu = "tanh"
    latent_init_scale: float = 0.02
    attn_implementation: AttnImplementation = "auto"
    unroll_time: bool = False

    def __post_init__(self) -> None:
        for name in ("num_latents", "latent_channels", "num_cross_attends", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        depth = self.num_blocks * max(self.num_self_attends_per_block, 1)
        if max(self.num_cross_attends, depth) > MOST_LAYERS:
            raise ValueError(
                f"Expected at most {MOST_LAYERS:,} layers of each kind, got num_cross_attends="
                f"{self.num_cross_attends:,} and {depth:,} self-attention layers."
            )
        if self.num_self_attends_per_block < 0:
            raise ValueError(
                "num_self_attends_per_block must not be negative, got "
                f"{self.num_self_attends_per_block}."
            )
        if self.cross_attends_at == "interleaved" and self.num_cross_attends > self.num_blocks:
            raise ValueError(
                f"num_cross_attends={self.num_cross_attends} must lie between 1 and num_blocks="
                f"{self.num_blocks} to be interleaved with them; cross_attends_at='start' takes any."
            )

    def reads_before(self, block: int) -> tuple[int, ...]:
        """Return the cross-attentions (0 to T - 1) just before this block."""
        if self.cross_attends_at == "start":
            return tuple(range(self.num_cross_attends)) if block == 0 else ()
        reads = range(self.num_cross_attends)
        return tuple(t for t in reads if t * self.num_blocks // self.num_cross_attends == block)

    @property
    def reads_alike(self) -> int:
        """Number of cross-attentions with the same weights, at most."""
        reads = self.num_cross_attends
        return {"all": reads, "all_but_first": max(1, reads - 1), "none": 1}[
            self.share_cross_attends
        ]

    def latent_values(self, num_elements: int) -> int:  # noqa: ARG002
        """Return the number of values of the latents of a sample of so many elements."""
        return self.num_latents * self.latent_channels

    @property
    def reading_heads(self) -> tuple[int, ...]:
        """Heads of each attention to the input."""
        return (self.num_cross_attend_heads,) * self.num_cross_attends

    def paper_flops(self, size: InputSize) -> int:
        """Return the operations of cross-attentions and latent transformer for one sample, as the papers count them.

        Reference: Perceiver (arXiv:2103.03206), appendix B; Perceiver IO (arXiv:2107.14795), appendix D.
        """
        n, d, num_elements = self.num_latents, self.latent_channels, size.num_elements
        if self.unroll_time:  # each cross-attention gets a part of the time
            num_elements = num_elements // self.num_cross_attends
        qk = self.cross_attend_qk_channels or size.channels
        read = attend_flops(
            n,
            num_elements,
            d,
            size.channels,
            qk,
            self.cross_attend_v_channels or qk,
            self.cross_attend_widening_factor,
        )
        layer = attend_flops(
            n,
            n,
            d,
            d,
            self.self_attend_qk_channels or d,
            self.self_attend_v_channels or d,
            self.self_attend_widening_factor,
        )
        layers = self.num_blocks * self.num_self_attends_per_block
        return self.num_cross_attends * read + layers * layer


class ElementEncoder(nn.Module):
    """Base of encoders: elements of all modalities -> latents, B x N x D."""

    grad_checkpointing: bool
    """Recompute activations in the backward pass."""

    out_channels: int
    """Width of the latents, D."""

    attention_name: ClassVar[str] = "self-attention"
    """Implementation of attention to the elements, as `cost` reports it."""

    embeds_elements: ClassVar[bool] = True
    """Whether elements pass a linear layer before any LayerNorm, which turns a single channel into zero."""

    needs_all_modalities: ClassVar[bool] = False
    """Whether missing modalities are given as masked elements."""

    element_channels: int | None = None
    """Width of all elements after a linear layer of each modality. None: a `Fusion` gives them one width."""

    def summary(self, segments: Sequence[Elements]) -> Float[Tensor, "B N D"]:
        """Return the latents whose mean represents a sample: by default all."""
        return self(segments)


class PerceiverEncoder(ElementEncoder):
    """Maps an input array of any length onto a latent array of fixed length.

    Args:
        config: Shape of the encoder.
        input_channels: Width of the elements (C).

    Reference: Perceiver (arXiv:2103.03206), section 3.1; Perceiver IO (arXiv:2107.14795), section 3.1. They
    differ only in `num_cross_attends`.
    """

    embeds_elements = False
    attn_implementation: str

    def __init__(self, config: PerceiverEncoderConfig, *, input_channels: int) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.attn_implementation = config.attn_implementation
        self.out_channels = config.latent_channels
        self.latents = nn.Parameter(torch.empty(config.num_latents, config.latent_channels))
        truncated_normal_(self.latents, config.latent_init_scale)

        num_cross_attends = {
            "all": 1,
            "all_but_first": min(config.num_cross_attends, 2),
            "none": config.num_cross_attends,
        }[config.share_cross_attends]
        self.cross_attends = nn.ModuleList(
            CrossAttend(
                config.latent_channels,
                input_channels,
                num_heads=config.num_cross_attend_heads,
                widening_factor=config.cross_attend_widening_factor,
                qk_channels=config.cross_attend_qk_channels,
                v_channels=config.cross_attend_v_channels,
                use_query_residual=config.use_query_residual,
                activation=config.gelu,
            )
            for _ in range(num_cross_attends)
        )
        num_blocks = 1 if config.share_blocks else config.num_blocks
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                SelfAttend(
                    config.latent_channels,
                    num_heads=config.num_self_attend_heads,
                    widening_factor=config.self_attend_widening_factor,
                    qk_channels=config.self_attend_qk_channels,
                    v_channels=config.self_attend_v_channels,
                    activation=config.gelu,
                )
                for _ in range(config.num_self_attends_per_block)
            )
            for _ in range(num_blocks)
        )

    def forward(self, segments: Sequence[Elements]) -> Float[Tensor, "B N D"]:
        """Return the latents of a batch of elements of width C, whose modalities form one array."""
        sources = self.sources(segments)
        latents = self.latents[None]  # the first queries are the same for every sample
        for depth in range(self.config.num_blocks):
            for read in self.config.reads_before(depth):
                latents = run_layer(self, _at(self.cross_attends, read), latents, sources[read])
            for self_attend in _at(self.blocks, depth):
                latents = run_layer(self, self_attend, latents)
        return latents

    def sources(self, segments: Sequence[Elements]) -> list[ElementSource]:
        """Return the source of each of the T cross-attentions: all elements, or with `unroll_time` a part of them.

        Raises:
            ValueError: If no segment is long enough to be divided among the cross-attentions.
        """
        reads = self.config.num_cross_attends
        if not self.config.unroll_time or reads == 1:
            return [self.source(segments)] * reads
        lengths = [segment.first_axis for segment in segments]
        if max(lengths) < reads:
            raise ValueError(
                f"unroll_time divides the first axis of the input among num_cross_attends={reads} reads, but it has "
                f"only {max(lengths)} cells. Use fewer cross-attentions, longer clips or shorter patches."
            )
        return [
            self.source(
                [
                    segment if length < reads else segment.time_part(read, reads)
                    for segment, length in zip(segments, lengths, strict=True)
                ],
                reads=1,
            )
            for read in range(reads)
        ]

    def source(self, segments: Sequence[Elements], *, reads: int | None = None) -> ElementSource:
        """Return elements as the source of `reads` cross-attentions with the same weights, by default all of these."""
        return ElementSource(
            segments,
            implementation=self.attn_implementation,
            dtype=self.latents.dtype,
            reads=self.config.reads_alike if reads is None else reads,
            keep=not _recomputes(self),
            layers=self._layers() if reads is None and torch.is_grad_enabled() else (),
        )

    def _layers(self) -> list[tuple[nn.LayerNorm, Attention]]:
        """Return norm and attention of each cross-attention."""
        layers = [cast("CrossAttend", layer) for layer in self.cross_attends]
        return [(layer.source_norm, layer.attention) for layer in layers]


def run_layer(owner: nn.Module, layer: nn.Module, *args: Any) -> Tensor:
    """Return `layer(*args)`; with `owner.grad_checkpointing` in training, without keeping its activations.

    The layer then runs again in the backward pass. A layer that is used at several depths is recomputed for each of
    them, so shared weights get the same gradient.
    """
    if _recomputes(owner):
        return recompute(layer, *args)
    return layer(*args)


def _recomputes(owner: nn.Module) -> bool:
    return bool(owner.grad_checkpointing) and owner.training and torch.is_grad_enabled()


def _at(modules: nn.ModuleList, depth: int) -> Any:
    """Return the module for this depth: the last one past the end of the list."""
    return modules[min(depth, len(modules) - 1)]
