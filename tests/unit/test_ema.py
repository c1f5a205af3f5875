import pytest
import torch
from torch import nn

from perceivers.training.optim import WeightAverage


def one_weight(value=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_the_decay_rises_to_its_value():
    model = one_weight(0.0)
    average = WeightAverage(model, 0.5)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, step=1)  # decay (1 + 1) / (10 + 1)
    assert average.averages["weight"].item() == pytest.approx(1 - 2 / 11)
    average.update(model, step=1000)  # decay 0.5
    assert average.averages["weight"].item() == pytest.approx(1 - 2 / 11 / 2)


def test_the_model_has_the_average_inside_and_its_own_weights_after():
    model = one_weight(0.0)
    average = WeightAverage(model, 0.5)
    nn.init.constant_(model.weight, 1.0)
    with average.applied(model):
        assert model.weight.item() == 0.0
    assert model.weight.item() == 1.0
    assert average.averages["weight"].item() == 0.0


def test_the_weights_come_back_after_an_error():
    model = one_weight(0.0)
    average = WeightAverage(model, 0.5)
    nn.init.constant_(model.weight, 1.0)
    with pytest.raises(RuntimeError), average.applied(model):
        raise RuntimeError
    assert model.weight.item() == 1.0


def test_saved_and_loaded_it_is_the_same():
    model = one_weight(0.0)
    average, other = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, step=3)
    other.load_state_dict({k: v.clone() for k, v in average.state_dict().items()})
    assert torch.equal(other.averages["weight"], average.averages["weight"])


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, 2.0])
def test_what_is_no_decay_is_refused(decay):
    with pytest.raises(ValueError, match=r"training.ema to be a decay in \(0, 1\), such as 0.9999"):
        WeightAverage(one_weight(), decay)


def test_running_statistics_of_a_batch_norm_are_averaged_like_the_weights():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, 0.5)
    before = model[1].running_mean.clone()
    model(torch.randn(8, 2) + 5)
    average.update(model, step=1000)
    mean = model[1].running_mean.clone()
    with average.applied(model):
        torch.testing.assert_close(model[1].running_mean, (before + mean) / 2)
        assert model[1].num_batches_tracked == 1
    assert torch.equal(model[1].running_mean, mean)
    assert set(average.state_dict()) <= set(model.state_dict())
