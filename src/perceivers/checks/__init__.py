"""Checks of data before training: unreadable rows, duplicates, labels, and groups on both sides of a split."""
