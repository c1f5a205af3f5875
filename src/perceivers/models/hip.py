"""Hierarchical Perceiver: groups of elements are encoded, merged step by step, and decoded back to the elements."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import nn

from perceivers.models.encoder import run_layer
from perceivers.models.hip_config import HiPConfig
from perceivers.models.hip_groups import plan_groups, regroup
from perceivers.models.hip_layers import (
    HiPBlock,
    RunLayer,
    decode_groups,
    grouped_head,
    learned_table,
)
from perceivers.nn.init import lecun_linear
from perceivers.typing import Bool, Float, Tensor, Tensors


class ModalitySize(NamedTuple):
    """Elements of a modality and values of each."""

    num_elements: int
    channels: int


class HiPTrunk(nn.Module):
    """Embedding, learned positions, grouping, and the blocks.

    Args:
        config: Architecture.
        modalities: Number and width of the elements of each modality. Their order is that of the groups.
        num_blocks: Blocks to build. None: all.

    Raises:
        ValueError: If there are more modalities than groups.
    """

    def __init__(
        self,
        config: HiPConfig,
        modalities: Mapping[str, ModalitySize],
        *,
        num_blocks: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        counts = {name: size.num_elements for name, size in modalities.items()}
        self.plan = plan_groups(counts, config.blocks[0].num_groups)
        width = config.embed_channels
        self.embed = nn.ModuleDict(
            {name: lecun_linear(size.channels, width) for name, size in modalities.items()}
        )
        self.positions = nn.ParameterDict(
            {name: learned_table(count, width) for name, count in counts.items()}
        )
        self.project_positions = nn.ModuleDict()
        if config.project_positions:
            for name in counts:
                self.project_positions[name] = lecun_linear(width, width, bias=False)
        blocks = config.blocks
        self.blocks = nn.ModuleList(
            HiPBlock(
                block,
                config,
                input_channels=width if number == 0 else blocks[number - 1].channels,
                skip_channels=blocks[-1 - number].channels if number > config.middle else None,
            )
            for number, block in enumerate(blocks[:num_blocks])
        )

    def forward(
        self,
        inputs: Tensors,
        masks: Tensors | None = None,
        extra: Float[Tensor, "B L C"] | None = None,
        *,
        run: RunLayer,
    ) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the latents after each block.

        Args:
            inputs: B x n x c for each modality.
            masks: B x n for some modalities, True where an element is real.
            extra: Vectors that the middle block attends to beside the latents before it.
            run: Calls each layer.
        """
        masks, places = masks or {}, self.element_positions()
        embedded: dict[str, Tensor] = {}
        for name in self.plan.parts:
            x = inputs[name]
            if name in masks:  # 0 x nan is nan, so what is not attended to is replaced
                x = x.masked_fill(~masks[name][..., None], 0.0)
            embedded[name] = self.embed[name](x) + places[name]
        x = self.plan.group(embedded)
        mask, outputs = self._mask(masks, x), list[Tensor]()
        for number, layer in enumerate(self.blocks):
            block = cast("HiPBlock", layer)
            if number:
                x, mask = regroup(x, block.config.num_groups, self.config.regroup), None
            if extra is not None and number == self.config.middle:
                x = torch.cat([x, extra[:, None]], dim=2)
            is_later = number > self.config.middle
            skip = outputs[len(self.config.blocks) - 1 - number] if is_later else None
            x = block(x, skip=skip, mask=mask, run=run)
            outputs.append(x)
        return outputs

    def element_positions(self) -> dict[str, Float[Tensor, "_ E"]]:
        """Return the position of each element of each modality: also the query of its output."""
        found = dict(self.positions.items())
        for name, layer in self.project_positions.items():
            found[name] = layer(found[name])
        return found

    def _mask(self, masks: Tensors, x: Float[Tensor, "B G M E"]) -> Bool[Tensor, "B G M"] | None:
        """Return the mask of the groups. None: everything in them is attended to."""
        fills = self.plan.is_filled and not self.config.attend_padding
        if not masks and not fills:
            return None
        shape, device = x.shape, x.device
        whole = {
            name: masks[name]
            if name in masks
            else torch.ones(shape[0], part.count, dtype=torch.bool, device=device)
            for name, part in self.plan.parts.items()
        }
        grouped = self.plan.group_masks(whole)
        if self.config.attend_padding and self.plan.is_filled:
            ones = {name: torch.ones_like(mask[:1]) for name, mask in whole.items()}
            grouped = grouped | ~self.plan.group_masks(ones)
        return grouped


