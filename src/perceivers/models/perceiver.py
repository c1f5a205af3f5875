"""The whole model: adapters make elements, an encoder reads them, a head or output queries make predictions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import ConfigDict, Field
from torch import nn

from perceivers.cross_attention.choice import PATHS
from perceivers.inputs.elements import Elements, InputAdapter, dense
from perceivers.inputs.fusion import Fusion, FusionConfig
from perceivers.inputs.registry import InputConfig, build_input
from perceivers.inputs.text import BytesInput
from perceivers.models.decoder import DecoderConfig, PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.local_attention_init import init_local_attention
from perceivers.models.transformer import TransformerEncoder, TransformerEncoderConfig
from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.outputs.heads import MeanPool, MeanPoolConfig
from perceivers.outputs.queries import ExplainRequest
from perceivers.typing import Float, Int, Tensor

__all__ = ["EncoderConfig", "Perceiver", "PerceiverConfig", "ReadoutConfig", "build"]

EncoderConfig = Annotated[
    PerceiverEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")
]
ReadoutConfig = Annotated[MeanPoolConfig | DecoderConfig, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class PerceiverConfig:
    """Everything that determines a model's weights. Saved beside them.

    Attributes:
        inputs: How each modality becomes elements.
        encoder: What reads them.
        output: What turns latents into predictions.
        fusion: How several modalities are read together. One alone needs nothing of it.
        permute: Seed of one fixed permutation of the elements of every input, applied when they already
            have their positions (the papers' permuted ImageNet). None: their own order.
        init: How weights begin: as the `papers`', or `local`, for models of one text: attention begins as a map of
            places (`init_local_attention`), which small models need to learn masked bytes at all.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    inputs: dict[str, InputConfig]
    encoder: EncoderConfig = field(default_factory=PerceiverEncoderConfig)
    output: ReadoutConfig = field(default_factory=MeanPoolConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    permute: int | None = None
    init: Literal["papers", "local"] = "papers"


class Perceiver(nn.Module):
    """A Perceiver of parts that are passed in; `build` makes them from a configuration.

    Args:
        inputs: An adapter for each modality.
        encoder: Elements of all modalities -> latents.
        output: Latents -> predictions.
        fusion: Gives several modalities one width C. None: they have it.
        permute: Seed of the permutation of elements, see `PerceiverConfig`.

    Source: Perceiver (arXiv:2103.03206), figure 1; Perceiver IO (arXiv:2107.14795), figure 2.
    """

    config: PerceiverConfig
    input_channels: int
    encoder: PerceiverEncoder | TransformerEncoder

    def __init__(
        self,
        inputs: Mapping[str, nn.Module],
        encoder: PerceiverEncoder | TransformerEncoder,
        output: nn.Module,
        *,
        fusion: Fusion | None = None,
        permute: int | None = None,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleDict(inputs)
        self.encoder = encoder
        self.output = output
        self.fusion = fusion
        self.set_permutation(permute)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        index: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return the predictions for a batch: B x K, or B x O x K of O queries; by name where there are several.

        Args:
            inputs: A tensor for each modality; its first axis is the batch. Modalities that no sample has may be
                left out.
            masks: B x L for modalities that were padded or that some samples lack: True where the second axis of
                the input is real. L = 1 says it of whole samples.
            index: For some outputs, which of their queries are asked. Otherwise all are.
        """
        segments = self._segments(inputs, masks)
        latents = self.encoder(self._read(segments))
        return self._answers(latents, segments, index, None)

    def encode(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Return the latents after reading a batch. Arguments as for `forward`."""
        return self.encoder(self.elements(inputs, masks))

    def decode(
        self,
        latents: Float[Tensor, "B N D"],
        inputs: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        *,
        index: Mapping[str, Tensor] | None = None,
        outputs: Collection[str] | None = None,
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return predictions from latents: encode once, ask as often as you like.

        Args:
            latents: What `encode` returned.
            inputs: The batch again, where queries are made of its elements or follow their number.
            masks: As for `forward`.
            index: As for `forward`.
            outputs: Names of the outputs that are wanted. None: all.

        Raises:
            KeyError: If queries need a modality that is not given, or there is no such output.
        """
        segments = {} if inputs is None else self._segments(inputs, masks)
        return self._answers(latents, segments, index, outputs)

    def elements(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> list[Elements]:
        """Return what the encoder reads: the elements of each modality, in sorted order of names.

        Raises:
            KeyError: If a modality is unknown, or none is there.
        """
        return self._read(self._segments(inputs, masks))

    def _segments(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None
    ) -> dict[str, Elements]:
        """Return the elements of each modality as its adapter makes them."""
        if not inputs or not set(inputs) <= set(self.inputs):
            msg = f"Expected the modalities {sorted(self.inputs)}, got {sorted(inputs)}."
            raise KeyError(msg)
        masks = {} if masks is None else masks
        if self.fusion is not None and self.fusion.config.dropped == "token":
            inputs, masks = self._with_missing(inputs, masks)
        return {name: self.inputs[name](inputs[name], masks.get(name)) for name in sorted(inputs)}

    def _with_missing(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the batch with a made-up input for each modality that is left out, none of which is real."""
        given = next(iter(inputs.values()))
        inputs, masks = dict(inputs), dict(masks)
        for name in set(self.inputs) - set(inputs):
            adapter = cast("InputAdapter", self.inputs[name])
            inputs[name] = adapter.example(given.shape[0]).to(given.device)
            masks[name] = torch.zeros(given.shape[0], 1, dtype=torch.bool, device=given.device)
        return inputs, masks

    def _read(self, segments: Mapping[str, Elements]) -> list[Elements]:
        """Return what the encoder reads: permuted, and of one width."""
        if self.permutation is not None:
            segments = {
                name: segment.permuted(
                    self._order(name, segment.num_elements).to(segment.content.device)
                )
                for name, segment in segments.items()
            }
        if self.fusion is not None:
            segments = self.fusion(segments)
        return list(segments.values())

    def _answers(
        self,
        latents: Float[Tensor, "B N D"],
        segments: Mapping[str, Elements],
        index: Mapping[str, Tensor] | None,
        outputs: Collection[str] | None,
    ) -> Float[Tensor, "B ..."] | dict[str, Float[Tensor, "B ..."]]:
        """Return the head's predictions, or the answers to queries."""
        if not isinstance(self.output, PerceiverDecoder):
            return self.output(latents)
        asked = ExplainRequest(
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
        answers = self.output(latents, asked, tables=tables, index=index, outputs=outputs)
        return answers if len(self.output.names) > 1 else next(iter(answers.values()))

    def set_permutation(self, seed: int | None) -> None:
        """Permute the elements of every input by one fixed permutation from now on, or (None) do not."""
        self.permutation = seed
        for name, adapter in self.inputs.items():
            # Known lengths are drawn here, so that compiled and exported graphs hold a constant.
            count = getattr(adapter, "num_elements", None)
            order = None if seed is None or count is None else _permutation(count, seed)
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

    def set_attn_implementation(self, path: str) -> None:
        """Read inputs by one of the exact ways: `auto`, `grid`, `absorbed` or `projected`.

        All give the same numbers up to rounding. `auto` takes that of the fewest operations for each read.

        Raises:
            ValueError: If there is no such way.
        """
        if path not in PATHS:
            msg = f"Expected a way to read out of {', '.join(PATHS)}; got {path!r}."
            raise ValueError(msg)
        if isinstance(self.encoder, PerceiverEncoder):
            self.encoder.attn_implementation = path

    def _order(self, name: str, count: int) -> Int[Tensor, " M"]:
        order = getattr(self, f"order_{name}")
        if order is None or order.shape[0] != count:
            return _permutation(count, self.permutation or 0)
        return order


def build(config: PerceiverConfig) -> Perceiver:
    """Return a fresh model.

    Raises:
        ValueError: If there is no modality, or a size is not known yet.
    """
    adapters: dict[str, Any] = {name: build_input(part) for name, part in config.inputs.items()}
    widths = {name: adapter.channels for name, adapter in adapters.items()}
    if not widths:
        msg = "Expected at least one modality in inputs, got none."
        raise ValueError(msg)
    fusion = Fusion(config.fusion, widths) if len(widths) > 1 else None
    input_channels = next(iter(widths.values())) if fusion is None else fusion.channels
    encoder: PerceiverEncoder | TransformerEncoder
    if isinstance(config.encoder, PerceiverEncoderConfig):
        encoder = PerceiverEncoder(config.encoder, input_channels=input_channels)
    else:
        encoder = TransformerEncoder(config.encoder, input_channels=input_channels)
    output: nn.Module
    if isinstance(config.output, DecoderConfig):
        output = PerceiverDecoder(
            config.output,
            latent_channels=encoder.out_channels,
            inputs={name: (part.channels, part.num_elements) for name, part in adapters.items()},
            tables={
                name: tuple(part.embedding.weight.shape)
                for name, part in adapters.items()
                if hasattr(part, "embedding")
            },
        )
    else:
        output = MeanPool(config.output, latent_channels=encoder.out_channels)
    model = Perceiver(adapters, encoder, output, fusion=fusion, permute=config.permute)
    model.config = config
    model.input_channels = input_channels
    if config.init == "local":
        _begin_locally(model)
    return model


def _begin_locally(model: Perceiver) -> None:
    """Begin with local attention.

    Raises:
        ValueError: If the model does not read one text, byte by byte, by latents.
    """
    text = next(iter(model.inputs.values()))
    if (
        len(model.inputs) > 1
        or not isinstance(text, BytesInput)
        or isinstance(model.encoder, TransformerEncoder)
    ):
        msg = (
            "init='local' is for a Perceiver that reads one text, byte by byte (inputs of kind 'bytes'); got inputs of "
            f"kind {', '.join(part.kind for part in model.config.inputs.values())}. Leave init at 'papers'."
        )
        raise ValueError(msg)
    init_local_attention(text.places, text.embedding, model.encoder, model.output)


def _permutation(count: int, seed: int) -> Int[Tensor, " M"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator, device="cpu")
