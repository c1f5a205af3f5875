import sys

import numpy as np
import pytest
from PIL import Image

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.explain.render.write import explain_file
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from support.models import tiny_encoder


@pytest.fixture
def run(tmp_path) -> Saved:
    return make(tmp_path)


def make(folder, *, text=False) -> Saved:
    encoder = tiny_encoder(latent_channels=8)
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(8, 8))}
        | ({"text": TextInputConfig(max_length=64, channels=16)} if text else {}),
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=2),
    )
    return Saved(
        model=build(config).eval(),
        config=SavedConfig(
            model=config,
            preprocess={"image": ImagePreprocessConfig.imagenet(size=(8, 8))}
            | ({"text": TextPreprocessConfig(max_length=64)} if text else {}),
            task=ClassificationConfig(label_names=("cat", "dog")),
        ),
        folder=folder,
    )


def test_a_png_is_written_into_a_new_folder(run, tmp_path):
    out = explain_file(run, np.zeros((9, 12, 3), np.uint8), tmp_path / "new" / "a.png")
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300


def test_an_npz_holds_the_arrays(run, tmp_path):
    out = explain_file(run, np.zeros((9, 12, 3), np.uint8), tmp_path / "a.dat", format="npz")
    assert out == tmp_path / "a.dat"
    with np.load(out) as arrays:
        assert arrays["attention"].shape == (1, 8, 8)
        assert arrays["scores"].shape == (1, 4, 8, 8)
        assert arrays["latents"].tolist() == [0, 1, 2, 3]
        assert arrays["label_names"].tolist() == ["cat", "dog"]
        assert arrays["image"].dtype == np.uint8
        assert arrays["probabilities"].shape == (2,)


def test_an_npz_of_several_modalities_names_them(tmp_path):
    file = {"image": np.zeros((9, 12, 3), np.uint8), "text": "good"}
    out = explain_file(make(tmp_path, text=True), file, tmp_path / "a.npz", latents=2)
    with np.load(out) as arrays:
        assert arrays["modalities"].tolist() == ["image", "text"]
        assert arrays["image.attention"].shape == (1, 8, 8)
        assert arrays["text.scores"].shape == (1, 2, 4)  # without padding
        assert arrays["text.text"].tolist() == list(b"good")
        assert arrays["image.share"] + arrays["text.share"] == pytest.approx(1.0)
        assert arrays["image.even"] == pytest.approx(64 / 68)
    only = explain_file(make(tmp_path, text=True), {"text": "good"}, tmp_path / "b.npz")
    with np.load(only) as arrays:
        assert "text.attention" in arrays


def test_several_modalities_are_drawn(tmp_path):
    file = {"image": np.zeros((9, 12, 3), np.uint8), "text": "good"}
    out = explain_file(make(tmp_path, text=True), file, tmp_path / "a.png")
    with Image.open(out) as image:
        assert min(image.size) > 300


@pytest.mark.parametrize("clip_position", [-0.1, 1.5])
def test_a_moment_outside_of_the_recording_is_refused(run, tmp_path, clip_position):
    with pytest.raises(
        ValueError, match=f"Expected a clip position between 0, .* 1, its end; got {clip_position}"
    ):
        explain_file(
            run, np.zeros((9, 12, 3), np.uint8), tmp_path / "a.png", clip_position=clip_position
        )


def test_another_format_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"Expected the format png, gif, html or npz .* got 'bmp'"):
        explain_file(run, np.zeros((9, 12, 3), np.uint8), tmp_path / "a.bmp")


def test_without_matplotlib_the_extra_is_named(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "perceivers.explain.render.figure")
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "perceivers\[viz\]"'):
        explain_file(run, np.zeros((9, 12, 3), np.uint8), tmp_path / "a.png")


def test_any_other_missing_module_is_not_blamed_on_matplotlib(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "perceivers.explain.render.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"perceivers\.explain\.render\.figure"):
        explain_file(run, np.zeros((9, 12, 3), np.uint8), tmp_path / "a.png")
