"""int8 weights for prediction on the CPU: four times smaller, and faster where layers are wide.

The linear layers of the latent transformer and the MLPs are quantized, where most of the time goes. They
lose little: every output channel of a weight has its own scale, and so has every row of the input, so an
output does not depend on the other samples of its batch. The reads of the input stay in float32: positions
of high frequency separate neighbors by small differences.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from perceivers.nn.blocks import CrossAttend, SelfAttend
from perceivers.typing import Float, Int, Tensor, UInt8

Model = TypeVar("Model", bound=nn.Module)

# `int8` stays in float32 where int8 would not be faster; `int8-always` does not ask.
Quantize = Literal["int8", "int8-always"]

# Minimum speed-up of a layer; less is within the variation between measurements.
WORTHWHILE = 1.2

_ROWS = 512  # of the trial, where the model does not say how many latents it has
_TRIALS = 7
_MIDDLE = 128  # the kernels take unsigned activations, so zero is moved here
_LARGEST = 127
_TINY = 1e-30  # a row of zeros has a scale, too


class Int8Linear(nn.Module):
    """A linear layer for prediction, its weight in int8 and its arithmetic in int8 x int8 -> int32.

    It replaces a layer on the CPU and has no `weight`: the kernel keeps it in another order.

    Raises:
        RuntimeError: If this PyTorch has no int8 kernels for this processor.
    """

    weight_scale: Float[Tensor, " O"]
    weight_zero: Int[Tensor, " O"]
    bias: Float[Tensor, " O"] | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        state = linear.state_dict()
        weight, bias = state["weight"].float(), state.get("bias")
        scale = weight.abs().amax(dim=1).clamp_min_(_TINY).div_(_LARGEST)
        rounded = (weight / scale[:, None]).round_().to(torch.int8)
        # Not persistent: what is saved is the float32 model, from which this one is made in no time.
        packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("weight_scale", scale, persistent=False)
        self.register_buffer("weight_zero", zero, persistent=False)
        self.register_buffer(
            "bias", None if bias is None else bias.float().clone(), persistent=False
        )

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Return the layer's output in the dtype of `x`, without gradients."""
        rows, scale = _quantize_rows(x.detach().reshape(-1, self.in_features).float())
        product = torch.ops.onednn.qlinear_pointwise(
            *(rows, 1.0, _MIDDLE),
            *(self.packed, self.weight_scale, self.weight_zero),
            *(None, 1.0, 0, torch.float32, "none", [], ""),
        )
        product.mul_(scale)
        if self.bias is not None:
            product.add_(self.bias)
        return product.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return the widths, for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


@dataclass(frozen=True, kw_only=True)
class Int8Plan:
    """The layers of a model for which int8 is faster.

    Attributes:
        names: The layers to quantize, as modules of the model.
        num_layers: Number of layers that could have been.
        speeds: Speed of int8 relative to float32 for each pair of widths (in, out). Empty where nothing was timed.
        has_kernels: Whether this PyTorch multiplies int8 matrices on this processor, exactly.
    """

    names: tuple[str, ...]
    num_layers: int
    speeds: dict[tuple[int, int], float]
    has_kernels: bool = True

    def sentence(self) -> str:
        """Return the decision in words."""
        if not self.has_kernels:
            return (
                "Staying in float32: this PyTorch cannot multiply int8 matrices exactly on this processor "
                "(that takes x86-64 with VNNI, or the like)."
            )
        if not self.num_layers:
            return "Staying in float32: this model has no linear layers that int8 is for."
        found = ", ".join(
            f"{speed:.1f} times as fast at {i} x {o}" for (i, o), speed in self.speeds.items()
        )
        if not self.names:
            return (
                f"Staying in float32: int8 is not worth it for this model on this machine ({found}; at "
                f"least {WORTHWHILE} is asked for). 'int8-always' quantizes all the same."
            )
        why = f": {found}" if found else ""
        return f"int8 weights in {len(self.names)} of {self.num_layers} linear layers{why}."


