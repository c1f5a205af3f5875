"""doctor, inspect and recipes: the commands that train nothing."""

import errno
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from perceivers.cli import doctor
from perceivers.cli.main import main
from perceivers.recipes import get_recipe, list_recipes
from perceivers.recipes.files import read_recipe
from support.runs import save_run


class TestDoctor:
    def test_a_whole_installation_is_fine(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["doctor"]) == 0
        out = capsys.readouterr().out
        assert f"torch          {torch.__version__}" in out
        assert "a training step lowers the loss" in out
        assert out.splitlines()[-1] == "Everything that is needed works."

    def test_what_is_wrong_is_named_and_is_status_1(self, monkeypatch, capsys):
        found = doctor.Finding("wrong", "writing", "no")
        monkeypatch.setattr(doctor, "check_writing", lambda folder: found)
        assert main(["doctor"]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == "Wrong: writing."

    def test_a_missing_extra_says_how_to_install_it(self, monkeypatch):
        monkeypatch.setattr(doctor, "version", absent)
        finding = doctor.check_module("viz", "matplotlib", "matplotlib", "pictures")
        assert finding.state == "note"
        assert 'pip install "perceivers[viz]"' in finding.text

    def test_a_broken_library_is_wrong(self, monkeypatch):
        monkeypatch.setattr(doctor, "version", lambda name: "1.0")
        finding = doctor.check_module("viz", "matplotlib", "no_such_module", "pictures")
        assert finding.state == "wrong"
        assert "cannot be imported: No module named 'no_such_module'" in finding.text

    def test_torchvision_is_judged_by_whether_it_fits_torch(self, monkeypatch):
        monkeypatch.setattr(doctor, "version", absent)
        assert doctor.check_torchvision().state == "ok"
        monkeypatch.setattr(doctor, "version", lambda name: "0.1")
        monkeypatch.setattr(doctor.importlib, "import_module", lambda name: None)
        assert doctor.check_torchvision().state == "ok"

        def broken(name):
            raise RuntimeError("operator torchvision::nms does not exist")

        monkeypatch.setattr(doctor.importlib, "import_module", broken)
        finding = doctor.check_torchvision()
        assert finding.state == "wrong"
        assert "pip uninstall torchvision" in finding.text

    def test_devices_are_listed(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        about = type("About", (), {"name": "H200", "total_memory": 2**37})()
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: about)
        assert [f.text for f in doctor.check_torch()][1] == "H200, 128 GiB"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        assert [f.name for f in doctor.check_torch()][1] == "mps"

    def test_a_folder_that_cannot_be_written_is_wrong(self, monkeypatch, tmp_path):
        def refuse(**kwargs):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
        finding = doctor.check_writing(tmp_path)
        assert finding.state == "wrong"
        assert "Permission denied" in finding.text

    def test_memory_that_is_not_told_is_no_error(self, monkeypatch):
        def refuse(name):
            raise ValueError(name)

        monkeypatch.setattr(doctor.os, "sysconf", refuse)
        assert doctor.check_memory().state == "note"

    def test_a_machine_that_cannot_learn_is_wrong(self, monkeypatch):
        monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
        finding = doctor.check_step()
        assert finding.state == "wrong"
        assert "did not lower the loss" in finding.text


class TestInspect:
    def test_the_paper_s_model_has_its_published_size(self, capsys):
        assert main(["info", "imagenet"]) == 0
        out = capsys.readouterr().out
        assert "50,176 elements of 261 channels" in out
        assert "44,912,254" in out

    def test_json_can_be_read_back(self, capsys):
        assert main(["info", "digits", "--batch", "4", "--format", "json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["num_elements"] == 64
        assert result["batch_size"] == 4
        assert result["assumed"] == []

    def test_what_the_data_decide_is_assumed_and_said(self, capsys):
        assert main(["info", "images", "--size", "tiny"]) == 0
        assert "assuming size 64 x 64" in capsys.readouterr().out

    def test_a_larger_batch_needs_more_memory_and_checkpointing_less(self, capsys):
        sizes = []
        for flags in (["--batch", "2"], ["--batch", "8"], ["--batch", "8", "--grad-checkpointing"]):
            main(["info", "digits", "--format", "json", *flags])
            sizes.append(json.loads(capsys.readouterr().out)["step_bytes"])
        assert sizes[0] < sizes[1]
        assert sizes[2] < sizes[1]

    def test_a_run_and_a_file_can_be_inspected(self, tmp_path, capsys):
        assert main(["info", str(save_run(tmp_path / "run"))]) == 0
        assert "parameters" in capsys.readouterr().out
        main(["recipes", "digits"])
        (tmp_path / "my.yaml").write_text(capsys.readouterr().out)
        assert main(["info", str(tmp_path / "my.yaml")]) == 0
        assert "64 elements of" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            (["imagnet"], "Did you mean 'imagenet'?"),
            (["digits", "--size", "base"], "sizes paper; got 'base'"),
            (["digits", "--batch", "0"], "Expected --batch of at least 1, got 0."),
            (["nowhere.yaml"], "nowhere.yaml"),
        ],
    )
    def test_wrong_arguments_are_told(self, capsys, args, expected):
        assert main(["info", *args]) == 2
        assert expected in capsys.readouterr().err

    def test_sizes_have_units(self):
        from perceivers.cli.info import _bytes

        assert [_bytes(n) for n in (2048, 3 * 2**20, 5 * 2**30)] == [
            "2.0 KiB",
            "3.0 MiB",
            "5.00 GiB",
        ]


class TestRecipes:
    def test_every_recipe_is_listed_with_what_to_expect(self, capsys):
        assert main(["recipes"]) == 0
        out = capsys.readouterr().out
        for name in list_recipes():
            assert f"{name}\n    " in out
        assert out.count("Expected: ") == len(list_recipes())

    @pytest.mark.parametrize("name", list_recipes())
    def test_a_printed_recipe_reads_back_as_it_was(self, name, tmp_path: Path, capsys):
        assert main(["recipes", name]) == 0
        path = tmp_path / "recipe.yaml"
        path.write_text(capsys.readouterr().out)
        assert read_recipe(path) == get_recipe(name)

    def test_an_unknown_name_suggests_the_nearest(self, capsys):
        assert main(["recipes", "image"]) == 2
        assert "Did you mean 'images'?" in capsys.readouterr().err

    def test_help_shows_examples(self, capsys):
        assert main(["recipes", "--help"]) == 0
        assert "examples:\n  perceivers recipes\n" in capsys.readouterr().out


def absent(name):
    raise PackageNotFoundError(name)
