"""Delimited text (CSV, TSV) and JSON lines as rows: encoding, separator and damaged lines."""

import codecs
import csv
import io
import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, cast

from perceivers.data.formats.remote import Location, open_binary, suffix_of

DELIMITED = (".csv", ".tsv")
"""Suffixes of delimited text."""

_MARKS = (",", ";", "\t", "|")
_HEAD = 1 << 20  # bytes that decide the separator, and the encoding of a remote file
_RECORDS = 50  # rows that are compared for each separator
_LONGEST_ROW = 10_000  # lines after which a quote is taken for an unclosed one
_LONGEST_CELL = 1 << 26  # characters
_MARKS_OF_ORDER = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


_HIGH_BYTES = bytes(range(128, 256))
_WRONG = re.compile("[\udc80-\udcff]")
_INNER_LIST = re.compile(r"\[([^\[\]]*)\]")
_MISSING = {"None": "nan", "null": "nan"}


class TextRow(NamedTuple):
    """A row of a text file.

    Attributes:
        line: Line in the file, from one on.
        cells: Cells by column. None: the row cannot be read.
        error: Reason why it cannot be read.
    """

    line: int
    cells: dict[str, Any] | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Spelling of a delimited file.

    Attributes:
        encoding: Name of the encoding.
        delimiter: Mark between cells.
        quoted: Whether cells may stand in double quotes.
        skipped: Lines before the header.
        lists: Places of the columns whose cells are lists of numbers, such as `[0.1, 0.2]`.
        notes: Sentences about it, if it is not the usual one.
    """

    encoding: str = "utf-8-sig"
    delimiter: str = ","
    quoted: bool = True
    skipped: int = 0
    lists: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def detect_encoding(path: Location) -> str:
    """Return the encoding of a text file: by its byte order mark, UTF-8 if it is valid, else Windows-1252."""
    with open_binary(path) as file:
        head = cast("bytes", file.read(_HEAD))
        for mark, name in _MARKS_OF_ORDER.items():
            if head.startswith(mark):
                return name
        if b"\0" in head[:4096]:  # no text holds NUL, but each ASCII letter of UTF-16 has one
            odd, even = head[1:4096:2].count(0), head[0:4096:2].count(0)
            if 4 * max(odd, even) < len(head[:4096]):
                raise ValueError(f"{path} is no text: it holds NUL characters.")
            return "utf-16-le" if odd > even else "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while head:
                decoder.decode(head)
                head = file.read(_HEAD) if not isinstance(path, str) else b""
            if not isinstance(path, str):
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _single_byte(path)
    return "utf-8-sig"


def _single_byte(path: Location) -> str:
    """Return Windows-1252, or UTF-8 for a file that is damaged rather than in another encoding."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    wrong = high = 0
    with open_binary(path) as file:
        while chunk := cast("bytes", file.read(_HEAD)):
            high += len(chunk) - len(chunk.translate(None, _HIGH_BYTES))
            text = decoder.decode(chunk)
            wrong += len(_WRONG.findall(text))
            if isinstance(path, str):
                break
    # Most bytes above 127 are valid in UTF-8 only by intent.
    return "cp1252" if wrong > high / 2 else "utf-8-sig"


def encoding_notes(path: Location, encoding: str) -> tuple[str, ...]:
    """Return a sentence about an encoding other than UTF-8."""
    if encoding == "utf-8-sig":
        return ()
    name = {"cp1252": "Windows-1252 (Latin-1)"}.get(encoding, encoding.upper())
    return (
        f"{path} is not in UTF-8 and is read as {name}. Save it as UTF-8 if characters are wrong.",
    )


def detect_dialect(path: Location) -> Dialect:
    """Return encoding, separator and quoting of a delimited file.

    The separator is that of a first line `sep=;`, else the one by which the header and the first rows have the most
    cells, equally many in each.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no text.
    """
    encoding = detect_encoding(path)
    with open_binary(path) as binary:
        raw = cast("bytes", binary.read(_HEAD))
    head = raw.decode(encoding, "ignore")
    notes = list(encoding_notes(path, encoding))
    lines = head.splitlines(keepends=True)
    skipped, forced = 0, ""
    if lines and lines[0].strip().strip('"').lower().startswith("sep="):
        forced = lines[0].strip("\r\n").strip('"')[4:5] or "\t"
        skipped = 1
    elif encoding != "utf-8-sig" and "\0" in head:
        raise ValueError(f"{path} is no text: it holds NUL characters.")
    lines = lines[skipped:]
    if len(raw) == _HEAD:
        lines = lines[:-1]
    prefer = "\t" if suffix_of(path) == ".tsv" else ","
    delimiter = forced or max(_MARKS, key=lambda mark: (*_agreement(lines, mark), mark == prefer))
    quoted = delimiter != "\t" or _quotes_close(lines, delimiter)
    if not quoted:
        notes.append(
            f"Quotes in {path} are characters of the text, as they are not closed in cells."
        )
    lists = _list_columns(lines, delimiter, quoted=quoted)
    return Dialect(encoding, delimiter, quoted, skipped, lists, tuple(notes))


