"""Hierarchical Perceiver as encoder of a `Perceiver`, and as decoder of its elements."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import pad

from perceivers.inputs.elements import Elements
from perceivers.models.decoder import DecoderConfig, module_key
from perceivers.models.encoder import ElementEncoder, run_layer
from perceivers.models.hip import HiPReconstruction, HiPTrunk, ModalitySize
from perceivers.models.hip_config import HiPConfig
from perceivers.models.hip_groups import regroup
from perceivers.models.hip_layers import RunLayer
from perceivers.nn.position import resize_table
from perceivers.registry import configclass
from perceivers.tasks.config import OutputPart
from perceivers.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class ElementGrid:
    """Elements of a modality, of an input of the configured size.

    Attributes:
        axes: Elements along each axis.
        channels: Width of an element with its position.
        begins_alike: Whether an input of fewer cells along the first axis has the first of them.
    """

    axes: tuple[int, ...]
    channels: int
    begins_alike: bool = True


@dataclass(frozen=True, kw_only=True)
class AttentionRoute:
    """Source of a cross-attention of a Hierarchical Perceiver.

    Attributes:
        columns: Index of the element, or latent of the block before, of each row of each group; -1 where a group is
            filled up.
        reads_input: Whether the source is the elements.
        has_skip: Whether the queries contain the output of an earlier block.
    """

    columns: Int[Tensor, "G M"]
    reads_input: bool
    has_skip: bool


class HiPEncoder(ElementEncoder):
    """Latents of a Hierarchical Perceiver from elements of any modality.

    An element, with the position that its adapter gives it, passes a linear layer of its modality; a learned vector of
    its place is added.

    Args:
        config: Architecture.
        grids: Elements of each modality, by name.

    Raises:
        ValueError: If there are more modalities than groups.
    """

    attention_name = "grouped"
    needs_all_modalities = True

    def __init__(self, config: HiPConfig, grids: Mapping[str, ElementGrid]) -> None:
        super().__init__()
        self.config = config
        self.grad_checkpointing = False
        self.grids = {name: grids[name] for name in sorted(grids)}
        self.out_channels = config.latent_channels
        self.element_channels = config.embed_channels
        sizes = {
            name: ModalitySize(prod(grid.axes), grid.channels) for name, grid in self.grids.items()
        }
        self.trunk = HiPTrunk(config, sizes, num_blocks=len(config.used_blocks))

    def forward(self, segments: Sequence[Elements]) -> Float[Tensor, "B N D"]:
        """Return the latents of the elements of all modalities, in sorted order of their names.

        Raises:
            ValueError: If modalities are missing, or one has more elements than the model has positions.
        """
        return self._blocks(segments)[-1].flatten(1, 2)

    def summary(self, segments: Sequence[Elements]) -> Float[Tensor, "B N D"]:
        """Return the latents of the middle block, each of which depends on all elements."""
        return self._blocks(segments)[self.config.middle].flatten(1, 2)

    def _blocks(self, segments: Sequence[Elements]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the latents of each block."""
        if len(segments) != len(self.grids):
            raise ValueError(
                f"Expected elements of {', '.join(self.grids)}, got {len(segments)} modalities."
            )
        inputs, masks = dict[str, Tensor](), dict[str, Tensor]()
        for (name, grid), part in zip(self.grids.items(), segments, strict=True):
            table = self.trunk.positions[name]
            inputs[name], mask = _filled(name, grid, part.dense(table.dtype), part.mask)
            if mask is not None:
                masks[name] = mask
        return self.trunk(inputs, masks, run=self.run)

    @property
    def run(self) -> RunLayer:
        """Call of a layer, which recomputes activations with `grad_checkpointing`."""
        return partial(run_layer, self)

    def attention_routes(self, counts: Sequence[int]) -> dict[str, AttentionRoute]:
        """Return the source of each cross-attention by its name in this module.

        Args:
            counts: Elements of each modality in a batch, at most those of the model.
        """
        numbers, begin = dict[str, Tensor](), 1
        for (name, part), count in zip(self.trunk.plan.parts.items(), counts, strict=True):
            numbers[name] = torch.zeros(1, part.count, 1, dtype=torch.long)
            numbers[name][0, :count, 0] = torch.arange(begin, begin + count)
            begin += count
        columns, found = self.trunk.plan.group(numbers)[0, ..., 0] - 1, dict[str, AttentionRoute]()
        for number, block in enumerate(self.config.used_blocks):
            if number:
                before = self.config.blocks[number - 1]
                rows = torch.arange(before.num_groups * before.num_latents)
                rows = rows.reshape(1, before.num_groups, before.num_latents, 1)
                columns = regroup(rows, block.num_groups, self.config.regroup)[0, ..., 0]
            found[f"trunk.blocks.{number}.cross_attend.attention"] = AttentionRoute(
                columns=columns, reads_input=number == 0, has_skip=number > self.config.middle
            )
        return found

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the learned positions of another model of modalities of another size, interpolated for this one."""
        if not isinstance(theirs, HiPEncoder):
            return {}
        found = dict[str, Tensor]()
        for name, grid in self.grids.items():
            other = theirs.grids.get(name, grid)
            same_width = theirs.config.embed_channels == self.config.embed_channels
            if other.axes != grid.axes and len(other.axes) == len(grid.axes) and same_width:
                table = theirs.trunk.positions[name].detach()
                found[f"trunk.positions.{name}"] = resize_table(table, other.axes, grid.axes)
        return found


def _filled(
    name: str, grid: ElementGrid, x: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None
) -> tuple[Float[Tensor, "B n C"], Bool[Tensor, "B n"] | None]:
    """Return the elements of a modality, filled up to the configured number, and their mask.

    A batch of short samples may have fewer cells along the first axis, unless that is of an image.

    Raises:
        ValueError: If there are other elements than the model has positions for.
    """
    count, expected, across = x.shape[1], prod(grid.axes), prod(grid.axes[1:])
    if count == expected:
        return x, mask
    if count > expected or count % across or not grid.begins_alike:
        size = " x ".join(map(str, grid.axes))
        raise ValueError(
            f"Expected {expected:,} elements of '{name}' ({size}), each of which has a learned position, got "
            f"{count:,}. A Hierarchical Perceiver takes inputs of one size: resize them, or build the model for them."
        )
    if mask is None:
        mask = x.new_ones(x.shape[:2]).bool()
    missing = expected - count
    return pad(x, (0, 0, 0, missing)), pad(mask, (0, missing))


@configclass
class ElementOutputConfig:
    """Output of one vector for each element of a modality.

    Attributes:
        modality: Name of the modality.
        num_outputs: Width of the vectors. None: taken from the data before the model is built.
        follows_input: Whether a batch of short inputs has as many vectors as elements, as tasks on bytes need.
            Otherwise there are as many as positions.
    """

    modality: str
    num_outputs: int | None = None
    follows_input: bool = False


@configclass
class ElementDecoderConfig:
    """Decoder of a Hierarchical Perceiver: the learned position of each element cross-attends to its group's latents.

    It needs an encoder of kind `hip` whose `latents` are those of the `last` block.

    Attributes:
        outputs: Each output by its name.
    """

    kind: Literal["elements"] = "elements"
    outputs: dict[str, ElementOutputConfig]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise ValueError(
                "Expected at least one output in outputs={name: ElementOutputConfig(...)}, got none."
            )

    @property
    def num_outputs(self) -> int | None:
        """Numbers of each element of the only output. None: not known yet, or it has several."""
        found = [output.num_outputs for output in self.outputs.values()]
        return found[0] if len(found) == 1 else None

    def fit_to(self, parts: Mapping[str, OutputPart]) -> "ElementDecoderConfig":
        """Return the same decoder with outputs of the size that a task needs.

        Raises:
            ValueError: If the task has other outputs.
        """
        if not parts:
            return self
        if set(parts) != set(self.outputs):
            raise ValueError(
                f"Expected a decoder with the outputs {', '.join(sorted(parts))}; got {', '.join(self.outputs)}."
            )
        outputs = {
            name: replace(output, num_outputs=parts[name].num_outputs or None)
            for name, output in self.outputs.items()
        }
        return replace(self, outputs=outputs)

    def for_labels(self) -> DecoderConfig:
        """Return a decoder with one learned query of the latents, for labels."""
        return DecoderConfig.classifier(None, use_query_residual=False)

    def fit_to_inputs(self, inputs: Mapping[str, Any]) -> "ElementDecoderConfig":  # noqa: ARG002
        """Return the same configuration."""
        return self

    def rename_modalities(self, names: Mapping[str, str]) -> "ElementDecoderConfig":
        """Return the same decoder of modalities under their new names."""
        outputs = {
            name: replace(output, modality=names.get(output.modality, output.modality))
            for name, output in self.outputs.items()
        }
        return replace(self, outputs=outputs)


class ElementDecoder(nn.Module):
    """Outputs for the elements of modalities, from the latents of their group.

    Args:
        config: Outputs.
        encoder: Encoder of the model, whose learned positions are the queries.

    Raises:
        ValueError: If a modality does not exist, a size is not known yet, or the encoder stops at its middle block.

    Reference: Hierarchical Perceiver (arXiv:2202.10890).
    """

    names: tuple[str, ...]
    """Names of the outputs, sorted."""

    reads: tuple[str, ...]
    """Modalities whose number of elements determines that of an output."""

    def __init__(self, config: ElementDecoderConfig, encoder: HiPEncoder) -> None:
        super().__init__()
        if encoder.config.latents != "last":
            raise ValueError(
                "output 'elements' needs the latents of every group: expected encoder.latents='last', got "
                f"'{encoder.config.latents}'."
            )
        self.config = config
        self._encoder = (encoder,)  # not a submodule
        self.names = tuple(sorted(config.outputs))
        self.reads = tuple(one.modality for one in config.outputs.values() if one.follows_input)
        outputs = dict[str, tuple[str, int]]()
        for name in self.names:
            output = config.outputs[name]
            if output.modality not in encoder.grids or output.num_outputs is None:
                raise ValueError(
                    f"Expected output '{name}' of one of the modalities {', '.join(encoder.grids)} with a known "
                    f"num_outputs; got {output}."
                )
            outputs[module_key(name)] = (output.modality, output.num_outputs)
        self.reconstruct = HiPReconstruction(encoder.config, outputs)

    def query_place(self, name: str, element: int) -> int:
        """Return the place of an element's query among those of all groups, with what fills these up."""
        encoder, modality = self._encoder[0], self.config.outputs[name].modality
        numbers = {
            other: torch.full((1, part.count, 1), -1)
            for other, part in encoder.trunk.plan.parts.items()
        }
        numbers[modality][0, element] = 1
        return int(encoder.trunk.plan.group(numbers).flatten().argmax())

    def forward(
        self,
        latents: Float[Tensor, "B N D"],
        *,
        index: Mapping[str, Int[Tensor, " _"]] | None = None,
        outputs: Collection[str] | None = None,
    ) -> dict[str, Float[Tensor, "B _ _"]]:
        """Return the outputs by name: B x M x K, or those of the elements of `index`.

        Raises:
            KeyError: If there is no such output.
        """
        wanted = list(self.names) if outputs is None else sorted(outputs)
        index = {} if index is None else index
        unknown = sorted((set(wanted) | set(index)) - set(self.names))
        if unknown:
            raise KeyError(f"Expected outputs out of {', '.join(self.names)}, got '{unknown[0]}'.")
        encoder = self._encoder[0]
        grouped = latents.unflatten(1, (encoder.config.blocks[-1].num_groups, -1))
        keys = [module_key(name) for name in wanted]
        found = self.reconstruct(grouped, encoder.trunk, keys, run=encoder.run)
        named = {name: found[module_key(name)] for name in wanted}
        return {name: x[:, index[name]] if name in index else x for name, x in named.items()}
