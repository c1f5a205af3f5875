"""Hugging Face's Perceiver models, six of them with DeepMind's weights, and ours: their shapes.

Each architecture is one function from their configuration to ours. What Hugging Face changed against DeepMind's
release stays as Hugging Face has it: the exact GELU, the padding of the convolved stem, the query added to what it read
in the classifier with learned positions.

Reference: `transformers`, models/perceiver; papers' reference implementation, section "Ports" of its descriptions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from perceivers.hub.perceiver_ar import KRASSERM_MODELS
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

_GELUS: dict[str, Any] = {"gelu": "exact", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_IMAGE = 224  # only size of Hugging Face's image classifiers with computed positions

# What changes no output of a trained model.
_FREE = {
    *("latent_init_scale", "init_scale", "embedding_scale", "position_init_scale", "init"),
    *("attn_implementation", "chunk", "modality_dropout", "share_cross_attends", "share_blocks"),
}


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the name of the model that a configuration describes.

    Raises:
        ValueError: If it is none of them.
    """
    names = list(config.get("architectures") or [])
    all_names = (*ARCHITECTURES, *KRASSERM_MODELS)
    if known := [name for name in names if name in all_names]:
        return known[0]
    found = names[0] if names else config.get("model_type", "nothing")
    raise ValueError(
        f"Expected the configuration of a Perceiver with an architecture out of {', '.join(all_names)}; got "
        f"{found}. Give the folder that `save_pretrained` of one of these has written."
    )


def config_from(config: Mapping[str, Any]) -> PerceiverConfig:
    """Return our configuration of one of the models, from the content of its config.json."""
    build = ARCHITECTURES[architecture_of(config)]
    known = DEFAULTS | {key: value for key, value in config.items() if value is not None}
    if known["hidden_act"] not in _GELUS:
        raise ValueError(
            f"Expected hidden_act out of {', '.join(_GELUS)}, got {known['hidden_act']}."
        )
    return build(known)


def num_labels(config: Mapping[str, Any]) -> int:
    """Return the number of classes: of their names, where the file has them."""
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
        gelu=_GELUS[config["hidden_act"]],
    )


def _fourier(num_bands: int, *resolution: int) -> FourierPositionsConfig:
    return FourierPositionsConfig(num_bands=num_bands, max_resolution=resolution)


def _classifier(config: Mapping[str, Any], image: Any) -> PerceiverConfig:
    label = OutputConfig(
        queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=num_labels(config))
    )
    output = DecoderConfig(
        outputs={"label": label}, use_query_residual=True, gelu=_GELUS[config["hidden_act"]]
    )
    inputs = {} if image is None else {"image": image}
    return PerceiverConfig(inputs=inputs, encoder=_encoder(config), output=output)


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


def _text_classifier(config: Mapping[str, Any]) -> PerceiverConfig:
    text = _language(config).inputs["text"]
    return replace(_classifier(config, None), inputs={"text": text})


def _language(config: Mapping[str, Any]) -> PerceiverConfig:
    length, width = config["max_position_embeddings"], config["d_model"]
    text = TextInputConfig(max_length=length, vocab_size=config["vocab_size"], channels=width)
    queries = LearnedQueriesConfig(num_queries=length, channels=width, follows="text")
    output = DecoderConfig(
        outputs={"text": OutputConfig(queries=queries, head=TiedHeadConfig(modality="text"))},
        num_heads=8,
        qk_channels=8 * 32,
        v_channels=width,
        gelu=_GELUS[config["hidden_act"]],
    )
    return PerceiverConfig(inputs={"text": text}, encoder=_encoder(config), output=output)


def _optical_flow(config: Mapping[str, Any]) -> PerceiverConfig:
    height, width = config["train_size"]
    head = LinearHeadConfig(num_outputs=2, init="zeros", scale=0.01)
    frames = FramePairInputConfig(size=(height, width), positions=_fourier(64, height, width))
    flow = OutputConfig(queries=InputQueriesConfig(modality="frame_pair"), head=head)
    return PerceiverConfig(
        inputs={"frame_pair": frames},
        encoder=_encoder(config),
        output=DecoderConfig(outputs={"flow": flow}, gelu=_GELUS[config["hidden_act"]]),
    )


