from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.data.base import Batch
from perceivers.data.loading.mixup import Mixing, mix, mixing_of
from perceivers.data.modalities.audio.augment import AudioAugmentConfig
from perceivers.data.modalities.image.modality import ImageAugmentConfig
from perceivers.data.modalities.points.modality import PointsAugmentConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig

MIXUP = Mixing(mixup=0.2)
CUTMIX = Mixing(cutmix=True)
BOTH = Mixing(mixup=0.2, cutmix=True)


def batch_of(count, side=8):
    """Picture i holds the value i and is of class i."""
    pictures = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    names = tuple(str(number) for number in range(count))
    return Batch(inputs={"image": pictures.clone()}, targets=torch.arange(count), names=names)


def mixed(augment, count=8, seed=0, **options):
    return mix(batch_of(count, **options), augment, count, np.random.default_rng(seed))


def test_how_samples_are_mixed_follows_from_the_augmentation():
    assert mixing_of({}) is None
    assert mixing_of({"image": ImageAugmentConfig()}) is None
    assert mixing_of({"image": ImageAugmentConfig(mixup=0.2, cutmix=True)}) == BOTH
    several = {"sound": AudioAugmentConfig(mixup=0.3), "cloud": PointsAugmentConfig(mixup=0.1)}
    assert mixing_of(several) == Mixing(mixup=0.3, chosen=frozenset({"cloud"}))


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match=r"got image \(image\), text \(text\)\. Switch them off"):
        mixing_of({"image": ImageAugmentConfig(mixup=0.2), "text": TextAugmentConfig()})
    with pytest.raises(ValueError, match="CutMix images only; got image"):
        mixing_of({"image": ImageAugmentConfig(cutmix=True), "sound": AudioAugmentConfig()})


@pytest.mark.parametrize("augment", [MIXUP, CUTMIX, BOTH])
def test_sample_i_is_mixed_from_i_and_its_partner_half_a_batch_further(augment):
    batch = mixed(augment)
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
    uniform = mixed(Mixing(mixup=1.0), count=4000, side=1).targets.max(dim=1).values
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
        ValueError, match=r"need labeled samples, at least two .* got 4 with no labels"
    ):
        mix(replace(batch_of(4), targets=None), MIXUP, 4, np.random.default_rng(0))


def test_a_single_picture_is_refused():
    with pytest.raises(ValueError, match="at least two in a batch; got 1 with labels"):
        mix(batch_of(1), MIXUP, 4, np.random.default_rng(0))


def test_what_is_padding_in_both_stays_padding():
    sounds = torch.ones(4, 6, 1)
    mask = torch.arange(6) < torch.tensor([6, 2, 3, 4])[:, None]
    batch = Batch(
        inputs={"sound": sounds * mask[..., None]},
        masks={"sound": mask},
        targets=torch.arange(4),
        names=("a", "b", "c", "d"),
    )
    both = mix(batch, MIXUP, 4, np.random.default_rng(0))
    assert both.masks["sound"].sum(dim=1).tolist() == [6, 4]
    share = both.targets[1, 1]
    torch.testing.assert_close(both.inputs["sound"][1, 1, 0], torch.tensor(1.0))
    torch.testing.assert_close(both.inputs["sound"][1, 3, 0], 1 - share)  # there only in the second


def test_of_sets_each_sample_gives_its_share_of_elements():
    points = torch.arange(2.0).view(2, 1, 1).expand(2, 4000, 3)
    batch = Batch(inputs={"points": points}, targets=torch.arange(2), names=("a", "b"))
    mixing = Mixing(mixup=5.0, chosen=frozenset({"points"}))
    both = mix(batch, mixing, 2, np.random.default_rng(3))
    assert set(both.inputs["points"].unique().tolist()) == {0.0, 1.0}  # whole points, not blends
    assert both.inputs["points"].mean().item() == pytest.approx(both.targets[0, 1].item(), abs=0.03)
    mask = torch.tensor([[True] * 2000 + [False] * 2000, [True] * 4000])
    both = mix(replace(batch, masks={"points": mask}), mixing, 2, np.random.default_rng(3))
    assert 2000 < both.masks["points"].sum() < 4000
