"""Several linear layers of one input as one matrix product, with separate parameters.

The parameters are separate because LAMB's trust ratio is one number for each tensor. One wide product is faster on a
GPU than three narrow ones; on a CPU it is not (docs/log.md), and nothing is fused.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from perceivers.typing import Float, Tensor


def can_fuse(layers: Sequence[nn.Module], x: Tensor) -> bool:
    """Return whether the layers are plain linear ones, on a device where fusing is faster.

    Quantized layers and those of other libraries have another forward pass. A compiler sees the three products and
    decides by itself.
    """
    plain = all(type(layer) is nn.Linear for layer in layers)
    return plain and x.is_cuda and not torch.compiler.is_compiling()


def fused_linear(x: Float[Tensor, "*b Ci"], layers: Sequence[nn.Linear]) -> tuple[Tensor, ...]:
    """Return the output of each layer, by one matrix product forward and two backward.

    The weights are concatenated for the product only: no copy of them is kept for the backward pass.

    Args:
        x: The input of all layers.
        layers: Layers with a bias and of one input width.
    """
    parameters = [layer.weight for layer in layers] + [layer.bias for layer in layers]
    sizes = [layer.out_features for layer in layers]
    return _SideBySide.apply(x, *parameters).split(sizes, dim=-1)  # pyright: ignore


class _SideBySide(torch.autograd.Function):
    """One product with concatenated weights, in both directions."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")  # pyright: ignore[reportUntypedFunctionDecorator]
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """Return the outputs side by side. Half of the parameters are weights, half biases."""
        weights, biases = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
        ctx.save_for_backward(x, *weights)
        ctx.bias_dtype = biases[0].dtype
        return linear(x, torch.cat(weights), torch.cat(biases))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # pyright: ignore[reportUntypedFunctionDecorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of the input, the weights and the biases."""
        x, *weights = ctx.saved_tensors
        (gradient,) = gradients
        sizes = [weight.shape[0] for weight in weights]
        flat = gradient.flatten(0, -2)
        dx = linear(gradient, torch.cat(weights).T.to(gradient.dtype))
        dw = flat.T @ x.flatten(0, -2).to(flat.dtype)
        db = flat.sum(dim=0)
        return (
            dx.to(x.dtype),
            *(part.to(weights[0].dtype) for part in dw.split(sizes)),
            *(part.to(ctx.bias_dtype) for part in db.split(sizes)),
        )
