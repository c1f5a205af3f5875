"""What an input adapter takes over from how its modality is read: sizes and channels stand in one place only."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.modality import measure_arrays
from perceivers.data.modalities.audio.modality import measure_audio
from perceivers.data.modalities.flow.frame_pairs import measure_frame_pairs
from perceivers.data.modalities.image.pixel_targets import measure_class_maps, measure_pixels
from perceivers.data.modalities.points.modality import measure_points
from perceivers.data.modalities.series.modality import measure_series
from perceivers.data.modalities.table.modality import measure_vectors
from perceivers.data.modalities.text.modality import measure_text
from perceivers.data.modalities.video.modality import measure_video
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve_tasks import fill_label

_MEASURES: dict[str, Callable[..., Any]] = {
    "wave": measure_audio,
    "mel": measure_audio,
    "points": measure_points,
    "text": measure_text,
    "series": measure_series,
    "array": measure_arrays,
    "table": measure_vectors,
    "frame_pair": measure_frame_pairs,
    "pixels": measure_pixels,
    "class_map": measure_class_maps,
}

# What data that nobody has seen are taken to be, to tell the cost of a recipe.
_ASSUMED_SIZE, _ASSUMED_CLASSES = (64, 64), 10
_ASSUMED: dict[str, dict[str, Any]] = {
    "wave": {"sample_rate": 16_000, "seconds": 2.0},
    "mel": {"sample_rate": 16_000, "seconds": 2.0},
    "video": {"num_frames": 16, "frame_rate": 8.0, "size": (64, 64)},
    "points": {"num_points": 1024, "num_channels": 0},
    "text": {"max_length": 1024},
    "series": {
        "length": 200,
        "channels": ("x", "y", "z"),
        "irregular": False,
        "has_missing": False,
    },
    "array": {"length": 100, "num_channels": 8, "num_coordinates": 0},
    "table": {"numbers": ("a", "b"), "categories": {"c": ("d", "e")}},
    "frame_pair": {"size": (64, 64)},
}


def measured(config: Any, cells: Iterable[EncodedItem], *, largest_image: int = 64) -> Any:
    """Return a `PreprocessConfig` with everything that it leaves open taken from cells of the training data.

    Args:
        config: Of a modality.
        cells: Some of its cells.
        largest_image: Longest side of films in pixels, where their size is taken from the data.

    Raises:
        ValueError: If none of them can be read.
    """
    if config.kind == "video":
        return measure_video(cells, config, largest=largest_image)
    return _MEASURES[config.kind](cells, config)


def assume(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return a recipe with what it leaves to the data assumed, where there are none yet; and sentences about it."""
    inputs, preprocess, sentences = _assumed_inputs(recipe)
    for name in recipe.task.target_modalities:
        known = {"num_classes": _ASSUMED_CLASSES, "num_channels": 3}
        missing = {key: n for key, n in known.items() if getattr(preprocess[name], key, n) is None}
        preprocess[name] = replace(preprocess[name], **missing)
        sentences += [
            f"The data decide {key} of the target; assuming {missing[key]}." for key in missing
        ]
    task = recipe.task.fit_to_inputs(inputs, preprocess)
    output, parts = recipe.output.fit_to_inputs(inputs), task.output_parts()
    unknown = [name for name, part in parts.items() if not part.num_outputs]
    if unknown and output.num_outputs is not None:
        unknown, parts = [], {}
    if unknown:
        sizes = {part.num_classes for part in inputs.values() if part.kind == "label"}
        count = next(iter(sizes - {None}), None)
        if count is None:
            count = _ASSUMED_CLASSES
            inputs = fill_label(inputs, count)
            sentences.append(f"The data decide the classes; assuming {count}.")
        parts |= {name: replace(parts[name], num_outputs=count) for name in unknown}
    filled = replace(
        recipe,
        inputs=inputs,
        preprocess=preprocess,
        output=output.fit_to(parts),
        task=task,
        augment=task.fit_augment(recipe.augment),
    )
    return filled, sentences


