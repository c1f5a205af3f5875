"""Rules for audio: docs/defaults.md."""

import math
from dataclasses import replace
from typing import Any

from perceivers.data.modalities.audio.measure import measure_clip, usual_audio
from perceivers.data.modalities.base import SAMPLED_CELLS
from perceivers.inputs.audio import ResidualSpectrogramInputConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, register_rules
from perceivers.wording import counted

_FRAMES = 250  # of a clip, where hops of 10 to 20 ms allow it
_FULL_BAND = 32_000  # sample rates from which audio is music or environmental
_RATE = 22_050  # of the spectrograms of such audio
_MOST_CLIPS = 8  # of a long file in evaluation
_FEW_ROWS = 500  # below, two clips are blended


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return the choices for audio as mel spectrograms."""
    cells = list(facts.cells(SAMPLED_CELLS))
    common, length = usual_audio(cells)
    given = choice.preprocess
    wanted = _RATE if common >= _FULL_BAND else None
    rate, seconds = measure_clip(cells, given.sample_rate or wanted, given.seconds)
    hop, window = _steps(seconds, facts)
    preprocess = replace(given, sample_rate=rate, hop=hop, window=window)
    frames = math.ceil(seconds / hop)
    stem = replace(choice.input.stem, stride=(1, 2) if frames <= _FRAMES // 2 else 2)
    step = stem.element_step[0] * hop
    clips = 1 if length is None else min(_MOST_CLIPS, max(1, math.ceil(length / seconds - 0.2)))
    return replace(
        choice,
        input=replace(choice.input, stem=stem),
        preprocess=preprocess,
        augment=_augment(choice.augment, facts),
        fields={"data.clips": clips} if clips > 1 else {},
        reasons=_reasons(rate, seconds, frames, step, clips),
    )


def _steps(seconds: float, facts: ModalityFacts) -> tuple[float, float]:
    """Return hop and window in seconds: hops of 10 ms for clips up to 2.5 s, of 20 ms from 5 s on."""
    given, name = facts.preprocess, f"preprocess.{facts.name}"
    hop, has_window = given.hop, not facts.data.is_open(f"{name}.window")
    if facts.data.is_open(f"{name}.hop"):
        hop = min(20, max(10, math.ceil(round(seconds * 1000 / _FRAMES, 6)))) / 1000
        hop = min(hop, given.window) if has_window else hop
    return hop, given.window if has_window else max(0.025, 2 * hop)


def _augment(augment: Any, facts: ModalityFacts) -> Any:
    """Return masks that seldom hide a whole word, and more variety for few rows."""
    if augment is None:
        return None
    few = facts.data.rows < _FEW_ROWS
    masks = {"time_share": 0.1, "frequency_share": 0.15}
    # Of several modalities each would be blended and rotated by itself.
    blends = few and facts.is_alone and facts.data.target_kind == "class"
    return replace(augment, **masks, roll=facts.is_alone, mixup=0.2 if blends else augment.mixup)


def _reasons(rate: int, seconds: float, frames: int, step: float, clips: int) -> Any:
    shown = f"{seconds:g} s of audio at {rate:,} Hz: {frames} frames, an element for every {step * 1000:.0f} ms"
    long = {"Validation": f"the mean of {counted(clips, 'clip')} of a file in evaluate and predict"}
    return {"Input": shown} | (long if clips > 1 else {})


register_rules("mel", choose, adapter=ResidualSpectrogramInputConfig)
