"""How long texts are, so that a model of a suitable length can be built."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from perceivers.data.media import Media
from perceivers.data.modality import MissingValueError
from perceivers.data.passages import passages_of
from perceivers.data.text import MOST_BYTES, MULTIPLE, TextPreprocessConfig, encoded_text

__all__ = ["measure_text"]


def measure_text(
    cells: Iterable[Media], config: TextPreprocessConfig, *, largest: int = 2048
) -> TextPreprocessConfig:
    """Return the configuration with `max_length` taken from texts, where it is not stated.

    It is what 19 of 20 texts fit into, rounded up to a multiple of 64.

    Args:
        cells: Texts of the training split, or a sample of them.
        config: What is known already.
        largest: Bytes at most.

    Raises:
        ValueError: If no cell holds a text.
    """
    if config.max_length is not None:
        return config
    lengths: list[int] = []
    failure = "there are no rows"
    for media in cells:
        try:
            lengths.append(_size_of(media))
        except (ValueError, OSError) as error:
            failure = str(error)
    if not lengths:
        msg = f"The length of texts cannot be measured, since none can be read: {failure}"
        raise ValueError(msg)
    most = int(np.percentile(lengths, 95, method="higher"))
    rounded = max(MULTIPLE, -(-most // MULTIPLE) * MULTIPLE)
    return replace(config, max_length=min(largest, rounded))


def _size_of(media: Media) -> int:
    if isinstance(media.path, Path):
        return media.path.stat().st_size
    if media.is_missing:
        msg = f"'{media.name}' is empty."
        raise MissingValueError(msg)
    several = passages_of(media, MOST_BYTES)
    if several is not None:
        return several[0].data.shape[0] + several[0].ends.shape[0] - 1
    return len(media.data if media.data is not None else encoded_text(media))
