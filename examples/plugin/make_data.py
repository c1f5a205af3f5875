"""Write synthetic event streams of a moving dot, in folders for the four directions.

    python examples/plugin/make_data.py dots

The plugin must be installed, for its file format.
"""

import struct
import sys
from pathlib import Path

import numpy as np
from perceivers_events.modality import MAGIC, RECORD

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIDE = 128


def make_events(direction: tuple[int, int], rng: np.random.Generator) -> bytes:
    """Return a file of events along the path of a dot."""
    count = int(rng.integers(100, 200))
    time = np.sort(rng.random(count))
    center = SIDE / 2 + (time[:, None] - 0.5) * 80 * np.array(direction)
    place = np.clip(center + rng.normal(0, 4, (count, 2)), 0, SIDE - 1)
    events = np.zeros(count, RECORD)
    events["x"], events["y"] = place.T.astype(np.uint16)
    events["microseconds"] = (time * 1e6).astype(np.uint32)
    events["sign"] = rng.integers(0, 2, count)
    return MAGIC + struct.pack("<HH", SIDE, SIDE) + events.tobytes()


def main(folder: str, train: int = 40, test: int = 10) -> None:
    """Write the training and test split."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, direction in DIRECTIONS.items():
            target = Path(folder) / split / name
            target.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (target / f"{number}.events").write_bytes(make_events(direction, rng))


if __name__ == "__main__":
    main(sys.argv[1])
