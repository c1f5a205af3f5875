"""Latents of a frozen encoder, computed once: afterwards the output trains in seconds an epoch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from perceivers.console import tracked
from perceivers.data.base import Batch, atomic_write
from perceivers.data.fingerprint import value_fingerprint
from perceivers.data.loading.array_rows import ArrayRows
from perceivers.data.loading.loader import Loader
from perceivers.data.loading.sampler import BatchSampler
from perceivers.models.perceiver import LATENTS, Perceiver
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.splits import fingerprint_of
from perceivers.training.dataloaders import ProcessInfo, build_loaders
from perceivers.training.freezing import frozen_parts
from perceivers.typing import Tensor
from perceivers.wording import counted

FOLDER = "latents"
_ENCODER = ("inputs.", "fusion.", "encoder.")
_ROWS = "rows"
_TARGETS = "targets"


def check_cacheable(recipe: Recipe, model: Perceiver, *, processes: int, is_stream: bool) -> None:
    """Check that latents can be computed once for a whole run.

    Raises:
        ValueError: If the encoder is trained, outputs depend on more than latents, or rows cannot be read by index.
    """
    parts = [part for part in frozen_parts(recipe.training.freeze, model) if part.epochs is None]
    trained = [
        name
        for name, _ in model.named_parameters()
        if name.startswith(_ENCODER) and not any(part.holds(name) for part in parts)
    ]
    if trained:
        raise ValueError(
            f"--cache-latents computes latents once, but {trained[0]} is trained. Expected a frozen encoder: --freeze "
            "encoder."
        )
    if not model.decodes_latents_alone:
        raise ValueError(
            "--cache-latents needs outputs of the latents alone, but those of this model also depend on the input "
            "elements. Leave --cache-latents out."
        )
    if not recipe.task.requires_labels or recipe.task.target_modalities:
        raise ValueError(
            "--cache-latents needs a task that learns labels. Leave --cache-latents out."
        )
    if is_stream or processes > 1:
        raise ValueError("--cache-latents needs rows that are read by index, and a single process.")


def cached_loaders(
    run: ResolvedRun, model: Perceiver, *, folder: Path, batch_size: int, process: ProcessInfo
) -> tuple[Loader, Loader, str]:
    """Return training and validation loaders of latents, computed now or read from a file, and a sentence.

    Files are named by a fingerprint of the rows, the preprocessing, the augmentation and the weights of the encoder, so
    that latents of other data or of another model are never read.

    Args:
        run: Recipe, preprocessing and data.
        model: The model with the weights that it starts from.
        folder: The run folder. Files are in its folder `latents`, or in that of `data.cache`.
        batch_size: Samples of a batch.
        process: This process.
    """
    copies = run.recipe.training.cache_latents or 1
    recipe = replace(run.recipe, augment=_unmixed(run.recipe.augment) if copies > 1 else {})
    place = Path(run.recipe.data.cache or folder) / FOLDER
    name = _fingerprint(run, recipe, model)
    others = [path for path in place.glob("*.safetensors") if not path.name.startswith(name)]
    computed, damaged = 0, False
    loaders: list[Loader] = []
    both = build_loaders(
        run.data, recipe, run.preprocess, batch_size=batch_size, process=process, drop_last=False
    )
    for split, loader, number in zip(("train", "validation"), both, (copies, 1), strict=True):
        path = place / f"{name}-{split}.safetensors"
        rows = _read(path)
        if rows is None:
            damaged = damaged or path.is_file()
            rows = _compute(model, loader, number)
            _write(path, rows)
            computed += rows.arrays.shape[0] * len(rows)
        loader.close()
        settings = replace(loader.settings, num_workers=0, drop_last=True)
        loaders.append(Loader(rows, BatchSampler(len(rows), settings)))
    train, validation = loaders
    what = f"{counted(computed, 'sample')} computed" if computed else "read"
    why = ""
    if damaged:
        why = " A file of them was damaged and is written again."
    elif computed and others:
        why = f" {counted(len(others), 'file')} of other data, settings or weights there {_are(others)} not used."
    return train, validation, f"Latents of the frozen encoder: {what}, in {place}.{why}"


def _are(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _compute(model: Perceiver, loader: Any, copies: int) -> ArrayRows:
    """Return the latents of all rows of a loader, of as many epochs."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    arrays: np.ndarray[Any, Any] | None = None
    targets: dict[int, Tensor | dict[str, Tensor]] = {}
    try:
        for copy in range(copies):
            loader.set_epoch(copy)
            total = copies * len(loader.dataset)
            done = copy * len(loader.dataset)
            for batch in tracked(loader, total, "sample", size=len, start=done):
                moved: Batch = batch.to(device)
                with torch.inference_mode():
                    latents = model.encode(moved.inputs, moved.masks).float().cpu().numpy()
                if arrays is None:
                    shape = (copies, len(loader.dataset), *latents.shape[1:])
                    arrays = np.zeros(shape, dtype=np.float32)
                arrays[copy][list(batch.rows)] = latents
                if copy == 0:
                    targets |= {row: _target(batch, place) for place, row in enumerate(batch.rows)}
    finally:
        model.train(was_training)
    if arrays is None:
        raise ValueError("Expected rows that can be read, got none.")
    rows = np.array(sorted(targets), dtype=np.int64)
    return ArrayRows(
        LATENTS,
        arrays[:, rows],
        _stacked([targets[row] for row in rows.tolist()]),
        rows,
        dict(loader.bad),
    )


