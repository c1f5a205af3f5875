import re
import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure

from perceivers.explain.render.figure import draw_explanation
from support.explanations import CONTENTS, explanation, image, view


def axes_of(figure):
    for part in figure.subfigs:
        yield from part.axes
        yield from axes_of(part)


def texts(figure: Figure) -> list[str]:
    found = [t.get_text() for part in all_parts(figure) for t in part.texts]
    for part in all_parts(figure):
        found += [part._suptitle.get_text()] if part._suptitle else []
        found += [part._supxlabel.get_text()] if part._supxlabel else []
    for axes in axes_of(figure):
        found += [axes.get_title(loc) for loc in ("left", "center", "right")]
        found += [axes.get_xlabel(), axes.get_ylabel()]
        found += [label.get_text() for label in axes.get_yticklabels()]
        found += [text.get_text() for text in axes.texts]
        legend = axes.get_legend()
        found += [t.get_text() for t in legend.get_texts()] if legend else []
    return [text for text in found if text]


def all_parts(figure):
    yield figure
    for part in figure.subfigs:
        yield from all_parts(part)


class TestOnePicture:
    def test_every_read_and_latent_has_its_title(self):
        written = texts(draw_explanation(explanation(view(reads=4))))
        maps = [t for t in written if re.fullmatch(r"cross-attention \d of 4", t)]
        assert maps == [f"cross-attention {i} of 4" for i in range(1, 5)]
        rows = [t for t in written if "\n" in t and t.startswith("cross-attention")]
        assert rows == [f"cross-attention {i}\nof 4" for i in range(1, 5)]
        latents = [t for t in written if t.startswith("latent")]
        assert latents == ["latent 0", "latent 1", "latent 2"]
        assert "a $picture^.png" in written
        assert "all 4 cross-attentions" in written
        assert any(t.startswith("predicted: label $0$ with a name") for t in written)

    def test_a_single_read_is_drawn_once_and_large(self):
        written = texts(draw_explanation(explanation(view(reads=1))))
        assert written.count("cross-attention 1 of 1") == 1
        assert not any(t.startswith("all") for t in written)

    @pytest.mark.parametrize(
        "shape", [(8, 8), (20, 400), (400, 20)], ids=["square", "wide", "tall"]
    )
    def test_any_shape_is_drawn_without_a_warning(self, shape, tmp_path):
        drawn = explanation(replace(view(latents=1), content=image(*shape)), labels=9)
        figure = draw_explanation(drawn)
        figure.savefig(tmp_path / "a.png", dpi=30)
        assert max(figure.get_size_inches()) < 20

    @pytest.mark.parametrize(
        ("peak", "ticks"), [(20.0, ["0", "1x", "20.0x"]), (200.0, ["1x", "200.0x"])]
    )
    def test_the_scale_of_attention_stays_readable(self, peak, ticks):
        flat = replace(view(reads=1), attention=np.full((1, 4, 4), peak, np.float32))
        figure = draw_explanation(explanation(flat))
        bars = [axes for axes in axes_of(figure) if axes.get_label() == "<colorbar>"]
        assert [label.get_text() for label in bars[0].get_yticklabels()] == ticks

    def test_scores_of_padding_alone_are_drawn(self):
        nothing = replace(view(reads=1), scores=np.full((1, 1, 4, 4), np.nan, np.float32))
        draw_explanation(explanation(nothing)).savefig(BytesIO(), dpi=20)


USUAL = ("wave", "spectrogram", "film", "cloud", "short text", "recording", "fields")


