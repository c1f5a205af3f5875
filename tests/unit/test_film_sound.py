from types import SimpleNamespace

import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources import audio_tracks as module
from perceivers.data.sources.audio_tracks import with_audio_tracks
from perceivers.data.tables.columns import ColumnSelection, InputColumn

FILM = {"video": InputColumn("clip", "video")}


def choice(inputs=None):
    return ColumnSelection(inputs or FILM, "label", (), (), ("Inputs: clip (video).",))


@pytest.fixture(autouse=True)
def headers(monkeypatch):
    """A film whose name says whether it has sound, or that it is damaged."""

    def header(media):
        if media.name == "damaged":
            raise ValueError(media.name)
        return SimpleNamespace(has_audio=media.name == "loud")

    monkeypatch.setattr(module, "read_video_header", header)


def rows(*names):
    return [{"clip": EncodedItem(name)} for name in names]


def test_sound_that_all_films_have_is_read():
    found = with_audio_tracks(choice(), rows("loud", "loud", "damaged"))
    assert found.inputs == {**FILM, "audio": InputColumn("clip", "audio")}
    assert found.notes[-1] == "All videos examined have an audio track, which is read with them."


def test_sound_that_some_films_have_is_not_read_and_said():
    found = with_audio_tracks(choice(), rows("loud", "silent"))
    assert found.inputs == FILM
    assert "Of 2 videos examined, 1 have an audio track. It is not read" in found.notes[-1]
    assert "--columns clip:film reads it all the same" in found.notes[-1]


def test_silent_films_and_other_data_stay_as_they_are():
    assert with_audio_tracks(choice(), rows("silent", "silent")) == choice()
    assert with_audio_tracks(choice(), rows("damaged")) == choice()
    pictures = choice({"image": InputColumn("a", "image")})
    assert with_audio_tracks(pictures, []) is pictures
    both = choice({**FILM, "audio": InputColumn("b", "audio")})
    assert with_audio_tracks(both, rows("loud")) is both
