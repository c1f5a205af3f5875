"""The whole models that compete. Those that can be equal hold the same weights under one name."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.plain import PlainPerceiver, renamed
from benchmarks.setting import Setting, Skip
from perceivers.hub.huggingface_weights import rows_of, to_huggingface
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig

__all__ = [
    "Rival",
    "config_2021",
    "config_io",
    "huggingface_io",
    "lucidrains",
    "ours_2021",
    "ours_io",
    "plain_2021",
    "seeded",
]

Module = TypeVar("Module", bound=nn.Module)

# The name of the picture classifier at Hugging Face that reads single pixels.
_THEIR_CLASSIFIER = "PerceiverForImageClassificationFourier"


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A model under measurement.

    Attributes:
        model: Its weights.
        call: B x 3 x Y x X image -> B x K logits.
        our_name: Its name of a weight -> ours.
    """

    model: nn.Module
    call: Callable[[Tensor], Tensor]
    our_name: Callable[[str], str] = str


def pixels(setting: Setting) -> PixelInputConfig:
    """Return the input adapter's configuration."""
    sizes = setting.sizes
    return PixelInputConfig(
        size=(sizes.side, sizes.side), positions=FourierPositionsConfig(num_bands=sizes.num_bands)
    )


def config_2021(setting: Setting) -> PerceiverConfig:
    """Return the 2021 ImageNet model in the sizes of the setting."""
    sizes = setting.sizes
    return PerceiverConfig(
        inputs={"image": pixels(setting)},
        encoder=PerceiverEncoderConfig(
            num_latents=sizes.num_latents,
            latent_channels=sizes.latent_channels,
            num_cross_attends=sizes.num_blocks,
            num_blocks=sizes.num_blocks,
            num_self_attends_per_block=sizes.num_layers,
            num_cross_attend_heads=1,
            num_self_attend_heads=sizes.num_heads,
        ),
        output=MeanPoolConfig(num_outputs=sizes.num_classes),
    )


def config_io(setting: Setting) -> PerceiverConfig:
    """Return Perceiver IO for ImageNet in the sizes of the setting: one read, one output query."""
    config = config_2021(setting)
    encoder = replace(config.encoder, num_cross_attends=1)
    output = DecoderConfig.classifier(setting.sizes.num_classes)
    return replace(config, encoder=encoder, output=output)


def seeded(make: Callable[[], Module]) -> Module:
    """Return a module with weights of a fixed seed, none of which is zero or one for all channels.

    A fresh model's classifier and biases are zero and its norms one: a comparison would not see them.
    """
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith("to_logits.weight"):
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return module


def ours_2021(setting: Setting) -> Rival:
    """Return this library's 2021 model."""
    model: Perceiver = seeded(lambda: build(config_2021(setting))).to(setting.device)
    if setting.smoke:
        model.encoder.attn_implementation = "structured"  # as larger shapes would be read
    return Rival(model=model, call=lambda image: model({"image": image}))


def plain_2021(setting: Setting, *, keep: bool = False, pad: bool = False) -> Rival:
    """Return the plain 2021 model.

    Args:
        setting: Sizes and device.
        keep: Project the elements once for all reads with the same weights.
        pad: Fill the width of keys and values up to a multiple of 8.
    """
    sizes = setting.sizes
    model = PlainPerceiver(
        side=sizes.side,
        num_bands=sizes.num_bands,
        num_latents=sizes.num_latents,
        latent_channels=sizes.latent_channels,
        num_reads=sizes.num_blocks,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_classes=sizes.num_classes,
    )
    model.set_keeping(keep)
    model.set_padding(pad)
    model.load_ours(seeded(lambda: build(config_2021(setting))).state_dict())
    model = model.to(setting.device)
    return Rival(model=model, call=model, our_name=renamed)


def ours_io(setting: Setting) -> Rival:
    """Return this library's Perceiver IO for ImageNet."""
    model: Perceiver = seeded(lambda: build(config_io(setting))).to(setting.device)
    if setting.smoke:
        model.encoder.attn_implementation = "structured"
    return Rival(model=model, call=lambda image: model({"image": image}))


def huggingface_io(setting: Setting) -> Rival:
    """Return Hugging Face's Perceiver IO for ImageNet with our weights.

    Its defaults that are not DeepMind's are set back: the exact GELU, and dropout of attention.

    Raises:
        Skip: If transformers is not installed, or in smoke shapes, which its classifier does not take.
    """
    if setting.smoke:
        raise Skip("its classifier takes 224 x 224 images only, and this is a smoke run")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import PerceiverConfig as TheirConfig
            from transformers import PerceiverForImageClassificationFourier
    except ImportError as error:
        msg = "transformers is not installed: pip install 'perceivers[bench]'"
        raise Skip(msg) from error
    sizes = setting.sizes
    config = TheirConfig(
        num_latents=sizes.num_latents,
        d_latents=sizes.latent_channels,
        d_model=261,
        num_blocks=sizes.num_blocks,
        num_self_attends_per_block=sizes.num_layers,
        num_self_attention_heads=sizes.num_heads,
        num_cross_attention_heads=1,
        num_labels=sizes.num_classes,
        hidden_act="gelu_pytorch_tanh",
        attention_probs_dropout_prob=0.0,
        cross_attention_shape_for_attention="kv",
    )
    model = PerceiverForImageClassificationFourier(config)
    weights = seeded(lambda: build(config_io(setting))).state_dict()
    model.load_state_dict(to_huggingface(weights, _THEIR_CLASSIFIER, config_io(setting)))
    model = model.to(setting.device)
    names = {row.theirs: row.ours for row in rows_of(_THEIR_CLASSIFIER, config_io(setting))}
    return Rival(
        model=model, call=lambda image: model(inputs=image).logits, our_name=names.__getitem__
    )


def lucidrains(setting: Setting) -> Rival:
    """Return perceiver-pytorch's model in the settings nearest to the 2021 model's.

    It is another model: 229 M weights in the papers' sizes, since its MLPs are gated and four times as wide.

    Raises:
        Skip: If it is not installed.
    """
    try:
        from perceiver_pytorch import Perceiver as Theirs
    except ImportError as error:
        msg = "perceiver-pytorch is not installed: pip install 'perceivers[bench]'"
        raise Skip(msg) from error
    sizes = setting.sizes
    settings: Mapping[str, int | bool] = {
        "num_freq_bands": sizes.num_bands,
        "max_freq": sizes.side,
        "depth": sizes.num_blocks,
        "num_latents": sizes.num_latents,
        "latent_dim": sizes.latent_channels,
        "cross_heads": 1,
        "cross_dim_head": 3 + 2 * (2 * sizes.num_bands + 1),
        "latent_heads": sizes.num_heads,
        "latent_dim_head": sizes.latent_channels // sizes.num_heads,
        "self_per_cross_attn": sizes.num_layers,
        "num_classes": sizes.num_classes,
        "weight_tie_layers": True,
    }
    model = Theirs(**settings).to(setting.device)
    return Rival(model=model, call=lambda image: model(image.permute(0, 2, 3, 1)))
