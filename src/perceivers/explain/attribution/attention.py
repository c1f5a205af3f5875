"""Attention of a whole model by hooks: the forward pass is unchanged, and no level of the model has a flag for it.

`watch_attention` collects whole maps. `record_calls` records the arguments of each attention call, from which maps are
computed later, a block at a time: a map of 512 latents over a megapixel has half a billion entries for each head. It is
never stored: scores are computed for some latents and some elements at once, first for the denominators of the softmax,
then again for its weights.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from einops import rearrange
from torch import nn

from perceivers.cross_attention.dense import DenseFeatures
from perceivers.cross_attention.source import NormalizedElements
from perceivers.models.hip_encoder import AttentionRoute, HiPEncoder
from perceivers.nn.attention import Attention
from perceivers.nn.blocks import CrossAttend
from perceivers.typing import Bool, Float, Int, Tensor

CHUNK = 2**24  # scores in memory at once: 64 MB
PIECE = 2**14  # elements that are assembled at once


class AttentionMaps(Mapping[str, list[Tensor]]):
    """Attention maps by the name of the module, one for each of its calls; `calls` are name and map in their order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Float[Tensor, "B H Q S"]]] = []

    def __getitem__(self, name: str) -> list[Tensor]:
        maps = [attention for called, attention in self.calls if called == name]
        if not maps:
            raise KeyError(
                f"No map of '{name}'. There are maps of: {', '.join(self) or 'nothing yet'}."
            )
        return maps

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self.calls))

    def __len__(self) -> int:
        return len({name for name, _ in self.calls})

    @property
    def cross_attends(self) -> list[Tensor]:
        """Maps of the encoder's cross-attentions, in the order of the calls."""
        return [attention for name, attention in self.calls if "cross_attends" in name.split(".")]


@contextmanager
def watch_attention(model: nn.Module, kind: str = "weights") -> Generator[AttentionMaps]:
    """Collect the attention maps of every forward pass inside the `with`.

    A module that serves at several depths appears once, with one map for each of its calls. A map is B x H x Q x S and
    stays on the model's device: 100 MB for 512 latents over 224 x 224 pixels. No graph is kept for gradients.

    Args:
        model: Module with `Attention` modules.
        kind: `weights` sum to one over the source; `scores` are the values before the softmax, which the 2021 paper
            draws.

    Raises:
        ValueError: If `kind` is neither, or if the model has no `Attention`.
    """
    if kind not in ("weights", "scores"):
        raise ValueError(f"Expected kind='weights' or kind='scores', got {kind!r}.")
    maps = AttentionMaps()

    def record(name: str, attention: Attention, given: dict[str, Any], output: Tensor) -> None:
        del output
        source, mask = given["source"], given.get("source_mask")
        with torch.no_grad():
            if not isinstance(source, Tensor):
                source, mask = source.dense()
            query = given["query"].expand(source.shape[0], -1, -1)
            function = attention.weights if kind == "weights" else attention.scores
            maps.calls.append((name, function(query, source, mask)))

    with _on_attention(model, record):
        yield maps


@dataclass(frozen=True)
class Block:
    """A part of a map: its rows, its columns, attention (zero where an element is not real) and normalized elements."""

    queries: slice
    elements: slice | Int[Tensor, " m"]
    weights: Float[Tensor, "H q m"]
    source: Float[Tensor, "m Cs"]


