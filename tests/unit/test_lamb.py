import numpy as np
import pytest
import torch
from torch import nn

from perceivers.training.optim import Lamb


def by_hand(weights, gradients, *, lr, betas, eps, weight_decay):
    """LAMB in the order of DeepMind's release, one tensor, in numpy."""
    first = second = np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        scaled = (first / (1 - betas[0] ** step)) / (np.sqrt(second / (1 - betas[1] ** step)) + eps)
        update = scaled + weight_decay * weights
        lengths = np.linalg.norm(weights), np.linalg.norm(update)
        ratio = lengths[0] / lengths[1] if min(lengths) > 0 else 1.0
        weights = weights - lr * ratio * update
    return weights


def run(weights, gradients, **settings):
    parameter = nn.Parameter(torch.tensor(weights))
    optimizer = Lamb([parameter], **settings)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1], ids=["still", "decayed"])
def test_trajectory_is_the_formula(weight_decay):
    rng = np.random.default_rng(0)
    weights, gradients = rng.normal(size=(3, 4)), rng.normal(size=(10, 3, 4))
    settings = {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": weight_decay}
    expected = by_hand(weights, gradients, **settings)
    np.testing.assert_allclose(run(weights, gradients, **settings), expected, rtol=1e-12)


def test_trajectory_is_the_one_on_file():
    # Written by `by_hand` in float64, once. Guards against formula and test drifting together.
    weights = np.array([[1.0, -2.0], [0.5, 3.0]])
    gradients = [np.array([[0.1, -0.2], [0.3, 0.4]]), np.array([[-1.0, 0.5], [0.25, 2.0]])]
    found = run(weights, gradients, lr=0.1, weight_decay=0.1)
    on_file = [[0.944323271795, -1.85991906634], [0.118348829303, 2.553947641311]]
    np.testing.assert_allclose(found, on_file, rtol=1e-9)


def test_each_tensor_has_its_own_ratio():
    rng = np.random.default_rng(1)
    small, large = rng.normal(size=4) * 1e-3, rng.normal(size=(5, 2)) * 10
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.1}
    parameters = [nn.Parameter(torch.tensor(small)), nn.Parameter(torch.tensor(large))]
    optimizer = Lamb(parameters, **settings)
    gradients = [[rng.normal(size=p.shape) for p in parameters] for _ in range(3)]
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    for index, start in enumerate((small, large)):
        expected = by_hand(start, [step[index] for step in gradients], **settings)
        np.testing.assert_allclose(parameters[index].detach().numpy(), expected, rtol=1e-12)


def test_first_step_of_an_adaptive_tensor_is_as_long_as_its_weights():
    weights = np.array([3.0, 4.0])
    moved = run(weights, [np.array([1.0, 1.0])], lr=0.1)
    assert np.linalg.norm(weights - moved) == pytest.approx(0.1 * 5.0)


def test_zero_weights_are_left_to_adam():
    moved = run(np.zeros(3), [np.array([2.0, -1.0, 0.5])], lr=0.1)
    np.testing.assert_allclose(moved, [-0.1, 0.1, -0.1], rtol=1e-5)


def test_zero_gradient_moves_nothing_that_does_not_decay():
    np.testing.assert_array_equal(run(np.array([1.0, 2.0]), [np.zeros(2)] * 3), [1.0, 2.0])


def test_a_parameter_without_gradient_is_passed_over():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lamb([{"params": [used, unused]}, {"params": [nn.Parameter(torch.ones(1))]}])
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


def test_saved_and_loaded_it_goes_on_exactly():
    rng = np.random.default_rng(2)
    start, gradients = rng.normal(size=5), rng.normal(size=(6, 5))
    whole = run(start, gradients, weight_decay=0.1)

    parameter = nn.Parameter(torch.tensor(start))
    optimizer = Lamb([parameter], weight_decay=0.1)
    for step, gradient in enumerate(gradients):
        if step == 3:
            state = optimizer.state_dict()
            parameter = nn.Parameter(parameter.detach().clone())
            optimizer = Lamb([parameter])
            optimizer.load_state_dict(state)
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), whole)


def test_a_closure_is_called_with_gradients_on():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Lamb([parameter])

    def closure():
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert not torch.equal(parameter, torch.ones(2))


@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay"])
def test_a_negative_number_is_refused(name):
    with pytest.raises(ValueError, match=rf"Expected {name} to be 0 or more, got -1.0"):
        Lamb([nn.Parameter(torch.ones(1))], **{name: -1.0})


def test_a_beta_of_one_is_refused():
    with pytest.raises(ValueError, match=r"Expected betas in \[0, 1\), got \(0.9, 1.0\)"):
        Lamb([nn.Parameter(torch.ones(1))], betas=(0.9, 1.0))
