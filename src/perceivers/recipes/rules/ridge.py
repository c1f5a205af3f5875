"""Ridge regression in rules: the share of a target that a linear model of simple features explains."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]

_STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def left_out_errors(features: Values, targets: Values) -> Values:
    """Return the error of each row's prediction by ridge regression on all other rows, at its best strength.

    Args:
        features: N x D, a few hundred rows. They are standardized.
        targets: N x K.
    """
    centered = features - features.mean(axis=0)
    centered /= features.std(axis=0) + 1e-6
    values, vectors = np.linalg.eigh(centered @ centered.T / features.shape[1] + 1)
    found = targets
    lowest = np.inf
    for strength in _STRENGTHS:
        inverse = (vectors / (values + strength)) @ vectors.T
        errors = (inverse @ targets) / np.diag(inverse)[:, None]
        error = float(np.square(errors).mean())
        if error < lowest:
            found, lowest = errors, error
    return found


def explained_share(features: Values, targets: Values) -> float:
    """Return the share of the targets' variance that ridge regression explains in rows that it has not seen (R2)."""
    scaled = (targets - targets.mean(axis=0)) / (targets.std(axis=0) + 1e-12)
    return 1.0 - float(np.square(left_out_errors(features, scaled)).mean())
