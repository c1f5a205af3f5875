"""Bad sounds, films, shapes, texts, recordings, arrays and shards: what predict and fit say of them, and go on."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from perceivers.escaping import escape_markdown
from support import modality_data as made
from support.bad_files import (
    ARRAY,
    AUDIO,
    POINTS,
    SERIES,
    TEXT,
    VIDEO,
    Bad,
    longer_audio,
    rotated,
    vary,
)
from support.cli import SMALL, run_command, table_rows
from support.files import wav_bytes, write_parquet, write_tar, write_video, write_wav
from support.models import save_untrained

pytest.importorskip("soundfile")
pytest.importorskip("av")

KINDS: dict[str, tuple[tuple[str, ...], list[Bad], Callable[[Path], Path], tuple[str, ...]]] = {
    "audio": (
        ("audio",),
        AUDIO,
        made.make_audio,
        made.stem_flags("audio"),
    ),
    "video": (
        ("video",),
        VIDEO,
        lambda folder: made.make_videos(folder, audio=False),
        made.stem_flags("video"),
    ),
    "points": (
        ("points",),
        POINTS,
        made.make_meshes,
        ("--inputs.points.stem-channels", "8", "8"),
    ),
    "text": (("text",), TEXT, made.make_texts, ("--inputs.text.units.word-channels", "8")),
    "series": (
        ("series",),
        SERIES,
        made.make_series,
        ("--inputs.series.stem-channels", "4", "8"),
    ),
    "array": (
        ("array",),
        ARRAY,
        lambda folder: made.make_arrays(folder, places=False),
        ("--inputs.array.project-channels", "8"),
    ),
}
GOOD = {
    "audio": ".wav",
    "video": ".mp4",
    "points": ".off",
    "text": ".txt",
    "series": ".csv",
    "array": ".npz",
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory) -> Callable[..., Path]:
    """Return a function that gives an untrained run of some modalities; each is made once."""
    known: dict[tuple[str, ...], Path] = {}

    def made_once(*kinds: str) -> Path:
        if kinds not in known:
            known[kinds] = save_untrained(tmp_path_factory.mktemp("run"), *kinds)
        return known[kinds]

    return made_once


@pytest.fixture(scope="module")
def data_of(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that gives good data of a kind; each is made once."""
    known: dict[str, Path] = {}

    def made_once(kind: str) -> Path:
        if kind not in known:
            known[kind] = KINDS[kind][2](tmp_path_factory.mktemp(kind))
        return known[kind]

    return made_once


def told(err: str, path: Path) -> None:
    """Assert that an error is one paragraph that names the file once it can, and no traceback."""
    (line,) = err.splitlines()
    assert line.startswith("perceivers predict: ")
    assert path.name in line
    assert "Traceback" not in line
    assert "Error" not in line


def cases(wanted: Callable[[Bad], bool]) -> list[object]:
    found: list[object] = []
    for kind, (_, bads, _, _) in KINDS.items():
        for number, bad in enumerate(filter(wanted, bads)):
            marks = [pytest.mark.quick] * (number < 2)
            found.append(pytest.param(kind, bad, id=bad.name, marks=marks))
    return found


@pytest.mark.parametrize(("kind", "bad"), cases(lambda bad: bool(bad.why)))
def test_predict_names_the_file_and_labels_the_others(run_of, data_of, tmp_path, kind, bad):
    good = data_of(kind) / "test" / "low" / f"low6{GOOD[kind]}"
    path = tmp_path / bad.name
    bad.write(path)
    status, out, err = run_command(
        "predict", run_of(*KINDS[kind][0]), path, good, "--format", "csv"
    )
    assert status == 1
    told(err, path)
    assert bad.why in err
    (row,) = table_rows(out)
    assert row["name"] == str(good)


