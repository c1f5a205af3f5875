"""Rate at which the running statistics of batch norms follow the batches."""

import torch
from torch import nn


def count_batch(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> float:
    """Count a training batch of a batch norm and return the weight of its statistics in the running ones.

    The running statistics are the mean over the first batches before they become a moving average: those of a new norm,
    zero and one, would otherwise distort the evaluation of runs of less than a hundred steps.
    """
    momentum, seen = norm.momentum or 0.0, norm.num_batches_tracked
    if seen is None:
        return momentum
    seen.add_(1)
    # The count has no value in a graph that is compiled, and on devices without data.
    if torch.compiler.is_compiling() or seen.is_meta or type(seen) is not torch.Tensor:
        return momentum
    return max(momentum, 1 / int(seen))
