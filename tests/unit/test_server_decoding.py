import dataclasses
import pickle
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from perceivers.data.loading.sample_cache import pack, unpack
from perceivers.data.tables.columns import InputColumn
from perceivers.server import decoding
from perceivers.server.channel import Channel
from perceivers.server.decoding import (
    Decoder,
    DecoderProcess,
    DecoderSettings,
    Job,
    PreparedSample,
    Refusal,
    Upload,
    serve_jobs,
)
from perceivers.server.forms import input_fields
from perceivers.server.settings import UploadLimits
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.masked import MaskedBytesConfig
from support import modality_data as made
from support.files import write_video
from support.models import preprocess_of
from support.server import BOUNDS, GOOD_SUFFIX, bad_files, good_file
from support.timing import PATIENCE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def setup_of(*kinds, limits=BOUNDS, **changes) -> DecoderSettings:
    """Return what a tiny run tells its decoder; no model is needed."""
    preprocess = {kind: preprocess_of(kind) for kind in kinds}
    column = {"video": "film", "audio": "film"} if "video" in kinds else {}
    setup = DecoderSettings(
        columns={kind: InputColumn(column.get(kind, kind), kind) for kind in kinds},
        predicting=preprocess,
        explaining=preprocess,
        task=ClassificationConfig(label_names=made.LABELS),
        num_clips=1,
        limits=limits,
    )
    return dataclasses.replace(setup, **changes)


@pytest.mark.parametrize("kind", GOOD_SUFFIX)
def test_files_of_every_kind_are_prepared_and_what_claims_too_much_is_refused(
    kind, tmp_path, files
):
    decoder = Decoder(setup_of(kind))
    upload = Upload(GOOD_SUFFIX[kind], good_file(kind, files))
    found = decoder.decode(Job({kind: upload}))
    assert isinstance(found, PreparedSample)
    assert found.values == ()
    whole = decoder.decode(Job({kind: upload}, explained=True))
    assert isinstance(whole, PreparedSample)
    assert whole.values[0] is not None
    # It can be sent, and is the same on the other side.
    again = unpack(pack("upload", whole), "upload")
    assert again.modalities == (kind,)
    np.testing.assert_array_equal(
        np.asarray(again.clips[0][0]), np.asarray(whole.sample().clips[0][kind])
    )
    for one in bad_files(files):
        if one.kind == kind and "." in one.name and len(one.name) < 30:
            suffix = "." + one.name.rpartition(".")[2]
            answer = decoder.decode(Job({kind: Upload(suffix, one.data)}))
            assert isinstance(answer, Refusal), one.name
            assert answer.status in (413, 422)
            too_large = any(word in one.name for word in ("above", "slow", "many", "rows"))
            if too_large and ".ply" not in one.name:
                assert answer.status == 413, (one.name, answer)
                assert "at most" in answer.reason


def test_a_film_is_read_with_its_sound(tmp_path):
    decoder = Decoder(setup_of("video", "audio", limits=UploadLimits()))
    path = write_video(
        tmp_path / "a.mp4", made.frames(0, 0), audio=made.tone(0, 0, seconds=1.0, rate=16_000)
    )
    film = Upload(".mp4", path.read_bytes())
    both = decoder.decode(Job({"video": film, "audio": film}))
    assert isinstance(both, PreparedSample)
    assert all(part is not None for part in both.clips[0])
    alone = decoder.decode(Job({"video": film}))
    assert isinstance(alone, PreparedSample)
    assert alone.clips[0][alone.modalities.index("audio")] is None


def test_rows_of_numbers_and_categories_are_written():
    setup = setup_of("table")
    columns = {"table": InputColumn("age", "table", ("age", "color"), ("number", "string"))}
    decoder = Decoder(dataclasses.replace(setup, columns=columns))
    found = decoder.decode(Job({"age": "41", "color": "blue"}))
    assert isinstance(found, PreparedSample)
    np.testing.assert_array_equal(found.clips[0][0], [41, 1])
    assert isinstance(decoder.decode(Job({"age": "old"})), Refusal)
    fields = input_fields(columns, setup.predicting)
    assert [one.as_json() for one in fields] == [
        {
            "name": "age",
            "kind": "table",
            "accept": [],
            "number": True,
            "choices": [],
        },
        {
            "name": "color",
            "kind": "table",
            "accept": [],
            "number": False,
            "choices": ["red", "blue"],
        },
    ]


def test_the_channels_of_a_recording_may_be_columns(files):
    setup = setup_of("series")
    columns = {"series": InputColumn("time", "series", ("time", "x", "y"), ("array",) * 3)}
    decoder = Decoder(dataclasses.replace(setup, columns=columns))
    found = decoder.decode(Job({"series": Upload(".csv", good_file("series", files))}))
    assert isinstance(found, PreparedSample)
    other = decoder.decode(Job({"series": Upload(".csv", b"time,z\n0,1\n1,2\n")}))
    assert isinstance(other, Refusal)
    assert "no column 'x'" in other.reason


def test_texts_of_several_columns_are_given_by_each():
    setup = setup_of("text")
    columns = {"text": InputColumn("asked", "text", ("asked", "told"), ("text", "text"))}
    decoder = Decoder(dataclasses.replace(setup, columns=columns))
    found = decoder.decode(Job({"asked": "Is it late?", "told": Upload(".txt", b"It is.")}))
    assert isinstance(found, PreparedSample)
    assert len(found.clips[0][0]) == len("Is it late?") + 1 + len("It is.")
    one = decoder.decode(Job({"text": "both?"}))
    assert isinstance(one, Refusal)
    assert "asked, told" in one.reason
    single = {"text": InputColumn("asked", "text", ("asked",), ("text",))}
    decoder = Decoder(dataclasses.replace(setup, columns=single))
    assert isinstance(decoder.decode(Job({"text": "both?"})), PreparedSample)


