"""Video clips."""
