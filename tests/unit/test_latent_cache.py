"""Latents of a frozen encoder that are computed once: same training, files by fingerprint, bad input."""

import pytest
import torch

import perceivers as pv
from perceivers.data.loading.sampler import BatchPlan
from perceivers.hub.checkpoint import load
from perceivers.models.perceiver import LATENTS
from perceivers.training.latent_cache import FOLDER, _read


def rows(count=60, first=0):
    generator = torch.Generator().manual_seed(first)
    images = torch.randint(0, 256, (count, 8, 8), generator=generator, dtype=torch.uint8).numpy()
    return [{"image": one, "label": "abc"[n % 3]} for n, one in enumerate(images)]


def fitted(folder, data=None, **changes):
    return pv.fit(data or rows(), out=folder, on_message=str, **changes).folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    return fitted(folder, recipe="digits", max_epochs=1, batch_size=16, baseline=False)


def frozen(folder, source, **changes):
    settings = {"max_epochs": 2, "batch_size": 8, "baseline": False, "freeze": ("encoder",)}
    return fitted(folder, init_from=source, augment={}, **settings | changes)


def test_training_on_cached_latents_is_the_same(tmp_path, source):
    plain = load(frozen(tmp_path / "plain", source)).model.state_dict()
    cached = load(frozen(tmp_path / "cached", source, cache_latents=1)).model.state_dict()
    began = load(source).model.state_dict()
    for name, weight in plain.items():
        torch.testing.assert_close(cached[name], weight, rtol=1e-4, atol=1e-6)
        assert torch.equal(weight, began[name]) != name.startswith("output.")


def test_files_are_read_by_runs_on_the_same_rows_and_weights_only(tmp_path, source):
    cache = tmp_path / "shared"
    settings = {"cache": str(cache), "cache_latents": 1, "max_epochs": 1}
    frozen(tmp_path / "one", source, **settings)
    files = {path: path.stat().st_mtime_ns for path in (cache / FOLDER).iterdir()}
    assert len(files) == 2
    frozen(tmp_path / "two", source, **settings, **{"optim.lr": 1e-3})
    assert {p: p.stat().st_mtime_ns for p in (cache / FOLDER).iterdir()} == files
    frozen(tmp_path / "three", source, data=rows(first=1), **settings)
    assert len([*(cache / FOLDER).iterdir()]) == 4
    other = fitted(tmp_path / "other", recipe="digits", max_epochs=2, batch_size=16, baseline=False)
    frozen(tmp_path / "four", other, **settings)
    assert len([*(cache / FOLDER).iterdir()]) == 6
    damaged = next(path for path in files if "train" in path.name)
    damaged.write_bytes(damaged.read_bytes()[:100])
    frozen(tmp_path / "five", source, **settings)
    assert _read(damaged) is not None


def test_each_epoch_reads_another_augmented_copy(tmp_path, source):
    folder = fitted(
        tmp_path / "run",
        init_from=source,
        freeze=("encoder",),
        cache_latents=2,
        max_epochs=1,
        baseline=False,
    )
    found = _read(next((folder / FOLDER).glob("*-train*")))
    assert found.arrays.shape[:2] == (2, len(found))
    plan = BatchPlan(epoch=3, number=0, rows=torch.arange(4).numpy())
    batch = found[plan].batch
    assert torch.equal(batch.inputs[LATENTS], torch.from_numpy(found.arrays[1, :4]))
    assert not (found.arrays[0] == found.arrays[1]).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"freeze": ()}, "is trained. Expected a frozen encoder: --freeze encoder"),
        ({"freeze": ("encoder:1",)}, "is trained"),
        ({"output.element_pools": ("mean",)}, "also depend on the input elements"),
        ({"folds": 2}, "expected no --folds"),
    ],
)
def test_latents_that_change_are_not_cached(tmp_path, source, changes, told):
    with pytest.raises(ValueError, match=told):
        frozen(tmp_path / "run", source, cache_latents=1, **changes)
