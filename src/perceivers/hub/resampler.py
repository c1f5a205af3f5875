"""Weights of OpenFlamingo's and Idefics2's resamplers, by their names."""

from collections.abc import Mapping

import torch

from perceivers.models.resampler import Resampler, ResamplerConfig
from perceivers.typing import Tensor


def resampler_from_weights(
    weights: Mapping[str, Tensor], *, num_heads: int | None = None, norm_eps: float | None = None
) -> Resampler:
    """Return a resampler with the weights of OpenFlamingo's or Idefics2's, recognized by their names.

    Args:
        weights: Weights by name, also behind a common prefix such as `perceiver.`; others are left out.
        num_heads: Heads of queries, which shapes do not show. None: 8 (OpenFlamingo) or 16 (Idefics2).
        norm_eps: Constant of the norms. None: 1e-5 (OpenFlamingo) or 1e-6 (Idefics2; 1e-5 in Idefics2-8B).

    Raises:
        ValueError: If there are no latents, or if names or shapes do not fit together.
    """
    prefix = _prefix(weights)
    found = {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
    if "layers.0.0.to_q.weight" in found:
        config, renamed = _openflamingo(found, num_heads or 8, norm_eps or 1e-5)
    elif "layers.0.self_attn.q_proj.weight" in found:
        config, renamed = _idefics2(found, num_heads or 16, norm_eps or 1e-6)
    else:
        raise ValueError(
            "Expected weights named as in OpenFlamingo (layers.0.0.to_q.weight) or Idefics2 "
            f"(layers.0.self_attn.q_proj.weight) beside '{prefix}latents', got {', '.join(list(found)[:5])}."
        )
    with torch.device("meta"):
        model = Resampler(config)
    try:
        model.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"These weights are no resampler with {config.num_heads} heads: {error}"
        ) from error
    return model


def _prefix(weights: Mapping[str, Tensor]) -> str:
    """Return the prefix of `latents` in the name of a resampler's latents."""
    prefixes = [
        name.removesuffix("latents")
        for name, weight in weights.items()
        if name.rpartition(".")[2] == "latents" and weight.ndim == 2
    ]
    if len(prefixes) != 1:
        raise ValueError(
            f"Expected weights of one resampler, with one array of latents, got {len(prefixes)}: {prefixes}."
        )
    return prefixes[0]


def _openflamingo(
    found: Mapping[str, Tensor], num_heads: int, norm_eps: float
) -> tuple[ResamplerConfig, dict[str, Tensor]]:
    """Return configuration and renamed weights. Keys and values are one matrix there."""
    parts = {
        "0.norm_media": "context_norm",
        "0.norm_latents": "latent_norm",
        "0.to_q": "to_query",
        "0.to_out": "to_output",
        "1.0": "mlp_norm",
        "1.1": "mlp.0",
        "1.3": "mlp.2",
    }
    renamed = _renamed(found, parts)
    for name, weight in found.items():
        if name.endswith(".0.to_kv.weight"):
            layer = name.removesuffix("0.to_kv.weight")
            keys, values = weight.chunk(2)
            renamed[f"{layer}to_key.weight"], renamed[f"{layer}to_value.weight"] = keys, values
    tables = {"frame_embs": "frame_embeddings", "media_time_embs": "media_embeddings"}
    for old, new in tables.items():
        if old in found:
            renamed[new] = found[old].flatten(0, -2)
    latents = found["latents"]
    config = ResamplerConfig(
        channels=latents.shape[1],
        num_latents=latents.shape[0],
        depth=_depth(found),
        num_heads=num_heads,
        head_channels=found["layers.0.0.to_q.weight"].shape[0] // num_heads,
        widening_factor=found["layers.0.1.1.weight"].shape[0] // latents.shape[1],
        norm_eps=norm_eps,
        num_frames=len(renamed.get("frame_embeddings", ())),
        num_media=len(renamed.get("media_embeddings", ())),
    )
    return config, renamed


def _idefics2(
    found: Mapping[str, Tensor], num_heads: int, norm_eps: float
) -> tuple[ResamplerConfig, dict[str, Tensor]]:
    """Return configuration and renamed weights."""
    parts = {
        "input_context_norm": "context_norm",
        "input_latents_norm": "latent_norm",
        "self_attn.q_proj": "to_query",
        "self_attn.k_proj": "to_key",
        "self_attn.v_proj": "to_value",
        "self_attn.o_proj": "to_output",
        "post_attention_layernorm": "mlp_norm",
        "mlp.gate_proj": "mlp.gate",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
    }
    latents = found["latents"]
    width = found["layers.0.self_attn.q_proj.weight"].shape[0] // num_heads
    config = ResamplerConfig(
        channels=latents.shape[1],
        num_latents=latents.shape[0],
        depth=_depth(found),
        num_heads=num_heads,
        head_channels=width,
        num_key_value_heads=found["layers.0.self_attn.k_proj.weight"].shape[0] // max(width, 1),
        widening_factor=found["layers.0.mlp.up_proj.weight"].shape[0] // latents.shape[1],
        norm="rms",
        norm_eps=norm_eps,
        mlp="gated",
        latent_init="ones",
    )
    return config, _renamed(found, parts)


def _renamed(found: Mapping[str, Tensor], parts: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the weights outside of layers that keep their names, and those of layers by new names."""
    renamed = {
        name: w for name, w in found.items() if name == "latents" or name.startswith("norm.")
    }
    for name, weight in found.items():
        if not name.startswith("layers."):
            continue
        _, layer, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")
        if part in parts:
            renamed[f"layers.{layer}.{parts[part]}.{kind}"] = weight
    return renamed


def _depth(found: Mapping[str, Tensor]) -> int:
    return 1 + max(int(name.split(".")[1]) for name in found if name.startswith("layers."))
