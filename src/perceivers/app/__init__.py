"""Predictions and what was looked at, over HTTP, and one page for people."""
