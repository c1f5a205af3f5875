"""Built-in data sets: `builtin:digits` (handwritten digits) and `builtin:flow` (synthetic frame pairs)."""

import numpy as np

from perceivers.data.base import nearest
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.split import hold_out
from perceivers.data.sources.synthetic_flow import synthetic_flow
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable, Field, Subset
from perceivers.data.targets.classes import describe_classes
from perceivers.optional import require

PREFIX = "builtin:"


def open_builtin(name: str) -> DatasetBundle:
    """Return a built-in data set.

    Args:
        name: `builtin:digits` or `builtin:flow`.

    Raises:
        ValueError: If there is no such data set.
    """
    known = {f"{PREFIX}digits": digits, f"{PREFIX}flow": synthetic_flow}
    if name not in known:
        raise ValueError(
            f"There are no built-in data '{name}'.{nearest(name, known)} There are {', '.join(known)}."
        )
    return known[name]()


def digits() -> DatasetBundle:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a fixed, stratified fifth of them is test.

    Raises:
        ImportError: If scikit-learn is not installed.

    Reference: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), its test set.
    """
    bunch = require("sklearn.datasets", "quickstart").load_digits()
    labels = [int(label) for label in bunch.target]
    names = tuple(str(digit) for digit in range(10))
    table = ColumnTable(
        name="digits",
        columns={
            # Each pixel counts the dark ones of 4 x 4: 0 to 16.
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
