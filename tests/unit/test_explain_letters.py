import numpy as np
import pytest

from perceivers.explain.attribution.contents import Passage, letters_of
from perceivers.explain.render import glyphs as letters
from perceivers.explain.render.glyphs import cells_of, outlines


def passage(data: bytes) -> Passage:
    return Passage(units=np.frombuffer(data, np.uint8).astype(np.int64), marks=("PAD", "BOS"))


def test_letters_of_several_bytes_keep_all_their_elements():
    assert letters_of(passage("aß東\N{GRINNING FACE}".encode())) == [
        ("a", 0, 1),
        ("ß", 1, 3),
        ("東", 3, 6),
        ("\N{GRINNING FACE}", 6, 10),
    ]


def test_bytes_that_make_no_letter_are_written_as_hex():
    assert letters_of(passage(b"a\xffb\xe6\x9d")) == [
        ("a", 0, 1),
        (r"\xff", 1, 2),
        ("b", 2, 3),
        (r"\xe6", 3, 4),
        (r"\x9d", 4, 5),
    ]


def test_marks_are_named_and_end_a_letter_that_was_cut():
    units = np.array([ord("a"), 0xC3, 257, 300], np.int64)
    assert letters_of(Passage(units=units, marks=("PAD", "BOS"))) == [
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
def test_letters_fill_cells(letter, cells):
    assert cells_of(letter) == cells


def test_outlines_lie_where_they_are_placed():
    path = outlines([("l", 10, 3), (" ", 11, 3)], (1.0, 1.0))
    assert path is not None
    box = path.get_extents()
    assert 10 < box.x0 < box.x1 < 11
    assert 3 <= box.y0 < box.y1 < 4


def test_blanks_have_no_outline():
    assert outlines([(" ", 0, 0), ("\x00", 1, 0)], (1.0, 1.0)) is None


def test_a_letter_that_no_font_has_is_a_box(monkeypatch):
    monkeypatch.setattr(letters, "_font_with", lambda letter: None)
    letters._outline.cache_clear()
    box = outlines([("東", 0, 0)], (1.0, 1.0))
    assert box is not None
    assert outlines([("\N{COMBINING ACUTE ACCENT}", 0, 0)], (1.0, 1.0)) is None
    letters._outline.cache_clear()


def test_another_font_is_asked_where_the_first_lacks_a_letter():
    letters._font_with.cache_clear()
    mono, *others = letters._fonts()
    assert "DejaVuSansMono" in mono
    assert any("DejaVuSans.ttf" in file for file in others)
    assert letters._font_with("a").get_file() == mono
    lacking = sorted(letters._letters_in(next(f for f in others if f.endswith("DejaVuSans.ttf"))))
    letter = next(chr(c) for c in lacking if c not in letters._letters_in(mono))
    assert letters._font_with(letter).get_file() != mono
    assert letters._font_with(chr(0x10FFFD)) is None
