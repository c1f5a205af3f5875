"""Fields of flow in files: `.flo` as Middlebury and Sintel write it, and KITTI's PNG of 16 bit."""

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceivers.data.base import atomic_write
from perceivers.data.encoded_item import EncodedItem
from perceivers.optional import require

_MAGIC = 202021.25  # a float that reads PIEH as text and shows that bytes are in order
_HEADER = struct.Struct("<fii")
_UNKNOWN = 1e9  # a component beyond it marks a pixel whose motion is not known
_MOST = 2**27  # pixels; a header that states more is damaged
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD = struct.Struct(
    ">16sIIBB"
)  # signature and name of the part, width, height, bits, type of color
_KITTI_ZERO, _KITTI_STEP = 2**15, 64.0  # (stored - zero) / step are pixels


def read_flow(media: EncodedItem) -> npt.NDArray[np.float32]:
    """Return the flow of a cell.

    Args:
        media: A `.flo`, a PNG as KITTI writes it, or an array of Y x X x 2 (right, down; NaN where it is not known) or
            Y x X x 3 (right, down, known).

    Returns:
        Y x X x 3: to the right and down, in pixels, and 1 where it is known. Where it is not, all three are 0.

    Raises:
        ValueError: If it is neither, is cut off, or holds numbers that are no motion. The message names it.
    """
    if media.value is not None or media.array is not None:
        return _of_array(media.value if media.array is None else media.array, media.name)
    data = media.read()
    if data.startswith(_PNG):
        return _of_kitti(data, media.name)
    return _of_flo(data, media.name)


def write_flo(path: Path, flow: npt.NDArray[np.float32]) -> None:
    """Write a field as `.flo`: a magic number, width, height, and two floats for each pixel, little-endian.

    Args:
        path: Path of the new file.
        flow: Y x X x 2, to the right and down, in pixels.

    Reference: S. Baker et al., A Database and Evaluation Methodology for Optical Flow (2011), its file format.
    """
    height, width = flow.shape[:2]
    content = _HEADER.pack(_MAGIC, width, height) + flow[..., :2].astype("<f4").tobytes()
    with atomic_write(path, sync=False) as new:
        new.write_bytes(content)


def _of_flo(data: bytes, name: str) -> npt.NDArray[np.float32]:
    if len(data) < _HEADER.size:
        raise ValueError(
            f"'{name}' is no .flo file: it has {len(data)} bytes, fewer than its head of {_HEADER.size}."
        )
    magic, width, height = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError(
            f"'{name}' is no .flo file: expected it to begin with the number {_MAGIC} (as text, PIEH), got "
            f"{data[:4]!r}."
        )
    if not (0 < width <= _MOST and 0 < height <= _MOST and width * height <= _MOST):
        raise ValueError(
            f"'{name}' states that it is {width} pixels wide and {height} high: its head is damaged."
        )
    expected = _HEADER.size + 8 * width * height
    if len(data) != expected:
        what = "cut off" if len(data) < expected else "too long"
        raise ValueError(
            f"'{name}' is {what}: a flow of {height} x {width} has {expected} bytes, and it has {len(data)}."
        )
    field = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).reshape(height, width, 2)
    farther = np.abs(field).max(axis=-1)
    return _with_known(field, ~(np.isfinite(farther) & (farther >= _UNKNOWN)), name)


def _of_kitti(data: bytes, name: str) -> npt.NDArray[np.float32]:
    stored = _read_png16(data, name)
    field = (stored[..., :2].astype(np.float32) - _KITTI_ZERO) / np.float32(_KITTI_STEP)
    return _with_known(field, stored[..., 2] > 0, name)


def _read_png16(data: bytes, name: str) -> npt.NDArray[np.uint16]:
    """Return the pixels of a PNG of three channels with 16 bit each, Y x X x 3. Pillow would read 8 bit of them."""
    if len(data) < _PNG_HEAD.size:
        raise ValueError(
            f"'{name}' is cut off: it has {len(data)} bytes, fewer than the head of a PNG."
        )
    _, width, height, depth, color = _PNG_HEAD.unpack_from(data)
    if (depth, color) != (16, 2):
        raise ValueError(
            f"'{name}' is no flow: expected a PNG of 16 bit and three channels, as KITTI's; got {depth} bit, color "
            f"type {color}."
        )
    if not 0 < width * height <= _MOST:
        raise ValueError(
            f"'{name}' states a size of {width} x {height} pixels: its head is damaged."
        )
    av = require("av", "video")
    try:
        with av.open(io.BytesIO(data), format="png_pipe") as container:
            codec = container.streams.video[0].codec_context
            codec.options = {"err_detect": "explode+crccheck"}  # else missing rows are zeros
            codec.thread_count = 1
            frame = next(container.decode(video=0))
            return frame.to_ndarray(format="rgb48be")
    except (av.error.FFmpegError, StopIteration) as error:
        raise ValueError(
            f"'{name}' is damaged or cut off. Replace it or take it out of the data."
        ) from error


def _of_array(values: object, name: str) -> npt.NDArray[np.float32]:
    try:
        field = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected a flow as numbers, got {type(values).__name__}."
        ) from error
    if field.ndim != 3 or field.shape[2] not in (2, 3) or not field.size:
        raise ValueError(
            f"{name}: expected a flow of height x width x 2 (right, down) or x 3 (and whether it is known), got shape "
            f"{field.shape}."
        )
    if field.shape[2] == 3:
        return _with_known(field[..., :2], field[..., 2] > 0, name)
    return _with_known(field, np.asarray(~np.isnan(field).any(axis=-1)), name)


def _with_known(
    field: npt.NDArray[np.float32], known: npt.NDArray[np.bool_], name: str
) -> npt.NDArray[np.float32]:
    """Return a field with its third channel, zero where nothing is known.

    Raises:
        ValueError: If nothing is known of any pixel, or a motion is no number.
    """
    broken = known & ~np.isfinite(field).all(axis=-1)
    if broken.any():
        row, column = np.argwhere(broken)[0]
        raise ValueError(
            f"'{name}' holds a motion that is no number at row {row}, column {column}: {field[row, column]}. A pixel "
            f"whose motion is not known has a component above {_UNKNOWN:g}."
        )
    if not known.any():
        raise ValueError(
            f"'{name}' knows the motion of no pixel, so there is nothing to learn or measure in it."
        )
    whole = np.concatenate([np.where(known[..., None], field, 0), known[..., None]], axis=-1)
    return np.ascontiguousarray(whole, dtype=np.float32)
