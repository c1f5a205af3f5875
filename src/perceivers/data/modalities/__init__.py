"""The modalities of this package, each registered where its module ends, in the order of messages."""

# ruff: noqa: F401
# pyright: reportUnusedImport=false
# isort: off
import perceivers.data.modalities.image.modality
import perceivers.data.modalities.audio.modality
import perceivers.data.modalities.video.modality
import perceivers.data.modalities.points.modality
import perceivers.data.modalities.text.modality
import perceivers.data.modalities.series.modality
import perceivers.data.modalities.array.modality
import perceivers.data.modalities.table.modality
import perceivers.data.modalities.flow.modality
import perceivers.data.modalities.music.modality
