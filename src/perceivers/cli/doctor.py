"""`perceivers doctor`: check the installation and this machine."""

import importlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from perceivers.cli.parsing import parse

_EXAMPLES = """
  perceivers doctor
"""

# Distribution, module and purpose, by the extra that installs it.
_EXTRAS = {
    "train": (
        ("lightning", "lightning", "fit"),
        ("tensorboard", "tensorboard", "curves while training"),
    ),
    "data": (
        ("datasets", "datasets", "Hugging Face datasets"),
        ("pyarrow", "pyarrow", "parquet"),
    ),
    "viz": (("matplotlib", "matplotlib", "report and explain"),),
    "audio": (("soundfile", "soundfile", "audio"), ("soxr", "soxr", "resampling of audio")),
    "video": (("av", "av", "videos and their audio"),),
    "points": (("trimesh", "trimesh", "PLY, OBJ, STL"), ("h5py", "h5py", "HDF5 files")),
    "quickstart": (("scikit-learn", "sklearn", "the built-in digits"),),
    "export": (
        ("onnx", "onnx", "export to ONNX"),
        ("onnxscript", "onnxscript", "export to ONNX"),
        ("onnxruntime", "onnxruntime", "running ONNX"),
    ),
    "serve": (
        ("fastapi", "fastapi", "serve"),
        ("uvicorn", "uvicorn", "serve"),
        ("python-multipart", "python_multipart", "uploads to serve"),
        ("prometheus-client", "prometheus_client", "metrics of serve"),
    ),
}


@dataclass(frozen=True)
class Options:
    """Check the installation and this machine: versions, extras, devices, disk, and a tiny training step."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        state: `ok`, `note` (works, but something is missing) or `wrong`.
        name: What was checked.
        text: The result, and what to do.
    """

    state: Literal["ok", "note", "wrong"]
    name: str
    text: str


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if something is wrong."""
    parse(Options, args, command="doctor", examples=_EXAMPLES)
    findings: list[Finding] = []
    for finding in _findings():
        findings.append(finding)
        print(f"{finding.state:<6} {finding.name:<14} {finding.text}", flush=True)
    wrong = [finding.name for finding in findings if finding.state == "wrong"]
    print(f"\nWrong: {', '.join(wrong)}." if wrong else "\nEverything that is needed works.")
    return 1 if wrong else 0


def _findings() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(state="ok", name="python", text=python)
    yield Finding(state="ok", name="perceivers", text=version("perceivers"))
    yield from check_torch()
    yield check_torchvision()
    for extra, parts in _EXTRAS.items():
        yield from (check_module(extra, *part) for part in parts)
    yield check_memory()
    yield check_writing(Path.cwd())
    yield check_step()


def check_torch() -> Iterator[Finding]:
    """Yield torch's version and the devices that it finds."""
    import torch

    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    yield Finding(state="ok", name="torch", text=f"{torch.__version__}, {threads}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = f"{about.total_memory / 2**30:.0f} GiB"
            yield Finding(state="ok", name=f"cuda:{index}", text=f"{about.name}, {memory}")
    elif torch.backends.mps.is_available():
        yield Finding(state="ok", name="mps", text="Apple's graphics processor")
    else:
        yield Finding(state="ok", name="accelerator", text="none; computing on the CPU")


def check_torchvision() -> Finding:
    """Return whether a torchvision that is installed fits torch. Where it does not, Lightning breaks."""
    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return Finding(state="ok", name="torchvision", text="not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        text = (
            f"{found} does not match your torch ({_first_line(error)}). Lightning imports it when it "
            "is there, so fit would fail. perceivers does not need it: pip uninstall torchvision"
        )
        return Finding(state="wrong", name="torchvision", text=text)
    return Finding(state="ok", name="torchvision", text=f"{found} (not needed)")


def check_module(extra: str, distribution: str, module: str, purpose: str) -> Finding:
    """Return whether one optional library is there and can be imported."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        text = f'missing, needed for {purpose}: pip install "perceivers[{extra}]"'
        return Finding(state="note", name=distribution, text=text)
    try:
        importlib.import_module(module)
    except Exception as error:
        text = f"{found} is installed but cannot be imported: {_first_line(error)}"
        return Finding(state="wrong", name=distribution, text=text)
    return Finding(state="ok", name=distribution, text=f"{found} ({purpose})")


def check_memory() -> Finding:
    """Return how much memory the machine has, where the system tells."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding(
            state="note", name="memory", text="this system does not tell how much it has"
        )
    return Finding(state="ok", name="memory", text=f"{total:.1f} GiB")


def check_writing(folder: Path) -> Finding:
    """Return whether runs can be written into `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"perceivers")
    except OSError as error:
        text = f"{folder} cannot be written to ({error.strerror}): say where with --out"
        return Finding(state="wrong", name="writing", text=text)
    return Finding(state="ok", name="writing", text=f"runs can be written to {folder}")


def check_step() -> Finding:
    """Return whether a tiny model learns one batch a little: forward, backward, step."""
    import torch

    from perceivers.inputs.image import PixelInputConfig
    from perceivers.inputs.registry import InputConfig
    from perceivers.models.encoder import PerceiverEncoderConfig
    from perceivers.models.perceiver import PerceiverConfig, build
    from perceivers.outputs.heads import MeanPoolConfig

    start = time.perf_counter()
    encoder = PerceiverEncoderConfig(
        num_latents=4,
        latent_channels=16,
        num_cross_attends=1,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attend_heads=2,
    )
    inputs: dict[str, InputConfig] = {"image": PixelInputConfig(size=(8, 8))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(
            PerceiverConfig(inputs=inputs, encoder=encoder, output=MeanPoolConfig(num_outputs=2))
        )
        x, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: list[float] = []
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model({"image": x}), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    took = f"{time.perf_counter() - start:.2f} s"
    if losses[1] < losses[0]:
        return Finding(
            state="ok", name="self test", text=f"a training step lowers the loss, {took}"
        )
    text = f"a training step did not lower the loss ({losses[0]:.4f} -> {losses[1]:.4f})"
    return Finding(state="wrong", name="self test", text=text)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
