from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceivers.cli import explain as command
from perceivers.cli.main import main
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.hub.checkpoint import save
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.table import TableInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from support.models import tiny_encoder

PARTS = {
    "image": (PixelInputConfig(size=(4, 4)), ImagePreprocessConfig.imagenet(size=(4, 4))),
    "text": (TextInputConfig(max_length=64, channels=16), TextPreprocessConfig(max_length=64)),
    "table": (
        TableInputConfig(num_numbers=2, category_sizes=(), channels=16),
        TablePreprocessConfig(numbers=("age", "size")),
    ),
}
FIELDS = {"column": "age", "kind": "table", "columns": ["age", "size"], "kinds": ["number"] * 2}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    (tmp_path / "a.txt").write_text("a good film")


def run(*names: str) -> str:
    config = PerceiverConfig(
        inputs={name: PARTS[name][0] for name in names},
        encoder=tiny_encoder(latent_channels=8, num_self_attends_per_block=0),
        output=MeanPoolConfig(num_outputs=2),
    )
    save(
        "run",
        build(config),
        preprocess={name: PARTS[name][1] for name in names},
        task=ClassificationConfig(label_names=("bad", "good")),
        columns={"inputs": {"table": FIELDS}} if "table" in names else None,
    )
    return "run"


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found.items())


def test_a_file_is_drawn_and_the_picture_is_named(capsys):
    assert main(["explain", run("image"), "a.png", "--out", "b.png", "--latents", "1"]) == 0
    assert capsys.readouterr().out == "Attention of the model for a.png: b.png\n"
    with Image.open("b.png") as picture:
        assert picture.width > 300


def test_a_page_about_a_class_is_written_by_its_suffix():
    given = ["explain", run("image"), "a.png", "--out", "new/b.html", "--class", "bad"]
    assert main(given) == 0
    text = Path("new/b.html").read_text()
    assert text.startswith("<!doctype html>")
    assert '"about":"bad"' in text


class TestCurves:
    def test_of_a_folder_are_drawn_and_told(self, capsys):
        Path("two").mkdir()
        for name in ("a", "b", "c"):
            Image.new("RGB", (8, 8)).save(f"two/{name}.png")
        given = [
            "explain",
            run("image"),
            "two",
            "--faithfulness",
            "--samples",
            "2",
            "--class",
            "good",
        ]
        assert main([*given, "--format", "npz"]) == 0
        said = capsys.readouterr().out
        assert "Mean areas of 2 of two; lower deletion and higher insertion are better." in said
        assert {line.split()[0] for line in said.splitlines()[2:10] if line} >= {"class", "random"}
        assert arrays("two-faithfulness.npz")["samples"] == 2

    @pytest.mark.parametrize("more", [("--samples", "0"), ("--format", "gif"), ("--text", "a")])
    def test_of_nothing_are_refused(self, more, capsys):
        assert main(["explain", "run", "--faithfulness", *more]) == 2
        assert "perceivers explain" in capsys.readouterr().err


def test_several_files_are_named_by_modality(capsys):
    given = ["explain", run("image", "text"), "image=a.png,text=a good film", "--format", "npz"]
    assert main(given) == 0
    found = arrays("a-attention.npz")
    assert found["modalities"].tolist() == ["image", "text"]
    assert bytes(found["text.text"].astype(np.uint8)) == b"a good film"


def test_what_is_missing_may_be_left_out():
    assert main(["explain", run("image", "text"), "image=a.png", "--format", "npz"]) == 0
    assert arrays("a-attention.npz")["modalities"].tolist() == ["image"]


class TestText:
    def test_is_given_itself(self, capsys):
        assert main(["explain", run("text"), "--text", "goöd, or not", "--format", "npz"]) == 0
        assert "for the text: text-attention.npz" in capsys.readouterr().out
        assert arrays("text-attention.npz")["text"].astype(np.uint8).tobytes().decode() == (
            "goöd, or not"
        )

    def test_lies_in_a_file(self):
        assert main(["explain", run("text"), "a.txt", "--format", "npz"]) == 0
        assert arrays("a-attention.npz")["text"].astype(np.uint8).tobytes() == b"a good film"

    def test_goes_with_other_modalities(self):
        given = ["explain", run("image", "text"), "image=a.png", "--text", "a, b=c"]
        assert main([*given, "--out", "c.npz"]) == 0
        assert arrays("c.npz")["modalities"].tolist() == ["image", "text"]

    @pytest.mark.parametrize("names", [("image",), ("text",)])
    def test_is_refused_where_it_does_not_belong(self, names, capsys):
        assert main(["explain", run(*names), "a.png", "--text", "good"]) == 2
        message = capsys.readouterr().err
        assert (
            f"--text is for a run with one text input, instead of FILE; this one has {names[0]}"
            in (" ".join(message.split()))
        )


class TestTable:
    def test_a_row_of_it_is_chosen(self):
        Path("rows.csv").write_text("age,size\n1,2\n3,4\n")
        assert main(["explain", run("table"), "rows.csv", "--row", "1", "--out", "c.npz"]) == 0
        assert arrays("c.npz")["texts"].tolist() == ["3", "4"]

    def test_a_row_that_is_not_there_is_refused(self, capsys):
        Path("rows.csv").write_text("age,size\n1,2\n3,4\n")
        assert main(["explain", run("table"), "rows.csv", "--row", "2"]) == 1
        assert "rows.csv holds 2 samples: there is no --row 2" in capsys.readouterr().err
        assert main(["explain", run("table"), "rows.csv", "--row=-1"]) == 2
        assert "--row of at least 0, got -1" in capsys.readouterr().err


def test_something_to_look_at_is_needed(capsys):
    assert main(["explain", "run"]) == 2
    assert (
        "Expected a FILE to explain after RUN, or --text; got neither." in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("names", "file", "said"),
    [
        (("image",), "nowhere.png", "nowhere.png"),
        (("image",), "a.txt", "a.txt"),
        (("image", "text"), "a.png", "image=...,text=..."),
        (("image", "text"), "imgae=a.png", "Did you mean 'image'?"),
        (("text",), "a.png", "it holds image"),
    ],
)
def test_bad_input_is_one_paragraph(names, file, said, capsys):
    assert main(["explain", run(*names), file]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_the_written_file_is_called_after_the_first(tmp_path):
    options = command.Options(run="run", file="image=x/b.jpg,text=c.txt")
    assert command._stem(options) == "b"
