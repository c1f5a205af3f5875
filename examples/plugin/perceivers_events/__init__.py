"""The modality `events` for perceivers: importing this package registers it."""

from perceivers_events import inputs, modality, view

__all__ = ["inputs", "modality", "view"]