def plan_int8(model: nn.Module, *, always: bool = False) -> Int8Plan:
    """Return the layers of a model to quantize, found by timing one of each shape.

    Timed rather than looked up by width, because where int8 begins to pay off depends on the processor: at
    256 channels on one with VNNI, never on one without. It takes some tenths of a second.

    With `always` it is every layer that int8 is for, also where it is slower.

    Raises:
        ValueError: If `always` is asked for and there are no int8 kernels here.
    """
    layers = int8_layers(model)
    if not _has_kernels():
        plan = Int8Plan(names=(), num_layers=len(layers), speeds={}, has_kernels=False)
        if always:
            raise ValueError(plan.sentence().replace("Staying in float32", "Expected int8 kernels"))
        return plan
    if always:
        return Int8Plan(names=tuple(layers), num_layers=len(layers), speeds={})
    one_of_each = {_widths(linear): linear for linear in layers.values()}
    config = getattr(getattr(model, "encoder", None), "config", None)
    rows = getattr(config, "num_latents", _ROWS)  # of a layer's input for one sample
    speeds = {widths: _speed(linear, rows) for widths, linear in one_of_each.items()}
    names = tuple(n for n, linear in layers.items() if speeds[_widths(linear)] >= WORTHWHILE)
    return Int8Plan(names=names, num_layers=len(layers), speeds=speeds)


def quantize_int8(model: Model, plan: Int8Plan | None = None) -> Model:
    """Put int8 weights into a float32 model in place, which from then on predicts and cannot be trained or saved.

    By default `plan_int8` chooses the layers.

    Raises:
        ValueError: If the model is not on the CPU.
    """
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices - {"cpu"}:
        raise ValueError(
            f"int8 weights are for prediction on the CPU; the model is on {', '.join(sorted(devices))}. "
            "Choose the device cpu, or leave the model in float32."
        )
    plan = plan_int8(model) if plan is None else plan
    if not plan.names:
        return model
    model.requires_grad_(requires_grad=False)
    for name in plan.names:
        parent, _, child = name.rpartition(".")
        linear: Any = model.get_submodule(name)
        setattr(model.get_submodule(parent), child, Int8Linear(linear))
    return model


def is_quantized(model: nn.Module) -> bool:
    """Return whether a model holds int8 weights."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def _quantize_rows(
    x: Float[Tensor, "R I"],
) -> tuple[UInt8[Tensor, "R I"], Float[Tensor, "R 1"]]:
    """Return each row as integers of [1, 255] around 128, and the size of one step."""
    largest = x.abs().amax(dim=-1, keepdim=True).clamp_min_(_TINY)
    # Adding a half makes the cast, which cuts off, round.
    whole = x.mul(_LARGEST / largest).add_(_MIDDLE + 0.5).to(torch.uint8)
    return whole, largest.div_(_LARGEST)


def int8_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that int8 is for, by name."""
    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if isinstance(module, SelfAttend):
            inner = module.named_modules(prefix=name)
        elif isinstance(module, CrossAttend):
            inner = module.mlp.named_modules(prefix=f"{name}.mlp")
        else:
            continue
        found |= {key: linear for key, linear in inner if isinstance(linear, nn.Linear)}
    return found


def _widths(linear: nn.Linear) -> tuple[int, int]:
    return linear.in_features, linear.out_features


@torch.inference_mode()
def _speed(linear: nn.Linear, rows: int) -> float:
    """Return the speed of the layer in int8 relative to float32, by the best of some alternating trials."""
    x = torch.linspace(-1, 1, rows * linear.in_features).view(rows, linear.in_features)
    layers: tuple[nn.Module, nn.Module] = linear, Int8Linear(linear)
    best = [float("inf")] * 2
    for trial in range(_TRIALS + 1):
        for place, layer in enumerate(layers):
            start = time.perf_counter()
            layer(x)
            if trial:  # the first call also finds its kernel
                best[place] = min(best[place], time.perf_counter() - start)
    return best[0] / best[1]


def _has_kernels() -> bool:
    """Return whether int8 matrices are multiplied here, and without losing sums that leave 16 bits.

    Processors without VNNI add pairs of products in 16 bits, which overflows at these values.
    """
    with torch.random.fork_rng(devices=[]):  # a plan draws no random numbers of others
        layer = nn.Linear(64, 16, bias=False)
    nn.init.ones_(layer.weight)
    x = torch.ones(2, 64)
    try:
        return torch.allclose(Int8Linear(layer)(x), layer(x))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
