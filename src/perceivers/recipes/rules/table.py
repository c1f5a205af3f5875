"""Rules for tables: docs/defaults.md."""

from dataclasses import replace
from typing import Any

import numpy as np

from perceivers.data.modalities.table.modality import TableModality, Values, numbers_and_names
from perceivers.inputs.table import TableInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules
from perceivers.recipes.rules.ridge import explained_share
from perceivers.wording import counted

FEW_ROWS = 2_000
"""Rows below which the encoder is small and the weight decay strong."""

_FEWEST_ROWS, _BATCH = 500, 32

# Rows on which ridge regression is tried, the fewest of them, and the explained share of the variance from which a
# number follows clearly from its fields.
_SAMPLED, _FEWEST_SAMPLED, _CLEAR = 400, 24, 0.65

# Factor of the learning rate of what starts from a linear model.
_LINEAR_RATE = 0.1


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for tables."""
    part: TableInputConfig = choice.input
    rows = facts.data.rows
    if not facts.data.is_open(f"inputs.{facts.name}"):
        return choice
    few = rows < FEW_ROWS
    augment = choice.augment
    is_clear = facts.data.target_kind != "number" or _explained(facts) >= _CLEAR
    if augment is not None and facts.data.target_kind == "number" and is_clear:
        # The number is a sum of what its fields state: hidden fields and noise would shrink it.
        augment = replace(augment, noise=0.0, drop=0.0)
    fields: dict[str, Any] = {"output.element_pools": ("mean",), "training.ema": 0.99}
    is_linear = facts.starts_linear and facts.data.is_open("output")
    if is_linear:
        fields |= {
            "output.standardize_pools": False,
            "training.linear_start": True,
            "training.lr_scale": dict.fromkeys(("inputs", "output.element_pools"), _LINEAR_RATE),
        }
    if few:
        fields |= {
            "training.batch_size": _BATCH,
            "output.latent_dropout": 0.0 if is_linear and is_clear else 0.5,
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
    path = "a linear model of the columns" if is_linear else "a direct path from the columns"
    reasons = {"Model": f"an encoder beside {path}"}
    if few:
        reasons["Model"] = f"a small encoder beside {path}, for {counted(rows, 'row')}"
    return replace(
        choice,
        input=replace(part, pieces=True, init_scale=0.3),
        augment=augment,
        fields=fields,
        reasons=reasons,
    )


def _explained(facts: ModalityFacts) -> float:
    """Return the share of the variance of a target number that ridge regression explains. 0: no number, or few rows."""
    if facts.data.target_kind != "number":
        return 0.0
    modality = TableModality(facts.measured)
    rows: list[Values] = []
    targets: list[list[float]] = []
    for cell, target in facts.numbered_cells(_SAMPLED):
        try:
            rows.append(modality.decode(cell).value)
        except (ImportError, KeyError):
            raise
        except Exception:  # named and counted in training
            continue
        targets.append(target)
    if len(rows) < _FEWEST_SAMPLED:
        return 0.0
    features = np.nan_to_num(numbers_and_names(np.stack(rows), modality.preprocess))
    return explained_share(features, np.array(targets))


register_rules("table", choose, adapter=TableInputConfig)
