import pytest
import torch
from jaxtyping import TypeCheckError
from torch.utils._python_dispatch import TorchDispatchMode

from perceivers.nn.attention import Attention
from support.tolerance import assert_close


@pytest.mark.parametrize(("qk", "v"), [(8, 8), (4, 8), (8, 4)])
def test_forward_equals_weights_times_values(qk, v):
    attention = Attention(8, 6, num_heads=2, qk_channels=qk, v_channels=v)
    query, source = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)

    weights = attention.weights(query, source, mask)
    values = attention.to_value(source).view(2, 5, 2, v // 2).transpose(1, 2)
    expected = attention.to_output((weights @ values).transpose(1, 2).reshape(2, 3, v))

    assert_close(attention(query, source, mask), expected)
    assert_close(weights.sum(-1), torch.ones(2, 2, 3))


def test_scores_are_divided_by_the_root_of_a_heads_width():
    attention = Attention(8, 8, num_heads=2)
    x = torch.randn(1, 3, 8)
    q = attention.to_query(x).view(1, 3, 2, 4).transpose(1, 2)
    k = attention.to_key(x).view(1, 3, 2, 4).transpose(1, 2)
    assert_close(attention.scores(x, x), q @ k.transpose(-1, -2) / 2.0)


def test_padding_is_never_read():
    attention = Attention(8, 6, num_heads=2)
    query, source = torch.randn(1, 3, 8), torch.randn(1, 5, 6)
    mask = torch.tensor([[True, True, True, False, False]])
    assert_close(attention(query, source, mask), attention(query, source[:, :3]))


def test_row_of_padding_only_reads_zero():
    attention = Attention(8, 6, num_heads=2)
    torch.nn.init.normal_(attention.to_output.bias)
    torch.nn.init.normal_(attention.to_value.bias)
    none = torch.zeros(1, 5, dtype=torch.bool)
    query, source = torch.randn(1, 3, 8), torch.randn(1, 5, 6, requires_grad=True)
    out = attention(query, source, none)
    assert_close(out, attention.to_output.bias.expand(1, 3, 8))
    assert not attention.weights(query, source, none).any()
    (gradient,) = torch.autograd.grad(out.sum(), source)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("width", ["qk_channels", "v_channels"])
def test_heads_that_do_not_divide_name_the_width(width):
    with pytest.raises(ValueError, match=rf"num_heads=3 does not divide {width}=8"):
        Attention(8, 6, num_heads=3, **{"qk_channels": 9, "v_channels": 9, width: 8})


def test_swapped_batch_and_length_is_caught():
    attention = Attention(8, 8)
    with pytest.raises(TypeCheckError):
        attention(torch.randn(2, 3, 8), torch.randn(5, 2, 8))


class LargestResult(TorchDispatchMode):
    """Remembers the number of values in the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("qk", "v"), [(16, 16), (8, 16)])
def test_no_array_of_scores_exists_forward_or_backward(masked, qk, v):
    attention = Attention(16, 16, num_heads=2, qk_channels=qk, v_channels=v)
    query = torch.randn(1, 512, 16, requires_grad=True)
    source = torch.randn(1, 1024, 16, requires_grad=True)
    mask = torch.rand(1, 1024) < 0.5 if masked else None
    with LargestResult() as watch:
        attention(query, source, mask).sum().backward()
    assert 0 < watch.largest < 512 * 1024 / 4
    with LargestResult() as watch:
        attention.weights(query, source, mask)
    assert watch.largest == 2 * 512 * 1024  # the watch sees such an array where there is one
