import pytest
import torch

from perceivers.nn.blocks import MLP, CrossAttend, SelfAttend
from support.tolerance import assert_close


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_modules_have_their_published_size():
    with torch.device("meta"):
        assert count(CrossAttend(1024, 261)) == 2_776_395
        assert count(SelfAttend(1024)) == 6_301_696


def test_mlp_uses_the_tanh_form_of_gelu():
    mlp = MLP(4, widening_factor=2)
    x = torch.randn(3, 4)
    first, _, last = mlp
    h = first(x)
    gelu = 0.5 * h * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))
    assert_close(mlp(x), last(gelu))
    assert first.out_features == 8


@pytest.mark.parametrize("residual", [True, False])
def test_cross_attend_is_the_papers_equations(residual):
    block = CrossAttend(8, 6, num_heads=2, use_query_residual=residual)
    query, source = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    read = block.attention(block.query_norm(query), block.source_norm(source))
    x = query + read if residual else read
    assert_close(block(query, source), x + block.mlp(block.mlp_norm(x)))


def test_inner_width_is_that_of_the_source_unless_said():
    assert CrossAttend(8, 6).attention.to_key.out_features == 6
    assert CrossAttend(8, 6, qk_channels=8).attention.to_value.out_features == 8
    assert CrossAttend(8, 6, v_channels=4).attention.to_value.out_features == 4


def test_self_attend_is_the_papers_equations():
    block = SelfAttend(8, num_heads=2, qk_channels=4)
    x = torch.randn(2, 3, 8)
    y = block.norm(x)
    z = x + block.attention(y, y)
    assert_close(block(x), z + block.mlp(block.mlp_norm(z)))
    assert block.attention.to_value.out_features == 8


def test_norms_use_the_releases_epsilon():
    assert {m.eps for m in CrossAttend(8, 6).modules() if isinstance(m, torch.nn.LayerNorm)} == {
        1e-5
    }


def test_an_exact_gelu_can_be_asked_for():
    mlp = MLP(8, widening_factor=2, activation="exact")
    first, _, last = mlp
    x = torch.randn(2, 3, 8)
    assert_close(mlp(x), last(torch.nn.functional.gelu(first(x))))
    assert CrossAttend(8, 6, activation="exact").mlp[1].approximate == "none"
    assert SelfAttend(8, num_heads=2, activation="exact").mlp[1].approximate == "none"
