"""Speed of 16-bit arithmetic on this processor."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

import torch

from perceivers.inputs.elements import InputAdapter
from perceivers.models.perceiver import Perceiver

_SAMPLES, _ROUNDS = 8, 3
_SLOWER = 1.05  # times the duration of a step in float32 from which it is slower


def warn_of_bf16(
    precision: str,
    accelerator: str,
    model: Perceiver,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Return a note if bf16 is requested on a CPU where this model is slower with it, else nothing.

    Instructions do not decide: with AVX-512 BF16 a step of the tiny image model, whose convolutions are large, takes
    0.76 times as long as in float32, that of the text model 1.3 times as long. So a forward and a backward pass of a
    few samples are timed.

    Args:
        precision: Precision of the recipe.
        accelerator: Type of the device.
        model: The model, whose weights, gradients and statistics stay as they are.
        clock: Returns seconds.
    """
    if precision != "bf16" or accelerator != "cpu":
        return ""
    ratio = _seconds(model, clock, is_bf16=True) / max(_seconds(model, clock, is_bf16=False), 1e-9)
    if ratio < _SLOWER:
        return ""
    return (
        f"--precision bf16 is slower than float32 on this processor: a pass of this model took {ratio:.1f} times as "
        "long. Better leave it out."
    )


def _seconds(model: Perceiver, clock: Callable[[], float], *, is_bf16: bool) -> float:
    """Return the shortest duration of a forward and a backward pass up to the latents."""
    adapters = {name: cast("InputAdapter", part) for name, part in model.inputs.items()}
    inputs = {name: adapter.example(_SAMPLES) for name, adapter in adapters.items()}
    was_training = model.training
    model.eval()  # statistics of batch norms stay as they are
    found: list[float] = []
    try:
        for _ in range(_ROUNDS):
            began = clock()
            with torch.autocast("cpu", dtype=torch.bfloat16) if is_bf16 else nullcontext():
                latents = model.encode(inputs)
            latents.float().sum().backward()
            found.append(clock() - began)
            model.zero_grad()
    finally:
        model.train(was_training)
    return min(found)
