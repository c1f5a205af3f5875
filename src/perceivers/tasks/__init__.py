"""Predictions and targets -> loss and metrics. Knows neither models nor training engines."""
