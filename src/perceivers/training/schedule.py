"""How the learning rate falls: a pure function of how far the run is.

The clock of a run is its progress, from 0 to 1, whatever limits it: epochs, steps or time. So a run that is
given ten minutes ends as annealed as one that is given ten epochs.
"""

import math
import re

from perceivers.recipes.base import OptimConfig

__all__ = ["learning_rate", "parse_duration"]

_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def learning_rate(config: OptimConfig, *, progress: float, step: int) -> float:
    """Return the rate of one optimizer step.

    Args:
        config: Names the schedule and its highest rate.
        progress: Share of the run that is done before this step, 0 to 1.
        step: Number of steps done before this one. Only the warm-up in steps reads it.
    """
    return config.lr * _warmup(config, progress, step) * _decay(config, min(progress, 1.0))


def _warmup(config: OptimConfig, progress: float, step: int) -> float:
    by_steps = (step + 1) / config.warmup_steps if config.warmup_steps else 1.0
    by_share = progress / config.warmup_fraction if config.warmup_fraction else 1.0
    return min(by_steps, by_share, 1.0)


def _decay(config: OptimConfig, progress: float) -> float:
    match config.schedule:
        case "constant":
            return 1.0
        case "steps":
            return config.decay ** sum(progress >= milestone for milestone in config.milestones)
        case "cosine":
            return _cosine(progress)
        case "constant_cosine":
            flat = config.constant_fraction
            return 1.0 if progress <= flat else _cosine((progress - flat) / (1.0 - flat))


def _cosine(progress: float) -> float:
    """Return half a wave: 1 at the beginning, 0 at the end."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def parse_duration(text: str) -> float:
    """Return the seconds that `90`, `45s`, `10m`, `2h` or `1h30m` stand for.

    Raises:
        ValueError: If the text is none of these, or no time at all.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    parts = found.groups(default="0") if found else ("0", "0", "0")
    seconds = sum(float(n) * unit for n, unit in zip(parts, _UNITS.values(), strict=True))
    if seconds <= 0:
        msg = f"Expected a duration such as 45s, 10m, 2h or 1h30m, got '{text}'."
        raise ValueError(msg)
    return seconds
