"""Predictions and targets -> loss, metrics and readable predictions. Independent of models and training engines.

Importing the package registers the built-in tasks.
"""

from perceivers.tasks import (
    autoencode,
    classification,
    dense,
    flow,
    masked,
    masked_autoencode,
    masking_elements,
    masking_kinds,
    midi_tokens,
    multilabel,
    multitask,
    next_token,
    pixel_vocabulary,
    regression,
    series_vocabulary,
    subword_vocabulary,
)

__all__ = [
    "autoencode",
    "classification",
    "dense",
    "flow",
    "masked",
    "masked_autoencode",
    "masking_elements",
    "masking_kinds",
    "midi_tokens",
    "multilabel",
    "multitask",
    "next_token",
    "pixel_vocabulary",
    "regression",
    "series_vocabulary",
    "subword_vocabulary",
]
