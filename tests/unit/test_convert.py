"""Models of Hugging Face as run folders and back, and what is refused on the way."""

import json
import pickle
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from perceivers.cli.main import main
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.evaluation.predict import load_predictor
from perceivers.hub.checkpoint import load
from perceivers.hub.convert import export_huggingface
from perceivers.recipes.convert import convert
from perceivers.tasks.masked import MaskedBytesConfig
from support import flow_data, modality_data
from support.files import write_video
from support.runs import make_image_folder, save_run

transformers = pytest.importorskip("transformers")

SMALL = {
    "num_latents": 4,
    "d_latents": 16,
    "d_model": 512,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "image_size": 8,
}
LEARNED, LANGUAGE = "PerceiverForImageClassificationLearned", "PerceiverForMaskedLM"


def theirs_of(name=LEARNED, **changes):
    settings = transformers.PerceiverConfig(**SMALL | changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, name)(settings).eval()


@pytest.fixture
def folder(tmp_path):
    names = {0: "dark", 1: "light", 2: "blue"}
    model = theirs_of(id2label=names, label2id={name: i for i, name in names.items()})
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_classifier_becomes_a_run_that_labels_pictures(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["convert", str(folder), "--out", str(out)]) == 0
    assert "PerceiverForImageClassificationLearned: 630,611 parameters" in capsys.readouterr().out
    theirs = getattr(transformers, LEARNED).from_pretrained(folder).eval()
    image = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = theirs(inputs=image).logits
        torch.testing.assert_close(load(out).model({"image": image}), expected)
    predictor = load_predictor(out)
    assert predictor.label_names == ("dark", "light", "blue")
    pictures = make_image_folder(tmp_path / "pictures", count=1)
    (found,) = predictor.predict(pictures / "dark" / "0.png")
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_the_autoencoder_becomes_a_run_that_gives_films_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {0: "archery", 1: "bowling", 2: "curling"}
    changes = {
        "num_frames": 2,
        "output_shape": (1, 2, 16, 16),
        "audio_samples_per_frame": 32,
        "samples_per_patch": 8,
        "d_model": 391,
    }
    model = theirs_of(
        "PerceiverForMultimodalAutoencoding",
        id2label=names,
        label2id={name: i for i, name in names.items()},
        **changes,
    )
    model.save_pretrained(tmp_path / "theirs")
    assert main(["convert", "theirs", "--out", "run"]) == 0
    film = write_video(
        tmp_path / "a.mp4",
        modality_data.frames(0, 1),
        rate=25,
        audio=modality_data.tone(0, 1, rate=16_000),
    )
    assert main(["predict", "run", str(film), "--save", "back"]) == 0
    table = capsys.readouterr().out
    assert {"audio_psnr", "video_psnr", "label", "probability"} <= set(table.split())
    assert sum(name in table for name in names.values()) == 1
    written = sorted(path.name for path in (tmp_path / "back").iterdir())
    assert written == ["a.audio.original.wav", "a.audio.wav", "a.video.mp4"]
    found = load("run").config
    assert found.preprocess["audio"].num_samples == 64
    assert found.task.parts["video"].weight == 0.03
    export_huggingface("run", "back")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items() if key in after)


def test_how_pictures_are_prepared_is_taken_over(folder, tmp_path):
    told = {
        "do_center_crop": True,
        "crop_size": {"height": 10, "width": 10},
        "size": {"height": 8, "width": 8},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.1],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    convert(folder, tmp_path / "run")
    expected = ImagePreprocessConfig.imagenet(
        size=(8, 8),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        crop_fraction=0.8,
        resize="tensorflow",
    )
    assert load(tmp_path / "run").config.preprocess == {"image": expected}
    export_huggingface(tmp_path / "run", tmp_path / "back")
    back = json.loads((tmp_path / "back/preprocessor_config.json").read_text())
    assert {key: back[key] for key in told} == told


