"""Several modalities of one's own under one model, and single ones that have no recipe of their own."""

from collections.abc import Mapping

from perceivers.data.registry import find_modality
from perceivers.inputs.fusion import FusionConfig
from perceivers.recipes.common import SIZES, own_encoder, own_optim, own_output
from perceivers.recipes.modality_defaults import part_of
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["multimodal", "recipe_for"]


def recipe_for(kinds: Mapping[str, str], size: str = "tiny", *, name: str = "multimodal") -> Recipe:
    """Return a recipe that reads these modalities together.

    Args:
        kinds: What each modality is, by its name; see `parts.part_of`.
        size: `tiny`, `small` or `base`.
        name: Of the recipe.
    """
    dials = SIZES[size]
    parts = {modality: part_of(kind, dials) for modality, kind in kinds.items()}
    fine = any(find_modality(part.preprocess).fine_encoder for part in parts.values())
    return Recipe(
        name=name,
        inputs={modality: part.input for modality, part in parts.items()},
        encoder=own_encoder(dials, fine=fine),
        output=own_output(),
        task=ClassificationConfig(label_smoothing=0.05),
        preprocess={modality: part.preprocess for modality, part in parts.items()},
        fusion=FusionConfig(),
        augment={modality: part.augment for modality, part in parts.items()},
        optim=own_optim(dials.lr * (2 if fine else 1)),
        training=TrainingConfig(batch_size=dials.batch_size),
    )


@recipe
def multimodal(size: str = "tiny") -> Recipe:
    """Any set of modalities under one model: one adapter for each, a learned vector that tells them apart.

    What stands here, a picture, a sound and a series, is an example: `fit` puts in what the data hold. A sample may
    lack any of them, in training and in prediction; --modality-dropout video:0.3 drops one in training on purpose.

    Run:      perceivers fit DATA --recipe multimodal
    Expected: docs/results/multimodal.md has a run on a table of pictures, sounds and series.
    Source:   Ours, of the papers' parts: Perceiver (arXiv:2103.03206), section 4.2, for the fusion.
    """
    return recipe_for({"image": "image", "audio": "audio", "series": "series"}, size)


multimodal.sizes = tuple(SIZES)  # type: ignore[attr-defined]
