import pytest
import torch

from perceivers.nn.dropout import dropout


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_share_of_the_values_is_left_out_and_the_mean_stays(share):
    torch.manual_seed(0)
    out = dropout(torch.ones(400, 501), share)
    assert out.shape == (400, 501)
    assert abs((out == 0).double().mean().item() - share) < 0.005
    assert abs(out.mean().item() - 1) < 0.02
    assert torch.equal(out[out != 0].unique(), torch.tensor([1 / (1 - share)]))


def test_neighbors_are_left_out_independently():
    torch.manual_seed(0)
    left_out = (dropout(torch.ones(100_000), 0.5) == 0).double()
    for distance in (1, 2, 3, 4):
        both = (left_out[:-distance] * left_out[distance:]).mean().item()
        assert abs(both - 0.25) < 0.01


def test_the_seed_decides_what_is_left_out():
    x = torch.randn(7, 3)
    torch.manual_seed(1)
    first = dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)


def test_gradients_pass_where_values_are_kept():
    x = torch.randn(50, requires_grad=True)
    out = dropout(x, 0.5)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
