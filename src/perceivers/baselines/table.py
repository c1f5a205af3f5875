"""Features of tables: numbers as they are, and one number for each name of a category."""

from typing import Any

import numpy as np

from perceivers.baselines.views import Array, Features, Values, register_features


def collect_fields(values: Array, mask: Array | None, preprocess: Any) -> list[Values]:
    """Return numbers, NaN where one is missing, and for each category 1 at the place of its name, B x F."""
    known = np.ones_like(values, bool) if mask is None else mask
    count = len(preprocess.numbers)
    parts = [np.where(known[:, :count], values[:, :count], np.nan)]
    for column, names in enumerate(preprocess.categories.values(), start=count):
        places = np.where(known[:, column], values[:, column], -1).astype(int)
        parts.append(places[:, None] == np.arange(len(names)))
    return list(np.concatenate(parts, axis=1).astype(np.float32))


register_features("table", Features(collect=collect_fields, name="the columns"))
