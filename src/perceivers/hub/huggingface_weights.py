"""Names of the weights of Hugging Face's Perceivers and of ours, and renaming from one to the other."""

from collections.abc import Mapping
from dataclasses import dataclass

from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig
from perceivers.typing import Tensor


@dataclass(frozen=True)
class Row:
    """Names of one weight in both libraries, and the axes of length 1 that only Hugging Face's has around ours."""

    theirs: str
    ours: str
    leading: int = 0
    trailing: int = 0


# Modules of a layer; a self-attend has a single norm before the attention.
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


def _layer(theirs: str, ours: str, *, is_cross: bool) -> list[Row]:
    """Return the rows of a cross-attend, or of a self-attend, which has a single norm before the attention."""
    names = dict(LAYER)
    if not is_cross:
        names["attention.self.layernorm1"] = "norm"
        del names["attention.self.layernorm2"]
    return [row for a, b in names.items() for row in _linear(f"{theirs}.{a}", f"{ours}.{b}")]


def _classifier() -> list[Row]:
    queries = f"{_DEC}.output_position_encodings.position_embeddings"
    return [
        Row(queries, "output.queries.label.table"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", is_cross=True),
        *_linear(f"{_DEC}.final_layer", "output.heads.label.to_logits"),
    ]


def _learned() -> list[Row]:
    return [
        *_linear(f"{_PRE}.convnet_1x1", "inputs.image.project", trailing=2),
        Row(f"{_PRE}.position_embeddings.position_embeddings", "inputs.image.positions.table"),
        *_linear(f"{_PRE}.positions_projection", "inputs.image.positions.project"),
        *_classifier(),
    ]


def _convolved() -> list[Row]:
    norm = (f"{_PRE}.convnet.batchnorm", "inputs.image.norm")
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [
        Row(f"{_PRE}.convnet.conv.weight", "inputs.image.convolution.weight"),
        *(Row(f"{norm[0]}.{name}", f"{norm[1]}.{name}") for name in names),
        *_classifier(),
    ]


def _language() -> list[Row]:
    decoder = "perceiver.decoder"
    return [
        Row(f"{_PRE}.embeddings.weight", "inputs.text.embedding.weight"),
        Row(f"{_PRE}.position_embeddings.weight", "inputs.text.places"),
        Row(
            f"{decoder}.output_position_encodings.position_embeddings", "output.queries.text.table"
        ),
        *_layer(f"{decoder}.decoding_cross_attention", "output.cross_attend", is_cross=True),
        Row("embedding_decoder.bias", "output.heads.text.bias"),
    ]


def _text_classifier() -> list[Row]:
    return [
        Row(f"{_PRE}.embeddings.weight", "inputs.text.embedding.weight"),
        Row(f"{_PRE}.position_embeddings.weight", "inputs.text.places"),
        *_classifier(),
    ]


def _optical_flow() -> list[Row]:
    return [
        *_linear(f"{_PRE}.conv_after_patches", "inputs.frame_pair.project"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", is_cross=True),
        *_linear(f"{_DEC}.final_layer", "output.heads.flow.to_logits"),
    ]


def _multimodal() -> list[Row]:
    found: list[Row] = []
    for theirs, ours in (("audio", "audio"), ("image", "video"), ("label", "label")):
        head = f"perceiver.output_postprocessor.modalities.{theirs}.classifier"
        found += [
            Row(f"{_PRE}.padding.{theirs}", f"fusion.modality_embeddings.{ours}", leading=1),
            Row(f"{_PRE}.mask.{theirs}", f"fusion.tokens.{ours}", leading=1),
            Row(f"perceiver.decoder.padding.{theirs}", f"output.padding.{ours}", leading=1),
            *_linear(head, f"output.heads.{ours}.to_logits"),
        ]
    label = "perceiver.decoder.modalities.label.decoder.output_position_encodings"
    return [
        *found,
        Row(f"{label}.position_embeddings", "output.queries.label.table"),
        *_layer(f"{_DEC}.decoding_cross_attention", "output.cross_attend", is_cross=True),
        *_linear(f"{_DEC}.final_layer", "output.project"),
    ]


_ROWS = {
    "PerceiverForImageClassificationFourier": _classifier,
    "PerceiverForImageClassificationLearned": _learned,
    "PerceiverForImageClassificationConvProcessing": _convolved,
    "PerceiverForMaskedLM": _language,
    "PerceiverForSequenceClassification": _text_classifier,
    "PerceiverForOpticalFlow": _optical_flow,
    "PerceiverForMultimodalAutoencoding": _multimodal,
}


def rows_of(architecture: str, config: PerceiverConfig) -> list[Row]:
    """Return the names of every weight of Hugging Face's model of this name, which has our configuration."""
    encoder = config.encoder
    assert isinstance(encoder, PerceiverEncoderConfig)
    found = [Row("perceiver.embeddings.latents", "encoder.latents")]
    found += _layer("perceiver.encoder.cross_attention", "encoder.cross_attends.0", is_cross=True)
    for layer in range(encoder.num_self_attends_per_block):
        found += _layer(
            f"perceiver.encoder.self_attends.{layer}", f"encoder.blocks.0.{layer}", is_cross=False
        )
    return found + _ROWS[architecture]()


def from_huggingface(
    weights: Mapping[str, Tensor], architecture: str, config: PerceiverConfig
) -> dict[str, Tensor]:
    """Return the weights of Hugging Face's model of this name under our names.

    Raises:
        ValueError: If a weight is missing, or the model has no such weight. The message names them.
    """
    table = rows_of(architecture, config)
    missing = [row.theirs for row in table if row.theirs not in weights]
    extra = sorted(set(weights) - {row.theirs for row in table})
    if missing or extra:
        problems = [f"{name} is missing" for name in missing]
        problems += [f"{name} is not part of it" for name in extra]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(
            f"The weights are not those of a {architecture}: {'; '.join(problems[:3])}{more}. Expected the file that "
            "`save_pretrained` has written beside its config.json."
        )
    found: dict[str, Tensor] = {}
    for row in table:
        shape = tuple(weights[row.theirs].shape)
        shape = shape[row.leading : len(shape) - row.trailing]
        found[row.ours] = weights[row.theirs].reshape(shape)
    return found


def to_huggingface(
    weights: Mapping[str, Tensor], architecture: str, config: PerceiverConfig
) -> dict[str, Tensor]:
    """Return our weights under Hugging Face's names: the inverse of `from_huggingface`."""
    found: dict[str, Tensor] = {}
    for row in rows_of(architecture, config):
        shape = (1,) * row.leading + tuple(weights[row.ours].shape) + (1,) * row.trailing
        found[row.theirs] = weights[row.ours].reshape(shape)
    return found