def test_a_text_without_a_blank_is_refused_where_blanks_are_filled():
    setup = setup_of("text", task=MaskedBytesConfig(modality="text"))
    answer = Decoder(setup).decode(Job({"text": "no blank"}))
    assert isinstance(answer, Refusal)
    assert "[MASK]" in answer.reason


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (MemoryError(), 413, "more memory"),
        (ImportError("av is needed"), 415, "av is needed"),
        (KeyError("no column"), 422, "no column"),
        (RuntimeError(), 422, "RuntimeError"),
    ],
)
def test_whatever_decoding_raises_is_a_refusal(error, status, words, monkeypatch):
    def fail(*_):
        raise error

    decoder = Decoder(setup_of("image"))
    monkeypatch.setattr(decoding, "check_limits", fail)
    answer = decoder.decode(Job({"image": Upload(".png", made.png(0, 0))}))
    assert isinstance(answer, Refusal)
    assert answer.status == status
    assert words in answer.reason
    assert "'image.png'" in answer.reason


def test_jobs_are_answered_until_the_other_end_is_closed(monkeypatch):
    monkeypatch.setattr(decoding, "limit_memory", lambda most: None)  # of this very process
    monkeypatch.setattr(decoding.signal, "signal", lambda *_: None)
    monkeypatch.setattr(decoding.torch, "set_num_threads", lambda count: None)
    ours, theirs = Channel.pair()
    thread = threading.Thread(target=serve_jobs, args=(theirs.connection, setup_of("image")))
    thread.start()
    assert ours.receive() == b"ready"
    ours.send(pickle.dumps(Job({"image": Upload(".png", made.png(0, 0))})))
    assert isinstance(unpack(ours.receive(), decoding.KEY), PreparedSample)
    ours.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


class TestChannel:
    @pytest.fixture
    def ends(self):
        ours, theirs = Channel.pair()
        yield ours, theirs
        ours.close()
        theirs.close()

    def test_a_message_arrives_whole(self, ends):
        ours, theirs = ends
        sent = bytes(range(256)) * 20_000
        thread = threading.Thread(target=ours.send, args=(sent, time.monotonic() + PATIENCE))
        thread.start()
        assert theirs.has_message(time.monotonic() + PATIENCE)
        assert theirs.receive(time.monotonic() + PATIENCE) == sent
        thread.join(PATIENCE)
        ours.send(b"")
        assert theirs.receive() == b""

    def test_nobody_waits_longer_than_the_deadline(self, ends):
        ours, theirs = ends
        assert not theirs.has_message(time.monotonic())
        with pytest.raises(TimeoutError):
            theirs.receive(time.monotonic() + 0.05)
        with pytest.raises(TimeoutError):
            ours.send(bytes(50_000_000), time.monotonic() + 0.05)
        with pytest.raises(TimeoutError):  # within a message
            theirs.receive(time.monotonic() + 0.05)

    def test_a_message_has_a_largest_size_and_an_end(self, ends):
        ours, theirs = ends
        ours.send(bytes(100))
        with pytest.raises(ValueError, match="at most 99 bytes, got 100"):
            theirs.receive(most=99)
        ours.close()
        with pytest.raises(EOFError):
            Channel(theirs.connection)._receive(200, None)


class TestDecoderProcess:
    @pytest.fixture
    def process(self):
        process = DecoderProcess(setup_of("image", limits=UploadLimits()))
        ours, theirs = Channel.pair()
        process._channel = ours
        process._process = SimpleNamespace(
            is_alive=lambda: True, kill=lambda: None, join=lambda _: None
        )
        yield process, theirs
        process.stop()
        theirs.close()

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"no result",
            pack(decoding.KEY, "a text"),
            pack("other", Refusal(422, "no")),
        ],
    )
    def test_what_is_no_result_ends_the_process(self, process, sent):
        running, theirs = process
        theirs.send(sent)
        with pytest.raises(HTTPException) as raised:
            running.run(Job({}), time.monotonic() + PATIENCE)
        assert raised.value.status_code == 500
        assert not running.is_running

    def test_a_refusal_has_a_status_of_refusals(self, process):
        running, theirs = process
        theirs.send(pack(decoding.KEY, Refusal(200, "x" * 100_000)))
        found = running.run(Job({}), time.monotonic() + PATIENCE)
        assert found == Refusal(422, "x" * 2000)
        assert running.is_running

    def test_a_process_that_starts_slowly_is_waited_for(self, process):
        running, theirs = process
        running._ready_until = time.monotonic() + PATIENCE
        with pytest.raises(TimeoutError):
            running.run(Job({}), time.monotonic() + 0.05)
        assert running.is_running
        theirs.send(b"ready")
        theirs.send(pack(decoding.KEY, Refusal(413, "too large")))
        found = running.run(Job({}), time.monotonic() + PATIENCE)
        assert found == Refusal(413, "too large")
        running._ready_until = time.monotonic() - 1
        with pytest.raises(TimeoutError):
            running.run(Job({}), time.monotonic() + PATIENCE)
        assert not running.is_running


@pytest.mark.parametrize("name", ["bytes", "wait", "queue"])
def test_a_limit_must_be_above_zero(name):
    with pytest.raises(ValueError, match=f"above zero for {name}"):
        UploadLimits(**{name: 0})
