"""Time series with several channels."""
