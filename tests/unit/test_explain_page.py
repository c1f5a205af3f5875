"""The page with everything in it, and pictures that move."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perceivers.explain.contents import points
from perceivers.explain.render import explanation_json as described
from perceivers.explain.render.explanation_json import VERSION
from perceivers.explain.render.figure import write_gif
from perceivers.explain.render.write import SCRIPTS, page_of
from support.explanations import CONTENTS, explanation, view


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text)[1])


def numbers(maps: dict, axes: list[int], place: int) -> np.ndarray:
    level = np.frombuffer(base64.b64decode(maps["maps"][place]["values"]), np.uint8).astype(float)
    found = maps["low"] + (level - 1) / 254 * (maps["high"] - maps["low"])
    return np.where(level == 0, np.nan, found).reshape(axes)


@pytest.mark.parametrize("name", CONTENTS)
def test_every_modality_has_its_maps_in_the_page(name):
    shown = view(name, kept="for cat", hidden=CONTENTS[name][1][0] > 1)
    text = page_of(explanation(shown, map="class", about="cat"))
    assert not re.search(r"(src|href)=|https?:|@import|fetch\(|XMLHttp", text)
    data = data_of(text)
    (one,) = data["views"]
    assert (data["version"], data["about"]) == (VERSION, "cat")
    assert [part["title"] for part in one["maps"]] == [
        "for cat",
        "cross-attention 1 of 2",
        "cross-attention 2 of 2",
    ]
    for place, attention in enumerate(shown.attention, 1):
        expected = shown.content.arrange(attention, shown)
        assert one["axes"] == list(expected.shape)
        known = np.clip(expected, None, one["high"])
        np.testing.assert_allclose(numbers(one, one["axes"], place), known, atol=0.01)
    assert [part["latent"] for part in one["latents"]] == [0, 1, 2]
    assert len(one["latents"][0]["attention"]["maps"]) == 3
    assert len(one["latents"][0]["scores"]["maps"]) == 2


def test_the_name_of_a_file_cannot_end_the_script():
    text = page_of(explanation(view(kept="x"), name="</script><script>alert(1)"))
    assert text.count("</script>") == 2
    assert "alert(1)" not in text.replace("\\u003cscript>alert(1)", "")
    assert data_of(text)["name"] == "</script><script>alert(1)"


def test_scripts_of_a_page_are_one_script():
    text = page_of(explanation(view(kept="x")))
    script = text[text.index('<script type="module">') :]
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names)) > len(SCRIPTS)


def test_large_maps_are_made_coarser_and_many_latents_left_out(monkeypatch):
    monkeypatch.setattr(described, "SIDE", 3)
    monkeypatch.setattr(described, "LATENTS", 10)
    shown = view(kept="all layers")
    (one,) = data_of(page_of(explanation(shown)))["views"]
    assert one["axes"] == [2, 2]
    cells = shown.attention[0].reshape(2, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(numbers(one, [2, 2], 1), cells, atol=0.01)
    assert one["latents"] == []


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("classification", {"label": "b", "top": [("b", 0.75), ("a", 0.25)]}),
        ("multilabel", {"label": "b", "labels": ["b"], "top": [("b", 0.75), ("a", 0.25)]}),
        ("regression", {"values": {"a": 0.25, "b": 0.75}}),
    ],
)
def test_the_output_is_told_as_the_server_tells_it(task, expected):
    given = explanation(view(kept="x"), task=task, label_names=("a", "b"))
    values = np.array([0.25, 0.75], np.float32)
    (answer,) = data_of(page_of(replace(given, probabilities=values)))["answers"]
    if "top" in answer:
        assert answer.pop("probability") == answer["top"][0]["probability"]
        answer["top"] = [(one["label"], one["probability"]) for one in answer["top"]]
    assert answer == {"name": given.name, "task": task, **expected}


@pytest.mark.parametrize(("name", "frames"), [("film", 10), ("cloud", 2), ("picture", 3)])
def test_films_play_clouds_turn_and_all_else_goes_through_its_reads(
    name, frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(points, "TURNS", 2)
    shown = view(name, kept="all layers", hidden=0 if name == "film" else 1)
    write_gif(explanation(shown, map="rollup"), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        assert (found.format, found.n_frames) == ("GIF", frames)
