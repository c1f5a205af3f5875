"""Files that a run of images reads, where Schemathesis needs bytes: it cannot know what a valid file is."""

import base64
import sys
from pathlib import Path

import schemathesis
from hypothesis import strategies

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.modality_data import png

__all__ = ["FILES"]

FILES = strategies.sampled_from([png(0, number) for number in range(3)])

schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.format("byte", FILES.map(lambda data: base64.b64encode(data).decode()))
for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
    schemathesis.openapi.media_type(f"image/{kind}", FILES)
schemathesis.openapi.media_type("application/octet-stream", FILES)
