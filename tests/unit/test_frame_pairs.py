"""Pairs of frames and flow as modalities: cut to one window, mirrored alike, put into one range."""

import numpy as np
import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.flow.modality import (
    FlowModality,
    FlowPreprocessConfig,
    FramePairModality,
    FramePairPreprocessConfig,
    PairAugmentConfig,
    measure_frame_pairs,
    window_at,
)
from perceivers.data.modalities.registry import build_modalities
from support.flow_data import pair

AUGMENT = PairAugmentConfig()


def frames(size=(8, 8), augment=None, **config):
    return FramePairModality(FramePairPreprocessConfig(size=size, **config), augment)


def fields(size=(8, 8), augment=None, **config):
    return FlowModality(FlowPreprocessConfig(size=size, **config), augment)


def test_both_are_modalities_whose_moment_matters():
    for modality in (frames(), fields()):
        assert isinstance(modality, Modality)
        assert modality.has_clips


def test_every_place_is_drawn_and_the_middle_without_chance():
    assert window_at(0.5, (10, 13), (4, 5)).rows == (3, 7)
    assert window_at(0.5, (10, 13), (4, 5)).columns == (4, 9)
    assert window_at(0.5, (3, 3), (4, 5)).rows == (0, 3)
    drawn = [
        window_at(clip_position, (6, 7), (4, 5), mirror=True)
        for clip_position in np.random.default_rng(0).random(2000).tolist()
    ]
    counts = {
        key: sum((w.rows[0], w.columns[0], w.flips) == key for w in drawn)
        for key in {(w.rows[0], w.columns[0], w.flips) for w in drawn}
    }
    assert len(counts) == 3 * 3 * 4
    assert min(counts.values()) > 2000 / 36 / 2
    assert max(counts.values()) < 2000 / 36 * 2
    for end in (0.0, 1.0):
        window = window_at(end, (6, 7), (4, 5))
        assert window.rows == ((0, 4) if end == 0 else (2, 6))


def lookup_error(pairs, field):
    """Return how far the first frame is from the second looked up where it goes, against leaving it where it is."""
    (first, second), flow = pairs.astype(float).transpose(0, 2, 3, 1), field
    rows, columns = first.shape[:2]
    y, x = np.mgrid[:rows, :columns]
    to_y, to_x = np.rint(y + flow[1]).astype(int), np.rint(x + flow[0]).astype(int)
    inside = (to_y >= 0) & (to_y < rows) & (to_x >= 0) & (to_x < columns)
    moved = np.abs(first[inside] - second[to_y[inside], to_x[inside]]).mean()
    return moved, np.abs(first - second).mean()


def test_frames_and_flow_are_cut_and_mirrored_alike(monkeypatch):
    flow = np.broadcast_to(np.float32([2, -3]), (20, 24, 2))
    monkeypatch.setattr("perceivers.data.modalities.flow.synthetic.synthetic_flow", lambda *_: flow)
    made = pair(size=(20, 24), largest=4)
    both = np.stack([made.first, made.second])
    known = np.concatenate([flow, np.ones((20, 24, 1), np.float32)], axis=-1)
    seen = set()
    for clip_position in np.random.default_rng(1).random(40).tolist():
        window = frames((12, 12), AUGMENT).transform(both, clip_position=clip_position)
        field = fields((12, 12), AUGMENT).transform(known, clip_position=clip_position)
        moved, still = lookup_error(window, field)
        assert moved == 0 < still
        seen.add((field[0, 0, 0], field[1, 0, 0]))
    assert seen == {(2, -3), (-2, -3), (2, 3), (-2, 3)}
    straight = PairAugmentConfig(mirror=False)
    assert fields((12, 12), straight).transform(known, clip_position=0.123)[0, 0, 0] == 2


def test_without_augmentation_the_middle_is_read_and_whole_frames_are_left_whole():
    made = pair(size=(20, 24))
    both = np.stack([made.first, made.second])
    middle = frames((12, 12)).transform(both, clip_position=0.9)
    assert (middle == both[:, 4:16, 6:18].transpose(0, 3, 1, 2)).all()
    assert frames(whole=True).transform(both).shape == (2, 3, 20, 24)
    flow = np.ones((20, 24, 3), np.float32)
    assert fields(whole=True).transform(flow).shape == (3, 20, 24)
    assert fields((12, 12)).transform(flow).shape == (3, 12, 12)
    tensor, mask = frames(whole=True).collate([frames(whole=True).transform(both)])
    assert tensor.shape == (1, 2, 3, 20, 24)
    assert mask is None


