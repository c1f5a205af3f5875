"""Messages of the models and configurations to a caller in Python: expected, got, what to do."""

import numpy as np
import pytest
import torch

import perceivers as pv
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.table import TableInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.inputs.video import VideoInputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig
from support.runs import save_run

IMAGE = torch.rand(2, 1, 8, 8)


@pytest.fixture(scope="module")
def model():
    return pv.create_model("digits")


@pytest.mark.parametrize(
    ("inputs", "error", "expected"),
    [
        (
            IMAGE,
            TypeError,
            r"by the name of their modality, \{'image': tensor\}, got a Tensor of shape \(2, 1, 8, 8\)",
        ),
        (IMAGE.numpy(), TypeError, r"\{'image': tensor\}, got a numpy.ndarray of shape"),
        ([IMAGE], TypeError, r"\{'image': tensor\}, got a list"),
        (None, TypeError, r"\{'image': tensor\}, got a NoneType"),
        ({}, KeyError, r"Expected the modalities \['image'\], got \[\]"),
        ({"imag": IMAGE}, KeyError, "Did you mean 'image'?"),
        ({"image": IMAGE.numpy()}, TypeError, "got a numpy.ndarray of shape .* torch.from_numpy"),
        ({"image": IMAGE.tolist()}, TypeError, "to be a torch.Tensor .* got a list"),
        ({"image": None}, TypeError, "to be a torch.Tensor .* got a NoneType"),
        ({"image": IMAGE[0]}, ValueError, r"with a batch dimension .* tensor\[None\]"),
        ({"image": IMAGE[0, 0]}, ValueError, r"float of B x 1 x 8 x 8, got shape \(8, 8\)"),
        (
            {"image": IMAGE[None]},
            ValueError,
            r"float of B x 1 x 8 x 8, got shape \(1, 2, 1, 8, 8\)",
        ),
        (
            {"image": IMAGE.expand(2, 3, 8, 8)},
            ValueError,
            r"1 channel .* got shape \(2, 3, 8, 8\)",
        ),
        ({"image": (IMAGE * 255).byte()}, ValueError, "divided by 255 .* got torch.uint8"),
        ({"image": IMAGE.long()}, ValueError, "got torch.int64"),
        ({"image": IMAGE > 0.5}, ValueError, "got torch.bool"),
    ],
)
def test_wrong_inputs_are_one_sentence(model, inputs, error, expected):
    for call in (model, model.encode):
        with pytest.raises(error, match=expected):
            call(inputs)


@pytest.mark.parametrize(
    ("masks", "error", "expected"),
    [
        (torch.ones(2, 1), TypeError, r"Expected masks by the name of their modality"),
        (
            {"img": torch.ones(2, 1).bool()},
            KeyError,
            "no modality of the model. Did you mean 'image'?",
        ),
        ({"image": torch.ones(2, 1)}, ValueError, "as a bool tensor of B x L"),
        ({"image": torch.ones(3, 1).bool()}, ValueError, "for each of 2 samples, got 3"),
    ],
)
def test_wrong_masks_are_one_sentence(model, masks, error, expected):
    with pytest.raises(error, match=expected):
        model({"image": IMAGE}, masks=masks)


def test_texts_are_integers_and_all_modalities_have_as_many_samples():
    inputs = {
        "table": TableInputConfig(num_numbers=2, category_sizes=(), channels=8),
        "text": TextInputConfig(max_length=16),
    }
    encoder = PerceiverEncoderConfig(
        num_latents=4, latent_channels=16, num_cross_attends=1, num_blocks=1
    )
    model = pv.build_model(PerceiverConfig(inputs=inputs, encoder=encoder))
    table, text = torch.rand(2, 2), torch.ones(2, 16, dtype=torch.int64)
    assert model({"table": table, "text": text}).shape[0] == 2
    with pytest.raises(
        ValueError, match=r"integers of B x 16, got torch.float32. Convert them by .long"
    ):
        model({"table": table, "text": text.float()})
    with pytest.raises(
        ValueError, match=r"as many samples of each modality .*, got table 2, text 1"
    ):
        model({"table": table, "text": text[:1]})


def test_an_input_on_another_device_is_named(model):
    from perceivers.models.check_inputs import check_inputs, expected_inputs

    expected = expected_inputs(dict(model.inputs.items()))
    device = torch.device("cuda", 0)
    with pytest.raises(ValueError, match=r"inputs\['image'\] is on cpu and the model on cuda:0"):
        check_inputs({"image": IMAGE}, None, ["image"], expected, device)


def test_a_field_of_another_type_is_named():
    with pytest.raises(
        TypeError, match=r"VideoInputConfig: expected patch of type tuple\[.*\], got 4"
    ):
        VideoInputConfig(num_frames=4, size=(8, 8), patch=4)
    with pytest.raises(TypeError, match=r"PixelInputConfig: expected size of type .*, got 8"):
        pv.build_model(PerceiverConfig(inputs={"image": PixelInputConfig(size=8)}))
    message = "PerceiverEncoderConfig: expected num_latents of type int, got '4'"
    with pytest.raises(TypeError, match=message):
        PerceiverEncoderConfig(num_latents="4")


def test_a_predictor_describes_itself(tmp_path):
    predictor = pv.load(save_run(tmp_path / "run"))
    text = repr(predictor)
    assert text.startswith(f"Predictor('{tmp_path / 'run'}', classification of image, 2 outputs: ")
    assert text.endswith("parameters on cpu)") or "parameters on cuda" in text
    assert predictor.predict(np.zeros((8, 8), np.uint8))
