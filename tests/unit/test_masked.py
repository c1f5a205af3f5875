"""Masked bytes: what is hidden, what is asked, and how it is counted."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from perceivers.data.modalities.text import modality as text
from perceivers.tasks import byte_tokens, masked, vocabulary
from perceivers.tasks.byte_tokens import IGNORED
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.masked import MaskedBytesConfig, MaskedBytesTask, mask_bytes
from perceivers.tasks.registry import build_task, fit_to_target

TASK = MaskedBytesTask(MaskedBytesConfig())


def ids_of(*texts):
    longest = max(len(t.encode()) for t in texts)
    rows = [[byte + 6 for byte in t.encode()] + [0] * (longest - len(t.encode())) for t in texts]
    ids = torch.tensor(rows)
    return ids, ids != 0


def posed(*texts, training=False, task=TASK):
    ids, mask = ids_of(*texts)
    return ids, task.prepare_batch({"text": ids}, {"text": mask}, None, training=training)


def test_the_marks_are_those_of_the_data():
    assert (
        masked.MASK,
        vocabulary.ByteVocabulary.start,
        byte_tokens.FIRST_BYTE,
        byte_tokens.VOCAB_SIZE,
    ) == (
        text.MASK,
        text.BOS,
        text.BYTE_OFFSET,
        text.VOCAB_SIZE,
    )


def test_whole_words_are_hidden_and_nothing_else():
    ids, mask = ids_of("to be  or", "not")
    chosen = torch.zeros(2, 9, dtype=torch.bool)
    chosen[0, 1] = True  # the second word of the first text
    hidden = mask_bytes(ids, mask, chosen)
    assert [place for place, is_hidden in enumerate(hidden[0]) if is_hidden] == [3, 4]
    assert not hidden[1].any()
    everything = mask_bytes(ids, mask, torch.ones_like(chosen))
    assert (everything == (mask & (ids != ord(" ") + 6))).all()
    marks = torch.tensor([[3, 4, 70]])
    assert mask_bytes(marks, marks > 0, marks > 0).tolist() == [[False, False, True]]
    single = mask_bytes(ids, mask, torch.arange(9).expand(2, -1) == 4, unit="byte")
    assert single.nonzero().tolist() == [[0, 4]]


def test_the_question_hides_what_the_targets_tell():
    ids, question = posed("what we talk about when we talk about bytes " * 20)
    shown, targets = question.inputs["text"], question.targets
    hidden = targets != IGNORED
    assert 0.05 < hidden.float().mean() < 0.25
    assert (shown[hidden] == masked.MASK).all()
    assert torch.equal(targets[hidden], ids[hidden])
    assert torch.equal(shown[~hidden], ids[~hidden])
    assert question.index == {}


def test_outside_of_training_a_text_always_loses_the_same_words():
    first, second = (
        "a text of some words that stay",
        "and another one, rather longer than the first was",
    )
    _, together = posed(first, second)
    _, alone = posed(first)
    length = len(first)
    assert torch.equal(together.targets[:1, :length], alone.targets)
    assert (together.targets[0, length:] == IGNORED).all()
    found = [posed(second, training=True)[1].targets for _ in range(8)]
    assert any(not torch.equal(found[0], other) for other in found)


def test_without_padding_there_is_no_mask_to_give():
    ids, _ = ids_of("word " * 50)
    question = TASK.prepare_batch({"text": ids}, {}, torch.tensor([1]), training=False)
    assert (question.targets != IGNORED).any()


def test_the_loss_is_the_mean_over_hidden_bytes():
    targets = torch.tensor([[IGNORED, 70, 80], [90, IGNORED, IGNORED]])
    outputs = torch.randn(2, 3, 262)
    chosen = targets != IGNORED
    expected = cross_entropy(outputs[chosen], targets[chosen])
    torch.testing.assert_close(TASK.loss(outputs, targets), expected)
    assert TASK.loss(outputs, torch.full_like(targets, IGNORED)) == 0
    right = one_hot(targets.clamp_min(0), 262).float()
    right[1, 0] = 0.0
    assert TASK.training_score(right, targets).item() == pytest.approx(2 / 3 * 2)


def test_a_meter_counts_bytes_over_batches_and_processes():
    targets = torch.tensor([[70, 80, IGNORED]])
    sure = one_hot(torch.tensor([[70, 70, 70]]), 262).float() * 50
    first, second = TASK.meter(), TASK.meter()
    first.update(sure, targets)
    second.update(torch.zeros(1, 3, 262), targets)
    second.update(torch.zeros(1, 3, 262), torch.full_like(targets, IGNORED))
    both = TASK.meter()
    both.merge([first.state(), second.state()])
    found = both.compute()
    assert (found["hidden"], found["samples"]) == (4, 3)
    assert found["accuracy"] == pytest.approx(1 / 4)  # of equals the first is taken: byte 0
    assert found["loss"] == pytest.approx((0 + 50 + 2 * math.log(262)) / 4, abs=1e-4)
    assert found["bits"] == pytest.approx(found["loss"] / math.log(2))
    assert both.details() == []
    assert TASK.meter().compute()["accuracy"] == 0


def test_clips_are_averaged_as_probabilities():
    outputs = torch.randn(2, 3, 4, 262)
    expected = TASK.probabilities(outputs).mean(dim=1)
    torch.testing.assert_close(TASK.combine(outputs).exp(), expected)


def test_it_is_a_task_without_names():
    config = MaskedBytesConfig()
    task = build_task(config)
    assert isinstance(task, MaskedBytesTask)
    assert (task.names, task.num_outputs, config.output_names) == ((), 262, ())
    assert (
        fit_to_target(
            config,
            TargetInfo(
                kind="class",
                names=(
                    "a",
                    "b",
                ),
            ),
        )
        is config
    )
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), got 1"):
        MaskedBytesConfig(share=1.0)
