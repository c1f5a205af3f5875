"""Data, models, runs and comparisons that tests share."""
