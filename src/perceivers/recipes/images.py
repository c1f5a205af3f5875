"""Pictures of one's own, in three sizes."""

from perceivers.recipes.common import SIZES
from perceivers.recipes.multimodal import recipe_for
from perceivers.recipes.registry import Recipe, recipe

__all__ = ["images"]


@recipe
def images(size: str = "tiny") -> Recipe:
    """Your own pictures, read after a convolved stem; picture size, classes and epochs from the data.

    `tiny` is meant for a CPU, `small` for any GPU, `base` for a large one and many pictures.

    Run:      perceivers fit DATA --recipe images --size tiny
    Expected: CIFAR-10, tiny, 20 minutes on 2 CPU cores: 71.7 % (docs/results/cifar10.md).
    Source:   Ours, of the papers' parts: the stem is Perceiver IO's (arXiv:2107.14795, appendix A.1), the
              reads and the mean head are the 2021 paper's. AdamW and the sizes are ours.
    """
    return recipe_for({"image": "image"}, size, name="images")


images.sizes = tuple(SIZES)  # type: ignore[attr-defined]
