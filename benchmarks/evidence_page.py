"""Results of `python -m benchmarks evidence` -> the tables of docs/results/evidence.md."""

from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from benchmarks.table import put_between

HEAD = "| network | accuracy | parameters | MFLOP of a training sample | TFLOP in all | epochs |"


def rewrite(results: dict[str, list[dict[str, Any]]], page: Path) -> None:
    """Put the results that are on file into the page."""
    text = page.read_text()
    for data in ("cifar10", "modelnet10"):
        runs = [one for one in results["runs"] if one["data"] == data and one["split"] == "test"]
        text = put_between(text, f"evidence-{data}", render(runs), page)
    page.write_text(text)


def render(runs: list[dict[str, Any]]) -> str:
    """Return a table for each budget as Markdown."""
    if not runs:
        return "No results on file yet."
    lines: list[str] = []
    for minutes in sorted({one["core_minutes"] for one in runs}):
        some = [one for one in runs if one["core_minutes"] == minutes]
        first = some[0]
        lines += [
            f"{minutes:g} core minutes each, {first['processor']}, {first['threads']} threads, torch {first['torch']}, "
            f"{first['day']}:",
            "",
            HEAD,
            "|---|---|---|---|---|---|",
            *(
                _row([one for one in some if one["name"] == name])
                for name in dict.fromkeys(one["name"] for one in some)
            ),
            "",
        ]
    return "\n".join(lines).rstrip()


def _row(runs: list[dict[str, Any]]) -> str:
    values = [100 * one["accuracy"] for one in runs]
    spread = f" ± {pstdev(values):.1f}" if len(values) > 1 else ""
    tflops, epochs = (mean(one[key] for one in runs) for key in ("tflops", "epochs"))
    first = runs[0]
    return (
        f"| {first['text']} | {mean(values):.1f} %{spread} | {first['parameters'] / 1e6:.2f} M | "
        f"{first['mflops_per_sample']:,.0f} | {tflops:,.0f} | {epochs:.1f} |"
    )
