"""Rules for tables: docs/defaults.md."""

from dataclasses import replace
from typing import Any

from perceivers.inputs.table import TableInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules
from perceivers.wording import counted

FEW_ROWS = 2_000
"""Rows below which the encoder is small and the weight decay strong."""

_FEWEST_ROWS, _BATCH = 500, 32


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for tables."""
    part: TableInputConfig = choice.input
    rows = facts.data.rows
    if not facts.data.is_open(f"inputs.{facts.name}"):
        return choice
    few = rows < FEW_ROWS
    augment = choice.augment
    if augment is not None and facts.data.target_kind == "number":
        # A number is the sum of what its fields state: hidden fields and noise would shrink it.
        augment = replace(augment, noise=0.0, drop=0.0)
    fields: dict[str, Any] = {"output.element_pools": ("mean",), "training.ema": 0.99}
    if few:
        fields |= {
            "training.batch_size": _BATCH,
            "output.latent_dropout": 0.5,
            "encoder.num_latents": 8,
            "encoder.latent_channels": 32,
            "encoder.num_cross_attends": 1,
            "encoder.num_blocks": 1,
            "encoder.num_self_attends_per_block": 1,
            "encoder.num_self_attend_heads": 4,
            "encoder.num_cross_attend_heads": 4,
            "encoder.cross_attend_qk_channels": 32,
            "encoder.cross_attend_v_channels": 32,
            "optim.weight_decay": 2.0 if rows < _FEWEST_ROWS else 0.5,
        }
    reasons = {"Model": "a direct path from the columns to the head"}
    if few:
        reasons["Model"] = f"a small encoder beside a direct path, for {counted(rows, 'row')}"
    return replace(
        choice,
        input=replace(part, pieces=True, init_scale=0.3),
        augment=augment,
        fields=fields,
        reasons=reasons,
    )


register_rules("table", choose, adapter=TableInputConfig)
