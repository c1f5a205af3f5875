"""Small pictures stay decoded in memory, once for all workers: decoding is most of the work on them."""

import mmap

import numpy as np

from perceivers.data.base import MapStyleSplit
from perceivers.data.modalities.image.decode import read_header
from perceivers.data.modalities.image.preprocess import Pixels

__all__ = ["ImageCache", "open_image_cache"]

TRIED = 10  # rows, for one whose size can be read


class ImageCache:
    """Pictures of one shape by their row.

    It lies in memory that a forked process shares with its parent, so that what one worker has decoded
    all have. The operating system gives the memory page by page, when it is written.

    Args:
        num_rows: Rows of the split.
        shape: Height, width and channels of the pictures.
    """

    def __init__(self, num_rows: int, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        size = num_rows * int(np.prod(shape))
        memory = np.frombuffer(mmap.mmap(-1, size + num_rows), dtype=np.uint8)
        self._pixels = memory[:size].reshape(num_rows, *shape)
        self._known = memory[size:]  # 1 where a picture stands; written after the picture

    def get(self, row: int) -> Pixels | None:
        """Return the picture of a row, None if it was not put."""
        return self._pixels[row] if self._known[row] else None

    def put(self, row: int, pixels: Pixels) -> None:
        """Keep the picture of a row. One of another shape is not kept."""
        if pixels.shape == self.shape:
            self._pixels[row] = pixels
            self._known[row] = 1


def open_image_cache(
    records: MapStyleSplit, column: str, *, num_channels: int, largest: int
) -> ImageCache | None:
    """Return an empty cache for pictures of the size of the first readable one, None if they would not fit.

    Args:
        records: A split.
        column: Where the pictures stand.
        num_channels: 1 or 3.
        largest: Bytes that it may take.
    """
    for row in range(min(TRIED, len(records))):
        try:
            header = read_header(records.row(row)[column])
        except (OSError, ValueError):
            continue
        shape = (header.height, header.width, num_channels)
        fits = len(records) * (int(np.prod(shape)) + 1) <= largest
        return ImageCache(len(records), shape) if fits else None
    return None
