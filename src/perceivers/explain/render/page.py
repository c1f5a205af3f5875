"""One page with everything in it: no server, no other host. Its looks and its script are `static/page.html`."""

import base64
import io
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

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

MOST = 2**23  # numbers of single latents in a page; beyond it they are left to the npz
COLUMNS = 900
SIDE = 128  # cells of a picture's map along each axis
HERTZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)

Array = npt.NDArray[Any]
Json = dict[str, Any]


def page_of(explanation: Explanation) -> str:
    """Return the page of an explanation as HTML: a slider over reads, a choice of latents, clouds that turn."""
    best = np.argsort(-explanation.probabilities, kind="stable")
    if explanation.task == "regression":
        best = np.arange(len(best))
    bars = [[explanation.label_names[i], float(explanation.probabilities[i])] for i in best[:8]]
    told: Json = {
        "name": explanation.name,
        "task": explanation.task,
        "bars": bars,
        "map": explanation.map,
        "about": explanation.about,
        "missing": list(explanation.missing),
        "latents": list(explanation.latents),
        "views": [_view(view) for view in explanation.views],
    }
    # Inside of a script, only the end of it could be taken for something else.
    data = json.dumps(told, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return _template().replace("/*DATA*/null", data.replace("<!--", "<\\!--"), 1)


def _template() -> str:
    return (files("perceivers.explain.render") / "static" / "page.html").read_text(encoding="utf-8")


def _view(view: View) -> Json:
    """Return a modality for the page: what lies beneath, and maps of all reads and of single latents."""
    content: Json = _CONTENTS[type(view.content)](view)
    oriented = _oriented(view)
    told: Json = {
        "name": view.name,
        "share": [round(float(part), 4) for part in view.share],
        "summary": _packed(oriented(view.overall)),
        "summaryTitle": view.summary_title,
        "reads": [_packed(oriented(attention)) for attention in view.attention],
        **content,
    }
    if view.latents is None or view.rolled is None or 2 * view.latents.size > MOST:
        return told
    told["latents"] = [[_packed(oriented(one)) for one in read] for read in view.latents]
    told["scores"] = [[_packed(oriented(one)) for one in read] for read in view.scores]
    told["rolled"] = [_packed(oriented(one)) for one in view.rolled]
    return told


def _oriented(view: View) -> Callable[[Array], Array]:
    """Return what turns a map as the page draws it: rows downwards, and not finer than it can be seen."""
    if isinstance(view.content, Spectrogram):
        return lambda attention: attention.T[::-1]
    if isinstance(view.content, Picture):
        return _coarser
    return lambda attention: attention


def _coarser(attention: Array) -> Array:
    """Return a map in cells of as many elements as needed, their mean."""
    rows, columns = (max(-(-size // SIDE), 1) for size in attention.shape)
    if rows == columns == 1:
        return attention
    down, right = -attention.shape[0] % rows, -attention.shape[1] % columns
    filled = np.pad(attention, ((0, down), (0, right)), constant_values=np.nan)
    cells = filled.reshape(filled.shape[0] // rows, rows, -1, columns)
    seen = np.isfinite(cells)
    total, count = np.where(seen, cells, 0).sum(axis=(1, 3)), seen.sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _packed(values: Array) -> Json:
    """Return numbers as bytes between two ends: 0 where there is none, else 1 to 255."""
    seen = np.isfinite(values)
    low, high = (float(values[seen].min()), float(values[seen].max())) if seen.any() else (0.0, 1.0)
    level = (np.where(seen, values, low) - low) / max(high - low, 1e-12)
    data = np.where(seen, 1 + np.rint(254 * level), 0).astype(np.uint8)
    packed = base64.b64encode(np.ascontiguousarray(data).tobytes()).decode()
    return {"low": low, "high": high, "shape": list(values.shape), "data": packed}


def _image(pixels: Array, *, kind: str = "PNG") -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _picture(view: View) -> Json:
    assert isinstance(view.content, Picture)
    image = Image.fromarray(view.content.pixels)
    image.thumbnail((1024, 1024))
    pixels = np.asarray(image)
    return {"kind": "grid", "frames": [_image(pixels)], "size": list(pixels.shape[:2])}


def _film(view: View) -> Json:
    content = view.content
    assert isinstance(content, Film)
    height, width = content.frames.shape[1:3]
    covered = np.array(view.attention.shape[2:]) * content.step[1:] / (height, width)
    return {
        "kind": "grid",
        "frames": [_image(frame, kind="JPEG") for frame in content.frames],
        "size": [height, width],
        "covered": covered.tolist(),
        "rate": content.rate,
        "step": content.step[0],
    }


def _spectrogram(view: View) -> Json:
    content = view.content
    assert isinstance(content, Spectrogram)
    finite = content.values[np.isfinite(content.values)]
    low, high = np.percentile(finite, [5, 99.7]) if finite.size else (0.0, 1.0)
    level = (np.nan_to_num(content.values, nan=low) - low) / max(high - low, 1e-6)
    gray = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8).T[::-1]
    frames, bands = content.values.shape
    along, across = np.array(view.attention.shape[1:]) * content.step
    marks: list[list[Any]] = []
    if len(content.hertz) == bands:
        for hertz in HERTZ:
            if content.hertz[0] <= hertz <= content.hertz[-1]:
                place = float(np.interp(hertz, content.hertz, np.arange(bands)))
                name = f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz"
                marks.append([1 - (place + 0.5) / bands, name])
    return {
        "kind": "grid",
        "frames": [_image(np.ascontiguousarray(gray))],
        "size": [bands, frames],
        "covered": [float(across / bands), float(along / frames)],
        "up": True,
        "seconds": content.seconds,
        "marks": marks,
    }


def _wave(view: View) -> Json:
    content = view.content
    assert isinstance(content, Wave)
    lines = [["wave", *_envelope(channel)] for channel in content.samples.T]
    end = view.attention.shape[1] * content.step / content.rate
    return _lines(lines, len(content.samples) / content.rate, end, "seconds")


def _recording(view: View) -> Json:
    content = view.content
    assert isinstance(content, Recording)
    names = content.channels or tuple(f"channel {i}" for i in range(content.values.shape[1]))
    lines = [[name, *_envelope(one)] for name, one in zip(names, content.values.T, strict=False)]
    times = content.times
    step = (times[-1] - times[0]) / max(len(times) - 1, 1) if len(times) else 1.0
    length = float(step) * max(len(times), 1)
    end = view.attention.shape[1] * content.step * float(step)
    return _lines(lines[:24], length, end, "seconds" if content.unit == "s" else content.unit)


def _values(view: View) -> Json:
    content = view.content
    assert isinstance(content, Values)
    count = len(content.values)
    lines = [[f"channel {i}", *_envelope(one)] for i, one in enumerate(content.values.T[:24])]
    return _lines(lines, count, view.attention.shape[1], "element")


def _lines(lines: list[list[Any]], length: float, covered: float, unit: str) -> Json:
    return {"kind": "lines", "lines": lines, "length": length, "covered": covered, "unit": unit}


def _envelope(channel: Array) -> list[list[float | None]]:
    """Return the lowest and highest value of each column, at most so many."""
    starts = np.unique(
        np.linspace(0, len(channel), min(len(channel), COLUMNS) + 1).astype(int)[:-1]
    )
    return [
        [None if np.isnan(value) else round(float(value), 5) for value in ends]
        for ends in (np.fmin.reduceat(channel, starts), np.fmax.reduceat(channel, starts))
    ]


def _passage(view: View) -> Json:
    content = view.content
    assert isinstance(content, Passage)
    step = content.step
    letters = [[text, first // step, -(-last // step)] for text, first, last in letters_of(content)]
    return {"kind": "text", "letters": letters}


def _cloud(view: View) -> Json:
    content = view.content
    assert isinstance(content, Cloud)
    seen = np.isfinite(content.points).all(axis=1)
    points = content.points[seen] if seen.any() else np.zeros((1, 3), np.float32)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    half = max(float(np.abs(points - middle).max()), 1e-6)
    placed = np.nan_to_num((content.points - middle) / half)
    return {"kind": "cloud", "points": np.round(placed, 4).ravel().tolist()}


def _fields(view: View) -> Json:
    content = view.content
    assert isinstance(content, Fields)
    pairs = zip(content.fields, content.texts, strict=True)
    return {"kind": "fields", "fields": [f"{name} = {text or '(missing)'}" for name, text in pairs]}


_CONTENTS: dict[type, Callable[[View], Json]] = {
    Picture: _picture,
    Film: _film,
    Spectrogram: _spectrogram,
    Wave: _wave,
    Recording: _recording,
    Values: _values,
    Passage: _passage,
    Cloud: _cloud,
    Fields: _fields,
}
