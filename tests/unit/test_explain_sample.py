from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved, SavedConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_encoder

IMAGE = ImagePreprocessConfig.imagenet(size=(4, 4))
MODEL = PerceiverConfig(  # nothing of it matters but that there is one
    inputs={"image": PixelInputConfig(size=(4, 4))},
    encoder=tiny_encoder(num_latents=2, latent_channels=4, num_self_attends_per_block=0),
    output=MeanPoolConfig(num_outputs=2),
)
TEXT = TextPreprocessConfig(max_length=64)
TABLE = TablePreprocessConfig(numbers=("age",), categories={"sex": ("f", "m")})


def saved(columns=None, **preprocess) -> Saved:
    known = {} if columns is None else {"inputs": columns}
    return Saved(
        model=build(MODEL),
        config=SavedConfig(model=MODEL, preprocess=preprocess, columns=known),
        folder=Path("run"),
    )


def told(column, kind, columns=(), kinds=()) -> dict[str, Any]:
    return {"column": column, "kind": kind, "columns": list(columns), "kinds": list(kinds)}


FIELDS = {"table": told("age", "table", ("age", "sex"), ("number", "category"))}


def test_columns_are_those_of_the_data_or_called_like_the_modality():
    assert saved(image=IMAGE).config.input_columns() == {"image": InputColumn("image", "image")}
    assert saved(FIELDS, table=TABLE).config.input_columns() == {
        "table": InputColumn("age", "table", ("age", "sex"), ("number", "category"))
    }


def test_a_path_gives_its_name(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for file in (tmp_path / "a.png", str(tmp_path / "a.png")):
        sample = read_sample(saved(image=IMAGE), file)
        assert sample.name == "a.png"
        assert sample.inputs["image"].shape == (1, 3, 4, 4)
        assert sample.masks == {}
        assert sample.missing == ()
    array = read_sample(saved(image=IMAGE), np.zeros((6, 8, 3), np.uint8))
    assert array.name == "image"


def test_a_text_is_a_string_or_lies_in_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("good")
    for file, name in (("good", "text"), (tmp_path / "a.txt", "a.txt")):
        sample = read_sample(saved(text=TEXT), file)
        assert sample.name == name
        assert sample.inputs["text"][0, :4].tolist() == [byte + 6 for byte in b"good"]
        assert sample.masks["text"].sum() == 4


def test_of_several_modalities_what_is_missing_is_left_out(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    run = saved(FIELDS, image=IMAGE, text=TEXT, table=TABLE)
    sample = read_sample(run, {"image": tmp_path / "a.png", "age": 3, "sex": "m"})
    assert sample.name == "a.png"
    assert sorted(sample.inputs) == ["image", "table"]
    assert sample.inputs["table"].tolist() == [[3.0, 1.0]]
    assert sample.missing == ("text",)
    words = read_sample(run, {"text": "good", "table": {"age": 3, "sex": None}})
    assert words.name == "text + table"
    assert words.masks["table"].tolist() == [[True, False]]


def test_a_row_is_read_as_it_is():
    @dataclass(frozen=True)
    class DetectedLayout:
        name: str
        row: dict[str, Any]

    row = {"text": EncodedItem("row 3", value="good")}
    sample = read_sample(saved(text=TEXT), DetectedLayout("row 3", row))
    assert sample.name == "row 3"
    assert sample.inputs["text"].shape == (1, 64)


class TestRefuses:
    def test_one_file_of_several_modalities(self, tmp_path):
        message = "reads image, text together: .* image=...,text=... on the command line"
        with pytest.raises(ValueError, match=message):
            read_sample(saved(image=IMAGE, text=TEXT), tmp_path / "a.png")

    def test_one_file_of_several_columns(self):
        with pytest.raises(ValueError, match="reads the columns age, sex: give a table"):
            read_sample(saved(FIELDS, table=TABLE), Path("a.csv"))

    def test_an_unknown_modality(self):
        message = (
            "Expected a dict with some of image, text; got 'imgae' in sample. Did you mean 'image'"
        )
        with pytest.raises(ValueError, match=message):
            read_sample(saved(image=IMAGE, text=TEXT), {"imgae": "a.png"})
        with pytest.raises(ValueError, match=r"some of image, text; got none\."):
            read_sample(saved(image=IMAGE, text=TEXT), {})

    def test_a_missing_file(self):
        with pytest.raises(ValueError, match=r"nowhere\.png"):
            read_sample(saved(image=IMAGE), "nowhere.png")

    def test_a_sample_without_anything(self):
        with pytest.raises(ValueError, match="empty"):
            read_sample(saved(image=IMAGE, text=TEXT), {"image": None})
