"""The decoder of Perceiver IO: output queries read the latents, once, and each answers for itself."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from pydantic import ConfigDict
from torch import nn

from perceivers.nn.blocks import CrossAttend, Gelu
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
    ExplainRequest,
    InputQueriesConfig,
    LearnedQueriesConfig,
    Queries,
    QueriesConfig,
    build_queries,
)
from perceivers.typing import Float, Int, Tensor

__all__ = ["DecoderConfig", "OutputConfig", "PerceiverDecoder"]

_PADDING_SCALE = 0.02
_TAKEN = frozenset(dir(nn.ModuleDict()))  # what a module in it cannot be called: `type`, `values`


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """One output: what is asked, and what makes the answer.

    Attributes:
        queries: What the latents are asked.
        head: What turns each answer into predictions.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    queries: QueriesConfig
    head: HeadConfig


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of the decoder. Build one for a class with `classifier`.

    Attributes:
        answers: Each output by its name: `label`, tasks, or modalities.
        num_heads: Heads of the read.
        qk_channels: Width in which queries and latents are compared. By default that of the latents, D.
        v_channels: Width of what is collected. By default as the comparison's.
        widening_factor: Width of the MLP after the read, as a multiple of the queries'.
        use_query_residual: Add the query to what it read. Off where queries say what the input or the position is.
        gelu: Form of the GELU in the MLP: `tanh` as in DeepMind's release, or `exact` as in Hugging Face's models.
        min_padding: Channels of the learned vector of the output with the widest queries; narrower ones get more. 0:
            none where all queries have one width.
        project_channels: Width after a linear layer between the read and all heads. None: no such layer.
        chunk: Queries that are answered at once when nothing is learned, so that any number fits in memory.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["decoder"] = "decoder"
    answers: dict[str, OutputConfig]
    num_heads: int = 1
    qk_channels: int | None = None
    v_channels: int | None = None
    widening_factor: int = 1
    use_query_residual: bool = False
    gelu: Gelu = "tanh"
    min_padding: int = 0
    project_channels: int | None = None
    chunk: int = 8192

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if not self.answers:
            msg = "Expected at least one answer in answers={name: OutputConfig(...)}, got none."
            raise ValueError(msg)
        if self.min_padding < 0 or self.chunk < 1:
            msg = (
                "Expected min_padding of at least 0 and a chunk of at least 1, got "
                f"{self.min_padding} and {self.chunk}."
            )
            raise ValueError(msg)

    @classmethod
    def classifier(
        cls, num_outputs: int | None = 1000, *, use_query_residual: bool = True
    ) -> "DecoderConfig":
        """Return a decoder that asks one learned query for the class.

        Args:
            num_outputs: Classes. None: taken from the data before the model is built.
            use_query_residual: On in the release's Fourier and convolved models, off in that with learned positions.

        Source: Perceiver IO (arXiv:2107.14795), section 4.5.
        """
        answer = OutputConfig(
            queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=num_outputs)
        )
        return cls(answers={"label": answer}, use_query_residual=use_query_residual)

    @property
    def num_outputs(self) -> int | None:
        """Classes, or numbers to predict, of the only output. None: not known yet, or it has several."""
        heads = [answer.head for answer in self.answers.values()]
        one = heads[0]
        return one.num_outputs if len(heads) == 1 and isinstance(one, LinearHeadConfig) else None

    def for_tasks(self, num_outputs: Mapping[str, int | None]) -> "DecoderConfig":
        """Return the same decoder with one answer for each of several tasks, all asked as its only one is.

        Args:
            num_outputs: Of each task, classes, labels or numbers. None: taken from the data later.

        Raises:
            ValueError: If it has other outputs already, or heads whose outputs do not follow from the task.
        """
        first = next(iter(self.answers.values()))
        answers: dict[str, OutputConfig] = {}
        for name, count in num_outputs.items():
            answer = self.answers.get(name, first)
            if not isinstance(answer.head, LinearHeadConfig) or (
                len(self.answers) > 1 and set(self.answers) != set(num_outputs)
            ):
                msg = (
                    f"Expected a decoder of one output, or of those of the tasks {', '.join(num_outputs)}, with linear "
                    f"heads; got the outputs {', '.join(self.answers)}."
                )
                raise ValueError(msg)
            answers[name] = replace(answer, head=replace(answer.head, num_outputs=count))
        return replace(self, answers=answers)

    def with_num_outputs(self, num_outputs: int) -> "DecoderConfig":
        """Return the same decoder with the number of classes of its only output.

        Raises:
            ValueError: If it has several outputs, or one whose number follows from a text.
        """
        name, answer = next(iter(self.answers.items()))
        if len(self.answers) > 1 or not isinstance(answer.head, LinearHeadConfig):
            msg = (
                "Expected a decoder of one output with a linear head to learn the labels of data, got the outputs "
                f"{', '.join(self.answers)} with heads of kind {', '.join(a.head.kind for a in self.answers.values())}."
            )
            raise ValueError(msg)
        head = replace(answer.head, num_outputs=num_outputs)
        return replace(self, answers={name: replace(answer, head=head)})


