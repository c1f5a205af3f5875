"""Data by path, hub id or object, or by the name of what is embedded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.open import open_data
from perceivers.data.tables.columns import InputColumn
from perceivers.data.targets.encode import KnownNames

__all__ = ["is_embedded", "open_named"]


def open_named(
    data: Any,
    config: DataConfig,
    *,
    label_names: KnownNames | None = None,
    inputs: Mapping[str, InputColumn] | None = None,
) -> DatasetBundle:
    """Return opened data. `digits` are scikit-learn's, `moving` made pairs of frames, unless there is such a path.

    Arguments and errors are those of `perceivers.data.sources.open.open_data`.

    Raises:
        ValueError: Also if the digits are given to a run that knows other labels.
    """
    if isinstance(data, DatasetBundle):
        return data
    if is_embedded(data, "moving"):
        from perceivers.data.sources.synthetic_flow import moving

        return moving()
    if is_embedded(data, "digits"):
        from perceivers.data.sources.digits import digits

        source = digits()
        if label_names is not None and tuple(label_names) != source.label_names:
            msg = (
                f"The embedded digits have the labels {', '.join(source.label_names)}; the run learned "
                f"{', '.join(label_names)}."
            )
            raise ValueError(msg)
        return source
    return open_data(data, config, label_names=label_names, inputs=inputs)


def is_embedded(data: Any, name: str) -> bool:
    """Return whether these are the embedded data of some name, and no path.

    Args:
        data: What was given.
        name: `digits` or `moving`.
    """
    return isinstance(data, str) and data == name and not Path(data).exists()
