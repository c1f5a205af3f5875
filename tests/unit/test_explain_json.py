import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.contents.array import ArrayContent
from perceivers.explain.contents.audio import SpectrogramContent, WaveformContent
from perceivers.explain.contents.base import View
from perceivers.explain.contents.image import ImageContent
from perceivers.explain.contents.points import PointsContent
from perceivers.explain.contents.series import SeriesContent
from perceivers.explain.contents.table import TableContent
from perceivers.explain.contents.text import TextContent
from perceivers.explain.contents.video import VideoContent
from perceivers.explain.render.explanation_json import views_json

NAN = float("nan")


def explained(content, attention, query=None) -> Explanation:
    attention = np.asarray(attention, np.float32)
    view = View(
        name="it",
        content=content,
        attention=attention,
        share=np.full(len(attention), 1 / 3, np.float32),
        even=0.25,
        scores=attention[:, None],
        query=None if query is None else np.asarray(query, np.float32),
    )
    return Explanation(
        name="sample",
        label_names=("a", "b"),
        probabilities=np.array([0.75, 0.25], np.float32),
        views=(view,),
        latents=(0,),
    )


def one(content, attention, **options):
    (view,) = views_json(explained(content, attention), **options)
    json.dumps(view, allow_nan=False)  # a browser reads no NaN
    return view


def levels(view, place=0) -> list[int]:
    return list(base64.b64decode(view["maps"][place]["values"]))


def pixels(url: str) -> np.ndarray:
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_picture_and_all_its_maps_on_one_scale():
    shown = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    view = one(ImageContent(pixels=shown), [[[0, 1, 2], [2, 2, 2]], [[4, 4, 4], [4, 4, NAN]]])
    np.testing.assert_array_equal(pixels(view["image"]), shown)
    assert (view["media"], view["width"], view["height"]) == ("image", 6, 4)
    assert (view["axes"], view["extent"]) == ([2, 3], [1.0, 1.0])
    assert [one["cross_attention"] for one in view["maps"]] == ["all", 0, 1]
    assert (view["low"], view["high"]) == (0.0, 4.0)
    assert levels(view, 1) == [1, 1 + round(254 / 4), 128, 128, 128, 128]
    assert levels(view, 2) == [255] * 5 + [0]  # nothing there is no level at all
    assert levels(view, 0)[5] == 128  # what one read had no access to, the other saw
    assert (view["share"], view["even"]) == ([0.3333, 0.3333], 0.25)


def test_one_read_alone_and_none_that_there_is_not():
    content = TableContent(fields=("age", "color"), texts=("3", ""))
    view = one(content, [[1, 2], [3, 1]], cross_attention=1)
    assert [one["cross_attention"] for one in view["maps"]] == [1]
    assert (view["names"], view["texts"]) == (["age", "color"], ["3", ""])
    with pytest.raises(
        ValueError, match=r"Expected a cross-attention between 0 and 1, or 'all', got 2\."
    ):
        one(content, [[1, 2], [3, 1]], cross_attention=2)


def test_a_model_with_one_cross_attend_has_its_map_and_that_of_the_query():
    content = TextContent(units=np.array([65, 66]))
    (view,) = views_json(explained(content, [[1, 1]], query=[2, 0]))
    assert [one["cross_attention"] for one in view["maps"]] == [0, "query"]


def test_what_speaks_for_a_class_is_a_map_even_of_one_read():
    whole = explained(TextContent(units=np.array([65, 66])), [[1, 1]])
    view = replace(whole.views[0], summary=np.array([0, 2], np.float32), summary_title="for cat")
    (told,) = views_json(replace(whole, views=(view,), map="class"))
    assert (told["maps"][0]["title"], [one["cross_attention"] for one in told["maps"]]) == (
        "for cat",
        ["all", 0],
    )
    assert levels(told) == [1, 255]


def test_a_map_scaled_where_nobody_looked_anywhere():
    assert one(TableContent(fields=("a",), texts=("1",)), [[NAN]])["high"] == 1.5


