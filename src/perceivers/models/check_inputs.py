"""Checks of the tensors that a caller gives to a model, with the expected shape in the message."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from perceivers.data.base import nearest


class ExpectedInput(NamedTuple):
    """Shape of a modality's tensor without the batch, and whether it holds numbers with a fraction."""

    shape: tuple[int, ...]
    is_float: bool

    @property
    def text(self) -> str:
        """The expected tensor, `float of B x 3 x 224 x 224`."""
        kind = "float" if self.is_float else "integers"
        return f"{kind} of {' x '.join(['B', *map(str, self.shape)])}"


def expected_inputs(adapters: Mapping[str, nn.Module]) -> dict[str, ExpectedInput]:
    """Return the expected tensor of each modality whose adapter makes examples. No memory is allocated."""
    found: dict[str, ExpectedInput] = {}
    for name, adapter in adapters.items():
        if hasattr(adapter, "example"):
            with torch.device("meta"):
                example = cast("Any", adapter).example(1)
            found[name] = ExpectedInput(tuple(example.shape[1:]), example.is_floating_point())
    return found


def check_inputs(
    inputs: Any,
    masks: Any,
    known: Collection[str],
    expected: Mapping[str, ExpectedInput],
    device: torch.device | None,
) -> None:
    """Check the arguments of a model's forward pass.

    Args:
        inputs: A tensor for each modality, by name.
        masks: A mask for some of them, by name, or None.
        known: Modalities of the model.
        expected: Expected tensor of each, where known.
        device: Device of the model's parameters. None: unknown.

    Raises:
        KeyError: If a modality is unknown, or none is given.
        TypeError: If an argument is no mapping of tensors.
        ValueError: If a tensor has another rank, batch size or device, or another type of numbers.
    """
    _check_mapping("inputs", inputs, known)
    if not inputs or not set(inputs) <= set(known):
        unknown = next((str(name) for name in inputs if name not in known), "")
        hint = nearest(unknown, known) if unknown else ""
        raise KeyError(
            f"Expected the modalities {sorted(known)}, got {sorted(map(str, inputs))}.{hint}"
        )
    counts: dict[str, int] = {}
    for name, tensor in inputs.items():
        _check_tensor(f"inputs['{name}']", tensor, expected.get(name), device)
        counts[name] = tensor.shape[0]
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(
            f"Expected as many samples of each modality (the first axis), got {got}. A modality that only some samples "
            "have needs a row for each sample, and a mask."
        )
    if masks is not None:
        _check_mapping("masks", masks, known)
        for name, mask in masks.items():
            _check_mask(name, mask, known, counts)


def _check_mapping(argument: str, value: Any, known: Collection[str]) -> None:
    if not isinstance(value, Mapping):
        first = next(iter(known), "image")
        raise TypeError(
            f"Expected {argument} by the name of their modality, {{'{first}': tensor}}, got {_described(value)}."
        )


def _described(value: Any) -> str:
    """Return a value's type and, if it has one, its shape."""
    shape = getattr(value, "shape", None)
    kind = type(value)
    name = (
        kind.__name__
        if kind.__module__ in ("builtins", "torch")
        else f"{kind.__module__}.{kind.__name__}"
    )
    return f"a {name}" if shape is None else f"a {name} of shape {tuple(shape)}"


def _check_tensor(
    name: str, tensor: Any, expected: ExpectedInput | None, device: torch.device | None
) -> None:
    text = "" if expected is None else f" ({expected.text})"
    if not isinstance(tensor, torch.Tensor):
        is_array = hasattr(tensor, "__array__") and hasattr(tensor, "shape")
        hint = "torch.from_numpy" if is_array else "torch.tensor"
        raise TypeError(
            f"Expected {name} to be a torch.Tensor{text}, got {_described(tensor)}. Convert it by {hint}(...), or give "
            "files and arrays to a predictor (pv.load), which decodes and preprocesses them as in training."
        )
    if (
        device is not None
        and tensor.device.type != device.type
        and "meta"
        not in (
            device.type,
            tensor.device.type,
        )
    ):
        raise ValueError(
            f"{name} is on {tensor.device} and the model on {device}: move one of them with .to(...)."
        )
    if expected is None:
        return
    if tensor.ndim == len(expected.shape):
        raise ValueError(
            f"Expected {name} with a batch dimension ({expected.text}), got shape {tuple(tensor.shape)}. Add one: "
            "tensor[None]."
        )
    if tensor.ndim != len(expected.shape) + 1:
        raise ValueError(f"Expected {name} as {expected.text}, got shape {tuple(tensor.shape)}.")
    _check_dtype(name, tensor, expected)


def _check_dtype(name: str, tensor: torch.Tensor, expected: ExpectedInput) -> None:
    if expected.is_float and not tensor.is_floating_point():
        raise ValueError(
            f"Expected {name} as {expected.text}, preprocessed as in training (pixels of 0 to 255 are divided by 255 "
            f"and normalized), got {tensor.dtype}. A predictor (pv.load) preprocesses raw data; values that are "
            "preprocessed already are converted by .float()."
        )
    is_integer = not tensor.is_floating_point() and not tensor.is_complex()
    if not expected.is_float and (not is_integer or tensor.dtype == torch.bool):
        raise ValueError(
            f"Expected {name} as {expected.text}, got {tensor.dtype}. Convert them by .long()."
        )


def _check_mask(name: str, mask: Any, known: Collection[str], counts: Mapping[str, int]) -> None:
    if name not in known:
        raise KeyError(
            f"masks has '{name}', which is no modality of the model.{nearest(name, known)}"
        )
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool or mask.ndim != 2:
        got = f" of {mask.dtype}" if isinstance(mask, torch.Tensor) else ""
        raise ValueError(
            f"Expected masks['{name}'] as a bool tensor of B x L, True where the second axis of the input is real, got "
            f"{_described(mask)}{got}."
        )
    if name in counts and mask.shape[0] != counts[name]:
        raise ValueError(
            f"Expected a row of masks['{name}'] for each of {counts[name]} samples, got {mask.shape[0]}."
        )
