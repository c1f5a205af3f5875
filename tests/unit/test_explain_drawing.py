from dataclasses import replace

import numpy as np
import pytest

from perceivers.explain.drawing import draw_explanation
from perceivers.explain.image import ImageExplanation


def explanation(*, reads=2, latents=3, picture=(8, 8), grid=(4, 4), labels=4) -> ImageExplanation:
    random = np.random.default_rng(0)
    return ImageExplanation(
        name="a $picture^.png",
        picture=random.integers(0, 256, (*picture, 3), dtype=np.uint8),
        label_names=tuple(f"label ${i}$ with a name that is far too long" for i in range(labels)),
        probabilities=np.full(labels, 1 / labels, np.float32),
        attention=random.random((reads, *grid), dtype=np.float32),
        latents=tuple(range(latents)),
        scores=random.random((reads, latents, *grid), dtype=np.float32),
    )


def titles(figure) -> list[str]:
    return [
        axes.get_title(loc)
        for part in figure.subfigs
        for axes in part.axes
        for loc in ("center", "left")
        if axes.get_title(loc)
    ]


def test_every_read_and_latent_has_its_title():
    figure = draw_explanation(explanation(reads=8))
    written = titles(figure)
    assert [t for t in written if t.startswith("read")] == [f"read {i} of 8" for i in range(1, 9)]
    assert [t for t in written if t.startswith("latent")] == ["latent 0", "latent 1", "latent 2"]
    assert "a $picture^.png" in written
    assert "all 8 reads" in written
    assert any(t.startswith("predicted: label $0$ with a name") for t in written)


def test_a_single_read_is_drawn_once_and_large():
    written = titles(draw_explanation(explanation(reads=1)))
    assert "where it looked" in written
    assert not any(t.startswith("read") for t in written)


@pytest.mark.parametrize("picture", [(8, 8), (20, 400), (400, 20)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("labels", [2, 9])
def test_any_shape_is_drawn_without_a_warning(picture, labels, tmp_path):
    figure = draw_explanation(explanation(picture=picture, labels=labels))
    figure.savefig(tmp_path / "a.png", dpi=30)
    width, height = figure.get_size_inches()
    assert width < 20
    assert height < 20


@pytest.mark.parametrize(("peak", "ticks"), [(3.0, ["0", "1x", "3.0x"]), (20.0, ["1x", "20.0x"])])
def test_the_scale_of_attention_stays_readable(peak, ticks):
    flat = replace(explanation(reads=1), attention=np.full((1, 4, 4), peak, np.float32))
    bars = [
        axes for axes in draw_explanation(flat).subfigs[0].axes if axes.get_label() == "<colorbar>"
    ]
    assert [label.get_text() for label in bars[0].get_yticklabels()] == ticks
