"""What Hugging Face calls each weight of its six Perceiver models, and what we call it: one table, both directions."""

from collections.abc import Mapping
from dataclasses import dataclass

from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.typing import Tensor

__all__ = ["LAYER", "Row", "from_huggingface", "rows_of", "to_huggingface"]


@dataclass(frozen=True)
class Row:
    """One weight.

    Attributes:
        theirs: Its name there.
        ours: Its name here.
        leading: Axes of length 1 that theirs has in front.
        trailing: Axes of length 1 that theirs has behind.
    """

    theirs: str
    ours: str
    leading: int = 0
    trailing: int = 0


# The modules of a layer; a self-attend has one norm in front.
LAYER = {
    "attention.self.layernorm1": "query_norm",
    "attention.self.layernorm2": "source_norm",
    "attention.self.query": "attention.to_query",
    "attention.self.key": "attention.to_key",
    "attention.self.value": "attention.to_value",
    "attention.output.dense": "attention.to_output",
    "layernorm": "mlp_norm",
    "mlp.dense1": "mlp.0",
    "mlp.dense2": "mlp.2",
}

_PRE, _DEC = "perceiver.input_preprocessor", "perceiver.decoder.decoder"


def _linear(theirs: str, ours: str, *, trailing: int = 0) -> list[Row]:
    return [
        Row(f"{theirs}.weight", f"{ours}.weight", trailing=trailing),
        Row(f"{theirs}.bias", f"{ours}.bias"),
    ]


def _layer(theirs: str, ours: str, *, reads: bool) -> list[Row]:
    """Return the rows of a cross-attend, or of a self-attend, which has one norm in front."""
    names = dict(LAYER)
    if not reads:
        names["attention.self.layernorm1"] = "norm"
        del names["attention.self.layernorm2"]
    return [row for a, b in names.items() for row in _linear(f"{theirs}.{a}", f"{ours}.{b}")]


def _classifier() -> list[Row]:
    queries = f"{_DEC}.output_position_encodings.position_embeddings"
    return [
        Row(queries, "output.queries.label.table"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", reads=True),
        *_linear(f"{_DEC}.final_layer", "output.heads.label.to_logits"),
    ]


def _learned() -> list[Row]:
    return [
        *_linear(f"{_PRE}.convnet_1x1", "inputs.image.project", trailing=2),
        Row(f"{_PRE}.position_embeddings.position_embeddings", "inputs.image.positions.table"),
        *_linear(f"{_PRE}.positions_projection", "inputs.image.positions.project"),
    ]


def _convolved() -> list[Row]:
    counts = ("running_mean", "running_var", "num_batches_tracked")
    norm = (f"{_PRE}.convnet.batchnorm", "inputs.image.norm")
    return [
        Row(f"{_PRE}.convnet.conv.weight", "inputs.image.convolution.weight"),
        *_linear(*norm),
        *(Row(f"{norm[0]}.{name}", f"{norm[1]}.{name}") for name in counts),
    ]


def _language() -> list[Row]:
    decoder = "perceiver.decoder"
    return [
        Row(f"{_PRE}.embeddings.weight", "inputs.text.embedding.weight"),
        Row(f"{_PRE}.position_embeddings.weight", "inputs.text.places"),
        Row(
            f"{decoder}.output_position_encodings.position_embeddings", "output.queries.text.table"
        ),
        *_layer(f"{decoder}.decoding_cross_attention", "output.cross_attend", reads=True),
        Row("embedding_decoder.bias", "output.heads.text.bias"),
    ]


def _optical_flow() -> list[Row]:
    return [
        *_linear(f"{_PRE}.conv_after_patches", "inputs.frames.project"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", reads=True),
        *_linear(f"{_DEC}.final_layer", "output.heads.flow.to_logits"),
    ]


def _multimodal() -> list[Row]:
    found: list[Row] = []
    for theirs, ours in (("audio", "audio"), ("image", "video"), ("label", "label")):
        head = f"perceiver.output_postprocessor.modalities.{theirs}.classifier"
        found += [
            Row(f"{_PRE}.padding.{theirs}", f"fusion.tags.{ours}", leading=1),
            Row(f"{_PRE}.mask.{theirs}", f"fusion.tokens.{ours}", leading=1),
            Row(f"perceiver.decoder.padding.{theirs}", f"output.padding.{ours}", leading=1),
            *_linear(head, f"output.heads.{ours}.to_logits"),
        ]
    label = "perceiver.decoder.modalities.label.decoder.output_position_encodings"
    return [
        *found,
        Row(f"{label}.position_embeddings", "output.queries.label.table"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", reads=True),
        *_linear(f"{_DEC}.final_layer", "output.project"),
    ]


_ROWS = {
    "PerceiverForImageClassificationFourier": _classifier,
    "PerceiverForImageClassificationLearned": lambda: [*_learned(), *_classifier()],
    "PerceiverForImageClassificationConvProcessing": lambda: [*_convolved(), *_classifier()],
    "PerceiverForMaskedLM": _language,
    "PerceiverForOpticalFlow": _optical_flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}


def rows_of(architecture: str, config: PerceiverConfig) -> list[Row]:
    """Return the names of every weight of a model.

    Args:
        architecture: The name of their model.
        config: Of the same model, ours: it says how many layers there are.
    """
    encoder = config.encoder
    if not isinstance(encoder, PerceiverEncoderConfig):
        raise AssertionError
    found = [Row("perceiver.embeddings.latents", "encoder.latents")]
    found += _layer("perceiver.encoder.cross_attention", "encoder.cross_attends.0", reads=True)
    for layer in range(encoder.num_self_attends_per_block):
        found += _layer(
            f"perceiver.encoder.self_attends.{layer}", f"encoder.blocks.0.{layer}", reads=False
        )
    return found + _ROWS[architecture]()


def from_huggingface(
    weights: Mapping[str, Tensor], architecture: str, config: PerceiverConfig
) -> dict[str, Tensor]:
    """Return their weights under our names.

    Args:
        weights: Theirs.
        architecture: The name of their model.
        config: Of the same model, ours.

    Raises:
        ValueError: If one is missing, or there is one that the model does not have. The message names them.
    """
    table = rows_of(architecture, config)
    missing = [row.theirs for row in table if row.theirs not in weights]
    extra = sorted(set(weights) - {row.theirs for row in table})
    if missing or extra:
        told = [f"{name} is missing" for name in missing] + [
            f"{name} is not part of it" for name in extra
        ]
        more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
        msg = (
            f"The weights are not those of a {architecture}: {'; '.join(told[:3])}{more}. Expected the file that "
            "`save_pretrained` has written beside its config.json."
        )
        raise ValueError(msg)
    return {row.ours: _without(weights[row.theirs], row) for row in table}


def to_huggingface(
    weights: Mapping[str, Tensor], architecture: str, config: PerceiverConfig
) -> dict[str, Tensor]:
    """Return our weights under their names: the inverse of `from_huggingface`."""
    return {row.theirs: _with(weights[row.ours], row) for row in rows_of(architecture, config)}


def _with(tensor: Tensor, row: Row) -> Tensor:
    """Return a tensor with the axes of length 1 that theirs has."""
    return tensor.reshape((1,) * row.leading + tuple(tensor.shape) + (1,) * row.trailing)


def _without(tensor: Tensor, row: Row) -> Tensor:
    """Return a tensor without the axes of length 1 that ours does not have."""
    if row.trailing:
        return tensor.reshape(tensor.shape[: tensor.ndim - row.trailing])
    return tensor.reshape(tensor.shape[row.leading :])
