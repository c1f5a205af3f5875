"""Every modality from real files: fit, evaluate, predict, inspect and explain, as they are typed."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.sources.open import open_data
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.hub.checkpoint import load
from support import modality_data as made
from support.cli import SMALL, logged_losses, predict_rows, run_command
from support.files import write_video, write_wav
from support.modality_data import CASES, Case

pytest.importorskip("soundfile")
pytest.importorskip("av")


@dataclass(frozen=True)
class Trained:
    case: Case
    data: Path
    run: Path
    said: str

    @property
    def file(self) -> str:
        return str(self.data / self.case.file) if self.case.file else str(self.data)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Callable[[str], Trained]:
    """Return a function that gives the run of a case; each is trained once."""
    known: dict[str, Trained] = {}

    def trained(name: str) -> Trained:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            case = CASES[name]
            data = case.make(folder / "data")
            status, out, err = run_command(
                "fit", data, "--out", folder / "run", *SMALL, *case.flags
            )
            assert status == 0, err
            known[name] = Trained(case, data, folder / "run", out)
        return known[name]

    return trained


QUICK = ("audio_video", "meshes", "text", "table", "mixed")


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.quick] * (name in QUICK)) for name in CASES]
)
def one(request, fitted) -> Trained:
    return fitted(request.param)


def shares(row: dict[str, str]) -> list[float]:
    return [float(cell) for name, cell in row.items() if name.startswith("p(")]


def test_fit_leaves_a_run_that_evaluate_measures_on_the_test_split(one):
    assert f"The run is in {one.run}" in one.said
    assert "trained | 2 steps" in (one.run / "report.md").read_text()
    status, out, err = run_command("evaluate", one.run)
    assert (status, err) == (0, "")
    assert f"{one.case.measured} samples." in out.splitlines()[0]
    assert re.fullmatch(
        rf"test {one.case.metric}: [\d.,]+( %)?( \([\d.,-]+ to [\d.,-]+\))?", out.splitlines()[-1]
    )


def test_predict_answers_for_every_sample_of_a_file(one):
    rows = predict_rows(one.run, one.file)
    assert len(rows) == one.case.samples
    for row in rows:
        assert row["name"].startswith(one.file)
        if one.case.metric == "rmse":
            assert np.isfinite(float(row["price"]))
        elif one.case.metric == "mAP":
            assert len(shares(row)) == 4
            assert all(0 < share < 1 for share in shares(row))
        else:
            assert sum(shares(row)) == pytest.approx(1, abs=1e-5)
            assert row["label"] in made.LABELS


def test_inspect_counts_the_elements(one):
    status, out, err = run_command("info", one.run)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith(f"input                 {one.case.num_elements:,} elem")


def test_explain_writes_where_every_read_looked(one, tmp_path):
    status, out, err = run_command("explain", one.run, one.file, "--out", tmp_path / "x.npz")
    assert (status, err) == (0, "")
    assert "x.npz" in out
    with np.load(tmp_path / "x.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    seen = [array for name, array in found.items() if name.split(".")[-1] == "attention"]
    assert len(seen) == len(found["modalities"])
    places = one.case.num_steps or one.case.num_elements
    assert sum(array[0].size for array in seen) <= places
    for array in seen:
        assert np.nanmean(array) == pytest.approx(1, abs=1e-3)
    whole = sum(float(np.asarray(a)[0]) for n, a in found.items() if n.split(".")[-1] == "share")
    assert whole == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["audio", "text", "arrays", "meshes"])
def test_a_folder_gives_as_many_predictions_as_it_has_files(fitted, name):
    trained = fitted(name)
    rows = predict_rows(trained.run, trained.data / "test")
    assert len(rows) == 6
    (alone,) = predict_rows(trained.run, trained.file)
    (same,) = [row for row in rows if row["name"] == trained.file]
    assert shares(alone) == pytest.approx(shares(same), abs=2e-6)


def test_the_mean_of_three_clips_is_that_of_their_probabilities(fitted, tmp_path):
    trained = fitted("audio")
    samples = np.concatenate(
        [made.tone(place, 50) for place in (0, 1, 0, 1)]
    )  # 1 s, clips of 0.3 s
    path = write_wav(tmp_path / "long.wav", samples)
    (row,) = predict_rows(trained.run, path, "--clips", "3")
    saved = load(trained.run)
    predictor = Predictor(saved)
    modality = predictor.reader.modalities["audio"]
    found: list[torch.Tensor] = []
    for first in (0, 1400, 2800):
        clip = write_wav(tmp_path / f"{first}.wav", samples[first : first + 1200])
        sound = modality.decode(EncodedItem(str(clip), path=clip)).value
        values, mask = modality.collate([modality.transform(sound)])
        assert mask is None
        with torch.no_grad():
            found.append(saved.model({"audio": values}).softmax(-1))
    expected = torch.cat(found).mean(0).tolist()
    assert shares(row) == pytest.approx(expected, abs=1e-5)
    (middle,) = predict_rows(trained.run, path)
    assert shares(middle) == pytest.approx(found[1][0].tolist(), abs=1e-5)
    status, out, _ = run_command("evaluate", trained.run, "--clips", "3")
    assert status == 0
    assert "6 samples" in out


class TestWithoutAModality:
    def test_a_film_without_its_pictures_is_its_sound(self, fitted):
        trained = fitted("audio_video")
        both = predict_rows(trained.run, trained.file)
        (heard,) = predict_rows(trained.run, trained.file, "--drop-modality", "video")
        (given,) = load_predictor(trained.run).predict({"audio": Path(trained.file)})
        assert shares(heard) == pytest.approx(list(given.probabilities.values()), abs=2e-6)
        assert shares(heard) != shares(both[0])
        status, out, _ = run_command("evaluate", trained.run, "--drop-modality", "video")
        assert status == 0
        assert "6 samples" in out
        assert out.splitlines()[-1].startswith("test accuracy: ")

    def test_a_film_without_a_sound_track_is_its_pictures(self, fitted, tmp_path):
        trained = fitted("audio_video")
        film = write_video(tmp_path / "silent.mp4", made.frames(0, 6))
        (seen,) = predict_rows(trained.run, film)
        (without,) = predict_rows(trained.run, film, "--drop-modality", "audio")
        assert shares(seen) == pytest.approx(shares(without), abs=2e-6)

    def test_parts_are_named_and_one_may_be_left_out(self, fitted, tmp_path):
        trained = fitted("mixed")
        photo, voice = tmp_path / "a.png", tmp_path / "a.wav"
        photo.write_bytes(made.png(0, 9))
        write_wav(voice, made.tone(0, 9))
        (both,) = predict_rows(trained.run, f"image={photo},audio={voice}")
        (alone,) = predict_rows(trained.run, f"image={photo}")
        assert shares(both) != shares(alone)
        assert sum(shares(alone)) == pytest.approx(1, abs=1e-5)
        one = made.series(0, 9, length=20)
        series = {"x": one["x"].tolist(), "y": one["y"].tolist()}
        (found,) = load_predictor(trained.run).predict({"series": series})
        assert sum(found.probabilities.values()) == pytest.approx(1)
        status, _, err = run_command("predict", trained.run, photo)
        assert status == 1
        assert "image, audio, series together" in err

    def test_a_modality_that_is_not_there_is_told(self, fitted):
        trained = fitted("audio_video")
        status, _, err = run_command(
            "predict", trained.run, trained.file, "--drop-modality", "vidio"
        )
        assert status == 1
        assert "Did you mean 'video'?" in err


class TestCache:
    def test_batches_are_the_same_bit_by_bit(self, fitted, tmp_path):
        trained = fitted("audio_video")
        saved = load(trained.run)
        source = open_data(str(trained.data), DataConfig())
        batches = {}
        for name, cache in {"none": None, "first": "c", "again": "c"}.items():
            settings = LoaderSettings(
                batch_size=4,
                training=True,
                num_classes=2,
                cache=None if cache is None else str(tmp_path / cache),
            )
            loader = make_loader(
                source.splits["train"],
                source.inputs,
                source.targets("train"),
                preprocess=saved.config.preprocess,
                augment=None,
                settings=settings,
            )
            batches[name] = [batch for _ in range(2) for batch in loader]
        assert len(batches["none"]) == 6
        for name in ("first", "again"):
            for plain, kept in zip(batches["none"], batches[name], strict=True):
                for modality in ("audio", "video"):
                    assert torch.equal(plain.inputs[modality], kept.inputs[modality])
                assert torch.equal(plain.targets, kept.targets)

    def test_a_run_learns_the_same(self, fitted, tmp_path):
        trained = fitted("audio")
        flags = [*SMALL, *trained.case.flags, "--cache", str(tmp_path / "kept")]
        for name in ("first", "again"):
            assert run_command("fit", trained.data, "--out", tmp_path / name, *flags)[0] == 0
            weights = tmp_path / name / "model.safetensors"
            assert weights.read_bytes() == (trained.run / "model.safetensors").read_bytes()
            assert logged_losses(tmp_path / name) == logged_losses(trained.run)
        assert list((tmp_path / "kept").rglob("*.sample"))

    def test_a_changed_file_is_decoded_again(self, fitted, tmp_path):
        trained, kept = fitted("audio"), tmp_path / "kept"
        data = shutil.copytree(trained.data, tmp_path / "data")
        fit = ["fit", data, *SMALL, *trained.case.flags]
        assert run_command(*fit, "--cache", str(kept), "--out", tmp_path / "first")[0] == 0
        path = data / "train" / "low" / "low0.wav"
        about = path.stat()
        path.write_bytes(path.read_bytes()[:44] + path.read_bytes()[44:][::-1])
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        assert run_command(*fit, "--cache", str(kept), "--out", tmp_path / "again")[0] == 0
        assert run_command(*fit, "--out", tmp_path / "none")[0] == 0
        assert logged_losses(tmp_path / "again") == logged_losses(tmp_path / "none")
        assert logged_losses(tmp_path / "again") != logged_losses(tmp_path / "first")


class TestShards:
    @pytest.mark.parametrize("name", ["meshes", "mixed"])
    def test_a_stream_of_shards_is_learned_from_and_predicted(self, fitted, tmp_path, name):
        trained = fitted(name)
        shards = tmp_path / "shards"
        status, out, err = run_command(
            "shard", trained.data, "--out", shards, "--rows-per-shard", "4"
        )
        assert (status, err) == (0, "")
        assert out.splitlines()[:2] == ["train: 12 rows in 3 shards", "test: 6 rows in 2 shards"]
        run = tmp_path / "run"
        status, out, err = run_command(
            "fit", shards, "--stream", "--out", run, *SMALL, *trained.case.flags
        )
        assert status == 0, err
        assert "trained | 2 steps" in (run / "report.md").read_text()
        status, out, err = run_command("evaluate", run)
        assert (status, err) == (0, "")
        assert "6 samples" in out
        # The bytes in the shards say what the files say.
        direct = predict_rows(
            trained.run, trained.data / "test" if name in FOLDERS else trained.file
        )
        sharded = predict_rows(trained.run, *sorted(shards.glob("test*.parquet")))
        assert sorted(map(shares, direct)) == pytest.approx(
            np.array(sorted(map(shares, sharded))), abs=2e-6
        )


FOLDERS = ("meshes",)
