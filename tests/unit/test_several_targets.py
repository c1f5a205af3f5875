"""Several labels in the data: which columns they are, what rows without one hold, and how they travel."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from perceivers.data.base import Batch, DataConfig
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.loading.mixup import Mixing, mix
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.data.sources.write_shards import write_shards
from perceivers.data.tables.columns import label_columns
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import build
from perceivers.outputs.heads import LinearHeadConfig, TiedHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes import get_recipe
from perceivers.recipes.assume import assume
from perceivers.recipes.resolve import bind_targets
from perceivers.tasks.multitask import MultiTaskConfig
from support import image_data
from support.files import write_csv
from support.resolved import specialize

ROWS = 12


def table(path, **columns):
    """Write pictures and a table of them; return it."""
    for number in range(ROWS):
        image_data.write_png(path / f"{number}.png", number)
    known = {
        "bird": ["robin", "wren"] * 6,
        "type": ["a", "", "b"] * 4,
        "age": ["", *(n + 0.5 for n in range(1, ROWS))],
        "tags": ["x;y", "x", "", "y"] * 3,
    }
    known |= columns
    rows = [
        {"file": f"{n}.png", **{name: cells[n] for name, cells in known.items()}}
        for n in range(ROWS)
    ]
    return write_csv(path / "birds.csv", rows)


def opened(path, label="bird,type,age,tags:labels", **config):
    return open_data(path, DataConfig(label=label, **config))


def test_columns_are_named_with_commas_and_may_say_what_they_hold():
    known = ("digit", "color", "a,b", "x:y")
    assert label_columns("digit, color:class", known) == {"digit": "", "color": "class"}
    assert label_columns("a,b", known) == {"a,b": ""}
    assert label_columns("x:y,digit", known) == {"x:y": "", "digit": ""}
    assert label_columns(None, known) == {}
    for label, why in (
        ("digit,digit", "'digit' comes twice"),
        ("digit,", "a name is empty"),
        ("digit:word", "expected one of class, labels, number"),
    ):
        with pytest.raises(ValueError, match=why):
            label_columns(label, known)


def test_each_column_becomes_a_target_of_its_kind(tmp_path):
    source = opened(table(tmp_path))
    assert (source.target_kind, source.target) == ("several", "bird,type,age,tags")
    assert source.label_names == ("bird", "type", "age", "tags")
    kinds = {name: (one.kind, one.names) for name, one in source.tasks.items()}
    assert kinds == {
        "bird": ("class", ("robin", "wren")),
        "type": ("class", ("a", "b")),
        "age": ("number", ("age",)),
        "tags": ("labels", ("x", "y")),
    }
    first, second, third = source.targets("train")[:3]
    assert (first["bird"], first["type"]) == (0, 0)
    assert math.isnan(first["age"][0])
    assert (second["type"], second["age"].tolist()) == (-1, [1.5])
    assert third["tags"].tolist() == [0, 0]  # an empty text names none of several labels
    row = source.splits["train"].row(1)
    assert row[source.target]["type"] == -1
    assert source.splits["train"].column("file") == [f"{n}.png" for n in range(ROWS)]
    assert "Targets: bird, type, age, tags, a task each." in source.notes
    assert "type: 4 of 12 rows of train have no label." in source.notes
    assert source.class_counts("train", "type") == [4, 4]
    assert source.class_counts("train", "tags") == [6, 6]
    mean, _ = source.target_moments("age")
    assert mean == (6.5,)
    assert source.target_moments("bird") is source.target_moments() is None
    with pytest.raises(ValueError, match="The target 'age' is a number"):
        source.class_counts("train", "age")


def test_one_label_may_say_what_it_holds(tmp_path):
    source = opened(table(tmp_path, age=list(range(ROWS))), label="age:number")
    assert (source.target_kind, source.target) == ("number", "age")


def test_a_split_may_lack_some_targets_or_all(tmp_path):
    for split in ("train", "test"):
        for number in range(2):
            image_data.write_png(tmp_path / split / f"{number}.png", number)
    rows = [{"file": f"{n}.png", "a": "xy"[n], "b": "uv"[n]} for n in range(2)]
    write_csv(tmp_path / "train" / "t.csv", rows)
    write_csv(tmp_path / "test" / "t.csv", [{"file": "0.png", "a": "y"}])
    source = open_data(tmp_path, DataConfig(label="a,b"))
    assert source.targets("test") == [{"a": 1, "b": -1}]
    write_csv(tmp_path / "test" / "t.csv", [{"file": "0.png", "c": "y"}])
    source = open_data(tmp_path, DataConfig(label="a,b"))
    assert list(source.splits) == ["train"]
    assert "Left out: test, as none of its 1 rows has a label." in source.notes


def test_a_trained_model_knows_the_names(tmp_path):
    path = table(tmp_path)
    names = {"bird": ("wren", "robin"), "age": ("years",)}
    source = open_data(path, DataConfig(label="bird,age:number"), label_names=names)
    assert source.targets("train")[0]["bird"] == 1
    assert source.tasks["age"].names == ("years",)
    path = table(tmp_path, type=[""] * ROWS)
    known = {"bird": ("robin", "wren"), "type": ("a", "b")}
    source = open_data(path, DataConfig(label="bird:class,type:class"), label_names=known)
    assert {one["type"] for one in source.targets("train")} == {-1}


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("bird,tyype", r"has no column 'tyype'\. Did you mean 'type'\?"),
        ("bird,empty", r"Column 'empty' of .*birds\.csv is empty in all of its 12 rows"),
    ],
)
def test_labels_that_cannot_be_learned_are_named(tmp_path, label, why):
    path = table(tmp_path, empty=[""] * ROWS)
    with pytest.raises(ValueError, match=why):
        opened(path, label)


def test_minus_one_of_named_classes_is_missing(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "a": datasets.ClassLabel(names=["u", "v"]),
            "b": datasets.ClassLabel(names=["x", "y"]),
        }
    )
    rows = [{"image": image_data.png(n), "a": n % 2, "b": (1, 0, -1, -1)[n]} for n in range(4)]
    rows = [{**row, "image": {"bytes": row["image"], "path": None}} for row in rows]
    source = open_data(datasets.Dataset.from_list(rows, features=features), DataConfig(label="a,b"))
    assert [one["b"] for one in source.targets("train")] == [1, 0, -1, -1]


def test_streams_refuse_several_labels(tmp_path):
    frame = pd.DataFrame({"image": [image_data.png(n) for n in range(4)], "a": [0, 1] * 2})
    frame.assign(b=frame["a"]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"Several labels \(a, b\) are learned from rows that are"):
        open_data(tmp_path / "a.parquet", DataConfig(label="a,b", stream=True))
    source = open_data(tmp_path / "a.parquet", DataConfig(label="a:class", stream=True))
    assert source.target_kind == "class"


def test_the_hold_out_is_that_of_the_first_class_alone(tmp_path):
    path = table(tmp_path)
    together = with_validation(opened(path, "age,bird"), DataConfig(validation_fraction=0.25))
    alone = with_validation(opened(path, "bird"), DataConfig(validation_fraction=0.25))
    for split in ("train", "validation"):
        assert together.splits[split].indices.tolist() == alone.splits[split].indices.tolist()
    numbers = with_validation(opened(path, "age,tags:labels"), DataConfig())
    assert "at random" in numbers.notes[-1]


def test_shards_keep_several_labels_as_they_are(tmp_path):
    path = table(tmp_path)
    config = DataConfig(label="bird,type")
    write_shards(path, tmp_path / "out", config=config)
    source = open_data(tmp_path / "out", config)
    assert source.tasks["type"].names == ("a", "b")
    assert source.targets("train")[1] == {"bird": 1, "type": -1}


def specialized(path, label, recipe=None, **config):
    source = opened(path, label, **config)
    asked = recipe or get_recipe("images", size="tiny")
    return (*specialize(asked, source), source)


def test_batches_hold_a_tensor_for_each_task(tmp_path):
    recipe, preprocess, source = specialized(table(tmp_path), "bird,type,age,tags:labels")
    loader = make_loader(
        source.splits["train"],
        source.inputs,
        source.targets("train"),
        preprocess=preprocess,
        augment=None,
        settings=LoaderSettings(batch_size=4),
    )
    batch = next(iter(loader)).to("cpu")
    assert {name: tuple(one.shape) for name, one in batch.targets.items()} == {
        "bird": (4,),
        "type": (4,),
        "age": (4, 1),
        "tags": (4, 2),
    }
    assert batch.targets["type"].tolist() == [0, -1, 1, 0]
    outputs = build(recipe.model_config())(batch.inputs)
    assert {name: tuple(one.shape) for name, one in outputs.items()} == {
        "bird": (4, 2),
        "type": (4, 2),
        "age": (4, 1),
        "tags": (4, 2),
    }


def test_mixing_mixes_every_target():
    targets = {"a": torch.tensor([0, 1, 1, -1]), "b": torch.tensor([[1.0], [2.0], [3.0], [4.0]])}
    batch = Batch(inputs={"image": torch.zeros(4, 3, 2, 2)}, targets=targets, names=tuple("abcd"))
    mixed = mix(batch, Mixing(mixup=0.4), {"a": 2, "b": 1}, np.random.default_rng(0))
    share = mixed.targets["a"][0, 0].item()
    assert mixed.targets["a"][0].tolist() == pytest.approx([share, 1 - share])
    assert mixed.targets["a"][1].isnan().all()
    assert mixed.targets["b"][0].item() == pytest.approx(share * 1 + (1 - share) * 3)


def test_a_recipe_gets_a_query_for_each_label(tmp_path):
    recipe, _, _ = specialized(table(tmp_path), "bird,age")
    assert list(recipe.output.outputs) == ["bird", "age"]
    assert recipe.output.num_outputs is None
    assert recipe.task.parts["bird"].label_names == ("robin", "wren")
    assert recipe.task.parts["bird"].label_smoothing == get_recipe("images").task.label_smoothing
    assert recipe.task.parts["age"].mean == (6.5,)
    again, _, _ = specialized(table(tmp_path), "bird,age", recipe)
    assert again == recipe


def test_a_decoder_of_one_query_is_asked_once_for_each_label(tmp_path):
    recipe, _, _ = specialized(table(tmp_path), "bird,type", get_recipe("imagenet_io_conv"))
    heads = {name: one.head.num_outputs for name, one in recipe.output.outputs.items()}
    assert heads == {"bird": 2, "type": 2}
    assert (
        recipe.output.use_query_residual is get_recipe("imagenet_io_conv").output.use_query_residual
    )


def test_recipes_and_labels_that_do_not_fit_each_other(tmp_path):
    path = table(tmp_path)
    recipe, _, _ = specialized(path, "bird,age")
    with pytest.raises(ValueError, match=r"the data have one label, 'bird'.*--label bird,age"):
        specialized(path, "bird", recipe)
    with pytest.raises(ValueError, match="learns 'age', which is none of the labels bird, type"):
        specialized(path, "bird,type", recipe)
    source = opened(path, "bird,type")
    words = get_recipe("mlm_bytes", size="tiny")
    assert bind_targets(words, source) is words


def test_the_cost_of_a_recipe_of_several_tasks_can_be_told(tmp_path):
    recipe, _, source = specialized(table(tmp_path), "bird,age")
    empty = bind_targets(get_recipe("images", size="tiny"), source)
    assumed, _ = assume(empty)
    assert [one.head.num_outputs for one in assumed.output.outputs.values()] == [10, 10]
    assert [one.head.num_outputs for one in assume(recipe)[0].output.outputs.values()] == [2, 1]
    assert isinstance(empty.task, MultiTaskConfig)


def test_a_decoder_that_cannot_answer_tasks_says_so():
    answer = OutputConfig(queries=LearnedQueriesConfig(), head=TiedHeadConfig())
    with pytest.raises(ValueError, match="Expected a linear head for the output"):
        DecoderConfig(outputs={"text": answer}).for_tasks(("a", "b"))
    linear = OutputConfig(queries=LearnedQueriesConfig(), head=LinearHeadConfig())
    with pytest.raises(ValueError, match="got the outputs a, c"):
        DecoderConfig(outputs={"a": linear, "c": linear}).for_tasks(("a", "b"))
