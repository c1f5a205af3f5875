"""Rules for videos: docs/defaults.md."""

from dataclasses import replace
from typing import Any

from perceivers.inputs.video import ResidualVideoInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules
from perceivers.recipes.rules.image import stem_for

# Few videos are trained in smaller batches, with more steps for each epoch.
_SMALL_BATCH, _FEW_ROWS = 16, 4000


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return stem and batch for videos.

    Whether mirrored videos occur is not tested: several videos of one scene, as is usual, hide it.
    """
    made: Any = choice.input
    measured = facts.measured
    reasons: dict[Topic, str] = {}
    height, width = measured.size
    if isinstance(made, ResidualVideoInputConfig):
        if facts.data.is_open(f"inputs.{facts.name}.stem"):
            made = replace(made, stem=stem_for((height, width), made.stem.channels))
        rows, columns = made.stem.grid((height, width))
        reasons["Input"] = (
            f"{measured.num_frames} frames of {height} x {width} pixels at {measured.frame_rate:g} per second, each as "
            f"{rows} x {columns} elements"
        )
    fields = {"training.batch_size": _SMALL_BATCH} if facts.data.rows < _FEW_ROWS else {}
    return replace(choice, input=made, fields=fields, reasons=reasons)


register_rules("video", choose)
