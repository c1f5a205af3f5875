import io
from dataclasses import replace

import numpy as np
import pytest

from perceivers.explain.contents import text
from perceivers.explain.contents.text import TextContent
from perceivers.explain.render.figure import draw_explanation
from support.explanations import explanation, view


def passage(data: bytes) -> TextContent:
    return TextContent(units=np.frombuffer(data, np.uint8).astype(np.int64), marks=("PAD", "BOS"))


def test_characters_of_several_bytes_keep_all_their_elements():
    assert passage("aß東\N{GRINNING FACE}".encode()).characters() == [
        ("a", 0, 1),
        ("ß", 1, 3),
        ("東", 3, 6),
        ("\N{GRINNING FACE}", 6, 10),
    ]


def test_bytes_that_make_no_character_are_written_as_hex():
    assert passage(b"a\xffb\xe6\x9d").characters() == [
        ("a", 0, 1),
        (r"\xff", 1, 2),
        ("b", 2, 3),
        (r"\xe6", 3, 4),
        (r"\x9d", 4, 5),
    ]


def test_special_tokens_are_named_and_end_a_character_that_was_cut():
    units = np.array([ord("a"), 0xC3, 257, 300], np.int64)
    assert TextContent(units=units, marks=("PAD", "BOS")).characters() == [
        ("a", 0, 1),
        (r"\xc3", 1, 2),
        ("[BOS]", 2, 3),
        ("[44]", 3, 4),
    ]


@pytest.mark.parametrize(
    ("letter", "cells"),
    [
        ("a", 1),
        ("東", 2),
        ("\N{COMBINING ACUTE ACCENT}", 0),
        ("\N{ZERO WIDTH JOINER}", 0),
        (r"\xff", 4),
    ],
)
def test_characters_fill_cells(letter, cells):
    assert text._num_cells(letter) == cells


def drawn(words: str):
    """Return the characters that are drawn of one line, with the middle of each in cells."""
    content = passage(words.encode())
    size = len(content.units)
    shown = view("short text", reads=1)
    shown = replace(
        shown,
        content=content,
        attention=np.ones((1, size), np.float32),
        scores=np.ones((1, 1, size), np.float32),
    )
    figure = draw_explanation(explanation(shown))
    figure.savefig(io.BytesIO(), dpi=30)
    axes = next(one for one in figure.axes if one.get_title(loc="left") == "cross-attention 1 of 1")
    found = [(one.get_text(), one.get_position()[0] / text.CELL) for one in axes.texts]
    return {letter: pytest.approx(cell) for letter, cell in found if letter.strip()}


def test_characters_lie_in_their_cells():
    assert drawn("oh, \\we") == {"o": 0.5, "h": 1.5, ",": 2.5, "\\": 4.5, "w": 5.5, "e": 6.5}


def test_a_word_that_does_not_fit_begins_a_line():
    first, second = passage(b"ab " * 25 + b"cde f")._lines()
    assert first[-1][1:] == (74, 1)
    assert [(one[0], cell) for one, cell, _ in second] == [
        ("c", 0),
        ("d", 1),
        ("e", 2),
        (" ", 3),
        ("f", 4),
    ]
    assert len(passage(b"a" * 200)._lines()) == 3


def test_an_accent_joins_its_character():
    both = "\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert list(drawn("e\N{COMBINING ACUTE ACCENT}t")) == [both, "t"]


def test_blanks_are_not_drawn():
    assert drawn(" \x00") == {}


def test_a_character_that_no_font_has_is_a_square(monkeypatch):
    known = text._font_with
    monkeypatch.setattr(text, "_font_with", lambda one: None if one == "東" else known(one))
    assert drawn("a 東 b") == {"a": 0.5, "\N{WHITE SQUARE}": 3, "b": 5.5}


def test_another_font_is_asked_where_the_first_lacks_a_character():
    (mono, file), *others = text._fonts().items()
    assert mono == "DejaVu Sans Mono"
    assert text._font_with("a") == mono
    lacking = sorted(text._code_points(dict(others)["DejaVu Sans"]) - text._code_points(file))
    assert text._font_with(chr(lacking[0])) in dict(others)
    assert text._font_with(chr(0x10FFFD)) is None
