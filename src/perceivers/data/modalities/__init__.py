"""The modalities of this package, each registered by its `spec` module in the order of messages."""

# ruff: noqa: F401
# pyright: reportUnusedImport=false
# isort: off
import perceivers.data.modalities.image.spec
import perceivers.data.modalities.audio.spec
import perceivers.data.modalities.video.spec
import perceivers.data.modalities.points.spec
import perceivers.data.modalities.text.spec
import perceivers.data.modalities.series.spec
import perceivers.data.modalities.array.spec
import perceivers.data.modalities.table.spec
import perceivers.data.modalities.flow.spec
