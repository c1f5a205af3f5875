"""What an autoencoder's questions take over from its inputs: how many queries there are, and of how many values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import ReadoutConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import FourierQueriesConfig, LearnedQueriesConfig
from perceivers.tasks.autoencode import LABEL, AutoencodeConfig
from perceivers.tasks.reconstruction import ReconstructionConfig

__all__ = ["fill_autoencoder", "fill_label"]


@dataclass(frozen=True)
class _Known:
    """What is known of a modality: cells along each axis, values of a cell, and whether flags follow them."""

    size: tuple[int, ...]
    num_channels: int
    has_missing: bool = False


def fill_label(inputs: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the inputs with the number of classes of the label, if it is one of them."""
    return {
        name: replace(part, num_classes=num_classes) if part.kind == "label" else part
        for name, part in inputs.items()
    }


def fill_autoencoder(
    task: AutoencodeConfig,
    output: ReadoutConfig,
    inputs: Mapping[str, Any],
    preprocess: Mapping[str, Any],
) -> tuple[AutoencodeConfig, ReadoutConfig]:
    """Return the task and the decoder with what was open in them taken from how the modalities are read.

    Args:
        task: Of the recipe.
        output: Of the recipe, with an answer for each modality that the task reconstructs.
        inputs: Of each modality, with nothing open.
        preprocess: Of each modality, with nothing open: in what units its values are. Those that lack stay as read.

    Raises:
        ValueError: If an output is missing, or something can not be asked for.
    """
    names = {*task.parts, *([LABEL] if task.label_weight is not None else [])}
    if not isinstance(output, DecoderConfig) or set(output.answers) != names:
        told = ", ".join(output.answers) if isinstance(output, DecoderConfig) else output.kind
        msg = f"Expected output queries for {', '.join(sorted(names))}, which are to be reconstructed; got {told}."
        raise ValueError(msg)
    parts: dict[str, ReconstructionConfig] = {}
    answers = dict(output.answers)
    for name, part in task.parts.items():
        known = _known(name, inputs[name])
        units = _units(preprocess.get(name))
        parts[name] = replace(
            part,
            size=known.size,
            num_channels=known.num_channels,
            has_missing=known.has_missing,
            **units,
        )
        answers[name] = _filled(answers[name], parts[name])
    if LABEL in answers:
        head = replace(_linear(LABEL, answers[LABEL]), num_outputs=inputs[LABEL].num_classes)
        answers[LABEL] = replace(answers[LABEL], head=head)
    return replace(task, parts=parts), replace(output, answers=answers)


def _filled(answer: OutputConfig, part: ReconstructionConfig) -> OutputConfig:
    queries, grid = answer.queries, part.grid
    count, values = 1, part.num_channels or 1
    for cells, patch in zip(grid, part.patch, strict=True):
        count, values = count * cells, values * patch
    if isinstance(queries, FourierQueriesConfig):
        queries = replace(queries, size=grid)
    elif isinstance(queries, LearnedQueriesConfig):
        queries = replace(queries, num_queries=count)
    return replace(answer, queries=queries, head=replace(_linear("", answer), num_outputs=values))


def _linear(name: str, answer: OutputConfig) -> LinearHeadConfig:
    if not isinstance(answer.head, LinearHeadConfig):
        msg = f"Expected a linear head for what is reconstructed{f', {name}' if name else ''}; got {answer.head.kind}."
        raise ValueError(msg)
    return answer.head


def _known(name: str, part: Any) -> _Known:
    """Return what an adapter says about its modality.

    Raises:
        ValueError: If no query can ask for its values.
    """
    if part.kind in ("pixels", "patches", "convolved"):
        return _Known(part.size, part.num_channels)
    if part.kind in ("video", "video_convolved"):
        return _Known((part.num_frames, *part.size), part.num_channels)
    if part.kind in ("wave", "wave_convolved"):
        return _Known((part.num_samples,), part.num_channels)
    if part.kind in ("spectrogram", "spectrogram_convolved"):
        return _Known(part.size, 1)
    if part.kind in ("series", "series_convolved"):
        return _Known((part.length,), part.num_channels, part.has_missing)
    if part.kind == "array" and not part.num_coordinates:
        return _Known((part.length,), part.num_channels)
    why = (
        "its elements lie at coordinates of their own" if part.kind == "array" else "it is no grid"
    )
    msg = (
        f"'{name}' ({part.kind}) cannot be reconstructed: {why}, so no query can say which of its values it asks for. "
        "Leave it out with --columns."
    )
    raise ValueError(msg)


def _units(preprocess: Any) -> dict[str, Any]:
    """Return how values become those of the data again: pixels in [0, 1], samples in [-1, 1].

    Other values stay as they are read, in deviations of the training data, which are then the peak, too.
    """
    if preprocess is None:
        return {}
    if preprocess.kind in ("image", "video"):
        return {"mean": preprocess.mean, "std": preprocess.std, "low": 0.0, "high": 1.0}
    if preprocess.kind == "wave":
        return {"std": (preprocess.scale,), "low": -1.0, "high": 1.0}
    return {}