class HiPReconstruction(nn.Module):
    """Outputs for the elements of modalities: their positions are queries to the latents of their group.

    Args:
        config: Architecture.
        outputs: Modality whose elements are decoded, and values of each, for each output by its name.

    Note:
        The last layer of each modality begins at zero, as in the release: an untrained model returns zeros.
    """

    def __init__(self, config: HiPConfig, outputs: Mapping[str, tuple[str, int]]) -> None:
        super().__init__()
        width = config.embed_channels
        self.modalities = {name: modality for name, (modality, _) in outputs.items()}
        self.head = grouped_head(width, config.blocks[-1].channels)
        self.unembed = nn.ModuleDict(
            {name: zero_linear(width, channels) for name, (_, channels) in outputs.items()}
        )

    def forward(
        self,
        latents: Float[Tensor, "B G N C"],
        trunk: HiPTrunk,
        names: Iterable[str] | None = None,
        *,
        run: RunLayer,
    ) -> dict[str, Float[Tensor, "B _ _"]]:
        """Return the outputs of these names, by default all, from the latents of the last block."""
        places = {name: table[None] for name, table in trunk.element_positions().items()}
        queries = trunk.plan.group(places)
        decoded = trunk.plan.ungroup(decode_groups(self.head, queries, latents, run))
        return {
            name: self.unembed[name](decoded[self.modalities[name]])
            for name in (self.modalities if names is None else names)
        }


class LabelBottleneck(nn.Module):
    """Modalities that only the middle block attends to, and that are decoded from its latents.

    Args:
        config: Architecture.
        labels: Number and width of the vectors of each.
    """

    def __init__(self, config: HiPConfig, labels: Mapping[str, ModalitySize]) -> None:
        super().__init__()
        middle = config.middle
        width = config.blocks[middle - 1].channels
        self.embed = nn.ModuleDict(
            {name: lecun_linear(size.channels, width) for name, size in labels.items()}
        )
        self.positions = nn.ParameterDict(
            {name: learned_table(size.num_elements, width) for name, size in labels.items()}
        )
        self.head = grouped_head(width, config.blocks[middle].channels)
        self.unembed = nn.ModuleDict(
            {name: zero_linear(width, size.channels) for name, size in labels.items()}
        )

    def tokens(self, inputs: Tensors) -> Float[Tensor, "B L C"]:
        """Return the vectors of all labels, which the middle block attends to."""
        found = [layer(inputs[name]) + self.positions[name] for name, layer in self.embed.items()]
        return torch.cat(found, dim=1)

    def forward(
        self, latents: Float[Tensor, "B 1 N C"], *, run: RunLayer
    ) -> dict[str, Float[Tensor, "B _ _"]]:
        """Return the outputs of each label, from the latents of the middle block."""
        return {
            name: layer(
                decode_groups(self.head, self.positions[name][None, None], latents, run)[:, 0]
            )
            for name, layer in self.unembed.items()
        }


@dataclass(frozen=True, kw_only=True)
class HiPOutput:
    """Output of a Hierarchical Perceiver.

    Attributes:
        reconstruction: B x n x c for each modality, labels included.
        latents: Latents of the last block, of each group.
        bottleneck: Latents of the middle block.
    """

    reconstruction: dict[str, Float[Tensor, "B _ _"]]
    latents: Float[Tensor, "B G N C"]
    bottleneck: Float[Tensor, "B _ _"]


