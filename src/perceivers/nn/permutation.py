"""Fixed permutations of elements."""

import torch

from perceivers.typing import Int, Tensor


def fixed_permutation(count: int, seed: int) -> Int[Tensor, " M"]:
    """Return the permutation of `count` elements that follows from a seed: the index of the element at each place."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator, device="cpu")
