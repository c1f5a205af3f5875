"""Small pairs of frames with their flow, in the layouts that people have."""

from pathlib import Path

import numpy as np
from PIL import Image

from perceivers.data.modalities.flow.decode import write_flo
from perceivers.data.modalities.flow.synthetic import synthetic_pair
from support.files import deep_png

__all__ = ["make_chairs", "make_kitti", "make_sintel", "pair"]


def pair(number=0, size=(12, 16), largest=1.5):
    """Return made frames and their flow."""
    return synthetic_pair(np.random.default_rng(number), size=size, largest=largest)


def save(pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_chairs(folder: Path, count=4, *, size=(12, 16), marks="") -> Path:
    """Write pairs as FlyingChairs has them, with a list of splits if `marks` are given."""
    for number in range(count):
        made = pair(number, size)
        save(made.first, folder / f"{number:05d}_img1.ppm")
        save(made.second, folder / f"{number:05d}_img2.ppm")
        write_flo(folder / f"{number:05d}_flow.flo", made.flow)
    if marks:
        (folder / "FlyingChairs_train_val.txt").write_text("\n".join(marks) + "\n")
    return folder


def make_sintel(folder: Path, *, passes=("clean", "final"), frames=3) -> Path:
    """Write two scenes, and one of test without flow."""
    for scene in ("alley", "cave"):
        for number in range(1, frames + 1):
            made = pair(number)
            for name in passes:
                save(made.first, folder / "training" / name / scene / f"frame_{number:04d}.png")
            if number < frames:
                (folder / "training" / "flow" / scene).mkdir(parents=True, exist_ok=True)
                write_flo(folder / "training/flow" / scene / f"frame_{number:04d}.flo", made.flow)
    for number in (1, 2):
        for name in passes:
            save(pair(number).first, folder / "test" / name / "market" / f"frame_{number:04d}.png")
    return folder


def make_kitti(folder: Path, count=2) -> Path:
    """Write pairs whose flow is a PNG of 16 bit, and one of testing without."""
    for number in range(count):
        made, stem = pair(number), f"{number:06d}"
        save(made.first, folder / "training/image_2" / f"{stem}_10.png")
        save(made.second, folder / "training/image_2" / f"{stem}_11.png")
        flows = folder / "training/flow_occ"
        flows.mkdir(parents=True, exist_ok=True)
        stored = np.concatenate(
            [np.rint(made.flow * 64 + 2**15), np.ones((*made.flow.shape[:2], 1))], axis=-1
        )
        stored[0, 0] = 0  # not known
        (flows / f"{stem}_10.png").write_bytes(deep_png(stored.astype(np.uint16)))
    for end in ("10", "11"):
        save(pair(9).first, folder / "testing/image_2" / f"000000_{end}.png")
    return folder
