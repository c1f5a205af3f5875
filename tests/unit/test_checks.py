"""Checks of data before training: what each one finds, and what it leaves alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from perceivers.checks.check import check, quick_check
from perceivers.checks.duplicates import perceptual_hashes
from perceivers.checks.labels import check_classes
from perceivers.cli.main import main
from perceivers.recipes.resolve import resolve
from perceivers.training.fit import _summary as summary_of
from support.files import write_csv


def photo(seed: int, side: int = 48) -> Image.Image:
    """An image with structure: a few random low frequencies."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def write_photos(folder: Path, *, train: int = 12, test: int = 4) -> Path:
    seed = 0
    for split, count in (("train", train), ("test", test)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                photo(seed).save(folder / split / name / f"{number}.png")
                seed += 1
    return folder


def findings(data: Any, **overrides: Any) -> dict[tuple[str, str], Any]:
    """Findings by kind and severity."""
    report = check(resolve(data, overrides=overrides))
    return {(one.kind, one.severity): one for one in report.findings}


def names(finding: Any) -> list[list[str]]:
    return [
        sorted(f"{row.split}/{Path(row.name).name}" for row in group) for group in finding.groups
    ]


def test_good_data_have_no_findings(tmp_path):
    report = check(resolve(str(write_photos(tmp_path))))
    assert not report.findings
    assert not report.has_errors
    assert report.rows == {"train": 22, "validation": 2, "test": 8}
    assert report.classes["test"] == {"cat": 4, "dog": 4}
    assert report.recipe == "images"


def test_copies_across_splits_are_errors_and_named(tmp_path):
    write_photos(tmp_path)
    shutil.copy(tmp_path / "train/cat/3.png", tmp_path / "test/cat/copy.png")
    found = findings(str(tmp_path))
    one = found["duplicate", "error"]
    assert "1 row of test is equal to a row of " in one.message
    assert any("test/copy.png" in group for group in names(one))
    assert ("near_duplicate", "warning") not in found


def test_images_that_were_resized_compressed_or_brightened_are_near_duplicates(tmp_path):
    write_photos(tmp_path)
    first = Image.open(tmp_path / "train/cat/0.png")
    first.resize((80, 80)).save(tmp_path / "test/cat/large.png")
    first.save(tmp_path / "test/cat/small.jpg", quality=60)
    ImageEnhance.Brightness(first).enhance(0.8).save(tmp_path / "test/cat/dark.png")
    found = findings(str(tmp_path))
    (group,) = names(found["near_duplicate", "warning"])
    assert {"test/large.png", "test/small.jpg", "test/dark.png"} < set(group)
    assert not any(kind == "duplicate" for kind, _ in found)


def test_flat_and_tiny_images_are_not_taken_for_duplicates(tmp_path):
    write_photos(tmp_path)
    for shade in (10, 200):
        Image.new("RGB", (48, 48), (shade, shade, shade)).save(
            tmp_path / f"train/cat/flat{shade}.png"
        )
    for seed in range(40):
        photo(seed, side=8).save(tmp_path / f"train/dog/tiny{seed}.png")
    assert all(kind != "near_duplicate" for kind, _ in findings(str(tmp_path)))


def test_hashes_of_unrelated_images_differ_by_many_bits():
    pixels = np.stack([np.asarray(photo(seed, 32).convert("L"), np.float32) for seed in range(40)])
    hashes = perceptual_hashes(pixels)
    assert hashes.shape == (40, 8)
    bits = np.unpackbits(hashes[:, None] ^ hashes[None], axis=2).sum(axis=2)
    assert bits[~np.eye(40, dtype=bool)].min() > 6
    assert (hashes == perceptual_hashes(pixels * 0.5 + 20)).all()


def test_copies_with_different_labels(tmp_path):
    write_photos(tmp_path)
    shutil.copy(tmp_path / "train/cat/3.png", tmp_path / "train/dog/twin.png")
    one = findings(str(tmp_path))["label", "warning"]
    assert "1 group of equal rows has different labels" in one.message
    assert {row.label for row in one.groups[0]} == {"cat", "dog"}


def test_unreadable_files_are_named(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "train/cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    one = findings(str(tmp_path))["unreadable", "error"]
    assert "1 row of 33 cannot be read" in one.message
    assert names(one)[0][0].endswith("broken.png")
    assert one.groups[0][0].note
    allowed = findings(str(tmp_path), max_bad=0.2)
    assert ("unreadable", "warning") in allowed


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    heads = list(rows[0])
    lines = [",".join(heads), *(",".join(f'"{row[head]}"' for head in heads) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


WORDS = ["sun", "rain", "wind", "cloud", "storm", "snow", "river", "lake", "hill", "tree", "stone"]


def sentence(seed: int, count: int = 24) -> str:
    rng = np.random.default_rng(seed)
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), count))


def texts(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"text": sentence(n), "label": "ab"[n % 2], "split": "test" if n % 5 == 0 else "train"}
        for n in range(count)
    ]


def test_texts_that_differ_in_case_and_punctuation_are_near_duplicates(tmp_path):
    rows = texts()
    rows[5]["text"] = rows[1]["text"].upper().replace(" ", ",  ") + "!"
    found = findings(table(tmp_path / "t.csv", rows), split_column="split")
    assert "nearly equal" in found["near_duplicate", "warning"].message


