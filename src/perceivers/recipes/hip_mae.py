"""Masked autoencoding of any modalities by a Hierarchical Perceiver, which learns the positions of raw elements."""

from collections.abc import Mapping
from dataclasses import replace

from perceivers.data.base import DataConfig
from perceivers.models.hip_encoder import ElementDecoderConfig, ElementOutputConfig
from perceivers.recipes.hip import HIP_RECIPE_SIZES, hip_for
from perceivers.recipes.mae import element_masking_of
from perceivers.recipes.registry import Recipe, recipe
from perceivers.tasks.masked_autoencode import MaskedAutoencodeConfig

NAME = "hip_mae"


def hip_masked_autoencoder_for(kinds: Mapping[str, str], size: str = "tiny") -> Recipe:
    """Return a recipe that hides elements of these modalities and predicts each from the latents of its group.

    Args:
        kinds: Kind of each modality, by its name.
        size: Size of the recipe `hip`.

    Raises:
        ValueError: If nothing is registered by which elements of one of them could be hidden.
    """
    made = hip_for(kinds, size)
    parts = {name: element_masking_of(name, part.kind) for name, part in made.preprocess.items()}
    return replace(
        made,
        name=NAME,
        encoder=replace(made.encoder, latents="last"),
        output=ElementDecoderConfig(
            outputs={name: ElementOutputConfig(modality=name) for name in parts}
        ),
        task=MaskedAutoencodeConfig(parts=parts),
        data=DataConfig(target="nothing"),
    )


@recipe(sizes=HIP_RECIPE_SIZES)
def hip_mae(size: str = "tiny") -> Recipe:
    """Masked autoencoding of your own unlabeled data by a Hierarchical Perceiver over raw elements.

    Learned positions of elements are trained so before labels are learned. One random mask hides 80 % of the places of
    every group, and the position of each element is the query that predicts it. Images are an example: `fit` replaces
    them by the modalities of the data. `--init-from` takes positions and blocks up to the middle one over for labels.
    Size `mini` has the encoder `hip_mini` of the release.

    Run:      perceivers pretrain DATA --recipe hip_mae --out runs/unlabeled (or perceivers fit DATA --recipe hip_mae),
              then perceivers fit DATA --init-from runs/unlabeled
    Expected: Positions of permuted pixels of CIFAR-10: neighbors of rank 197 of 1,023 (docs/results/hip.md).
    Reference: Hierarchical Perceiver (arXiv:2202.10890). It states neither share, loss nor schedule: these are ours.
    """
    return hip_masked_autoencoder_for({"image": "image"}, size)
