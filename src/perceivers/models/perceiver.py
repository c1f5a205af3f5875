"""The whole model: adapters make elements, an encoder reads them, a head predicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import nn

from perceivers.inputs.adapters import InputConfig, build_input
from perceivers.inputs.elements import Elements
from perceivers.inputs.fusion import Fusion, FusionConfig
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.transformer import TransformerEncoder, TransformerEncoderConfig
from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.outputs.heads import MeanPool, MeanPoolConfig
from perceivers.reading.choice import PATHS
from perceivers.typing import Float, Int, Tensor

__all__ = ["EncoderConfig", "OutputConfig", "Perceiver", "PerceiverConfig", "build"]

EncoderConfig = Annotated[
    PerceiverEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")
]
OutputConfig = MeanPoolConfig


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
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    inputs: dict[str, InputConfig]
    encoder: EncoderConfig = field(default_factory=PerceiverEncoderConfig)
    output: OutputConfig = field(default_factory=MeanPoolConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    permute: int | None = None


class Perceiver(nn.Module):
    """A Perceiver of parts that are passed in; `build` makes them from a configuration.

    Args:
        inputs: An adapter for each modality.
        encoder: Elements of all modalities -> latents.
        output: Latents -> predictions.
        fusion: Gives several modalities one width C. None: they have it.
        permute: Seed of the permutation of elements, see `PerceiverConfig`.

    Source: Perceiver (arXiv:2103.03206), figure 1.
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
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B K"]:
        """Return the predictions for a batch.

        Args:
            inputs: A tensor for each modality; its first axis is the batch. Modalities that no sample has may be
                left out.
            masks: B x L for modalities that were padded or that some samples lack: True where the second axis of
                the input is real. L = 1 says it of whole samples.
        """
        return self.output(self.encode(inputs, masks))

    def encode(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "B N D"]:
        """Return the latents after reading a batch. Arguments as for `forward`."""
        return self.encoder(self.elements(inputs, masks))

    def elements(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
    ) -> list[Elements]:
        """Return what the encoder reads: the elements of each modality, in sorted order of names.

        Raises:
            KeyError: If a modality is unknown, or none is there.
        """
        if not inputs or not set(inputs) <= set(self.inputs):
            msg = f"Expected the modalities {sorted(self.inputs)}, got {sorted(inputs)}."
            raise KeyError(msg)
        masks = {} if masks is None else masks
        segments: dict[str, Elements] = {}
        for name in sorted(inputs):
            segment = self.inputs[name](inputs[name], masks.get(name))
            if self.permutation is not None:
                order = self._order(name, segment.num_elements)
                segment = segment.permuted(order.to(segment.content.device))
            segments[name] = segment
        if self.fusion is not None:
            segments = self.fusion(segments)
        return list(segments.values())

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

    def set_read_path(self, path: str) -> None:
        """Read inputs by one of the exact ways: `auto`, `grid`, `absorbed` or `projected`.

        All give the same numbers up to rounding. `auto` takes that of the fewest operations for each read.

        Raises:
            ValueError: If there is no such way.
        """
        if path not in PATHS:
            msg = f"Expected a way to read out of {', '.join(PATHS)}; got {path!r}."
            raise ValueError(msg)
        if isinstance(self.encoder, PerceiverEncoder):
            self.encoder.read_path = path

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
    output = MeanPool(config.output, latent_channels=encoder.out_channels)
    model = Perceiver(adapters, encoder, output, fusion=fusion, permute=config.permute)
    model.config = config
    model.input_channels = input_channels
    return model


def _permutation(count: int, seed: int) -> Int[Tensor, " M"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator, device="cpu")
