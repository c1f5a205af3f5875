"""Attention maps, attention rollup and deletion curves."""
