"""Autoencoders of every modality from real files: fit, evaluate, predict, explain, inspect, and what is refused."""

import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceivers.evaluation.predict import load_predictor
from perceivers.hub.checkpoint import load
from support import modality_data as made
from support.cli import run_command, table_rows
from support.files import write_video
from support.runs import make_image_folder

pytest.importorskip("soundfile")
av = pytest.importorskip("av")

SMALL = [
    *("--recipe", "autoencode", "--workers", "0", "--no-progress", "--max-steps", "2"),
    *(
        "--batch-size",
        "4",
        "--encoder.num-latents",
        "4",
        "--encoder.num-self-attends-per-block",
        "1",
    ),
]


def trained(folder: Path, data: Path, *flags: str) -> tuple[Path, str]:
    run = folder / "run"
    status, out, err = run_command("fit", data, *SMALL, *flags, "--out", run)
    assert status == 0, err
    return run, out


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> tuple[Path, Path, str]:
    """Films with their sound and a class: data, run, and what `fit` said."""
    folder = tmp_path_factory.mktemp("films")
    data = made.make_videos(folder / "data", audio=True)
    return data, *trained(folder, data, "--preprocess.audio.sample-rate", "4000")


class TestFilms:
    def test_the_class_is_one_more_thing_to_tell(self, films):
        _, run, said = films
        assert re.search(
            r"Compression: 512 values of the latents stand for .* \(\d+\.\d to 1\); the papers",
            said,
        )
        config = load(run).config
        assert (
            set(config.model.inputs)
            == set(config.model.output.outputs)
            == {"audio", "label", "video"}
        )
        assert config.task.label_names == ("high", "low")
        assert config.task.parts["video"].size == (8, 16, 24)
        assert config.task.parts["audio"].high == 1.0
        assert config.model.fusion.modality_dropout == {"label": 0.5}
        assert set(config.preprocess) == {"audio", "video"}

    def test_evaluate_measures_it_beside_the_mean_of_training(self, films):
        data, run, _ = films
        status, out, err = run_command("evaluate", run)
        assert status == 0, err
        assert re.search(r"video_psnr +\d+\.\d\d dB\nvideo_mean_psnr +\d+\.\d\d dB", out)
        assert "label_accuracy" in out
        assert "Compression: 512 values" in out
        assert "a peak of 1 of audio, 1 of video" in out
        assert re.fullmatch(r"test video_psnr: \d+\.\d\d dB", out.splitlines()[-1])
        found = json.loads(run_command("evaluate", run, "--format", "json")[1])
        pixels = np.stack([f / 255 for f in _frames(data / "train")])
        errors = (
            (np.stack([f / 255 for f in _frames(data / "test")]) - pixels.mean(axis=0)) ** 2
        ).mean(axis=(1, 2, 3, 4))
        expected = (-10 * np.log10(errors)).mean()
        assert found["metrics"]["video_mean_psnr"] == pytest.approx(expected, abs=0.05)
        assert len(found["remarks"]) == 3

    def test_other_data_are_measured_against_the_same_mean(self, films):
        data, run, _ = films
        found = json.loads(run_command("evaluate", run, data / "test", "--format", "json")[1])
        own = json.loads(run_command("evaluate", run, "--format", "json")[1])
        assert found["metrics"]["video_mean_psnr"] == pytest.approx(
            own["metrics"]["video_mean_psnr"], rel=1e-6
        )

    def test_predict_writes_what_was_given_back(self, films, tmp_path, monkeypatch):
        data, run, _ = films
        monkeypatch.chdir(tmp_path)
        file = data / "test" / "low" / "low6.mp4"
        status, out, err = run_command("predict", run, file, "--format", "csv", "--save", "given")
        assert status == 0, err
        (row,) = table_rows(out)
        assert set(row) == {"name", "audio_psnr", "video_psnr", "label", "probability"}
        assert "3 files in given" in err
        with av.open(str(tmp_path / "given" / "low6.video.mp4")) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert len(frames) == 8
        assert frames[0].shape == (192, 12 * (24 + 2 + 24), 3)  # each pixel a square of 12
        with wave.open(str(tmp_path / "given" / "low6.audio.wav")) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (4000, 3200)
        table = run_command("predict", run, file, data / "test", "--save", "back")[1]
        assert re.search(r"low6\.mp4 +\d+\.\d\d dB +\d+\.\d\d dB +\w+ +\d+\.\d %", table)
        assert len(list(Path("back").glob("low6*.video.mp4"))) == 2  # none is written over
        (told,) = json.loads(
            run_command("predict", run, file, "--format", "json", "--drop-modality", "audio")[1]
        )
        assert set(told["values"]) == {"video_psnr"}
        assert told["label"] in ("low", "high")

    def test_originals_are_what_was_read(self, films):
        data, run, _ = films
        file = data / "test" / "low" / "low6.mp4"
        (found,) = load_predictor(run).predict(file)
        pair = found.reconstructions["video"]
        assert pair.restored.shape == (8, 16, 24, 3)
        assert pair.restored.dtype == np.uint8
        np.testing.assert_array_equal(pair.original, next(_frames(file.parent, file.name)))
        error = ((pair.original / 255.0 - pair.restored / 255.0) ** 2).mean()
        assert found.values["video_psnr"] == pytest.approx(-10 * np.log10(error), abs=0.1)
        assert found.reconstructions["audio"].original.shape == (3200, 1)

    def test_shards_get_psnr_and_class(self, films, tmp_path):
        data, run, _ = films
        parquet = pytest.importorskip("pyarrow.parquet")
        status, _, err = run_command("shard", data, "--out", tmp_path / "shards")
        assert status == 0, err
        shard = next((tmp_path / "shards").rglob("test*.parquet"))
        status, _, err = run_command("predict", run, shard, "--shards", tmp_path / "told")
        assert status == 0, err
        table = parquet.read_table(next((tmp_path / "told").glob("*.parquet")))
        assert {"audio_psnr", "video_psnr", "label", "probability"} <= set(table.column_names)

    def test_explain_draws_the_reads_and_the_nearness(self, films, tmp_path):
        data, run, _ = films
        out = tmp_path / "read.npz"
        status, _, err = run_command(
            "explain", run, data / "test" / "low" / "low6.mp4", "--out", out
        )
        assert status == 0, err
        kept = np.load(out)
        assert kept["label_names"].tolist() == ["audio_psnr", "video_psnr"]
        assert kept["modalities"].tolist() == ["audio", "video"]
        pytest.importorskip("matplotlib")
        status, _, err = run_command(
            "explain", run, data / "test" / "low" / "low6.mp4", "--out", tmp_path / "read.png"
        )
        assert status == 0, err

    def test_a_film_without_sound_is_given_back_without(self, films, tmp_path):
        _, run, _ = films
        silent = write_video(tmp_path / "silent.mp4", made.frames(0, 3))
        (found,) = load_predictor(run).predict(silent)
        assert set(found.reconstructions) == {"video"}

    def test_inspect_tells_both_ratios(self, films):
        _, run, _ = films
        out = run_command("info", run)[1]
        assert re.search(r"compression +512 values of the latents stand for", out)
        told = json.loads(run_command("info", run, "--format", "json")[1])["compression"]
        assert told["raw_values"] == 8 * 16 * 24 * 3 + 3200 + 2
        assert told["latent_values"] == 4 * 128

    def test_several_clips_have_no_mean(self, films):
        data, run, _ = films
        for command in ("evaluate", "predict"):
            files = [data / "test"] if command == "predict" else []
            status, _, err = run_command(command, run, *files, "--clips", "2")
            assert status == 1
            assert "expected --clips 1, got 2" in err


