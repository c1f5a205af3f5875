"""From our configuration to that of the one of Hugging Face's six Perceiver models that has its shape, if one has."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from perceivers.hub.huggingface import config_from
from perceivers.inputs.audio import WaveInputConfig
from perceivers.inputs.frame_pair import FramePairInputConfig
from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.inputs.video import VideoInputConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig

__all__ = ["config_to"]

# What changes no output of a trained model.
_FREE = {
    *("latent_init_scale", "init_scale", "embedding_scale", "position_init_scale", "init"),
    *("attn_implementation", "chunk", "modality_dropout", "share_cross_attends", "share_blocks"),
}


def config_to(
    config: PerceiverConfig, *, label_names: Sequence[str] = ()
) -> tuple[str, dict[str, Any]]:
    """Return the name and the configuration of the one of their models that has the shape of ours.

    Args:
        config: Ours.
        label_names: Of the classes. By default they are numbered.

    Raises:
        ValueError: If none has. The message says where the nearest differs.
    """
    name = _nearest(config)
    theirs = _guess(config) | {"architectures": [name], "model_type": "perceiver"}
    if (count := _num_labels(config)) is not None:
        names = label_names or [f"LABEL_{i}" for i in range(count)]
        theirs |= {"id2label": {str(i): name for i, name in enumerate(names)}}
        theirs |= {"label2id": {name: i for i, name in enumerate(names)}}
    differ = _differences(_flat(_plain(config)), _flat(_plain(config_from(theirs))))
    if differ:
        msg = (
            f"Hugging Face's {name} is the nearest to this model, but cannot be exactly it: {'; '.join(differ[:3])}. "
            "Expected a model of the shape of one of the six, such as a recipe whose name has _io in it with "
            "encoder.gelu exact, or what `perceivers convert` has written."
        )
        raise ValueError(msg)
    return name, theirs


def _nearest(config: PerceiverConfig) -> str:
    kinds = {part.kind for part in config.inputs.values()}
    if not isinstance(config.output, DecoderConfig) or config.permute is not None:
        msg = (
            "Hugging Face's models answer output queries over elements in their own order; this one has "
            f"output of kind {config.output.kind} and permute={config.permute}. Expected a Perceiver IO model."
        )
        raise ValueError(msg)
    if "bytes" in kinds:
        return "PerceiverForMaskedLM"
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
    """Return their configuration with every value that ours tells."""
    encoder, output = config.encoder, config.output
    if not isinstance(encoder, PerceiverEncoderConfig) or not isinstance(output, DecoderConfig):
        msg = f"Expected the encoder of a Perceiver, got one of kind {encoder.kind}."
        raise ValueError(msg)
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
            for a in output.answers.values()
            if isinstance(q := a.queries, LearnedQueriesConfig)
        )
        theirs |= {
            "output_num_channels": output.project_channels,
            "_label_trainable_num_channels": widest,
        }
    return theirs


def _num_labels(config: PerceiverConfig) -> int | None:
    output = config.output
    if not isinstance(output, DecoderConfig) or "label" not in output.answers:
        return None
    head = output.answers["label"].head
    return head.num_outputs if isinstance(head, LinearHeadConfig) else None


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


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**ours, **theirs} if not _FREE & set(name.split("."))]
    return [
        f"{name} is {ours.get(name, 'not there')} here and {theirs.get(name, 'not there')} there"
        for name in names
        if ours.get(name, "not there") != theirs.get(name, "not there")
    ]
