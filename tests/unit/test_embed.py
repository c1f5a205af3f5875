"""Vectors of samples: from Python, in files, and the most similar ones."""

import numpy as np
import pytest
import torch
from PIL import Image

import perceivers as pv
from perceivers.cli.main import main
from perceivers.data.sources.samples import samples_of
from perceivers.evaluation.embeddings import Embeddings, read_embeddings, write_embeddings
from support.models import save_untrained
from support.runs import make_image_folder, save_run


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run")


@pytest.fixture
def images(tmp_path):
    return make_image_folder(tmp_path / "images", count=4)


def test_vectors_are_means_of_the_latents(run, images):
    predictor = pv.load(run)
    found = predictor.embed(images)
    assert len(found) == 8
    assert found.names[0].endswith("dark/0.png")
    latents = predictor.embed(images, latents=True)
    assert latents.vectors.ndim == 3
    np.testing.assert_allclose(latents.vectors.mean(axis=1), found.vectors, atol=1e-6)
    one = predictor.embed(images / "light" / "1.png")
    np.testing.assert_allclose(one.vectors[0], found.vectors[5], atol=1e-5)


def test_heads_that_pool_elements_add_them(tmp_path, images):
    run = save_untrained(tmp_path / "pools", "image", element_pools=("mean", "max"))
    predictor = pv.load(run)
    model = predictor.model.members[0]
    found = torch.from_numpy(predictor.embed(images).vectors)
    width = model.output.to_logits.in_features
    (pool,) = model.output.element_pools.values()
    outputs = model.output.to_logits(found[:, :width]) + pool.to_logits(found[:, width:])
    batch = predictor.read(list(samples_of(images, predictor.columns)))
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(batch.inputs, batch.masks))


def test_files_that_cannot_be_read_are_reported(run, images, capsys, tmp_path):
    (images / "dark" / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "vectors.parquet"
    assert main(["embed", str(run), str(images), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert "broken.png" in told
    assert "8 vectors" in told
    assert len(read_embeddings(out)) == 8


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npy"])
def test_files_hold_the_vectors(tmp_path, suffix):
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    path = tmp_path / f"vectors{suffix}"
    write_embeddings(Embeddings(("a", "b, c", "d"), vectors), path)
    found = read_embeddings(path)
    np.testing.assert_array_equal(found.vectors, vectors)
    assert found.names == (("row 0", "row 1", "row 2") if suffix == ".npy" else ("a", "b, c", "d"))


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_files_hold_latents(tmp_path, suffix):
    vectors = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    path = tmp_path / f"latents{suffix}"
    write_embeddings(Embeddings(("a", "b"), vectors), path)
    np.testing.assert_array_equal(read_embeddings(path).vectors, vectors)


def test_the_nearest_come_first_and_not_the_sample_itself():
    known = Embeddings(("a", "b", "c"), np.array([[1, 0], [1, 1], [-1, 0]], np.float32))
    asked = Embeddings(("a",), np.array([[2, 0]], np.float32))
    ((first, second),) = known.most_similar(asked, top=2)
    assert first == ("b", pytest.approx(2**-0.5))
    assert second == ("c", pytest.approx(-1))
    # Arrays without names of their own are numbered in each call.
    other = Embeddings(("a",), np.array([[0, 1]], np.float32))
    assert [name for name, _ in known.most_similar(other)[0]] == ["b", "a", "c"]
    with pytest.raises(ValueError, match="vectors of one model"):
        known.similarities(Embeddings(("x",), np.zeros((1, 3), np.float32)))


def test_similar_files_are_listed_and_drawn(run, images, capsys, tmp_path):
    query, picture = images / "dark" / "0.png", tmp_path / "similar.png"
    flags = ["similar", str(run), str(query), "--top", "2", "--among"]
    assert main([*flags, str(images), "--out", str(picture)]) == 0
    listed = capsys.readouterr().out
    assert "of 8" in listed
    with Image.open(picture) as image:
        assert image.width > 3 * 160
    vectors = tmp_path / "vectors.parquet"
    assert main(["embed", str(run), str(images), "--out", str(vectors)]) == 0
    assert main([*flags, str(vectors)]) == 0
    assert capsys.readouterr().out == listed
    quantized = tmp_path / "quantized.npy"
    command = ["embed", str(run), str(images), "--quantize", "int8-always"]
    assert main([*command, "--out", str(quantized)]) == 0
    assert "int8" in capsys.readouterr().err
    found, expected = read_embeddings(quantized).vectors, read_embeddings(vectors).vectors
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["embed", "RUN", "--out", "v.npy"], 2, "at least one FILE"),
        (["embed", "RUN", "x.png", "--out", "v.txt"], 2, "expected one of .parquet, .npy, .csv"),
        (["embed", "RUN", "none.png", "--out", "v.npy"], 1, "none.png"),
        (
            ["embed", "RUN", "x.png", "--out", "v.npy", "--quantize", "int8", "--device", "cuda"],
            2,
            "int8 weights are for prediction on the CPU",
        ),
        (["similar", "RUN", "none.png", "--among", "."], 1, "none.png"),
        (["similar", "RUN", "images/dark/0.png", "--among", "empty"], 1, "at least one sample"),
    ],
)
def test_wrong_arguments(run, capsys, monkeypatch, tmp_path, arguments, status, told):
    monkeypatch.chdir(tmp_path)
    make_image_folder(tmp_path / "images", count=1)
    (tmp_path / "empty").mkdir()
    assert main([str(run) if one == "RUN" else one for one in arguments]) == status
    assert told in capsys.readouterr().err
