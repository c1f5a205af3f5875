"""Images, and targets with one value per pixel."""
