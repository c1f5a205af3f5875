"""Data by path, hub id or object, or by the name of what is embedded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.sources import DataSource, open_data

__all__ = ["open_named"]


def open_named(
    data: Any, config: DataConfig, *, label_names: Sequence[str] | None = None
) -> DataSource:
    """Return opened data. `digits` are scikit-learn's, unless there is a path of this name.

    Arguments and errors are those of `perceivers.data.sources.open_data`.
    """
    if isinstance(data, DataSource):
        return data
    if isinstance(data, str) and data == "digits" and not Path("digits").exists():
        from perceivers.data.digits import digits

        source = digits()
        return source if label_names is None else replace(source, label_names=tuple(label_names))
    return open_data(data, config, label_names=label_names)
