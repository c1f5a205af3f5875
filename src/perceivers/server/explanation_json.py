"""An explanation as plain data: what a page needs to draw where a model looked, and nothing that it has to compute."""

import base64
import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.explain.attribution.contents import (
    Cloud,
    Fields,
    Film,
    Passage,
    Picture,
    Recording,
    Spectrogram,
    Values,
    Wave,
    letters_of,
)
from perceivers.explain.attribution.explanation import Explanation, View

POINTS = 8000  # drawn at most: a page turns them while a finger moves
COLUMNS = 800  # of a waveform: about what a screen has
STEPS = 4000  # of a recording that are drawn

Array = npt.NDArray[Any]
Which = int | Literal["all"]


def views(explanation: Explanation, *, read: Which = "all") -> list[dict[str, Any]]:
    """Return what each modality held and where the reads looked in it, as data that JSON can hold.

    Every view says the same of its maps: `axes` (elements along each axis), `extent` (how far they reach along each
    axis of what lies beneath, where 1 is its end), `low` and `high` (what the first and the last color stand for, in
    multiples of an even share), `title` (what to call the map of the whole model) and `maps`, each with `read` (its
    number, `all` for the whole model, `asked` for what the answer's own query looked at) and `values`: a byte for each
    element in base64, 0 where there is none, else 1 for `low` to 255 for `high`. What lies beneath depends on `media`:
    a picture as PNG, frames, points, letters, lines.

    Args:
        explanation: Of `perceivers.explain.attribution.explain.explain`.
        read: Only this read's map, from 0 on. By default all of them, and first what they looked at together.

    Raises:
        ValueError: If there is no such read.
    """
    return [_view(view, read, explanation.map) for view in explanation.views]


def _view(view: View, read: Which, kind: str) -> dict[str, Any]:
    beneath, extent, attention_of = _CONTENTS[type(view.content)](view.content, view)
    maps = [(which, attention_of(values)) for which, values in _maps(view, read, kind)]
    high = max(_high(values) for _, values in maps)
    return {
        "input": view.name,
        **beneath,
        "axes": list(maps[0][1].shape),
        "extent": extent,
        "low": 0.0,
        "high": round(high, 3),
        "title": view.summary_title or "all reads",
        "maps": [{"read": which, "values": _bytes_of(values, high)} for which, values in maps],
        "share": [round(float(share), 4) for share in view.share],
        "even": round(view.even, 4),
    }


def _maps(view: View, read: Which, kind: str) -> list[tuple[int | str, Array]]:
    """Return the maps that are wanted, each with what the page calls it by.

    Raises:
        ValueError: If there is no such read.
    """
    count = len(view.attention)
    if read != "all":
        if not 0 <= read < count:
            raise ValueError(f"Expected a read between 0 and {count - 1}, or 'all', got {read}.")
        return [(read, view.attention[read])]
    together = [("all", view.overall)] if count > 1 or kind not in ("mean", "last") else []
    asked = [] if view.asked is None else [("asked", view.asked)]
    return [*together, *enumerate(view.attention), *asked]


def _high(attention: Array) -> float:
    """Return the multiple of an even share that gets the strongest color: a single peak does not darken the rest."""
    seen = attention[np.isfinite(attention)]
    return max(float(np.percentile(seen, 99.5)), 1.5) if seen.size else 1.5


