"""int8 weights: close to float32, the same in any batch, and only where they are of use."""

import pytest
import torch
from torch import nn

from perceivers.hub import quantize
from perceivers.hub.quantize import Int8Linear, Int8Plan, is_quantized, plan_int8, quantize_int8
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_model
from support.tolerance import INT8, relative_error

if not quantize._has_kernels():  # pragma: no cover: another processor
    pytest.skip("no exact int8 kernels on this processor", allow_module_level=True)


@pytest.fixture
def linear():
    layer = nn.Linear(48, 40)
    with torch.no_grad():  # channels of very different size
        layer.weight.mul_(torch.logspace(-3, 3, 40)[:, None])
    return layer


@pytest.fixture
def model():
    return tiny_model().eval()


def image(batch: int = 3):
    return {"image": torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


class TestInt8Linear:
    def test_each_row_and_channel_is_as_exact_as_its_own_size_allows(self, linear):
        x = torch.randn(64, 48) * torch.logspace(-4, 4, 64)[:, None]
        expected, actual = linear(x) - linear.bias, Int8Linear(linear)(x) - linear.bias
        assert relative_error(actual, expected) < INT8
        for row in (0, 63):
            assert relative_error(actual[row], expected[row]) < INT8
        whole = torch.randn(64, 48)
        actual, expected = Int8Linear(linear)(whole), linear(whole)
        for channel in (0, 39):
            assert relative_error(actual[:, channel], expected[:, channel]) < INT8

    def test_what_fits_the_steps_is_exact(self):
        linear = nn.Linear(8, 3)
        with torch.no_grad():
            linear.weight.copy_(torch.randint(-127, 128, (3, 8)))
            linear.weight[:, 0] = 127.0
            linear.bias.copy_(torch.tensor([0.5, -2.0, 0.0]))
        x = torch.randint(-127, 128, (5, 8)).float()
        x[:, 1] = -127.0
        torch.testing.assert_close(Int8Linear(linear)(x), linear(x), rtol=1e-6, atol=1e-3)

    def test_an_answer_does_not_depend_on_the_rest_of_the_batch(self, linear):
        layer, x = Int8Linear(linear), torch.randn(6, 48) * torch.logspace(-3, 3, 6)[:, None]
        for row in range(6):
            assert torch.equal(layer(x)[row], layer(x[row : row + 1])[0])

    def test_zeros_give_the_bias_and_nan_stays_in_its_row(self, linear):
        x = torch.zeros(3, 48)
        x[1, 7] = float("nan")
        found = Int8Linear(linear)(x)
        assert torch.equal(found[0], linear.bias)
        assert torch.equal(found[2], linear.bias)
        assert found[1].isnan().all()

    @pytest.mark.parametrize("shape", [(48,), (5, 48), (2, 3, 48), (0, 48), (2, 0, 48)])
    def test_leading_axes_are_those_of_the_input(self, linear, shape):
        assert Int8Linear(linear)(torch.randn(shape)).shape == (*shape[:-1], 40)

    def test_strided_input_and_other_dtypes(self, linear):
        layer, x = Int8Linear(linear), torch.randn(48, 6)
        assert torch.equal(layer(x.T), layer(x.T.contiguous()))
        half = layer(x.T.bfloat16())
        assert half.dtype == torch.bfloat16
        assert relative_error(half, layer(x.T)) < INT8

    def test_a_layer_without_bias(self):
        linear = nn.Linear(16, 8, bias=False)
        x = torch.randn(4, 16)
        assert relative_error(Int8Linear(linear)(x), linear(x)) < INT8

    def test_a_weight_takes_a_quarter_of_the_memory(self, linear):
        layer = Int8Linear(linear)
        assert 4 * layer.packed.nbytes == linear.weight.nbytes
        assert not list(layer.parameters())
        assert "in_features=48, out_features=40" in str(layer)

    def test_nothing_is_left_of_the_layer_that_was_replaced(self, linear):
        x = torch.randn(2, 48)
        layer = Int8Linear(linear)
        before = layer(x)
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.zero_()
        assert torch.equal(layer(x), before)


class TestPlan:
    def test_takes_the_latent_transformer_and_mlps_and_leaves_reads_and_head(self, model):
        plan = plan_int8(model, always=True)
        assert plan.num_layers == len(plan.names) == 8
        quantize_int8(model, plan)
        read, (layer,) = model.encoder.cross_attends[0], model.encoder.blocks[0]
        for name in ("to_query", "to_key", "to_value", "to_output"):
            assert isinstance(getattr(read.attention, name), nn.Linear)
            assert isinstance(getattr(layer.attention, name), Int8Linear)
        for mlp in (read.mlp, layer.mlp):
            assert [type(part) for part in mlp] == [Int8Linear, nn.GELU, Int8Linear]
        assert isinstance(model.output.to_logits, nn.Linear)

    def test_takes_only_widths_that_get_faster(self, model, monkeypatch):
        speeds = {(16, 16): 1.1, (16, 64): 2.5}
        model.encoder.blocks[0][0].mlp[0] = nn.Linear(16, 64)
        model.encoder.blocks[0][0].mlp[2] = nn.Linear(64, 16)
        monkeypatch.setattr(
            quantize, "_speed", lambda linear, rows: speeds.get(quantize._widths(linear), 0.3)
        )
        plan = plan_int8(model)
        assert plan.names == ("encoder.blocks.0.0.mlp.0",)
        text = plan.sentence()
        assert text.startswith("int8 weights in 1 of 8 linear layers: ")
        assert "2.5 times as fast at 16 x 64" in text
        assert "0.3 times as fast at 64 x 16" in text

    def test_stays_in_float32_where_nothing_gets_faster_and_says_so(self, model, monkeypatch):
        monkeypatch.setattr(quantize, "_speed", lambda linear, rows: 0.59)
        expected = model(image())
        assert torch.equal(quantize_int8(model)(image()), expected)
        assert not is_quantized(model)
        assert model.encoder.latents.requires_grad
        text = plan_int8(model).sentence()
        assert "Staying in float32: int8 is not worth it" in text
        assert "0.6 times as fast at 16 x 16" in text
        assert "'int8-always' quantizes all the same" in text

    def test_times_as_many_rows_as_a_sample_has_latents(self, model, monkeypatch):
        seen = []
        monkeypatch.setattr(quantize, "_speed", lambda linear, rows: seen.append(rows) or 2.0)
        plan_int8(model)
        assert seen == [4]
        plan_int8(nn.Sequential(model.encoder.blocks[0][0]))
        assert seen == [4, 512]

    def test_a_real_trial_changes_nothing_and_draws_no_random_numbers(self, model):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state = torch.get_rng_state()
        plan = plan_int8(model)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
        assert set(plan.speeds) == {(16, 16)}
        assert plan.speeds[16, 16] > 0

    def test_a_model_without_such_layers(self):
        plan = plan_int8(nn.Linear(4, 4))
        assert plan == Int8Plan(names=(), num_layers=0, speeds={})
        assert "no linear layers that int8 is for" in plan.sentence()

    def test_no_kernels_means_float32_or_an_error(self, model, monkeypatch):
        monkeypatch.setattr(quantize, "_has_kernels", lambda: False)
        plan = plan_int8(model)
        assert not plan.names
        assert "Staying in float32: this PyTorch cannot multiply int8" in plan.sentence()
        with pytest.raises(ValueError, match="Expected int8 kernels: this PyTorch cannot"):
            plan_int8(model, always=True)

    def test_kernels_that_are_missing_or_inexact_are_found_out(self, monkeypatch):
        def missing(*args):
            raise NotImplementedError("qlinear_prepack")

        monkeypatch.setattr(quantize, "Int8Linear", missing)
        assert not quantize._has_kernels()
        monkeypatch.setattr(quantize, "Int8Linear", lambda layer: lambda x: 0.99 * layer(x))
        assert not quantize._has_kernels()


class TestModel:
    def test_outputs_stay_close(self, model):
        expected = model.encode(image())
        quantize_int8(model, plan_int8(model, always=True))
        assert is_quantized(model)
        assert 0 < relative_error(model.encode(image()), expected) < INT8

    def test_batches_change_nothing(self, model):
        quantize_int8(model, plan_int8(model, always=True))
        together = model(image())
        alone = model({"image": image()["image"][:1]})
        assert relative_error(together[:1], alone) < 1e-5

    def test_nothing_can_be_trained_any_more(self, model):
        quantize_int8(model, plan_int8(model, always=True))
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model(image()).requires_grad

    def test_the_baseline_without_latents_is_quantized_too(self):
        config = PerceiverConfig(
            inputs={"image": PixelInputConfig(size=(8, 8))},
            encoder=TransformerEncoderConfig(
                channels=16, num_self_attends=1, num_self_attend_heads=2
            ),
            output=MeanPoolConfig(num_outputs=2),
        )
        model = build(config).eval()
        expected = model.encode(image())
        quantize_int8(model, plan_int8(model, always=True))
        assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 6
        assert 0 < relative_error(model.encode(image()), expected) < INT8

    def test_another_device_than_the_cpu_is_refused(self, model):
        with pytest.raises(ValueError, match="int8 weights are for prediction on the CPU; the mod"):
            quantize_int8(model.to("meta"))
