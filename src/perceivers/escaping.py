"""Escaping of names and messages from outside for the terminal, Markdown, HTML and files.

File names, class names and error messages of other libraries may contain control characters, escape sequences,
bidirectional marks, markup, and bytes that are not UTF-8. Every text of that kind passes one of these functions before
it is shown.
"""

import codecs
import html
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, cast

# Marks and embeddings that reorder text (Unicode Standard Annex 9), and the separators of lines and paragraphs.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SEPARATORS = frozenset("\u2028\u2029")
_FIRST_BYTE, _LAST_BYTE = (
    0xDC80,
    0xDCFF,
)  # surrogates that stand for one byte of a name that is not UTF-8
_SURROGATES = re.compile("[\ud800-\udfff]")
_ENCODING_ERRORS = "perceivers.bytes"
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~]|!(?=\[)|(?<![^\W_])_|_(?![^\W_]))")
_MARKDOWN_LINKS = re.compile(r"(?i)(:)(?=//)|(?<=\bwww)(\.)|(?<=\bmailto)(:)")
_MARKDOWN_START = re.compile(r"^(\s*)([#=]|[-+](?=\s|-|$)|\d+(?=[.)](?:\s|$)))")


def escape_terminal(text: str) -> str:
    r"""Return a text that is safe to print: control characters, bidirectional marks and surrogates become visible.

    Line feeds and tabs are kept. A byte that is not UTF-8 is written as `\xff`, other characters as `\x1b` or `\u202e`.
    """
    return "".join(
        _visible(char) if _is_unsafe(char) and char not in "\n\t" else char for char in text
    )


def escape_line(text: str) -> str:
    r"""Return a text like `escape_terminal`, on one line: line feeds and tabs become `\n` and `\t`."""
    return escape_terminal(text).replace("\n", r"\n").replace("\t", r"\t")


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line: no markup, links, HTML or table cells arise from it."""
    line = _MARKDOWN.sub(r"\\\1", escape_line(text).replace("&", "&amp;"))
    line = _MARKDOWN_LINKS.sub(lambda found: "\\" + found[0], line)
    return _MARKDOWN_START.sub(_escaped_start, line)


def markdown_code(text: str) -> str:
    """Return a text as code in Markdown; as escaped text if it has marks that end the code or the cell of a table."""
    return escape_markdown(text) if set(text) & {"`", "|"} else f"`{escape_line(text)}`"


def escape_html(text: str) -> str:
    """Return a text that HTML shows as it is, in content and in quoted attributes."""
    return html.escape(escape_terminal(text), quote=True)


def escape_figure(text: str) -> str:
    """Return a text that matplotlib draws as it is, on one line, without formulas between dollar signs."""
    return escape_line(text).replace("$", r"\$")


def escape_surrogates(text: str) -> str:
    r"""Return a text that every file format takes: bytes of names that are not UTF-8 become visible, `\xff`."""
    return text if text.isascii() else _SURROGATES.sub(lambda found: _visible(found[0]), text)


def encode_text(text: str) -> bytes:
    """Return a text as UTF-8: the bytes of names that are not UTF-8 are kept, other surrogates become visible."""
    return text.encode("utf-8", encoding_errors())


def json_text(value: Any, *, indent: int | None = None, nan_as_null: bool = False) -> str:
    r"""Return plain data as JSON that can be encoded in UTF-8; bytes that are not UTF-8 become `\udcff`.

    Raises:
        ValueError: If a number is not finite and `nan_as_null` is False.
    """
    value = _finite(value) if nan_as_null else value
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=str)
    return _SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in cast("list[Any]", value)]
    return value


def encoding_errors() -> str:
    r"""Return the name of an error handler of `str.encode` with which every text can be encoded.

    Bytes of names that are not UTF-8 (`surrogateescape`) are kept, other characters that the encoding lacks are
    written as `\u202e`.
    """
    codecs.register_error(_ENCODING_ERRORS, _encode_rest)
    return _ENCODING_ERRORS


def _is_unsafe(char: str) -> bool:
    if " " <= char <= "~":
        return False
    return char in _REORDERING or char in _SEPARATORS or unicodedata.category(char) in ("Cc", "Cs")


def _visible(char: str) -> str:
    code = ord(char)
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return f"\\x{code - 0xDC00:02x}"
    known = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return known.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _escaped_start(found: re.Match[str]) -> str:
    """Return the start of a line that is neither a heading nor an item of a list."""
    blanks, mark = found.groups()
    return f"{blanks}{mark}\\" if mark.isdigit() else f"{blanks}\\{mark}"


def _encode_rest(error: UnicodeError) -> tuple[bytes | str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    code = ord(char)
    if _FIRST_BYTE <= code <= _LAST_BYTE:
        return bytes([code - 0xDC00]), error.start + 1
    text = _visible(char) if code < 0x10000 else f"\\U{code:08x}"
    return text, error.start + 1
