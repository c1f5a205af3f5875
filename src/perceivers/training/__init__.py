"""Training: an optimizer, a schedule, a clock, and a run folder that survives interruption."""
