"""Prediction of the next byte: batches, evaluation of every byte, metrics, and predictions."""

import math

import pytest
import torch

from perceivers.inputs.tokens import TokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.cost import cost
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.base import PredictionRequest
from perceivers.tasks.byte_tokens import FIRST_BYTE, IGNORED
from perceivers.tasks.next_token import NextTokenTask, NextTokenTaskConfig
from perceivers.tasks.vocabulary import ByteVocabulary


@pytest.fixture
def task():
    return NextTokenTask(NextTokenTaskConfig(shortest_crop=2, z_loss=0.0))


def texts(*rows):
    """Return ids of texts, padded at their ends, and their masks by modality."""
    length = max(map(len, rows))
    ids = torch.tensor(
        [[*(b + FIRST_BYTE for b in row), *[0] * (length - len(row))] for row in rows]
    )
    real = torch.arange(length) < torch.tensor([[len(row)] for row in rows])
    return {"text": ids}, {"text": real}


def small_model(length=24, latents=4):
    torch.manual_seed(0)
    config = PerceiverConfig(
        inputs={"text": TokenInputConfig(max_length=length)},
        encoder=PerceiverARConfig(
            vocab_size=262,
            max_length=length + 1,
            num_latents=latents,
            channels=16,
            num_heads=2,
            num_layers=1,
            init="normal",
            init_scale=0.2,
        ),
        output=NextTokenConfig(),
    )
    return build(config).eval()


def test_tokens_are_shifted_and_padded_on_the_left(task):
    batch = task.prepare_batch(*texts(b"abc", b"x"), None, training=False)
    a, b, c, x = (ord(one) + FIRST_BYTE for one in "abcx")
    assert batch.inputs["text"].tolist()[0] == [ByteVocabulary.start, a, b]
    assert batch.inputs["text"].tolist()[1][-1] == ByteVocabulary.start
    assert batch.masks["text"].tolist() == [[True] * 3, [False, False, True]]
    assert batch.targets.tolist() == [[a, b, c], [IGNORED, IGNORED, x]]


def test_texts_of_one_length_have_no_mask(task):
    batch = task.prepare_batch({"text": torch.full((2, 5), 70)}, {}, None, training=False)
    assert not batch.masks


def test_texts_end_anywhere_in_training(task):
    torch.manual_seed(0)
    inputs, masks = texts(b"abcdefgh")
    lengths = {
        task.prepare_batch(inputs, masks, None, training=True).targets.shape[1] for _ in range(100)
    }
    assert lengths == set(range(2, 9))


@pytest.mark.parametrize("rows", [(b"abcdefghijk",), (b"abcdefghijk", b"xyz"), (b"a",)])
def test_every_byte_is_measured_from_those_before_it(task, rows):
    model = small_model()
    batch = task.prepare_batch(*texts(*rows), None, training=False)
    with torch.no_grad():
        outputs = task.infer(model, batch)
    assert outputs.shape[:2] == batch.targets.shape
    meter = task.meter()
    meter.update(outputs, batch.targets)
    nats = 0.0
    for row in rows:  # the bytes before, as the model is applied to ends at a distance of 4
        tokens = torch.tensor([[ByteVocabulary.start, *(byte + FIRST_BYTE for byte in row)]])
        for place in range(len(row)):
            end = len(row) - (len(row) - 1 - place) // 4 * 4
            with torch.no_grad():
                logits = model({"text": tokens[:, :end]})
            shares = logits[0, place - end].log_softmax(dim=-1)
            nats -= float(shares[row[place] + FIRST_BYTE])
    count = sum(map(len, rows))
    found = meter.compute()
    assert found["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / count / math.log(2), rel=1e-5)
    assert found["bytes"] == count


def test_the_loss_is_that_of_the_last_bytes(task):
    model = small_model()
    batch = task.prepare_batch(*texts(b"abcdefghijk", b"xyz"), None, training=False)
    with torch.no_grad():
        outputs = model(batch.inputs, batch.masks)
    assert outputs.shape == (2, 4, 262)
    expected = [
        -outputs[row, place].log_softmax(dim=-1)[batch.targets[row, place - 4]]
        for row, first in ((0, 0), (1, 1))
        for place in range(first, 4)
    ]
    assert float(task.loss(outputs, batch.targets)) == pytest.approx(
        float(sum(expected) / len(expected)), rel=1e-5
    )
    other = NextTokenTask(NextTokenTaskConfig(z_loss=1.0))
    assert other.loss(outputs, batch.targets) > task.loss(outputs, batch.targets) + 20


def test_a_prediction_is_the_text_with_its_next_byte(task):
    model = small_model()
    batch = task.prediction_batch(*texts(b"abcdef", b"x"))
    assert batch.inputs["text"][:, -1].tolist() == [ord("f") + FIRST_BYTE, ord("x") + FIRST_BYTE]
    with torch.no_grad():
        outputs = task.infer(model, batch)
    request = PredictionRequest(names=("one", "two"), batch=batch, top=3)
    first, second = task.predict(outputs, request)
    assert (first.text[:-1], second.text[:-1]) == ("abcdef", "x")
    assert len(first.blanks[0]) == 3
    assert first.probability == pytest.approx(first.blanks[0][0][1])


def test_the_output_needs_an_autoregressive_encoder():
    config = PerceiverConfig(
        inputs={"text": TokenInputConfig(max_length=8)}, output=NextTokenConfig()
    )
    with pytest.raises(ValueError, match="'next_token' needs the encoder 'perceiver_ar'"):
        build(config)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_recipe_has_a_cost(size):
    config = get_recipe("text_ar", size=size).model_config()
    found = cost(config)
    assert found.num_parameters == sum(p.numel() for p in build(config).parameters())
    assert found.flops == pytest.approx(found.paper_flops, rel=0.1)