@pytest.mark.parametrize(("kind", "bad"), cases(lambda bad: not bad.why))
def test_predict_reads_what_is_only_unusual(run_of, tmp_path, kind, bad):
    path = tmp_path / bad.name
    bad.write(path)
    status, out, err = run_command("predict", run_of(*KINDS[kind][0]), path, "--format", "csv")
    assert (status, err) == (0, "")
    (row,) = table_rows(out)
    assert float(row["p(low)"]) + float(row["p(high)"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_fit_skips_and_counts_what_cannot_be_read_and_goes_on(tmp_path, kind):
    _, bads, make, flags = KINDS[kind]
    data = make(tmp_path / "data")
    # A class has as many bad files as good ones; those of the test split are not read.
    for place, bad in enumerate(bads):
        bad.write(data / "train" / made.LABELS[place % 2] / bad.name)
    status, out, err = run_command(
        *("fit", data, "--out", tmp_path / "run", "--max-bad", "0.5"),
        *(*SMALL, *flags, "--max-steps", "8"),  # more than an epoch, so that every row is tried
    )
    assert status == 0, err
    assert "Traceback" not in out + err
    report = (tmp_path / "run" / "report.md").read_text()
    refused = [bad for bad in bads if bad.why]
    assert f"{len(refused)} rows were left out." in report
    for bad in refused:
        (line,) = [
            line
            for line in report.splitlines()
            if line.startswith("- ") and escape_markdown(bad.name) in line
        ]
        assert bad.why in line


class TestFit:
    def test_too_many_bad_files_stop_the_run(self, tmp_path):
        data = made.make_audio(tmp_path / "data")
        for number, bad in enumerate(AUDIO[:3]):
            bad.write(data / "train" / made.LABELS[number % 2] / bad.name)
        flags = KINDS["audio"][3]
        status, _, err = run_command("fit", data, "--out", tmp_path / "run", *SMALL, *flags)
        assert status == 1
        assert "cannot be read, more than the 1.0% allowed" in err
        assert "--max-bad" in err
        assert "Traceback" not in err

    def test_the_report_counts_what_was_decided_on_decoding(self, tmp_path):
        data = made.make_audio(tmp_path / "data")
        for bad in AUDIO:
            if bad.note:
                bad.write(data / "train" / "low" / bad.name)
        flags = [*KINDS["audio"][3], "--max-steps", "8"]
        assert run_command("fit", data, "--out", tmp_path / "run", *SMALL, *flags)[0] == 0
        report = (tmp_path / "run" / "report.md").read_text()
        assert "mixed to mono" in report
        assert "silent" in report
        assert "clipped" in report

    def test_sound_that_is_asked_for_and_not_there_is_told(self, tmp_path):
        data = made.make_videos(tmp_path / "data", audio=False)
        rows = [f"{path},{path.parent.name}" for path in sorted((data / "train").rglob("*.mp4"))]
        (tmp_path / "films.csv").write_text("\n".join(["film,label", *rows]))
        flags = [*SMALL, "--columns", "film:film"]
        status, _, err = run_command(
            "fit", tmp_path / "films.csv", "--out", tmp_path / "run", *flags
        )
        assert status == 1
        assert "has no audio track" in err
        assert "Traceback" not in err


class TestFilmsAndTheirSound:
    def test_a_model_of_sound_says_that_a_film_has_none(self, run_of, tmp_path):
        silent = write_video(tmp_path / "silent.mp4", made.frames(0, 0))
        heard = write_video(
            tmp_path / "heard.mp4",
            made.frames(0, 0),
            audio=made.tone(0, 0, seconds=0.8, rate=16_000),
        )
        status, out, err = run_command("predict", run_of("audio"), silent, heard, "--format", "csv")
        assert status == 1
        told(err, silent)
        assert "has no audio track" in err
        (row,) = table_rows(out)
        assert row["name"] == str(heard)

    @pytest.mark.parametrize("write", [longer_audio, vary, rotated])
    def test_a_model_of_both_reads_what_there_is(self, run_of, tmp_path, write):
        write(tmp_path / "film.mp4")
        run = run_of("audio", "video")
        status, out, err = run_command("predict", run, tmp_path / "film.mp4", "--format", "csv")
        assert (status, err) == (0, "")
        assert len(out.splitlines()) == 2


def test_ten_million_points_take_seconds(run_of, tmp_path):
    points = np.random.default_rng(0).standard_normal((10_000_000, 3), dtype=np.float32)
    np.save(tmp_path / "large.npy", points.astype(np.float16))
    run = run_of("points")
    start = time.process_time()
    status, out, err = run_command("predict", run, tmp_path / "large.npy", "--format", "csv")
    assert (status, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert time.process_time() - start < 10


def spoken(count: int, first: int = 0) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for number in range(first, first + count):
        members[f"k{number}.wav"] = wav_bytes(made.tone(number % 2, number))
        members[f"k{number}.cls"] = made.LABELS[number % 2].encode()
    return members


class TestShards:
    def test_a_shard_that_is_cut_short_is_told_and_the_others_are_predicted(self, run_of, tmp_path):
        whole = write_tar(tmp_path / "whole.tar", spoken(2))
        cut = write_tar(tmp_path / "cut.tar", spoken(2, first=2))
        cut.write_bytes(cut.read_bytes()[:2500])
        status, out, err = run_command("predict", run_of("audio"), cut, whole, "--format", "csv")
        assert status == 1
        told(err, cut)
        assert "cut off" in err
        assert len(out.splitlines()) == 1 + 2

    def test_a_parquet_shard_that_is_cut_short_is_told(self, run_of, tmp_path):
        sounds = [wav_bytes(made.tone(0, number)) for number in range(3)]
        whole = write_parquet(tmp_path / "whole.parquet", {"audio": sounds})
        cut = tmp_path / "cut.parquet"
        cut.write_bytes(whole.read_bytes()[:-20])
        status, out, err = run_command("predict", run_of("audio"), cut, whole, "--format", "csv")
        assert status == 1
        told(err, cut)
        assert len(out.splitlines()) == 1 + 3

    @pytest.mark.parametrize("stream", [False, True])
    def test_fit_tells_which_shard_is_cut_short(self, tmp_path, stream):
        for number in range(3):
            write_tar(tmp_path / f"train-{number}.tar", spoken(6, first=6 * number))
        cut = tmp_path / "train-2.tar"
        cut.write_bytes(cut.read_bytes()[:5000])
        how = ["--stream", "--max-epochs", "1"] if stream else []
        flags = [*SMALL, *KINDS["audio"][3], "--max-steps", "50", *how]
        status, _, err = run_command("fit", tmp_path, "--out", tmp_path / "run", *flags)
        assert status == 1
        assert "train-2.tar is cut off" in err
        assert "Traceback" not in err

    def test_names_that_lead_out_of_an_archive_are_only_names(self, run_of, tmp_path):
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        secret = tmp_path / "secret.wav"
        write_wav(secret, made.tone(1, 0))
        sound = wav_bytes(made.tone(0, 0))
        members = {"../../evil.wav": sound, "../../evil.cls": b"low", "/tmp/evil2.wav": sound}
        tar = write_tar(inner / "shard.tar", members, links={"linked.wav": str(secret)})
        before = sorted(tmp_path.rglob("*"))
        status, out, err = run_command("predict", run_of("audio"), tar, "--format", "csv")
        assert (status, err) == (0, "")
        rows = table_rows(out)
        assert len(rows) == 2  # a link leads to nothing
        assert all("linked" not in row["name"] for row in rows)
        assert sorted(tmp_path.rglob("*")) == before
        assert not Path("/tmp/evil2.wav").exists()

    def test_a_table_in_an_archive_names_no_file_of_this_disk(self, run_of, tmp_path):
        secret = write_wav(tmp_path / "secret.wav", made.tone(1, 0))
        members = {"k.json": f'{{"audio": "{secret}"}}'.encode(), "k.cls": b"low"}
        tar = write_tar(tmp_path / "shard.tar", members)
        status, out, err = run_command("predict", run_of("audio"), tar)
        assert status == 1
        assert "No predictions." in out
        assert "which is no audio and names no file of these data" in " ".join(err.split())
