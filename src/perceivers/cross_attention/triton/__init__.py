"""Triton kernels for cross-attention over grids of elements."""