def test_a_film_says_how_far_its_map_reaches():
    frames = np.zeros((5, 6, 8, 3), np.uint8)
    view = one(VideoContent(frames=frames, rate=2.5, step=(2, 4, 4)), np.ones((1, 3, 2, 2)))
    assert view["extent"] == pytest.approx([6 / 5, 8 / 6, 1.0])
    assert (view["seconds"], view["rate"], view["step"], len(view["frames"])) == (2.0, 2.5, 2, 5)


def test_a_waveform_keeps_its_peaks_and_loses_its_padding():
    samples = np.zeros((2400, 1), np.float32)
    samples[1001], samples[1002] = 0.5, -0.25
    view = one(WaveformContent(samples=samples, rate=1200.0, step=600), [[1, 2, 1, 1, NAN, NAN]])
    (wave,) = view["channels"]
    assert (max(wave["high"]), min(wave["low"]), len(wave["high"])) == (0.5, -0.25, 800)
    assert (view["seconds"], view["axes"], view["extent"]) == (2.0, [4], [1.0])


def test_a_spectrogram_has_frequencies_upwards():
    values = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [NAN] * 4], np.float32)  # 3 frames of 4 bands
    hertz = np.array([100, 200, 400, 800], np.float32)
    content = SpectrogramContent(values=values, seconds=0.3, hertz=hertz, step=(2, 2))
    view = one(content, [[[1, 2], [3, 4]]])  # 2 elements along time, 2 along frequency
    assert (view["width"], view["height"], view["hertz"]) == (3, 4, [100, 200, 400, 800])
    shades = pixels(view["image"])
    assert shades.shape == (4, 3)
    assert shades[0, 0] == 255
    assert (shades[3, 0], shades[0, 2]) == (0, 0)
    assert view["extent"] == pytest.approx([1.0, 4 / 3])
    assert (view["axes"], levels(view)[0] < levels(view)[1]) == ([2, 2], True)
    assert levels(view)[:2] == [65, 192]  # the lowest band at both times


def test_points_that_are_padding_or_too_many_are_left_out():
    points = np.random.default_rng(0).normal(size=(9000, 3)).astype(np.float32)
    attention = np.ones((1, 9000), np.float32)
    attention[0, :500] = NAN
    view = one(PointsContent(points=points), attention)
    assert (len(view["points"]), view["axes"], view["total"]) == (8000, [8000], 9000)
    np.testing.assert_allclose(view["points"][0], points[500], atol=1e-3)
    assert set(levels(view)) == {1 + round(254 / 1.5)}


def test_characters_know_their_elements():
    content = TextContent(
        units=np.array([*"aé!".encode(), 259]), marks=("P", "B", "C", "M"), step=2
    )
    view = one(content, [[1, 2, 3, NAN]])
    assert view["characters"] == [["a", 0, 1], ["é", 0, 2], ["!", 1, 2], ["[M]", 2, 3]]
    assert view["axes"] == [3]


def test_a_recording_says_where_nothing_was_measured():
    values = np.array([[1, 10], [NAN, 20], [3, 30], [4, 40]], np.float32)
    content = SeriesContent(values=values, times=np.arange(4) / 2, channels=("x", "y"), step=2)
    view = one(content, [[1, 2]])
    assert view["lines"] == [[1, None, 3, 4], [10, 20, 30, 40]]
    assert (view["times"], view["unit"], view["extent"]) == ([0, 0.5, 1, 1.5], "s", [1.0])


@pytest.mark.parametrize(("fill", "least", "most"), [(0.0, 0, 4), (NAN, 1, 4)])
def test_an_array_is_a_picture_of_its_values(fill, least, most):
    values = np.array([[1, fill], [3, 4]], np.float32)
    view = one(ArrayContent(values=values), [[1, 2]])
    assert (view["width"], view["height"]) == (2, 2)
    assert (view["lowest"], view["highest"]) == (least, most)


def test_an_array_of_nothing_is_drawn_all_the_same():
    view = one(ArrayContent(values=np.full((2, 2), NAN, np.float32)), [[NAN, NAN]])
    assert (view["lowest"], view["highest"], levels(view)) == (0, 0, [0, 0])