def _multimodal(config: Mapping[str, Any]) -> PerceiverConfig:
    frames, side = config["num_frames"], config["image_size"]
    samples, patch = frames * config["audio_samples_per_frame"], config["samples_per_patch"]
    _, *size = config["output_shape"]
    classes = num_labels(config)
    video, audio = _fourier(32, frames, side, side), _fourier(192, samples)

    def output(num_outputs: int, queries: Any) -> OutputConfig:
        return OutputConfig(queries=queries, head=LinearHeadConfig(num_outputs=num_outputs))

    def queries(num_bands: int, *size: int, resolution: tuple[int, ...]) -> FourierQueriesConfig:
        return FourierQueriesConfig(
            size=size, num_bands=num_bands, max_resolution=resolution, last_included=False
        )

    label = LearnedQueriesConfig(channels=config["_label_trainable_num_channels"])
    outputs = {
        "audio": output(patch, queries(192, samples // patch, resolution=(samples,))),
        "label": output(classes, label),
        "video": output(3, queries(32, *size, resolution=(frames, side, side))),
    }
    return PerceiverConfig(
        inputs={
            "audio": WaveInputConfig(num_samples=samples, patch=patch, positions=audio),
            "label": LabelInputConfig(num_classes=classes),
            "video": VideoInputConfig(
                num_frames=frames, size=(size[1], size[2]), patch=(1, 4, 4), positions=video
            ),
        },
        encoder=_encoder(config),
        output=DecoderConfig(
            outputs=outputs,
            min_padding=2,
            project_channels=config["output_num_channels"],
            gelu=_GELUS[config["hidden_act"]],
        ),
        fusion=FusionConfig(dropped="token", modality_dropout={"label": 0.5}),
    )


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], PerceiverConfig]] = {
    "PerceiverForImageClassificationFourier": _fourier_classifier,
    "PerceiverForImageClassificationLearned": _learned_classifier,
    "PerceiverForImageClassificationConvProcessing": _conv_classifier,
    "PerceiverForMaskedLM": _language,
    "PerceiverForSequenceClassification": _text_classifier,
    "PerceiverForOpticalFlow": _optical_flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}
"""Conversion of their configuration to ours, by the name of their model."""


