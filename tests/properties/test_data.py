"""What must hold for every picture, split and batch."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perceivers.data.base import Batch
from perceivers.data.loading.mixup import mix, mixing_of
from perceivers.data.loading.sampler import BatchSampler, LoaderSettings
from perceivers.data.modalities.image.augment import inception_box
from perceivers.data.modalities.image.modality import (
    ImageAugmentConfig,
    ImageModality,
    ImagePreprocessConfig,
)
from perceivers.data.modalities.image.preprocess import evaluation_box

sides = st.integers(1, 200)
seeds = st.integers(0, 2**32)
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
scales = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(lambda pair: tuple(sorted(pair)))
ratios = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(lambda pair: tuple(sorted(pair)))


@settings(max_examples=60)
@given(
    width=sides,
    height=sides,
    size=sizes,
    channels=st.sampled_from([1, 3]),
    scale=st.none() | scales,
    randaugment=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 10)),
    keep_aspect=st.booleans(),
    seed=seeds,
)
def test_any_picture_becomes_an_array_of_the_models_shape(
    width, height, size, channels, scale, randaugment, keep_aspect, seed
):
    image = Image.new("L" if channels == 1 else "RGB", (width, height), 7)
    preprocess = ImagePreprocessConfig.imagenet(
        size=size,
        num_channels=channels,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        keep_aspect=keep_aspect,
    )
    augment = ImageAugmentConfig(crop_scale=scale, randaugment=randaugment)
    images = ImageModality(preprocess, augment)
    samples = [images.transform(image), images.transform(image, rng=np.random.default_rng(seed))]
    values, mask = images.collate(samples)
    assert mask is None
    assert values.shape == (2, channels, *size)
    assert values.isfinite().all()


@settings(max_examples=100)
@given(
    width=sides,
    height=sides,
    size=sizes,
    scale=scales,
    ratio=ratios,
    fraction=st.floats(0.01, 1),
    seed=seeds,
)
def test_boxes_lie_inside_the_picture(width, height, size, scale, ratio, fraction, seed):
    preprocess = ImagePreprocessConfig.imagenet(size=size, crop_fraction=fraction)
    augment = ImageAugmentConfig(crop_scale=scale, crop_ratio=ratio)
    generator = np.random.default_rng(seed)
    for left, top, right, bottom in (
        evaluation_box(width, height, preprocess),
        inception_box(width, height, augment, preprocess, generator),
    ):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@settings(max_examples=60)
@given(
    count=st.integers(2, 12),
    size=sizes,
    classes=st.integers(1, 5),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.booleans(),
    seed=seeds,
)
def test_mixed_targets_sum_to_one_and_pixels_stay_between(
    count, size, classes, mixup, cutmix, seed
):
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 3, *size, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    batch = Batch(inputs={"image": pictures}, targets=targets, names=("x",) * count)
    mixing = mixing_of({"image": ImageAugmentConfig(mixup=mixup, cutmix=cutmix)})
    if mixing is None:
        assert not mixup
        assert not cutmix
        return
    mixed = mix(batch, mixing, classes, np.random.default_rng(seed))
    half = count // 2
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(half))
    assert (mixed.targets >= 0).all()
    first, second = pictures[:half], pictures[half : 2 * half]
    lowest, highest = torch.minimum(first, second), torch.maximum(first, second)
    assert (mixed.inputs["image"] >= lowest - 1e-6).all()
    assert (mixed.inputs["image"] <= highest + 1e-6).all()


@settings(max_examples=100)
@given(
    num_rows=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 4),
    training=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 3),
    start=st.integers(0, 70),
)
def test_ranks_together_see_each_row_at_most_once(
    num_rows, batch_size, world_size, training, drop_last, epoch, start
):
    if training and num_rows < world_size:
        return
    seen, lengths = [], set()
    for rank in range(world_size):
        order = BatchSampler(
            num_rows,
            LoaderSettings(
                batch_size=batch_size,
                training=training,
                drop_last=drop_last,
                world_size=world_size,
                rank=rank,
            ),
        )
        plans = list(order.plans(epoch))
        assert len(plans) == len(order)
        assert [p.rows.tolist() for p in order.plans(epoch, start)] == [
            p.rows.tolist() for p in plans[start:]
        ]
        seen += [int(row) for plan in plans for row in plan.rows]
        lengths.add(tuple(len(plan.rows) for plan in plans))
    assert len(seen) == len(set(seen))
    if training:
        assert len(lengths) == 1  # no rank waits for another
        missing = num_rows - len(seen)
        assert missing < (batch_size * world_size if drop_last else world_size)
    else:
        assert sorted(seen) == list(range(num_rows))
