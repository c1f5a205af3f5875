"""Saved models: `model.safetensors` beside a `config.json` with all that prediction needs.

No code from a file is run: weights are safetensors, and other pickles are loaded by PyTorch's restricted loader or
refused.
"""

import math
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from perceivers.data.base import atomic_write, atomic_write_text
from perceivers.data.formats.documents import load_json
from perceivers.data.formats.huggingface import is_hub_id
from perceivers.data.registry import PreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.escaping import json_text
from perceivers.hub.quantize import is_quantized
from perceivers.models.ensemble import Ensemble, members_of
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.registry import configclass
from perceivers.tasks.averaging import Views
from perceivers.tasks.registry import TaskConfig, build_task
from perceivers.typing import Tensor

_FILE_SUFFIXES = (".json", ".safetensors", ".bin", ".ckpt", ".pt", ".yaml")
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_MOST_MEMBERS = 1_000  # of an ensemble
_POINTER, _LARGEST_POINTER = b"version https://git-lfs", 1_000  # of Git LFS, with its bytes
FORMAT = 2  # of config.json and recipe.yaml; 1 is that of version 0.1
# Kind of a modality by the kind of its preprocessing, where they differ.
_AUDIO = {"wave": "audio", "mel": "audio", "pixels": "image", "class_map": "image"}


