"""Rules for videos: docs/defaults.md."""

from dataclasses import replace
from typing import Any

import numpy as np

from perceivers.data.modalities.base import SAMPLED_CELLS, read_cells
from perceivers.data.modalities.video.decode import read_video_header
from perceivers.inputs.video import ResidualVideoInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules
from perceivers.recipes.rules.image import stem_for

# Few videos are trained in smaller batches, with more steps for each epoch.
_SMALL_BATCH, _FEW_ROWS = 16, 4000

# Frames of a clip beside its audio track, and most seconds that they cover.
_FRAMES_BESIDE_AUDIO, _LONGEST = 8, 5.0


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return stem and batch for videos, and few frames beside their audio track.

    Whether mirrored videos occur is not tested: several videos of one scene, as is usual, hide it.
    """
    made: Any = choice.input
    measured = _beside_audio(facts)
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
    frames = {"num_frames": measured.num_frames, "frame_rate": measured.frame_rate}
    preprocess = replace(choice.preprocess, **({} if measured is facts.measured else frames))
    return replace(choice, input=made, preprocess=preprocess, fields=fields, reasons=reasons)


def _beside_audio(facts: ModalityFacts) -> Any:
    """Return the measured preprocessing; beside the audio track of the same files, with 8 frames of whole videos.

    Otherwise most elements and most of the time would go to frames, and audio would hardly be learned.
    """
    measured, column = facts.measured, facts.column.column
    parts = facts.source.inputs.values()
    has_track = any(part.kind == "audio" and part.column == column for part in parts)
    names = [f"preprocess.{facts.name}.{field}" for field in ("num_frames", "frame_rate")]
    is_open = all(facts.data.is_open(name) for name in names)
    if not has_track or not is_open or measured.num_frames <= _FRAMES_BESIDE_AUDIO:
        return measured
    headers = list(read_cells(list(facts.cells(SAMPLED_CELLS)), read_video_header, "video"))
    seconds = min(_LONGEST, float(np.percentile([header.seconds for header in headers], 75)))
    rate = round(_FRAMES_BESIDE_AUDIO / seconds, 2)
    return replace(measured, num_frames=_FRAMES_BESIDE_AUDIO, frame_rate=rate)


register_rules("video", choose)
