"""DeepMind's checkpoints of Perceiver IO, written by Haiku: their names and settings in terms of Hugging Face's models.

The sizes of a model follow from its arrays; heads, blocks and the sizes of inputs are those of DeepMind's notebooks.

Reference: `google-deepmind/deepmind-research`, perceiver/ (modules and the configurations in colabs/); `transformers`,
convert_perceiver_haiku_to_pytorch.py, for the names. That script reverses all axes of a convolution's kernel, which
exchanges height and width; here they stay in order.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.hub.huggingface import config_from
from perceivers.inputs.image import ConvInputConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.typing import Tensor

Arrays = Mapping[str, npt.NDArray[Any]]

# Modules of a layer in both libraries; a self-attend has a single norm before the attention.
_ATTENTION = {
    "attention/linear": "attention.self.query",
    "attention/linear_1": "attention.self.key",
    "attention/linear_2": "attention.self.value",
    "attention/linear_3": "attention.output.dense",
    "mlp/linear": "mlp.dense1",
    "mlp/linear_1": "mlp.dense2",
}
_CROSS_NORMS = {
    "layer_norm": "attention.self.layernorm1",
    "layer_norm_1": "attention.self.layernorm2",
    "layer_norm_2": "layernorm",
}
_SELF_NORMS = {"layer_norm": "attention.self.layernorm1", "layer_norm_1": "layernorm"}

_PRE, _DEC = "perceiver.input_preprocessor", "perceiver.decoder.decoder"
_IMAGE_PRE, _BUILT = "image_preprocessor/~", "image_preprocessor/~_build_network_inputs"
_NORM, _EMBEDDINGS = f"{_IMAGE_PRE}/conv2_d_downsample/~/batchnorm", "trainable_position_encoding"
_CLASSIFIER = "classification_decoder/~/basic_decoder"
_MOVING = ("counter", "hidden")  # of moving averages, whose values are beside them

Names = dict[str, str]
"""Names of Hugging Face's weights by those of Haiku."""


def _linear(haiku: str, theirs: str) -> Names:
    return {f"{haiku}/w": f"{theirs}.weight", f"{haiku}/b": f"{theirs}.bias"}


def _norm(haiku: str, theirs: str) -> Names:
    return {f"{haiku}/scale": f"{theirs}.weight", f"{haiku}/offset": f"{theirs}.bias"}


def _layer(haiku: str, theirs: str, norms: Mapping[str, str]) -> Names:
    found: Names = {}
    for a, b in _ATTENTION.items():
        found |= _linear(f"{haiku}/{a}", f"{theirs}.{b}")
    for a, b in norms.items():
        found |= _norm(f"{haiku}/{a}", f"{theirs}.{b}")
    return found


def _encoder(prefix: str, layers: int) -> Names:
    found = {f"{prefix}/~/{_EMBEDDINGS}/pos_embs": "perceiver.embeddings.latents"}
    theirs = "perceiver.encoder.cross_attention"
    found |= _layer(f"{prefix}/~/cross_attention", theirs, _CROSS_NORMS)
    for number in range(layers):
        haiku = f"{prefix}/~/self_attention{f'_{number}' if number else ''}"
        found |= _layer(haiku, f"perceiver.encoder.self_attends.{number}", _SELF_NORMS)
    return found


def _decoder(haiku: str) -> Names:
    theirs = f"{_DEC}.decoding_cross_attention"
    found = _layer(f"{haiku}/cross_attention", theirs, _CROSS_NORMS)
    return found | _linear(f"{haiku}/output", f"{_DEC}.final_layer")


def _classifier() -> Names:
    queries = f"{_DEC}.output_position_encodings.position_embeddings"
    return {f"{_CLASSIFIER}/~/{_EMBEDDINGS}/pos_embs": queries} | _decoder(_CLASSIFIER)


def _learned() -> Names:
    positions = f"{_PRE}.position_embeddings.position_embeddings"
    return (
        _linear(f"{_IMAGE_PRE}/conv2_d", f"{_PRE}.convnet_1x1")
        | {f"{_BUILT}/{_EMBEDDINGS}/pos_embs": positions}
        | _linear(f"{_BUILT}/position_encoding_projector/linear", f"{_PRE}.positions_projection")
        | _classifier()
    )