def test_classes_without_rows_with_few_and_uneven_ones():
    counts = {
        "train": {"common": 400, "rare": 3, "only": 0},
        "test": {"common": 100, "rare": 0, "only": 2},
    }
    error, few, absent, uneven = check_classes(counts)
    assert (error.severity, few.severity, absent.severity, uneven.severity) == (
        "error",
        "warning",
        "warning",
        "info",
    )
    assert "1 class without a row in train cannot be learned: only." in error.message
    assert "fewer than 10 rows in train: rare (3)." in few.message
    assert "without a row in test is not measured there: rare." in absent.message
    assert "400 rows in train, the smallest 3" in uneven.message
    assert not list(check_classes({"train": {"a": 20, "b": 30}, "test": {"a": 5, "b": 5}}))
    assert not list(check_classes({}))


def test_groups_on_both_sides_are_named_unless_kept_together(tmp_path):
    rows = [
        {**row, "patient": f"p{n // 4}", "note": f"x{n % 3}"} for n, row in enumerate(texts(80))
    ]
    path = table(tmp_path / "t.csv", rows)
    one = findings(path, columns={"text": "text"})["group", "warning"]
    assert "of the 20 values of 'patient' occur in train and in validation" in one.message
    assert "--group patient" in one.message
    assert "note" not in one.message
    together = findings(path, columns={"text": "text"}, group="patient")
    assert ("group", "warning") not in together


def test_a_column_that_states_the_label_is_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"size": rng.integers(0, 9), "code": f"c{n % 4}", "label": "ab"[n % 2]} for n in range(60)
    ]
    path = table(tmp_path / "t.csv", rows)
    found = findings(path, columns={"size": "number", "code": "category"}, label="label")
    assert "input 'code'" in found["leak", "warning"].message
    assert "states the label" in found["leak", "warning"].message


def test_rows_that_look_like_another_class(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"x": rng.normal(5 * (n % 2)), "y": rng.normal(5 * (n % 2)), "label": "ab"[n % 2]}
        for n in range(200)
    ]
    rows[7]["label"] = "a"  # one of class b
    path = table(tmp_path / "t.csv", rows)
    found = findings(path, columns={"x": "number", "y": "number"}, label="label")
    one = found["label", "warning"]
    assert len(one.groups) <= 3
    noted = {
        (row.name.partition("line ")[2][:2].strip(","), row.note)
        for group in one.groups
        for row in group
    }
    assert ("9", "looks like b") in noted  # line 9 of the file: row 7 below the header
    for row in rows:  # labels at random: neighbors say nothing
        row["label"] = "ab"[int(rng.integers(2))]
    path = table(tmp_path / "u.csv", rows)
    found = findings(path, columns={"x": "number", "y": "number"}, label="label")
    assert ("label", "warning") not in found


def test_an_error_of_the_data_is_a_warning_of_fit(tmp_path, monkeypatch):
    lines = [{"x": n, "label": "ab"[n % 2]} for n in range(20)]
    table = write_csv(tmp_path / "table.csv", lines)
    found = list(check_classes({"train": {"a": 90, "b": 0}, "test": {"a": 5, "b": 5}}))
    assert found[0].severity == "error"
    monkeypatch.setattr("perceivers.training.fit.quick_check", lambda _: found)
    run = resolve(str(table), overrides={"columns": {"x": "number"}})
    sentences = list(summary_of(run, tmp_path / "run"))
    assert any(s.startswith("Warning: 1 class without a row in train") for s in sentences)
    assert not any(s.startswith("Error") for s in sentences)


def test_the_quick_check_reads_files_of_equal_size_only(tmp_path, monkeypatch):
    write_photos(tmp_path)
    shutil.copy(tmp_path / "train/cat/3.png", tmp_path / "test/cat/copy.png")
    opened: list[str] = []
    read = Path.open

    def counted(self: Path, *args: Any, **more: Any) -> Any:
        opened.append(self.name)
        return read(self, *args, **more)

    run = resolve(str(tmp_path))
    monkeypatch.setattr(Path, "open", counted)
    found = quick_check(run)
    assert [one.kind for one in found] == ["duplicate"]
    assert len(opened) < 10


def test_the_command_prints_findings_and_its_status_is_for_scripts(tmp_path, capsys):
    write_photos(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    assert "No problems were found." in capsys.readouterr().out
    photo(0).resize((96, 96)).save(tmp_path / "train/cat/large.png")
    assert main(["check", str(tmp_path)]) == 0
    assert main(["check", str(tmp_path), "--strict"]) == 1
    shutil.copy(tmp_path / "train/cat/3.png", tmp_path / "test/cat/copy.png")
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "ERROR: 1 row of test is equal" in text
    assert "copy.png (test, cat)" in text
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    assert main(["check", str(tmp_path), "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["rows"]["test"] == 9
    assert report["findings"][0]["severity"] == "error"
    assert report["findings"][0]["groups"][0][0]["split"] == "train"


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--label", "nothing"], 1, "nothing"),
        (["--show", "-1"], 2, "--show"),
        (["--recipe", "none"], 1, "none"),
    ],
)
def test_wrong_arguments_are_one_paragraph(tmp_path, capsys, args, status, words):
    path = table(tmp_path / "t.csv", texts())
    assert main(["check", path, *args]) == status
    assert words in capsys.readouterr().err


def test_a_folder_that_does_not_exist(tmp_path, capsys):
    assert main(["check", str(tmp_path / "missing")]) == 1
    assert "missing" in capsys.readouterr().err
