import os
import subprocess
import sys

import pytest
import torch

from perceivers.training.checkpoint import read_payload, save_payload


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_payload_comes_back(tmp_path):
    payload = {"weights": {"a": torch.arange(3.0)}, "step": 7, "names": ["x"]}
    save_payload(tmp_path / "a.ckpt", payload)
    for lazily in (False, True):
        back = read_payload(tmp_path / "a.ckpt", lazily=lazily)
        assert torch.equal(back["weights"]["a"], torch.arange(3.0))
        assert (back["step"], back["names"]) == (7, ["x"])


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path):
    save_payload(tmp_path / "a.ckpt", {"a": torch.zeros(10)})
    before = (tmp_path / "a.ckpt").read_bytes()
    program = (
        "import resource, sys, torch; from pathlib import Path\n"
        "from perceivers.training.checkpoint import save_payload\n"
        "before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))\n"
        "try: save_payload(Path(sys.argv[1]), {'a': torch.zeros(100_000)})\n"
        "except OSError as error: print(error); sys.exit(1)\n"
        "finally: resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.ckpt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Could not write" in done.stdout
    assert "The previous file is unchanged" in done.stdout
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert names_in(tmp_path) == ["a.ckpt"]


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_payload(tmp_path / "none.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(OSError, match=r"a.ckpt cannot be read as a checkpoint"):
        read_payload(tmp_path / "a.ckpt")


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"a": os.getcwd}, tmp_path / "a.ckpt")
    with pytest.raises(OSError, match="cannot be read as a checkpoint"):
        read_payload(tmp_path / "a.ckpt")


def test_a_lone_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.ones(1), tmp_path / "a.ckpt")
    with pytest.raises(OSError, match="holds a Tensor, not a checkpoint"):
        read_payload(tmp_path / "a.ckpt")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    save_payload(path, {"a": torch.arange(1000.0)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a weight: torch reads it without a word
    path.write_bytes(content)
    with pytest.raises(OSError, match=r"a.ckpt cannot be read .*a checksum is wrong"):
        read_payload(path)
