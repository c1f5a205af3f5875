"""Masked autoencoding of any modalities, with the inputs and the encoder of their default recipes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from perceivers.data.base import DataConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import (
    FourierQueriesConfig,
    InputQueriesConfig,
    LearnedQueriesConfig,
)
from perceivers.recipes.common import SIZES
from perceivers.recipes.own_data import default_recipe
from perceivers.recipes.registry import Recipe, recipe
from perceivers.tasks.masked_autoencode import MaskedAutoencodeConfig
from perceivers.tasks.masking import GridMaskingConfig, RowsMaskingConfig
from perceivers.tasks.masking_elements import ElementsMaskingConfig, PointElementsMaskingConfig
from perceivers.tasks.masking_kinds import (
    BytesMaskingConfig,
    FieldsMaskingConfig,
    PointsMaskingConfig,
)

NAME = "mae"

_FEWER = 4  # divisor of the batch size: each sample has many targets, so that more steps of fewer samples learn faster

_GRID = FourierQueriesConfig(size=None, num_bands=None)


class _Masking(NamedTuple):
    """Masking of one modality, its output queries (None: the elements of the input), and masking of its elements."""

    part: Any
    queries: Any
    elements: Any


_MASKINGS: dict[str, _Masking] = {}


def register_masking(kind: str, part: Any, queries: Any = _GRID, *, elements: Any = None) -> None:
    """Register how a modality is hidden in masked autoencoding.

    Args:
        kind: The `kind` of its preprocessing: `image`, `mel`, `wave`.
        part: Configuration of a registered kind of masking, with open sizes.
        queries: Its output queries. None: the elements of the input with their positions.
        elements: Configuration of the masking of single elements, each of which a Hierarchical Perceiver predicts
            (recipe `hip_mae`). None: it cannot be pretrained so.
    """
    _MASKINGS[kind] = _Masking(part, queries, elements)


def masked_autoencoder_for(
    kinds: Mapping[str, str],
    size: str = "tiny",
) -> Recipe:
    """Return a recipe that hides parts of these modalities and predicts them; `kinds` are by name, see `part_of`.

    Args:
        kinds: Kind of each modality, by its name.
        size: Size of the recipe.

    Raises:
        ValueError: If nothing is registered by which one of them could be hidden.
    """
    made = default_recipe(kinds, size)
    found = {part: _registered(part, made.preprocess[part].kind) for part in made.inputs}
    width = SIZES[size].latent_channels
    outputs = {
        part: OutputConfig(
            queries=one.queries or InputQueriesConfig(modality=part),
            head=LinearHeadConfig(num_outputs=None),
        )
        for part, one in found.items()
    }
    return replace(
        made,
        name=NAME,
        training=replace(made.training, batch_size=SIZES[size].batch_size // _FEWER),
        output=DecoderConfig(
            outputs=outputs,
            num_heads=4,
            qk_channels=width,
            v_channels=width,
            min_padding=width // 2,
        ),
        task=MaskedAutoencodeConfig(parts={part: one.part for part, one in found.items()}),
        data=DataConfig(target="nothing"),
    )


def element_masking_of(name: str, kind: str) -> Any:
    """Return the masking of the single elements of a modality.

    Args:
        name: Name of the modality.
        kind: The `kind` of its preprocessing.

    Raises:
        ValueError: If none is registered.
    """
    found = _registered(name, kind).elements
    if found is None:
        known = ", ".join(kind for kind, one in _MASKINGS.items() if one.elements is not None)
        raise ValueError(
            f"Nothing is registered by which single elements of '{name}' ({kind}) can be hidden; this is known of "
            f"{known}. Use --recipe mae, or leave '{name}' out with --columns."
        )
    return found


def _registered(name: str, kind: str) -> _Masking:
    if kind not in _MASKINGS:
        raise ValueError(
            f"Nothing is registered by which parts of '{name}' ({kind}) can be hidden; masked autoencoding is known of "
            f"{', '.join(_MASKINGS)}. Leave '{name}' out with --columns."
        )
    return _MASKINGS[kind]


@recipe(sizes=("tiny", "small"))
def mae(size: str = "tiny") -> Recipe:
    """Masked autoencoding of your own unlabeled data, of any modality or several: a model to fine-tune on few labels.

    A share of each sample is hidden, and output queries predict it from the rest. Images are an example: `fit`
    replaces them by the modalities of the data. Inputs and encoder are those of the default recipe for these, so that
    `--init-from` takes them over for labels.

    Run:      perceivers fit DATA --recipe mae --out runs/unlabeled (or perceivers pretrain DATA), then
              perceivers fit DATA --init-from runs/unlabeled
    Expected: docs/results/pretraining.md has four data sets with a tenth of their labels.
    Reference: Ours, of the papers' parts: masked autoencoders (arXiv:2111.06377), and masked pretraining of
              hierarchical Perceivers (arXiv:2202.10890), with queries of positions as in Perceiver IO
              (arXiv:2107.14795).
    """
    return masked_autoencoder_for({"image": "image"}, size)


_ELEMENTS = ElementsMaskingConfig()

register_masking(
    "image", GridMaskingConfig(hidden=0.6, blocks=(8, 8), most=(8, 8)), elements=_ELEMENTS
)
register_masking(
    "mel", GridMaskingConfig(hidden=0.6, blocks=(16, 4), most=(16, 16)), elements=_ELEMENTS
)
register_masking(
    "wave", GridMaskingConfig(hidden=0.5, blocks=(64,), most=(256,)), elements=_ELEMENTS
)
register_masking(
    "series",
    GridMaskingConfig(hidden=0.5, blocks=(10,), most=(32,), spectrum=4.0),
    elements=_ELEMENTS,
)
register_masking(
    "video", GridMaskingConfig(hidden=0.75, blocks=(4, 8, 8), most=(2, 8, 8)), elements=_ELEMENTS
)
register_masking("array", RowsMaskingConfig(), None, elements=_ELEMENTS)
register_masking("points", PointsMaskingConfig(), elements=PointElementsMaskingConfig())
register_masking(
    "table",
    FieldsMaskingConfig(),
    LearnedQueriesConfig(channels=64),
    elements=FieldsMaskingConfig(),
)
register_masking(
    "text", BytesMaskingConfig(), LearnedQueriesConfig(channels=64), elements=BytesMaskingConfig()
)
