"""Results of `python -m benchmarks evidence` -> the tables of docs/results/evidence.md."""

from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from benchmarks.table import put_between
from perceivers.wording import counted

# Networks with Fourier features as input whose training losses are drawn, with their colors.
_DRAWN = {
    "cifar10-perceiver-interleaved4": ("Perceiver on pixels", "tab:blue"),
    "cifar10-perceiver-stem-ff": ("Perceiver behind the stem (FF)", "tab:cyan"),
    "cifar10-resnet-ff": ("ResNet (FF)", "tab:orange"),
    "cifar10-vit-ff": ("ViT (FF)", "tab:green"),
    "cifar10-transformer-ff": ("Transformer of all pixels (FF)", "tab:red"),
}

HEAD = "| network | accuracy | parameters | MFLOP of a training sample | TFLOP in all | epochs |"


def rewrite(results: dict[str, list[dict[str, Any]]], page: Path) -> None:
    """Put the results that are on file into the page, and draw training losses."""
    from benchmarks.evidence import CONFIGURATIONS

    order = [one.name for one in CONFIGURATIONS]
    text = page.read_text()
    for data in ("cifar10", "modelnet10"):
        runs = [one for one in results["runs"] if one["data"] == data and one["split"] == "test"]
        runs.sort(key=lambda one: order.index(one["name"]))
        text = put_between(text, f"evidence-{data}", render(runs), page)
    page.write_text(text)
    draw_losses(results["runs"], page.parent.parent / "img" / "evidence-cifar10.png")


def draw_losses(runs: list[dict[str, Any]], path: Path) -> bool:
    """Draw the training losses of some networks by core minutes, and return whether there are any."""
    from matplotlib.figure import Figure

    known = [one for one in runs if one["name"] in _DRAWN and one.get("losses")]
    if not known:
        return False
    budgets = [one["core_minutes"] for one in known]
    budget = max(budgets, key=lambda one: (budgets.count(one), one))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="core minutes", ylabel="training loss")
    for one in known:
        if one["core_minutes"] == budget:
            label, color = _DRAWN[one["name"]]
            losses = one["losses"]
            minutes = [budget * (place + 0.5) / len(losses) for place in range(len(losses))]
            axes.plot(minutes, losses, label=label, color=color)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return True


def render(runs: list[dict[str, Any]]) -> str:
    """Return a table for each budget as Markdown."""
    if not runs:
        return "No results on file yet."
    lines: list[str] = []
    for minutes in sorted({one["core_minutes"] for one in runs}):
        some = [one for one in runs if one["core_minutes"] == minutes]
        first = some[0]
        machine = (
            f"{first['processor']}, {counted(first['threads'], 'thread')}, torch {first['torch']}"
        )
        lines += [
            f"{minutes:g} core minutes each, {machine}, {first['day']}:",
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