def _list_columns(lines: list[str], delimiter: str, *, quoted: bool) -> frozenset[int]:
    """Return the places of the columns most of whose cells in the first rows are lists of numbers, some of several."""
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    columns: dict[int, list[list[Any] | None]] = {}
    try:
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
        names = next(rows, [])
        for found in islice(rows, _RECORDS):
            cells = [delimiter.join(found)] if len(names) == 1 else found
            for place, cell in enumerate(cells):
                if cell.strip():
                    columns.setdefault(place, []).append(parse_list(cell))
    except csv.Error:
        pass
    return frozenset(
        place
        for place, found in columns.items()
        if 2 * found.count(None) < len(found) and any(len(one or ()) > 1 for one in found)
    )


def parse_list(text: str) -> list[Any] | None:
    """Return the numbers of a text such as `[0.1, 0.2]` or `[[1 2] [3 4]]`, as Python and NumPy print them.

    Missing values (`None`, `null`, `nan`) are NaN. A text that is no list of numbers gives None.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner = text[1:-1].strip()
    rows = _INNER_LIST.findall(inner)
    if rows and not _INNER_LIST.sub("", inner).strip(", \n\t"):
        found = [_numbers(row) for row in rows]
        return None if None in found else found
    return _numbers(inner)


def _numbers(text: str) -> list[float] | None:
    """Return numbers between commas or spaces, None if there is anything else."""
    words = text.replace(",", " ").split()
    try:
        return [
            int(word) if word.isdecimal() else float(_MISSING.get(word, word)) for word in words
        ]
    except ValueError:
        return None


def _agreement(lines: list[str], mark: str) -> tuple[float, int]:
    """Return the share of rows with as many cells as the header (0 if that has one), and the cells of the header."""
    rows: list[int] = []
    try:
        for row in csv.reader(lines, delimiter=mark):
            if any(cell.strip() for cell in row):
                rows.append(len(row))
            if len(rows) == _RECORDS:
                break
    except csv.Error:
        pass
    if not rows or rows[0] == 1:
        return 0.0, 0
    alike = sum(count == rows[0] for count in rows) / len(rows)
    return round(alike, 1), rows[0]


def _quotes_close(lines: list[str], delimiter: str) -> bool:
    """Return False if double quotes are characters of the text instead of marks around cells."""
    counts: set[int] = set()
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            counts.add(len(row))
    except csv.Error:
        cells = [cell for line in lines for cell in line.strip("\r\n").split(delimiter)]
        opened = [cell for cell in cells if cell.startswith('"')]
        return 2 * sum(len(cell) > 1 and cell.endswith('"') for cell in opened) > len(opened)
    plain = {line.count(delimiter) for line in lines if line.strip()}
    return len(plain) > 1 or len(counts) == 1


def delimited_rows(path: Location, dialect: Dialect | None = None) -> Iterator[TextRow]:
    """Yield the rows of a delimited file by column: strings, and lists of numbers in columns of such lists.

    A row that cannot be read has the reason instead.

    Raises:
        ValueError: If the file has no header.
        OSError: If it cannot be read.
    """
    dialect = dialect or detect_dialect(path)
    csv.field_size_limit(min(sys.maxsize, max(csv.field_size_limit(), _LONGEST_CELL)))
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(
            binary, encoding=dialect.encoding, errors="surrogateescape", newline=""
        ) as file,
    ):
        rows = _records(file, dialect)
        names = _header(path, next(rows, None))
        for line, found, error in rows:
            # A single column needs no separator, so that one in a text is a character of it.
            cells = [dialect.delimiter.join(found)] if len(names) == 1 and found else found
            reason = error or _misfit(cells, names, dialect)
            if reason:
                yield TextRow(line, None, f"{path}, line {line}: {reason}")
            else:
                values: list[Any] = [
                    cell if place not in dialect.lists else _list_or_text(cell)
                    for place, cell in enumerate(cells)
                ]
                yield TextRow(line, dict(zip(names, values, strict=False)))


def _list_or_text(cell: str) -> list[Any] | str:
    found = parse_list(cell)
    return cell if found is None else found


def _records(
    file: io.TextIOWrapper, dialect: Dialect
) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield line, cells and error of each row. Reading goes on in the line after that of an error."""
    pending: deque[str] = deque()  # lines to read again
    taken: list[str] = []  # lines of the current row
    number = dialect.skipped
    for _ in range(dialect.skipped):
        file.readline()

    def lines() -> Iterator[str]:
        while line := pending.popleft() if pending else file.readline():
            taken.append(line)
            if len(taken) > _LONGEST_ROW:
                raise csv.Error("a double quote is not closed")
            yield line.replace("\0", "")

    quoting = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    while True:
        reader = csv.reader(lines(), delimiter=dialect.delimiter, strict=True, quoting=quoting)
        try:
            for cells in reader:
                start, number = number + 1, number + len(taken)
                taken.clear()
                if cells:
                    yield start, cells, None
        except csv.Error as error:
            number += 1
            pending.extendleft(reversed(taken[1:]))
            taken.clear()
            yield number, [], f"{_reason(error)}."
        else:
            return


