"""Explanations: attention of the latents to the elements, as figures, pages and arrays."""
