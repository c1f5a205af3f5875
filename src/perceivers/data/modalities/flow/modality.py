"""Flow as a modality: where every pixel of a first frame goes, cut to the same window as the frames."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import BasePreprocessConfig, DecodedValue, MissingValueError
from perceivers.data.modalities.flow.crop import PairAugmentConfig, stack_fields, window_at
from perceivers.data.modalities.flow.decode import read_flow
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


@configclass
class FlowPreprocessConfig(BasePreprocessConfig):
    """What turns a file into a field of flow.

    Attributes:
        size: Height and width of the window that is read. None: that of the frames.
        whole: Fields are never cut, as the frames of `evaluate` are not.
    """

    kind: Literal["flow"] = "flow"
    size: tuple[int, int] | None = None
    whole: bool = False


class FlowModality:
    """How cells become fields of flow. See `perceivers.data.modalities.base.Modality`.

    Args:
        preprocess: Size of the window.
        augment: What is random: the same as for the frames. None: nothing.

    Raises:
        ValueError: If the size is not known.
    """

    has_clips = True  # the moment tells the window

    def __init__(
        self, preprocess: FlowPreprocessConfig, augment: PairAugmentConfig | None = None
    ) -> None:
        if preprocess.size is None:
            raise ValueError("Expected the size of the flow, size=(height, width), got None.")
        self.preprocess, self.augment, self.size = preprocess, augment, preprocess.size

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return a field as it is: Y x X x 3, to the right, down, and whether it is known.

        Args:
            media: A `.flo`, a PNG as KITTI's, or an array.
            clip_position: Fields are decoded whole.

        Raises:
            MissingValueError: If the cell is empty.
            ValueError: If it cannot be decoded.
        """
        if media.is_missing:
            raise MissingValueError(f"{media.name} is empty: expected a flow, got nothing.")
        return DecodedValue(read_flow(media))

    def extent(self, value: npt.NDArray[np.float32]) -> tuple[int, int]:
        """Return height and width, which must be those of the frames."""
        return value.shape[0], value.shape[1]

    def prepare(
        self,
        value: npt.NDArray[np.float32],
        *,
        clip_position: float = 0.5,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> npt.NDArray[np.float32]:
        """Return the field in the window of this moment, 3 x Y x X. In a mirror, motions are mirrored too.

        Args:
            value: Of `decode`.
            clip_position: As for the frames.
            rng: The moment is all that is random.
        """
        if self.preprocess.whole:
            return np.ascontiguousarray(value.transpose(2, 0, 1))
        mirror = self.augment is not None and self.augment.mirror
        at = 0.5 if self.augment is None else clip_position
        window = window_at(at, self.extent(value), self.size, mirror=mirror)
        down, right = (-1.0 if flip else 1.0 for flip in window.flips)
        field = window.of(value, axis=0) * np.array([right, down, 1.0], dtype=np.float32)
        return np.ascontiguousarray(field.transpose(2, 0, 1))

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B 3 Y X"], Bool[Tensor, "B 1"] | None]:
        """Return fields of one size, nothing known where one has ended; and which are there, if some are missing."""
        least = (1, 1) if self.preprocess.whole else self.size
        fields = stack_fields(samples, like=(3, *least))
        there = [sample is not None for sample in samples]
        return fields, None if all(there) else torch.tensor(there)[:, None]
