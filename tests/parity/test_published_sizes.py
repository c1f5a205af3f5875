"""Our recipes have exactly as many weights as the published models."""

from dataclasses import replace

import pytest
import torch

from perceivers.hub.huggingface import config_from
from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.positions import LearnedPositionsConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.recipes.registry import get_recipe


def count(config):
    with torch.device("meta"):
        return sum(p.numel() for p in build(config).parameters())


def changed(recipe, **encoder):
    config = get_recipe(recipe).model_config()
    return replace(config, encoder=replace(config.encoder, **encoder))


UNSHARED = {"share_cross_attends": "none", "share_blocks": False}


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (changed("imagenet"), 44_912_254),  # table 7, "w/ weight sharing": 44.9 M
        (changed("imagenet", **UNSHARED), 326_241_856),  # table 7, "no weight sharing": 326.2 M
        (changed("imagenet_learned"), 48_189_577),  # table 2's learned positions, not printed
        (changed("imagenet", num_cross_attends=1), 42_135_859),  # table 6, 42.1 M
        (changed("imagenet", num_cross_attends=2), 44_912_254),  # table 6, 44.9 M
        (changed("imagenet", num_cross_attends=4), 44_912_254),  # table 6, 44.9 M
        (changed("imagenet", num_cross_attends=4, cross_attends_at="start"), 44_912_254),
        (changed("imagenet", num_cross_attends=8, cross_attends_at="start"), 44_912_254),
    ],
    ids=["shared", "unshared", "learned", "1", "2", "4", "4-start", "8-start"],
)
def test_number_of_weights_is_the_published_one(config, published):
    assert count(config) == published


@pytest.mark.parametrize(
    ("reads", "published"), [(4, 12_654_868), (8, 23_760_448), (12, 34_866_028)]
)
def test_stacks_of_reads_alone_have_the_size_of_table_5(reads, published):
    config = changed(
        "imagenet",
        num_cross_attends=reads,
        num_blocks=reads,
        num_self_attends_per_block=0,
        share_cross_attends="none",
    )
    assert count(config) == published


@pytest.mark.parametrize(
    ("part", "published"),
    [
        (PixelInputConfig(), 42_135_859),
        (
            PixelInputConfig(
                project_channels=256,
                positions=LearnedPositionsConfig(
                    channels=256, init_scale=0.02, project_channels=256
                ),
            ),
            55_951_080,
        ),
        (ConvInputConfig(), 42_341_754),
    ],
    ids=["pixels", "learned", "convolved"],
)
def test_every_way_to_read_a_picture_has_the_size_of_perceiver_ios_table_7(part, published):
    encoder = PerceiverEncoderConfig(num_cross_attends=1)
    assert count(PerceiverConfig(inputs={"image": part}, encoder=encoder)) == published


@pytest.mark.parametrize(
    ("recipe", "published"),
    [
        ("imagenet_io", 48_440_627),
        ("imagenet_io_learned", 62_255_848),
        ("imagenet_io_conv", 48_646_522),
        ("imagenet64_ar", 770_094_339),
        ("mlm_bytes", 201_108_230),
        ("mlm_bytes_plus", 425_607_430),
    ],
)
def test_perceiver_io_has_its_published_sizes(recipe, published):
    assert count(get_recipe(recipe).model_config()) == published


@pytest.mark.parametrize(
    ("layers", "latents", "published"), [(24, 2048, 41_057_134), (16, 1024, 27_908_974)]
)
def test_the_optical_flow_models_have_their_sizes(layers, latents, published):
    theirs = {
        "architectures": ["PerceiverForOpticalFlow"],
        "num_latents": latents,
        "d_latents": 512,
        "num_self_attends_per_block": layers,
        "num_self_attention_heads": 16,
        "num_cross_attention_heads": 1,
    }
    assert count(config_from(theirs)) == published


def test_the_multimodal_autoencoder_has_its_size_and_outputs():
    theirs = {
        "architectures": ["PerceiverForMultimodalAutoencoding"],
        "num_latents": 784,
        "d_latents": 512,
        "num_self_attends_per_block": 8,
        "num_cross_attention_heads": 1,
        "num_labels": 700,
    }
    config = config_from(theirs)
    ours = get_recipe("kinetics_autoencoder").model_config()
    assert count(config) == count(ours) == 19_858_855
    assert ours.inputs == config.inputs
    assert ours.output.outputs == config.output.outputs
    assert ours.fusion == config.fusion
    with torch.device("meta"):
        model = build(config)
        inputs = {name: adapter.example(1) for name, adapter in model.inputs.items()}
        segments = model.elements(inputs)
    assert sum(segment.num_elements for segment in segments) == 52_097
    assert model.input_channels == 704
    assert sum(part.num_queries for part in model.output.queries.values()) == 804_737


def shared(recipe, **encoder):
    return count(changed(recipe, **encoder))


def test_modelnet40_has_the_derived_sizes():
    assert shared("modelnet40") == 44_772_202
    assert shared("modelnet40", share_blocks=False) == 82_582_378
    with torch.device("meta"):
        model = build(get_recipe("modelnet40").model_config())
    assert model.input_channels == 387  # 3 * (2 * 64 + 1)


@pytest.mark.parametrize(
    ("recipe", "published"),
    [("audioset_io_raw", 24_922_228), ("audioset_io_mel", 86_568_052)],  # 25.0 M; 88.2 M is printed
)
def test_perceiver_io_on_audioset_has_the_derived_sizes(recipe, published):
    with torch.device("meta"):
        model = build(get_recipe(recipe).model_config())
    vectors = sum(p.numel() for p in model.fusion.parameters())
    assert sum(p.numel() for p in model.parameters()) - vectors == published
    assert model.input_channels == 487


@pytest.mark.parametrize(
    ("recipe", "elements", "channels"),
    [
        ("audioset_raw", 480, 257),  # 128 samples + 2 * 64 + 1
        ("audioset_mel", 4_800, 259),  # 1 value + 2 * (2 * 64 + 1)
        ("audioset_video", 12_544, 483),  # 384 values + 3 * (2 * 16 + 1)
        ("audioset_av_raw", 13_024, 487),  # and 4 of the modality's vector
        ("audioset_av_mel", 17_344, 487),
        ("audioset_av_mel_tuned", 17_344, 487),
    ],
)
def test_audioset_has_the_published_elements_and_widths(recipe, elements, channels):
    with torch.device("meta"):
        model = build(get_recipe(recipe).model_config())
        inputs = {name: adapter.example(1) for name, adapter in model.inputs.items()}
        segments = model.elements(inputs)
    assert sum(segment.num_elements for segment in segments) == elements
    assert {segment.num_channels for segment in segments} == {channels}
    assert model.input_channels == channels
    assert model.encoder.config.num_cross_attends == 2
    assert sum(len(block) for block in model.encoder.blocks) == 16  # nothing is shared


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("enwik8_ar", 30_690_816 + 6 * 2 * 512),  # our special tokens
        ("wikitext_ar", 30_563_078),
        ("c4_ar", 453_950_720),
        ("copy_131072", 89_757_955),  # without the fixed table of 134,218,752 sinusoids
    ],
)
def test_perceiver_ar_has_the_weights_of_its_sources(name, published):
    assert count(get_recipe(name).model_config()) == published
