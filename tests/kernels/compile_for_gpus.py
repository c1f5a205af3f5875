"""Compile every kernel that a read launches for GPUs that are not there, down to their machine code.

    python tests/kernels/compile_for_gpus.py 75 80 90

Triton needs a driver only to ask which GPU to compile for, and to start what it has compiled: this one
names a GPU and starts nothing. Prints one line for each compiled kernel.
"""

import math
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from perceivers.cross_attention.tiles import GridFeatures
from perceivers.cross_attention.triton import cross_attention as triton_launch
from perceivers.cross_attention.triton import cross_attention as triton_read
from perceivers.inputs.elements import Elements, GridPositions


class Paper:
    """A driver for a GPU of some compute capability that exists on paper only."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability  # compiled kernels are kept for each device

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


class Compiled:
    """A kernel that is compiled where it would be started."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def compile_it(**arguments):
            done = self.kernel.warmup(grid=grid, **arguments)
            shared = done.metadata.shared
            assert done.asm["cubin"]
            assert shared <= 48 * 1024  # what every GPU has
            print(self.kernel.__name__, done.metadata.target.arch, arguments["CHANNELS"], shared)

        return compile_it


class Kernels:
    log_sums = Compiled(triton_launch.kernels.log_sums)
    combine = Compiled(triton_launch.kernels.combine)
    spread = Compiled(triton_launch.kernels.spread)


def read(sizes, content, *, masked, tag, rows, dtype=torch.float32):
    """Launch everything that one read needs, forward and backward."""
    count, axes = math.prod(sizes), len(sizes)
    tables = tuple(torch.randn(n, 4) for n in sizes)
    channels = tuple(tuple(range(4 * axis, 4 * axis + 4)) for axis in range(axes))
    mask = torch.ones(2, count, dtype=torch.bool) if masked else None
    elements = Elements(
        torch.randn(2, count, content).to(dtype),
        GridPositions(tables, channels),
        torch.randn(2) if tag else None,
        mask,
    )
    part = GridFeatures(elements, 1e-5, torch.float32)
    vectors = torch.randn(2, elements.num_channels, rows)
    u, log_sum = torch.zeros_like(vectors), torch.zeros(2, rows)
    triton_read.attention_forward(vectors, [part])
    for tables_too in (False, True):
        needed = [True] + [tables_too] * (axes + tag) + [False] * masked
        triton_read.attention_backward(u, log_sum, vectors, log_sum, [part], [needed])
    triton_read.attention_backward(u, log_sum, vectors, log_sum, [part], [[False] * len(needed)])


if __name__ == "__main__":
    triton_launch.kernels = Kernels
    for capability in map(int, sys.argv[1:]):
        driver.set_active(Paper(capability))
        read((20, 32), 3, masked=False, tag=0, rows=64)
        read((3, 7, 20), 1, masked=True, tag=1, rows=1)
        read((50,), 64, masked=True, tag=1, rows=40, dtype=torch.bfloat16)