def _convolved() -> Names:
    theirs = f"{_PRE}.convnet.batchnorm"
    return (
        {f"{_IMAGE_PRE}/conv2_d_downsample/~/conv/w": f"{_PRE}.convnet.conv.weight"}
        | _norm(_NORM, theirs)
        | {f"{_NORM}/~/mean_ema/average": f"{theirs}.running_mean"}
        | {f"{_NORM}/~/var_ema/average": f"{theirs}.running_var"}
        | _classifier()
    )


def _language() -> Names:
    queries = "perceiver.decoder.output_position_encodings.position_embeddings"
    theirs = "perceiver.decoder.decoding_cross_attention"
    return {
        "embed/embeddings": f"{_PRE}.embeddings.weight",
        f"{_EMBEDDINGS}/pos_embs": f"{_PRE}.position_embeddings.weight",
        f"basic_decoder/~/{_EMBEDDINGS}/pos_embs": queries,
        "embedding_decoder/bias": "embedding_decoder.bias",
    } | _layer("basic_decoder/cross_attention", theirs, _CROSS_NORMS)


def _optical_flow() -> Names:
    patches = _linear("image_preprocessor/patches_linear", f"{_PRE}.conv_after_patches")
    return patches | _decoder("flow_decoder/~/basic_decoder")


def _multimodal() -> Names:
    label = "perceiver.decoder.modalities.label.decoder.output_position_encodings"
    found = {f"{_CLASSIFIER}/~/{_EMBEDDINGS}/pos_embs": f"{label}.position_embeddings"}
    heads = {"audio": "audio", "image": "projection", "label": "classification"}
    query = "multimodal_decoder/~decoder_query"
    for name, head in heads.items():
        found |= {
            f"multimodal_preprocessor/{name}_padding/pos_embs": f"{_PRE}.padding.{name}",
            f"multimodal_preprocessor/{name}_mask_token/pos_embs": f"{_PRE}.mask.{name}",
            f"{query}/{name}_padding/pos_embs": f"perceiver.decoder.padding.{name}",
        }
        theirs = f"perceiver.output_postprocessor.modalities.{name}.classifier"
        found |= _linear(f"{head}_postprocessor/linear", theirs)
    return found | _decoder("multimodal_decoder/~/basic_decoder")


def _image_settings(arrays: Arrays) -> dict[str, Any]:
    return {
        "num_blocks": 8,
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 1,
        "num_labels": arrays[f"{_CLASSIFIER}/output/w"].shape[-1],
    }


def _learned_settings(arrays: Arrays) -> dict[str, Any]:
    positions = arrays[f"{_BUILT}/{_EMBEDDINGS}/pos_embs"]
    return _image_settings(arrays) | {"image_size": math.isqrt(len(positions))}


def _language_settings(arrays: Arrays) -> dict[str, Any]:
    attention = "perceiver_encoder/~/cross_attention/attention"
    vocabulary, width = arrays["embed/embeddings"].shape
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "max_position_embeddings": len(arrays[f"{_EMBEDDINGS}/pos_embs"]),
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 8,
        "qk_channels": arrays[f"{attention}/linear/w"].shape[-1],
        "v_channels": arrays[f"{attention}/linear_2/w"].shape[-1],
    }


def _flow_settings(_: Arrays) -> dict[str, Any]:
    return {"num_self_attention_heads": 16, "num_cross_attention_heads": 1}


def _multimodal_settings(arrays: Arrays) -> dict[str, Any]:
    return {
        "num_self_attention_heads": 8,
        "num_cross_attention_heads": 1,
        "num_labels": arrays["classification_postprocessor/linear/w"].shape[-1],
        "samples_per_patch": arrays["audio_postprocessor/linear/w"].shape[-1],
        "output_num_channels": arrays["multimodal_decoder/~/basic_decoder/output/w"].shape[-1],
        "_label_trainable_num_channels": arrays[f"{_CLASSIFIER}/~/{_EMBEDDINGS}/pos_embs"].shape[
            -1
        ],
    }


