"""What a model says about one sample, and where each of its reads looked, as arrays that can be drawn or kept."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from perceivers.explain.attribution.contents import Content

# Names that say more in an archive, where everything lies side by side.
_KEPT = {"pixels": "picture", "units": "text"}


@dataclass(frozen=True, kw_only=True)
class View:
    """Where the reads looked in one modality.

    Attributes:
        name: Of the modality.
        content: What lies beneath.
        attention: For each read, how many times its even share among the elements of this modality each got:
            T x the axes of the elements. 1 everywhere means that the model looked nowhere in particular.
            NaN where an element is padding or missing, or a read had no access to it.
        share: For each read, what part of all attention this modality got.
        even: What part it would have got if every element got the same: its part of all real elements.
        scores: For each read and chosen latent, the scores before the softmax: T x L x the axes. NaN as above.
        asked: What the answer's own query looked at through the latents, as `attention`. None: it has none of its own.
        summary: The one map of the whole model, as `attention`. None: the mean of all reads.
        summary_title: What to call it.
        latents: For each read and chosen latent, its attention, averaged over heads: T x L x the axes, as `attention`.
        rolled: For each chosen latent, what it got through all layers: L x the axes, as `attention`.
        heads: For each read and head, attention averaged over latents: T x H x the axes, as `attention`.
        head_scores: For each read, head and chosen latent, the scores before the softmax: T x H x L x the axes.
    """

    name: str
    content: Content
    attention: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32]
    even: float
    scores: npt.NDArray[np.float32]
    asked: npt.NDArray[np.float32] | None = None
    summary: npt.NDArray[np.float32] | None = None
    summary_title: str = ""
    latents: npt.NDArray[np.float32] | None = None
    rolled: npt.NDArray[np.float32] | None = None
    heads: npt.NDArray[np.float32] | None = None
    head_scores: npt.NDArray[np.float32] | None = None

    @property
    def overall(self) -> npt.NDArray[np.float32]:
        """What was looked at in all, on the axes of the elements: the summary, or else the mean of all reads."""
        if self.summary is not None:
            return self.summary
        seen = np.isfinite(self.attention)
        total = np.where(seen, self.attention, 0).sum(axis=0)
        count = seen.sum(axis=0)
        mean = total / np.maximum(count, 1)
        return np.where(count > 0, mean, np.nan).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One sample, what the model says about it, and where each read looked.

    Attributes:
        name: The name of the file, or files.
        task: What the answer is: `classification`, `multilabel` or `regression`.
        label_names: All labels; in a regression, the names of the numbers.
        probabilities: Of each label; in a regression, the numbers.
        threshold: Probability from which a label counts as predicted, of several.
        views: One for each modality that was there.
        latents: Which latents `scores` is of.
        missing: Modalities that were not there.
        asked: What part of the answer's query each latent got. None: it has no query of its own.
        map: What the summaries of the views are: one of `perceivers.explain.attribution.attribute.MAPS`.
        about: The class that they are about, where they are about one.
    """

    name: str
    task: str = "classification"
    label_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    threshold: float = 0.5
    views: tuple[View, ...]
    latents: tuple[int, ...]
    missing: tuple[str, ...] = ()
    asked: npt.NDArray[np.float32] | None = None
    map: str = "mean"
    about: str | None = None


def arrays_of(explanation: Explanation) -> dict[str, npt.NDArray[np.generic]]:
    """Return everything as named arrays, for an archive.

    What belongs to a modality has its name before a dot (`audio.attention`), if there are several.
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
    if explanation.asked is not None:
        arrays["asked_latents"] = explanation.asked
    single = len(explanation.views) == 1 and not explanation.missing
    for view in explanation.views:
        before = "" if single else f"{view.name}."
        for part in ("attention", "share", "even", "scores"):
            arrays[before + part] = np.asarray(getattr(view, part))
        for key, part in _more(view):
            arrays[before + key] = part
        for field in fields(view.content):
            arrays[before + _KEPT.get(field.name, field.name)] = np.asarray(
                getattr(view.content, field.name)
            )
    return arrays


def _more(view: View) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield name and array of what not every view has. Heads alone say nothing new where there is one."""
    several = view.heads is not None and view.heads.shape[1] > 1
    kept = {
        "asked": view.asked,
        "summary": view.summary,
        "latent_attention": view.latents,
        "latent_rollup": view.rolled,
        "head_attention": view.heads if several else None,
        "head_scores": view.head_scores if several else None,
    }
    for name, part in kept.items():
        if part is not None:
            yield name, part
