"""Decoding speed of each modality on one core, beside the bare decoding library.

    python -m benchmarks.decoding            # every modality, on files made here
    python -m benchmarks.decoding --only audio points

For each kind of file: samples a second of CPU time by the library alone, by `Modality.decode` (which also checks,
mixes, resamples and cuts), and the share that is kept. Both run in turn, several times, and the median of each
counts. Results go to benchmarks/results/decoding.json.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.decoding_cases import CASES, Case

__all__ = ["Rate", "measure"]

ROUNDS, SECONDS = 7, 0.4  # of each way
RESULTS = Path(__file__).parent / "results" / "decoding.json"
ENOUGH = 0.8  # share of the bare library


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Decoding speed of one kind of file.

    Attributes:
        name: Name of the case.
        unit: Unit of the counts.
        bare: A second of CPU time by the library alone.
        ours: The same by this package.
        share: Ours over bare.
    """

    name: str
    unit: str
    bare: float
    ours: float
    share: float


def measure(case: Case, folder: Path) -> Rate:
    """Return the decoding speed of a kind of file in both ways, taken in turn.

    Args:
        case: The kind of file.
        folder: Where its files are made.
    """
    bare, ours = case.make(folder)
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for way in (bare, ours):
        way()  # imports, caches
    for _ in range(ROUNDS):
        times["bare"].append(_rate(bare))
        times["ours"].append(_rate(ours))
    rates = {name: statistics.median(found) for name, found in times.items()}
    share = statistics.median(o / b for o, b in zip(times["ours"], times["bare"], strict=True))
    return Rate(name=case.name, unit=case.unit, **rates, share=share)


def _rate(way: Callable[[], object]) -> float:
    """Return calls a second of CPU time, over all threads of the process."""
    start, calls = time.process_time(), 0
    while (spent := time.process_time() - start) < SECONDS:
        way()
        calls += 1
    return calls / spent


def main() -> None:
    """Measure what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=None, help="modalities")
    options = parser.parse_args()
    rates: list[Rate] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if options.only is not None and case.kind not in options.only:
                continue
            rate = measure(case, Path(folder))
            rates.append(rate)
            met = "" if rate.share >= ENOUGH else "  (below 80 %)"
            print(
                f"{rate.name:<34} {rate.bare:>10,.1f} {rate.ours:>10,.1f} {rate.unit}/s "
                f"{rate.share:>6.0%}{met}",
                flush=True,
            )
    if options.only is None:
        text = json.dumps([asdict(rate) for rate in rates], indent=2)
        RESULTS.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