def _frames(folder: Path, name: str = "*.mp4"):
    for path in sorted(folder.rglob(name)):
        with av.open(str(path)) as film:
            yield np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])


def test_pictures_without_a_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = make_image_folder(tmp_path / "birds", size=12)
    run, said = trained(tmp_path, pictures / "dark")
    assert "There are no labels" in said or "label" not in said
    assert set(load(run).config.model.inputs) == {"image"}
    status, out, err = run_command("evaluate", run)
    assert status == 0, err
    assert "image_mean_psnr" in out
    assert "label_accuracy" not in out
    status, out, err = run_command("predict", run, pictures / "dark" / "0.png", "--save", "back")
    assert (status, out.splitlines()[0].split()) == (0, ["file", "image_psnr"]), err
    with Image.open("back/0.image.png") as picture:
        shown = np.asarray(picture)
    size = load(run).config.preprocess["image"].size
    assert shown.shape[1] == (2 * size[1] + 2) * (192 // size[0])
    status, out, err = run_command("evaluate", run, pictures / "light")
    assert status == 0, err


def test_a_class_that_is_there_can_be_left_out(tmp_path):
    pictures = make_image_folder(tmp_path / "birds")
    run, _ = trained(tmp_path, pictures, "--target", "nothing", "--inputs.image.patch", "4", "4")
    config = load(run).config
    assert set(config.model.inputs) == {"image"}
    assert config.task.label_weight is None


def test_a_flag_of_what_the_data_hold_counts(tmp_path):
    pictures = make_image_folder(tmp_path / "birds")
    flags = ["--task.parts.image.num-train-queries", "3", "--task.label-weight", "0.5"]
    run, _ = trained(tmp_path, pictures, *flags, "--inputs.image.size", "8", "8")
    config = load(run).config
    assert config.task.parts["image"].num_train_queries == 3
    assert config.task.label_weight == 0.5
    assert config.model.output.outputs["image"].queries.size == (2, 2)


@pytest.mark.parametrize(
    ("make", "file", "kept"),
    [
        (made.make_audio, "test/low/low6.wav", "low6.audio.wav"),
        (made.make_series, "test/low/low6.csv", "low6.series.npz"),
        (
            lambda folder: made.make_arrays(folder, places=False),
            "test/low/low6.npy",
            "low6.array.npz",
        ),
    ],
    ids=["sound", "series", "arrays"],
)
def test_other_modalities(make, file, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path / "data")
    run, _ = trained(tmp_path, data)
    status, out, err = run_command("evaluate", run)
    assert status == 0, err
    assert "_mean_psnr" in out
    path = data / file
    if not path.exists():
        path = next((data / "test" / "low").iterdir())
    status, out, err = run_command("predict", run, path, "--save", "back")
    assert status == 0, err
    written = {p.name for p in Path("back").iterdir()}
    assert kept.partition(".")[2] in {name.partition(".")[2] for name in written}
    for path in Path("back").glob("*.npz"):
        both = np.load(path)
        assert both["original"].shape == both["reconstruction"].shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            made.make_texts,
            "'text' (text) cannot be reconstructed by an autoencoder: masked language modeling is ",
        ),
        (
            made.make_meshes,
            "'points' (points) cannot be reconstructed by an autoencoder: their order means nothing",
        ),
        (
            made.make_arrays,
            "'array' (array) cannot be reconstructed: its elements have coordinates",
        ),
    ],
    ids=["text", "points", "places"],
)
def test_what_cannot_be_asked_for_is_refused(make, message, tmp_path):
    data = make(tmp_path / "data")
    status, _, err = run_command("fit", data, *SMALL, "--out", tmp_path / "run")
    assert status == 1
    assert message in " ".join(err.split())


def test_a_table_of_numbers_alone_is_nothing_to_reconstruct(tmp_path):
    table = made.make_table(tmp_path / "table.csv")
    columns = ["--columns", "age:number,color:category", "--label", "label"]
    status, _, err = run_command("fit", table, *SMALL[:2], *columns, "--out", tmp_path / "run")
    assert status == 1
    assert "numbers and categories have no common error" in " ".join(err.split())
