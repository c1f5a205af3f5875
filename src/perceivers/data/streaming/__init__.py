"""Splits whose rows are read shard by shard."""
