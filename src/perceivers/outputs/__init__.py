"""From latents to predictions."""
