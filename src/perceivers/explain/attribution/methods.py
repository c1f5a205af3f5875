"""Ways to attribute an output to the elements: one for each kind of task whose model is not a plain Perceiver."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from perceivers.explain.attribution.attribute import Attribution, attribute
from perceivers.explain.attribution.next_token import attribute_tokens, num_latents, token_relevance
from perceivers.explain.attribution.rollup import relevance
from perceivers.tasks.base import Task
from perceivers.typing import Tensor


def _configured_latents(model: Any, *_: Any) -> int | None:
    return getattr(model.encoder.config, "num_latents", None)


@dataclass(frozen=True, kw_only=True)
class AttributionMethods:
    """Functions that attribute the output of a model for one sample.

    Attributes:
        attribute: Outputs and attention, as of `perceivers.explain.attribution.attribute.attribute`.
        relevance: Map weighted by a gradient, as of `perceivers.explain.attribution.rollup.relevance`.
        count_latents: Number of latents of a sample, from model, inputs and masks. None: as many as there are elements.
    """

    attribute: Callable[..., Attribution] = attribute
    relevance: Callable[..., Tensor] = relevance
    count_latents: Callable[..., int | None] = _configured_latents


def _of_next_token(task: Task) -> AttributionMethods:
    return AttributionMethods(
        attribute=partial(attribute_tokens, task),
        relevance=partial(token_relevance, task),
        count_latents=num_latents,
    )


_METHODS: dict[str, Callable[[Task], AttributionMethods]] = {"next_token": _of_next_token}


def attribution_methods(task: Task) -> AttributionMethods:
    """Return the methods of a task."""
    kind: Any = task.config.kind
    return _METHODS[kind](task) if kind in _METHODS else AttributionMethods()
