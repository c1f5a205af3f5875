"""The modalities of this package, each registered by its `spec` module."""

# ruff: noqa: F401
# isort: off  # the order of registration is that of messages
import perceivers.data.modalities.array.spec
import perceivers.data.modalities.audio.spec
import perceivers.data.modalities.flow.spec
import perceivers.data.modalities.image.spec
import perceivers.data.modalities.points.spec
import perceivers.data.modalities.series.spec
import perceivers.data.modalities.table.spec
import perceivers.data.modalities.text.spec
import perceivers.data.modalities.video.spec
