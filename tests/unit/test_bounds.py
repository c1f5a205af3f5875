"""Files and settings that state more than they can hold, and names that are no ids of the hub."""

import json
import math
import os
import stat
import zipfile
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from perceivers.checks.scan import scan_rows
from perceivers.data.base import atomic_write, open_regular
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats import files
from perceivers.data.formats.documents import load_yaml
from perceivers.data.formats.files import read_files
from perceivers.data.formats.huggingface import is_hub_id
from perceivers.data.modalities.array.decode import read_array
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.sources.identity import row_identities
from perceivers.data.sources.layout import recognize
from perceivers.data.tables import memory
from perceivers.hub.checkpoint import config_json, load
from perceivers.recipes.resolve import resolve
from support.cli import run_command
from support.models import save_untrained
from support.runs import make_image_folder, save_run


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("owner/name", True),
        ("imdb", False),
        ("owner/name:subset", True),
        ("./name", False),
        ("../owner/name", False),
        ("/owner/name", False),
        ("~/name", False),
        ("owner/name/", False),
        ("a/b/c", False),
        ("owner\\name", False),
        ("owner/name.csv", False),
        ("runs/birds", False),
        ("here/birds", False),
    ],
)
def test_paths_are_no_ids_of_the_hub(tmp_path, monkeypatch, name, is_id):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name, suffixes=(".csv",)) is is_id


@pytest.mark.parametrize("name", ["runs/gone", "here/gone", "./gone", "gone/", "gone", "a/b/c"])
def test_a_run_that_does_not_exist_is_not_looked_up(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise AssertionError

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    status, _, err = run_command("evaluate", name)
    assert status == 1
    assert "does not exist" in err


@pytest.mark.parametrize(
    "name", ["here/birds", "./birds", "birds/", "owner/birds.png", "here/a.csv", "birds"]
)
def test_data_that_do_not_exist_are_not_looked_up(tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist here"):
        recognize(name)


def test_a_pipe_is_refused_and_the_other_files_are_predicted(tmp_path):
    folder = make_image_folder(tmp_path / "images", count=1)
    os.mkfifo(folder / "dark" / "pipe.png")
    run = save_run(tmp_path / "run")
    status, out, err = run_command("predict", run, folder, "--format", "csv")
    assert status == 1
    assert "pipe.png' is a pipe, device or socket: expected a regular file" in err
    assert len(out.splitlines()) == 3
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(OSError, match=r"pipe\.csv' is a pipe"):
        read_files([tmp_path / "pipe.csv"])
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="/dev/zero' is a pipe"):
        open_regular(type(tmp_path)("/dev/zero"))


def npy(shape: str) -> bytes:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(48)


@pytest.mark.parametrize("shape", ["(-1, 3)", "(-4, -1)"])
def test_an_array_of_negative_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"a\.npy.* negative shape"):
        read_array(EncodedItem("a.npy", data=npy(shape)))


@pytest.mark.parametrize("shape", ["(-1, 3)", "(10000000000000, 3)", "(500, 3)"])
def test_an_archive_that_states_more_than_it_holds_is_refused(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("values.npy", npy(shape))
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as \.npz: .* shape"):
        read_files([tmp_path / "a.npz"])


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_tables_larger_than_the_memory_are_refused_before_they_are_read(
    tmp_path, monkeypatch, suffix
):
    path, values = tmp_path / f"a.{suffix}", np.zeros((100, 3), np.float32)
    if suffix == "npz":
        np.savez_compressed(path, values=values)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            file.create_dataset("values", shape=(100, 3), dtype="f4", chunks=(10, 3))
    assert len(read_files([path])) == 100
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.setattr(files, "_from_arrays", None)
    with pytest.raises(ValueError, match=r"states [\d,]+ bytes of arrays, and 1,000 bytes"):
        read_files([path])


def changed_config(run, change):
    path = run / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"]["encoder"].update(num_blocks=10**9), "at most 10,000 layers"),
        (lambda c: c["model"]["encoder"].update(num_cross_attends=10**9), "at most 10,000 layers"),
        (
            lambda c: c["model"]["encoder"].update(num_self_attends_per_block=10**9),
            "at most 10,000 layers",
        ),
        (
            lambda c: c["model"]["encoder"].update(latent_channels=10**18),
            "cannot be built|do not fit",
        ),
        (lambda c: c["task"].update(label_names=["dark"]), "names 1 classes .* the model has 2"),
        (lambda c: c["task"].update(label_names=["a", "b", "c"]), "names 3 classes"),
    ],
)
def test_a_foreign_configuration_that_cannot_be_is_refused(tmp_path, change, message):
    run = save_untrained(tmp_path / "run", "array")
    changed_config(run, change)
    with pytest.raises(ValueError, match=message):
        load(run)


def test_settings_with_control_characters_or_impossible_dates_name_their_file():
    with pytest.raises(ValueError, match=r"y\.yaml is not YAML"):
        load_yaml("x: \x01\n", "y.yaml")
    with pytest.raises(ValueError, match=r"y\.yaml holds a value that is not YAML: month must be"):
        load_yaml("seed: 2001-99-99\n", "y.yaml")


def test_numbers_beyond_the_largest_are_bad_rows_and_no_statistics(tmp_path):
    lines = [f"{n},{'ab'[n % 2]}" for n in range(200)]
    lines[3] = "1e170,a"
    (tmp_path / "t.csv").write_text("x,label\n" + "\n".join(lines) + "\n")
    run = resolve(str(tmp_path / "t.csv"), overrides={"label": "label", "columns": {"x": "number"}})
    assert all(math.isfinite(std) for std in run.preprocess["table"].stds)
    (row,) = [row for row in scan_rows(run) if row.error]
    assert "expected a number from -1e+18 to 1e+18, got" in row.error
    image = ImagePreprocessConfig.imagenet(size=(4, 4), std=(float("inf"),) * 3)
    with pytest.raises(ValueError, match=r"got an infinite preprocess\.image\.std\.0"):
        config_json(replace(load(save_run(tmp_path / "run")).config, preprocess={"image": image}))


def test_a_pipe_in_a_class_folder_is_one_bad_row(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("L", (8, 8), 20 * number).save(tmp_path / name / f"{number}.png")
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    run = resolve(str(tmp_path))
    bad = [row for row in scan_rows(run) if row.error]
    assert len(bad) <= 1  # passed over by the list of files, or named
    train = run.data.splits["train"]
    found = row_identities(train, run.data.inputs, run.data.targets("train"), run.data.label_names)
    assert len(found) == len(train)


def test_new_files_have_the_usual_permissions(tmp_path):
    umask = os.umask(0)
    os.umask(umask)
    with atomic_write(tmp_path / "a") as new:
        new.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
