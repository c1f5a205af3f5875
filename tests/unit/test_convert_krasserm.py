"""Perceiver AR of krasserm's library as run folders: stand-ins with its names and fields, and foreign files."""

import json

import pytest
import tokenizers
import torch
from safetensors.torch import save_file

import perceivers as pv
from perceivers.cli.main import main
from perceivers.data.modalities.music.score import MusicScore, Note, Part
from perceivers.hub.convert import read_published
from perceivers.hub.perceiver_ar import krasserm_config
from perceivers.models.perceiver_ar import PerceiverAR
from perceivers.recipes.convert import convert
from support.perceiver_ar import krasserm_model, part, read

TEXT, MUSIC = "PerceiverCausalLanguageModel", "PerceiverSymbolicAudioModel"
BYTES = {
    "vocab_size": 262,
    "max_seq_len": 24,
    "max_latents": 8,
    "num_channels": 16,
    "num_heads": 2,
    "num_self_attention_layers": 2,
    "cross_attention_dropout": 0.0,
}
MIDI = BYTES | {"vocab_size": 389, "abs_pos_emb": False, "output_norm": True, "output_bias": False}


def names_of(config):
    """Return the names and shapes of the weights in the library's files."""
    channels, hidden = config.channels, config.channels * config.widening_factor
    vector, square = (channels,), (channels, channels)
    found = {"input_adapter.txt_embedding.weight": (config.vocab_size, channels)}
    if config.positions == "learned":
        found["input_adapter.pos_embedding.weight"] = (config.max_length, channels)
    pairs = config.rotary.pairs(channels // config.num_heads)
    found["input_adapter.frq_pos_encoding.inv_freq"] = (pairs,)
    layers = {f"self_attention.{n}": ("norm",) for n in range(config.num_layers)}
    for name, norms in ({"cross_attention": ("q_norm", "kv_norm")} | layers).items():
        for norm in norms:
            found |= {f"{name}.0.module.{norm}.{leaf}": vector for leaf in ("weight", "bias")}
        found |= {f"{name}.0.module.attention.{one}_proj.weight": square for one in "qkvo"}
        found |= {f"{name}.1.module.0.{leaf}": vector for leaf in ("weight", "bias")}
        found[f"{name}.1.module.1.weight"] = (hidden, channels)
        found[f"{name}.1.module.3.weight"] = (channels, hidden)
    found["cross_attention.0.module.attention.o_proj.bias"] = vector
    if config.output_norm:
        found |= {f"out_norm.{leaf}": vector for leaf in ("weight", "bias")}
    if config.output_bias:
        found["output_adapter.bias"] = (config.vocab_size,)
    return {f"backend_model.{name}": shape for name, shape in found.items()}


def write(folder, settings, weights=None, *, architecture=TEXT, pickled=False):
    """Write a folder as the library's `save_pretrained` does."""
    folder.mkdir(exist_ok=True)
    config = {"architectures": [architecture], "is_decoder": True, "model_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    if weights is None:
        torch.manual_seed(0)
        shapes = names_of(krasserm_config(settings))
        weights = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("pickled", [False, True])
def test_a_model_of_bytes_becomes_a_run_that_generates(tmp_path, capsys, pickled):
    source = write(tmp_path / "theirs", BYTES, pickled=pickled)
    run = tmp_path / "run"
    assert main(["convert", str(source), "--out", str(run)]) == 0
    found = capsys.readouterr().out
    assert f"{TEXT}: 14,294 parameters" in found
    assert f"perceivers generate {run}" in found
    assert main(["generate", str(run), "--prompt", "the", "--length", "9"]) == 0
    assert capsys.readouterr().out.startswith("the")
    assert main(["info", str(run)]) == 0
    # A text begins behind a line feed.
    predictor = pv.load(run)
    model = predictor.model.encoder.model
    prompt = [6 + byte for byte in b"\nthe cat"]
    config = pv.GenerationConfig(temperature=0)
    tokens = pv.TokenGenerator(model, [prompt], length=5, config=config, allowed=ALLOWED)
    text = bytes(int(token) - 6 for token in tokens).decode(errors="replace")
    assert predictor.generate("the cat", length=5, temperature=0) == text
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40)
    command = ["fit", str(text), "--init-from", str(run), "--max-steps", "2", "--no-baseline"]
    assert main([*command, "--out", str(tmp_path / "tuned")]) == 0
    assert main(["evaluate", str(tmp_path / "tuned"), str(text)]) == 0


ALLOWED = torch.arange(262)[None] >= 6


def test_a_model_of_tokens_without_a_tokenizer_has_its_weights(tmp_path, capsys):
    source = write(tmp_path / "theirs", BYTES | {"vocab_size": 50}, pickled=True)
    run = tmp_path / "run"
    found = convert(source, run)
    assert not found.predicts
    model = pv.from_pretrained(run)
    logits = model({"text": torch.tensor([[1, 2, 3]])})
    assert logits.shape == (1, 3, 50)
    tokens = list(pv.TokenGenerator(model.encoder.model, [[1, 2, 3]], length=30))
    assert len(tokens) == 30
    assert main(["generate", str(run)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def train_tokenizer(folder, vocab_size=60, **settings):
    """Write a SentencePiece tokenizer, as the published model has one, and return it."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>", "<eod>"],
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator([TEXT_OF_SUBWORDS] * 9, trainer)
    made.enable_truncation(5)  # of a file that was written with settings of training
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


TEXT_OF_SUBWORDS = "the cat sat on the mat, and the dog sat by the history of the world. "


def test_a_model_of_subwords_becomes_a_run_with_its_tokenizer(tmp_path, capsys):
    source = write(tmp_path / "theirs", BYTES | {"vocab_size": 64})
    tokenizer = train_tokenizer(source, eos_token={"content": "<eod>"})
    tokenizer.no_truncation()
    run = tmp_path / "run"
    assert main(["convert", str(source), "--out", str(run)]) == 0
    assert f"perceivers generate {run}" in capsys.readouterr().out
    assert main(["info", str(run)]) == 0
    # A text begins behind the end of a document; special tokens are never drawn.
    predictor = pv.load(run)
    prompt = tokenizer.encode("the cat sat", add_special_tokens=False).ids
    allowed = torch.arange(64)[None] >= 5
    allowed[:, tokenizer.get_vocab_size() :] = False
    tokens = pv.TokenGenerator(
        predictor.model.encoder.model,
        [[4, *prompt]],
        length=40,
        config=pv.GenerationConfig(temperature=0),
        allowed=allowed,
    )
    whole = tokenizer.decode([*prompt, *(int(token) for token in tokens)])
    found = predictor.generate("the cat sat", length=40, temperature=0)
    assert f"the cat sat{found}" == whole
    config = pv.GenerationConfig(temperature=0)
    parts = list(pv.generate_text(predictor, "the cat sat", length=40, config=config))
    assert "".join(parts) == found
    assert len(parts) > 9
    capsys.readouterr()
    command = ["generate", str(run), "--prompt", "the cat sat", "--length", "40"]
    assert main([*command, "--temperature", "0"]) == 0
    assert capsys.readouterr().out == f"{whole}\n"
    # Own texts, also such with more tokens than the context.
    data = tmp_path / "data"
    for split in ("train", "test"):
        (data / split).mkdir(parents=True)
        text = data / split / "text.txt"
        text.write_text(TEXT_OF_SUBWORDS * 30)
    command = ["fit", str(data), "--init-from", str(run), "--max-steps", "2", "--no-baseline"]
    assert main([*command, "--out", str(tmp_path / "tuned")]) == 0
    capsys.readouterr()
    command = ["evaluate", str(tmp_path / "tuned"), "--split", "test", "--format", "json"]
    assert main(command) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["tokens"] >= len(tokenizer.encode(text.read_text()).ids)
    assert main(["predict", str(tmp_path / "tuned"), str(text)]) == 0
    assert main(["explain", str(run), str(text), "--out", str(tmp_path / "maps.png")]) == 1
    assert "expected a run on the bytes of texts" in " ".join(capsys.readouterr().err.split())


def test_texts_of_a_batch_are_padded_and_read_from_their_ends(tmp_path):
    source = write(tmp_path / "theirs", BYTES | {"vocab_size": 64})
    tokenizer = train_tokenizer(source)
    saved = read_published(source)[1]
    model, vocabulary = saved.model, saved.config.task.vocabulary
    assert vocabulary.start == tokenizer.token_to_id("</s>")
    texts = [TEXT_OF_SUBWORDS, "the cat", "", "é漢"]
    rows = [[6 + byte for byte in text.encode()] for text in texts]
    most = max(map(len, rows))
    content = torch.tensor([row + [0] * (most - len(row)) for row in rows])
    mask = torch.tensor([[n < len(row) for n in range(most)] for row in rows])
    ids, real = vocabulary.tokens(content, mask)
    assert [row[kept].tolist() for row, kept in zip(ids, real, strict=True)] == [
        vocabulary.encode([text])[0] for text in texts
    ]
    tokenizer.no_truncation()
    assert vocabulary.encode(["the cat"]) == [tokenizer.encode("the cat").ids]
    # As many tokens as the model has places are read, the last ones.
    whole = torch.arange(5, 55)[None]
    assert model({"text": whole}).equal(model({"text": whole[:, -24:]}))


def test_tokenizers_that_do_not_fit_are_refused(tmp_path, capsys):
    source = write(tmp_path / "theirs", BYTES | {"vocab_size": 20})
    (source / "tokenizer.json").write_text("{}")

    def refused():
        assert main(["convert", str(source), "--out", str(tmp_path / "run")]) == 1
        error = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in error
        assert str(source / "tokenizer.json") in error
        return error

    assert "expected the content of a tokenizer.json as it was published" in refused()
    train_tokenizer(source)
    assert "tokens, and the model 20" in refused()
    (source / "tokenizer.json").write_bytes(b"\xff\xfe")
    refused()
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    bare.save(str(source / "tokenizer.json"))
    assert "one of which ends a document" in refused()
    (source / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    assert main(["convert", str(source), "--out", str(tmp_path / "run")]) == 0


def test_a_model_of_events_continues_midi_files(tmp_path):
    source = write(tmp_path / "theirs", MIDI, architecture=MUSIC)
    found = convert(source, tmp_path / "run")
    assert found.predicts
    start, out = tmp_path / "start.mid", tmp_path / "out.mid"
    notes = tuple(Note(one / 4, (one + 1) / 4, 60 + one, 64) for one in range(9))
    MusicScore((Part(notes),)).save(start)
    predictor = pv.load(tmp_path / "run")
    events = predictor.preprocess["music"]
    assert (events.max_length, events.repeat_velocity) == (23, True)
    command = ["generate", str(tmp_path / "run"), "--prompt", str(start), "--out", str(out)]
    assert main([*command, "--length", "30"]) == 0
    assert [note.pitch for note in MusicScore.load(out).notes[:8]] == [*range(60, 68)]
    for number in range(4):
        MusicScore((Part(notes),)).save(tmp_path / "pieces" / f"{number}.mid")
    command = [
        "fit",
        str(tmp_path / "pieces"),
        "--init-from",
        str(tmp_path / "run"),
        "--max-steps",
        "2",
    ]
    assert main([*command, "--no-baseline", "--out", str(tmp_path / "tuned")]) == 0


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_logits_are_those_of_the_library(tmp_path, name):
    found, facts = read(f"kr_forward_{name}")
    weights = {f"backend_model.{key}": w for key, w in part(found, "weight.").items()}
    source = write(tmp_path / "theirs", facts["config"], weights, architecture=MUSIC)
    model = read_published(source)[1].model
    expected, _, _ = krasserm_model(f"kr_forward_{name}")
    # Weights of runs are float32.
    tokens, latents = found["tokens"], facts["config"]["max_latents"]
    logits = model.double()({"text": tokens})
    torch.testing.assert_close(
        logits, expected.float().double()(tokens, num_latents=latents), rtol=0, atol=1e-10
    )
    torch.testing.assert_close(logits, found["logits.full_prefix16"], rtol=0, atol=1e-5)


def test_fields_that_a_file_lacks_have_the_defaults_of_the_library():
    with torch.device("meta"):
        model = PerceiverAR(krasserm_config({}))
    assert sum(p.numel() for p in model.parameters()) == 30_563_078
    assert model.config.rotary_layers == 1
    assert krasserm_config({"num_self_attention_rotary_layers": -1}).rotary_layers is None


# As the files of the hub: with as many keys as their sizes of 788 and 771 bytes leave room for.
PUBLISHED = {
    "perceiver-ar-clm-base": (
        {"vocab_size": 32_000, "max_seq_len": 1024, "max_latents": 512, "num_channels": 1280}
        | {"num_heads": 10, "num_self_attention_layers": 20, "cross_attention_dropout": 0.0}
        | {"abs_pos_emb": False, "output_norm": True, "output_bias": False},
        453_950_720,
    ),
    "perceiver-ar-sam-giant-midi": (
        {"vocab_size": 389, "max_seq_len": 6144, "max_latents": 2048, "num_channels": 768}
        | {"num_heads": 8, "num_self_attention_layers": 18, "cross_attention_dropout": 0.1}
        | {"residual_dropout": 0.1, "post_attention_dropout": 0.1, "max_heads_parallel": 2}
        | {"abs_pos_emb": False, "output_norm": True, "output_bias": False},
        134_840_832,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_have_every_name_and_their_number_of_weights(name):
    settings, count = PUBLISHED[name]
    config = krasserm_config(settings)
    with torch.device("meta"):
        model = PerceiverAR(config)
        weights = {name: torch.empty(shape) for name, shape in names_of(config).items()}
    renamed = pv.perceiver_ar_from_weights(config, weights)
    assert sum(weight.numel() for weight in renamed.parameters()) == count
    assert sum(weight.numel() for weight in model.parameters()) == count


def without(name):
    def change(settings, weights):
        return settings, {key: w for key, w in weights.items() if name not in key}

    return change


def with_weight(name, shape):
    def change(settings, weights):
        return settings, weights | {name: torch.zeros(shape)}

    return change


def with_settings(**changes):
    def change(settings, weights):
        return settings | changes, weights

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("q_norm.weight"), "query_norm.weight is missing"),
        (with_weight("backend_model.decoder.weight", (2,)), "got backend_model.decoder.weight"),
        (
            with_weight("backend_model.input_adapter.txt_embedding.weight", (3, 16)),
            "tokens.weight is (3, 16), expected (262, 16)",
        ),
        (with_settings(num_self_attention_layers=3), "layers.2.mlp_norm.weight is missing"),
        (with_settings(num_heads=3), "num_heads that divides channels=16, got 3"),
        (with_settings(num_channels="16"), "config.json"),
        (with_settings(max_latents=99), "max_length of at least num_latents=99"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, capsys, change, words):
    shapes = names_of(krasserm_config(BYTES))
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    source = write(tmp_path / "theirs", *change(BYTES, weights))
    assert main(["convert", str(source), "--out", str(tmp_path / "run")]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert words in error
    assert "Traceback" not in error


def test_damaged_and_foreign_files_are_refused(tmp_path, capsys):
    source = write(tmp_path / "theirs", BYTES, pickled=True)

    def refused():
        assert main(["convert", str(source), "--out", str(tmp_path / "run")]) == 1
        error = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in error
        return error

    weights = source / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:-5000])
    assert "truncated" in refused()
    weights.unlink()
    assert "no model.safetensors" in refused()
    (source / "config.json").write_text(json.dumps({"architectures": [TEXT]}))
    write(source, BYTES)
    (source / "config.json").write_text(json.dumps({"architectures": [TEXT]}))
    assert "model_config is missing" in refused()
    (source / "config.json").write_text(json.dumps({"architectures": ["PerceiverTextClassifier"]}))
    assert "PerceiverSymbolicAudioModel; got PerceiverTextClassifier" in refused()
