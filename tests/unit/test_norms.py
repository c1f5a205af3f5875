import pytest
import torch
from torch import nn

from perceivers.training.optim import clip_gradients, local, tensor_norms


def with_gradients(*values):
    parameters = [nn.Parameter(torch.zeros(len(v))) for v in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_norms_are_one_for_each_tensor():
    assert tensor_norms([torch.tensor([3.0, 4.0]), torch.zeros(2, 2)]).tolist() == [5.0, 0.0]


def test_a_long_gradient_is_scaled_to_the_limit():
    parameters = with_gradients([3.0], [0.0, 4.0])
    assert clip_gradients(parameters, 1.0).item() == 5.0
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]))


@pytest.mark.parametrize("limit", [5.0, 7.0, None])
def test_a_gradient_within_the_limit_stays_exactly_as_it_is(limit):
    parameters = with_gradients([3.0], [4.0])
    assert clip_gradients(parameters, limit).item() == 5.0
    assert parameters[0].grad.item() == 3.0


def test_without_gradients_the_norm_is_zero():
    assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0).item() == 0.0


def test_the_part_of_a_whole_tensor_is_the_tensor():
    tensor = torch.ones(2)
    assert local(tensor) is tensor


def test_tensors_on_two_meshes_are_refused():
    class Mesh:
        ndim = 1

    class Sharded(torch.Tensor):
        pass

    like = [torch.ones(1).as_subclass(Sharded), torch.ones(1).as_subclass(Sharded)]
    for tensor in like:
        tensor.device_mesh = Mesh()
    with pytest.raises(ValueError, match="sharded over one line of devices"):
        tensor_norms([torch.ones(1), torch.ones(1)], like=like)
