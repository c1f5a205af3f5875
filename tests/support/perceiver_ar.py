"""Models of Perceiver AR's test vectors, which the original code has written in float64 with seeded weights."""

import json
from pathlib import Path

from safetensors import safe_open

from perceivers.hub.perceiver_ar import krasserm_config, perceiver_ar_from_weights
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.nn.rotary import RotaryConfig

VECTORS = Path(__file__).parent.parent / "parity" / "vectors"


def read(name):
    """Return the tensors of a file, floating-point ones in float64, and its metadata."""
    with safe_open(VECTORS / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = {
            key: json.loads(value) for key, value in file.metadata().items() if value[0] in "[{"
        }
    return {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}, facts


def part(found, kind):
    return {name.removeprefix(kind): w for name, w in found.items() if name.startswith(kind)}


def krasserm_model(name):
    found, facts = read(name)
    config = krasserm_config(facts["config"])
    return perceiver_ar_from_weights(config, part(found, "weight.")).eval(), found, facts


def haiku_model(name):
    found, facts = read(name)
    given = facts["config"]
    per_position = given.get("num_latents_per_position", 1)
    kind = given["position_encoding_type"]
    learned = given.get("learnable_position_embeddings", False)
    config = PerceiverARConfig(
        vocab_size=given["num_classes"],
        max_length=given["max_context_length"],
        num_latents=given["z_index_dim"] // per_position,
        latents_per_position=per_position,
        channels=given["num_z_channels"],
        num_heads=given["num_transformer_heads"],
        num_layers=given["num_transformers_per_block"],
        widening_factor=given["transformer_widening_factor"],
        cross_widening_factor=given["cross_attend_widening_factor"],
        cross_attends_after=tuple(given.get("additional_cross_attend_after_layers", ())),
        positions="none" if kind == "rotary" else "learned" if learned else "sinusoidal",
        axes=tuple(given["input_idx_size"]) if learned else (),
        rotary=RotaryConfig(
            channel_share=given["fraction_to_rotate"],
            max_wavelength=given["max_wavelength"],
            includes_end=True,
            counts_backward=not given["use_positions_from_data"],
        )
        if kind == "rotary"
        else None,
    )
    return perceiver_ar_from_weights(config, part(found, "weight.")).eval(), found
