"""Three linear layers as one product: same numbers, parameters apart."""

import pytest
import torch
from torch import nn

from perceivers.nn import attention as attention_module
from perceivers.nn.attention import Attention
from perceivers.nn.fused import can_fuse, fused_linear
from support.tolerance import assert_close


def layers(dtype=torch.float64):
    return [nn.Linear(5, width, dtype=dtype) for width in (4, 4, 6)]


def test_outputs_and_gradients_are_those_of_the_layers_one_by_one():
    own = layers()
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    parameters = [x, *(p for layer in own for p in layer.parameters())]
    weights = [torch.randn(2, 3, layer.out_features, dtype=torch.float64) for layer in own]

    def gradients(outputs):
        total = sum((out * w).sum() for out, w in zip(outputs, weights, strict=True))
        return [*outputs, *torch.autograd.grad(total, parameters)]

    for ours, theirs in zip(
        gradients(fused_linear(x, own)), gradients([layer(x) for layer in own]), strict=True
    ):
        assert_close(ours, theirs)


def test_weights_are_not_copied_for_the_backward_pass():
    own, kept = layers(), []
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        fused_linear(x, own)
    addresses = {layer.weight.data_ptr() for layer in own}
    copies = [t for t in kept if t.shape[-1] == 5 and t.ndim == 2]
    assert len(copies) == 3
    assert {t.data_ptr() for t in copies} == addresses


@pytest.mark.parametrize("grad", [True, False])
def test_self_attention_is_the_same_when_fused(monkeypatch, grad):
    torch.manual_seed(0)
    layer = Attention(8, 8, num_heads=2).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        apart = layer(x, x)
        monkeypatch.setattr(attention_module, "can_fuse", lambda *_: True)
        assert_close(layer(x, x), apart)


def test_nothing_is_fused_on_a_cpu():
    assert not can_fuse(layers(), torch.zeros(1, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_it_is_fused_also_under_autocast(dtype):
    own = nn.ModuleList(layers(torch.float32)).cuda()
    x = torch.randn(2, 3, 5, device="cuda")
    assert can_fuse(list(own), x)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        fused = fused_linear(x, list(own))
        apart = [layer(x) for layer in own]
    for ours, theirs in zip(fused, apart, strict=True):
        assert_close(ours, theirs)
    sum(out.float().sum() for out in fused).backward()
    assert all(p.grad.dtype == torch.float32 for p in own.parameters())
