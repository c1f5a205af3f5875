"""Perceiver AR of krasserm's library and of DeepMind's release: configurations and names of weights."""

from collections.abc import Mapping
from typing import Any

import torch

from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.models.perceiver_ar_config import PerceiverARConfig, krasserm_perceiver_ar
from perceivers.typing import Tensor

KRASSERM_MODELS = ("PerceiverCausalLanguageModel", "PerceiverSymbolicAudioModel")
"""Names of the models in krasserm's files that are a Perceiver AR."""

KRASSERM_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262,
    "max_seq_len": 4096,
    "max_latents": 512,
    "num_channels": 512,
    "num_heads": 8,
    "num_self_attention_layers": 8,
    "num_self_attention_rotary_layers": 1,
    "self_attention_widening_factor": 4,
    "cross_attention_widening_factor": 4,
    "cross_attention_dropout": 0.5,
    "residual_dropout": 0.0,
    "output_norm": False,
    "output_bias": True,
    "abs_pos_emb": True,
    "init_scale": 0.02,
}
"""Values of the keys of `model_config` that a file of krasserm's leaves out. Other keys change no output."""

_INVERSE_FREQUENCIES = "input_adapter.frq_pos_encoding.inv_freq"

_KRASSERM_LAYER = {
    "0.module.norm": "norm",
    "0.module.q_norm": "query_norm",
    "0.module.kv_norm": "source_norm",
    "0.module.attention.q_proj": "attention.to_query",
    "0.module.attention.k_proj": "attention.to_key",
    "0.module.attention.v_proj": "attention.to_value",
    "0.module.attention.o_proj": "attention.to_output",
    "1.module.0": "mlp_norm",
    "1.module.1": "mlp.0",
    "1.module.3": "mlp.2",
}
_KRASSERM = {
    "input_adapter.txt_embedding": "tokens",
    "input_adapter.pos_embedding": "position_tables.0",
    "out_norm": "output_norm",
    "output_adapter": "output",
}
_HAIKU_ATTENTION = {
    "attention/linear": "attention.to_query",
    "attention/linear_1": "attention.to_key",
    "attention/linear_2": "attention.to_value",
    "attention/linear_3": "attention.to_output",
    "dense/linear": "mlp.0",
    "dense/linear_1": "mlp.2",
}
_HAIKU_LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}


def krasserm_config(settings: Mapping[str, Any]) -> PerceiverARConfig:
    """Return the architecture that krasserm's `model_config` describes.

    Dropout of attention weights (`post_attention_dropout`) has no counterpart here: it acts in training only.
    """
    known = KRASSERM_DEFAULTS | {key: settings[key] for key in KRASSERM_DEFAULTS if key in settings}
    rotary_layers = known["num_self_attention_rotary_layers"]
    return krasserm_perceiver_ar(
        absolute=known["abs_pos_emb"],
        vocab_size=known["vocab_size"],
        max_length=known["max_seq_len"],
        num_latents=known["max_latents"],
        channels=known["num_channels"],
        num_heads=known["num_heads"],
        num_layers=known["num_self_attention_layers"],
        rotary_layers=None if rotary_layers < 0 else rotary_layers,
        widening_factor=known["self_attention_widening_factor"],
        cross_widening_factor=known["cross_attention_widening_factor"],
        prefix_dropout=known["cross_attention_dropout"],
        residual_dropout=known["residual_dropout"],
        output_norm=known["output_norm"],
        output_bias=known["output_bias"],
        init_scale=known["init_scale"],
    )


def from_krasserm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of krasserm's `CausalSequenceModel` under the names of a `PerceiverAR`.

    Args:
        weights: Weights by name, with or without the prefix `backend_model.`.

    Raises:
        ValueError: If a name is unknown.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        short = name.removeprefix("backend_model.")
        if short == _INVERSE_FREQUENCIES:
            continue
        part, _, leaf = short.rpartition(".")
        if part.startswith("cross_attention."):
            new = f"cross_attends.0.{_known(_KRASSERM_LAYER, part.partition('.')[2], name)}"
        elif part.startswith("self_attention."):
            number, _, rest = part.removeprefix("self_attention.").partition(".")
            new = f"layers.{number}.{_known(_KRASSERM_LAYER, rest, name)}"
        else:
            new = _known(_KRASSERM, part, name)
        found["output_bias" if new == "output" else f"{new}.{leaf}"] = weight
    return found


def from_haiku(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of DeepMind's release under the names of a `PerceiverAR`.

    Args:
        weights: Weights by module and leaf, `perceiver_ar/~/logits/w`. Tables of sinusoids are left out.

    Raises:
        ValueError: If a name is unknown.
    """
    learned = [name for name in weights if "/embed_" in name]
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        path, _, leaf = name.removeprefix("perceiver_ar/").removeprefix("~/").rpartition("/")
        if leaf == "pos_embs":
            found["latent_vectors"] = weight
            continue
        if leaf == "embeddings":
            number = path.removeprefix("embed").removeprefix("_")
            if not number:
                found["tokens.weight"] = weight
            elif len(learned) > 1 or not _is_sinusoidal(weight):
                found[f"position_tables.{int(number) - 1}.weight"] = weight
            continue
        new = f"{_haiku_module(path, name)}.{_known(_HAIKU_LEAVES, leaf, name)}"
        found[new] = weight.T if leaf == "w" else weight
    return found


def perceiver_ar_from_weights(
    config: PerceiverARConfig, weights: Mapping[str, Tensor]
) -> PerceiverAR:
    """Return a Perceiver AR with the weights of krasserm's library or DeepMind's release, recognized by their names.

    Args:
        config: Architecture.
        weights: Weights by the names of their source.

    Raises:
        ValueError: If names or shapes do not fit the architecture.
    """
    is_haiku = any(name.startswith("perceiver_ar/") for name in weights)
    renamed = from_haiku(weights) if is_haiku else from_krasserm(weights)
    with torch.device("meta"):
        model = PerceiverAR(config)
    try:
        model.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ValueError(f"These weights do not fit the architecture: {error}") from error
    return model


def _haiku_module(path: str, name: str) -> str:
    """Return the module of a path in the release."""
    simple = {"linear": "to_latents", "logits": "to_logits", "layer_norm": "output_norm"}
    if path in simple:
        return simple[path]
    module, _, rest = path.partition("/")
    kind, _, number = module.removesuffix("_").partition("attention")
    place = number.removeprefix("_") or "0"
    if kind == "cross_":
        norms = {
            "layer_norm": "query_norm",
            "layer_norm_1": "source_norm",
            "layer_norm_2": "mlp_norm",
        }
        return f"cross_attends.{place}.{_known(_HAIKU_ATTENTION | norms, rest, name)}"
    if kind == "self_":
        norms = {"layer_norm": "norm", "layer_norm_1": "mlp_norm"}
        return f"layers.{place}.{_known(_HAIKU_ATTENTION | norms, rest, name)}"
    raise _unknown(name)


def _is_sinusoidal(table: Tensor) -> bool:
    """Return whether the first row of a table is sines and cosines of 0."""
    half = table.shape[1] // 2
    return bool((table[0, :half] == 0).all() and (table[0, half:] == 1).all())


def _known(table: Mapping[str, str], part: str, name: str) -> str:
    if part not in table:
        raise _unknown(name)
    return table[part]


def _unknown(name: str) -> ValueError:
    return ValueError(
        "Expected names of weights as in krasserm's perceiver-io (input_adapter.txt_embedding.weight) or DeepMind's "
        f"perceiver-ar (perceiver_ar/~/embed/embeddings), got {name}."
    )