def test_small_frames_get_zeros_and_nothing_is_known_there():
    made = pair(size=(5, 6))
    both = np.stack([made.first, made.second])
    tensor, mask = frames().collate([frames().transform(both)])
    assert tensor.shape == (1, 2, 3, 8, 8)
    assert mask is None
    assert not tensor[..., 5:, :].any()
    torch.testing.assert_close(
        tensor[0, 0, :, :5, :6], torch.from_numpy(made.first).permute(2, 0, 1) / 127.5 - 1
    )
    known = np.ones((5, 6, 3), np.float32)
    field, _ = fields().collate([fields().transform(known)])
    assert field[0, 2].sum() == 30


def test_missing_ones_are_zeros_and_masked():
    made = pair(size=(8, 8))
    both = frames().transform(np.stack([made.first, made.second]))
    tensor, mask = frames().collate([None, both])
    assert mask.tolist() == [[False], [True]]
    assert not tensor[0].any()
    field, mask = fields().collate([None, np.ones((3, 8, 8), np.float32)])
    assert mask.tolist() == [[False], [True]]
    assert not field[0].any()


def test_pairs_come_as_files_arrays_or_gray():
    made = pair(size=(8, 9))
    both = np.stack([made.first, made.second])
    for value in (both, [made.first, made.second], {"a": made.first, "b": made.second}):
        assert (frames().decode(EncodedItem("it", value=value)).value == both).all()
    assert frames(num_channels=1).decode(EncodedItem("it", value=both)).value.shape == (2, 8, 9, 1)
    assert frames().extent(both) == (8, 9)


@pytest.mark.parametrize(
    ("media", "error", "message"),
    [
        (EncodedItem("it"), MissingValueError, "it is empty: expected two frames, got nothing"),
        (EncodedItem("it", value=[None, None]), MissingValueError, "frame 1 of it is empty"),
        (EncodedItem("it", value=[1, 2, 3]), ValueError, "expected two frames, .* got 3"),
        (EncodedItem("it", data=b"x"), ValueError, "expected two frames, .* got one file"),
    ],
)
def test_what_is_no_pair_says_so(media, error, message):
    with pytest.raises(error, match=message):
        frames().decode(media)


def test_an_empty_flow_is_missing():
    with pytest.raises(MissingValueError, match="it is empty: expected a flow, got nothing"):
        fields().decode(EncodedItem("it"))


def test_sizes_must_be_known():
    with pytest.raises(ValueError, match="the size of the frames"):
        frames(None)
    with pytest.raises(ValueError, match="the size of the flow"):
        fields(None)


def test_the_size_is_that_of_the_smallest_frames_up_to_the_papers():
    cells = [
        EncodedItem("a", value=np.zeros((2, *size, 3), np.uint8)) for size in ((20, 400), (30, 600))
    ]
    bad = EncodedItem("b", value=[np.zeros((4, 4, 3), np.uint8)] * 3)
    empty = FramePairPreprocessConfig()
    assert measure_frame_pairs([*cells, bad], empty).size == (20, 400)
    large = [EncodedItem("a", value=np.zeros((2, 400, 600, 3), np.uint8))]
    assert measure_frame_pairs(large, empty).size == (368, 496)
    given = FramePairPreprocessConfig(size=(4, 4))
    assert measure_frame_pairs([], given) is given
    with pytest.raises(
        ValueError, match=r"No frame pair of a sample can be read. b: expected two frames"
    ):
        measure_frame_pairs([bad], empty)


def test_frames_and_flow_must_be_cut_alike():
    both = {
        "frame_pair": FramePairPreprocessConfig(size=(8, 8)),
        "flow": FlowPreprocessConfig(size=(8, 8)),
    }
    assert set(build_modalities(both, dict.fromkeys(both, AUGMENT))) == set(both)
    with pytest.raises(ValueError, match="cut to the same window, so they need one size and one"):
        build_modalities(both, {"flow": AUGMENT})
    with pytest.raises(ValueError, match="cut to the same window"):
        build_modalities({**both, "flow": FlowPreprocessConfig(size=(8, 9))})
