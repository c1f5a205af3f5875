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
from typing import Literal, NamedTuple

from perceivers.cli.parsing import parse
from perceivers.cli.terminal import echo

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
    "text": (("tokenizers", "tokenizers", "models of subwords"),),
    "points": (("trimesh", "trimesh", "PLY, OBJ, STL"), ("h5py", "h5py", "HDF5 files")),
    "quickstart": (("scikit-learn", "sklearn", "the built-in digits"),),
    "export": (
        ("onnx", "onnx", "export to ONNX"),
        ("onnxscript", "onnxscript", "export to ONNX"),
        ("onnxruntime", "onnxruntime", "running ONNX"),
    ),
    "openvino": (("openvino", "openvino", "export to OpenVINO"),),
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


class Finding(NamedTuple):
    """One line of the report: `ok`, `note` (something optional is missing) or `wrong`; name of the check; result."""

    state: Literal["ok", "note", "wrong"]
    name: str
    text: str


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if something is wrong."""
    parse(Options, args, command="doctor", examples=_EXAMPLES)
    findings: list[Finding] = []
    for finding in _findings():
        findings.append(finding)
        echo(f"{finding.state:<6} {finding.name:<14} {finding.text}")
    wrong = [finding.name for finding in findings if finding.state == "wrong"]
    echo(f"\nWrong: {', '.join(wrong)}." if wrong else "\nEverything that is needed works.")
    return 1 if wrong else 0


def _findings() -> Iterator[Finding]:
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok", "python", python)
    yield Finding("ok", "perceivers", version("perceivers"))
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
    yield Finding("ok", "torch", f"{torch.__version__}, {threads}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = f"{about.total_memory / 2**30:.0f} GiB"
            yield Finding("ok", f"cuda:{index}", f"{about.name}, {memory}")
    elif torch.backends.mps.is_available():
        yield Finding("ok", "mps", "Apple's graphics processor")
    else:
        yield Finding("ok", "accelerator", "none; computing on the CPU")


def check_torchvision() -> Finding:
    """Check that an installed torchvision fits torch: otherwise Lightning fails."""
    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return Finding("ok", "torchvision", "not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        text = (
            f"{found} does not match your torch ({_first_line(error)}). Lightning imports it if it "
            "is installed, so fit would fail. perceivers does not need it: pip uninstall torchvision"
        )
        return Finding("wrong", "torchvision", text)
    return Finding("ok", "torchvision", f"{found} (not needed)")


def check_module(extra: str, distribution: str, module: str, purpose: str) -> Finding:
    """Check that an optional library is installed and can be imported."""
    try:
        found = version(distribution)
    except PackageNotFoundError:
        text = f'missing, needed for {purpose}: pip install "perceivers[{extra}]"'
        return Finding("note", distribution, text)
    try:
        importlib.import_module(module)
    except Exception as error:
        text = f"{found} is installed but cannot be imported: {_first_line(error)}"
        return Finding("wrong", distribution, text)
    return Finding("ok", distribution, f"{found} ({purpose})")


def check_memory() -> Finding:
    """Return the memory of the machine, if known."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("note", "memory", "unknown on this system")
    return Finding("ok", "memory", f"{total:.1f} GiB")


def check_writing(folder: Path) -> Finding:
    """Check that runs can be written to `folder`."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"perceivers")
    except OSError as error:
        text = f"{folder} cannot be written to ({error.strerror}): choose another with --out"
        return Finding("wrong", "writing", text)
    return Finding("ok", "writing", f"runs can be written to {folder}")


def check_step() -> Finding:
    """Check that a training step of a tiny model lowers its loss."""
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
        scores = model({"image": x})
        assert isinstance(scores, torch.Tensor)  # of one output
        loss = torch.nn.functional.cross_entropy(scores, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    took = f"{time.perf_counter() - start:.2f} s"
    if losses[1] < losses[0]:
        return Finding("ok", "self test", f"a training step lowers the loss, {took}")
    text = f"a training step did not lower the loss ({losses[0]:.4f} -> {losses[1]:.4f})"
    return Finding("wrong", "self test", text)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
