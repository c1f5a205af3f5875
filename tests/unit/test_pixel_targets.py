"""Targets that are pictures: maps of classes and values, cut as the picture that they belong to."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.image.decode import decode_indices
from perceivers.data.modalities.image.modality import (
    ClassMapModality,
    ClassMapPreprocessConfig,
    ImageAugmentConfig,
    ImagePreprocessConfig,
    PixelsModality,
    PixelsPreprocessConfig,
    check_alike,
)
from perceivers.data.sources.open import open_data
from perceivers.inputs.image import ConvInputConfig
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.assume import assume
from perceivers.recipes.files import dump_recipe
from perceivers.recipes.resolve import bind_modalities, fill_task, split_for_task
from perceivers.tasks.config import TargetInfo
from support.resolved import specialize

PALETTE = [0, 0, 0, 200, 10, 10, 10, 200, 10]
WHOLE = [*PALETTE, *[9] * (3 * 253)]  # fewer colors would be written in fewer bits


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def class_map(indices, palette=WHOLE):
    image = Image.fromarray(np.asarray(indices, dtype=np.uint8))
    if palette:
        image.putpalette(palette)
    return EncodedItem("map", data=encoded(image))


def write_pairs(folder, *, count=6, size=(8, 8), target="masks"):
    """Write pictures whose red is 80 times the class; return the folder."""
    for sub in ("images", target):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for n in range(count):
        classes = numbers.integers(0, 3, (size[0] // 4, size[1] // 4), dtype=np.uint8)
        classes = classes.repeat(4, axis=0).repeat(4, axis=1)
        pixels = np.stack([80 * classes] * 3, axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        image = Image.fromarray(classes)
        image.putpalette(PALETTE)
        image.save(folder / target / f"{n}.png")
    return folder


def test_indices_are_read_as_they_stand():
    found = decode_indices(class_map([[0, 1], [2, 255]]))
    assert found.pixels.tolist() == [[0, 1], [2, 255]]
    assert found.palette[3:6] == (200, 10, 10)
    gray = decode_indices(class_map([[0, 7]], palette=None))
    assert (gray.pixels.tolist(), gray.palette) == ([[0, 7]], ())
    black = EncodedItem("b", data=encoded(Image.fromarray(np.array([[True, False]]))))
    assert decode_indices(black).pixels.tolist() == [[1, 0]]
    array = EncodedItem("a", array=np.array([[3]], dtype=np.uint8))
    assert decode_indices(array).pixels.tolist() == [[3]]
    colors = EncodedItem("c.png", data=encoded(Image.new("RGB", (2, 1), (1, 2, 3))))
    assert decode_indices(colors).pixels.tolist() == [[[1, 2, 3], [1, 2, 3]]]
    deep = EncodedItem("c.tif", data=encoded(Image.new("I;16", (2, 2), 999)))
    with pytest.raises(
        ValueError, match=r"'c\.tif' to be an image of class indices .* got mode I;16"
    ):
        decode_indices(deep)


def test_the_data_say_how_many_classes_and_which_colors():
    cells = [class_map([[0, 1]]), class_map([[2, 255]]), EncodedItem("bad", data=b"no picture")]
    found = ClassMapPreprocessConfig().measure(lambda _: cells)
    assert (found.num_classes, found.is_binary) == (3, False)
    assert found.palette == tuple(PALETTE)
    binary = ClassMapPreprocessConfig().measure(lambda _: [class_map([[0, 255]], None)])
    assert (binary.num_classes, binary.is_binary, binary.palette) == (2, True, ())
    known = ClassMapPreprocessConfig(num_classes=5).measure(lambda _: cells)
    assert known.num_classes == 5
    with pytest.raises(ValueError, match="hold class 0 alone"):
        ClassMapPreprocessConfig().measure(lambda _: [class_map([[0, 0]])])
    with pytest.raises(ValueError, match="No class map of a sample can be read"):
        ClassMapPreprocessConfig().measure(lambda _: cells[2:])
    with pytest.raises(ValueError, match="Expected from 2 to 255 classes of pixels, got 300"):
        ClassMapPreprocessConfig(num_classes=300)


def test_the_data_say_whether_a_target_has_colors():
    gray = EncodedItem("g", data=encoded(Image.new("L", (2, 2))))
    color = EncodedItem("c", data=encoded(Image.new("RGB", (2, 2))))
    assert PixelsPreprocessConfig().measure(lambda _: [gray, gray]).num_channels == 1
    assert PixelsPreprocessConfig().measure(lambda _: [gray, color]).num_channels == 3
    known = PixelsPreprocessConfig(num_channels=1)
    assert known.measure(lambda _: []) is known


def test_what_is_open_cannot_be_read():
    with pytest.raises(ValueError, match="Expected size and num_channels"):
        PixelsModality(PixelsPreprocessConfig())
    with pytest.raises(ValueError, match="Expected size and num_classes"):
        ClassMapModality(ClassMapPreprocessConfig())


def maps(**how):
    return ClassMapModality(ClassMapPreprocessConfig(size=(4, 4), num_classes=3, **how))


def test_a_class_that_is_not_known_is_named():
    with pytest.raises(ValueError, match=r"map holds the class 9: expected indices below 3"):
        maps().decode(class_map([[9]], None))
    with pytest.raises(MissingValueError, match="is empty: expected a map of classes"):
        maps().decode(EncodedItem("m"))
    binary = ClassMapModality(ClassMapPreprocessConfig(size=(1, 2), num_classes=2, is_binary=True))
    assert binary.decode(class_map([[0, 255]], None)).value.tolist() == [[0, 1]]


def test_classes_are_resized_without_mixing_them():
    value = maps().decode(class_map(np.array([[0, 2], [1, 0]]))).value
    assert (
        maps().transform(value).tolist()
        == np.array([[0, 2], [1, 0]]).repeat(2, 0).repeat(2, 1).tolist()
    )
    batch, mask = maps().collate([maps().transform(value), None])
    assert batch.dtype == torch.long
    assert (batch[1] == 255).all()
    assert mask.tolist() == [[True], [False]]
    assert maps().collate([maps().transform(value)])[1] is None


@pytest.mark.parametrize("crop", [(0.3, 0.9), None])
def test_a_map_is_cut_and_flipped_as_its_picture(tmp_path, crop):
    source = open_data(write_pairs(tmp_path, size=(16, 16)), DataConfig())
    augment = ImageAugmentConfig(crop_scale=crop, flip=True)
    loader = make_loader(
        source.splits["train"],
        source.inputs,
        None,
        preprocess={
            "image": ImagePreprocessConfig.imagenet(
                size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=1.0
            ),
            "mask": ClassMapPreprocessConfig(size=(16, 16), num_classes=3),
        },
        augment={"image": augment, "mask": augment},
        settings=LoaderSettings(
            batch_size=6, training=True, target_modalities=("mask",), prefetch_batches=0
        ),
    )
    (batch,) = loader
    drawn = (batch.inputs["image"][:, 0] * 255 / 80).round().long()
    share = (drawn == batch.inputs["mask"]).float().mean().item()
    assert share > (0.75 if crop else 0.999)  # bicubic edges differ from the nearest pixel's
    plain = open_data(tmp_path, DataConfig()).splits["train"]
    assert len(plain) == 6


def test_pictures_of_another_aspect_are_refused():
    wide, square = Image.new("RGB", (8, 4)), np.zeros((4, 4), dtype=np.uint8)
    assert check_alike({"image": wide, "mask": np.zeros((2, 4), np.uint8)}, ("mask",)) is None
    wrong = check_alike({"image": wide, "mask": square}, ("mask",))
    assert wrong == "expected 'mask' of the same aspect as 'image', 4 x 8 pixels, got 4 x 4."
    assert check_alike({"sound": "x", "mask": square}, ("mask",)) is None
    assert check_alike({"image": wide, "mask": None, "x": np.zeros(3)}, ("mask",)) is None


def test_a_row_whose_target_does_not_fit_is_bad(tmp_path):
    folder = write_pairs(tmp_path)
    Image.new("L", (9, 4)).save(folder / "masks" / "0.png")
    (folder / "masks" / "1.png").unlink()
    source = open_data(folder, DataConfig())
    assert any("1 of 6 images" in note for note in source.notes)
    loader = make_loader(
        source.splits["train"],
        source.inputs,
        None,
        preprocess={
            "image": ImagePreprocessConfig.imagenet(size=(8, 8)),
            "mask": ClassMapPreprocessConfig(size=(8, 8), num_classes=3),
        },
        augment=None,
        settings=LoaderSettings(batch_size=6, max_bad=0.5, target_modalities=("mask",)),
    )
    (batch,) = loader
    assert len(batch) == 4
    reasons = " ".join(reason for _, reason in loader.bad)
    assert "of the same aspect as 'image'" in reasons
    assert "is empty: expected a map of classes" in reasons


def test_folders_side_by_side_are_pairs(tmp_path):
    folder = write_pairs(tmp_path / "a", target="targets")
    Image.new("L", (8, 8)).save(folder / "targets" / "more.png")
    source = open_data(folder, DataConfig())
    assert source.form == "images and targets side by side"
    assert set(source.inputs) == {"image", "target"}
    assert any("no such image): 1, such as more.png" in note for note in source.notes)
    split = tmp_path / "b"
    write_pairs(split / "train")
    write_pairs(split / "test")
    assert set(open_data(split, DataConfig()).splits) == {"train", "test"}


def specialized(folder, name="segmentation"):
    recipe = get_recipe(name, size="tiny")
    source = open_data(folder, recipe.data)
    return specialize(recipe, source), source


def test_a_recipe_learns_classes(tmp_path):
    (recipe, preprocess), source = specialized(write_pairs(tmp_path))
    assert recipe.task.label_names == ("0", "1", "2")
    assert (recipe.task.target, recipe.task.modality) == ("mask", "image")
    assert (recipe.task.size, recipe.task.patch) == ((8, 8), (4, 4))
    assert recipe.output.outputs["pixels"].head.num_outputs == 48
    assert recipe.augment["mask"] == recipe.augment["image"]
    assert preprocess["mask"].size == (8, 8)
    outputs = build(recipe.model_config())({"image": torch.rand(2, 3, 8, 8)})
    assert outputs.shape == (2, 4, 48)
    assert split_for_task(source, recipe.task, preprocess, None) is source
    assert "segmentation" in dump_recipe(recipe)
    again, _ = specialize(recipe, source)
    assert again.task == recipe.task


def test_a_recipe_learns_values(tmp_path):
    (recipe, preprocess), _ = specialized(write_pairs(tmp_path, target="targets"), "dense")
    assert recipe.task.num_channels == preprocess["target"].num_channels
    assert recipe.output.outputs["pixels"].head.num_outputs == 16 * recipe.task.num_channels


def test_the_cost_of_a_dense_recipe_can_be_told():
    recipe, sentences = assume(get_recipe("segmentation"))
    assert len(recipe.task.label_names) == 10
    assert any("num_classes" in sentence for sentence in sentences)
    assert assume(get_recipe("dense"))[0].task.num_channels == 3


def named(folder, columns, **changes):
    recipe = get_recipe("segmentation")
    source = open_data(folder, replace(recipe.data, columns=columns))
    kinds = {name: part.kind for name, part in source.inputs.items()}
    return bind_modalities(replace(recipe, task=replace(recipe.task, **changes)), kinds)


def test_the_target_is_told_by_its_name_or_by_the_flag(tmp_path):
    folder = write_pairs(tmp_path)
    rows = "photo,classes_of,other\n" + "".join(
        f"images/{n}.png,masks/{n}.png,masks/{n}.png\n" for n in range(6)
    )
    (folder / "t.csv").write_text(rows)
    two = {"photo": "image", "classes_of": "image"}
    recipe = named(folder / "t.csv", two, target="classes_of")
    assert set(recipe.inputs) == {"photo"}
    assert set(recipe.preprocess) == {"photo", "classes_of"}
    assert recipe.output.outputs["pixels"].queries.modality == "photo"
    with pytest.raises(ValueError, match=r"photo and classes_of .* --task.target classes_of"):
        named(folder / "t.csv", two)
    with pytest.raises(ValueError, match="needs two columns of images, the input and the target"):
        named(folder / "t.csv", {"photo": "image"})


def fill(recipe):
    return fill_task(recipe, TargetInfo(kind="nothing"), recipe.preprocess)


def test_recipes_that_cannot_answer_pixels_say_so(tmp_path):
    (recipe, _), _ = specialized(write_pairs(tmp_path))
    stem = replace(recipe, inputs={"image": ConvInputConfig()})
    with pytest.raises(
        ValueError, match="an input of kind pixels, patches or residual, got convolved"
    ):
        fill(stem)
    two = replace(recipe, task=replace(recipe.task, label_names=("a", "b")))
    with pytest.raises(ValueError, match="a name for each of the 3 classes of pixels, got 2"):
        fill(two)
    with pytest.raises(
        ValueError, match="Expected a decoder with the outputs pixels; got mean_pool"
    ):
        fill(replace(recipe, output=get_recipe("images").output))
    tied = get_recipe("mlm_bytes").output.outputs["text"]
    odd = replace(recipe.output, outputs={"pixels": tied})
    with pytest.raises(
        ValueError, match=r"a linear head for the output 'pixels'.*got one of kind tied"
    ):
        fill(replace(recipe, output=odd))
    mixed = replace(recipe, augment={"image": ImageAugmentConfig(mixup=0.2)})
    with pytest.raises(ValueError, match="expected no randaugment, mixup and cutmix"):
        fill(mixed)
    assert fill(replace(recipe, augment={})).augment == {}


def test_folders_with_other_names_are_no_pairs(tmp_path):
    for name in ("images", "robin"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    assert open_data(tmp_path, DataConfig()).form == "a folder of classes"


def test_values_to_learn_lie_between_zero_and_one():
    values = PixelsModality(PixelsPreprocessConfig(size=(2, 2), num_channels=1))
    picture = values.decode(EncodedItem("p", data=encoded(Image.new("L", (2, 2), 51)))).value
    batch, mask = values.collate([values.transform(picture)])
    assert batch.shape == (1, 1, 2, 2)
    assert batch[0, 0, 0, 0].item() == pytest.approx(0.2)
    assert mask is None
