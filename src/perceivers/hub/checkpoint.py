"""A saved model: `model.safetensors` beside a `config.json` that says all that prediction needs.

Nothing here runs code from a file: weights are safetensors, and a pickle from elsewhere is read by
PyTorch's restricted loader or refused.
"""

import pickle
import threading
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from perceivers.data.base import atomic_write
from perceivers.data.registry import PreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.hub.quantize import is_quantized
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.tasks.registry import TaskConfig, answers_of
from perceivers.typing import Tensor

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Saved",
    "SavedConfig",
    "compare_weights",
    "find_folder",
    "from_pretrained",
    "load",
    "read_config",
    "read_weights",
    "save",
]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = 1
# What is prepared in several ways: sound, and pictures that are learned.
_AUDIO = {"wave": "audio", "mel": "audio", "pixels": "image", "class_map": "image"}


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """What `config.json` holds.

    Attributes:
        format: Version of this file.
        model: Everything that determines the weights.
        preprocess: For each modality, what turns a file into the model's array; also for the answers that are one.
        task: Label names, and how predictions are to be read.
        columns: Where the data came from: its path, form, input columns and target.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    format: int = FORMAT
    model: PerceiverConfig
    preprocess: dict[str, PreprocessConfig] = field(default_factory=dict)
    task: TaskConfig | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> tuple[str, ...]:
        """Modalities that the model does not read, but was taught to answer with."""
        return answers_of(self.task)

    def input_columns(self, *, answers: bool = False) -> dict[str, InputColumn]:
        """Return where each modality lay in the data that the model learned from.

        Args:
            answers: Also those that the model does not read, which only learning and measuring need.
        """
        known: dict[str, Any] = self.columns.get("inputs", {})
        found: dict[str, InputColumn] = {}
        for name, part in self.preprocess.items():
            if name in self.answers and not answers:
                continue
            told = known.get(name, name)
            if isinstance(told, str):  # of a model that was saved by hand, or by an earlier version
                found[name] = InputColumn(told, _AUDIO.get(part.kind, part.kind))
            else:
                found[name] = InputColumn(
                    told["column"], told["kind"], tuple(told["columns"]), tuple(told["kinds"])
                )
        return found


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A model with what it was saved with.

    Attributes:
        model: In evaluation mode.
        config: All that prediction needs beside the weights.
        folder: Where it was read from.
    """

    model: Perceiver
    config: SavedConfig
    folder: Path


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    preprocess: Mapping[str, Any] | None = None,
    task: TaskConfig | None = None,
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Write a model into a folder, which is made if need be.

    Args:
        folder: Where to.
        model: A `Perceiver`, compiled by `torch.compile` or not.
        preprocess: For each modality, what turns a file into the model's array.
        task: Label names, and how predictions are to be read.
        columns: Where the data came from.

    Each file appears whole or not at all: an older one survives a full disk.

    Raises:
        OSError: If a file cannot be written. The message names it.
        ValueError: If the model holds int8 weights.
    """
    inner: Any = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if is_quantized(inner):
        msg = (
            f"Expected a model in float32 to save in {folder}, got one with int8 weights, which have "
            "lost digits. Load it again without quantize, and save that."
        )
        raise ValueError(msg)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = SavedConfig(
        model=inner.config,
        preprocess=dict(preprocess or {}),
        task=task,
        columns=dict(columns or {}),
    )
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in inner.state_dict().items()
    }
    with atomic_write(folder / WEIGHTS_FILE) as path:
        try:
            save_file(tensors, path, {"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    text = TypeAdapter(SavedConfig).dump_json(config, indent=2)
    with atomic_write(folder / CONFIG_FILE) as path:
        path.write_bytes(text + b"\n")


def load(source: str | Path, *, device: str | torch.device = "cpu") -> Saved:
    """Return a saved model, ready to predict.

    Args:
        source: A run folder, or the id of a model on the Hugging Face hub. A path that exists wins.
        device: Where the weights go.

    Raises:
        OSError: If nothing is saved there, or a file is unreadable or truncated.
        ValueError: If the files are not a saved model, or do not fit each other.
    """
    folder = _find(source)
    config = read_config(folder / CONFIG_FILE)
    weights = read_weights(folder)
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in build(config.model).state_dict().items()}
    compare_weights(expected, {name: tuple(t.shape) for name, t in weights.items()}, folder)
    with _parameters_unfilled():
        model = build(config.model)
    model.load_state_dict(weights)
    return Saved(model=model.to(device).eval(), config=config, folder=folder)


def from_pretrained(source: str | Path, *, device: str | torch.device = "cpu") -> Perceiver:
    """Return the model of a run as a plain module, in evaluation mode; `perceivers.load` brings its preprocessing too.

    Args:
        source: A run folder, or the id of a model on the Hugging Face hub. A path that exists wins.
        device: Where the weights go.

    Raises:
        OSError: If nothing is saved there, or a file is unreadable or truncated.
        ValueError: If the files are not a saved model, or do not fit each other.
    """
    return load(source, device=device).model


def find_folder(source: str | Path, expected: str, files: Sequence[str]) -> Path:
    """Return the folder of a model, downloaded if it is on the hub.

    Args:
        source: A folder, or `user/name` on the hub. A path that exists wins.
        expected: What it should be, for messages.
        files: Names or patterns of what is fetched from the hub.

    Raises:
        OSError: If there is no such folder, and it cannot be fetched.
    """
    folder, name = Path(source), str(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        msg = f"{folder} is a file. Expected {expected}."
        raise OSError(msg)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        msg = f"{source} does not exist. Expected {expected}, or `user/name` of a model on the hub."
        raise OSError(msg)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the hub's errors share no base class
        msg = (
            f"There is no folder {name}, and it could not be loaded from the Hugging Face hub either: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        )
        raise OSError(msg) from error


def _find(source: str | Path) -> Path:
    """Return the folder of a saved model, downloaded if it is on the hub."""
    expected = (
        f"a run folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as `perceivers fit` (its last lines name it) and "
        "`pv.save` write it"
    )
    folder = find_folder(source, expected, (CONFIG_FILE, WEIGHTS_FILE))
    if not (folder / CONFIG_FILE).is_file():
        msg = f"{folder} is not a run folder: it has no {CONFIG_FILE}. Expected {expected}."
        raise OSError(msg)
    return folder


def read_config(path: Path) -> SavedConfig:
    """Return what a `config.json` holds.

    Raises:
        OSError: If it is missing.
        ValueError: If it is something else. The message says where.
    """
    try:
        return TypeAdapter(SavedConfig).validate_json(path.read_bytes())
    except FileNotFoundError as error:
        msg = f"{path} is missing: {path.parent} is not a saved model of perceivers."
        raise OSError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        msg = (
            f"{path} is not a configuration of perceivers: at {place}: {first['msg']}. Expected the "
            f"{CONFIG_FILE} that `perceivers fit` or `pv.save` wrote, unchanged."
        )
        raise ValueError(msg) from error


def read_weights(folder: Path, name: str = WEIGHTS_FILE) -> dict[str, Tensor]:
    """Return the weights of a folder by name: of a safetensors file, or else of a pickle of nothing but tensors.

    Args:
        folder: Where they lie.
        name: Of the file.

    Raises:
        OSError: If there is no such file, or it is truncated.
        ValueError: If there is only a pickle that holds something else.
    """
    path = folder / name
    if not path.is_file():
        others = sorted(p for end in ("*.bin", "*.pt", "*.pth") for p in folder.glob(end))
        if others:
            return _read_pickle(others[0])
        msg = f"{folder} has no {WEIGHTS_FILE}. If its training was interrupted: `fit --resume`."
        raise OSError(msg)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        msg = (
            f"{path} cannot be read as safetensors ({error}): it is truncated or another kind of file. "
            "Copy it again from where it came from."
        )
        raise OSError(msg) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle that holds nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of old pickle protocols, which are read or refused all the same
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        msg = (
            f"{path} was refused: it is not a plain file of tensors, and unpickling anything else could "
            f"run code. Expected {WEIGHTS_FILE}."
        )
        raise ValueError(msg) from error
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        msg = f"{path} does not hold weights by name. Expected {WEIGHTS_FILE}."
        raise ValueError(msg)
    return loaded


@contextmanager
def _parameters_unfilled() -> Generator[None]:
    """Let models that this thread builds begin with whatever their memory holds.

    For one that is about to be filled: drawing 45 million weights takes longer than reading them. While a
    module makes its parameters they have no memory, so that filling them costs nothing.
    """
    thread = threading.get_ident()
    made: list[tuple[nn.Module, str]] = []

    def emptied(module: nn.Module, name: str, parameter: nn.Parameter | None) -> Any:
        if parameter is None or threading.get_ident() != thread:
            return parameter
        made.append((module, name))
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    handle = register_module_parameter_registration_hook(emptied)
    try:
        yield
    finally:
        handle.remove()
    for module, name in made:
        hollow = module.get_parameter(name)
        filled = torch.empty(hollow.shape, dtype=hollow.dtype)
        setattr(module, name, nn.Parameter(filled, requires_grad=hollow.requires_grad))


def compare_weights(
    expected: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Refuse weights that are not those of the configuration.

    Args:
        expected: Shape of each weight by its name.
        got: The same, of what was found.
        folder: Where, for the message.

    Raises:
        ValueError: If they differ. The message names the first that do.
    """
    problems = [f"{name} is missing" for name in expected if name not in got]
    problems += [f"{name} is not part of the model" for name in got if name not in expected]
    problems += [
        f"{name} is {got[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in got and got[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        msg = (
            f"The weights in {folder} do not fit its {CONFIG_FILE}: {'; '.join(problems[:3])}{more}. "
            "The two files belong to different models."
        )
        raise ValueError(msg)
