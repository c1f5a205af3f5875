import pytest
import torch
from torch import nn

from perceivers.recipes.registry import TrainingConfig
from perceivers.runs.folder import is_first_process
from perceivers.training import distributed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (
        "RANK",
        "LOCAL_RANK",
        "NODE_RANK",
        "SLURM_PROCID",
        "LOCAL_WORLD_SIZE",
        "WORLD_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)


@pytest.mark.parametrize(
    ("name", "expected"), [("float32", "32-true"), ("bf16", "bf16-mixed"), ("fp16", "16-mixed")]
)
def test_precisions_have_lightnings_names(name, expected):
    assert distributed.pick_precision(name, "cuda") == expected


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"fp16 needs a GPU.*Use float32 or bf16"):
        distributed.pick_precision("fp16", "cpu")


def test_devices_are_the_recipes_unless_torchrun_started_others(monkeypatch):
    config = TrainingConfig(devices=3, nodes=2)
    assert distributed.num_devices(config) == (3, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert distributed.num_devices(config) == (3, 2)  # somebody else's variables
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert distributed.num_devices(config) == (4, 2)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_writes(monkeypatch, name):
    assert is_first_process()
    monkeypatch.setenv(name, "0")
    assert is_first_process()
    monkeypatch.setenv(name, "1")
    assert not is_first_process()


def test_one_process_agrees_with_itself():
    values = torch.tensor([1.0, 2.0])
    assert distributed.world_size() == 1
    assert distributed.summed(values, CPU) is values
    assert distributed.largest(values, CPU) is values
    assert distributed.all_true(True, CPU)
    assert not distributed.all_true(False, CPU)
    assert distributed.gather_objects("a") == ["a"]


def test_the_whole_of_a_whole_tensor_is_a_copy():
    tensor = torch.ones(2, requires_grad=True)
    copy = distributed.gather_full_tensor(tensor)
    assert torch.equal(copy, tensor)
    assert copy.data_ptr() != tensor.data_ptr()
    assert not copy.requires_grad


def test_a_plain_model_is_not_sharded():
    assert not distributed.is_sharded(nn.Linear(1, 1))


class TestInAGroup:
    """The same with a process group of one, which is a group nevertheless."""

    @pytest.fixture(autouse=True)
    def _group(self, tmp_path):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
        )
        yield
        torch.distributed.destroy_process_group()

    def test_sums_and_objects_are_exchanged(self, monkeypatch):
        monkeypatch.setattr(distributed, "world_size", lambda: 1)
        assert distributed.gather_objects("a") == ["a"]
        monkeypatch.setattr(
            distributed, "world_size", lambda: 2
        )  # more than one: go through the group
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
        values = torch.tensor([1.0, 2.0])
        assert distributed.summed(values, CPU).tolist() == [1.0, 2.0]
        assert distributed.summed(values, CPU) is not values

    def test_blocks_are_sharded_and_put_together(self):
        from torch.distributed.device_mesh import init_device_mesh

        from perceivers.training.optim import WeightAverage, local, tensor_norms

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(2, 2)
                self.blocks = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 1)])

            def forward(self, x):
                return self.blocks[1](self.blocks[0][0](self.first(x)))

        model = Model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        distributed.shard_blocks(model, init_device_mesh("cpu", (1,)))
        assert distributed.is_sharded(model)
        assert model(torch.ones(1, 2)).shape == (1, 1)
        for name, parameter in model.named_parameters():
            assert torch.equal(distributed.gather_full_tensor(parameter), before[name])
            assert torch.equal(local(parameter), before[name])
        norms = tensor_norms([p.detach() for p in model.parameters()])
        torch.testing.assert_close(norms, torch.stack([p.norm() for p in before.values()]))

        average = WeightAverage(model, 0.5)
        average.load_state_dict({name: weight + 1 for name, weight in before.items()})
        for name, weight in before.items():
            assert torch.equal(distributed.gather_full_tensor(average.averages[name]), weight + 1)
