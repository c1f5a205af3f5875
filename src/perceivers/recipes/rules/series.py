"""Rules for time series: docs/defaults.md."""

from dataclasses import replace
from typing import Any

from perceivers.inputs.series import BankSeriesInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules
from perceivers.wording import counted

FEW_ROWS = 1_000
"""Rows below which a learned stem learns the training series by heart, so that fixed kernels alone are used."""

_CELLS_LENGTH = 32  # steps from which a learned stem has enough cells


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for time series."""
    part: BankSeriesInputConfig = choice.input
    if not facts.data.is_open(f"inputs.{facts.name}"):
        return choice
    rows = facts.data.rows
    few = rows < FEW_ROWS or facts.measured.length < _CELLS_LENGTH
    if facts.data.is_open(f"augment.{facts.name}") and choice.augment is not None:
        # Noise changes the signs that statistics of first differences count.
        scale = 0.0 if few else choice.augment.scale
        choice = replace(choice, augment=replace(choice.augment, jitter=0.0, scale=scale))
    if few:
        return _few(choice, part, rows)
    width = 2 * part.channels
    learned = replace(part, channels=width, dropout=0.2, stem_channels=(part.channels, width))
    return replace(
        choice,
        input=learned,
        fields={"output.element_pools": ("mean", "max"), "optim.weight_decay": 0.1},
        reasons={
            "Input": f"statistics of fixed kernels and a learned stem, for {counted(rows, 'row')}"
        },
    )


def _few(choice: Choice, part: BankSeriesInputConfig, rows: int) -> Choice:
    """Return the choices for few series: fixed kernels only, a small encoder and strong regularization."""
    fields: dict[str, Any] = {
        "output.element_pools": ("mean",),
        "output.latent_dropout": 0.8,
        "encoder.num_latents": 8,
        "encoder.latent_channels": 64,
        "encoder.num_cross_attends": 1,
        "encoder.num_blocks": 1,
        "encoder.num_self_attends_per_block": 1,
        "encoder.num_self_attend_heads": 4,
        "encoder.cross_attend_qk_channels": 32,
        "encoder.cross_attend_v_channels": 32,
        "optim.weight_decay": 2.0,
        "training.ema": 0.98,
    }
    return replace(
        choice,
        input=part,
        fields=fields,
        reasons={
            "Input": f"statistics of fixed kernels, for {counted(rows, 'row')}",
            "Model": "a small encoder beside a direct path from the statistics",
        },
    )


register_rules("series", choose, adapter=BankSeriesInputConfig)
