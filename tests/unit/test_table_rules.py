from types import SimpleNamespace

import numpy as np
import pytest
import torch

from perceivers.data.modalities.table.modality import TableAugmentConfig, TablePreprocessConfig
from perceivers.inputs.registry import build_input
from perceivers.inputs.table import TableInputConfig
from perceivers.recipes.resolve import resolve
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts
from perceivers.recipes.rules.ridge import explained_share
from perceivers.recipes.rules.table import choose


class Facts(ModalityFacts):
    def __init__(self, data, *, is_alone=True, streams=()):
        source = SimpleNamespace(streams=streams, target_kind=data.target_kind)
        vars(self).update(name="table", data=data, is_alone=is_alone, source=source)


def chosen(rows, overrides=None, target="class", **facts):
    data = DataFacts(
        num_rows=rows,
        target_kind=target,
        num_classes=1,
        class_counts=(),
        preset="default",
        overrides=overrides or {},
    )
    before = Choice(
        input=TableInputConfig(),
        preprocess=TablePreprocessConfig(),
        augment=TableAugmentConfig(noise=0.05, drop=0.1),
    )
    return choose(before, Facts(data, **facts))


def test_few_rows_get_a_small_encoder_beside_a_direct_path():
    choice = chosen(300)
    assert choice.input.pieces
    assert choice.fields["encoder.num_latents"] == 8
    assert choice.fields["output.element_pools"] == ("mean",)
    assert "300 rows" in choice.reasons["Model"]


def test_many_rows_keep_the_encoder_of_the_size():
    choice = chosen(20_000)
    assert "encoder.num_latents" not in choice.fields
    assert choice.fields["output.element_pools"] == ("mean",)


def test_classes_start_from_a_linear_model_that_changes_slowly():
    fields = chosen(300).fields
    assert fields["training.linear_start"]
    assert not fields["output.standardize_pools"]
    assert fields["training.lr_scale"] == {"inputs": 0.1, "output.element_pools": 0.1}
    assert fields["output.latent_dropout"] == 0.0


@pytest.mark.parametrize(
    "facts",
    [
        {"target": "several"},
        {"is_alone": False},
        {"streams": ("train",)},
        {"overrides": {"linear_start": False}},
        {"overrides": {"output.element_pools": ()}},
    ],
)
def test_without_a_linear_start_the_pools_are_standardized_and_learn_as_fast(facts):
    fields = chosen(300, **facts).fields
    assert fields.keys().isdisjoint({"training.linear_start", "training.lr_scale"})
    assert "output.standardize_pools" not in fields
    assert fields["output.latent_dropout"] == 0.5


@pytest.mark.parametrize(("noise", "drop"), [(0.3, 0.0), (3.0, 0.1)])
def test_fields_are_hidden_unless_a_number_follows_clearly_from_them(noise, drop):
    rng = np.random.default_rng(0)
    x, kind = rng.normal(size=(2, 200)), rng.integers(0, 2, size=200)
    price = x[0] + 2 * kind + noise * rng.normal(size=200)
    table = {"x": x[0], "y": x[1], "kind": [f"kind {one}" for one in kind], "price": price}
    columns = {"label": "price", "target": "number"}
    run = resolve({name: list(values) for name, values in table.items()}, overrides=columns)
    assert run.recipe.augment["table"].drop == drop
    assert run.recipe.output.latent_dropout == 5 * drop
    assert chosen(300).augment.drop == 0.1


def test_the_explained_share_is_that_of_rows_left_out():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(100, 40))
    assert explained_share(features, features[:, :1] * 5 + 2) > 0.95
    assert explained_share(features, rng.normal(size=(100, 2))) < 0.1


def test_stated_inputs_are_kept():
    assert not chosen(300, {"inputs.table.channels": 8}).fields


def test_ranges_of_a_number_begin_without_effect_and_bend_it():
    torch.manual_seed(0)
    plain = build_input(TableInputConfig(num_numbers=2, category_sizes=(), channels=4))
    bent = build_input(TableInputConfig(num_numbers=2, category_sizes=(), channels=4, pieces=True))
    bent.load_state_dict(plain.state_dict(), strict=False)
    x = torch.tensor([[0.2, -3.0], [5.0, 0.7]])
    assert torch.equal(bent(x).content, plain(x).content)
    torch.nn.init.ones_(bent.pieces)
    change = bent(x).content - plain(x).content
    # The ranges that a number has passed, and its share of the one in which it lies.
    expected = torch.tensor([[3.5, 0.0], [6.0, 4.5]])
    torch.testing.assert_close(change, expected[..., None].expand(-1, -1, 4))
