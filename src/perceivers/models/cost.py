"""Cost of a model, measured without allocating it.

Floating point operations are counted twice: by the papers' formulas, where every element is projected to a key and a
value in every cross-attention, and by the operations that a forward pass executes. The memory of a training step is
that of the tensors that autograd keeps. Both run on tensors without data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from perceivers.cross_attention.choice import Choice
from perceivers.cross_attention.operator import count_attention
from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.registry import build_input
from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder
from perceivers.models.flops import InputSize, attend_flops
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.nn.attention import Attention
from perceivers.nn.blocks import CrossAttend
from perceivers.outputs.queries import Queries
from perceivers.typing import Tensor

_BYTES = 4  # of a float32


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Operations and memory of a model.

    Attributes:
        num_elements: Number of elements of an input, M, over all modalities.
        input_channels: Width of an element, C.
        num_parameters: Number of weights.
        paper_flops: Operations of a forward pass of one sample by the papers' formulas: matrix products of
            cross-attention, latent transformer and decoder; a multiplication and an addition count as two.
        flops: Operations of all matrix products and convolutions that this library executes for it.
        attn_implementation: `structured`, `absorbed`, `projected`, or, of other encoders, `self-attention`, `streamed`
            or `grouped`.
        attention_flops: Operations of one cross-attention by each possible implementation; `auto` chooses the smallest.
        weight_bytes: Memory of the weights in float32.
        step_bytes: Memory of a training step in float32: weights, gradients, two moments, and the activations kept for
            the backward pass of the batch.
        batch_size: Samples of the batch of `step_bytes`.
    """

    num_elements: int
    input_channels: int
    num_parameters: int
    paper_flops: int
    flops: int
    attn_implementation: str
    attention_flops: Mapping[str, float]
    weight_bytes: int
    step_bytes: int
    batch_size: int

    def times(self, num_members: int) -> "Cost":
        """Return the cost of an ensemble of members of this cost; they are trained one after the other."""
        return replace(
            self,
            num_parameters=num_members * self.num_parameters,
            paper_flops=num_members * self.paper_flops,
            flops=num_members * self.flops,
            weight_bytes=num_members * self.weight_bytes,
        )


def cost(config: PerceiverConfig, *, batch_size: int = 1, grad_checkpointing: bool = False) -> Cost:
    """Return the cost of a model and of a training step. No weight and no activation is allocated."""
    with torch.device("meta"):
        model = build(config)
    num_parameters = sum(p.numel() for p in model.parameters())
    num_elements = sum(cast("int", adapter.num_elements) for adapter in model.inputs.values())
    width = model.input_channels
    flops, choice = _counted_flops(config)
    kept = _kept_bytes(config, batch_size, grad_checkpointing)
    return Cost(
        num_elements=num_elements,
        input_channels=width,
        num_parameters=num_parameters,
        paper_flops=paper_flops(config, num_elements, width) + decoder_flops(model, num_elements),
        flops=flops,
        attn_implementation=choice.implementation,
        attention_flops=dict(choice.operations),
        weight_bytes=_BYTES * num_parameters,
        step_bytes=4 * _BYTES * num_parameters + kept,
        batch_size=batch_size,
    )


def paper_flops(config: PerceiverConfig, num_elements: int, input_channels: int) -> int:
    """Return the operations of cross-attentions and latent transformer for one sample, as the papers count them.

    Reference: Perceiver (arXiv:2103.03206), appendix B; Perceiver IO (arXiv:2107.14795), appendix D.
    """
    with torch.device("meta"):
        adapters = {name: build_input(part) for name, part in config.inputs.items()}
    modalities = {name: (part.num_elements, part.channels) for name, part in adapters.items()}
    size = InputSize(num_elements=num_elements, channels=input_channels, modalities=modalities)
    return config.encoder.paper_flops(size)


def decoder_flops(model: Perceiver, num_elements: int) -> int:
    """Return the operations of all output queries of one sample and their heads, as the papers count them.

    It is 0 without a decoder. A model without latents has `num_elements` instead.
    """
    decoder = model.output
    if not isinstance(decoder, PerceiverDecoder):
        return 0
    attention, config = decoder.cross_attend.attention, decoder.config
    width, d = attention.to_query.in_features, attention.to_key.in_features
    encoder = model.encoder
    latents = getattr(encoder.config, "num_latents", num_elements)
    counts = {name: cast("Queries", part).num_queries for name, part in decoder.queries.items()}
    total = attend_flops(
        sum(counts.values()),
        latents,
        width,
        d,
        attention.to_query.out_features,
        attention.to_value.out_features,
        config.widening_factor,
    )
    if config.project_channels is not None:
        total += 2 * sum(counts.values()) * width * config.project_channels
        width = config.project_channels
    for name, count in counts.items():
        first = getattr(decoder.heads[name], "to_hidden", None)
        last = width if first is None else first.out_features
        total += 2 * count * (last * decoder.num_outputs(name) + (first is not None) * width * last)
    return total


def _example(model: Perceiver, batch_size: int) -> dict[str, Tensor]:
    return {
        name: cast("InputAdapter", adapter).example(batch_size)
        for name, adapter in model.inputs.items()
    }


def _counted_flops(config: PerceiverConfig) -> tuple[int, Choice]:
    """Return the operations of a forward pass on tensors without data, and its implementation of attention."""
    with torch.device("meta"):
        model = build(replace(config, permute=None)).eval()
    choices = [Choice(model.encoder.attention_name, {})]
    if isinstance(model.encoder, PerceiverEncoder):

        def look(attention: nn.Module, args: tuple[Any, ...]) -> None:
            assert isinstance(attention, Attention)
            choices.append(args[1].choice(args[0].shape[1], attention))

        cast(CrossAttend, model.encoder.cross_attends[-1]).attention.register_forward_pre_hook(look)
    # PyTorch counts its fused GPU kernels; the CPU's computes the same two products.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counted = {fused: _count_fused, torch.ops.perceivers.attend_elements: count_attention}
    counter = FlopCounterMode(display=False, custom_mapping=counted)
    with FakeTensorMode(), torch.no_grad(), counter:
        functional_call(model, _fake_state(model, train=False), (_example(model, 1),))
    return counter.get_total_flops(), choices[-1]


def _count_fused(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """Return the operations of fused attention from the shapes B x H x Q x C of its arguments."""
    batch, heads, queries, qk_channels = query
    return 2 * batch * heads * queries * key[2] * (qk_channels + value[3])


def _fake_state(model: nn.Module, *, train: bool) -> dict[str, Tensor]:
    """Return tensors without data for a model's weights and buffers on the CPU."""
    state = {
        name: torch.empty(p.shape, requires_grad=train) for name, p in model.named_parameters()
    }
    buffers = {name: torch.empty(b.shape, dtype=b.dtype) for name, b in model.named_buffers()}
    return state | buffers


def _kept_bytes(config: PerceiverConfig, batch_size: int, grad_checkpointing: bool) -> int:
    """Return the bytes that autograd keeps for the backward pass, without the weights."""
    kept: dict[StorageWeakRef, int] = {}
    holders: list[Tensor] = []  # the address of a freed storage may be reused

    with torch.device("meta"):
        model = build(replace(config, permute=None)).train()
    model.set_grad_checkpointing(grad_checkpointing)

    with FakeTensorMode():
        state = _fake_state(model, train=True)
        own = {StorageWeakRef(tensor.untyped_storage()) for tensor in state.values()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference not in own:
                kept[reference] = storage.nbytes()
                holders.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            functional_call(model, state, (_example(model, batch_size),))
    return sum(kept.values())
