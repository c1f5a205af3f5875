"""Output queries: any part of the answers, in chunks, masked, of several outputs."""

from dataclasses import replace

import pytest
import torch

from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig, PerceiverDecoder
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import LinearHeadConfig, TiedHeadConfig
from perceivers.outputs.queries import (
    FourierQueriesConfig,
    InputQueriesConfig,
    LearnedQueriesConfig,
    QueryContext,
)
from perceivers.tasks.config import OutputPart
from support.models import tiny_encoder
from support.tolerance import assert_close

ENCODER = tiny_encoder()
PIXELS = PixelInputConfig(size=(4, 6), positions=FourierPositionsConfig(num_bands=2))
TEXT = TextInputConfig(max_length=12, channels=8)


def answer(queries, outputs=3):
    return OutputConfig(queries=queries, head=LinearHeadConfig(num_outputs=outputs))


SEVERAL = DecoderConfig(
    outputs={
        "label": answer(LearnedQueriesConfig(channels=6)),
        "pixels": answer(InputQueriesConfig(modality="image"), 5),
        "places": answer(FourierQueriesConfig(size=(5, 3), num_bands=2), 2),
    },
    min_padding=2,
    project_channels=7,
)
LANGUAGE = DecoderConfig(
    outputs={
        "text": OutputConfig(
            queries=LearnedQueriesConfig(num_queries=12, channels=8, follows="text"),
            head=TiedHeadConfig(),
        )
    },
    num_heads=2,
)


def model_of(output, inputs=None):
    config = PerceiverConfig(inputs=inputs or {"image": PIXELS}, encoder=ENCODER, output=output)
    return build(config).eval()


def test_a_class_is_asked_for_by_one_query():
    model = model_of(DecoderConfig.classifier(3))
    image = {"image": torch.randn(2, 3, 4, 6)}
    logits = model(image)
    assert logits.shape == (2, 3)
    query = model.output.queries["label"].table.expand(2, 1, -1)
    read = model.output.cross_attend(query, model.encode(image))
    assert_close(logits, model.output.heads["label"].to_logits(read)[:, 0])
    assert model.config.output.num_outputs == 3
    assert model.config.output.fit_to({"label": OutputPart(num_outputs=9)}).num_outputs == 9


def test_several_outputs_come_by_name_and_each_may_be_asked_alone():
    model, image = model_of(SEVERAL), {"image": torch.randn(2, 3, 4, 6)}
    answers = model(image)
    shapes = {name: tuple(part.shape) for name, part in answers.items()}
    assert shapes == {"label": (2, 3), "pixels": (2, 24, 5), "places": (2, 15, 2)}
    latents = model.encode(image)
    assert_close(model.decode(latents, outputs=["places"])["places"], answers["places"])
    both = model.decode(latents, image, outputs=["pixels", "label"])
    assert sorted(both) == ["label", "pixels"]
    assert_close(both["pixels"], answers["pixels"])
    assert SEVERAL.num_outputs is None


def test_any_part_of_the_answers_is_what_it_is_among_all():
    model, image = model_of(SEVERAL), {"image": torch.randn(2, 3, 4, 6)}
    answers = model(image)
    index = {"pixels": torch.tensor([20, 3]), "places": torch.randperm(15)}
    some = model(image, index=index)
    for name, part in index.items():
        assert_close(some[name], answers[name][:, part])
    assert_close(some["label"], answers["label"])


