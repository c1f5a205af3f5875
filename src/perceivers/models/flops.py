"""Operations of attention and encoders, as the papers count them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class InputSize:
    """Elements that an encoder reads.

    Attributes:
        num_elements: Number of elements of all modalities, M.
        channels: Width of an element, C.
        modalities: Number and width of the elements of each modality, before a common width, by name.
    """

    num_elements: int
    channels: int
    modalities: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


def attend_flops(
    queries: int, sources: int, d: int, c: int, qk: int, v: int, widening_factor: int
) -> int:
    """Return the operations of one attention with its MLP.

    It is from N queries of width `d` to M source elements of width `c`, by queries and keys of width `qk` and values of
    width `v`. The hidden layer of the MLP is `widening_factor` times as wide as the queries.
    """
    project = queries * d * qk + sources * c * (qk + v) + queries * v * d
    attend = queries * sources * (qk + v)
    mlp = 2 * queries * d * d * widening_factor
    return 2 * (project + attend + mlp)
