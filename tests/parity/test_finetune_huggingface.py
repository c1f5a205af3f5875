"""Fine-tuning from Hugging Face's Perceivers: the first latents are those of the source, for other data and outputs."""

import warnings

import numpy as np
import pytest
import torch

from perceivers.hub.convert import load_any
from perceivers.models.perceiver import build
from perceivers.recipes.resolve import resolve
from perceivers.training.finetune import plan_warm_start
from support.files import write_video

transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers.models.perceiver import modeling_perceiver as hf

SMALL = {
    "num_latents": 6,
    "d_latents": 32,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}
TEXT = SMALL | {"num_cross_attention_heads": 8, "qk_channels": 32, "v_channels": 32}
SOURCES = {
    "fourier": (hf.PerceiverForImageClassificationFourier, {"d_model": 261}),
    "learned": (hf.PerceiverForImageClassificationLearned, {"d_model": 512, "image_size": 16}),
    "conv": (hf.PerceiverForImageClassificationConvProcessing, {"d_model": 322}),
    "language": (
        hf.PerceiverForMaskedLM,
        TEXT | {"d_model": 48, "max_position_embeddings": 64},
    ),
    "flow": (hf.PerceiverForOpticalFlow, {"d_model": 322, "train_size": [32, 40]}),
    "multimodal": (
        hf.PerceiverForMultimodalAutoencoding,
        {
            "d_model": 393,
            "num_frames": 2,
            "image_size": 4,
            "output_shape": [1, 2, 16, 16],
            "audio_samples_per_frame": 32,
            "samples_per_patch": 8,
            "num_labels": 5,
        },
    ),
}


def save(name, folder):
    """Write a model with random weights as the hub has it."""
    torch.manual_seed(0)
    kind, changes = SOURCES[name]
    model = kind(transformers.PerceiverConfig(**SMALL | {"num_labels": 10} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter) + (parameter == 1))
    model.save_pretrained(folder)


def rows(name, folder):
    if name == "multimodal":
        return make_videos(folder / "videos")
    generator = np.random.default_rng(0)
    if name == "flow":
        return "builtin:flow"
    if name == "language":
        return [{"text": f"a text {n} of words", "label": "ab"[n % 2]} for n in range(40)]
    pixels = generator.integers(0, 256, (40, 20, 24, 3), dtype=np.uint8)
    return [{"image": one, "label": "abc"[n % 3]} for n, one in enumerate(pixels)]


def make_videos(folder):
    """Write a folder of classes with videos that have an audio track."""
    numbers = np.random.default_rng(0)
    for label in ("clap", "wave"):
        for number in range(4):
            path = folder / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = numbers.integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
            tone = np.sin(np.arange(0.8 * 16_000) * (number + 1) / 20)
            with path.open("wb") as file:
                write_video(file, frames, rate=10, audio=tone, audio_rate=16_000)
    return folder


def examples(model):
    """Return random inputs of the size of a model, the last third of a text padding."""
    generator = torch.Generator().manual_seed(3)
    inputs, masks = {}, {}
    for name, adapter in model.inputs.items():
        if name == "label":  # never given in fine-tuning: its learned vector stands for it
            continue
        example = adapter.example(2)
        if example.is_floating_point():
            inputs[name] = torch.randn(example.shape, generator=generator)
        else:
            inputs[name] = torch.randint(6, 262, example.shape, generator=generator)
            masks[name] = torch.arange(example.shape[1]).expand(2, -1) < 40
    return inputs, masks


@pytest.mark.parametrize("name", list(SOURCES))
def test_first_latents_are_those_of_the_source(tmp_path, name):
    save(name, tmp_path / "source")
    saved = load_any(tmp_path / "source")
    run = resolve(rows(name, tmp_path), pretrained=saved, overrides={"max_steps": 2})
    config = run.recipe.model_config()
    start = plan_warm_start(config, tmp_path / "source", preprocess=run.preprocess, saved=saved)
    assert not start.settings  # nothing that changes the function of the weights
    model = build(config).eval()
    start.apply(model)
    fresh = {n for n in start.fresh if not n.startswith(("output.heads.", "output.queries."))}
    assert not fresh
    inputs, masks = examples(model)
    with torch.no_grad():
        ours, theirs = model.encode(inputs, masks), saved.model.encode(inputs, masks)
        assert (ours - theirs).abs().max() <= 1e-6
        double = {n: x.double() if x.is_floating_point() else x for n, x in inputs.items()}
        ours, theirs = (
            model.double().encode(double, masks),
            saved.model.double().encode(double, masks),
        )
        assert (ours - theirs).abs().max() <= 1e-12
    assert run.recipe.output.num_outputs == (3 if "image" in inputs else 2)


def test_texts_without_labels_go_on_learning_masked_bytes(tmp_path):
    save("language", tmp_path / "source")
    saved = load_any(tmp_path / "source")
    texts = {"text": [f"text {n} " * 9 for n in range(40)]}
    run = resolve(texts, pretrained=saved, overrides={"max_steps": 2})
    assert run.recipe.task.kind == "masked_bytes"
    start = plan_warm_start(run.recipe.model_config(), tmp_path / "source", saved=saved)
    assert start.taken == start.total


def test_another_size_of_images_resizes_learned_positions(tmp_path):
    save("learned", tmp_path / "source")
    saved = load_any(tmp_path / "source")
    overrides = {"max_steps": 2, "inputs.image.size": (12, 20)}
    run = resolve(rows("learned", tmp_path), pretrained=saved, overrides=overrides)
    start = plan_warm_start(run.recipe.model_config(), tmp_path / "source", saved=saved)
    assert start.resized == {"inputs.image.positions.table": (256, 256)}
    assert run.preprocess["image"].size == (12, 20)


def test_data_that_the_source_does_not_read_are_an_error(tmp_path):
    save("learned", tmp_path / "source")
    with pytest.raises(ValueError, match=r"reads image, but the data hold text"):
        resolve(rows("language", tmp_path), pretrained=load_any(tmp_path / "source"))
