"""The six Perceiver models of Hugging Face, in which DeepMind's weights are published, and ours: their shapes.

Each architecture is one function from their configuration to ours. What Hugging Face changed against DeepMind's
release stays as Hugging Face has it: the exact GELU, the padding of the convolved stem, the query added to what it read
in the classifier with learned positions.

Source: `transformers`, models/perceiver; papers' reference implementation, section "Ports" of its descriptions.
"""

from collections.abc import Callable, Mapping
from typing import Any

from perceivers.inputs.audio import WaveInputConfig
from perceivers.inputs.frame_pair import FramePairInputConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.label import LabelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.inputs.video import VideoInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.outputs.heads import LinearHeadConfig, TiedHeadConfig
from perceivers.outputs.queries import (
    FourierQueriesConfig,
    InputQueriesConfig,
    LearnedQueriesConfig,
)

__all__ = ["ARCHITECTURES", "DEFAULTS", "architecture_of", "config_from", "num_labels"]

# What their configuration takes a key for that its file leaves out.
DEFAULTS: dict[str, Any] = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": (368, 496),
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": (1, 16, 224, 224),
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}

_GELUS = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_IMAGE = 224  # their picture classifiers with computed positions take this size only


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return which of the six models a configuration is of.

    Raises:
        ValueError: If it is none of them.
    """
    names = list(config.get("architectures") or [])
    for name in names:
        if name in ARCHITECTURES:
            return name
    found = names[0] if names else config.get("model_type", "nothing")
    msg = (
        f"Expected the configuration of a Perceiver with an architecture out of {', '.join(ARCHITECTURES)}; got "
        f"{found}. Give the folder that `save_pretrained` of one of these has written."
    )
    raise ValueError(msg)


def config_from(config: Mapping[str, Any]) -> PerceiverConfig:
    """Return our configuration of one of their models.

    Args:
        config: What their config.json holds.

    Raises:
        ValueError: If it is none of the six models, or has an activation that we do not know.
    """
    build = ARCHITECTURES[architecture_of(config)]
    known = DEFAULTS | {key: value for key, value in config.items() if value is not None}
    if known["hidden_act"] not in _GELUS:
        msg = f"Expected hidden_act out of {', '.join(_GELUS)}, got {known['hidden_act']}."
        raise ValueError(msg)
    return build(known)


def num_labels(config: Mapping[str, Any]) -> int:
    """Return the number of classes, which their file tells by the names."""
    if config.get("id2label"):
        return len(config["id2label"])
    return int(config.get("num_labels") or 2)


def _encoder(config: Mapping[str, Any]) -> PerceiverEncoderConfig:
    qk, values = config["qk_channels"], config["v_channels"]
    cross_qk = qk
    if qk is None and config["cross_attention_shape_for_attention"] == "q":
        cross_qk = config["d_latents"]
    return PerceiverEncoderConfig(
        num_latents=config["num_latents"],
        latent_channels=config["d_latents"],
        num_cross_attends=1,
        num_blocks=config["num_blocks"],
        num_self_attends_per_block=config["num_self_attends_per_block"],
        num_cross_attend_heads=config["num_cross_attention_heads"],
        num_self_attend_heads=config["num_self_attention_heads"],
        cross_attend_widening_factor=config["cross_attention_widening_factor"],
        self_attend_widening_factor=config["self_attention_widening_factor"],
        cross_attend_qk_channels=cross_qk,
        cross_attend_v_channels=values,
        self_attend_qk_channels=qk,
        self_attend_v_channels=values if values is not None else qk,
        use_query_residual=bool(config["use_query_residual"]),
        gelu=_gelu(config),
    )


def _gelu(config: Mapping[str, Any]) -> Any:
    return _GELUS[config["hidden_act"]]


def _fourier(num_bands: int, *resolution: int) -> FourierPositionsConfig:
    return FourierPositionsConfig(num_bands=num_bands, max_resolution=resolution)


def _classifier(config: Mapping[str, Any], image: Any) -> PerceiverConfig:
    answer = OutputConfig(
        queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=num_labels(config))
    )
    output = DecoderConfig(answers={"label": answer}, use_query_residual=True, gelu=_gelu(config))
    return PerceiverConfig(inputs={"image": image}, encoder=_encoder(config), output=output)


def _fourier_classifier(config: Mapping[str, Any]) -> PerceiverConfig:
    positions = _fourier(64, _IMAGE, _IMAGE)
    return _classifier(config, PixelInputConfig(size=(_IMAGE, _IMAGE), positions=positions))


def _learned_classifier(config: Mapping[str, Any]) -> PerceiverConfig:
    side = config["image_size"]
    size = (side, side) if isinstance(side, int) else (side[0], side[1])
    positions = LearnedPositionsConfig(channels=256, init_scale=0.02, project_channels=256)
    pixels = PixelInputConfig(size=size, project_channels=256, positions=positions)
    return _classifier(config, pixels)


def _conv_classifier(config: Mapping[str, Any]) -> PerceiverConfig:
    stem = ConvInputConfig(
        size=(_IMAGE, _IMAGE), positions=_fourier(64, 56, 56), padding="symmetric"
    )
    return _classifier(config, stem)


def _language(config: Mapping[str, Any]) -> PerceiverConfig:
    length, width = config["max_position_embeddings"], config["d_model"]
    text = TextInputConfig(max_length=length, vocab_size=config["vocab_size"], channels=width)
    queries = LearnedQueriesConfig(num_queries=length, channels=width, follows="text")
    output = DecoderConfig(
        answers={"text": OutputConfig(queries=queries, head=TiedHeadConfig(modality="text"))},
        num_heads=8,
        qk_channels=8 * 32,
        v_channels=width,
        gelu=_gelu(config),
    )
    return PerceiverConfig(inputs={"text": text}, encoder=_encoder(config), output=output)


def _optical_flow(config: Mapping[str, Any]) -> PerceiverConfig:
    height, width = config["train_size"]
    head = LinearHeadConfig(num_outputs=2, init="zeros", scale=0.01)
    return PerceiverConfig(
        inputs={
            "frames": FramePairInputConfig(
                size=(height, width), positions=_fourier(64, height, width)
            )
        },
        encoder=_encoder(config),
        output=DecoderConfig(
            answers={
                "flow": OutputConfig(queries=InputQueriesConfig(modality="frames"), head=head)
            },
            gelu=_gelu(config),
        ),
    )


def _multimodal(config: Mapping[str, Any]) -> PerceiverConfig:
    frames, side = config["num_frames"], config["image_size"]
    samples, patch = frames * config["audio_samples_per_frame"], config["samples_per_patch"]
    _, *film = config["output_shape"]
    classes = num_labels(config)
    video, audio = _fourier(32, frames, side, side), _fourier(192, samples)
    answers = {
        "audio": OutputConfig(
            queries=FourierQueriesConfig(
                size=(samples // patch,),
                num_bands=192,
                max_resolution=(samples,),
                last_included=False,
            ),
            head=LinearHeadConfig(num_outputs=patch),
        ),
        "label": OutputConfig(
            queries=LearnedQueriesConfig(channels=config["_label_trainable_num_channels"]),
            head=LinearHeadConfig(num_outputs=classes),
        ),
        "video": OutputConfig(
            queries=FourierQueriesConfig(
                size=tuple(film),
                num_bands=32,
                max_resolution=(frames, side, side),
                last_included=False,
            ),
            head=LinearHeadConfig(num_outputs=3),
        ),
    }
    return PerceiverConfig(
        inputs={
            "audio": WaveInputConfig(num_samples=samples, patch=patch, positions=audio),
            "label": LabelInputConfig(num_classes=classes),
            "video": VideoInputConfig(
                num_frames=frames, size=(film[1], film[2]), patch=(1, 4, 4), positions=video
            ),
        },
        encoder=_encoder(config),
        output=DecoderConfig(
            answers=answers,
            min_padding=2,
            project_channels=config["output_num_channels"],
            gelu=_gelu(config),
        ),
        fusion=FusionConfig(dropped="token", modality_dropout={"label": 0.5}),
    )


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], PerceiverConfig]] = {
    "PerceiverForImageClassificationFourier": _fourier_classifier,
    "PerceiverForImageClassificationLearned": _learned_classifier,
    "PerceiverForImageClassificationConvProcessing": _conv_classifier,
    "PerceiverForMaskedLM": _language,
    "PerceiverForOpticalFlow": _optical_flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}
"""How their configuration becomes ours, by the name of their model."""
