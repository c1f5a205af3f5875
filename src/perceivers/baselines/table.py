"""Features of tables: numbers as they are, and one number for each name of a category."""

from typing import Any

import numpy as np

from perceivers.baselines.views import Array, Features, Values, register_features
from perceivers.data.modalities.table.modality import numbers_and_names


def collect_fields(values: Array, mask: Array | None, preprocess: Any) -> list[Values]:
    """Return numbers, NaN where one is missing, and for each category 1 at the place of its name, B x F."""
    found = values if mask is None else np.where(mask, values, np.nan)
    return list(numbers_and_names(found, preprocess))


register_features("table", Features(collect=collect_fields, name="the columns"))
