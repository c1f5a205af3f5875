"""The complete model: input adapters, encoder, and head or decoder."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import nn

from perceivers.cross_attention.choice import IMPLEMENTATIONS
from perceivers.inputs.elements import Elements, InputAdapter, dense
from perceivers.inputs.fusion import Fusion, FusionConfig
from perceivers.inputs.registry import InputConfig, build_input
from perceivers.models.autoregressive import AutoregressiveEncoder, NextToken, NextTokenConfig
from perceivers.models.check_inputs import check_inputs, expected_inputs
from perceivers.models.decoder import DecoderConfig, PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.hip_config import HiPConfig
from perceivers.models.hip_encoder import (
    ElementDecoder,
    ElementDecoderConfig,
    ElementGrid,
    HiPEncoder,
)
from perceivers.models.local_attention_init import ReadsTokens, init_local_attention
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.models.transformer import TransformerEncoder, TransformerEncoderConfig
from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.nn.permutation import fixed_permutation
from perceivers.outputs.heads import HasEmbedding, MeanPool, MeanPoolConfig, PoolsElements
from perceivers.outputs.queries import QueryContext
from perceivers.registry import configclass, wrong_field
from perceivers.typing import Float, Int, Tensor, Tensors

LATENTS = "encoder.latents"
"""Name under which a batch holds latents in place of inputs. No modality has a name with a dot."""

EncoderConfig = Annotated[
    PerceiverEncoderConfig | TransformerEncoderConfig | PerceiverARConfig | HiPConfig,
    Field(discriminator="kind"),
]
ReadoutConfig = Annotated[
    MeanPoolConfig | DecoderConfig | NextTokenConfig | ElementDecoderConfig,
    Field(discriminator="kind"),
]
Encoder = PerceiverEncoder | TransformerEncoder | AutoregressiveEncoder | HiPEncoder


@configclass
class PerceiverConfig:
    """Architecture and initialization of a model. Saved beside its weights.

    Attributes:
        inputs: Input adapter of each modality.
        encoder: Encoder of the elements.
        output: Head or decoder from latents to predictions.
        fusion: Fusion of several modalities. Unused for a single one.
        permute: Seed of one fixed permutation of the elements of every input, applied after their positions are added
            (the papers' permuted ImageNet). None: no permutation.
        init: Initial weights: as in the `papers`, or `local_attention`, for models of one text: attention begins
            local (`init_local_attention`), which small models need to learn masked bytes at all.
    """

    inputs: dict[str, InputConfig]
    encoder: EncoderConfig = field(default_factory=PerceiverEncoderConfig)
    output: ReadoutConfig = field(default_factory=MeanPoolConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    permute: int | None = None
    init: Literal["papers", "local_attention"] = "papers"


class Perceiver(nn.Module):
    """A Perceiver made of modules; `build` makes them from a configuration.

    Args:
        inputs: Input adapter of each modality.
        encoder: Elements of all modalities -> latents.
        output: Latents -> predictions.
        fusion: Projects several modalities to one width C. None: they have it.
        permute: Seed of the permutation of elements, see `PerceiverConfig`.
        config: Configuration of these modules. None: the model cannot be saved.

    Reference: Perceiver (arXiv:2103.03206), figure 1; Perceiver IO (arXiv:2107.14795), figure 2.
    """

    input_channels: int
    """Width of the elements that the encoder reads, C."""

    encoder: Encoder

    pools_elements: bool
    """Whether the output is made of pooled elements beside the latents."""

    if TYPE_CHECKING:

        def __call__(
            self, inputs: Tensors, masks: Tensors | None = None, index: Tensors | None = None
        ) -> Tensor | dict[str, Tensor]:
            """Return the predictions for a batch, see `forward`."""
            ...

    def __init__(
        self,
        inputs: Mapping[str, nn.Module],
        encoder: Encoder,
        output: nn.Module,
        *,
        fusion: Fusion | None = None,
        permute: int | None = None,
        config: PerceiverConfig | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self.inputs = nn.ModuleDict(inputs)
        self._modalities = tuple(inputs)
        self._expected = expected_inputs(inputs)
        self.encoder = encoder
        self.output = output
        # Here, since compiled code cannot check a protocol.
        self.pools_elements = isinstance(output, PoolsElements) and len(output.element_pools) > 0
        self.fusion = fusion
        widths = [cast("InputAdapter", adapter).channels for adapter in inputs.values()]
        self.input_channels = encoder.element_channels or (
            fusion.channels if fusion is not None else (widths or [0])[0]
        )
        why = next(
            filter(None, (getattr(one, "unreadable", None) for one in inputs.values())), None
        )
        if why is not None and not encoder.embeds_elements:
            raise ValueError(why)
        self.set_permutation(permute)

    @property
    def members(self) -> tuple["Perceiver", ...]:
        """The models whose outputs are averaged: this one alone, as in an `Ensemble` of one member."""
        return (self,)

    @property
    def config(self) -> PerceiverConfig:
        """Configuration of the model.

        Raises:
            ValueError: If the model was made of modules without one.
        """
        if self._config is None:
            raise ValueError(
                "This model has no configuration, so it can be neither saved nor exported: make it by "
                "pv.build_model(config); pv.register_input and pv.register_task make own parts known to it."
            )
        return self._config

    def forward(
        self, inputs: Tensors, masks: Tensors | None = None, index: Tensors | None = None
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return the predictions for a batch: B x K, or B x O x K of O queries; by name where there are several.

        Args:
            inputs: A tensor for each modality; its first axis is the batch. Modalities that no sample has may be
                left out. Or only `LATENTS`: the output of `encode`, where outputs depend on nothing else.
            masks: B x L for modalities that were padded or that some samples lack: True where the second axis of
                the input is real. L = 1 masks whole samples.
            index: For some outputs, the indices of the queries to decode. Otherwise all are.

        Raises:
            KeyError: If a modality is unknown, or none is given.
            TypeError: If `inputs` or `masks` are no mappings of tensors.
            ValueError: If a tensor has another shape, type or device than the model expects.
        """
        is_mapping = isinstance(inputs, Mapping)  # pyright: ignore[reportUnnecessaryIsInstance]
        if is_mapping and LATENTS in inputs:
            return self.decode(inputs[LATENTS], index=index)
        segments = self._segments(inputs, masks)
        fused = self._fused(segments)
        latents = self.encoder(list(fused.values()))
        return self._decode(latents, segments, fused, index)

    def encode(self, inputs: Tensors, masks: Tensors | None = None) -> Float[Tensor, "B N D"]:
        """Return the latents of a batch. Arguments as for `forward`."""
        return self.encoder(self.elements(inputs, masks))

    @property
    def decodes_latents_alone(self) -> bool:
        """Whether the outputs depend on the latents only: neither on input elements nor on the bytes' embeddings."""
        reads = (*getattr(self.output, "reads", ()), *getattr(self.output, "tied", ()))
        is_permuted = isinstance(self.output, ElementDecoder) and self.permutation is not None
        return not self.pools_elements and not reads and not is_permuted

    def embed(self, inputs: Tensors, masks: Tensors | None = None) -> Float[Tensor, "B E"]:
        """Return one vector for each sample: the mean of the latents, then the pooled elements if the head pools them.

        The latents are those of the middle block of a Hierarchical Perceiver.

        Arguments as for `forward`.
        """
        fused = self._fused(self._segments(inputs, masks))
        parts = [self.encoder.summary(list(fused.values())).mean(dim=1)]
        if isinstance(self.output, MeanPool) and self.pools_elements:
            contents = {name: (part.content, part.real) for name, part in fused.items()}
            parts += self.output.pooled_elements(contents)
        return torch.cat([part.float() for part in parts], dim=1)

    def decode(
        self,
        latents: Float[Tensor, "B N D"],
        inputs: Tensors | None = None,
        masks: Tensors | None = None,
        *,
        index: Tensors | None = None,
        outputs: Collection[str] | None = None,
        elements: Sequence[Elements] | None = None,
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return predictions from latents: a batch that is encoded once can be decoded several times.

        Args:
            latents: Output of `encode`.
            inputs: The batch again, where queries are made of its elements or follow their number, or the head pools
                elements.
            masks: As for `forward`.
            index: As for `forward`.
            outputs: Names of the outputs to decode. None: all.
            elements: The elements to pool, in the order of `elements()`. None: those of `inputs`.

        Raises:
            KeyError: If queries need a modality that is not given, or there is no such output.
            ValueError: If the head pools elements and no inputs are given.
        """
        if self.pools_elements and elements is not None:
            # Where a learned vector replaces a missing modality, all modalities have elements.
            names = self.inputs if len(elements) == len(self.inputs) else inputs or ()
            return self._decode(latents, {}, dict(zip(sorted(names), elements, strict=True)))
        reads_inputs = self.pools_elements or isinstance(
            self.output, PerceiverDecoder | ElementDecoder
        )
        segments = self._segments(inputs, masks) if reads_inputs and inputs is not None else {}
        fused = self._fused(segments) if self.pools_elements else {}
        return self._decode(latents, segments, fused, index, outputs)

    def elements(self, inputs: Tensors, masks: Tensors | None = None) -> list[Elements]:
        """Return the input of the encoder: the elements of each modality, in sorted order of names.

        Raises:
            KeyError: If a modality is unknown, or none is given.
        """
        return list(self._fused(self._segments(inputs, masks)).values())

    def _segments(self, inputs: Tensors, masks: Tensors | None) -> dict[str, Elements]:
        """Return the elements of each modality from its adapter."""
        if not torch.compiler.is_compiling():
            first = next(self.encoder.parameters(), None)
            device = None if first is None else first.device
            check_inputs(inputs, masks, self._modalities, self._expected, device)
        masks = {} if masks is None else masks
        has_tokens = self.fusion is not None and self.fusion.config.dropped == "token"
        if has_tokens or self.encoder.needs_all_modalities:
            inputs, masks = self._with_missing(inputs, masks)
        return {name: self.inputs[name](inputs[name], masks.get(name)) for name in sorted(inputs)}

    def _with_missing(
        self, inputs: Tensors, masks: Tensors
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the batch with a fully masked input for each modality that is left out."""
        given = next(iter(inputs.values()))
        inputs, masks = dict(inputs), dict(masks)
        for name in set(self.inputs) - set(inputs):
            adapter = cast("InputAdapter", self.inputs[name])
            inputs[name] = adapter.example(given.shape[0]).to(given.device)
            masks[name] = torch.zeros(given.shape[0], 1, dtype=torch.bool, device=given.device)
        return inputs, masks

    def _fused(self, segments: Mapping[str, Elements]) -> Mapping[str, Elements]:
        """Return the elements permuted and projected to one width."""
        if self.permutation is not None:
            segments = {
                name: part.permuted(
                    self.element_order(name, part.num_elements).to(part.content.device)
                )
                for name, part in segments.items()
            }
        if self.fusion is not None:
            segments = self.fusion(segments)
        return segments

    def _decode(
        self,
        latents: Float[Tensor, "B N D"],
        segments: Mapping[str, Elements],
        fused: Mapping[str, Elements],
        index: Tensors | None = None,
        outputs: Collection[str] | None = None,
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return the predictions of the head, or of the decoder."""
        if self.pools_elements:
            return self.output(
                latents, {name: (part.content, part.real) for name, part in fused.items()}
            )
        if isinstance(self.output, ElementDecoder):
            index = self._element_index(self.output, segments, index, latents.device)
            named = self.output(latents, index=index, outputs=outputs)
            return named if len(self.output.names) > 1 else next(iter(named.values()))
        if not isinstance(self.output, PerceiverDecoder):
            return self.output(latents)
        context = QueryContext(
            lengths={name: part.num_elements for name, part in segments.items()},
            arrays={
                name: dense([segments[name]])[0] for name in self.output.reads if name in segments
            },
            masks={name: part.mask for name, part in segments.items() if part.mask is not None},
        )
        tables = {
            name: cast("nn.Embedding", self.inputs.get_submodule(f"{name}.embedding")).weight
            for name in self.output.tied
        }
        named = self.output(latents, context, tables=tables, index=index, outputs=outputs)
        return named if len(self.output.names) > 1 else next(iter(named.values()))

    def _element_index(
        self,
        decoder: ElementDecoder,
        segments: Mapping[str, Elements],
        index: Tensors | None,
        device: torch.device,
    ) -> Tensors | None:
        """Return the places in the encoder of the elements to decode, which are permuted or fewer than configured."""
        found = dict(index or {})
        for name, output in decoder.config.outputs.items():
            modality = output.modality
            whole = cast("InputAdapter", self.inputs[modality]).num_elements
            given = segments[modality].num_elements if modality in segments else whole
            places = torch.arange(whole, device=device)
            if self.permutation is not None:
                # Short inputs are filled up behind the permuted elements.
                order = self.element_order(modality, given).to(places.device)
                places = torch.cat([order.argsort(), places[given:]])
            elif not output.follows_input:
                continue
            if name in found:
                found[name] = places[found[name].to(places.device)]
            else:
                found[name] = places[: given if output.follows_input else whole]
        return found

    def set_permutation(self, seed: int | None) -> None:
        """Permute the elements of every input by one fixed permutation from now on. None: do not."""
        self.permutation = seed
        for name, adapter in self.inputs.items():
            # Permutations of known lengths are drawn here, so that compiled and exported graphs hold a constant.
            count = getattr(adapter, "num_elements", None)
            order = None if seed is None or count is None else fixed_permutation(count, seed)
            self.register_buffer(f"order_{name}", order, persistent=False)

    def set_grad_checkpointing(self, enabled: bool, *, mlp: bool = False) -> None:
        """Recompute activations in the backward pass instead of keeping them, or do not.

        Args:
            enabled: Recompute every layer: nearly nothing is kept, and each is computed twice.
            mlp: Recompute each MLP with its LayerNorm and GELU: a third less is kept, and one matrix product of
                six is computed twice.
        """
        self.encoder.grad_checkpointing = enabled
        for module in self.modules():
            if isinstance(module, CrossAttend | SelfAttend):
                module.recompute_mlp = mlp and not enabled

    def set_attn_implementation(self, implementation: str) -> None:
        """Set the implementation of cross-attention to the inputs: `auto`, `structured`, `absorbed` or `projected`.

        All give the same numbers up to rounding. `auto` chooses the one with the fewest operations for each of them.

        Raises:
            ValueError: If there is no such implementation.
        """
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"Expected attn_implementation out of {', '.join(IMPLEMENTATIONS)}; got {implementation!r}."
            )
        if isinstance(self.encoder, PerceiverEncoder):
            self.encoder.attn_implementation = implementation

    def element_order(self, name: str, count: int) -> Int[Tensor, " M"]:
        """Return the permutation of the M elements of a modality."""
        order = getattr(self, f"order_{name}")
        if order is None or order.shape[0] != count:
            return fixed_permutation(count, self.permutation or 0)
        return order


def build(config: PerceiverConfig) -> Perceiver:
    """Return a new model with initial weights.

    Raises:
        TypeError: If a field of the configuration has a value of another type. The message names it.
        ValueError: If there is no modality, or a size is not known yet.
    """
    try:
        return _build(config)
    except (TypeError, AttributeError) as error:
        parts = (config, config.encoder, config.output, config.fusion)
        message = next(filter(None, map(wrong_field, parts)), None)
        if message is None:
            raise
        raise TypeError(message) from error


def _build(config: PerceiverConfig) -> Perceiver:
    adapters: dict[str, Any] = {name: build_input(part) for name, part in config.inputs.items()}
    widths = {name: adapter.channels for name, adapter in adapters.items()}
    if not widths:
        raise ValueError("Expected at least one modality in inputs, got none.")
    has_embeddings = config.encoder.has_fusion_embeddings
    is_fused = len(widths) > 1 or config.fusion.channels is not None
    fusion = Fusion(config.fusion, widths, has_embeddings=has_embeddings) if is_fused else None
    input_channels = next(iter(widths.values())) if fusion is None else fusion.channels
    encoder = _build_encoder(config, adapters, input_channels)
    output = _build_output(config, adapters, encoder)
    model = Perceiver(
        adapters, encoder, output, fusion=fusion, permute=config.permute, config=config
    )
    if config.init == "local_attention":
        text = next(iter(adapters.values()))
        if (
            len(adapters) > 1
            or not isinstance(text, ReadsTokens)
            or not isinstance(encoder, PerceiverEncoder)
        ):
            raise ValueError(
                "init='local_attention' is for a Perceiver with one text as input (of kind 'bytes'); got inputs of "
                f"kind {', '.join(part.kind for part in config.inputs.values())}. Leave init at 'papers'."
            )
        init_local_attention(text.token_positions, text.embedding, encoder, output)
    return model


def _build_encoder(
    config: PerceiverConfig, adapters: Mapping[str, Any], input_channels: int
) -> Encoder:
    """Return the encoder of a configuration, for elements of these adapters."""
    build: Callable[[Any, Mapping[str, Any], int], Encoder] = _ENCODERS[config.encoder.kind]
    return build(config.encoder, adapters, input_channels)


def _hierarchical(config: HiPConfig, adapters: Mapping[str, Any], _: int) -> HiPEncoder:
    """Return a Hierarchical Perceiver, which embeds each modality itself."""
    grids = {
        name: ElementGrid(
            axes=part.axes,
            channels=part.channels,
            begins_alike=getattr(part, "begins_alike", True),
        )
        for name, part in adapters.items()
    }
    return HiPEncoder(config, grids)


_ENCODERS: dict[str, Callable[[Any, Mapping[str, Any], int], Encoder]] = {
    PerceiverEncoderConfig.kind: lambda config, _, width: PerceiverEncoder(
        config, input_channels=width
    ),
    TransformerEncoderConfig.kind: lambda config, _, width: TransformerEncoder(
        config, input_channels=width
    ),
    PerceiverARConfig.kind: lambda config, _, __: AutoregressiveEncoder(config),
    HiPConfig.kind: _hierarchical,
}
"""Builder of each kind of encoder: of its configuration, the adapters and the width of their elements."""


def _build_output(
    config: PerceiverConfig, adapters: Mapping[str, Any], encoder: Encoder
) -> nn.Module:
    """Return the head or decoder of a configuration.

    Raises:
        ValueError: If the encoder is of another kind than the output needs.
    """
    build: Callable[[Any, Mapping[str, Any], Any], nn.Module] = _OUTPUTS[config.output.kind]
    needed = _ENCODER_OF_OUTPUT.get(config.output.kind, config.encoder.kind)
    if config.encoder.kind != needed:
        raise ValueError(
            f"output '{config.output.kind}' needs the encoder '{needed}', got '{config.encoder.kind}'."
        )
    return build(config.output, adapters, encoder)


def _decoder(
    config: DecoderConfig, adapters: Mapping[str, Any], encoder: Encoder
) -> PerceiverDecoder:
    """Return a decoder with output queries."""
    return PerceiverDecoder(
        config,
        latent_channels=encoder.out_channels,
        inputs={name: (part.channels, part.num_elements) for name, part in adapters.items()},
        tables={
            name: (part.embedding.num_embeddings, part.embedding.embedding_dim)
            for name, part in adapters.items()
            if isinstance(part, HasEmbedding)
        },
    )


def _mean_pool(config: MeanPoolConfig, adapters: Mapping[str, Any], encoder: Encoder) -> MeanPool:
    """Return a head of the mean of the latents, and of pooled elements if the configuration names them."""
    return MeanPool(
        config,
        latent_channels=encoder.out_channels,
        content_channels=_content_channels(adapters) if config.element_pools else None,
    )


_OUTPUTS: dict[str, Callable[[Any, Mapping[str, Any], Any], nn.Module]] = {
    DecoderConfig.kind: _decoder,
    MeanPoolConfig.kind: _mean_pool,
    ElementDecoderConfig.kind: lambda config, _, encoder: ElementDecoder(config, encoder),
    NextTokenConfig.kind: lambda _, __, encoder: NextToken(encoder),
}
"""Builder of each kind of output: of its configuration, the adapters and the encoder."""

_ENCODER_OF_OUTPUT = {
    ElementDecoderConfig.kind: HiPConfig.kind,
    NextTokenConfig.kind: PerceiverARConfig.kind,
}
"""Kind of encoder that an output needs, if it needs one."""


@torch.no_grad()
def _content_channels(adapters: Mapping[str, Any]) -> dict[str, int]:
    """Return the width of the content of each modality's elements, from those of a made-up input."""
    found: dict[str, int] = {}
    for name, adapter in adapters.items():
        adapter.eval()
        found[name] = adapter(adapter.example(2)).content.shape[-1]
        adapter.train()
    return found


build_model = build
