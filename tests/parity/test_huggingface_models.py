"""All Perceiver models of Hugging Face, small, in float64: outputs, gradients, and weights there and back."""

import functools
import warnings

import pytest
import torch

from perceivers.exporting.verify import transformers_outputs
from perceivers.hub.huggingface import ARCHITECTURES, config_from, config_to
from perceivers.hub.huggingface_weights import from_huggingface, rows_of, to_huggingface
from perceivers.models.perceiver import build
from support.tolerance import relative_error

transformers = pytest.importorskip("transformers")

SMALL = {
    "num_latents": 6,
    "d_latents": 32,
    "d_model": 40,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "attention_probs_dropout_prob": 0.0,
}
CHANGES = {
    "PerceiverForImageClassificationFourier": {"num_labels": 3, "d_model": 261},
    "PerceiverForImageClassificationLearned": {"num_labels": 3, "image_size": 10, "d_model": 512},
    "PerceiverForImageClassificationConvProcessing": {"num_labels": 3, "d_model": 322},
    "PerceiverForMaskedLM": {
        "qk_channels": 16,
        "v_channels": 32,
        "max_position_embeddings": 24,
        "num_cross_attention_heads": 8,
        "hidden_act": "gelu_new",
    },
    "PerceiverForSequenceClassification": {
        "num_labels": 3,
        "max_position_embeddings": 24,
        "num_cross_attention_heads": 4,
    },
    "PerceiverForOpticalFlow": {"train_size": (8, 12), "d_model": 322},
    "PerceiverForMultimodalAutoencoding": {
        "num_labels": 5,
        "num_frames": 2,
        "image_size": 4,
        "output_shape": (1, 2, 16, 16),
        "audio_samples_per_frame": 32,
        "samples_per_patch": 8,
        "d_model": 393,
    },
}


@functools.cache
def made(name):
    """Return their model with random weights in float64, our configuration of it, and ours with the same weights."""
    settings = transformers.PerceiverConfig(**SMALL | CHANGES[name])
    settings.architectures = [name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = getattr(transformers, name)(settings).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for key, buffer in theirs.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if key.endswith("var") else 0.0))
    config = config_from(settings.to_dict())
    ours = build(config).double().eval()
    ours.load_state_dict(from_huggingface(theirs.state_dict(), name, config))
    return theirs, config, ours


@pytest.mark.parametrize("name", ARCHITECTURES)
class TestEveryModel:
    def test_says_and_learns_the_same(self, name):
        theirs, config, ours = made(name)
        pairs = transformers_outputs(name, theirs, ours)
        for expected, got in pairs:
            assert relative_error(got.reshape(expected.shape), expected) < 1e-9
        weights = [torch.randn_like(expected) for expected, _ in pairs]
        sum((e * w).sum() for (e, _), w in zip(pairs, weights, strict=True)).backward()
        sum(
            (g.reshape(w.shape) * w).sum() for (_, g), w in zip(pairs, weights, strict=True)
        ).backward()
        mine = dict(ours.named_parameters())
        gradients = {k: p.grad for k, p in theirs.named_parameters()}
        largest = max(g.abs().max() for g in gradients.values() if g is not None)
        for row in rows_of(name, config):
            if row.ours not in mine:
                continue  # what BatchNorm has counted
            expected, got = gradients[row.theirs], mine[row.ours].grad
            if expected is None or row.ours.endswith("to_key.bias"):  # nothing but rounding
                assert got is None or got.abs().max() <= 1e-6 * largest, row
                continue
            assert relative_error(got.reshape(expected.shape), expected) < 1e-9, row

    def test_has_every_weight_there_and_back(self, name):
        theirs, config, ours = made(name)
        state = theirs.state_dict()
        table = rows_of(name, config)
        assert sorted(row.theirs for row in table) == sorted(state)
        assert sorted(row.ours for row in table) == sorted(ours.state_dict())
        back = to_huggingface(ours.state_dict(), name, config)
        assert back.keys() == state.keys()
        for key, tensor in back.items():
            assert torch.equal(tensor, state[key]), key
        again = from_huggingface(back, name, config)
        for key, tensor in ours.state_dict().items():
            assert torch.equal(again[key], tensor), key

    def test_refuses_a_missing_and_an_extra_weight(self, name):
        theirs, config, _ = made(name)
        state = theirs.state_dict()
        tensor = state.pop("perceiver.embeddings.latents")
        with pytest.raises(ValueError, match=r"perceiver.embeddings.latents is missing"):
            from_huggingface(state, name, config)
        state |= {"perceiver.embeddings.latents": tensor, "pooler.weight": tensor}
        with pytest.raises(ValueError, match=r"pooler.weight is not part of it"):
            from_huggingface(state, name, config)

    def test_has_its_configuration_there_and_back(self, name):
        theirs, config, _ = made(name)
        found, back = config_to(config)
        assert found == name
        assert config_from(back) == config
        kept = {key: value for key, value in theirs.config.to_dict().items() if key in back}
        names = ("id2label", "label2id", "hidden_act", "qk_channels", "v_channels", "architectures")
        for key in kept.keys() - set(names) - {"image_size", "d_model"}:
            assert list_of(back[key]) == list_of(kept[key]), key


def list_of(value):
    return list(value) if isinstance(value, tuple) else value