@dataclass(kw_only=True)
class Call:
    """Arguments of one attention call for one sample, and its output if gradients are recorded.

    Query and source are normalized. The source is an array with a mask, or assembled a few elements at a time.
    """

    name: str
    attention: Attention
    query: Float[Tensor, "1 N Cq"]
    source: "Float[Tensor, '1 M C'] | NormalizedElements"
    mask: Bool[Tensor, "1 M"] | None
    residual: bool
    output: Tensor | None = field(default=None, repr=False)

    @property
    def is_cross_attend(self) -> bool:
        """Whether latents attend to the input."""
        return "cross_attends" in self.name.split(".")

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        if isinstance(self.source, Tensor):
            return self.source.shape[1]
        return sum(segment.num_elements for segment in self.source.source.segments)

    def pieces(self) -> Iterator[tuple[slice, Float[Tensor, "m C"], Bool[Tensor, " m"] | None]]:
        """Yield the range, the normalized values and the mask of a few elements at a time."""
        if isinstance(self.source, Tensor):
            for start in range(0, self.source.shape[1], PIECE):
                part = slice(start, min(start + PIECE, self.source.shape[1]))
                real = None if self.mask is None else self.mask[0, part]
                yield part, self.source[0, part], real
            return
        begin, norm = 0, self.source.norm
        for segment in self.source.source.segments:
            features = DenseFeatures(segment, norm.eps, norm.weight.dtype)
            for chunk in features.chunks(PIECE):
                own = features.span(chunk)
                real = None if segment.mask is None else segment.mask[0, own]
                part = slice(begin + own.start, begin + own.stop)
                yield part, norm(features.array(chunk))[0], real
            begin += segment.num_elements

    def scores(self, queries: Sequence[int]) -> Float[Tensor, "H L M"]:
        """Return the scores before the softmax of some queries. Minus infinity where an element is not real."""
        q = self._queries()[:, list(queries)]
        parts = [self._scores(q, x, real) for _, x, real in self.pieces()]
        return torch.cat(parts, dim=-1)

    def log_sums(self) -> Float[Tensor, "H N 1"]:
        """Return the logarithm of the denominator of each query's softmax. Minus infinity if nothing is real."""
        q = self._queries()
        total = q.new_full((*q.shape[:2], 1), float("-inf"))
        for _, x, real in self.pieces():
            for rows in self._rows(len(x)):
                scores = self._scores(q[:, rows], x, real)
                own = scores.logsumexp(dim=-1, keepdim=True)
                total[:, rows] = torch.logaddexp(total[:, rows], own)
        return total

    def blocks(self) -> Iterator[Block]:
        """Yield the whole map, a block at a time."""
        q, total = self._queries(), self.log_sums()
        for part, x, real in self.pieces():
            for rows in self._rows(len(x)):
                weights = (self._scores(q[:, rows], x, real) - total[:, rows]).exp()
                yield Block(rows, part, weights.nan_to_num(nan=0.0), x)

    def values(self, source: Float[Tensor, "m Cs"]) -> Float[Tensor, "H m Cv"]:
        """Return the values of some elements, by head."""
        heads = self.attention.num_heads
        return rearrange(self.attention.to_value(source), "M (H C) -> H M C", H=heads)

    def _queries(self) -> Float[Tensor, "H N C"]:
        return (self.attention.queries(self.query) * self.attention.scale)[0]

    def _scores(
        self, q: Float[Tensor, "H q C"], x: Float[Tensor, "m Cs"], real: Bool[Tensor, " m"] | None
    ) -> Float[Tensor, "H q m"]:
        keys = rearrange(self.attention.to_key(x), "M (H C) -> H C M", H=len(q))
        scores = (q @ keys).float()
        return scores if real is None else scores.masked_fill(~real, float("-inf"))

    def _rows(self, elements: int) -> Iterator[slice]:
        """Yield ranges of queries whose scores fit into `CHUNK` numbers."""
        count = self.query.shape[1]
        step = max(CHUNK // (elements * self.attention.num_heads), 1)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))


@dataclass(kw_only=True)
class GroupedCall(Call):
    """Arguments of one attention call within groups, of one sample; queries and sources are those of all groups.

    Attributes:
        parts: Call of each group.
        columns: Index of the source of each row of each group; -1 where a group is filled up.
        num_sources: Number of elements, or of latents, over all groups.
        route: Source of a cross-attention. None: self-attention.
    """

    parts: list[Call]
    columns: Int[Tensor, "G Mg"]
    num_sources: int
    route: AttentionRoute | None

    @property
    def is_cross_attend(self) -> bool:
        """Whether latents attend to the input."""
        return self.route is not None and self.route.reads_input

    @property
    def reads_latents(self) -> bool:
        """Whether latents attend to the latents of an earlier block."""
        return self.route is not None and not self.route.reads_input

    @property
    def has_skip(self) -> bool:
        """Whether the queries contain the output of an earlier block."""
        return self.route is not None and self.route.has_skip

    @property
    def num_elements(self) -> int:
        """Number of sources."""
        return self.num_sources

    def blocks(self) -> Iterator[Block]:
        """Yield the whole map, a block at a time; what fills up groups is left out."""
        rows = self.parts[0].query.shape[1]
        for group, part in enumerate(self.parts):
            for block in part.blocks():
                columns = self.columns[group, block.elements]
                real = columns >= 0
                queries = slice(
                    group * rows + block.queries.start, group * rows + block.queries.stop
                )
                yield Block(queries, columns[real], block.weights[..., real], block.source[real])


def check_single(inputs: Mapping[str, Tensor]) -> None:
    """Raise ValueError if an input has another batch axis than 1."""
    samples = {name: x.shape[0] for name, x in inputs.items()}
    if set(samples.values()) != {1}:
        raise ValueError(
            f"Expected one sample (a batch axis of 1) of each modality, got {samples}."
        )


def input_calls(calls: Sequence[Call]) -> list[Call]:
    """Return the calls over the input: the cross-attentions of the encoder, or all calls of an encoder without any."""
    encoder = [call for call in calls if not call.name.startswith("output.")]
    return [call for call in encoder if call.is_cross_attend] or encoder


@contextmanager
def record_calls(model: nn.Module, *, gradients: bool = False) -> Generator[list[Call]]:
    """Record every attention call of a forward pass of one sample inside the `with`, in their order.

    With `gradients`, the output of each call is kept, so that gradients by it can be computed.
    """
    calls: list[Call] = []
    owners = dict(model.named_modules())
    routes = dict[str, AttentionRoute]()

    def record(
        name: str, attention: Attention, given: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        owner = owners.get(name.rpartition(".")[0])
        source = given["source"]
        if gradients and not output.requires_grad:  # nothing before it can be differentiated
            output = output.detach().requires_grad_()
        query, mask = given["query"].detach(), given.get("source_mask")
        shared: dict[str, Any] = {
            "name": name,
            "attention": attention,
            "residual": owner.use_query_residual if isinstance(owner, CrossAttend) else True,
            "output": output if gradients else None,
        }
        if name in routes or query.shape[0] > 1:
            calls.append(_grouped(query, source.detach(), mask, routes.get(name), shared))
        else:
            source = source.detach() if isinstance(source, Tensor) else source
            calls.append(Call(query=query, source=source, mask=mask, **shared))
        return output if gradients else None

    def find_routes(module: nn.Module, args: tuple[Any, ...]) -> None:
        counts = [part.num_elements for part in args[0]]
        found = cast("HiPEncoder", module).attention_routes(counts)
        prefix = next(name for name, one in owners.items() if one is module)
        routes.update({f"{prefix}.{name}": route for name, route in found.items()})

    handles = [
        one.register_forward_pre_hook(find_routes)
        for one in owners.values()
        if isinstance(one, HiPEncoder)
    ]
    try:
        with _on_attention(model, record):
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def _grouped(
    query: Float[Tensor, "G N Cq"],
    source: Float[Tensor, "G M Cs"],
    mask: Bool[Tensor, "G M"] | None,
    route: AttentionRoute | None,
    shared: Mapping[str, Any],
) -> GroupedCall:
    """Return a call whose batch is groups of one sample; `shared` are the fields of the calls of all groups."""
    groups, rows = source.shape[:2]
    columns = torch.arange(groups * rows).reshape(groups, rows) if route is None else route.columns
    parts = [
        Call(
            query=query[group : group + 1],
            source=source[group : group + 1],
            mask=None if mask is None else mask[group : group + 1],
            **shared,
        )
        for group in range(groups)
    ]
    return GroupedCall(
        query=query.flatten(0, 1)[None],
        source=source.flatten(0, 1)[None],
        mask=None,
        parts=parts,
        columns=columns.to(query.device),
        num_sources=int(columns.max()) + 1,
        route=route,
        **shared,
    )


@contextmanager
def _on_attention(model: nn.Module, record: Callable[..., Tensor | None]) -> Generator[None]:
    """Call `record(name, module, arguments, output)` after every attention call inside the `with`.

    A tensor that it returns replaces the output.
    """

    def hook(name: str) -> Callable[..., Tensor | None]:
        def call(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor | None:
            given = dict(zip(("query", "source", "source_mask"), args, strict=False)) | kwargs
            return record(name, module, given, output)

        return call

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, Attention)
    ]
    if not handles:
        raise ValueError(
            f"Expected a model with attention to watch, got {type(model).__name__} without any."
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
