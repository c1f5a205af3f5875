"""Encoder and the whole model."""
