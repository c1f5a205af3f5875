"""Data sets that are put together or made up, for runs on several modalities and on a sense of its own.

    python -m benchmarks.made_data mixed --data data --out /tmp/mixed
    python -m benchmarks.made_data haptic --out /tmp/haptic
    python -m benchmarks.made_data shapes --out /tmp/shapes

`mixed` is a table with three columns, an image (CIFAR-10), audio (spoken digits) and a series (smartwatch),
whose classes are paired by their number: class 3 is cats, "three" and sitting. Each cell but one is missing in a
tenth of the rows. `haptic` is a folder of classes of .npz files: what 16 pressure cells of a fingertip feel on six
materials, with the cells' places and times as coordinates. `shapes` are circles, squares and triangles on noise, with
a map of their classes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["make_haptic", "make_mixed", "make_shapes"]

CLASSES = 10
MISSING = 0.1  # of each column
MATERIALS = ("felt", "gravel", "rubber", "sandpaper", "velvet", "wood")


def make_mixed(data: Path, out: Path, *, train: int = 2500, test: int = 500) -> None:
    """Write `train.parquet` and `test.parquet`.

    Args:
        data: Folder with `cifar10`, `fsdd` and `wisdm51_watch`.
        out: Folder to write into.
        train: Rows of train.
        test: Rows of test.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    features = {
        "image": {"_type": "Image"},
        "audio": {"_type": "Audio"},
        "label": {"_type": "ClassLabel", "names": [str(k) for k in range(CLASSES)]},
    }
    for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
        rng = np.random.default_rng(seed)
        columns = _paired(data, split, count, rng)
        table = pa.table(columns)
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, out / f"{split}.parquet", row_group_size=256)


def _paired(data: Path, split: str, count: int, rng: np.random.Generator) -> dict[str, Any]:
    import pyarrow.parquet as pq

    sets = {
        "image": ("cifar10", ("image",)),
        "audio": ("fsdd", ("audio",)),
        "watch": ("wisdm51_watch", ("accel_x", "accel_y", "accel_z")),
    }
    labels = rng.integers(0, CLASSES, count)
    columns: dict[str, Any] = {}
    for number, (name, wanted) in enumerate(sets.values()):
        table = pq.read_table(data / name / f"{split}.parquet", columns=[*wanted, "label"])
        of_class = [np.flatnonzero(table["label"].to_numpy() == k) for k in range(CLASSES)]
        rows = np.array([rng.choice(of_class[label]) for label in labels])
        gone = (rng.random(count) < MISSING) & (number != labels % len(sets))  # one always stays
        for column in wanted:
            cells = table[column].take(rows).to_pylist()
            columns[column] = [
                None if is_gone else cell for cell, is_gone in zip(cells, gone, strict=True)
            ]
    return {**columns, "label": labels.tolist()}


def make_haptic(out: Path, *, train: int = 60, test: int = 20) -> None:
    """Write `train/MATERIAL/N.npz` and `test/...`, each with `values` (M x 2), `coordinates` (M x 3) and no order.

    A fingertip of 4 x 4 cells is drawn over a surface for a second. Every cell gives pressure and vibration at times
    of its own; between a third and all of its readings arrive.

    Args:
        out: Folder to write into.
        train: Files of each material.
        test: Likewise.
    """
    for split, count in {"train": train, "test": test}.items():
        for kind, material in enumerate(MATERIALS):
            folder = out / split / material
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng((split == "test", kind, number))
                np.savez(folder / f"{number:03d}.npz", **_stroke(kind, rng))


def _stroke(kind: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the signals of one stroke over a material: grain, roughness, compliance and the hand differ."""
    grain = (60.0, 9.0, 30.0, 90.0, 45.0, 14.0)[kind] * rng.uniform(0.85, 1.15)
    rough = (0.15, 0.8, 0.05, 0.5, 0.1, 0.3)[kind]
    give = (0.8, 0.1, 0.5, 0.1, 0.9, 0.2)[kind]
    speed, force = rng.uniform(0.7, 1.3), rng.uniform(0.6, 1.4)
    count = int(rng.integers(200, 600))
    place = rng.integers(0, 4, (count, 2)) / 1.5 - 1.0
    time = rng.random(count)
    phase = rng.uniform(0, 2 * np.pi)
    along = speed * time + 0.15 * place[:, 0]
    bumps = np.sin(2 * np.pi * grain * along / 4 + phase)
    pressure = force * (1 - give * np.square(place).sum(axis=1) / 2) + rough * bumps
    vibration = rough * np.abs(np.cos(2 * np.pi * grain * along / 4 + phase))
    noise = rng.normal(0, 0.1, (count, 2))
    values = np.stack([pressure, vibration], axis=1) + noise
    coordinates = np.column_stack([time * 2 - 1, place])
    return {"values": values.astype(np.float32), "coordinates": coordinates.astype(np.float32)}


def make_shapes(out: Path, *, train: int = 1500, test: int = 200) -> None:
    """Write `train` and `test`, each with `images` of 32 x 32 pixels and `masks` with a palette.

    Args:
        out: Folder to write into.
        train: Images of train.
        test: Images of test.
    """
    for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
        for sub in ("images", "masks"):
            (out / split / sub).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        for number in range(count):
            pixels, mask = _scene(rng)
            pixels.save(out / split / "images" / f"{number:04d}.png")
            mask.save(out / split / "masks" / f"{number:04d}.png")


def _scene(rng: np.random.Generator, side: int = 32, fine: int = 4) -> tuple[Any, Any]:
    """Return an image of up to three shapes and the class of each pixel: 0 is the ground."""
    from PIL import Image, ImageDraw

    large = (fine * side, fine * side)
    image = Image.new("RGB", large, tuple(int(v) for v in rng.integers(0, 90, 3)))
    mask = Image.new("P", large, 0)
    mask.putpalette([0, 0, 0, 220, 60, 60, 60, 200, 80, 70, 110, 230])
    for _ in range(rng.integers(1, 4)):
        kind, radius = int(rng.integers(1, 4)), int(rng.integers(16, 34))
        x, y = (int(v) for v in rng.integers(20, large[0] - 20, 2))
        color = tuple(int(v) for v in rng.integers(110, 256, 3))
        box = (x - radius, y - radius, x + radius, y + radius)
        for drawing, fill in ((ImageDraw.Draw(image), color), (ImageDraw.Draw(mask), kind)):
            if kind == 1:
                drawing.ellipse(box, fill=fill)
            elif kind == 2:
                drawing.rectangle(box, fill=fill)
            else:
                corners = (x, y - radius, x - radius, y + radius, x + radius, y + radius)
                drawing.polygon(corners, fill=fill)
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=float)
    noisy = (small + rng.normal(0, 12, small.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(noisy), mask.resize((side, side), Image.Resampling.NEAREST)


def main() -> None:
    """Write the data set that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=["mixed", "haptic", "shapes"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.which == "mixed":
        make_mixed(options.data, options.out)
    elif options.which == "haptic":
        make_haptic(options.out)
    else:
        make_shapes(options.out)


if __name__ == "__main__":
    main()
