"""The mean of the training split as an answer."""

import math

import pytest
import torch

from perceivers.tasks.autoencode import AutoencodeConfig, AutoencodeTask
from perceivers.tasks.reconstruction import ReconstructionConfig

TASK = AutoencodeTask(
    AutoencodeConfig(
        parts={
            "audio": ReconstructionConfig(patch=(2,), size=(4,), num_channels=1),
            "image": ReconstructionConfig(patch=(1, 1), size=(2, 2), num_channels=1),
        }
    )
)


def test_padding_and_what_is_missing_do_not_count():
    sound = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 6.0]])[..., None]
    mask = torch.tensor([[True, True, False], [True, True, True]])
    picture = torch.stack([torch.full((1, 2, 2), 4.0), torch.zeros(1, 2, 2)])
    masks = {"audio": mask, "image": torch.tensor([[True], [False]])}
    inputs = {"audio": sound, "image": picture}
    batch = TASK.prepare_batch(inputs, masks, None, training=False)
    means = TASK.fit_baseline([batch, batch]).means
    assert means["audio"].tolist() == [[2.0, 3.0], [6.0, 0.0]]
    assert means["image"].flatten().tolist() == [4.0] * 4


def test_it_is_measured_as_answers_are():
    zeros = TASK.prepare_batch({"image": torch.zeros(1, 1, 2, 2)}, {}, None, training=False)
    baseline = TASK.fit_baseline([zeros])
    for value in (0.1, 0.01):
        inputs = {"image": torch.full((1, 1, 2, 2), value), "audio": torch.ones(1, 4, 1)}
        baseline.update(TASK.prepare_batch(inputs, {}, None, training=False).targets)
    told = baseline.add_to({"audio_psnr": 1.0, "image_psnr": 2.0, "loss": 3.0})
    assert list(told) == ["audio_psnr", "image_psnr", "image_mean_psnr", "loss"]
    expected = (-20 * math.log10(0.1) - 20 * math.log10(0.01)) / 2
    assert told["image_mean_psnr"] == pytest.approx(expected)