def _assumed_inputs(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return inputs and preprocessing with the sizes that a recipe leaves open assumed; and sentences about them."""
    sentences: list[str] = []
    inputs, preprocess = dict[str, Any](recipe.inputs), dict[str, Any](recipe.preprocess)
    for name, part in recipe.inputs.items():
        if part.kind == "label":
            continue
        if name in preprocess:
            known: dict[str, Any] = _ASSUMED[preprocess[name].kind]
            missing = {
                key: value
                for key, value in known.items()
                if getattr(preprocess[name], key) in (None, (), {})
            }
            preprocess[name] = replace(preprocess[name], **missing)
            inputs[name] = fill_input(part, preprocess[name])
        else:
            missing = {"size": _ASSUMED_SIZE} if getattr(part, "size", ()) is None else {}
            inputs[name] = replace(cast("Any", part), **missing)
        if missing:
            words = ", ".join(f"{key} {_shown(value)}" for key, value in missing.items())
            sentences.append(f"The data decide the size of '{name}'; assuming {words}.")
    preprocess |= {name: _sized(preprocess[name], inputs) for name in recipe.task.target_modalities}
    return inputs, preprocess, sentences


def _shown(value: Any) -> str:
    """Return a value as people write it: `64 x 64`, `x, y, z`."""
    if not isinstance(value, tuple):
        return str(value)
    parts = cast("tuple[Any, ...]", value)
    mark = " x " if all(isinstance(part, int) for part in parts) else ", "
    return mark.join(str(part) for part in parts)


def fill_input(part: Any, preprocess: Any) -> Any:
    """Return an `InputConfig` with the sizes and channels that its modality is read with.

    Args:
        part: Of the recipe, its sizes open or not.
        preprocess: Of the same modality, with nothing open.

    Raises:
        ValueError: If the two do not fit each other.
    """
    if preprocess.kind not in _FILLS or part.kind not in _FILLS[preprocess.kind][0]:
        fitting = [kind for kind, (parts, _) in _FILLS.items() if part.kind in parts]
        raise ValueError(
            f"An input of kind '{part.kind}' reads what is prepared as {' or '.join(fitting) or 'a picture'}; got "
            f"preprocess of kind '{preprocess.kind}'. Change one of the two in the recipe."
        )
    return replace(part, **_FILLS[preprocess.kind][1](preprocess))


def fill_answer(config: Any, cells: Iterable[EncodedItem], *, inputs: Mapping[str, Any]) -> Any:
    """Return the `PreprocessConfig` of a modality that is learned, with what it leaves open filled in.

    Its size is that of the first input that has one, as both are cut in the same way. All else is measured.

    Args:
        config: Of the answer.
        cells: Some of its cells in the training data.
        inputs: The preprocessing of every input, with nothing open.

    Raises:
        ValueError: If none of the cells can be read.
    """
    config = _sized(config, inputs)
    return measured(config, cells) if config.kind in _MEASURES else config


def _sized(config: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the `PreprocessConfig` of an answer with the size of an input, if it leaves that open."""
    sized = [part for part in inputs.values() if getattr(part, "size", None) is not None]
    if getattr(config, "size", ()) is not None or not sized:
        return config
    cut = {
        name: getattr(sized[0], name)
        for name in ("crop_fraction", "keep_aspect")
        if hasattr(config, name) and hasattr(sized[0], name)
    }
    return replace(config, size=sized[0].size, **cut)


def _of_wave(config: Any) -> dict[str, Any]:
    return {"num_samples": config.num_samples, "num_channels": config.num_channels}


def _of_mel(config: Any) -> dict[str, Any]:
    return {"size": (config.num_frames, config.num_mels)}


def _of_video(config: Any) -> dict[str, Any]:
    return {"num_frames": config.num_frames, "size": config.size}


def _of_points(config: Any) -> dict[str, Any]:
    return {"num_points": config.num_points, "num_channels": config.num_channels}


def _of_text(config: Any) -> dict[str, Any]:
    return {"max_length": config.max_length}


def _of_series(config: Any) -> dict[str, Any]:
    return {
        "length": config.length,
        "num_channels": len(config.channels),
        "has_missing": bool(config.has_missing),
        "irregular": bool(config.irregular),
    }


def _of_array(config: Any) -> dict[str, Any]:
    return {
        "length": config.length,
        "num_channels": config.num_channels,
        "num_coordinates": config.num_coordinates,
    }


def _of_table(config: Any) -> dict[str, Any]:
    sizes = tuple(len(names) for names in config.categories.values())
    return {"num_numbers": len(config.numbers), "category_sizes": sizes}


def _of_frame_pair(config: Any) -> dict[str, Any]:
    return {"size": config.size, "num_channels": config.num_channels}


# For each kind of preprocessing, the kinds of input that read it, and what they take over.
_FILLS: dict[str, tuple[tuple[str, ...], Callable[[Any], dict[str, Any]]]] = {
    "wave": (("wave", "wave_convolved"), _of_wave),
    "mel": (("spectrogram", "spectrogram_convolved"), _of_mel),
    "video": (("video", "video_convolved"), _of_video),
    "points": (("points",), _of_points),
    "text": (("bytes", "bytes_convolved"), _of_text),
    "series": (("series", "series_convolved"), _of_series),
    "array": (("array",), _of_array),
    "table": (("table",), _of_table),
    "frame_pair": (("frame_pair", "frame_pair_convolved"), _of_frame_pair),
}
