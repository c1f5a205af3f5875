"""`perceivers fit`, `evaluate`, `generate` and `predict` on MIDI files, from the command line and from Python."""

import json

import pytest
from PIL import Image

import perceivers as pv
from perceivers.cli.main import main
from perceivers.data.modalities.music.events import encode_events
from perceivers.data.modalities.music.score import MusicScore, Note, Part, one_part
from perceivers.evaluation import generate
from perceivers.training.fit import fit

SMALL = {
    "encoder.channels": 16,
    "encoder.num_layers": 1,
    "encoder.num_latents": 32,
    "encoder.max_length": 65,
    "preprocess.music.max_length": 64,
    "data.workers": 0,
    "optim.lr": 1e-2,
    "baseline": False,
}


def scale(first=60, step=2, count=40):
    """Return a scale that goes up and down."""
    steps = [*range(8), *range(8, 0, -1)]
    pitches = [first + step * steps[one % 16] for one in range(count)]
    return one_part(Note(one / 4, (one + 1) / 4, pitch, 64) for one, pitch in enumerate(pitches))


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music") / "pieces"
    for kind, step in {"major": 2, "minor": 1}.items():
        (folder / kind).mkdir(parents=True)
        for number in range(8):
            scale(50 + number, step).save(folder / kind / f"{number}.mid")
    return folder


@pytest.fixture(scope="module")
def run(pieces):
    out = pieces.parent / "run"
    fit(pieces / "major", "music", out=out, max_steps=40, **SMALL)
    return out


