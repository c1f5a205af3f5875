"""Looking inside: what the latents attended to, and pictures of it."""
