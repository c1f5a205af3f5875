import pytest
import torch

from perceivers.data.base import Batch, nearest
from perceivers.optional import require


def test_a_batch_is_as_long_as_its_tensors_and_moves_with_them():
    batch = Batch(
        inputs={"image": torch.zeros(3, 2)},
        targets=torch.tensor([0, 1, 2]),
        masks={"image": torch.ones(3, 2, dtype=torch.bool)},
        names=("a", "b", "c"),
    )
    moved = batch.to("meta")
    assert len(moved) == 3
    assert {
        t.device.type for t in (moved.inputs["image"], moved.masks["image"], moved.targets)
    } == {"meta"}
    assert moved.names == ("a", "b", "c")
    assert Batch(inputs={}).to("meta").targets is None


def test_the_nearest_name_is_suggested():
    assert nearest("lable", ["label", "image"]) == " Did you mean 'label'?"
    assert nearest("zzz", ["label", "image"]) == ""


def test_what_is_missing_says_how_to_install_it():
    assert require("math", None).pi > 3
    with pytest.raises(ImportError, match=r'nowhere is needed.*: pip install "perceivers\[data\]"'):
        require("nowhere.inside", "data")
    with pytest.raises(ImportError, match="Install it: pip install nowhere"):
        require("nowhere", None)
