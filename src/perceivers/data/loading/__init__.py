"""From the rows of a split to batches."""