def _reason(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text or "not closed" in text:
        return "a double quote is not closed. Write a double quote inside a cell twice"
    if "expected after" in text:
        return (
            "a double quote inside a cell is not doubled. Put the cell in quotes and write each "
            "double quote in it twice"
        )
    return text


def _header(path: Location, first: tuple[int, list[str], str | None] | None) -> list[str]:
    """Return different names of the columns; columns without a name are numbered."""
    if first is None or first[2] is not None:
        raise ValueError(
            f"{path} is no CSV file with a header: expected different names in its first line, got "
            f"{'nothing.' if first is None else first[2]}"
        )
    names = [name.strip() for name in first[1]]
    while names and not names[-1]:  # separators at the end of each line
        names.pop()
    names = [name or f"column_{place}" for place, name in enumerate(names, 1)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice or not names:
        raise ValueError(
            f"{path} is no CSV file with a header: expected different names in its first line, got {names}. "
            f"{f'{twice[0]!r} comes twice: rename one of the columns.' if twice else ''}".strip()
        )
    return names


def _misfit(cells: list[str], names: list[str], dialect: Dialect) -> str | None:
    """Return why a row does not fit the header, None if it does."""
    extra = any(cells[len(names) :])
    if len(cells) < len(names) or extra:
        mark = {"\t": "tabs", ",": "commas", ";": "semicolons"}.get(
            dialect.delimiter, f"'{dialect.delimiter}'"
        )
        advice = f" Cells with {mark} in them must stand in quotes." if dialect.quoted else ""
        return f"expected {len(names)} cells ({', '.join(names)}), got {len(cells)}.{advice}"
    for name, cell in zip(names, cells, strict=False):
        if not cell.isascii() and _WRONG.search(cell):
            return f"column '{name}' has bytes that are not in the encoding of the file."
    return None


def json_rows(path: Location) -> Iterator[TextRow]:
    """Yield the rows of a file of JSON lines. A line that is no JSON object has the reason instead.

    Raises:
        OSError: If the file cannot be read.
    """
    encoding = detect_encoding(path)
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(binary, encoding=encoding, errors="surrogateescape", newline="\n") as file,
    ):
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield TextRow(number, None, f"{path}, line {number} is not JSON: {error}.")
                continue
            except RecursionError:
                yield TextRow(number, None, f"{path}, line {number} is nested too deeply.")
                continue
            if isinstance(row, dict):
                yield TextRow(number, cast("dict[str, Any]", row))
            else:
                reason = f'expected an object like {{"image": "a.png"}}, got {row!r:.40}.'
                yield TextRow(number, None, f"{path}, line {number}: {reason}")


def text_rows(path: Location) -> Iterator[TextRow]:
    """Yield the rows of a delimited file or of JSON lines, by the suffix."""
    return delimited_rows(path) if suffix_of(path) in DELIMITED else json_rows(path)


def json_table(path: Location) -> list[dict[str, Any]]:
    """Return the rows of a JSON file: a list of objects, an object of equally long lists, or one list in an object.

    Raises:
        ValueError: If it is none of these.
        OSError: If the file cannot be read.
    """
    with open_binary(path) as file:
        raw = cast("bytes", file.read())
    expected = 'expected a list of objects like [{"text": "...", "label": "a"}, ...]'
    try:
        data: Any = json.loads(raw.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        try:  # JSON lines under another name
            rows = [json.loads(line) for line in raw.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise ValueError(f"{path} is not JSON: {error}; {expected}.") from error
        data = rows
    if isinstance(data, dict):
        lists = {k: v for k, v in cast("dict[str, Any]", data).items() if isinstance(v, list)}
        if len(lists) == 1 and all(isinstance(row, dict) for row in next(iter(lists.values()))):
            data = next(iter(lists.values()))
        elif lists and len(lists) == len(data) and len({len(v) for v in lists.values()}) == 1:
            data = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ValueError(f"{path}: {expected}, got {type(data).__name__}.")
    return cast("list[dict[str, Any]]", data)