class PerceiverDecoder(nn.Module):
    """Answers queries from the latents. No answer depends on another, so any part of them may be asked for.

    Args:
        config: Shape of the decoder.
        latent_channels: Width of the latents (D).
        inputs: Width of the elements of each modality, and their number, for queries made of them.
        tables: Number and width of the learned vectors of each text, for heads tied to them.

    Raises:
        ValueError: If the widths of queries differ and nothing pads them, or a modality does not exist.

    Source: Perceiver IO (arXiv:2107.14795), section 3.2 and appendix E.
    """

    reads: tuple[str, ...]
    """Modalities whose elements are queries."""

    tied: tuple[str, ...]
    """Texts whose learned vectors the heads compare with."""

    names: tuple[str, ...]
    """Of the outputs, sorted."""

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
        answers = {name: config.answers[name] for name in sorted(config.answers)}
        self.names = tuple(answers)
        queries = [answer.queries for answer in answers.values()]
        self.reads = tuple(q.modality for q in queries if isinstance(q, InputQueriesConfig))
        heads = [answer.head for answer in answers.values()]
        self.tied = tuple(head.modality for head in heads if isinstance(head, TiedHeadConfig))
        asking = {
            name: build_queries(answer.queries, latent_channels=latent_channels, inputs=inputs)
            for name, answer in answers.items()
        }
        self.queries = nn.ModuleDict({_key(name): part for name, part in asking.items()})
        widths = {name: part.channels for name, part in asking.items()}
        channels = max(widths.values()) + config.min_padding
        self.padding = nn.ParameterDict()
        for name, width in widths.items():
            if width < channels:
                missing = torch.empty(channels - width)
                self.padding[_key(name)] = truncated_normal_(missing, _PADDING_SCALE)
        self.cross_attend = CrossAttend(
            channels,
            latent_channels,
            num_heads=config.num_heads,
            widening_factor=config.widening_factor,
            qk_channels=config.qk_channels,
            v_channels=config.v_channels,
            use_query_residual=config.use_query_residual,
            gelu=config.gelu,
        )
        self.project = None
        if config.project_channels is not None:
            self.project = truncated_linear(channels, config.project_channels)
            channels = config.project_channels
        self.heads = nn.ModuleDict(
            {
                _key(name): build_head(answer.head, channels=channels, tables=tables)
                for name, answer in answers.items()
            }
        )

    def forward(
        self,
        latents: Float[Tensor, "B N D"],
        asked: ExplainRequest,
        *,
        tables: Mapping[str, Float[Tensor, "_ _"]] | None = None,
        index: Mapping[str, Int[Tensor, " _"]] | None = None,
        outputs: Collection[str] | None = None,
    ) -> dict[str, Float[Tensor, "B ..."]]:
        """Return the answers by name, B x O x K, or B x K of one learned query that stands for the whole sample.

        Args:
            latents: What the encoder has read.
            asked: What queries may take from the input.
            tables: The learned vectors of each text.
            index: For some outputs, which of their queries are asked. Otherwise all are.
            outputs: Which outputs. None: all.

        Raises:
            KeyError: If there is no such output, or queries need a modality that is not there.
        """
        wanted = list(self.names) if outputs is None else sorted(outputs)
        index = {} if index is None else index
        unknown = sorted((set(wanted) | set(index)) - set(self.names))
        if unknown:
            msg = f"Expected outputs out of {', '.join(self.names)}, got '{unknown[0]}'."
            raise KeyError(msg)
        return {
            name: self._answers(name, latents, asked, tables or {}, index.get(name))
            for name in wanted
        }

    def _answers(
        self,
        name: str,
        latents: Float[Tensor, "B N D"],
        asked: ExplainRequest,
        tables: Mapping[str, Tensor],
        index: Int[Tensor, " _"] | None,
    ) -> Float[Tensor, "B ..."]:
        """Return one output, in chunks where nothing is learned."""
        queries = self._queries(name)
        if queries.modality is not None and queries.modality not in asked.lengths:
            msg = f"Queries of '{name}' are made of the modality '{queries.modality}', which was not given."
            raise KeyError(msg)
        if index is None:
            count = queries.count(asked)
            index = torch.arange(count, device=latents.device)
        size = index.shape[0] if torch.is_grad_enabled() else self.config.chunk
        parts = [
            self._chunk(name, latents, asked, tables, part) for part in index.split(max(size, 1))
        ]
        answers = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        single = queries.modality is None and queries.num_queries == 1
        return answers[:, 0] if single else answers

    def _chunk(
        self,
        name: str,
        latents: Float[Tensor, "B N D"],
        asked: ExplainRequest,
        tables: Mapping[str, Tensor],
        index: Int[Tensor, " O"],
    ) -> Float[Tensor, "B O K"]:
        asking, head = self._queries(name), self.config.answers[name].head
        queries = asking(index, asked).to(latents.dtype)
        queries = queries.expand(latents.shape[0], -1, -1)
        if _key(name) in self.padding:
            padding = self.padding[_key(name)].expand(*queries.shape[:2], -1)
            queries = torch.cat([queries, padding.to(queries.dtype)], dim=-1)
        # Of elements that are padding, nothing is asked.
        mask = None if asking.modality is None else asked.masks.get(asking.modality)
        mask = None if mask is None else mask[:, index]
        x = self.cross_attend(queries, latents, query_mask=mask)
        if self.project is not None:
            x = self.project(x)
        table = None if isinstance(head, LinearHeadConfig) else tables[head.modality]
        return self.heads[_key(name)](x, table)

    def num_outputs(self, name: str) -> int:
        """Return how many numbers each answer of an output has."""
        return cast("LinearHead | TiedHead", self.heads[_key(name)]).num_outputs

    def _queries(self, name: str) -> Queries:
        return cast("Queries", self.queries[_key(name)])


def _key(name: str) -> str:
    """Return under what name the parts of an output are kept: modules have no dots in theirs, and own some words."""
    mark = r"^." if name in _TAKEN else r"[^0-9A-Za-z_-]"
    return re.sub(mark, lambda found: f"_{ord(found[0]):x}_", name)