class HierarchicalPerceiver(nn.Module):
    """Hierarchical Perceiver (HiP): encodes and reconstructs modalities of up to a million raw elements.

    Elements get a learned position of few channels and are cut into groups. Blocks of cross-attention and
    self-attention work within groups, of which there are fewer and fewer; the latents of the middle block see
    everything. Later blocks go back to the groups of the earlier ones, whose outputs they get, and each element is
    decoded from the latents of its group.

    Args:
        config: Architecture.
        modalities: Number and width of the elements of each modality, `{"image": (50176, 3)}`. Their order is that of
            the groups. DeepMind's compiled models have them sorted by name.
        labels: The same of modalities that only the middle block attends to, `{"label": (1, 1000)}`.

    Shape:
        - Input: B x n x c for each modality and label.
        - Output: `HiPOutput`.

    Raises:
        ValueError: If there are more modalities than groups, or a label is a modality, too.

    Example:
        >>> model = pv.HierarchicalPerceiver(pv.hip_config("hip_16"), {"image": (50176, 3)})
        >>> model({"image": torch.rand(1, 50176, 3)}).reconstruction["image"].shape
        torch.Size([1, 50176, 3])

    Reference: Hierarchical Perceiver (arXiv:2202.10890).
    """

    def __init__(
        self,
        config: HiPConfig,
        modalities: Mapping[str, tuple[int, int]],
        *,
        labels: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        sizes = {name: ModalitySize(*size) for name, size in modalities.items()}
        label_sizes = {name: ModalitySize(*size) for name, size in (labels or {}).items()}
        both = sorted(set(sizes) & set(label_sizes))
        if both:
            raise ValueError(f"Expected labels beside the modalities, got '{both[0]}' as both.")
        if label_sizes and config.middle == 0:
            raise ValueError("Labels need at least three blocks: a middle one behind another.")
        self.sizes = sizes | label_sizes
        self.trunk = HiPTrunk(config, sizes)
        self.labels = LabelBottleneck(config, label_sizes) if label_sizes else None
        self.reconstruct = HiPReconstruction(
            config, {name: (name, size.channels) for name, size in sizes.items()}
        )

    def forward(self, inputs: Tensors, masks: Tensors | None = None) -> HiPOutput:
        """Return the reconstruction of all modalities, and the latents.

        Args:
            inputs: B x n x c for each modality and label. Masked autoencoding masks values here.
            masks: B x n for some modalities, True where an element is real. Others are not attended to.

        Raises:
            KeyError: If a modality is missing or unknown.
            ValueError: If an input or a mask has another shape than the model was built for.
        """
        self._check(inputs, masks or {})
        extra = None if self.labels is None else self.labels.tokens(inputs)
        run = partial(run_layer, self)
        outputs = self.trunk(inputs, masks, extra, run=run)
        bottleneck, last = outputs[self.config.middle], outputs[-1]
        found = self.reconstruct(last, self.trunk, run=run)
        if self.labels is not None:
            found |= self.labels(bottleneck, run=run)
        return HiPOutput(reconstruction=found, latents=last, bottleneck=bottleneck[:, 0])

    def set_grad_checkpointing(self, enabled: bool) -> None:
        """Recompute the activations of every layer in the backward pass instead of keeping them, or do not."""
        self.grad_checkpointing = enabled

    def _check(self, inputs: Tensors, masks: Tensors) -> None:
        if set(inputs) != set(self.sizes):
            raise KeyError(f"Expected the inputs {sorted(self.sizes)}, got {sorted(inputs)}.")
        for name, size in self.sizes.items():
            if inputs[name].ndim != 3 or tuple(inputs[name].shape[1:]) != tuple(size):
                raise ValueError(
                    f"Expected inputs['{name}'] of B x {size.num_elements} x {size.channels}, got shape "
                    f"{tuple(inputs[name].shape)}. A model is built for one number of elements of each modality."
                )
        for name, mask in masks.items():
            if name not in self.trunk.plan.parts:
                raise KeyError(
                    f"Expected masks of the modalities {', '.join(self.trunk.plan.parts)}, got '{name}'."
                )
            if mask.dtype != torch.bool or mask.shape != inputs[name].shape[:2]:
                raise ValueError(
                    f"Expected masks['{name}'] as bool of shape {tuple(inputs[name].shape[:2])}, got {mask.dtype} of "
                    f"shape {tuple(mask.shape)}."
                )


def zero_linear(in_channels: int, out_channels: int) -> nn.Linear:
    """Return a linear layer of zeros."""
    linear = nn.Linear(in_channels, out_channels)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