@configclass
class SavedConfig:
    """Contents of `config.json`.

    Attributes:
        format: Version of this file.
        model: Architecture of the model, or of each member of an ensemble.
        num_members: Number of models whose outputs are averaged. Their weights are `members.0.NAME`, `members.1.NAME`,
            ...; those of a single one have their plain names.
        mirrored: Modalities whose predictions are averaged with those for the mirrored sample.
        preprocess: Preprocessing of each modality, target modalities included.
        task: Task with its label names.
        columns: Origin of the training data: path, form, input columns and target.
    """

    format: int = FORMAT
    model: PerceiverConfig
    num_members: int = 1
    mirrored: tuple[str, ...] = ()
    preprocess: dict[str, PreprocessConfig] = field(default_factory=dict)
    task: TaskConfig | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def target_modalities(self) -> tuple[str, ...]:
        """Modalities that are targets and never inputs of the model."""
        return () if self.task is None else self.task.target_modalities

    def views(self) -> Views:
        """Return the other view of each modality over which predictions are averaged."""
        return {name: self.preprocess[name].mirrored for name in self.mirrored}

    def input_columns(self, *, targets: bool = False) -> dict[str, InputColumn]:
        """Return the columns of each modality in the training data, with `targets` also those of target modalities."""
        known: dict[str, Any] = self.columns.get("inputs", {})
        found: dict[str, InputColumn] = {}
        for name, part in self.preprocess.items():
            if name in self.target_modalities and not targets:
                continue
            column = known.get(name, name)
            if isinstance(column, str):  # a model that was saved without its data
                found[name] = InputColumn(column, _AUDIO.get(str(part.kind), str(part.kind)))
            else:
                columns, kinds = tuple(column["columns"]), tuple(column["kinds"])
                found[name] = InputColumn(column["column"], column["kind"], columns, kinds)
        return found


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A loaded model in evaluation mode, its saved configuration and its folder."""

    model: Perceiver | Ensemble
    config: SavedConfig
    folder: Path


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    preprocess: Mapping[str, Any] | None = None,
    task: TaskConfig | None = None,
    columns: Mapping[str, Any] | None = None,
    mirrored: Sequence[str] = (),
) -> None:
    """Write a `Perceiver` or an `Ensemble`, compiled or not, into a folder, which is created if it does not exist.

    Each file is written atomically; the contents are those of `SavedConfig`.

    Raises:
        OSError: If a file cannot be written. The message names it.
        ValueError: If the model has int8 weights, or was made without a configuration.
    """
    inner: Any = getattr(model, "_orig_mod", model)  # unwrap torch.compile
    if is_quantized(inner):
        raise ValueError(
            f"Expected a model in float32 to save in {folder}, got one with int8 weights, which are less precise. Load "
            "it again without quantize, and save that."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings: Any = {"preprocess": dict(preprocess or {}), "columns": dict(columns or {})}
    num_members = len(members_of(inner))
    settings |= {"num_members": num_members, "mirrored": tuple(mirrored)}
    config = SavedConfig(model=inner.config, task=task, **settings)
    tensors = {name: x.detach().cpu().contiguous() for name, x in inner.state_dict().items()}
    with atomic_write(folder / WEIGHTS_FILE) as path:
        try:
            save_file(tensors, path, {"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    atomic_write_text(folder / CONFIG_FILE, config_json(config))


def config_json(config: SavedConfig) -> str:
    """Return the contents of `config.json`.

    Raises:
        ValueError: If a statistic of the preprocessing is infinite.
    """
    content = TypeAdapter(SavedConfig).dump_python(config)
    if found := _infinite(content):
        raise ValueError(
            f"Expected finite numbers in the configuration of a model, got an infinite {found}: the data hold numbers "
            "too large to be averaged. `perceivers check DATA` names unreadable rows."
        )
    return json_text(content, indent=2, nan_as_null=True) + "\n"


def _infinite(value: Any, name: str = "value") -> str | None:
    """Return the dotted name of an infinite number in nested values, or None."""
    if isinstance(value, float):
        return name if math.isinf(value) else None
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value).items()
    elif isinstance(value, list | tuple):
        parts = enumerate(cast("Sequence[Any]", value))
    prefix = "" if name == "value" else f"{name}."
    return next(
        (found for key, part in parts if (found := _infinite(part, f"{prefix}{key}"))), None
    )


def load(source: str | Path, *, device: str | torch.device = "cpu") -> Saved:
    """Return a saved model with its configuration. See `from_pretrained`."""
    folder = _find(source)
    config = read_config(folder / CONFIG_FILE)
    model = _build_members(config, read_weights(folder), folder)
    _check_outputs(config, folder)
    return Saved(model=model.to(device).eval(), config=config, folder=folder)


def _build_members(
    config: SavedConfig, weights: Mapping[str, Tensor], folder: Path
) -> Perceiver | Ensemble:
    """Return a saved model, or the ensemble of its members.

    Raises:
        ValueError: If the weights are not those of the configuration.
    """
    if config.num_members == 1:
        return build_with_weights(config.model, weights, folder)
    if not 1 < config.num_members <= _MOST_MEMBERS:
        raise ValueError(
            f"The {CONFIG_FILE} in {folder} names {config.num_members} members: expected 1 to {_MOST_MEMBERS}."
        )
    parts: list[dict[str, Tensor]] = [{} for _ in range(config.num_members)]
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        number, _, own = rest.partition(".")
        if first != "members" or not number.isdecimal() or int(number) >= len(parts):
            raise ValueError(
                f"The weights in {folder} do not fit its {CONFIG_FILE}: {name} is not part of an ensemble of "
                f"{len(parts)} members. The two files belong to different models."
            )
        parts[int(number)][own] = tensor
    members = [build_with_weights(config.model, part, folder) for part in parts]
    return ensemble_of(members, config.task)


def ensemble_of(members: Sequence[Perceiver], task: TaskConfig | None) -> Ensemble:
    """Return the ensemble of some models, which averages as their task states."""
    if task is None:
        return Ensemble(members)
    return Ensemble(members, build_task(task).average_members)


def _check_outputs(config: SavedConfig, folder: Path) -> None:
    """Check that the task names as many classes, labels or numbers as the model predicts.

    Raises:
        ValueError: If not.
    """
    if config.task is None:
        return
    parts, output = config.task.output_parts(), config.model.output
    sizes: dict[str, Any] = {
        name: one.num_outputs for name, one in getattr(output, "outputs", {}).items()
    }
    sizes = sizes or {"label": getattr(output, "num_outputs", None)}
    for name, part in parts.items():
        only = next(iter(sizes.values())) if len(sizes) == len(parts) == 1 else None
        found = sizes.get(name, only)
        if found is not None and part.num_outputs and found != part.num_outputs:
            raise ValueError(
                f"The {CONFIG_FILE} in {folder} names {part.num_outputs} classes or numbers for its output '{name}', "
                f"and the model has {found}. The file was changed: expected one name for each output."
            )


def build_with_weights(
    config: PerceiverConfig, weights: Mapping[str, Tensor], folder: Path
) -> Perceiver:
    """Return the model of a configuration with these weights, of which the initial ones are never drawn.

    Raises:
        ValueError: If the weights are not those of the configuration. The message names the first differences.
    """
    try:
        with torch.device("meta"):
            model = build(config)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"The {CONFIG_FILE} in {folder} describes a model that cannot be built: {' '.join(str(error).split())}."
        ) from error
    empty = model.state_dict()
    problems = [f"{name} is missing" for name in empty if name not in weights]
    problems += [f"{name} is not part of the model" for name in weights if name not in empty]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in empty.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ValueError(
            f"The weights in {folder} do not fit its {CONFIG_FILE}: {'; '.join(problems[:3])}{more}. "
            "The two files belong to different models."
        )
    typed = {name: tensor.to(empty[name].dtype) for name, tensor in weights.items()}
    if any(map(_has_constants, model.modules())):  # which are not saved: they must be computed
        model = build(config)
    model.load_state_dict(typed, assign=True)
    return model


def _has_constants(module: nn.Module) -> bool:
    """Return whether a module on the meta device has tensors beside its weights."""
    saved = module.state_dict(keep_vars=True).values()
    tensors = [value for value in vars(module).values() if isinstance(value, Tensor)]
    tensors += module.buffers(recurse=False)
    return any(tensor.is_meta and all(tensor is not one for one in saved) for tensor in tensors)


def from_pretrained(
    source: str | Path, *, device: str | torch.device = "cpu"
) -> Perceiver | Ensemble:
    """Return the model of a run as a module, in evaluation mode; `perceivers.load` adds its preprocessing.

    A run of several folds is an `Ensemble`: its `members` are `Perceiver`s.

    Args:
        source: A run folder, or the id of a model on the Hugging Face hub. A path that exists wins.
        device: Device of the weights.

    Raises:
        OSError: If no model is saved there, or a file is unreadable or truncated.
        ValueError: If the files are not a saved model, or do not fit each other.
    """
    return load(source, device=device).model


def find_folder(source: str | Path, expected: str, files: Sequence[str]) -> Path:
    """Return the folder of a model, downloaded if it is on the hub.

    Args:
        source: A folder, or `user/name` on the hub. A path that exists wins.
        expected: Description of the folder, for error messages.
        files: Names or patterns of the files that are downloaded.

    Raises:
        OSError: If there is no such folder, and it cannot be downloaded.
    """
    folder, name = Path(source), str(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        hint = f" Give the folder that it is in: {folder.parent}." if _is_of_model(folder) else ""
        raise OSError(f"{folder} is a file. Expected {expected}.{hint}")
    if ":" in name or not is_hub_id(name, suffixes=_FILE_SUFFIXES):
        raise OSError(
            f"{source} does not exist. Expected {expected}, or `user/name` of a model on the hub."
        )
    from huggingface_hub import snapshot_download

    owned = name.rpartition("/")[2]
    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # errors of the hub have no common base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(
            f"There is no folder {name}, and it could not be loaded from the Hugging Face hub either: {reason}. "
            f"Without a connection to the hub, run `hf download {name} --local-dir {owned}` on another machine, copy "
            f"the folder here, and give its path instead of {name}. If access to it is restricted, accept its terms on "
            "its page and log in first: `hf auth login`."
        ) from error


def _is_of_model(path: Path) -> bool:
    """Return whether a file is one of those in the folder of a model."""
    return path.name == CONFIG_FILE or path.suffix in (".safetensors", ".bin")


def _find(source: str | Path) -> Path:
    """Return the folder of a saved model, downloaded if it is on the hub."""
    expected = (
        f"a run folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as `perceivers fit` (its last lines name it) and "
        "`pv.save` write it"
    )
    folder = find_folder(source, expected, (CONFIG_FILE, WEIGHTS_FILE))
    if not (folder / CONFIG_FILE).is_file():
        raise OSError(
            f"{folder} is not a run folder: it has no {CONFIG_FILE}. Expected {expected}."
        )
    return folder


def read_config(path: Path) -> SavedConfig:
    """Return the contents of a `config.json`.

    Raises:
        OSError: If it is missing.
        ValueError: If it is no saved configuration. The message names the first wrong field.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise OSError(
            f"{path} is missing: {path.parent} is not a saved model of perceivers."
        ) from error
    place = f"{path} is not a configuration of perceivers: at the file"
    content = load_json(text, place)
    if isinstance(content, dict) and "model" not in content:
        raise ValueError(_foreign(cast("dict[str, Any]", content), path))
    check_format(content, path)
    try:
        return TypeAdapter(SavedConfig).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(
            f"{path} is not a configuration of perceivers: at {place}: {first['msg']}. Expected the "
            f"{CONFIG_FILE} that `perceivers fit` or `pv.save` wrote, unchanged."
        ) from error


