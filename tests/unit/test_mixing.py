from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.data.base import Batch, ImageAugmentConfig
from perceivers.data.mixing import mix, mixes

MIXUP = ImageAugmentConfig(mixup=0.2)
CUTMIX = ImageAugmentConfig(cutmix=True)
BOTH = ImageAugmentConfig(mixup=0.2, cutmix=True)


def batch_of(count, side=8):
    """Picture i holds the value i and is of class i."""
    pictures = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    names = tuple(str(number) for number in range(count))
    return Batch(inputs={"image": pictures.clone()}, targets=torch.arange(count), names=names)


def mixed(augment, count=8, seed=0, **options):
    return mix(batch_of(count, **options), augment, count, np.random.default_rng(seed))


def test_nothing_is_mixed_without_both():
    batch = batch_of(4)
    assert not mixes(ImageAugmentConfig())
    assert mix(batch, ImageAugmentConfig(), 4, np.random.default_rng(0)) is batch


@pytest.mark.parametrize("augment", [MIXUP, CUTMIX, BOTH])
def test_sample_i_is_mixed_from_i_and_its_partner_half_a_batch_further(augment):
    batch = mixed(augment)
    assert mixes(augment)
    assert len(batch) == 4
    assert batch.targets.shape == (4, 8)
    assert batch.names == ("0 + 4", "1 + 5", "2 + 6", "3 + 7")
    for sample in range(4):
        others = [k for k in range(8) if k not in (sample, sample + 4)]
        assert not batch.targets[sample, others].any()


def test_mixup_blends_pixels_as_it_blends_labels():
    batch = mixed(MIXUP)
    blended = batch.targets @ torch.arange(8.0)
    expected = blended.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    torch.testing.assert_close(batch.inputs["image"], expected)


def test_mixup_shares_follow_the_beta_distribution():
    shares = mixed(MIXUP, count=4000, side=1).targets.max(dim=1).values  # of the larger half
    uniform = mixed(ImageAugmentConfig(mixup=1.0), count=4000, side=1).targets.max(dim=1).values
    assert uniform.mean() == pytest.approx(0.75, abs=0.02)
    assert shares.mean() == pytest.approx(0.901, abs=0.02)  # beta(0.2, 0.2), folded at one half


def test_cutmix_labels_are_the_share_of_pixels():
    batch = mixed(CUTMIX, count=64)
    for sample in range(32):
        picture = batch.inputs["image"][sample, 0]
        kept = (picture == sample).float().mean()
        assert ((picture == sample) | (picture == sample + 32)).all()
        torch.testing.assert_close(batch.targets[sample, sample], kept)
        torch.testing.assert_close(batch.targets[sample, sample + 32], 1 - kept)


def test_cutmix_cuts_one_box():
    for picture in mixed(CUTMIX, count=64, side=16).inputs["image"]:
        rows, columns = (picture[0] == picture[0].max()).nonzero(as_tuple=True)
        if len(rows) and picture.min() != picture.max():
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert len(rows) == box


def test_cutmix_areas_are_uniform_but_for_the_edges():
    shares = 1 - mixed(CUTMIX, count=4000, side=32).targets[torch.arange(2000), torch.arange(2000)]
    # A box of area a at a uniform place keeps (1 - side / 4)^2 of itself: E[a (1 - sqrt(a) / 4)^2].
    assert shares.mean() == pytest.approx(1 / 2 - 0.4 / 2 + 1 / 48, abs=0.02)
    assert shares.max() > 0.8


def test_with_both_each_gets_half_of_the_batch():
    pictures = mixed(BOTH, count=40).inputs["image"]
    whole = torch.tensor([len(picture[0].unique()) == 1 for picture in pictures])
    assert whole[:10].all()
    assert not whole[10:].all()


def test_shares_as_targets_are_mixed_too():
    batch = batch_of(4)
    shares = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.1, 0.9]])
    mixed_batch = mix(replace(batch, targets=shares), MIXUP, 2, np.random.default_rng(0))
    torch.testing.assert_close(mixed_batch.targets.sum(dim=1), torch.ones(2))


def test_an_odd_sample_is_left_out():
    batch = batch_of(5)
    assert mix(batch, BOTH, 5, np.random.default_rng(0)).names == ("0 + 2", "1 + 3")


def test_one_seed_gives_one_batch():
    first, again, other = mixed(BOTH), mixed(BOTH), mixed(BOTH, seed=1)
    assert torch.equal(first.inputs["image"], again.inputs["image"])
    assert not torch.equal(first.inputs["image"], other.inputs["image"])


def test_the_batch_given_is_not_changed():
    batch = batch_of(8)
    before = batch.inputs["image"].clone()
    mix(batch, BOTH, 8, np.random.default_rng(0))
    assert torch.equal(batch.inputs["image"], before)


def test_pictures_without_labels_are_refused():
    with pytest.raises(
        ValueError, match=r"need labeled pictures, at least two .* got 4 with no labels"
    ):
        mix(replace(batch_of(4), targets=None), MIXUP, 4, np.random.default_rng(0))


def test_a_single_picture_is_refused():
    with pytest.raises(ValueError, match="at least two in a batch; got 1 with labels"):
        mix(batch_of(1), MIXUP, 4, np.random.default_rng(0))


def test_other_inputs_are_refused():
    batch = replace(batch_of(2), inputs={"wave": torch.zeros(2, 100)})
    with pytest.raises(ValueError, match=r"got other inputs: \['wave'\]"):
        mix(batch, MIXUP, 2, np.random.default_rng(0))
    batch = replace(batch_of(2), masks={"image": torch.ones(2, 64, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"got other inputs: \['image'\]"):
        mix(batch, MIXUP, 2, np.random.default_rng(0))
