"""Decoder of Perceiver IO: output queries cross-attend to the latents, independently of each other."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import nn

from perceivers.nn.blocks import Activation, CrossAttend
from perceivers.nn.init import truncated_linear, truncated_normal_
from perceivers.outputs.heads import (
    HeadConfig,
    LinearHead,
    LinearHeadConfig,
    TiedHead,
    TiedHeadConfig,
    build_head,
)
from perceivers.outputs.queries import (
    InputQueriesConfig,
    LearnedQueriesConfig,
    Queries,
    QueriesConfig,
    QueryContext,
    build_queries,
)
from perceivers.registry import configclass
from perceivers.tasks.config import OutputPart
from perceivers.typing import Float, Int, Tensor, Tensors

_PADDING_SCALE = 0.02
_RESERVED = frozenset(dir(nn.ModuleDict()))  # names that its modules cannot have: `type`, `values`


@configclass
class OutputConfig:
    """One output of a decoder: its queries and its head.

    Attributes:
        queries: Queries that cross-attend to the latents.
        head: Layer from each decoded query to predictions.
    """

    queries: QueriesConfig
    head: HeadConfig

    @property
    def num_outputs(self) -> int | None:
        """Numbers of each query. None: not known yet, or the rows of an embedding."""
        return getattr(self.head, "num_outputs", None)

    def with_num_outputs(self, name: str, num_outputs: int | None) -> "OutputConfig":
        """Return the same output with the size of its head. None: not known yet.

        Raises:
            ValueError: If the size of the head does not follow from the data. The message has the name of the output.
        """
        if not isinstance(self.head, LinearHeadConfig):
            raise ValueError(
                f"Expected a linear head for the output '{name}', whose size follows from the data; got one of kind "
                f"{self.head.kind}."
            )
        return replace(self, head=replace(self.head, num_outputs=num_outputs))


@configclass
class DecoderConfig:
    """Shape of the decoder. Build one for a class with `classifier`.

    Attributes:
        outputs: Each output by its name: `label`, tasks, or modalities.
        num_heads: Heads of the cross-attention.
        qk_channels: Width of queries and keys. By default that of the latents, D.
        v_channels: Width of the values. By default `qk_channels`.
        widening_factor: Width of the MLP after the cross-attention, as a multiple of the queries'.
        use_query_residual: Add the query to the attention output. Off where queries hold the input or positions.
        gelu: Form of the GELU in the MLP: `tanh` as in DeepMind's release, or `exact` as in Hugging Face's models; or
            `squared_relu` in its place, as in the Hierarchical Perceiver.
        min_padding: Channels of the learned vector that pads the widest queries; narrower ones get more. 0: none if
            all queries have one width.
        project_channels: Width of a linear layer between the cross-attention and all heads. None: no such layer.
        chunk: Queries that are decoded at once without gradients, so that any number fits in memory.
    """

    kind: Literal["decoder"] = "decoder"
    outputs: dict[str, OutputConfig]
    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: int = 1
    use_query_residual: bool = False
    gelu: Activation = "tanh"
    min_padding: int = 0
    project_channels: int | None = None
    chunk: int = 8192

    def __post_init__(self) -> None:
        if not self.outputs:
            raise ValueError(
                "Expected at least one output in outputs={name: OutputConfig(...)}, got none."
            )
        if self.min_padding < 0 or self.chunk < 1:
            raise ValueError(
                "Expected min_padding of at least 0 and a chunk of at least 1, got "
                f"{self.min_padding} and {self.chunk}."
            )

    @classmethod
    def classifier(
        cls, num_outputs: int | None = 1000, *, use_query_residual: bool = True
    ) -> "DecoderConfig":
        """Return a decoder with one learned query for the class.

        Args:
            num_outputs: Number of classes. None: taken from the data before the model is built.
            use_query_residual: On in the release's Fourier and convolved models, off in that with learned positions.

        Reference: Perceiver IO (arXiv:2107.14795), section 4.5.
        """
        label = OutputConfig(
            queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=num_outputs)
        )
        return cls(outputs={"label": label}, use_query_residual=use_query_residual)

    @property
    def num_outputs(self) -> int | None:
        """Classes, or numbers to predict, of the only output. None: not known yet, or it has several."""
        heads = [output.head for output in self.outputs.values()]
        one = heads[0]
        return one.num_outputs if len(heads) == 1 and isinstance(one, LinearHeadConfig) else None

    def for_tasks(self, names: Collection[str]) -> "DecoderConfig":
        """Return the same decoder with one output for each of several tasks: its own, or a copy of its only one.

        Raises:
            ValueError: If it has other outputs already.
        """
        if len(self.outputs) > 1 and set(self.outputs) != set(names):
            raise ValueError(
                f"Expected a decoder of one output, or of those of the tasks {', '.join(names)}; got the outputs "
                f"{', '.join(self.outputs)}."
            )
        first = next(iter(self.outputs.values()))
        outputs = {
            name: self.outputs.get(name, first).with_num_outputs(name, None) for name in names
        }
        return replace(self, outputs=outputs)

    def fit_to(self, parts: Mapping[str, OutputPart]) -> "DecoderConfig":
        """Return the same decoder with outputs of the size that a task needs, of `task.output_parts()`.

        `label` alone stands for the only output. Without parts the outputs are complete.

        Raises:
            ValueError: If the decoder has other outputs, or one whose size does not follow from the data.
        """
        if not parts:
            return self
        if set(parts) == {"label"} and len(self.outputs) == 1:
            parts = dict(zip(self.outputs, parts.values(), strict=True))
        if set(parts) != set(self.outputs):
            raise ValueError(
                f"Expected a decoder with the outputs {', '.join(sorted(parts))}; got {', '.join(self.outputs)}."
            )
        outputs: dict[str, OutputConfig] = {}
        for name, output in self.outputs.items():
            sized = output.with_num_outputs(name, parts[name].num_outputs or None)
            grid = parts[name].grid
            queries = output.queries if grid is None else output.queries.fit_to(grid)
            outputs[name] = replace(sized, queries=queries)
        return replace(self, outputs=outputs)

    def fit_to_inputs(self, inputs: Mapping[str, Any]) -> "DecoderConfig":
        """Return the same decoder with as many queries as the texts that they follow have bytes."""
        outputs = dict(self.outputs)
        for name, output in outputs.items():
            follows = getattr(output.queries, "follows", None)
            text = None if follows is None else inputs.get(follows)
            length = getattr(text, "max_length", None)
            if length is not None:
                outputs[name] = replace(output, queries=output.queries.fit_to((length,)))
        return replace(self, outputs=outputs)

    def for_labels(self) -> "DecoderConfig":
        """Return the same decoder with one output of open size, by one learned query: its own, if it has one.

        A new query is as wide as the widest learned ones, so that the cross-attention keeps its weights.
        """
        only = next(iter(self.outputs.values())) if len(self.outputs) == 1 else None
        own = self.outputs.get("label", only)
        learned = [
            output.queries
            for output in self.outputs.values()
            if isinstance(output.queries, LearnedQueriesConfig)
        ]
        if (
            own is not None
            and own.queries in learned
            and getattr(own.queries, "num_queries", 0) == 1
        ):
            return replace(self, outputs={"label": own.with_num_outputs("label", None)})
        widest = max((one.channels or 0 for one in learned), default=0)
        queries = LearnedQueriesConfig(channels=widest or None)
        label = OutputConfig(queries=queries, head=LinearHeadConfig(num_outputs=None))
        return replace(self, outputs={"label": label})

    def rename_modalities(self, names: Mapping[str, str]) -> "DecoderConfig":
        """Return the same decoder with queries made of modalities under their new names."""
        outputs = dict(self.outputs)
        for name, output in outputs.items():
            queries = output.queries
            if isinstance(queries, InputQueriesConfig):
                queries = replace(queries, modality=names.get(queries.modality, queries.modality))
                outputs[name] = replace(output, queries=queries)
        return replace(self, outputs=outputs)


class PerceiverDecoder(nn.Module):
    """Decodes output queries from the latents. No output depends on another, so any subset can be computed.

    Args:
        config: Shape of the decoder.
        latent_channels: Width of the latents (D).
        inputs: Width of the elements of each modality, and their number, for queries made of them.
        tables: Number and width of the learned vectors of each text, for heads tied to them.

    Raises:
        ValueError: If the widths of queries differ and nothing pads them, or a modality does not exist.

    Reference: Perceiver IO (arXiv:2107.14795), section 3.2 and appendix E.
    """

    reads: tuple[str, ...]
    """Modalities whose elements are queries."""

    tied: tuple[str, ...]
    """Texts whose byte embeddings the heads are tied to."""

    names: tuple[str, ...]
    """Names of the outputs, sorted."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        latent_channels: int,
        inputs: dict[str, tuple[int, int]],
        tables: dict[str, tuple[int, int]],
    ) -> None:
        super().__init__()
        self.config = config
        outputs = {name: config.outputs[name] for name in sorted(config.outputs)}
        self.names = tuple(outputs)
        queries = [output.queries for output in outputs.values()]
        self.reads = tuple(q.modality for q in queries if isinstance(q, InputQueriesConfig))
        heads = [output.head for output in outputs.values()]
        self.tied = tuple(head.modality for head in heads if isinstance(head, TiedHeadConfig))
        made = {
            name: build_queries(output.queries, latent_channels=latent_channels, inputs=inputs)
            for name, output in outputs.items()
        }
        self.queries = nn.ModuleDict({module_key(name): part for name, part in made.items()})
        widths = {name: part.channels for name, part in made.items()}
        channels = max(widths.values()) + config.min_padding
        self.padding = nn.ParameterDict()
        for name, width in widths.items():
            if width < channels:
                missing = torch.empty(channels - width)
                self.padding[module_key(name)] = truncated_normal_(missing, _PADDING_SCALE)
        self.cross_attend = CrossAttend(
            channels,
            latent_channels,
            num_heads=config.num_heads,
            widening_factor=config.widening_factor,
            qk_channels=config.qk_channels,
            v_channels=config.v_channels,
            use_query_residual=config.use_query_residual,
            activation=config.gelu,
        )
        self.project = None
        if config.project_channels is not None:
            self.project = truncated_linear(channels, config.project_channels)
            channels = config.project_channels
        self.heads = nn.ModuleDict(
            {
                module_key(name): build_head(output.head, channels=channels, tables=tables)
                for name, output in outputs.items()
            }
        )

    def forward(
        self,
        latents: Float[Tensor, "B N D"],
        context: QueryContext,
        *,
        tables: Mapping[str, Float[Tensor, "_ _"]] | None = None,
        index: Mapping[str, Int[Tensor, " _"]] | None = None,
        outputs: Collection[str] | None = None,
    ) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the outputs by name, B x O x K, or B x K for one learned query that stands for the whole sample.

        See `Perceiver.decode`; `tables` are the byte embeddings of each text.
        """
        wanted = list(self.names) if outputs is None else sorted(outputs)
        index = {} if index is None else index
        unknown = sorted((set(wanted) | set(index)) - set(self.names))
        if unknown:
            raise KeyError(f"Expected outputs out of {', '.join(self.names)}, got '{unknown[0]}'.")
        return {
            name: self._decode(name, latents, context, tables or {}, index.get(name))
            for name in wanted
        }

    def _decode(
        self,
        name: str,
        latents: Float[Tensor, "B N D"],
        context: QueryContext,
        tables: Tensors,
        index: Int[Tensor, " _"] | None,
    ) -> Float[Tensor, "B ..."]:
        """Return one output, in chunks where no gradients are needed."""
        queries = self.queries_of(name)
        if queries.modality is not None and queries.modality not in context.lengths:
            raise KeyError(
                f"Queries of '{name}' are made of the modality '{queries.modality}', which was not given."
            )
        if index is None:
            count = queries.count(context)
            index = torch.arange(count, device=latents.device)
        size = index.shape[0] if torch.is_grad_enabled() else self.config.chunk
        parts = [
            self._chunk(name, latents, context, tables, part) for part in index.split(max(size, 1))
        ]
        output = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        single = queries.modality is None and queries.num_queries == 1
        return output[:, 0] if single else output

    def _chunk(
        self,
        name: str,
        latents: Float[Tensor, "B N D"],
        context: QueryContext,
        tables: Tensors,
        index: Int[Tensor, " O"],
    ) -> Float[Tensor, "B O K"]:
        made, head = self.queries_of(name), self.config.outputs[name].head
        queries = made(index, context).to(latents.dtype)
        queries = queries.expand(latents.shape[0], -1, -1)
        if module_key(name) in self.padding:
            padding = self.padding[module_key(name)].expand(*queries.shape[:2], -1)
            queries = torch.cat([queries, padding.to(queries.dtype)], dim=-1)
        # Queries of padded elements are masked.
        mask = None if made.modality is None else context.masks.get(made.modality)
        mask = None if mask is None else mask[:, index]
        x = self.cross_attend(queries, latents, query_mask=mask)
        if self.project is not None:
            x = self.project(x)
        table = None if isinstance(head, LinearHeadConfig) else tables[head.modality]
        return self.heads[module_key(name)](x, table)

    def num_outputs(self, name: str) -> int:
        """Return the numbers for each query of an output, K."""
        return cast("LinearHead | TiedHead", self.heads[module_key(name)]).num_outputs

    def queries_of(self, name: str) -> Queries:
        """Return the module that makes the queries of an output."""
        return cast("Queries", self.queries[module_key(name)])


def module_key(name: str) -> str:
    """Return the module name of an output: module names have no dots, and some words are reserved."""
    mark = r"^." if name in _RESERVED else r"[^0-9A-Za-z_-]"
    return re.sub(mark, lambda found: f"_{ord(found[0]):x}_", name)