# Hugging Face's model, the names of its weights outside of the encoder, and its settings, by the beginning of a name
# that no model before it has.
_KINDS: dict[str, tuple[str, Callable[[], Names], Callable[[Arrays], dict[str, Any]]]] = {
    "multimodal_decoder/": (
        "PerceiverForMultimodalAutoencoding",
        _multimodal,
        _multimodal_settings,
    ),
    "flow_decoder/": ("PerceiverForOpticalFlow", _optical_flow, _flow_settings),
    "embedding_decoder/": ("PerceiverForMaskedLM", _language, _language_settings),
    f"{_IMAGE_PRE}/conv2_d_downsample/": (
        "PerceiverForImageClassificationConvProcessing",
        _convolved,
        _image_settings,
    ),
    f"{_BUILT}/{_EMBEDDINGS}/": (
        "PerceiverForImageClassificationLearned",
        _learned,
        _learned_settings,
    ),
    "classification_decoder/": (
        "PerceiverForImageClassificationFourier",
        _classifier,
        _image_settings,
    ),
}


def from_haiku(arrays: Arrays, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the configuration and the weights of Hugging Face's model that has the shape of a checkpoint of Haiku.

    Args:
        arrays: The arrays of the checkpoint by module path and name.
        path: Its file, for messages.

    Raises:
        ValueError: If it is none of DeepMind's models, or lacks or has an array that the model does not. The message
            names it.
    """
    begin = next((b for b in _KINDS if any(name.startswith(b) for name in arrays)), None)
    prefix = "encoder" if begin == "multimodal_decoder/" else "perceiver_encoder"
    latents = f"{prefix}/~/{_EMBEDDINGS}/pos_embs"
    if begin is None or latents not in arrays:
        more = ", ..." if len(arrays) > 3 else ""
        shown = ", ".join(sorted(arrays)[:3]) or "nothing"
        raise ValueError(
            f"{path} is none of DeepMind's checkpoints of Perceiver IO: it holds {shown}{more}. "
            "Expected that of a classifier of images, the language model, optical flow or the video autoencoder."
        )
    architecture, names_of, settings_of = _KINDS[begin]
    first = f"{prefix}/~/self_attention"
    layers = len({n.split("/")[2] for n in arrays if n.startswith(first)})
    names = _encoder(prefix, layers) | names_of()
    kept = {n: a for n, a in arrays.items() if not n.endswith(tuple(f"/{m}" for m in _MOVING))}
    problems = [f"{name} is missing" for name in names if name not in kept]
    problems += [f"{name} is not part of it" for name in kept if name not in names]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(
            f"{path} is not a complete checkpoint of DeepMind's model that {architecture} is at Hugging Face: "
            f"{'; '.join(problems[:3])}{more}. Expected the file of DeepMind's release, unchanged."
        )
    num_latents, width = arrays[latents].shape
    config = {
        "architectures": [architecture],
        "num_blocks": 1,
        "num_latents": num_latents,
        "d_latents": width,
        "num_self_attends_per_block": layers,
        "hidden_act": "gelu_new",
        **settings_of(arrays),
    }
    weights = {names[name]: _tensor(name, array) for name, array in kept.items()}
    if begin == f"{_IMAGE_PRE}/conv2_d_downsample/":
        counter = f"{_PRE}.convnet.batchnorm.num_batches_tracked"
        weights[counter] = torch.zeros((), dtype=torch.int64)
    return config, weights


def haiku_config(config: Mapping[str, Any]) -> PerceiverConfig:
    """Return our configuration of a checkpoint, where Hugging Face's models differ from DeepMind's as DeepMind has it.

    The convolved stem is padded to 56 x 56 cells, and the classifier with learned positions does not add its query to
    the output of the attention.
    """
    found, architecture = config_from(config), config["architectures"][0]
    stem, output = found.inputs.get("image"), found.output
    if isinstance(stem, ConvInputConfig):
        found = replace(found, inputs={"image": replace(stem, padding="same")})
    if isinstance(output, DecoderConfig) and architecture.endswith("Learned"):
        found = replace(found, output=replace(output, use_query_residual=False))
    return found


def _tensor(name: str, array: npt.NDArray[Any]) -> Tensor:
    """Return a weight with its axes in PyTorch's order, in float32."""
    if name.endswith("/w"):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    if name.startswith(_NORM):
        array = array.reshape(-1)
    return torch.from_numpy(np.array(array, dtype=np.float32))
