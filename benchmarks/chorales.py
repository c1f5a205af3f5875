"""Write the chorales of Bach as MIDI files for `perceivers fit`; every tenth piece is for the test.

They come with the package `music21`:

    pip install music21
    python -m benchmarks.chorales chorales/
"""

import argparse
import re
from pathlib import Path
from typing import Any

from perceivers.console import tracked
from perceivers.optional import require


def write_chorales(folder: Path) -> None:
    """Write each piece of music21's folder `bach` to `train` or `test`, in the order of their numbers.

    Raises:
        ImportError: If music21 is not installed.
    """
    music21: Any = require("music21", None)
    source = Path(music21.__file__).parent / "corpus" / "bach"
    paths = sorted(source.glob("bwv*.mxl"), key=lambda path: _natural(path.stem))
    for number, path in enumerate(tracked(paths, len(paths))):
        target = folder / ("test" if number % 10 == 9 else "train") / f"{path.stem}.mid"
        target.parent.mkdir(parents=True, exist_ok=True)
        music21.converter.parse(path).write("midi", fp=str(target))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which numbers in names are sorted by value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_chorales(parser.parse_args().folder)


if __name__ == "__main__":
    main()
