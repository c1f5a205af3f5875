"""A custom recipe: images with more latents and a deeper latent transformer without weight sharing.

    perceivers fit birds/ --recipe deep_recipe:deep_images --out runs/deep

Run it in the folder of this file, examples/deep_recipe.py.
"""

from dataclasses import replace

import perceivers as pv


def deep_images(size: str = "tiny") -> pv.Recipe:
    """Return the recipe `images` with twice the latents and four unshared blocks."""
    images = pv.get_recipe("images", size=size)
    encoder = replace(
        images.encoder,
        num_latents=2 * images.encoder.num_latents,
        num_blocks=4,
        num_cross_attends=4,
        share_blocks=False,
        share_cross_attends="none",
    )
    return replace(images, name="deep_images", encoder=encoder)
