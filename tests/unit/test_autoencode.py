"""Autoencoding: what is shown, what is asked, and how near the answers are."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.image import PatchInput, PatchInputConfig
from perceivers.inputs.label import LabelInputConfig
from perceivers.inputs.video import VideoInput, VideoInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.patches import depth_to_space
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import FourierQueriesConfig, LearnedQueriesConfig
from perceivers.tasks.autoencode import AutoencodeConfig, AutoencodeTask
from perceivers.tasks.base import forward_task
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.reconstruction import (
    ReconstructionConfig,
    psnr,
    reconstruction_cells,
    to_data_units,
)
from perceivers.tasks.reconstruction_task import LABEL, ReconstructionMeter
from perceivers.tasks.registry import build_task, fit_to_target
from support.models import tiny_encoder

FILM = ReconstructionConfig(
    patch=(1, 2, 2), size=(2, 4, 6), num_channels=3, num_train_queries=5, weight=0.5
)
SOUND = ReconstructionConfig(patch=(4,), size=(10,), num_channels=1, num_train_queries=2)
CONFIG = AutoencodeConfig(
    parts={"audio": SOUND, "video": FILM}, label_weight=0.1, label_names=("a", "b", "c")
)
TASK = AutoencodeTask(CONFIG)


def shown(batch=2):
    return {"audio": torch.randn(batch, 10, 1), "video": torch.randn(batch, 2, 3, 4, 6)}


def right(question):
    """Return the answers that are exactly right."""
    answers = dict(question.targets.values)
    if question.targets.label is not None:
        answers[LABEL] = 50.0 * question.targets.label
    return answers


def test_a_query_answers_for_what_an_element_of_the_adapter_holds():
    clip = torch.randn(2, 2, 3, 4, 6)
    cells, real = reconstruction_cells(FILM, clip, None)
    adapter = VideoInput(VideoInputConfig(num_frames=2, size=(4, 6), patch=(1, 2, 2)))
    torch.testing.assert_close(cells, adapter(clip).content)
    assert real is None
    image = torch.randn(2, 3, 4, 6)
    part = ReconstructionConfig(patch=(2, 2), size=(4, 6), num_channels=3)
    cells, _ = reconstruction_cells(part, image, None)
    torch.testing.assert_close(
        cells, PatchInput(PatchInputConfig(size=(4, 6), patch=(2, 2)))(image).content
    )
    whole = depth_to_space(cells.unflatten(1, part.grid), part.patch)
    torch.testing.assert_close(whole, image)
    mel = torch.randn(2, 4, 6)
    cells, _ = reconstruction_cells(ReconstructionConfig(patch=(2, 3), size=(4, 6)), mel, None)
    assert cells.shape == (2, 4, 6)
    torch.testing.assert_close(cells[:, 1], mel[:, :2, 3:].flatten(1))


def test_padding_is_never_asked_for():
    sound = torch.randn(2, 7, 1)  # shorter than the configured 10, which are no whole patches
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    cells, real = reconstruction_cells(SOUND, sound, mask)
    assert cells.shape == real.shape == (2, 3, 4)
    assert real.flatten(1).sum(dim=1).tolist() == [7, 3]
    assert not cells[~real].any()
    again, longer = reconstruction_cells(SOUND, torch.nn.functional.pad(sound, (0, 0, 0, 3)), None)
    torch.testing.assert_close(again[0], cells[0])
    assert longer.sum().item() == 20  # 10 of 12 in each
    missing = torch.tensor([[True], [False]])
    _, real = reconstruction_cells(FILM, shown()["video"], missing)
    assert real.flatten(1).all(dim=1).tolist() == [True, False]
    _, real = reconstruction_cells(
        FILM, shown()["video"], torch.tensor([[True, True], [True, False]])
    )
    assert real[1, :6].all()
    assert not real[1, 6:].any()


def test_gaps_of_recordings_are_not_asked_for():
    values = torch.randn(1, 4, 2)
    flags = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1]], dtype=torch.float32)[None]
    part = ReconstructionConfig(patch=(2,), size=(4,), num_channels=2, has_missing=True)
    recording = torch.cat([values, flags], dim=2)
    cells, real = reconstruction_cells(part, recording, None)
    assert real[0].int().tolist() == [[1, 1, 1, 0], [0, 0, 1, 1]]
    torch.testing.assert_close(cells[0, 0, :2], values[0, 0])
    _, real = reconstruction_cells(part, recording, torch.tensor([[True, True, True, False]]))
    assert real[0].int().tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]


def test_in_training_a_few_queries_are_drawn_for_all_samples_together():
    inputs = shown()
    question = TASK.prepare_batch(inputs, {}, torch.tensor([2, 0]), training=True)
    assert {name: len(index) for name, index in question.index.items()} == {"audio": 2, "video": 5}
    whole, _ = reconstruction_cells(FILM, inputs["video"], None)
    torch.testing.assert_close(question.targets.values["video"], whole[:, question.index["video"]])
    assert len(set(question.index["video"].tolist())) == 5
    assert question.inputs[LABEL].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert question.inputs["video"] is inputs["video"]


def test_otherwise_everything_is_asked_and_the_class_is_never_shown():
    question = TASK.prepare_batch(
        {**shown(), LABEL: torch.ones(2, 3)}, {}, torch.tensor([2, 0]), training=False
    )
    assert question.index == {}
    assert set(question.inputs) == {"audio", "video"}
    assert question.targets.values["video"].shape == (2, 12, 12)
    assert question.targets.label.argmax(dim=1).tolist() == [2, 0]
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert TASK.prepare_batch(shown(), {}, mixed, training=True).inputs[LABEL] is not None
    unlabeled = TASK.prepare_batch(shown(), {LABEL: torch.ones(2, 1)}, None, training=True)
    assert LABEL not in unlabeled.inputs
    assert LABEL not in unlabeled.masks
    assert unlabeled.targets.label is None
    alone = AutoencodeTask(AutoencodeConfig(parts={"video": FILM}))
    assert (
        alone.prepare_batch(shown(), {}, torch.tensor([2, 0]), training=True).targets.label is None
    )


def test_the_loss_is_the_weighted_sum_of_mean_errors():
    question = TASK.prepare_batch(shown(), {}, torch.tensor([2, 0]), training=False)
    answers = {name: values + 2.0 for name, values in question.targets.values.items()}
    answers[LABEL] = torch.zeros(2, 3)
    expected = 1.0 * 2.0 + 0.5 * 2.0 + 0.1 * math.log(3)
    assert TASK.loss(answers, question.targets).item() == pytest.approx(expected)
    assert TASK.loss(right(question), question.targets).item() == pytest.approx(0.0, abs=1e-6)
    squared = AutoencodeTask(
        AutoencodeConfig(parts={"video": ReconstructionConfig(loss="l2", patch=(1, 2, 2))})
    )
    question = squared.prepare_batch(shown(), {}, None, training=False)
    alone = question.targets.values["video"] + 3.0  # of a model with one output
    assert squared.loss(alone, question.targets).item() == pytest.approx(9.0)
    shares = torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    question = TASK.prepare_batch(shown(), {}, shares, training=False)
    logits = torch.randn(2, 3)
    nats = cross_entropy(logits, shares)
    loss = TASK.loss({**right(question), LABEL: logits}, question.targets)
    torch.testing.assert_close(loss, 0.1 * nats)


def test_what_is_missing_in_one_sample_changes_no_other():
    inputs, masks = shown(), {"video": torch.tensor([[True], [False]])}
    question = TASK.prepare_batch(inputs, masks, None, training=False)
    answers = {name: torch.randn_like(v) for name, v in question.targets.values.items()}
    alone = TASK.prepare_batch(
        {"video": inputs["video"][:1], "audio": inputs["audio"][:1]}, {}, None, training=False
    )
    errors, there = TASK.measures("video", answers, question.targets)["mse"]
    one = {name: values[:1] for name, values in answers.items()}
    single, _ = TASK.measures("video", one, alone.targets)["mse"]
    assert there.tolist() == [True, False]
    torch.testing.assert_close(errors[:1], single)
    garbage = {**inputs, "video": inputs["video"].clone()}
    garbage["video"][1] = math.nan
    again = TASK.prepare_batch(garbage, masks, None, training=False)
    torch.testing.assert_close(
        TASK.loss(answers, again.targets), TASK.loss(answers, question.targets)
    )


def test_errors_are_in_the_units_of_the_data_and_clipped():
    part = ReconstructionConfig(
        patch=(1, 1),
        size=(1, 2),
        num_channels=3,
        mean=(0.5, 0.4, 0.3),
        std=(0.1, 0.2, 0.3),
        low=0.0,
        high=1.0,
    )
    read = (torch.tensor([[0.9, 0.1, 0.3]]) - torch.tensor(part.mean)) / torch.tensor(part.std)
    torch.testing.assert_close(to_data_units(part, read[None]), torch.tensor([[[0.9, 0.1, 0.3]]]))
    assert to_data_units(part, read[None] + 100).max() == 1.0
    task = AutoencodeTask(AutoencodeConfig(parts={"image": part}))
    image = torch.zeros(1, 3, 1, 2)
    question = task.prepare_batch({"image": image}, {}, None, training=False)
    meter = task.meter()
    answers = question.targets.values["image"] + 1.0  # one deviation beside
    meter.update(answers, question.targets)
    found = meter.compute()
    expected = (0.1**2 + 0.2**2 + 0.3**2) / 3
    assert found["image_mse"] == pytest.approx(expected)
    assert found["image_psnr"] == pytest.approx(-10 * math.log10(expected))
    assert psnr(torch.tensor([0.01]), 2.0).item() == pytest.approx(10 * math.log10(400))
    assert psnr(torch.zeros(1), 1.0).item() == 100.0  # exact, and not infinite
    assert to_data_units(ReconstructionConfig(), read[None]).equal(read[None])


def test_meters_of_several_devices_hold_all_samples():
    questions = [
        TASK.prepare_batch(shown(), {}, torch.tensor(labels), training=False)
        for labels in ([0, 1], [2, 2])
    ]
    answers = [
        {
            **{name: v + 0.1 * torch.randn_like(v) for name, v in q.targets.values.items()},
            LABEL: one_hot(torch.tensor([0, 2]), 3).float(),
        }
        for q in questions
    ]
    whole, parts = TASK.meter(), [TASK.meter(), TASK.meter()]
    for part, said, question in zip(parts, answers, questions, strict=True):
        whole.update(said, question.targets)
        part.update(said, question.targets)
    merged = ReconstructionMeter(TASK)
    merged.merge([part.state() for part in parts])
    assert merged.compute() == whole.compute()
    assert whole.compute()["samples"] == 4
    assert whole.compute()["label_accuracy"] == 0.5
    assert whole.details() == []
    unknown = TASK.prepare_batch(shown(), {}, None, training=False)
    meter = TASK.meter()
    meter.update(right(unknown), unknown.targets)
    assert "label_accuracy" not in meter.compute()


def test_the_log_shows_the_psnr_of_the_modality_with_the_most_values():
    assert (TASK.main_metric, TASK.score_name) == ("video_psnr", "psnr")
    question = TASK.prepare_batch(shown(), {}, torch.tensor([2, 0]), training=True)
    assert TASK.training_score(right(question), question.targets).item() == pytest.approx(200.0)
    sound = TASK.prepare_batch({"audio": shown()["audio"]}, {}, None, training=True)
    assert TASK.training_score(right(sound), sound.targets).item() == 0.0


def test_people_read_the_units_of_the_data_and_probabilities():
    question = TASK.prepare_batch(shown(), {}, torch.tensor([2, 0]), training=False)
    read = TASK.probabilities(right(question))
    assert read[LABEL].sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(read["video"], question.targets.values["video"])
    with pytest.raises(ValueError, match="expected --clips 1"):
        TASK.combine(read)


def test_the_task_knows_its_classes_only_if_it_learns_them():
    assert isinstance(build_task(CONFIG), AutoencodeTask)
    assert TASK.names == CONFIG.output_names == ("a", "b", "c")
    assert TASK.num_outputs == 3
    assert CONFIG.target_kind == "class"
    alone = AutoencodeConfig(parts={"video": FILM})
    assert alone.target_kind == "nothing"
    assert fit_to_target(alone, TargetInfo(kind="class", names=("x",))) == alone
    assert fit_to_target(
        CONFIG,
        TargetInfo(
            kind="class",
            names=(
                "x",
                "y",
            ),
        ),
    ).label_names == ("x", "y")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"weight": -1.0}, "weight of at least 0"),
        ({"peak": 0.0}, "peak above 0"),
        ({"patch": (0,)}, "patch of at least 1"),
        ({"patch": ()}, "patch of at least 1"),
        ({"num_train_queries": 0}, "num_train_queries of at least 1"),
        ({"size": (2, 3)}, "one size for each axis"),
    ],
)
def test_settings_without_meaning_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionConfig(**how)


def test_nothing_to_reconstruct_is_refused():
    for parts in ({}, {LABEL: SOUND}):
        with pytest.raises(ValueError, match="at least one modality to reconstruct"):
            AutoencodeConfig(parts=parts, label_weight=1.0)
    with pytest.raises(ValueError, match="label_weight of at least 0"):
        AutoencodeConfig(parts={"audio": SOUND}, label_weight=-1.0)
    with pytest.raises(ValueError, match="taken from the data"):
        _ = ReconstructionConfig().grid


def model_of():
    encoder = tiny_encoder()
    answers = {
        "video": OutputConfig(
            queries=FourierQueriesConfig(size=FILM.grid, num_bands=None),
            head=LinearHeadConfig(num_outputs=12),
        ),
        LABEL: OutputConfig(
            queries=LearnedQueriesConfig(channels=8), head=LinearHeadConfig(num_outputs=3)
        ),
    }
    film = VideoInputConfig(num_frames=2, size=(4, 6), patch=(1, 2, 2))
    return build(
        PerceiverConfig(
            inputs={"video": film, LABEL: LabelInputConfig(num_classes=3)},
            encoder=encoder,
            output=DecoderConfig(outputs=answers, min_padding=2, chunk=5),
            fusion=FusionConfig(dropped="token", modality_dropout={LABEL: 0.5}),
        )
    )


def test_drawn_queries_say_what_all_together_say_in_chunks():
    task = AutoencodeTask(
        AutoencodeConfig(parts={"video": FILM}, label_weight=1.0, label_names=("a", "b", "c"))
    )
    model = model_of().eval()
    inputs = {"video": shown()["video"]}
    question = task.prepare_batch(inputs, {}, None, training=True)
    with torch.no_grad():
        few = forward_task(model, question)["video"]
        whole = forward_task(model, task.prepare_batch(inputs, {}, None, training=False))["video"]
    torch.testing.assert_close(few, whole[:, question.index["video"]])


def test_a_sample_without_a_class_is_read_as_one_whose_class_is_hidden():
    model = model_of().eval()
    clips, label = shown()["video"], torch.eye(3)[:2]
    there = torch.tensor([[True], [False]])
    with torch.no_grad():
        both = model({"video": clips, LABEL: label}, {LABEL: there})
        first = model({"video": clips[:1], LABEL: label[:1]})
        second = model({"video": clips[1:]})
    for name in both:
        torch.testing.assert_close(both[name][:1], first[name])
        torch.testing.assert_close(both[name][1:], second[name])
    assert not torch.equal(first["video"], model({"video": clips[:1]})["video"])
