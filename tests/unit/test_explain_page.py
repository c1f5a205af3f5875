"""The page with everything in it, and pictures that move."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from perceivers.explain.render import animation as moving
from perceivers.explain.render import page
from perceivers.explain.render.animation import write_moving
from perceivers.explain.render.page import page_of
from support.explanations import CONTENTS, explanation, view


def data_of(text: str) -> dict:
    return json.loads(re.search(r"^const DATA = (.*);$", text, re.MULTILINE)[1])


def numbers(packed: dict) -> np.ndarray:
    level = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).astype(float)
    found = packed["low"] + (level - 1) / 254 * (packed["high"] - packed["low"])
    return np.where(level == 0, np.nan, found).reshape(packed["shape"])


@pytest.mark.parametrize("name", CONTENTS)
def test_every_modality_has_its_maps_in_the_page(name):
    shown = view(name, kept="for cat", hidden=CONTENTS[name][1][0] > 1)
    text = page_of(explanation(shown, map="class", about="cat"))
    assert not re.search(r"(src|href)=|https?:|@import|fetch\(|XMLHttp", text)
    (one,) = data_of(text)["views"]
    flips = name in ("spectrogram", "unknown bands")
    for packed, attention in zip(one["reads"], shown.attention, strict=True):
        expected = attention.T[::-1] if flips else attention
        assert packed["shape"] == list(expected.shape)
        np.testing.assert_allclose(numbers(packed), expected, atol=0.01)
    assert len(one["latents"]) == len(one["scores"]) == 2
    assert len(one["rolled"]) == 3


def test_what_a_file_is_called_cannot_leave_the_script():
    text = page_of(explanation(view(kept="x"), name="</script><script>alert(1)"))
    assert text.count("</script>") == 1
    assert data_of(text)["name"] == "</script><script>alert(1)"


def test_large_maps_are_made_coarser_and_many_latents_left_out(monkeypatch):
    monkeypatch.setattr(page, "SIDE", 3)
    monkeypatch.setattr(page, "MOST", 10)
    shown = view(kept="all layers")
    (one,) = data_of(page_of(explanation(shown)))["views"]
    assert one["reads"][0]["shape"] == [2, 2]
    cells = shown.attention[0].reshape(2, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(numbers(one["reads"][0]), cells, atol=0.01)
    assert "latents" not in one


@pytest.mark.parametrize(("name", "frames"), [("film", 10), ("cloud", 2), ("picture", 2)])
def test_films_play_clouds_turn_and_all_else_goes_through_its_reads(
    name, frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(moving, "TURNS", 2)
    shown = view(name, reads=1, kept="all layers", hidden=0 if name == "film" else 1)
    write_moving(explanation(shown, map="rollup"), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        assert (found.format, found.n_frames) == ("GIF", frames)