@pytest.mark.parametrize("chunk", [1, 4, 24])
def test_chunks_give_the_same_answers_in_one_pass_and_never_with_gradients(chunk):
    image = {"image": torch.randn(2, 3, 4, 6)}
    whole = model_of(SEVERAL)
    parts = model_of(replace(SEVERAL, chunk=chunk))
    parts.load_state_dict(whole.state_dict())
    calls = []
    parts.output.cross_attend.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found, expected = parts(image), whole(image)
    for name, tensor in expected.items():
        assert_close(found[name], tensor)
    assert len(calls) == 1 + -(-24 // chunk) + -(-15 // chunk)
    calls.clear()
    parts(image)
    assert len(calls) == 3


def test_every_weight_gets_a_gradient():
    model = model_of(SEVERAL).train()
    answers = model({"image": torch.randn(2, 3, 4, 6)})
    sum(part.sum() for part in answers.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_padding_of_a_text_changes_no_answer():
    model = model_of(LANGUAGE, {"text": TEXT})
    ids = torch.randint(6, 262, (2, 9))
    ids[1, 5:] = 0
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    logits = model({"text": ids}, {"text": mask})
    assert logits.shape == (2, 9, 262)
    alone = model({"text": ids[1:, :5]})
    assert_close(logits[1, :5], alone[0])
    garbage = torch.where(mask, ids, torch.randint(6, 262, ids.shape))
    assert_close(model({"text": garbage}, {"text": mask})[mask], logits[mask])


def test_a_query_of_padding_reads_nothing():
    model = model_of(LANGUAGE, {"text": TEXT})
    read = []
    model.output.cross_attend.attention.to_output.register_forward_pre_hook(
        lambda _module, args: read.append(args[0])
    )
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    model({"text": torch.randint(6, 262, (2, 9))}, {"text": mask})
    assert not read[0][~mask].any()
    assert read[0][mask].abs().sum(-1).min() > 0


def test_bytes_are_told_by_the_vectors_they_come_in_by():
    model = model_of(LANGUAGE, {"text": TEXT})
    ids = {"text": torch.randint(6, 262, (1, 4))}
    before = model(ids)
    with torch.no_grad():
        model.inputs["text"].embedding.weight[200] += 1.0
    assert not torch.allclose(model(ids)[..., 200], before[..., 200])
    assert "output.heads.text.bias" in model.state_dict()
    assert not [name for name in model.state_dict() if "output" in name and "embedding" in name]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecoderConfig(outputs={}), "at least one output"),
        (lambda: replace(SEVERAL, chunk=0), "a chunk of at least 1, got 2 and 0"),
        (
            lambda: model_of(
                replace(
                    LANGUAGE,
                    outputs={
                        "a": OutputConfig(queries=LearnedQueriesConfig(), head=TiedHeadConfig())
                    },
                ),
                {"text": TEXT},
            ),
            "16 channels; the model has embeddings of 'text' of 8",
        ),
        (lambda: model_of(DecoderConfig.classifier(None)), "Expected the number of classes"),
    ],
)
def test_what_cannot_be_built_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("config", [SEVERAL, LANGUAGE])
def test_classes_are_for_one_linear_head(config):
    with pytest.raises(ValueError, match=r"decoder with the outputs label; got|a linear head for"):
        config.fit_to({"label": OutputPart(num_outputs=3)})


def test_an_unknown_output_is_named():
    model, image = model_of(SEVERAL), {"image": torch.randn(1, 3, 4, 6)}
    with pytest.raises(KeyError, match="out of label, pixels, places, got 'pixel'"):
        model.decode(model.encode(image), image, outputs=["pixel"])
    with pytest.raises(
        KeyError, match="'pixels' are made of the modality 'image', which was not given"
    ):
        model.decode(model.encode(image))


def test_outputs_may_be_called_anything():
    names = ("type", "age in years", "a.b", "values", "training")
    answer = OutputConfig(
        queries=LearnedQueriesConfig(channels=4), head=LinearHeadConfig(num_outputs=2)
    )
    wide = OutputConfig(
        queries=LearnedQueriesConfig(channels=6), head=LinearHeadConfig(num_outputs=3)
    )
    config = DecoderConfig(outputs={**dict.fromkeys(names, answer), "keys": wide})
    decoder = PerceiverDecoder(config, latent_channels=8, inputs={}, tables={})
    context = QueryContext(lengths={}, arrays={}, masks={})
    found = decoder(torch.randn(2, 3, 8), context)
    assert list(found) == sorted([*names, "keys"])
    assert found["keys"].shape == (2, 3)
    assert decoder.num_outputs("a.b") == 2
    assert set(decoder(torch.randn(2, 3, 8), context, outputs=["type"])) == {"type"}
