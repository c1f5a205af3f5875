import pytest
import torch
from torch import nn

from perceivers.explain.attribution.attention import watch_attention
from perceivers.inputs.elements import Elements
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.nn.attention import Attention
from support.tolerance import assert_close


def encoder(**changes) -> PerceiverEncoder:
    shape = {
        "num_latents": 4,
        "latent_channels": 8,
        "num_blocks": 3,
        "num_cross_attends": 3,
        "num_self_attends_per_block": 1,
        "num_self_attend_heads": 2,
        "latent_init_scale": 1.0,
    }
    return PerceiverEncoder(PerceiverEncoderConfig(**shape | changes), input_channels=6)


def segments(mask=None) -> list[Elements]:
    return [Elements(torch.randn(2, 5, 6), mask=mask)]


def test_a_shared_module_gives_one_map_for_each_call():
    model = encoder()
    with watch_attention(model) as maps:
        model(segments())
    assert {name: len(maps[name]) for name in maps} == {
        "cross_attends.0.attention": 1,
        "blocks.0.0.attention": 3,
        "cross_attends.1.attention": 2,
    }
    assert len(maps) == 3
    assert maps["blocks.0.0.attention"][0].shape == (2, 2, 4, 4)


@pytest.mark.parametrize("sharing", ["all", "all_but_first", "none"])
def test_reads_come_in_the_order_in_which_they_happened(sharing):
    model = encoder(share_cross_attends=sharing)
    with watch_attention(model) as maps:
        model(segments())
    reads = maps.cross_attends
    assert [m.shape for m in reads] == [(2, 1, 4, 5)] * 3
    names = [name for name, _ in maps.calls if "cross_attends" in name]
    assert names == sorted(names)
    assert all(m is expected for m, (_, expected) in zip(reads, maps.calls[::2], strict=True))


def test_weights_sum_to_one_and_are_the_softmax_of_the_scores():
    model, read = encoder(), segments()
    with watch_attention(model) as weights:
        model(read)
    with watch_attention(model, kind="scores") as scores:
        model(read)
    for weight, score in zip(weights.calls, scores.calls, strict=True):
        assert_close(weight[1], score[1].softmax(dim=-1))
        assert_close(weight[1].sum(dim=-1), torch.ones(weight[1].shape[:-1]))


def test_padding_gets_no_attention():
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    model = encoder()
    with watch_attention(model) as maps:
        model(segments(mask))
    assert not maps.cross_attends[0][0, ..., 3:].any()


def test_several_segments_are_one_array_in_their_order():
    model, first, second = encoder(), Elements(torch.randn(2, 5, 6)), Elements(torch.randn(2, 3, 6))
    mask = torch.tensor([[False] * 3, [True, True, False]])
    with watch_attention(model) as maps:
        model([first, Elements(second.content, mask=mask)])
    read = maps.cross_attends[0]
    assert read.shape == (2, 1, 4, 8)
    assert not read[0, ..., 5:].any()
    assert (read[1, ..., 5:7] > 0).all()
    assert not read[1, ..., 7].any()
    with watch_attention(model) as alone:
        model([first])
    assert_close(read[0, ..., :5], alone.cross_attends[0][0])


def test_a_sample_of_padding_alone_gives_zeros():
    mask = torch.tensor([[False] * 5, [True] * 5])
    model = encoder()
    with watch_attention(model) as maps:
        outputs = model(segments(mask))
    assert outputs.isfinite().all()
    assert not maps.cross_attends[0][0].any()
    assert_close(maps.cross_attends[0][1].sum(dim=-1), torch.ones(1, 4))


def test_looking_changes_nothing_and_ends_with_the_with():
    model, read = encoder(), segments()
    before = model(read)
    with watch_attention(model) as maps:
        watched = model(read)
    torch.testing.assert_close(watched, before, rtol=0, atol=0)
    assert not any(m.requires_grad for _, m in maps.calls)
    count = len(maps.calls)
    model(read)
    assert len(maps.calls) == count


def test_hooks_are_removed_after_an_error():
    model = encoder()
    with pytest.raises(RuntimeError, match="stop"), watch_attention(model):
        raise RuntimeError("stop")
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_arguments_by_keyword_are_seen_too():
    attention = Attention(4, 4)
    with watch_attention(attention) as maps:
        attention(query=torch.randn(1, 2, 4), source=torch.randn(1, 3, 4))
    assert maps[""][0].shape == (1, 1, 2, 3)


def test_unknown_name_lists_those_there_are():
    model = encoder()
    with watch_attention(model) as maps:
        with pytest.raises(KeyError, match=r"No map of 'block'\. There are maps of: nothing yet"):
            maps["block"]
        model(segments())
    with pytest.raises(KeyError, match=r"maps of: cross_attends\.0\.attention, blocks"):
        maps["block"]


def test_a_model_without_attention_is_refused():
    message = "Expected a model with attention to watch, got Linear without any"
    with pytest.raises(ValueError, match=message), watch_attention(nn.Linear(2, 2)):
        pass


def test_an_unknown_kind_is_refused():
    message = "Expected kind='weights' or kind='scores', got 'logits'"
    with pytest.raises(ValueError, match=message), watch_attention(encoder(), kind="logits"):
        pass
