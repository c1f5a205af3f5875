"""Numbers and missing values as spreadsheets and locales spell them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

LARGEST_NUMBER = 1e18
"""Largest absolute value of a number in a table: larger ones lose their meaning in 32 bits."""

MISSING_SPELLINGS = frozenset(
    {
        *("", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "nil"),
        *("nat", "missing", "?", "-", "--", ".", "#value!", "#div/0!", "#ref!", "#null!", "#num!"),
    }
)
"""Spellings of a missing number in lower case."""

# Groups of three digits are set apart by a point, a comma, an apostrophe, or a blank of any width.
_GROUP = "['\u2019 \u00a0\u2009\u202f]"
_EXPONENT = r"(?:[eE][-+]?\d+)?"
_SPELLING = re.compile(
    rf"[-+\u2212]?(?:(?P<code>0\d+)|(?P<whole>\d{{1,18}})"
    rf"|(?P<point_group>[1-9]\d{{0,2}}\.\d{{3}})|(?P<comma_group>[1-9]\d{{0,2}},\d{{3}})"
    rf"|(?P<point_groups>[1-9]\d{{0,2}}(?:(?:\.\d{{3}}){{2,}}(?:,\d+)?|\.\d{{3}},\d+))"
    rf"|(?P<comma_groups>[1-9]\d{{0,2}}(?:(?:,\d{{3}}){{2,}}(?:\.\d+)?|,\d{{3}}\.\d+))"
    rf"|(?P<point>(?:\d+\.\d*|\.\d+|\d{{1,18}}(?=[eE])){_EXPONENT})"
    rf"|(?P<comma>(?:\d+,\d*|,\d+){_EXPONENT})"
    rf"|(?P<blank_point>\d{{1,3}}(?:{_GROUP}\d{{3}})+(?:\.\d+)?)"
    rf"|(?P<blank_comma>\d{{1,3}}(?:{_GROUP}\d{{3}})+,\d+))"
)
_PLAIN = re.compile(rf"[-+]?(?:\d+\.?\d*|\.\d+){_EXPONENT}")
_WHOLE = re.compile(r"[-+]?\d+")

_POINT_DECIMAL = ("point", "comma_groups")
_COMMA_DECIMAL = ("comma", "point_groups", "blank_comma")
_NO_NUMBER = "none"
_TOLERATED = 0.05  # share of cells that may be no numbers in a column of numbers
_FEWEST = 20  # cells from which a few may be none


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """Spelling of the numbers of a column.

    Attributes:
        decimal: Decimal mark.
        thousands: Mark between groups of three digits. A blank stands for blanks of any width and apostrophes.
    """

    decimal: str = "."
    thousands: str = ""

    def parse(self, text: str) -> int | float | None:
        """Return a number, None if it is missing.

        Raises:
            ValueError: If the text is no number in this format.
        """
        bare = text.strip()
        if bare.lower() in MISSING_SPELLINGS:
            return None
        bare = bare.replace("\u2212", "-")
        if self.thousands:
            bare = re.sub(_GROUP if self.thousands == " " else re.escape(self.thousands), "", bare)
        if self.decimal != ".":
            bare = bare.replace(self.decimal, ".")
        if _PLAIN.fullmatch(bare) is None:
            raise ValueError(f"{text!r:.40} is no number.")
        return int(bare) if _WHOLE.fullmatch(bare) and len(bare) < 19 else float(bare)

    @property
    def is_usual(self) -> bool:
        """Whether numbers have a decimal point and no thousands separators."""
        return (self.decimal, self.thousands) == (".", "")


def is_missing_spelling(text: str) -> bool:
    """Return True for a spelling of a missing value, such as `NA`."""
    return text.strip().lower() in MISSING_SPELLINGS


@dataclass
class NumberScan:
    """Counts of the spellings of numbers in a column of texts, from which its format follows.

    Attributes:
        counts: Number of cells by spelling.
        examples: First cell of each spelling.
        missing: Number of cells that are spelled as missing, but not empty.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, str] = field(default_factory=dict[str, str])
    missing: int = 0

    def add(self, cells: Iterable[str]) -> None:
        """Count texts that are not empty."""
        for cell in cells:
            bare = cell.strip()
            match = _SPELLING.fullmatch(bare)
            if match is None and bare.lower() in MISSING_SPELLINGS:
                self.missing += 1
                continue
            spelling = _NO_NUMBER if match is None else str(match.lastgroup)
            self.counts[spelling] += 1
            self.examples.setdefault(spelling, cell)

    @property
    def uses_decimal_comma(self) -> bool:
        """Whether a cell can only be read with a decimal comma."""
        return any(self.counts[one] for one in ("comma", "point_groups", "blank_comma"))

    def found(
        self, *, comma: bool = False, grouped: bool = False, declared: bool = False
    ) -> NumberFormat | None:
        """Return the format of the numbers, None if the column holds something else.

        `1.234` and `1,234` can be read in two ways. Other cells of the column decide, then the arguments.

        Args:
            comma: Whether `1,234` has a decimal comma, as where semicolons separate the cells.
            grouped: Whether `1.234` has thousands separators, as where other columns have decimal commas.
            declared: Whether the user states that the column holds numbers; cells may then be none.
        """
        if not self._are_numbers(declared=declared):
            return None
        counts = self.counts
        point = any(counts[one] for one in _POINT_DECIMAL)
        decided = point or self.uses_decimal_comma or counts["blank_point"]
        open_ways = counts["point_group"] and counts["comma_group"] and not decided
        if open_ways or (point and self.uses_decimal_comma):  # contradictory spellings
            return NumberFormat() if declared else None
        if self.uses_decimal_comma:
            return NumberFormat(",", self._group("point_groups", "point_group", mark="."))
        if point or counts["blank_point"] or (counts["comma_group"] and not comma):
            return NumberFormat(".", self._group("comma_groups", "comma_group", mark=","))
        if counts["comma_group"]:
            return NumberFormat(",")
        return NumberFormat(",", ".") if counts["point_group"] and grouped else NumberFormat()

    def _are_numbers(self, *, declared: bool) -> bool:
        """Return whether the cells are numbers, but for a few."""
        others, total = self.counts[_NO_NUMBER], self.counts.total()
        numbers = total - others
        if declared or not others:
            return numbers > 0 and (declared or not self.counts["code"])  # 007 is a name
        few = others <= _TOLERATED * total and numbers >= _FEWEST
        return few and not self.counts["code"]

    def _group(self, *spellings: str, mark: str) -> str:
        """Return the mark between groups of digits."""
        if self.counts["blank_point"] or self.counts["blank_comma"]:
            return " "
        return mark if any(self.counts[one] for one in spellings) else ""

    def example(self) -> str:
        """Return a cell that shows the format."""
        order = ("point_groups", "comma_groups", "blank_comma", "blank_point", "comma")
        order = (*order, "point_group", "comma_group", "point", "whole")
        return next((self.examples[one] for one in order if one in self.examples), "")

    def note_about_rest(self, column: str) -> str | None:
        """Return a sentence about cells without a number, None if all have one."""
        parts: list[str] = []
        if self.missing:
            parts.append(f"{self.missing:,} are spelled as missing")
        if self.counts[_NO_NUMBER]:
            example = self.examples[_NO_NUMBER]
            parts.append(
                f"{self.counts[_NO_NUMBER]:,} are no numbers, such as {example!r:.40}, and their rows are left out"
            )
        total = self.missing + self.counts.total()
        return f"Of {total:,} cells of column '{column}', {' and '.join(parts)}." if parts else None
