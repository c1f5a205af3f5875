"""Attribution of the next token: attention of an autoregressive model, followed from its last latent to the tokens.

Elements are the tokens of the sample. The start before them is not one of them, so that the attention to it is missing
in the maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from perceivers.explain.attribution.attention import check_single
from perceivers.explain.attribution.attribute import Attribution, CrossAttentionMap
from perceivers.explain.attribution.rollup import RolledUp
from perceivers.models.autoregressive import AutoregressiveEncoder
from perceivers.models.ensemble import members_of
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.tasks.base import Task
from perceivers.typing import Bool, Float, Int, Tensor

MOST = 2**28
"""Numbers of the largest map of all heads, latents and tokens: 1 GB."""


@dataclass(frozen=True, kw_only=True)
class TokenAttention:
    """Attention of one layer of an autoregressive model, of a single sequence of L tokens.

    Attributes:
        name: Name of the module.
        is_cross_attend: Whether latents attend to tokens instead of latents.
        scores: Before the softmax; minus infinity at later tokens.
        weights: After it. Rows sum to one.
    """

    name: str
    is_cross_attend: bool
    scores: Float[Tensor, "H Z S"]
    weights: Float[Tensor, "H Z S"]


class _Recorder(TorchFunctionMode):
    """Computes every attention call explicitly and keeps its scores and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute a call of PyTorch."""
        given: dict[str, Any] = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **given)
        queries, keys, values = args
        scores = (queries * given["scale"]) @ keys.transpose(-2, -1)
        mask = given.get("attn_mask")
        if mask is None and given.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores[0].softmax(dim=-1)
        if torch.is_grad_enabled() and not weights.requires_grad:
            weights = weights.requires_grad_()
        self.calls.append((scores[0].detach(), weights))
        return weights[None] @ values


def token_attention(
    model: PerceiverAR, tokens: Int[Tensor, "1 L"]
) -> tuple[Float[Tensor, "n V"], list[TokenAttention]]:
    """Return the logits of the last positions and the attention of each layer, in their order.

    Args:
        model: The model.
        tokens: One sequence without padding. If it is longer than the context, only its end is used.

    Raises:
        ValueError: If the maps would be larger than `MOST`.
    """
    config = model.config
    tokens = tokens[:, -config.max_length :]
    latents = min(config.num_latents, tokens.shape[1]) * config.latents_per_position
    if latents * config.num_heads * tokens.shape[1] > MOST:
        raise ValueError(
            f"Expected maps of at most {MOST:,} numbers, got {config.num_heads} heads x {latents:,} latents x "
            f"{tokens.shape[1]:,} tokens. Explain a shorter sequence."
        )
    with _Recorder() as recorder:  # with a cache, keys of all tokens are in one tensor
        logits = model(tokens, cache=model.make_cache(1))
    names = ["cross_attends.0"]
    for number in range(config.num_layers):
        names.append(f"layers.{number}")
        if number in config.cross_attends_after:
            names.append(f"cross_attends.{1 + config.cross_attends_after.index(number)}")
    found = [
        TokenAttention(
            name=name,
            is_cross_attend=name.startswith("cross"),
            scores=scores,
            weights=weights,
        )
        for name, (scores, weights) in zip(names, recorder.calls, strict=True)
    ]
    return logits[0], found


def attribute_tokens(
    task: Task,
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    latents: Sequence[int] = (),
    **_: Any,
) -> Attribution:
    """Return the logits for one sample, and its attention, as `attribute` does.

    Maps of single cross-attentions are means over latents. The roll-up begins at the last latent, which predicts the
    next token: each layer passes half of a row on by its attention and half to the latents themselves; what is left at
    the end belongs to the latents' tokens. What goes to the start is `RolledUp.kept`.

    Args:
        task: Task of the run, which knows the start.
        model: A `Perceiver` or an `Ensemble` with an autoregressive encoder.
        inputs: One sequence, padded at the end.
        masks: Which of its tokens are real.
        latents: Indices of latents, of the last tokens, that are kept one by one.

    Raises:
        ValueError: If there is more than one sample, or no such latent.
    """
    tokens, real = _tokens(task, inputs, masks)
    found: list[Attribution] = []
    with torch.inference_mode():
        for member in members_of(model):
            logits, layers = token_attention(_model_of(member), tokens)
            first = layers[0].weights
            count, per_position = len(logits), first.shape[1] // len(logits)
            if not all(0 <= latent < count for latent in latents):
                raise ValueError(
                    f"Expected latents between 0 and {count - 1}, got {list(latents)}."
                )
            rows = torch.zeros(1 + len(latents), count, per_position, device=first.device)
            rows[list(range(len(rows))), [count - 1, *latents]] = 1 / per_position
            rolled = _rolled(rows.flatten(1), layers, per_position)
            elements = _placed(rolled, real)
            kept = rolled.sum(dim=1).cpu() - elements.sum(dim=1)
            maps = [
                _map(layer, [latent * per_position for latent in latents], real)
                for layer in layers
                if layer.is_cross_attend
            ]
            rolled_up = RolledUp(elements=elements, kept=kept)
            found.append(Attribution(outputs=logits[None], maps=maps, rolled=rolled_up))
    return found[0] if len(found) == 1 else _mean(found)


def token_relevance(
    task: Task,
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    index: int | None = None,
    **_: Any,
) -> Float[Tensor, " M"]:
    """Return the relevance of each token for the logit of the next one: roll-up weighted by its gradient.

    As `relevance` does, from the last latent: a layer counts as max(dy/dA * A, 0), its residual as one. The residual
    from the last token itself is left out: the map shows attention.

    Args:
        task: Task of the run.
        model: A `Perceiver` or an `Ensemble` with an autoregressive encoder.
        inputs: One sequence, padded at the end.
        masks: Which of its tokens are real.
        index: Token whose logit is explained. By default the most probable one.
    """
    tokens, real = _tokens(task, inputs, masks)
    vocabulary = task.config.vocabulary
    found: list[Tensor] = []
    for member in members_of(model):
        with torch.enable_grad():
            logits, layers = token_attention(_model_of(member), tokens)
            known = [token for token in vocabulary.data_tokens if token < logits.shape[1]]
            best = known[int(logits[-1, known].argmax())]
            wanted = best if index is None else index
            gradients = torch.autograd.grad(logits[-1, wanted], [layer.weights for layer in layers])
        rows = layers[0].weights.new_zeros(1, layers[0].weights.shape[1])
        per_position = rows.shape[1] // len(logits)
        rows[:, -per_position:] = 1 / per_position
        total = rows.new_zeros(1, tokens.shape[1])
        for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
            passed = rows @ (gradient * layer.weights.detach()).clamp_min(0).mean(dim=0)
            if layer.is_cross_attend:
                total = total + _at_end(passed, tokens.shape[1])
            else:
                rows = rows + passed
        found.append(_placed(total, real)[0])
    return torch.stack(found).mean(dim=0)


def num_latents(
    model: Any, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None
) -> int:
    """Return the number of latents of one sample with its start."""
    (ids,) = inputs.values()
    mask = None if masks is None else next(iter(masks.values()), None)
    count = ids.shape[1] if mask is None else int(mask.expand_as(ids).sum())
    return min(_model_of(members_of(model)[0]).config.num_latents, count + 1)


def _tokens(
    task: Task, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None
) -> tuple[Int[Tensor, "1 L"], Bool[Tensor, " M"]]:
    """Return the start and the real tokens of one sample, and which elements these tokens are."""
    check_single(inputs)
    batch = task.prediction_batch(dict(inputs), dict(masks or {}))
    (name,) = inputs
    tokens = batch.inputs[name][batch.masks[name]][None]
    real = torch.ones(inputs[name].shape[1], dtype=torch.bool)
    if masks is not None and name in masks:
        real = masks[name][0].cpu().expand_as(real)
    return tokens, real


def _model_of(member: Any) -> PerceiverAR:
    encoder = member.encoder
    assert isinstance(encoder, AutoregressiveEncoder)  # of every run of this task
    return encoder.model


def _rolled(
    rows: Float[Tensor, "K Z"], layers: Sequence[TokenAttention], per_position: int
) -> Float[Tensor, "K L"]:
    """Return the share of each token, the start included, in rows over the last latents. Each sums to one."""
    length = layers[0].weights.shape[-1]
    total = rows.new_zeros(len(rows), length)
    for layer in reversed(layers):
        passed = rows @ layer.weights.mean(dim=0)
        if layer.is_cross_attend:
            total = total + 0.5 * passed
            rows = 0.5 * rows
        else:
            rows = 0.5 * rows + 0.5 * passed
    return total + _at_end(rows.unflatten(1, (-1, per_position)).sum(dim=2), length)


def _at_end(rows: Float[Tensor, "K S"], length: int) -> Float[Tensor, "K L"]:
    """Return rows over the last tokens as rows over all."""
    found = rows.new_zeros(len(rows), length)
    found[:, length - rows.shape[1] :] = rows
    return found


def _map(
    layer: TokenAttention, latents: Sequence[int], real: Bool[Tensor, " M"]
) -> CrossAttentionMap:
    heads = layer.weights.mean(dim=1)
    scores = layer.scores[:, list(latents)]
    scores = scores.masked_fill(scores == float("-inf"), float("nan"))  # later tokens
    return CrossAttentionMap(
        name=f"encoder.model.{layer.name}.attention",
        share=_placed(heads.mean(dim=0), real),
        heads=_placed(heads, real),
        weights=_placed(layer.weights[:, list(latents)], real),
        head_scores=_placed(scores, real, fill=float("-inf")),
    )


def _placed(
    values: Float[Tensor, "*rows L"], real: Bool[Tensor, " M"], fill: float = 0.0
) -> Float[Tensor, "*rows M"]:
    """Return values of the start and of the last tokens as values of elements, without that of the start."""
    found = torch.full((*values.shape[:-1], len(real)), fill)
    places = real.nonzero()[:, 0]
    count = min(len(places), values.shape[-1])  # fewer than the tokens: the context was cut
    if count:
        found[..., places[len(places) - count :]] = values[..., -count:].float().cpu()
    return found


def _mean(found: Sequence[Attribution]) -> Attribution:
    """Return the average of the members of an ensemble; maps of single layers are those of the first."""
    elements = torch.stack([one.rolled.elements for one in found]).mean(dim=0)
    kept = torch.stack([one.rolled.kept for one in found]).mean(dim=0)
    outputs = torch.stack([one.outputs for one in found]).softmax(dim=-1).mean(dim=0).log()
    return Attribution(
        outputs=outputs, maps=found[0].maps, rolled=RolledUp(elements=elements, kept=kept)
    )