def config_to(
    config: PerceiverConfig, *, label_names: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Return the name and the configuration of the one of their models that has the shape of ours.

    Classes without `label_names` are numbered.

    Raises:
        ValueError: If none has. The message names the differences from the nearest.
    """
    name = _nearest(config)
    theirs = _guess(config) | {"architectures": [name], "model_type": "perceiver"}
    outputs = config.output.outputs if isinstance(config.output, DecoderConfig) else {}
    head = outputs["label"].head if "label" in outputs else None
    if isinstance(head, LinearHeadConfig) and head.num_outputs is not None:
        names = label_names or [f"LABEL_{i}" for i in range(head.num_outputs)]
        theirs |= {"id2label": {str(i): name for i, name in enumerate(names)}}
        theirs |= {"label2id": {name: i for i, name in enumerate(names)}}
    ours, known = _flat(_plain(config)), _flat(_plain(config_from(theirs)))
    differ = [
        f"{key} is {ours.get(key, 'not there')} here and {known.get(key, 'not there')} there"
        for key in {**ours, **known}
        if not _FREE & set(key.split("."))
        and ours.get(key, "not there") != known.get(key, "not there")
    ]
    if differ:
        raise ValueError(
            f"Hugging Face's {name} is the nearest to this model, but cannot be exactly it: {'; '.join(differ[:3])}. "
            "Expected a model of the shape of one of them, such as a recipe whose name has _io in it with "
            "encoder.gelu exact, or what `perceivers convert` has written."
        )
    return name, theirs


def _nearest(config: PerceiverConfig) -> str:
    kinds = {part.kind for part in config.inputs.values()}
    if not isinstance(config.output, DecoderConfig) or config.permute is not None:
        raise ValueError(
            "Hugging Face's models answer output queries over elements in their own order; this one has "
            f"output of kind {config.output.kind} and permute={config.permute}. Expected a Perceiver IO model."
        )
    if "bytes" in kinds:
        is_classifier = "label" in config.output.outputs
        return f"PerceiverFor{'SequenceClassification' if is_classifier else 'MaskedLM'}"
    if "frame_pair" in kinds:
        return "PerceiverForOpticalFlow"
    if "label" in kinds:
        return "PerceiverForMultimodalAutoencoding"
    if "convolved" in kinds:
        return "PerceiverForImageClassificationConvProcessing"
    part = next(iter(config.inputs.values()))
    is_learned = getattr(getattr(part, "positions", None), "kind", "") == "learned"
    return f"PerceiverForImageClassification{'Learned' if is_learned else 'Fourier'}"


def _guess(config: PerceiverConfig) -> dict[str, Any]:
    """Return their configuration with every value that follows from ours."""
    encoder, output = config.encoder, config.output
    if not isinstance(encoder, PerceiverEncoderConfig) or not isinstance(output, DecoderConfig):
        raise ValueError(f"Expected the encoder of a Perceiver, got one of kind {encoder.kind}.")
    theirs: dict[str, Any] = {
        "num_latents": encoder.num_latents,
        "d_latents": encoder.latent_channels,
        "num_blocks": encoder.num_blocks,
        "num_self_attends_per_block": encoder.num_self_attends_per_block,
        "num_self_attention_heads": encoder.num_self_attend_heads,
        "num_cross_attention_heads": encoder.num_cross_attend_heads,
        "qk_channels": encoder.self_attend_qk_channels,
        "v_channels": encoder.self_attend_v_channels,
        "self_attention_widening_factor": encoder.self_attend_widening_factor,
        "cross_attention_widening_factor": encoder.cross_attend_widening_factor,
        "use_query_residual": encoder.use_query_residual,
        "hidden_act": {"tanh": "gelu_pytorch_tanh", "exact": "gelu"}[encoder.gelu],
        "attention_probs_dropout_prob": 0.0,
    }
    for part in config.inputs.values():
        if isinstance(part, TextInputConfig):
            theirs |= {
                "d_model": part.channels,
                "vocab_size": part.vocab_size,
                "max_position_embeddings": part.max_length,
            }
        elif isinstance(part, FramePairInputConfig):
            theirs |= {"train_size": part.size, "d_model": 322}
        elif isinstance(part, VideoInputConfig) and part.size is not None:
            resolution = getattr(part.positions, "max_resolution", None) or (0, 0)
            theirs |= {"num_frames": part.num_frames, "image_size": resolution[-1]}
            theirs |= {"output_shape": (1, part.num_frames, *part.size)}
        elif isinstance(part, WaveInputConfig):
            theirs |= {"samples_per_patch": part.patch, "audio_samples": part.num_samples}
        elif isinstance(part, PixelInputConfig | ConvInputConfig) and part.size is not None:
            theirs |= {"image_size": part.size[0]}
            theirs |= {"d_model": {"pixels": 261, "convolved": 322}[part.kind]}
            if part.kind == "pixels" and part.project_channels is not None:
                theirs |= {"d_model": 512}
    if "audio_samples" in theirs:
        samples = theirs.pop("audio_samples")
        theirs["audio_samples_per_frame"] = samples // theirs.get("num_frames", 1)
        widest = max(
            q.channels or 0
            for part in output.outputs.values()
            if isinstance(q := part.queries, LearnedQueriesConfig)
        )
        theirs |= {
            "output_num_channels": output.project_channels,
            "_label_trainable_num_channels": widest,
        }
    return theirs


def _plain(config: PerceiverConfig) -> dict[str, Any]:
    """Return a configuration as plain data, with the resolutions that follow from sizes written out."""
    plain = asdict(config)
    for part in plain["inputs"].values():
        positions = part.get("positions")
        if positions and positions.get("max_resolution", ...) is None:
            size = part["size"]
            if part["kind"] == "convolved":
                size = tuple(-(-n // 4) for n in size)
            positions["max_resolution"] = size
    if len(plain["inputs"]) == 1:
        del plain["fusion"]  # one modality alone has no use for it
    return plain


def _flat(plain: Any, name: str = "") -> dict[str, Any]:
    if isinstance(plain, dict):
        return {k: v for key in plain for k, v in _flat(plain[key], f"{name}.{key}").items()}
    return {name.lstrip("."): tuple(plain) if isinstance(plain, list) else plain}
