"""Input adapters: modalities become elements. Importing it registers those of this package."""

# ruff: noqa: F401
# pyright: reportUnusedImport=false
import perceivers.inputs.array
import perceivers.inputs.audio
import perceivers.inputs.frame_pair
import perceivers.inputs.image
import perceivers.inputs.label
import perceivers.inputs.music
import perceivers.inputs.points
import perceivers.inputs.series
import perceivers.inputs.table
import perceivers.inputs.text
import perceivers.inputs.tokens
import perceivers.inputs.video
