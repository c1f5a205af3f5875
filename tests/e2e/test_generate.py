"""`perceivers generate`: a run on a text, continuations by the command and from Python, and bad input."""

import json

import pytest
from starlette.testclient import TestClient

import perceivers as pv
from perceivers.cli.main import main
from perceivers.evaluation.generate import generate_bytes
from perceivers.models.generate import GenerationConfig
from perceivers.server.access import AccessRules
from perceivers.server.app import create_app
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings
from perceivers.tasks.byte_tokens import FIRST_BYTE
from perceivers.training.fit import fit

SMALL = {
    "encoder.channels": 16,
    "encoder.num_layers": 1,
    "encoder.num_latents": 16,
    "encoder.max_length": 65,
    "preprocess.text.max_length": 64,
    "data.workers": 0,
    "optim.lr": 1e-2,
    "baseline": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    text = folder / "book.txt"
    text.write_text("the cat sat on the mat. " * 200)
    fit(text, "text_ar", out=folder / "run", max_steps=60, **SMALL)
    return folder / "run"


def test_a_run_learns_a_repeated_sentence(run, capsys):
    assert main(["evaluate", str(run), "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["bits_per_byte"] < 5


def test_the_command_continues_a_prompt(run, capsys, tmp_path):
    command = ["generate", str(run), "--prompt", "the cat", "--length", "20"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert first.startswith("the cat")
    assert main([*command, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] + found["continuation"] + "\n" == first
    out = tmp_path / "text.txt"
    assert main([*command, "--out", str(out)]) == 0
    assert out.read_text() == first
    assert main([*command, "--seed", "1"]) == 0
    assert capsys.readouterr().out != first


def test_python_and_the_command_agree(run, capsys):
    predictor = pv.load(run)
    settings = {"temperature": 0.8, "seed": 3}
    together = predictor.generate(["the cat", "a"], length=15, temperature=0)
    assert [
        predictor.generate(one, length=15, temperature=0) for one in ("the cat", "a")
    ] == together
    config = GenerationConfig(**settings)
    parts = list(pv.generate_text(predictor, "the cat", length=15, config=config))
    assert "".join(parts) == predictor.generate("the cat", length=15, **settings)
    assert main(["generate", str(run), "--prompt", "the cat", "--length", "15", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"the cat{''.join(parts)}\n"


def test_characters_appear_once_they_are_complete(run, monkeypatch):
    from perceivers.evaluation import generate

    rows = iter([[byte + FIRST_BYTE] for byte in "aé€".encode() + b"\xe2"])
    monkeypatch.setattr(generate, "generate_tokens", lambda *_, **__: rows)
    assert list(generate.generate_text(pv.load(run), "")) == ["a", "é", "€", "�"]


def test_a_long_prompt_is_read_from_its_end(run, capsys, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("the cat sat on the mat. " * 10)
    command = ["generate", str(run), "--prompt-file", str(path), "--length", "5"]
    assert main([*command, "--format", "json"]) == 0
    found = capsys.readouterr()
    assert "its end is read" in found.err
    assert json.loads(found.out)["prompt"] == path.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["RUN", "--length", "0"], 2, "--length of at least 1"),
        (["RUN", "--top-p", "1.5"], 2, "top_p from 0 to 1"),
        (["RUN", "--temperature", "-1"], 2, "temperature of 0"),
        (["RUN", "--top-k", "0"], 2, "--top-k of at least 1"),
        (["RUN", "--num-latents", "99"], 1, "num_latents from 1 to 16, got 99"),
        (["RUN", "--prompt", "a", "--prompt-file", "b"], 2, "got both"),
        (["RUN", "--prompt-file", "none.txt"], 1, "none.txt"),
        (["none"], 1, "none does not exist"),
    ],
)
def test_wrong_arguments(run, capsys, arguments, status, message):
    command = ["generate", *(str(run) if one == "RUN" else one for one in arguments)]
    assert main(command) == status
    found = capsys.readouterr().err
    assert message in " ".join(found.split())
    assert "Traceback" not in found


@pytest.mark.parametrize(
    "flags",
    [
        ["--prompt", ""],
        ["--temperature", "0"],
        ["--temperature", "1e-300"],
        ["--top-p", "0"],
        ["--top-k", "9999"],
        ["--num-latents", "1"],
        ["--prompt", "é" * 100],
    ],
)
def test_settings_at_their_limits_give_a_text(run, capsys, flags):
    assert main(["generate", str(run), "--length", "3", "--format", "json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["continuation"]


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ("a", {"length": 0}, "at least one token, got length=0"),
        ("a", {"num_latents": 99}, "num_latents from 1 to 16, got 99"),
        ("a", {"top_p": 2}, "top_p from 0 to 1, got 2"),
        ("a", {"temperature": float("nan")}, "temperature of 0"),
    ],
)
def test_wrong_arguments_in_python(run, prompts, settings, message):
    predictor = pv.load(run)
    with pytest.raises(ValueError, match=message):
        predictor.generate(prompts, **settings)
    assert predictor.generate([]) == []
    with pytest.raises(ValueError, match="at least one prompt"):
        generate_bytes(predictor, [])


def test_another_run_does_not_generate(capsys, tmp_path):
    rows = [{"x": float(i), "y": "ab"[i % 2]} for i in range(40)]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    fit(table, label="y", out=tmp_path / "run", max_steps=2, folds=1, baseline=False)
    assert main(["generate", str(tmp_path / "run")]) == 1
    assert "does not generate" in " ".join(capsys.readouterr().err.split())


def test_a_run_is_fine_tuned_on_other_texts(run, tmp_path, capsys):
    path = tmp_path / "other.txt"
    path.write_text("the dog ran to the barn. " * 100)
    command = ["fit", str(path), "--init-from", str(run), "--max-steps", "3", "--no-baseline"]
    for name, flags in {"all": [], "lora": ["--lora", "2"]}.items():
        assert main([*command, *flags, "--out", str(tmp_path / name)]) == 0
    assert "(LoRA) of rank 2" in " ".join("".join(capsys.readouterr()).split())
    assert main(["generate", str(tmp_path / "lora"), "--length", "5"]) == 0
    labels = tmp_path / "labels.csv"
    labels.write_text("text,label\n" + "hello there,a\ngood bye,b\n" * 10)
    command[1] = str(labels)
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "labels")]) == 1
    assert "no outputs for label" in " ".join(capsys.readouterr().err.split())


def test_a_server_answers_with_the_next_byte(run):
    app = create_app(
        Service(ServerSettings(str(run), device="cpu")),
        token=None,
        access=AccessRules(hosts=frozenset(("localhost",)), origins=frozenset()),
    )
    with TestClient(app, base_url="http://localhost") as client:
        described = client.get("/run").json()
        assert (described["task"], described["reads"]) == ("next_token", 1)
        (answer,) = client.post("/predict", data={"text": "the ca"}).json()["answers"]
        assert answer["text"][:-1] == "the ca"
        explained = client.post("/explain", data={"text": "the ca", "latent": "6"}).json()
        (view,) = explained["views"]
        assert "".join(text for text, _, _ in view["characters"]) == "the ca"
        assert explained["answers"][0]["text"] == answer["text"]
        assert client.post("/explain", data={"text": "the ca", "latent": "9"}).status_code == 422


def test_its_report_shows_samples(run, capsys, tmp_path):
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert "explained" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["png", "html", "npz"])
def test_the_bytes_that_a_prediction_looked_at_are_drawn(run, capsys, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    assert main(["explain", str(run), "--text", "the cat sat", "--out", str(out)]) == 0
    assert out.stat().st_size > 500
    flags = ["--map", "class", "--latents", "2"]
    assert main(["explain", str(run), "--text", "the cat", *flags, "--out", str(out)]) == 0
    capsys.readouterr()
    path = tmp_path / "text.txt"
    path.write_text("the cat")
    assert main(["explain", str(run), str(path), "--faithfulness"]) == 1
    assert "next token: expected a task of classes" in " ".join(capsys.readouterr().err.split())


def test_an_export_is_refused(run, capsys, tmp_path):
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 1
    assert "Traceback" not in capsys.readouterr().err
