"""Hundreds of malformed files of every modality, sent to a server: each is answered or refused with its name."""

from pathlib import Path, PurePosixPath

import pytest

from perceivers.server.settings import UploadLimits
from support.fuzz import MODALITIES, malformed, valid_files
from support.server import client_of

MEMORY = 2 * 2**30
# Decoding may take half of the seconds of a request: a file that needs more than 10 s fails with 504.
LIMITS = UploadLimits(wait=20.0)
FEWEST_REFUSED = dict.fromkeys(MODALITIES, 75) | {"text": 0}  # a text may be made of anything


def largest_memory(pid: int) -> int:
    """Return the bytes that a process has had in memory at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", MODALITIES)
def test_every_malformed_file_is_answered_or_refused_with_its_name(kind, tmp_path):
    wrong, refused = [], 0
    with client_of(tmp_path, kind, limits=LIMITS) as client:
        (process,) = client.service.decoders.processes
        first = process.pid
        for name, data in malformed(kind):
            answer = client.post("/predict", files={kind: (name, data)})
            if answer.status_code == 200:
                continue
            refused += 1
            reason = answer.text
            is_named = name in reason or kind + PurePosixPath(name).suffix in reason
            if not 400 <= answer.status_code < 500 or not is_named or "Traceback" in reason:
                wrong.append((name, answer.status_code, reason))
        assert wrong == []
        assert refused >= FEWEST_REFUSED[kind]
        assert process.pid == first
        assert largest_memory(first) < MEMORY
        for suffix, data in valid_files(kind).items():
            answer = client.post("/predict", files={kind: (f"a{suffix}", data)})
            assert answer.status_code == 200, (suffix, answer.text)
