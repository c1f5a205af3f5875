"""View of rows of tables: a bar for each field."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from perceivers.explain.contents import base, plot

FIELDS = 30  # drawn in a PNG, at most
COLUMNS = 5
SHOWN = 12  # fields of a thumbnail


@dataclass(frozen=True, kw_only=True)
class TableContent(base.Content):
    """Names and values of the fields of a row, "" where one is missing. Each is an element."""

    has_numbers: ClassVar = True

    fields: tuple[str, ...]
    texts: tuple[str, ...]

    def to_json(self, view: base.View) -> base.Json:
        """Return names and values of the fields."""
        known = {"names": list(self.fields), "texts": list(self.texts)}
        return {"media": "table", "extent": [1.0], **known}

    def thumbnail(self) -> str:
        """Return the first fields and their values."""
        pairs = zip(self.fields[:SHOWN], self.texts, strict=False)
        shown = [f"{name} = {plot.shorten(text, 40) or '(missing)'}" for name, text in pairs]
        more = len(self.fields) - len(shown)
        return ", ".join([*shown, *([f"{more} more"] if more else [])])

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with bars for each map."""
        columns = min(len(view.maps), COLUMNS)
        rows = -(-len(view.maps) // columns)
        shown = min(len(self.fields), FIELDS)
        return 2.4 + columns * 1.7, rows * (0.24 * max(shown, 3) + 0.75)

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw a bar for each field and map: fields with the most attention where there are too many."""
        chosen = np.sort(np.argsort(-np.nan_to_num(view.overall, nan=-1.0))[:FIELDS])
        columns = min(len(view.maps), COLUMNS)
        rows = -(-len(view.maps) // columns)
        cells = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        scale = view.scale
        names = [
            f"{plot.shorten(self.fields[i], 20)} "
            + (f"= {plot.shorten(self.texts[i], 14)}" if self.texts[i] else "(missing)")
            for i in chosen
        ]
        colors = plot.palette("warm")
        for axes, (title, attention) in zip(cells, view.maps.values(), strict=False):
            level = np.nan_to_num(np.clip(attention[chosen], 0, scale))
            plot.draw_bars(axes, names, level, colors(0.35 + 0.6 * level / scale))
            axes.axvline(1, color=plot.QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
            axes.set_title(plot.shorten(title, 24), fontsize=9, color=plot.INK, parse_math=False)
            axes.set_xlim(0, 1.05 * scale)
            axes.set_xticks([1, scale], ["1x", view.scale_text])
            axes.set_ylim(max(len(chosen), 3) - 0.4, -0.6)
        for axes in cells[len(view.maps) :]:
            axes.set_axis_off()
        if left_out := len(self.fields) - len(chosen):
            text = f"{left_out} more fields with less attention are not drawn."
            figure.supxlabel(text, fontsize=8, color=plot.QUIET)


def _table(given: base.ModelInput) -> TableContent:
    config = given.config
    count = len(config.numbers)
    numbers = given.x[:count] * np.array(config.stds or [1.0]) + np.array(config.means or [0.0])
    texts = [f"{number:.6g}" for number in numbers]
    for names, index in zip(config.categories.values(), given.x[count:], strict=True):
        texts.append(names[round(float(index))])
    shown = tuple(text if real else "" for text, real in zip(texts, given.real, strict=True))
    return TableContent(fields=(*config.numbers, *config.categories), texts=shown)


base.register_view("table", _table)
