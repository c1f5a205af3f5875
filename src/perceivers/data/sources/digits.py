"""The embedded default: 1,797 real handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

import numpy as np

from perceivers.data.base import require
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.split import Subset, hold_out
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable, Field
from perceivers.data.targets.classes import describe_classes

__all__ = ["digits"]


def digits() -> DatasetBundle:
    """Return scikit-learn's handwritten digits, a stratified fifth of them as test, the same one every time.

    Raises:
        ImportError: If scikit-learn is not installed.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test set.
    """
    bunch = require("sklearn.datasets", "quickstart").load_digits()
    labels = [int(label) for label in bunch.target]
    names = tuple(str(digit) for digit in range(10))
    table = ColumnTable(
        name="digits",
        columns={
            # Each pixel counts the dark ones of 4 x 4, so it lies in 0 to 16.
            "image": np.rint(bunch.images * (255 / 16)).astype(np.uint8),
            "label": labels,
        },
        fields={"image": Field("image"), "label": Field("number", names=names)},
    )
    train, test = hold_out(labels, None, 0.2, seed=0)
    return DatasetBundle(
        form="scikit-learn's handwritten digits",
        splits={"train": Subset(table, train), "test": Subset(table, test)},
        inputs={"image": InputColumn("image", "image")},
        target="label",
        label_names=names,
        notes=(
            f"Recognized scikit-learn's handwritten digits, 8 x 8 pixels: train {len(train):,} rows, test "
            f"{len(test):,} rows (held out, stratified by class).",
            describe_classes(names),
        ),
    )
