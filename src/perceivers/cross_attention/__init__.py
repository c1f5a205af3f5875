"""Exact cross-attention over elements that are kept in parts, in memory linear in their number."""
