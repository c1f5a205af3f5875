from copy import deepcopy

import pytest
import torch
from torch import nn

from perceivers.models.perceiver import build
from perceivers.recipes.registry import OptimConfig
from perceivers.training.optim import Lamb, build_optimizer, parameter_groups, warn_of_warmup
from support.training import small_recipe


def names_in(groups, model):
    names = {id(p): name for name, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]


def test_biases_and_norms_do_not_decay_and_everything_else_does():
    model = build(small_recipe(max_epochs=1).model_config())
    decayed, kept = names_in(parameter_groups(model, 0.1), model)
    assert any("latents" in name for name in decayed)
    assert all(name.endswith(".bias") or "norm" in name for name in kept)
    assert not any("norm" in name or name.endswith(".bias") for name in decayed)
    assert decayed | kept == {name for name, _ in model.named_parameters()}


def test_batch_norm_does_not_decay_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    decayed, kept = names_in(parameter_groups(model, 0.1), model)
    assert (decayed, kept) == ({"0.weight"}, {"1.weight", "1.bias"})


def test_a_module_may_have_a_weight_decay_of_its_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight_decay = 2.0
    groups = parameter_groups(model, 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 2.0]
    assert names_in(groups, model) == [{"0.weight"}, {"0.bias", "1.bias"}, {"1.weight"}]


def test_a_group_without_members_is_left_out():
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize(("name", "kind"), [("lamb", Lamb), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_of_the_recipe(name, kind):
    config = OptimConfig(name=name, lr=0.5, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.3)
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    assert isinstance(optimizer, kind)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert {(g["lr"], g["betas"], g["eps"]) for g in optimizer.param_groups} == {
        (0.5, (0.8, 0.9), 1e-3)
    }


def test_a_warm_up_of_lamb_is_warned_of():
    head = nn.Linear(2, 2)
    nn.init.zeros_(head.weight)
    for config in (OptimConfig(warmup_steps=5), OptimConfig(warmup_fraction=0.1)):
        assert "initialized to zero (weight) stay near it" in warn_of_warmup(config, head)
        assert warn_of_warmup(config, nn.Linear(2, 2)) == ""
    assert warn_of_warmup(OptimConfig(), head) == ""
    assert warn_of_warmup(OptimConfig(name="adamw", warmup_steps=5), head) == ""


def test_lamb_leaves_zero_weights_where_a_warm_up_has_put_them():
    def trained(rates):
        head = nn.Parameter(torch.zeros(4))
        optimizer = Lamb([head])
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            head.grad = torch.ones(4)
            optimizer.step()
        return head.norm().item()

    assert trained([1e-2] * 100) > 100 * trained([1e-5, *[1e-2] * 99])


def test_adamw_is_fused_and_equals_the_single_tensor_implementation():
    torch.manual_seed(0)
    model, other = nn.Linear(5, 3), nn.Linear(5, 3)
    other.load_state_dict(model.state_dict())
    config = OptimConfig(name="adamw", lr=0.1)
    fused = build_optimizer(model, config)
    assert all(group["fused"] for group in fused.param_groups)
    assert not getattr(fused, "_step_supports_amp_scaling", False)
    groups = parameter_groups(other, config.weight_decay)
    plain = torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, foreach=False
    )
    for _ in range(3):
        for one, optimizer in ((model, fused), (other, plain)):
            one(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_a_resumed_fused_optimizer_takes_the_same_step():
    def step(model, optimizer):
        model(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    config = OptimConfig(name="adamw", lr=0.1)
    model, other = nn.Linear(5, 3), nn.Linear(5, 3)
    optimizer, resumed = build_optimizer(model, config), build_optimizer(other, config)
    step(model, optimizer)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(other, resumed)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