def test_there_and_back_is_the_same_model(folder, tmp_path, capsys):
    convert(folder, tmp_path / "run")
    args = [
        "export",
        str(tmp_path / "run"),
        "--format",
        "huggingface",
        "--out",
        str(tmp_path / "back"),
    ]
    assert main(args) == 0
    assert "from_pretrained" in capsys.readouterr().out
    model = getattr(transformers, LEARNED).from_pretrained(tmp_path / "back")
    assert model.config.id2label == {0: "dark", 1: "light", 2: "blue"}
    mine, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "back", folder))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_language_model_in_several_files_or_a_pickle_of_tensors(tmp_path):
    changes = {"qk_channels": 16, "v_channels": 16, "max_position_embeddings": 16}
    theirs = theirs_of(LANGUAGE, d_model=24, num_cross_attention_heads=2, **changes)
    theirs.save_pretrained(tmp_path / "whole")
    weights = load_file(tmp_path / "whole/model.safetensors")
    parts, pickled = tmp_path / "parts", tmp_path / "pickled"
    for place in (parts, pickled):
        place.mkdir()
        (place / "config.json").write_bytes((tmp_path / "whole/config.json").read_bytes())
    names = sorted(weights)
    index = {}
    for number, some in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in some}, parts / f"{number}.safetensors")
        index |= dict.fromkeys(some, f"{number}.safetensors")
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    torch.save(weights, pickled / "pytorch_model.bin")
    found = []
    for place in ("whole", "parts", "pickled"):
        assert convert(tmp_path / place, tmp_path / f"run {place}").predicts
        found.append(load(tmp_path / f"run {place}"))
    assert found[0].config.task == MaskedBytesConfig()
    assert found[0].config.preprocess == {"text": TextPreprocessConfig(max_length=16, marks=True)}
    for other in found[1:]:
        for name, tensor in found[0].model.state_dict().items():
            assert torch.equal(other.model.state_dict()[name], tensor)


class RunsCode:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was allowed to run code",))


def test_a_pickle_that_would_run_code_is_refused_and_does_not(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": RunsCode()}))
    with pytest.raises(
        ValueError, match="was refused: it is truncated or not a plain file of tensors"
    ):
        convert(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_beside_is_never_left_by_an_index(folder, tmp_path):
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../other.safetensors"}})
    )
    with pytest.raises(ValueError, match=r"names the file '../other.safetensors', which does not"):
        convert(folder, tmp_path / "run")


def test_another_architecture_and_broken_files_are_told(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    path = folder / "config.json"
    for change, message in (
        ({"architectures": ["BertModel"]}, r"out of PerceiverForImage.*got BertModel"),
        ({"architectures": None, "model_type": "bert"}, "got bert"),
        ({"hidden_act": "relu"}, "hidden_act out of gelu, gelu_new, gelu_pytorch_tanh, got relu"),
        ({"d_latents": 32}, "embeddings|encoder.latents"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            convert(folder, tmp_path / "run")
    path.write_text("{")
    with pytest.raises(OSError, match="is not JSON"):
        convert(folder, tmp_path / "run")
    path.write_text("[]")
    with pytest.raises(OSError, match="expected a JSON object"):
        convert(folder, tmp_path / "run")
    path.unlink()
    with pytest.raises(OSError, match=r"has no config.json"):
        convert(folder, tmp_path / "run")
    with pytest.raises(OSError, match=r"does not exist. Expected the folder that"):
        convert(tmp_path / "nothing" / "at" / "all", tmp_path / "run")


def test_what_is_there_is_not_written_over(folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").touch()
    with pytest.raises(ValueError, match=r"is not empty. Give a new folder"):
        convert(folder, tmp_path / "run")


def test_a_model_that_none_of_theirs_can_be_is_not_exported(tmp_path):
    save_run(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"output of kind mean_pool .* Expected a Perceiver IO model"
    ):
        export_huggingface(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_hub_is_asked_for_what_is_no_folder(folder, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    convert("deepmind/vision-perceiver-learned", tmp_path / "run")
    assert asked == [("deepmind/vision-perceiver-learned", ["*.json", "*.safetensors", "*.bin"])]
    error = huggingface_hub.errors.LocalEntryNotFoundError("no network\nand more")

    def fail(name, allow_patterns):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(
        OSError, match=r"could not be loaded from the Hugging Face hub either: no network\. "
    ):
        convert("deepmind/vision-perceiver-learned", tmp_path / "run 2")


def test_the_model_of_flow_becomes_a_run_that_tells_where_pixels_go(tmp_path, capsys):
    flow_data.make_chairs(tmp_path / "pairs", count=1, size=(12, 20))
    theirs = theirs_of("PerceiverForOpticalFlow", train_size=[8, 12], d_model=322)
    theirs.save_pretrained(tmp_path / "theirs")
    run = tmp_path / "run"
    assert convert(tmp_path / "theirs", run).predicts
    args = ["predict", str(run), str(tmp_path / "pairs"), "--save", str(tmp_path / "out")]
    assert main(args) == 0
    assert "mean motion" in capsys.readouterr().out
    predictor = load_predictor(run, device="cpu")
    assert predictor.preprocess["frame_pair"].size == (8, 12)
    (told,) = predictor.predict(tmp_path / "pairs")
    assert told.flow.shape == (12, 20, 2)
    assert main(["evaluate", str(run), str(tmp_path / "pairs")]) == 0
    assert "train epe: " in capsys.readouterr().out
