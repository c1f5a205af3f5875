"""Rules for videos: few frames beside an audio track."""

from types import SimpleNamespace

import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.recipes import get_recipe
from perceivers.recipes.rules import video
from perceivers.recipes.rules.base import Choice, DataFacts, ModalityFacts


class Facts(ModalityFacts):
    """Facts about videos of one length."""

    def __init__(self, **values):
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def cells(self, count):
        return iter([EncodedItem("a")] * count)


def choose(seconds, monkeypatch, audio="film", frames=32, **overrides):
    monkeypatch.setattr(video, "read_cells", lambda *_: iter([SimpleNamespace(seconds=seconds)]))
    data = DataFacts(
        num_rows=100,
        target_kind="class",
        num_classes=2,
        class_counts=(100,),
        preset="default",
        overrides={f"preprocess.video.{name}": value for name, value in overrides.items()},
    )
    inputs = {"video": InputColumn("film", "video"), "audio": InputColumn(audio, "audio")}
    measured = VideoPreprocessConfig(num_frames=frames, frame_rate=12.5, size=(48, 64))
    facts = Facts(
        name="video",
        data=data,
        source=SimpleNamespace(inputs=inputs),
        measured=measured,
        column=inputs["video"],
    )
    recipe = get_recipe("audio_video")
    choice = Choice(
        input=recipe.inputs["video"], preprocess=recipe.preprocess["video"], augment=None
    )
    found = video.choose(choice, facts).preprocess
    return found.num_frames, found.frame_rate


@pytest.mark.parametrize(("seconds", "rate"), [(2.0, 4.0), (3.0, 2.67), (60.0, 1.6)])
def test_beside_its_audio_track_a_video_has_few_frames(seconds, rate, monkeypatch):
    assert choose(seconds, monkeypatch) == (8, rate)


def test_other_videos_and_given_frames_stay_open(monkeypatch):
    assert choose(3.0, monkeypatch, audio="another column") == (None, None)
    assert choose(0.5, monkeypatch, frames=8) == (None, None)
    assert choose(3.0, monkeypatch, num_frames=24) == (None, None)
