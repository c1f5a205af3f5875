import os

import pytest

from perceivers.escaping import (
    encode_text,
    escape_html,
    escape_line,
    escape_markdown,
    escape_terminal,
)

NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("Ünïcödé 鳥 😀", "Ünïcödé 鳥 😀"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("over\rwritten", r"over\rwritten"),
        ("\x9b2J", r"\x9b2J"),
        ("gpj.\u202etxt", r"gpj.\u202etxt"),
        ("a\u2028b", r"a\u2028b"),
        (NOT_UTF8, r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("two\nlines\tcells", "two\nlines\tcells"),
    ],
)
def test_text_for_a_terminal(text, shown):
    assert escape_terminal(text) == shown


def test_a_name_with_line_feeds_stays_on_one_line():
    assert escape_line("a\nError: b\tc") == r"a\nError: b\tc"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("robin_1.jpg", "robin_1.jpg"),
        ("a|b", r"a\|b"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)\>"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("[click](http://evil.example)", r"\[click\](http\://evil.example)"),
        ("![i](x)", r"\!\[i\](x)"),
        ("www.evil.example", r"www\.evil.example"),
        ("*bold* _it_ `code` ~no~", r"\*bold\* \_it\_ \`code\` \~no\~"),
        ("back\\slash", r"back\\slash"),
        ("# head", r"\# head"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("75.0 %", "75.0 %"),
        ("-0.5", "-0.5"),
        ("---", r"\---"),
        ("=", r"\="),
        ("two\nlines", r"two\\nlines"),
    ],
)
def test_text_in_markdown(name, shown):
    assert escape_markdown(name) == shown


def test_text_in_html():
    assert escape_html('<b a="\'">&\x1b\u202e') == (
        r"&lt;b a=&quot;&#x27;&quot;&gt;&amp;\x1b\u202e"
    )


def test_any_text_can_be_written_to_a_file():
    assert encode_text(NOT_UTF8) == b"caf\xe9.png"
    assert encode_text("é\ud800") == "é\\ud800".encode()
