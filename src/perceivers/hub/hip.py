"""Names of a Hierarchical Perceiver's weights in DeepMind's release."""

import re
from collections.abc import Mapping

import torch

from perceivers.models.hip import HierarchicalPerceiver
from perceivers.models.hip_config import HiPConfig
from perceivers.typing import Tensor

_CROSS = {
    "layer_norm": "query_norm",
    "layer_norm_1": "source_norm",
    "layer_norm_2": "mlp_norm",
}
_SELF = {"layer_norm": "norm", "layer_norm_1": "mlp_norm"}
_LAYERS = {
    "attention/query_linear": "attention.to_query",
    "attention/key_linear": "attention.to_key",
    "attention/value_linear": "attention.to_value",
    "attention/attention_output_linear": "attention.to_output",
    "dense/mlp_hidden_linear": "mlp.0",
    "dense/mlp_output_linear": "mlp.2",
}
_LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}


def from_haiku(
    weights: Mapping[str, Tensor], modalities: Mapping[str, tuple[int, int]]
) -> dict[str, Tensor]:
    """Return weights of DeepMind's release under the names of a `HierarchicalPerceiver`.

    Args:
        weights: Weights by module and leaf, `perceiver/embedder/~embed/embed_image/w`.
        modalities: Size of each modality in the order of the original model, without labels.

    Raises:
        ValueError: If a name is unknown.
    """
    has_labels = any("/reconstruction_head_1/" in name for name in weights)
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        path, _, leaf = name.removeprefix("perceiver/").rpartition("/")
        new = _module(path, list(modalities), has_labels=has_labels)
        if new is None or leaf not in {*_LEAVES, "pos_embs"}:
            raise ValueError(
                "Expected names of weights as in DeepMind's hierarchical_perceiver "
                f"(perceiver/embedder/~embed/embed_image/w), got {name}."
            )
        new = new if leaf == "pos_embs" else f"{new}.{_LEAVES[leaf]}"
        found[new] = weight.T if leaf == "w" else weight
    return found


def _module(path: str, modalities: list[str], *, has_labels: bool) -> str | None:
    """Return the name of a module of the release, or None if it is unknown."""
    if made := re.fullmatch(r"embedder(_\d+)?/~(embed|unembed)/(?:un)?embed_(.*)", path):
        label, part, modality = made.groups()
        if label:
            return f"labels.{part}.{modality}"
        return f"{'trunk' if part == 'embed' else 'reconstruct'}.{part}.{modality}"
    if made := re.fullmatch(r"position_encoder(_\d+)?/pos_emb_mae_(.*)", path):
        return f"{'labels' if made[1] else 'trunk'}.positions.{made[2]}"
    if made := re.fullmatch(r"position_encoder/position_encoding_linear(?:_(\d+))?", path):
        return f"trunk.project_positions.{modalities[int(made[1] or 0)]}"
    if made := re.fullmatch(r"reconstruction_head(_1)?/hi_p_cross_attention/(.*)", path):
        owner = "labels" if has_labels and not made[1] else "reconstruct"
        return _layer(f"{owner}.head", made[2], _CROSS)
    if made := re.fullmatch(r"(?:perceiver_)?block_(\d+)/~/(.*)", path):
        rest = block_module(made[2])
        return None if rest is None else f"trunk.blocks.{made[1]}.{rest}"
    return None


def block_module(path: str) -> str | None:
    """Return the name of a module inside of a block of the release, or None if it is unknown."""
    if made := re.fullmatch(r"self_attend_id_(\d+)/(.*)", path):
        return _layer(f"self_attends.{made[1]}", made[2], _SELF)
    own = {"query_inputs": "latents", "pre_attention_residual_linear": "project_skip"}
    rest = path.removeprefix("hi_p_cross_attention/")
    return own.get(rest) or _layer("cross_attend", rest, _CROSS)


def _layer(owner: str, path: str, norms: dict[str, str]) -> str | None:
    new = (norms | _LAYERS).get(path)
    return None if new is None else f"{owner}.{new}"


def hip_from_weights(
    config: HiPConfig,
    weights: Mapping[str, Tensor],
    modalities: Mapping[str, tuple[int, int]],
    *,
    labels: Mapping[str, tuple[int, int]] | None = None,
) -> HierarchicalPerceiver:
    """Return a Hierarchical Perceiver with the weights of DeepMind's release.

    Args:
        config: Architecture.
        weights: Weights by module and leaf, `perceiver/embedder/~embed/embed_image/w`.
        modalities: Number and width of the elements of each modality, in the order of the original model, which is
            sorted by name in compiled code.
        labels: The same of the label modalities.

    Raises:
        ValueError: If names or shapes do not fit the architecture.
    """
    renamed = from_haiku(weights, modalities)
    with torch.device("meta"):
        model = HierarchicalPerceiver(config, modalities, labels=labels)
    try:
        model.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ValueError(f"These weights do not fit the architecture: {error}") from error
    return model
