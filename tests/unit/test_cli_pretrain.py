import pytest

from perceivers.cli.main import main


def test_help_has_the_flags_of_the_recipe(capsys):
    assert main(["pretrain", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: perceivers pretrain DATA")
    assert "--task.parts.image.hidden" in text
    assert "--task.parts.image.block" in text


def test_another_recipe_is_refused(capsys):
    assert main(["pretrain", "photos", "--recipe", "images"]) == 2
    assert "expected mae or hip_mae, got images" in capsys.readouterr().err


def test_help_has_the_flags_of_the_other_recipe(capsys):
    assert main(["pretrain", "--recipe", "hip_mae", "--help-all"]) == 0
    assert "--task.parts.image.groupwise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task.parts.image.hidden", "1.0"], "hidden share"),
        (["--task.parts.image.block", "50", "50"], "fits into its"),
        (["--task.parts.image.block", "8", "8"], "single block"),
    ],
)
def test_masks_that_do_not_fit_are_refused(flags, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["pretrain", "builtin:digits", *flags, "--out", str(out)]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_flags_may_come_before_the_data(tmp_path, capsys):
    assert main(["pretrain", "--out", str(tmp_path / "run"), str(tmp_path / "none/")]) == 1
    assert "none" in capsys.readouterr().err
