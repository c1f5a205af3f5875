"""Modalities built from saved configurations."""

from collections.abc import Mapping
from typing import Any

from perceivers.data.modalities.base import Modality
from perceivers.data.registry import PREPROCESS, find_modality

_CUT = ("frame_pair", "flow")  # cut to one window, as they belong together pixel by pixel


def build_modality(preprocess: Any, augment: Any = None) -> Modality:
    """Return the modality of a configuration.

    Args:
        preprocess: Its `PreprocessConfig`.
        augment: Its `AugmentConfig`. None: nothing is random.

    Raises:
        ValueError: If the two are of different modalities.
    """
    fitting = find_modality(preprocess).augment
    if augment is not None and (fitting is None or not isinstance(augment, fitting)):
        expected = getattr(fitting, "kind", None)
        raise ValueError(
            f"Expected augmentation of kind '{expected}' for '{preprocess.kind}', got '{augment.kind}'."
        )
    return PREPROCESS.build(preprocess, augment)


def build_modalities(
    preprocess: Mapping[str, Any], augment: Mapping[str, Any] | None = None
) -> dict[str, Modality]:
    """Return the modalities of several configurations, by name.

    Raises:
        ValueError: If augmentation and modality do not fit each other, or frames and flow are not cut alike.
    """
    augment = augment or {}
    cut = {n: (part.size, augment.get(n)) for n, part in preprocess.items() if part.kind in _CUT}
    if len({repr(how) for how in cut.values()}) > 1:
        raise ValueError(
            f"{' and '.join(cut)} are cut to the same window, so they need one size and one augmentation; got "
            f"{' and '.join(f'{size} with {changes}' for size, changes in cut.values())}."
        )
    return {name: build_modality(part, augment.get(name)) for name, part in preprocess.items()}
