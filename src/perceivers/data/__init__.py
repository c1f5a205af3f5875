"""Files to batches. Nothing is imported here: each file says what it needs when it needs it."""
