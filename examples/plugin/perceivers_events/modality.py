"""Event streams: file format, preprocessing and augmentation.

A `.events` file begins with `EVT1`, width and height (two little-endian uint16), followed by one record for each event.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

import perceivers as pv
from perceivers.registry import configclass

MAGIC = b"EVT1"
RECORD = np.dtype([("x", "<u2"), ("y", "<u2"), ("microseconds", "<u4"), ("sign", "<u1")])
HEADER_BYTES = 8


def read_events(item: pv.EncodedItem) -> np.ndarray:
    """Return the events of a file as M x 4: x, y and time in [-1, 1], and sign 0 or 1."""
    data = item.read()
    if data[:4] != MAGIC or (len(data) - HEADER_BYTES) % RECORD.itemsize:
        raise ValueError(
            f"Cannot read '{item.name}' as events: it does not begin with EVT1, or is cut off."
        )
    size = np.frombuffer(data, "<u2", count=2, offset=4)
    events = np.frombuffer(data, RECORD, offset=HEADER_BYTES)
    if not len(events):
        raise ValueError(f"'{item.name}' contains no events.")
    time = events["microseconds"] / max(1, events["microseconds"].max())
    columns = (events["x"] / size[0], events["y"] / size[1], time)
    positions = 2 * np.stack(columns, axis=1) - 1
    return np.concatenate([positions, events["sign"][:, None]], axis=1).astype(np.float32)


@configclass
class EventsPreprocessConfig(pv.BasePreprocessConfig):
    """Preprocessing of event streams, saved with the model.

    Attributes:
        num_events: Events of a sample at most, M. None: the largest number in the training data, at most 2,048.
    """

    kind: Literal["events"] = "events"
    num_events: int | None = None

    def measure(self, cells: Any) -> "EventsPreprocessConfig":
        """Return the configuration with the number of events measured on the training data."""
        if self.num_events is not None:
            return self
        counts = [len(read_events(cell)) for cell in cells(32)]
        return replace(self, num_events=min(2048, max(counts)))

    def assumed(self) -> dict[str, Any]:
        """Return the number of events that is assumed without data."""
        return {"num_events": 256}

    def input_fields(self) -> dict[str, Any]:
        """Return the size of the input adapter."""
        return {"num_events": self.num_events}


@configclass
class EventsAugmentConfig:
    """Augmentation of event streams.

    Attributes:
        drop: Largest share of the events that is dropped.
    """

    kind: Literal["events"] = "events"
    drop: float = 0.2


class EventsModality:
    """Decodes, samples and collates event streams."""

    has_clips = False

    def __init__(
        self, preprocess: EventsPreprocessConfig, augment: EventsAugmentConfig | None = None
    ) -> None:
        self.num_events = preprocess.num_events
        self.drop = 0.0 if augment is None else augment.drop

    def decode(
        self, media: pv.EncodedItem, *, clip_position: float | None = None
    ) -> pv.DecodedValue:
        """Return all events of a file."""
        return pv.DecodedValue(read_events(media))

    def transform(
        self, value: Any, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return at most `num_events` events: evenly spaced, or random ones in training."""
        count = min(len(value), self.num_events)
        if rng is None:
            return value[np.linspace(0, len(value) - 1, count).round().astype(int)]
        count = max(1, round(count * (1 - rng.uniform(0, self.drop))))
        return value[np.sort(rng.choice(len(value), count, replace=False))]

    def collate(self, samples: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return samples as B x M x 4, and a mask that is True for real events."""
        return pv.stack_padded(samples, like=(self.num_events, 4), dtype=np.float32)


def upload_sizes(item: pv.EncodedItem) -> list[pv.UploadSize]:
    """Return the number of events of an upload, which `perceivers serve` limits before decoding."""
    return [pv.UploadSize(len(item.read()) / RECORD.itemsize, "events", "points")]


pv.register_modality(
    pv.ModalitySpec(
        name="events",
        noun="event streams",
        preprocessing=(
            pv.Preprocessing(
                EventsPreprocessConfig,
                EventsModality,
                default=lambda _: (EventsPreprocessConfig(), EventsAugmentConfig()),
            ),
        ),
        augment=EventsAugmentConfig,
        suffixes=("events",),
        magic=lambda data: data.startswith(MAGIC),
        upload_sizes=upload_sizes,
    )
)
