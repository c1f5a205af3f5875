"""Draw the explanations of docs/gallery.md: small runs of one minute each, and one figure of each.

python -m benchmarks.gallery [--data data] [--seconds 60] [--only digits,table]

Built-in digits and the wine data of scikit-learn need no files. The spoken digits (FSDD, CC BY-SA 4.0)
are drawn only where their folder is in --data.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import perceivers as pv
from perceivers.hub.checkpoint import load

ROOT = Path(__file__).parents[1]


def draw_digits(folder: Path, out: Path, seconds: int, _: Path) -> None:
    """Image: a handwritten digit."""
    from PIL import Image
    from sklearn.datasets import load_digits

    run = pv.fit("builtin:digits", "digits", out=folder / "run", max_time=f"{seconds}s")
    path = folder / "digit.png"
    Image.fromarray((load_digits().images[3] * 15.9).astype("uint8")).save(path)
    pv.explain_file(load(run.folder), str(path), out / "gallery-image.png", latents=4)


def draw_table(folder: Path, out: Path, seconds: int, _: Path) -> None:
    """Table: the measurements of a wine."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    names = [name.replace("/", "_") for name in wine.feature_names]
    path = folder / "wine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "cultivar"])
        for row, label in zip(wine.data, wine.target, strict=True):
            writer.writerow([*row, f"cultivar {label + 1}"])
    columns = dict.fromkeys(names, "number")
    run = pv.fit(
        path, out=folder / "run", label="cultivar", columns=columns, max_time=f"{seconds}s"
    )
    sample = dict(zip(names, map(float, wine.data[10]), strict=True))
    pv.explain_file(load(run.folder), sample, out / "gallery-table.png", latents=4)


def draw_audio(folder: Path, out: Path, seconds: int, data: Path) -> None:
    """Audio: a spoken digit of FSDD."""
    source = next((data / "fsdd").glob("*test*.parquet"), None)
    if source is None:
        print(f"{data / 'fsdd'} is missing: the audio is not drawn")
        return
    run = pv.fit(
        data / "fsdd", "audio", size="tiny", out=folder / "run", max_time=f"{4 * seconds}s"
    )
    from pyarrow import parquet

    row = parquet.read_table(source).slice(7, 1).to_pylist()[0]
    path = folder / "spoken.flac"
    path.write_bytes(next(cell["bytes"] for cell in row.values() if isinstance(cell, dict)))
    pv.explain_file(load(run.folder), str(path), out / "gallery-audio.png", latents=4)


FIGURES: dict[str, Callable[[Path, Path, int, Path], None]] = {
    "digits": draw_digits,
    "table": draw_table,
    "audio": draw_audio,
}


def main() -> None:
    """Draw the figures into docs/img."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", default=",".join(FIGURES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    options = parser.parse_args()
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            FIGURES[name](Path(folder), options.out, options.seconds, options.data)


if __name__ == "__main__":
    main()
