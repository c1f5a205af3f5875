"""Explanation of a sample: the output of the model and the attention of each cross-attention, as arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from perceivers.explain.contents.base import View


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Output of a model for one sample, and the attention of each cross-attention.

    Attributes:
        name: Name of the file, or files.
        task: Kind of the output: `classification`, `multilabel` or `regression`.
        label_names: All labels; in a regression, the names of the numbers.
        probabilities: Probability of each label; in a regression, the numbers.
        threshold: Probability from which a label of a multilabel output counts as predicted.
        views: View of each modality that the sample has.
        latents: Indices of the latents in `View.scores`.
        missing: Modalities that the sample lacks.
        query: Attention of the output's own query to each latent. None: the output has no query of its own.
        map: Kind of the views' summaries: one of `perceivers.explain.attribution.attribute.MAPS`.
        about: Class that the summaries are about, if they are about one.
    """

    name: str
    task: str = "classification"
    label_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    threshold: float = 0.5
    views: tuple[View, ...]
    latents: tuple[int, ...]
    missing: tuple[str, ...] = ()
    query: npt.NDArray[np.float32] | None = None
    map: str = "mean"
    about: str | None = None


def arrays_of(explanation: Explanation) -> dict[str, npt.NDArray[np.generic]]:
    """Return an explanation as named arrays, for an archive.

    Of several modalities, the arrays of each have its name and a dot before theirs (`audio.attention`).
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "name": np.array(explanation.name),
        "task": np.array(explanation.task),
        "label_names": np.array(explanation.label_names),
        "probabilities": explanation.probabilities,
        "latents": np.array(explanation.latents),
        "modalities": np.array([view.name for view in explanation.views]),
        "map": np.array(explanation.map),
        "about": np.array(explanation.about or ""),
    }
    if explanation.query is not None:
        arrays["query_latents"] = explanation.query
    single = len(explanation.views) == 1 and not explanation.missing
    for view in explanation.views:
        prefix = "" if single else f"{view.name}."
        arrays |= {prefix + name: array for name, array in _arrays_of_view(view)}
    return arrays


def _arrays_of_view(view: View) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    """Yield names and arrays of a view, without padding at the end of a single axis of elements.

    Single heads are left out where there is only one: they add nothing.
    """
    several = view.heads is not None and view.heads.shape[1] > 1
    maps = {
        "attention": view.attention,
        "scores": view.scores,
        "query": view.query,
        "summary": view.summary,
        "latent_attention": view.latents,
        "latent_rollup": view.rolled,
        "head_attention": view.heads if several else None,
        "head_scores": view.head_scores if several else None,
    }
    count = view.content.num_elements(view)
    yield from ((name, array[..., :count]) for name, array in maps.items() if array is not None)
    yield from {"share": view.share, "even": np.asarray(view.even)}.items()
    for field in fields(view.content):
        name = view.content.array_names.get(field.name, field.name)
        yield name, np.asarray(getattr(view.content, field.name))
