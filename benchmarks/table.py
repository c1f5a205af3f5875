"""Results -> the tables of docs/performance.md, between markers; the prose around them is written by hand."""

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["contestant", "put_between", "render", "rewrite", "target"]

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def rewrite(results: Path, page: Path = PAGE) -> None:
    """Put the results that are on file into the page.

    Raises:
        ValueError: If the page has lost its markers.
    """
    text = page.read_text()
    for device in ("cpu", "cuda"):
        path = results / f"{device}.json"
        if not path.exists():
            continue
        text = put_between(text, device, render(json.loads(path.read_text())), page)
    page.write_text(text)


def put_between(text: str, name: str, body: str, page: Path) -> str:
    """Return the text of a page with `body` between its lines `<!-- begin: NAME -->` and `<!-- end: NAME -->`.

    Raises:
        ValueError: If the page has lost its markers.
    """
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        msg = f"Expected the lines {begin!r} and {end!r} once each in {page}; put them back."
        raise ValueError(msg)
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{body}\n{end}", text, flags=re.DOTALL)


def render(results: dict[str, Any]) -> str:
    """Return the tables of one machine as Markdown."""
    machine = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in results["machine"].items() if value
    )
    rows = results["cases"]
    days = sorted({row["day"] for row in rows})
    speeds = sorted({row["matmul_gflops"] for row in rows})
    lines = [
        f"Machine: {machine}.",
        "",
        f"Measured on {days[0]}"
        + (f" to {days[-1]}" if len(days) > 1 else "")
        + f"; bare products of large matrices ran at {speeds[0]} to {speeds[-1]} GFLOP/s.",
        "",
        "| case | measured | quartiles | target | met |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines += [verdict(row, found) for found in row["targets"]]
    lines += ["", "Every contestant:", "", "| case | contestant | time | quartiles | peak | over |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        lines += [detail(row, name, found) for name, found in row["contestants"].items()]
    notes = [
        f"- `{label(row)}`, {name}: skipped, {reason}."
        for row in rows
        for name, reason in row.get("skipped", {}).items()
    ]
    notes += [f"- `{label(row)}`: failed, {row['error']}" for row in rows if "error" in row]
    return "\n".join(lines + [""] * bool(notes) + notes)


def label(row: dict[str, Any]) -> str:
    """Return the name of a case, with its precision where that is not float32."""
    return row["case"] + ("" if row["dtype"] == "float32" else f" {row['dtype']}")


def verdict(row: dict[str, Any], found: dict[str, Any]) -> str:
    """Return a target as a row of the first table."""
    value = found["value"]
    measured = f"- ({found['why']})" if value is None else number(value["median"], found)
    quartiles = ""
    if value and "low" in value:
        quartiles = f"{number(value['low'], found)} to {number(value['high'], found)}"
    met = {True: "yes", False: "**no**", None: ""}[found["met"]]
    return f"| `{label(row)}` | {measured} {found['description']} | {quartiles} | {bound(found)} | {met} |"


def bound(found: dict[str, Any]) -> str:
    """Return the bound of a target in words."""
    if found.get("at_least") is None and found.get("at_most") is None:
        return ""
    least = found.get("at_least") is not None
    words = "at least" if least else "at most"
    text = f"{words} {number(found['at_least'] if least else found['at_most'], found)}"
    return text + (f", better {found['stretch']:g}" if found.get("stretch") else "")


def number(value: float, found: dict[str, Any]) -> str:
    """Return a ratio or an amount, readable."""
    if found["quantity"] == "over_mib" and not found.get("to"):
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def detail(row: dict[str, Any], name: str, found: dict[str, Any]) -> str:
    """Return a contestant as a row of the second table."""
    seconds = found["seconds"]
    quartiles = f"{duration(seconds['low'])} to {duration(seconds['high'])}"
    peak, over = (
        f"{found[key]:,.0f} MiB" if key in found else "-" for key in ("peak_mib", "over_mib")
    )
    time = duration(seconds["median"])
    return f"| `{label(row)}` | {name} | {time} | {quartiles} | {peak} | {over} |"


def contestant(found: dict[str, Any]) -> str:
    """Return a contestant as a line for a terminal."""
    seconds = found["seconds"]
    times = (
        f"{duration(seconds['median'])} ({duration(seconds['low'])} to {duration(seconds['high'])})"
    )
    if "error" in found:
        return f"{times}, memory not measured: {found['error']}"
    return (
        f"{times}, {len(found['rounds'])} rounds, peak {found['peak_mib']:.0f} MiB, "
        f"{found['over_mib']:.0f} over model and input"
    )


def target(found: dict[str, Any]) -> str:
    """Return a target as a line for a terminal."""
    if found["value"] is None:
        return f"- {found['description']}: {found['why']}"
    met = {True: ": met", False: ": NOT met", None: ""}[found["met"]]
    wanted = bound(found)
    wanted = f" ({wanted}{met})" if wanted else ""
    return f"{number(found['value']['median'], found)} {found['description']}{wanted}"


def duration(seconds: float) -> str:
    """Return a time in a unit that reads well."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} us"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.3g} s"
