"""Files that a run of images or music reads, where Schemathesis needs bytes: it cannot know what a valid file is."""

import base64
import os
import sys
from pathlib import Path

import schemathesis
from hypothesis import strategies

sys.path.insert(0, str(Path(__file__).parents[1]))

from perceivers.data.registry import get_modality
from support.modality_data import png

__all__ = ["FILES"]

MIDI = get_modality("music").example_file
IMAGES = [png(0, number) for number in range(3)]
FILES = strategies.sampled_from([MIDI] if os.environ.get("SCHEMATHESIS_MUSIC") else IMAGES)

schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.format("byte", FILES.map(lambda data: base64.b64encode(data).decode()))
for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
    schemathesis.openapi.media_type(f"image/{kind}", FILES)
schemathesis.openapi.media_type("application/octet-stream", FILES)
