"""Fine-tuning from Hugging Face's Perceivers: the first latents are those of the source, for other data and outputs."""

import numpy as np
import pytest
import torch

from perceivers.hub.convert import load_any
from perceivers.models.perceiver import build
from perceivers.recipes.resolve import resolve
from perceivers.training.finetune import plan_warm_start
from support.published import PUBLISHED, make_videos, save_published

pytest.importorskip("transformers")


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


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_first_latents_are_those_of_the_source(tmp_path, name):
    save_published(name, tmp_path / "source")
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
    save_published("language", tmp_path / "source")
    saved = load_any(tmp_path / "source")
    texts = {"text": [f"text {n} " * 9 for n in range(40)]}
    run = resolve(texts, pretrained=saved, overrides={"max_steps": 2})
    assert run.recipe.task.kind == "masked_bytes"
    start = plan_warm_start(run.recipe.model_config(), tmp_path / "source", saved=saved)
    assert start.taken == start.total


def test_another_size_of_images_resizes_learned_positions(tmp_path):
    save_published("learned", tmp_path / "source")
    saved = load_any(tmp_path / "source")
    overrides = {"max_steps": 2, "inputs.image.size": (12, 20)}
    run = resolve(rows("learned", tmp_path), pretrained=saved, overrides=overrides)
    start = plan_warm_start(run.recipe.model_config(), tmp_path / "source", saved=saved)
    assert start.resized == {"inputs.image.positions.table": (256, 256)}
    assert run.preprocess["image"].size == (12, 20)


def test_pairs_of_texts_are_joined_for_a_model_of_one_text(tmp_path):
    save_published("language", tmp_path / "source")
    texts = [(f"first text {n}", f"second one {n * n}", "ab"[n % 2]) for n in range(40)]
    pairs = [dict(zip(("one", "two", "label"), row, strict=True)) for row in texts]
    run = resolve(pairs, pretrained=load_any(tmp_path / "source"), overrides={"max_steps": 2})
    assert run.data.inputs["text"].columns == ("one", "two")
    assert "Read as one text with a mark between them: one, two." in run.data.notes


@pytest.mark.parametrize(
    ("name", "field", "value", "others"),
    [
        ("language", "text.max_length", 100, ()),
        ("learned", "image.size", (12, 20), ()),
        ("flow", "frame_pair.size", (16, 24), ("flow",)),
        ("multimodal", "video.size", (32, 32), ()),
        ("multimodal", "video.num_frames", 4, ()),
    ],
)
def test_one_flag_changes_a_size_everywhere(tmp_path, name, field, value, others):
    save_published(name, tmp_path / "source")
    saved, data = load_any(tmp_path / "source"), rows(name, tmp_path)
    modality, key = field.split(".")
    for section in ("inputs", "preprocess"):
        overrides = {"max_steps": 2, f"{section}.{field}": value}
        run = resolve(data, pretrained=saved, overrides=overrides)
        assert getattr(run.recipe.inputs[modality], key) == value
        for part in (modality, *others):
            assert getattr(run.preprocess[part], key) == value


def test_a_size_that_follows_from_the_preprocessing_cannot_be_set(tmp_path):
    save_published("multimodal", tmp_path / "source")
    saved, data = load_any(tmp_path / "source"), rows("multimodal", tmp_path)
    overrides = {"max_steps": 2, "inputs.audio.num_samples": 128}
    with pytest.raises(ValueError, match=r"preprocessing, 64, got 128. Change .*preprocess.audio"):
        resolve(data, pretrained=saved, overrides=overrides)


def test_data_that_the_source_does_not_read_are_an_error(tmp_path):
    save_published("learned", tmp_path / "source")
    with pytest.raises(ValueError, match=r"reads image, but the data hold text"):
        resolve(rows("language", tmp_path), pretrained=load_any(tmp_path / "source"))
