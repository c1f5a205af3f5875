"""Principal components of the weights of a linear model."""

import torch

from perceivers.typing import Float, Tensor


def principal_components(
    weights: Float[Tensor, "R K"], most: int
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "K C"]]:
    """Return coordinates and axes whose product, coordinates @ axes.T, is nearest to the weights.

    Args:
        weights: Weights of R features for K outputs.
        most: Largest number of components, C; there are fewer where the weights have a smaller rank.
    """
    # The eigenvectors of K x K numbers: the number of features may be large.
    values, vectors = torch.linalg.eigh(weights.double().T @ weights.double())
    axes = vectors[:, values > 1e-9 * values.max()].flip(1)[:, :most].to(weights.dtype)
    return weights @ axes, axes