@pytest.mark.parametrize("name", list(CONTENTS))
def test_every_content_is_drawn_without_a_warning(name, tmp_path):
    reads = 2 if name in USUAL else 1
    figure = draw_explanation(explanation(view(name, reads=reads)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "a.png", dpi=40)
    written = texts(figure)
    if reads == 1:
        assert any(t.startswith("cross-attention 1 of 1") for t in written)
    else:
        assert any(t.startswith("all 2 cross-attentions") for t in written)
        assert {"cross-attention 1 of 2", "cross-attention 2 of 2"} <= set(written)
    assert max(figure.get_size_inches()) < 40


@pytest.mark.parametrize(
    "name", ["spectrogram", "cloud", "long text", "values", "fields", "elements"]
)
def test_every_read_of_several_rows_is_named(name):
    written = texts(draw_explanation(explanation(view(name, reads=5))))
    assert {f"cross-attention {i} of 5" for i in range(1, 6)} <= set(written)


@pytest.mark.parametrize("name", ["wave", "long wave", "film", "cloud", "long text", "values"])
def test_padding_is_left_out_or_bare(name, tmp_path):
    for hidden in (3, CONTENTS[name][1][0]):
        drawn = explanation(view(name, reads=1, hidden=hidden))
        draw_explanation(drawn).savefig(tmp_path / "a.png", dpi=20)


def test_a_gap_between_real_elements_is_hatched(tmp_path):
    gap = view("wave")
    gap.attention[:, 10:12] = np.nan
    figure = draw_explanation(explanation(gap))
    figure.savefig(tmp_path / "a.png", dpi=20)
    hatched = [p for axes in axes_of(figure) for p in axes.patches if p.get_hatch()]
    assert len(hatched) == 3  # all cross-attentions, and each of two


def test_a_film_shows_at_most_eight_frames_with_their_times():
    written = texts(draw_explanation(explanation(view("film"))))
    assert [t for t in written if t.endswith(" s")] == [
        f"{frame / 12.5:.2f} s" for frame in (0, 1, 3, 4, 5, 6, 8, 9)
    ]


def test_of_a_long_path_the_end_is_written():
    named = replace(explanation(view("picture")), name="a/" * 50 + "test.parquet, row 3")
    (title,) = {t for t in texts(draw_explanation(named)) if "row 3" in t}
    assert title.startswith("\N{HORIZONTAL ELLIPSIS}")
    assert title.endswith("test.parquet, row 3")
    assert len(title) == 90


def test_frequencies_that_can_be_told_apart_are_written():
    written = texts(draw_explanation(explanation(view("spectrogram", reads=1))))
    assert {"100 Hz", "1 kHz", "8 kHz"} <= set(written)
    assert "mel band" in texts(draw_explanation(explanation(view("unknown bands"))))


def test_the_most_attended_passage_of_a_long_text_is_shown():
    looked = view("long text", reads=1)
    looked.attention[:] = 0.01
    looked.attention[0, 3000] = 500.0
    written = texts(draw_explanation(explanation(looked)))
    (title,) = [t for t in written if t.startswith("cross-attention 1 of 1 \N{EN DASH}")]
    first, last = (int(word) for word in title.split("lines ")[1].split(" of")[0].split(" to "))
    assert last - first == 17
    assert first <= 3000 // 76 + 1 <= last
    assert "byte of the text (gray: the passage above)" in written


def test_what_a_recording_holds_is_named():
    written = texts(draw_explanation(explanation(view("recording"))))
    assert {"$channel_0$", "$channel_2$", "seconds", " nothing measured"} <= set(written)
    assert "step" in texts(draw_explanation(explanation(view("one step"))))
    many = texts(draw_explanation(explanation(view("many channels"))))
    assert "6 more channels are not drawn" in many


def test_fields_are_named_with_what_stands_in_them():
    written = texts(draw_explanation(explanation(view("fields"))))
    assert {"$age$ = 4", "sex (missing)", "city = Rome"} <= set(written)
    many = texts(draw_explanation(explanation(view("many fields"))))
    assert "20 more fields with less attention are not drawn." in many


class TestSeveralModalities:
    def test_each_has_a_section_and_its_share(self, tmp_path):
        names = ["picture", "wave", "film", "fields"]
        views = [view(n, modality=n, share=0.25, even=0.25, latents=1) for n in names]
        figure = draw_explanation(explanation(*views))
        figure.savefig(tmp_path / "a.png", dpi=30)
        written = texts(figure)
        for name in names:
            assert f"{name}: 25 % of all attention" in written
        assert {
            "share of all attention",
            "cross-attention 1",
            "cross-attention 2",
            "if even",
        } <= set(written)
        assert written.count("25 %") == 12
        assert any("an even share within the modality" in t for t in written)

    def test_what_was_not_there_is_said(self):
        written = texts(draw_explanation(explanation(missing=("audio", "text"))))
        assert any(t.endswith("Missing: audio, text.") for t in written)
        assert "share of all attention" not in written


class TestAnswer:
    def test_of_several_labels_says_those_above_the_threshold(self):
        drawn = explanation(
            view("wave"),
            task="multilabel",
            label_names=("dog", "cat", "rain"),
            probabilities=np.array([0.35, 0.1, 0.9], np.float32),
            threshold=0.3,
        )
        assert "predicted: rain, dog" in texts(draw_explanation(drawn))
        none = replace(drawn, threshold=0.95)
        assert "predicted: none" in texts(draw_explanation(none))

    def test_of_a_regression_is_numbers(self, tmp_path):
        drawn = explanation(
            view("wave"),
            task="regression",
            label_names=("speed", "load"),
            probabilities=np.array([3.25, -1.5], np.float32),
        )
        figure = draw_explanation(drawn)
        figure.savefig(tmp_path / "a.png", dpi=20)
        assert {"predicted", "speed", "load", "3.25", "-1.5"} <= set(texts(figure))
