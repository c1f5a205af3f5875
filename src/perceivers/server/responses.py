"""What a model says, as JSON."""

import base64
import io
import math
from typing import Any

from PIL import Image

from perceivers.evaluation.color_wheel import flow_colors
from perceivers.evaluation.prediction import Prediction
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, names_of

__all__ = ["answers_of", "described"]


def described(task: TaskConfig) -> list[dict[str, Any]]:
    """Return which answers a model gives: the name, kind and classes (or names of numbers) of each."""
    if isinstance(task, MultiTaskConfig):
        return [
            {"name": name, "kind": part.kind, "classes": list(names_of(part))}
            for name, part in task.parts.items()
        ]
    return [{"name": "answer", "kind": task.kind, "classes": list(names_of(task))}]


def answers_of(prediction: Prediction, task: TaskConfig, top: int = 5) -> list[dict[str, Any]]:
    """Return the answers of a prediction, of several tasks one for each, in the order of `described`.

    Each has `name` and `kind`, and what its task gives: `label` and `top` (`label` and `score` of the best), `labels`
    where there may be several, `values` by name, `text` and `blanks`, `picture` as PNG.

    Args:
        prediction: Of one sample.
        task: Which was learned.
        top: How many of the best labels are told.
    """
    if isinstance(task, MultiTaskConfig):
        return [
            _answer(name, part.kind, prediction.tasks[name], top)
            for name, part in task.parts.items()
        ]
    return [_answer("answer", task.kind, prediction, top)]


def _answer(name: str, kind: str, said: Prediction, top: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "kind": kind}
    if said.blanks:
        found |= {"text": said.text, "score": said.probability}
        found["blanks"] = [_scored(blank[:top]) for blank in said.blanks]
    elif said.label:
        found |= {"label": said.label, "top": _scored(said.top[:top])}
    if said.labels is not None:
        found["labels"] = list(said.labels)
    if said.values:
        found["values"] = {
            key: value if math.isfinite(value) else None for key, value in said.values.items()
        }
    picture = said.picture
    if said.flow is not None:
        picture = Image.fromarray(flow_colors(said.flow))
    if picture is not None:
        found["picture"] = _png(picture)
    restored = {
        key: _png(Image.fromarray(pair.restored.squeeze()))
        for key, pair in said.reconstructions.items()
        if pair.kind == "image"
    }
    if restored:
        found["pictures"] = restored
    return found


def _scored(top: tuple[tuple[str, float], ...]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in top]


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
