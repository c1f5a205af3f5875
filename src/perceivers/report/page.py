"""The parts of a page that stands by itself: its style, tables, and pictures inside the file."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["page", "picture", "section", "share_table", "svg", "table"]

# Colors follow the reader's choice of light or dark. Wide tables scroll by themselves, for phones, and
# can be reached by the keyboard.
_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --quiet: #5c6775; --ground: #fff; --line: #d8dde3; --share: 38, 98, 168; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --quiet: #9aa6b5; --ground: #14181e; --line: #333c48; --share: 98, 160, 232; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.big { font-size: 2.2rem; font-weight: 600; line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.shares td { text-align: center; border: 1px solid var(--line); min-width: 2.2rem; }
table.shares th { font-weight: 400; white-space: nowrap; }
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .4rem; white-space: pre-wrap; }
code { font: .9em ui-monospace, monospace; }
figure { margin: 1rem 0; } figure img { width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figure svg { width: 100%; height: auto; } figure img, figure svg { min-width: 42rem; }
details summary { cursor: pointer; }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """Return a whole document that asks no other host for anything.

    Args:
        title: As text.
        sections: As HTML; empty ones are left out.
    """
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            *(part for part in sections if part),
            "</main>\n</body>\n</html>\n",
        ]
    )


def section(title: str, *parts: str) -> str:
    """Return parts (HTML) under a heading (text), or nothing where all are empty."""
    there = [part for part in parts if part]
    return (
        "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *there, "</section>"]) if there else ""
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Return cells of text as a table.

    Args:
        head: Of the columns. Empty: none is shown.
        rows: Cells of each.
        numbers: Whether all columns but the first hold numbers, which are aligned.
    """
    kind = ' class="n"' if numbers else ""

    def line(cells: Sequence[str], tag: str) -> str:
        told = [
            f"<{tag}{kind if place else ''}>{escape(c)}</{tag}>" for place, c in enumerate(cells)
        ]
        return f"<tr>{''.join(told)}</tr>"

    top = [f"<thead>{line(head, 'th')}</thead>"] if head else []
    body = "".join(line(row, "td") for row in rows)
    return "\n".join(
        ['<div class="wide" tabindex="0"><table>', *top, f"<tbody>{body}</tbody>", "</table></div>"]
    )


def share_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix as a table whose cells are colored by their share of the row.

    Args:
        names: Of the classes.
        counts: Rows are true classes, columns predicted ones.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [f"<thead><tr><th>true \\ predicted</th>{head}</tr></thead>"]
    for name, row in zip(names, counts, strict=True):
        cells: list[str] = []
        for count in row:
            share = count / max(sum(row), 1)  # at most 0.7 opaque, so that ink stays readable on it
            ground = f' style="background: rgba(var(--share), {0.7 * share:.2f})"' if count else ""
            cells.append(f"<td{ground}>{count or ''}</td>")
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return "\n".join(
        ['<div class="wide" tabindex="0"><table class="shares">', *lines, "</table></div>"]
    )


def picture(png: bytes, words: str) -> str:
    """Return a PNG inside the page, with words (text) for those who cannot see it, also below it."""
    data = base64.b64encode(png).decode()
    told = escape(words)
    return (
        f'<figure><div class="wide" tabindex="0"><img alt="{told}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{told}</figcaption></figure>"
    )


def svg(figure: Any, words: str) -> str:
    """Return a figure of matplotlib as lines inside the page, in the page's own ink.

    Args:
        figure: Whose ink is black on no ground.
        words: Text for those who cannot see it.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "perceivers"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace("#000000", "currentColor").replace("#ffffff", "none")
    text = text.replace('<text style="', '<text style="fill: currentColor; ')
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1)
    return f'<figure><div class="wide" tabindex="0">{text}</div></figure>'
