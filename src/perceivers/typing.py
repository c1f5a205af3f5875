"""Symbols of dimensions in shapes, and the types that carry them.

| letter | meaning | | letter | meaning |
|---|---|---|---|---|
| `B` | batch | | `N` | latents |
| `M` | input elements | | `D` | latent channels |
| `C` | input channels | | `O` | output queries |
| `Cc` | content channels of an element | | `E` | query channels |
| `P` | position channels of an element | | `K` | outputs of a query, or classes |
| `H` | heads | | `T Y X` | time, rows, columns of a grid |

A single letter is written with a leading blank, `Float[Tensor, " N"]`, so that a linter does not take
it for a forward reference. The shapes are checked while the tests run and cost nothing otherwise.
"""

from collections.abc import Mapping

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor", "Tensors", "UInt8"]

Tensors = Mapping[str, Tensor]
"""Tensors of modalities, or of outputs, by name."""
