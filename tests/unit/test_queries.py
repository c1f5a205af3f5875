import pytest
import torch

from perceivers.nn.position import axis_coordinates, fourier_features
from perceivers.outputs.queries import (
    FourierQueriesConfig,
    InputQueriesConfig,
    LearnedQueriesConfig,
    QueryContext,
    build_queries,
)
from support.tolerance import assert_close

NOTHING = QueryContext({}, {}, {})
INPUTS = {"text": (5, 12)}  # of 12 elements of 5 channels


def made(config, inputs=INPUTS):
    return build_queries(config, latent_channels=16, inputs=inputs)


def test_learned_queries_are_as_wide_as_latents_unless_told_otherwise():
    assert made(LearnedQueriesConfig()).channels == 16
    queries = made(LearnedQueriesConfig(num_queries=7, channels=3))
    index = torch.tensor([6, 0])
    assert torch.equal(queries(index, NOTHING), queries.table[index][None])
    assert queries.table.abs().max() <= 0.04
    assert queries.count(NOTHING) == 7


def test_queries_that_follow_a_text_are_as_many_as_its_elements():
    queries = made(LearnedQueriesConfig(num_queries=12, channels=5, follows="text"))
    assert queries.count(QueryContext({"text": 9}, {}, {})) == 9
    with pytest.raises(ValueError, match=r"at most num_queries=12 elements of 'text'.*got 13"):
        queries.count(QueryContext({"text": 13}, {}, {}))


@pytest.mark.parametrize("last_included", [True, False])
def test_fourier_queries_are_the_features_of_the_cells_asked_for(last_included):
    config = FourierQueriesConfig(
        size=(3, 4), num_bands=2, max_resolution=(6, 8), last_included=last_included
    )
    queries = made(config)
    assert (queries.num_queries, queries.channels, queries.count(NOTHING)) == (12, 10, 12)
    cells = [axis_coordinates(n) if last_included else -1 + 2 * torch.arange(n) / n for n in (3, 4)]
    points = torch.stack([a.flatten() for a in torch.meshgrid(*cells, indexing="ij")], dim=-1)
    expected = fourier_features(points, num_bands=2, max_resolution=(6, 8))
    index = torch.randperm(12)
    assert_close(queries(index, NOTHING), expected[index][None])


def test_fourier_queries_need_a_grid_and_a_resolution_for_each_axis():
    with pytest.raises(ValueError, match=r"Expected the grid of the queries.*got None"):
        made(FourierQueriesConfig())
    with pytest.raises(ValueError, match="one max_resolution for each of the 2 axes, got"):
        made(FourierQueriesConfig(size=(2, 2), max_resolution=(2,)))
    assert made(FourierQueriesConfig(size=(4,))).max_resolution == (4,)


def test_elements_of_the_input_are_queries():
    queries = made(InputQueriesConfig(modality="text"))
    assert (queries.channels, queries.num_queries) == (5, 12)
    array = torch.randn(2, 8, 5)
    asked = QueryContext({"text": 8}, {"text": array}, {})
    assert queries.count(asked) == 8
    assert torch.equal(queries(torch.tensor([7, 1]), asked), array[:, [7, 1]])


@pytest.mark.parametrize(
    "config", [InputQueriesConfig(modality="image"), LearnedQueriesConfig(follows="image")]
)
def test_a_modality_that_is_not_there_is_named(config):
    with pytest.raises(ValueError, match="one of the modalities text, got 'image'"):
        made(config)
