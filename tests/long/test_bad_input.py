"""What the commands say when files, folders and tables are not as expected: message and exit status."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceivers.cli.main import main
from support.cli import TINY
from support.runs import make_image_folder, save_run

pytestmark = pytest.mark.quick


def noise(height: int = 12, width: int = 12) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise(64, 64).save(buffer, "JPEG")
    return buffer.getvalue()


def corrupt_jpeg(folder: Path) -> Path:
    path = folder / "corrupt.jpg"
    data = bytearray(jpeg())
    data[20:200] = b"\x00" * 180  # the tables that decoding needs
    path.write_bytes(bytes(data))
    return path


def truncated_jpeg(folder: Path) -> Path:
    path = folder / "truncated.jpg"
    path.write_bytes(jpeg()[:700])
    return path


def text_as_png(folder: Path) -> Path:
    path = folder / "text.png"
    path.write_text("This is no picture.")
    return path


def empty_png(folder: Path) -> Path:
    path = folder / "empty.png"
    path.write_bytes(b"")
    return path


def bomb(folder: Path) -> Path:
    path = folder / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    return path


def cmyk(folder: Path) -> Path:
    path = folder / "cmyk.jpg"
    noise().convert("CMYK").save(path)
    return path


def sixteen_bit(folder: Path) -> Path:
    path = folder / "sixteen.png"
    Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12) * 400).save(path)
    return path


def palette(folder: Path) -> Path:
    path = folder / "palette.png"
    noise().convert("P").save(path, transparency=3)
    return path


def animated(folder: Path) -> Path:
    path = folder / "animated.gif"
    noise().save(path, save_all=True, append_images=[noise().rotate(90)])
    return path


def one_pixel(folder: Path) -> Path:
    path = folder / "pixel.png"
    noise(1, 1).save(path)
    return path


@pytest.fixture
def run(tmp_path) -> str:
    return str(save_run(tmp_path / "run"))


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_image_folder(tmp_path / "data")


@pytest.mark.parametrize("make", [corrupt_jpeg, truncated_jpeg, text_as_png, empty_png, bomb])
def test_a_file_that_cannot_be_decoded_is_named_with_the_reason(
    run, tmp_path, capsys, make: Callable[[Path], Path]
):
    path = make(tmp_path)
    assert main(["predict", run, str(path)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert "Traceback" not in error
    assert main(["explain", run, str(path), "--out", str(tmp_path / "a.png")]) == 1
    assert path.name in capsys.readouterr().err


def test_a_bomb_is_refused_by_its_size(run, tmp_path, capsys):
    assert main(["predict", run, str(bomb(tmp_path))]) == 1
    error = capsys.readouterr().err
    assert "400,000,000 pixels" in error
    assert error.count("bomb.png") == 1


@pytest.mark.parametrize("make", [cmyk, sixteen_bit, palette, animated, one_pixel])
def test_every_usual_kind_of_picture_is_read(run, tmp_path, capsys, make):
    assert main(["predict", run, str(make(tmp_path))]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err == ""


def test_a_folder_named_like_a_picture_is_told(run, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    assert main(["predict", run, str(tmp_path / "folder.png")]) == 1
    assert "Expected images in the folder" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_is_told(run, tmp_path, monkeypatch, capsys):
    path = make_image_folder(tmp_path / "data", count=1) / "dark" / "0.png"
    real = Path.open

    def refuse(self, *args, **kwargs):  # root may read everything
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert main(["predict", run, str(path)]) == 1
    error = capsys.readouterr().err
    assert "Permission denied" in error
    assert str(path) in error


def test_a_bad_picture_stops_training_and_is_named(pictures, capsys):
    path = text_as_png(pictures / "dark")
    assert main(["fit", str(pictures), "--batch-size", "64", *TINY]) == 1  # every row is read
    error = capsys.readouterr().err
    assert path.name in error
    assert "--max-bad" in error or "max_bad" in error


def test_bad_pictures_are_skipped_and_counted_within_max_bad(pictures):
    path = text_as_png(pictures / "dark")
    flags = ["--out", "run", "--max-bad", "0.5", "--batch-size", "64", *TINY]
    assert main(["fit", str(pictures), *flags]) == 0
    assert path.name in Path("run/report.md").read_text()


def test_an_empty_folder_is_told(tmp_path, capsys):
    (tmp_path / "nothing").mkdir()
    assert main(["fit", str(tmp_path / "nothing")]) == 1
    error = capsys.readouterr().err
    assert "nothing" in error
    assert "empty" in error or "no " in error


def test_data_that_do_not_exist_are_told(capsys):
    assert main(["fit", "/nowhere/birds"]) == 1
    assert "/nowhere/birds" in capsys.readouterr().err


def test_a_single_class_is_nothing_to_learn(tmp_path, capsys):
    folder = make_image_folder(tmp_path / "data", labels=("dark",))
    assert main(["fit", str(folder), *TINY]) == 1
    error = capsys.readouterr().err
    assert "dark" in error
    assert "class" in error


def test_a_missing_column_is_told_with_those_that_there_are(tmp_path, capsys):
    table = tmp_path / "birds.csv"
    folder = make_image_folder(tmp_path / "data")
    rows = [f"{path},{path.parent.name}" for path in sorted(folder.rglob("*.png"))]
    table.write_text("\n".join(["picture,species", *rows]))
    assert main(["fit", str(table), "--label", "specie"]) == 1
    error = capsys.readouterr().err
    assert "specie" in error
    assert "species" in error
    assert main(["fit", str(table), "--label", "species", "--columns", "photo:image"]) == 1
    assert "photo" in capsys.readouterr().err
    assert main(["fit", str(table), "--label", "species", "--group", "nest"]) == 1
    assert "nest" in capsys.readouterr().err


def test_a_truncated_run_is_told(run, tmp_path, capsys):
    weights = Path(run) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    path = make_image_folder(tmp_path / "data", count=1)
    assert main(["predict", run, str(path)]) == 1
    assert "truncated" in capsys.readouterr().err