def test_a_run_learns_scales(run, capsys):
    assert main(["evaluate", str(run), "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["bits_per_event"] < 7
    assert metrics["events"] > 32


def test_the_command_writes_midi_files_and_images(run, pieces, capsys, tmp_path):
    start = pieces / "major" / "0.mid"
    command = ["generate", str(run), "--length", "30", "--temperature", "0.5"]
    assert main([*command, "--out", str(tmp_path / "new.mid")]) == 0
    assert "notes of" in capsys.readouterr().err
    MusicScore.load(tmp_path / "new.mid")
    for flag in ("--prompt", "--prompt-file"):
        out = tmp_path / f"{flag}.mid"
        assert main([*command, flag, str(start), "--out", str(out)]) == 0
        assert "longer than the context" in capsys.readouterr().err
        found, begun = MusicScore.load(out).notes, MusicScore.load(start).notes
        assert [note[:3] for note in found[:39]] == [
            tuple(pytest.approx(one) for one in note[:3]) for note in begun[:39]
        ]
    assert main([*command, "--prompt", str(start), "--out", str(tmp_path / "new.png")]) == 0
    with Image.open(tmp_path / "new.png") as image:
        assert image.width > 300
    capsys.readouterr()
    assert main([*command, "--prompt", str(start), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    begun = encode_events(MusicScore.load(start)).tolist()
    assert found["events"][: found["prompt_events"]] == begun
    assert len(found["events"]) == len(begun) + 30
    assert {"start", "end", "pitch", "velocity"} == set(found["notes"][0])


def test_python_and_the_command_agree(run, pieces, tmp_path):
    predictor = pv.load(run)
    start = pieces / "major" / "1.mid"
    settings = {"length": 25, "temperature": 0.8, "seed": 3}
    piece = predictor.generate(start, **settings)
    assert isinstance(piece, pv.MusicScore)
    same = [start.read_bytes(), str(start), MusicScore.load(start)]
    assert [predictor.generate(one, **settings) for one in same] == [piece] * 3
    out = tmp_path / "new.mid"
    flags = ["--prompt", str(start), "--length", "25", "--seed", "3", "--out", str(out)]
    assert main(["generate", str(run), *flags]) == 0
    assert [note[2:] for note in MusicScore.load(out).notes] == [note[2:] for note in piece.notes]
    greedy = {"length": 5, "temperature": 0}
    assert predictor.generate([None, ""], **greedy) == [predictor.generate(**greedy)] * 2


def test_music_is_no_text(run):
    with pytest.raises(ValueError, match="trained on events, and texts were asked for"):
        next(pv.generate_text(pv.load(run), "hello"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: expected a MIDI file"),
        (b"hello there", "Cannot read"),
        ("cut", "is cut short"),
        (one_part([]), "holds no notes"),
        (MusicScore((Part((Note(0, 1, 36, 64),), (), True),)), "holds percussion only"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_one_sentence(run, tmp_path, capsys, content, message):
    path = tmp_path / "start.mid"
    if isinstance(content, MusicScore):
        content.save(path)
    elif content == "cut":
        scale().save(path)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes(content)
    command = ["generate", str(run), "--prompt", str(path), "--out", str(tmp_path / "a.mid")]
    assert main(command) == 1
    found = " ".join(capsys.readouterr().err.split())
    assert message in found
    assert str(path) in found
    assert "Traceback" not in found
    with pytest.raises(ValueError, match=message):
        pv.load(run).generate(path)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--out with a file that ends in .mid or .midi or .png or .wav, or --format json"),
        (["--out", "a.mp3"], 2, "ends in .mid or .midi or .png or .wav, got 'a.mp3'"),
        (["--prompt", "none.mid", "--out", "a.mid"], 1, "none.mid"),
    ],
)
def test_wrong_arguments(run, capsys, arguments, status, message):
    assert main(["generate", str(run), *arguments]) == status
    found = capsys.readouterr().err
    assert message in " ".join(found.split())
    assert "Traceback" not in found


def test_a_missing_synthesizer_is_named_before_generation(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(generate, "generate_tokens", lambda *_, **__: pytest.fail("generated"))
    assert main(["generate", str(run), "--out", str(tmp_path / "a.wav")]) == 2
    assert "FluidSynth, which is not installed" in " ".join(capsys.readouterr().err.split())


def test_bad_pieces_are_counted_and_a_very_long_one_is_cut_into_chunks(tmp_path, capsys):
    folder = tmp_path / "pieces"
    folder.mkdir()
    scale(count=4000).save(folder / "long.mid")
    (folder / "bad.mid").write_bytes(b"MThd")
    one_part([]).save(folder / "empty.mid")
    flags = [
        f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "baseline"
    ]
    command = ["fit", str(folder), "--recipe", "music", "--max-steps", "2", "--no-baseline"]
    assert main([*command, *flags, "--max-bad", "0.5", "--out", str(tmp_path / "run")]) == 0
    found = " ".join("".join(capsys.readouterr()).split())
    assert "cut into pieces of at most 64 events" in found
    assert "generate" in found
    assert "--out song.mid" in found
    assert main([*command, *flags, "--max-bad", "0", "--out", str(tmp_path / "none")]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_single_file_is_cut_into_pieces_of_which_some_are_held_out(tmp_path, capsys):
    scale(count=400).save(tmp_path / "song.mid")
    small = SMALL | {"max_steps": 2}
    fit(str(tmp_path / "song.mid"), "music", out=tmp_path / "run", **small)
    assert main(["evaluate", str(tmp_path / "run"), "--split", "validation"]) == 0
    assert "events" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            scale(count=10),
            "song.mid' alone has 31 events, so that no part .* more than 128 of them",
        ),
        (one_part([]), "song.mid' holds no notes"),
    ],
)
def test_a_single_file_that_cannot_be_divided_is_refused(tmp_path, content, message):
    content.save(tmp_path / "song.mid")
    with pytest.raises(ValueError, match=message):
        fit(str(tmp_path / "song.mid"), "music", out=tmp_path / "run", max_steps=2, **SMALL)
    assert not (tmp_path / "run" / "config.json").exists()


def test_pieces_with_labels_train_a_classifier(pieces, tmp_path, capsys):
    out = tmp_path / "classes"
    flags = ["--max-steps", "3", "--no-baseline", "--data.workers", "0", "--folds", "1"]
    assert main(["fit", str(pieces), *flags, "--out", str(out)]) == 0
    capsys.readouterr()
    piece = pieces / "minor" / "3.mid"
    assert main(["predict", str(out), str(piece), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["label"] in {"major", "minor"}
    assert main(["explain", str(out), str(piece), "--out", str(tmp_path / "a.png")]) == 0
    (prediction,) = pv.load(out).predict([piece])
    assert prediction.label in {"major", "minor"}


def test_columns_of_paths_and_of_bytes(pieces, tmp_path):
    paths = sorted(pieces.rglob("*.mid"))
    labels = [path.parent.name for path in paths]
    small = {"max_steps": 2, "baseline": False, "workers": 0, "folds": 1}
    for number, column in enumerate(
        ([str(path) for path in paths], [p.read_bytes() for p in paths])
    ):
        table = {"piece": column, "label": labels}
        fit(table, out=tmp_path / str(number), **small)
        assert pv.load(tmp_path / str(number)).preprocess["music"].kind == "music"
