import numpy as np
import pytest
import torch

from perceivers.data.modalities.base import (
    DecodedValue,
    MissingValueError,
    Modality,
    clip_positions,
    stack_padded,
)


def test_one_clip_lies_in_the_middle_and_more_are_spread_over_the_whole():
    assert clip_positions(1) == (0.5,)
    assert clip_positions(2) == (0.0, 1.0)
    assert clip_positions(5) == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_no_clip_is_an_error():
    with pytest.raises(ValueError, match="at least one clip, got num_clips=0"):
        clip_positions(0)


def test_arrays_of_one_length_need_no_mask():
    values, mask = stack_padded([np.ones((3, 2))] * 2, like=(9, 2), dtype=np.float32)
    assert values.shape == (2, 3, 2)
    assert values.dtype == torch.float32
    assert mask is None


def test_shorter_arrays_are_padded_with_zeros():
    arrays = [np.array([1, 2, 3]), np.array([4])]
    values, mask = stack_padded(arrays, like=(9,), dtype=np.int64)
    assert values.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask is not None
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_lengths_are_rounded_up():
    values, mask = stack_padded([np.ones(3)], like=(9,), dtype=np.float32, multiple=4)
    assert values.tolist() == [[1, 1, 1, 0]]
    assert mask is not None
    assert mask.tolist() == [[True, True, True, False]]


def test_a_missing_sample_is_zeros_of_which_nothing_is_real():
    values, mask = stack_padded([None, np.ones((2, 1))], like=(9, 1), dtype=np.float32)
    assert values.flatten().tolist() == [0, 0, 1, 1]
    assert mask is not None
    assert mask.tolist() == [[False, False], [True, True]]


def test_where_all_are_missing_the_length_is_that_of_a_sample():
    values, mask = stack_padded([None, None], like=(3, 2), dtype=np.float32)
    assert values.shape == (2, 3, 2)
    assert mask is not None
    assert not mask.any()
    values, _ = stack_padded([None], like=(0, 2), dtype=np.float32)
    assert values.shape == (1, 1, 2)


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"samples of shape L x \(2,\), got \(5, 3\)"):
        stack_padded([np.ones((5, 3))], like=(5, 2), dtype=np.float32)


def test_missing_is_a_value_error_and_notes_are_empty_at_first():
    assert issubclass(MissingValueError, ValueError)
    assert DecodedValue(1).notes == ()


def test_what_has_the_three_steps_is_a_modality():
    class Numbers:
        has_clips = False

        def decode(self, media, *, clip_position=None):
            return DecodedValue(media)

        def transform(self, value, *, clip_position=0.5, rng=None):
            return value

        def collate(self, samples):
            return stack_padded(samples, like=(1,), dtype=np.float32)

    assert isinstance(Numbers(), Modality)
    assert not isinstance(object(), Modality)