def _foreign(content: Mapping[str, Any], path: Path) -> str:
    """Return the message on a `config.json` that describes no model of perceivers."""
    if "model_type" not in content and "architectures" not in content:
        return f"{path} is not a configuration of perceivers: it has no key 'model'. Expected a run folder."
    return (
        f"{path} describes a model of transformers. Expected a run folder; `perceivers convert {path.parent} --out RUN`"
        " writes one from each of its Perceivers."
    )


def check_format(content: Any, path: Path) -> None:
    """Check that this version wrote a file of a run, by its key `format`; without one, it is of version 0.1.

    Raises:
        ValueError: If the format is not `FORMAT`.
    """
    found = content.get("format", 1) if isinstance(content, dict) else FORMAT
    if found != FORMAT:
        version = "0.1" if found == 1 else "another version"
        raise ValueError(
            f"{path} was written by perceivers {version}: expected format {FORMAT}, got {found}. Train again with this "
            "version, or use the run with the version that wrote it."
        )


def read_weights(folder: Path, name: str = WEIGHTS_FILE) -> dict[str, Tensor]:
    """Return the weights of a folder by name, from a safetensors file or else a pickle of tensors.

    Raises:
        OSError: If there is no such file, or it is truncated.
        ValueError: If there is only a pickle of other objects.
    """
    path = folder / name
    if not path.is_file():
        others = sorted(p for end in ("*.bin", "*.pt", "*.pth") for p in folder.glob(end))
        if others:
            return _read_pickle(others[0])
        raise OSError(
            f"{folder} has no {name}. Copy it there, or if the training of this run was interrupted: `fit --resume`."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        if path.stat().st_size < _LARGEST_POINTER and path.read_bytes().startswith(_POINTER):
            raise OSError(
                f"{path} is a pointer of Git LFS, not the weights. Fetch them: `git lfs pull` in that folder."
            ) from error
        raise OSError(
            f"{path} cannot be read as safetensors ({error}): it is truncated or another kind of file. "
            "Copy it again from where it came from."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle that holds nothing else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} was refused: it is truncated or not a plain file of tensors, and unpickling anything else "
            f"could run code. Expected {WEIGHTS_FILE}."
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise ValueError(f"{path} does not hold weights by name. Expected {WEIGHTS_FILE}.")
    return loaded
