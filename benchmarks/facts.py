"""Facts of the machine and the versions on which the numbers depend."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["load_now", "machine"]


def machine(device: str) -> dict[str, object]:
    """Return the machine and the versions; two results with the same facts may stand in one table."""
    facts: dict[str, object] = {
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for name in ("torch", "transformers", "perceiver-pytorch"):
        facts[name] = installed(name)
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = properties.name
        facts["gpu_memory_gib"] = round(properties.total_memory / 2**30)
        facts["cuda"] = torch.version.cuda
        facts["triton"] = installed("triton")
    return facts


def load_now(device: str, dtype: str) -> dict[str, object]:
    """Return the day, how busy the machine is with other work, and how fast it multiplies just now."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "day": time.strftime("%Y-%m-%d"),
        "load_before": None if load is None else round(load, 2),
        "matmul_gflops": round(matmul_gflops(device, dtype)),
    }


def matmul_gflops(device: str, dtype: str) -> float:
    """Return the best of ten products of 1024 x 1024 (on a GPU 8192 x 8192), in GFLOP/s."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def cores() -> int | None:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(name: str) -> str | None:
    """Return the version of a package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
