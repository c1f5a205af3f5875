"""Explanations as JSON, for the JavaScript views that the self-contained page and the server's page share.

An explanation is an object with these keys:

- `version`: `VERSION`; another version has other keys;
- `name`, `missing`: name of the sample, and modalities that it lacks;
- `task`, `map`, `about`: kind of the output, kind of the map of the whole model, and the class of this map;
- `answers`: the answer, with `name`, `task` and, by task, `label`, `probability`, `labels` and `top`, or `values`;
- `views`: one view for each modality.

A view is an object with these keys:

- `input`: name of the modality;
- `media`: JavaScript view that draws it, and the keys of `Content.to_json`;
- `extent`: fraction of each axis of the content that the elements cover;
- `axes`: length of each axis of its maps;
- `low`, `high`: values of the first and the last color, in multiples of an even share; `largest`: the largest value of
  its maps, which has the last color, too;
- `maps`: maps with `cross_attention` (its index, `all` for the whole model, or `query` for the output's own query),
  `title`, `values` (a byte for each element in base64: 0 where it is missing, else 1 for `low` to 255 for `high`) and,
  in some views, `numbers`;
- `share`, `even`: fraction of each cross-attention's attention on the modality, and its fraction of all elements;
- `latents`: in a page, `latent`, `attention` and `scores` of single latents, each with `low`, `high` and `maps`.
"""

import base64
from typing import Literal

import numpy as np

from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.contents.base import (
    Array,
    Json,
    View,
    largest_of,
    number_list,
    scale_of,
)

Maps = dict[int | str, tuple[str, Array]]
"""Title and map by key, as in `View.maps`."""

VERSION = 2
TOP = 8  # labels
LATENTS = 2**23  # numbers of single latents in a page; beyond it they are left to the npz
SIDE = 128  # elements of an image's map along each axis in a page


def explanation_json(explanation: Explanation) -> Json:
    """Return a whole explanation as JSON, with the maps of single latents.

    Maps of images are reduced to `SIDE` x `SIDE`, and single latents are left out if they have more than `LATENTS`
    numbers.
    """
    return {
        "version": VERSION,
        "name": explanation.name,
        "task": explanation.task,
        "map": explanation.map,
        "about": explanation.about,
        "missing": list(explanation.missing),
        "answers": [_answer(explanation)],
        "views": [
            _view(view, view.maps, side=SIDE) | {"latents": _latents(view, explanation.latents)}
            for view in explanation.views
        ],
    }


def views_json(
    explanation: Explanation, *, cross_attention: int | Literal["all"] = "all"
) -> list[Json]:
    """Return the view of each modality as JSON, with one cross-attention, or with all after the summary.

    Raises:
        ValueError: If the model has no such cross-attention.
    """
    views: list[Json] = []
    for view in explanation.views:
        maps: Maps = view.maps
        if cross_attention != "all":
            if cross_attention not in maps:
                last = len(view.attention) - 1
                raise ValueError(
                    f"Expected a cross-attention between 0 and {last}, or 'all', got {cross_attention}."
                )
            maps = {cross_attention: maps[cross_attention]}
        views.append(_view(view, maps))
    return views


def _view(view: View, maps: Maps, side: int | None = None) -> Json:
    first = _reduced(view.content.arrange(next(iter(maps.values()))[1], view), side)
    return {
        "input": view.name,
        **view.content.to_json(view),
        "axes": list(first.shape),
        **_map_set(view, maps, (0.0, view.scale), side),
        "share": [round(float(share), 4) for share in view.share],
        "even": round(view.even, 4),
    }


def _latents(view: View, latents: tuple[int, ...]) -> list[Json]:
    """Return the attention and scores of single latents."""
    if view.latents is None or view.rolled is None or 2 * view.latents.size > LATENTS:
        return []
    found: list[Json] = []
    for place, latent in enumerate(latents):
        maps: Maps = {"all": ("all layers", view.rolled[place])}
        maps |= {t: (view.maps[t][0], one[place]) for t, one in enumerate(view.latents)}
        scores: Maps = {t: (view.maps[t][0], one[place]) for t, one in enumerate(view.scores)}
        scale = scale_of([attention for _, attention in maps.values()])
        seen = view.scores[:, place][np.isfinite(view.scores[:, place])]
        ends = np.percentile(seen, [1, 99.5]) if seen.size else np.array([0.0, 1.0])
        found.append(
            {
                "latent": latent,
                "attention": _map_set(view, maps, (0.0, scale), SIDE),
                "scores": _map_set(view, scores, (float(ends[0]), float(ends[1])), SIDE),
            }
        )
    return found


def _map_set(view: View, maps: Maps, ends: tuple[float, float], side: int | None) -> Json:
    """Return maps on one scale."""
    found: list[Json] = []
    for key, (title, attention) in maps.items():
        arranged = _reduced(view.content.arrange(attention, view), side)
        one: Json = {"cross_attention": key, "title": title, "values": _packed(arranged, *ends)}
        if view.content.has_numbers:
            one["numbers"] = number_list(arranged)
        found.append(one)
    largest = largest_of([attention for _, attention in maps.values()])
    scale = {"low": round(ends[0], 3), "high": round(ends[1], 3), "largest": round(largest, 3)}
    return {**scale, "maps": found}


def _packed(values: Array, low: float, high: float) -> str:
    level = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-9), 0, 1)
    levels = np.where(np.isfinite(values), 1 + np.rint(254 * level), 0)
    return base64.b64encode(levels.astype(np.uint8).tobytes()).decode()


def _reduced(attention: Array, side: int | None) -> Array:
    """Return a map of two axes in at most `side` cells along each: the mean of their elements."""
    if side is None or attention.ndim != 2 or max(attention.shape) <= side:
        return attention
    rows, columns = (max(-(-size // side), 1) for size in attention.shape)
    down, right = -attention.shape[0] % rows, -attention.shape[1] % columns
    filled = np.pad(attention, ((0, down), (0, right)), constant_values=np.nan)
    cells = filled.reshape(filled.shape[0] // rows, rows, -1, columns)
    seen = np.isfinite(cells)
    total, count = np.where(seen, cells, 0).sum(axis=(1, 3)), seen.sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _answer(explanation: Explanation) -> Json:
    """Return the output as an answer of `perceivers predict`, with at most `TOP` labels or numbers."""
    names, values = explanation.label_names, explanation.probabilities
    found: Json = {"name": explanation.name, "task": explanation.task}
    if explanation.task == "regression":
        shown = dict(zip(names[:TOP], number_list(values[:TOP]), strict=True))
        return found | {"values": shown}
    best = np.argsort(-values, kind="stable")
    top = [{"label": names[i], "probability": float(values[i])} for i in best[:TOP]]
    found |= dict(top[0]) if top else {}
    if explanation.task == "multilabel":
        found["labels"] = [names[i] for i in best if values[i] >= explanation.threshold]
    return found | {"top": top}
