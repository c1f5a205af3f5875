"""Explanations as images, animations and HTML."""