def _bytes_of(attention: Array, high: float) -> str:
    strength = np.clip(np.nan_to_num(attention) / high, 0, 1)
    levels = np.where(np.isfinite(attention), 1 + np.rint(254 * strength), 0)
    return base64.b64encode(levels.astype(np.uint8).tobytes()).decode()


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _gray(values: Array) -> npt.NDArray[np.uint8]:
    """Return any values as shades of gray; 0 where there are none. Silence is far below everything else: cut off."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [5, 99.7]) if finite.size else (0.0, 1.0)
    shades = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-6), 0, 1)
    return np.rint(255 * shades).astype(np.uint8)


def _rounded(values: Array) -> list[Any]:
    """Return numbers of five digits, None where there is none."""
    return [
        _rounded(part) if isinstance(part, np.ndarray) else _number(part)
        for part in np.asarray(values)
    ]


def _number(value: Any) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


# Each builder returns what lies beneath, how far the map reaches, and what turns a map of the model's elements into
# that which is sent.
Built = tuple[dict[str, Any], list[float], Callable[[Array], Array]]


def _whole(attention: Array) -> Array:
    return attention


def _picture(content: Picture, _: View) -> Built:
    height, width = content.pixels.shape[:2]
    beneath = {
        "media": "picture",
        "width": width,
        "height": height,
        "picture": _png(content.pixels),
    }
    return beneath, [1.0, 1.0], _whole


def _film(content: Film, view: View) -> Built:
    count, height, width = content.frames.shape[:3]
    covered = np.array(view.attention.shape[1:]) * content.step / (count, height, width)
    beneath = {
        "media": "film",
        "width": width,
        "height": height,
        "rate": content.rate,
        "seconds": count / content.rate,
        "frames": [_png(frame) for frame in content.frames],
        "step": content.step[0],
    }
    return beneath, [float(part) for part in covered], _whole


def _wave(content: Wave, view: View) -> Built:
    length = len(content.samples)
    starts = np.unique(np.linspace(0, length, min(length, COLUMNS) + 1).astype(int)[:-1])
    mono = content.samples.mean(axis=1)
    beneath = {
        "media": "sound",
        "seconds": length / content.rate,
        "lowest": _rounded(np.minimum.reduceat(mono, starts)),
        "highest": _rounded(np.maximum.reduceat(mono, starts)),
    }
    count = _real_length(view)
    return beneath, [count * content.step / length], lambda attention: attention[:count]


def _spectrogram(content: Spectrogram, view: View) -> Built:
    frames, bands = content.values.shape
    along, across = view.attention.shape[1:]
    beneath = {
        "media": "sound",
        "seconds": content.seconds,
        "picture": _png(_gray(content.values.T[::-1])),  # low frequencies below
        "width": frames,
        "height": bands,
        "hertz": _rounded(content.hertz),
    }
    extent = [across * content.step[1] / bands, along * content.step[0] / frames]
    # Rows are frequencies and columns are seconds, from the lowest: the page draws upwards.
    return beneath, [float(part) for part in extent], lambda attention: attention.T


def _cloud(content: Cloud, view: View) -> Built:
    real = np.flatnonzero(np.isfinite(view.overall) & np.isfinite(content.points).all(axis=1))
    if len(real) > POINTS:  # evenly through the list: no part of the cloud is favored
        real = real[np.linspace(0, len(real) - 1, POINTS).astype(int)]
    points = content.points[real].round(4)
    beneath = {"media": "points", "points": _rounded(points), "of": len(content.points)}
    return beneath, [1.0], lambda attention: attention[real]


def _passage(content: Passage, _: View) -> Built:
    letters = [[text, begin // content.step] for text, begin, _ in letters_of(content)]
    count = max(-(-len(content.units) // content.step), 1)
    beneath = {"media": "text", "letters": letters}
    return beneath, [1.0], lambda attention: attention[:count]


def _recording(content: Recording, view: View) -> Built:
    length = len(content.times)
    shown = np.unique(np.linspace(0, length - 1, min(length, STEPS)).astype(int))
    beneath = {
        "media": "series",
        "channels": list(content.channels),
        "unit": content.unit,
        "times": _rounded(content.times[shown]),
        "lines": _rounded(content.values[shown].T),
    }
    count = _real_length(view)
    return beneath, [count * content.step / length], lambda attention: attention[:count]


def _values(content: Values, _: View) -> Built:
    known = content.values[np.isfinite(content.values)]
    beneath = {
        "media": "array",
        "picture": _png(_gray(content.values.T)),
        "width": content.values.shape[0],
        "height": content.values.shape[1],
        "least": _number(known.min() if known.size else 0.0),
        "most": _number(known.max() if known.size else 0.0),
    }
    return beneath, [1.0], _whole


def _fields(content: Fields, _: View) -> Built:
    beneath = {"media": "values", "names": list(content.fields), "texts": list(content.texts)}
    return beneath, [1.0], _whole


def _real_length(view: View) -> int:
    """Return how many elements there are up to the last real one, at least one: what follows is padding."""
    real = np.flatnonzero(np.isfinite(view.overall))
    return int(real[-1]) + 1 if real.size else 1


_CONTENTS: dict[type, Callable[[Any, View], Built]] = {
    Picture: _picture,
    Film: _film,
    Wave: _wave,
    Spectrogram: _spectrogram,
    Cloud: _cloud,
    Passage: _passage,
    Recording: _recording,
    Values: _values,
    Fields: _fields,
}