def _target(batch: Batch, place: int) -> Any:
    found = batch.targets
    assert found is not None
    if isinstance(found, Tensor):
        return found[place]
    return {name: part[place] for name, part in found.items()}


def _stacked(targets: list[Any]) -> Any:
    first = targets[0]
    if isinstance(first, Tensor):
        return torch.stack(targets)
    return {name: torch.stack([one[name] for one in targets]) for name in first}


def _read(path: Path) -> ArrayRows | None:
    """Return the rows in a file. None: there is none, or it is damaged."""
    if not path.is_file():
        return None
    try:
        found = load_file(path)
        parts: Any = {
            name.removeprefix(f"{_TARGETS}."): found[name]
            for name in found
            if name.startswith(f"{_TARGETS}.")
        }
        targets = found.get(_TARGETS)
        return ArrayRows(
            LATENTS,
            found[LATENTS].numpy(),
            parts if targets is None else targets,
            found[_ROWS].numpy(),
            {},
        )
    except (OSError, SafetensorError, KeyError):
        return None


def _write(path: Path, rows: ArrayRows) -> None:
    tensors = {LATENTS: torch.from_numpy(rows.arrays), _ROWS: torch.from_numpy(rows.rows)}
    if isinstance(rows.targets, Tensor):
        tensors[_TARGETS] = rows.targets
    else:
        tensors |= {f"{_TARGETS}.{name}": part for name, part in rows.targets.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as new:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new)


def _fingerprint(run: ResolvedRun, recipe: Recipe, model: Perceiver) -> str:
    """Return a fingerprint of all that latents depend on."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(_ENCODER):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    settings = {
        "weights": digest.hexdigest(),
        "rows": fingerprint_of(run.data.identities),
        "columns": {name: asdict(part) for name, part in run.data.inputs.items()},
        "preprocess": {name: asdict(part) for name, part in run.preprocess.items()},
        "augment": {name: asdict(part) for name, part in recipe.augment.items()},
        "copies": run.recipe.training.cache_latents,
        "seed": run.recipe.training.seed,
        "target": run.data.target,
    }
    return value_fingerprint([settings])


def _unmixed(augment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the augmentation without mixing of samples, whose latents belong to no row."""
    found: dict[str, Any] = {}
    for name, part in augment.items():
        off = {key: type(getattr(part, key))() for key in ("mixup", "cutmix") if hasattr(part, key)}
        found[name] = replace(part, **off)
    return found
