import ast
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from perceivers.data.tables.columns import InputColumn
from perceivers.evaluation import shards as module
from perceivers.evaluation.shards import (
    RowPredictor,
    ShardResult,
    predict_shards,
    rank_from_environment,
    shards_of,
)
from perceivers.tasks.prediction import Prediction
from support.files import write_csv, write_jsonl, write_parquet, write_tar
from support.image_data import cells, members, png, write_png

EXAMPLES = Path(__file__).parents[2] / "examples"


class Fake:
    """Says how many bytes a picture has: an odd or an even number."""

    def __init__(self, columns=None, bad=(), kind="class", fingerprint="weights"):
        self.columns = columns or {"image": InputColumn("image", "image")}
        self.fingerprint = fingerprint
        self.bad, self.kind, self.seen = bad, kind, []

    def predict_rows(self, rows):
        for row in rows:
            self.seen.append(row)
            media = row[next(iter(self.columns.values())).column]
            if len(self.seen) - 1 in self.bad or media.is_missing:
                yield ValueError(f"{media.name}\nis damaged.")
                continue
            odd = len(media.read()) % 2
            if self.kind == "number":
                yield Prediction(name="", values={"size": float(odd), "other": 2.0})
                continue
            several = None if self.kind == "class" else (("odd",) if odd else ())
            yield Prediction(
                name="",
                label="odd" if odd else "even",
                probability=0.75,
                probabilities={"even": 0.25 + 0.5 * (1 - odd), "odd": 0.25 + 0.5 * odd},
                labels=several,
            )


def predict(paths, out, predictor=None, rank=0, world_size=1, **options):
    predictor = predictor or Fake()
    return list(predict_shards(predictor, paths, out, rank=rank, world_size=world_size, **options))


def rows_of(path):
    return pq.read_table(path).to_pylist()


def said(number):
    return "odd" if len(png(number)) % 2 else "even"


def test_the_predictor_is_known_by_what_it_does():
    assert isinstance(Fake(), RowPredictor)


def written(folder, kind):
    rows = [{"image": f"{n}.png", "key": f"k{n}"} for n in range(5)]
    for n in range(5):
        write_png(folder / f"{n}.png", n)
    if kind == "csv":
        return write_csv(folder / "a.csv", rows)
    if kind == "jsonl":
        return write_jsonl(folder / "a.jsonl", rows)
    if kind == "tar":
        keys = {f"{n:03d}.json": f'{{"key": "k{n}"}}'.encode() for n in range(5)}
        both = {**members(range(5)), **keys}
        return write_tar(folder / "a.tar", dict(sorted(both.items())))
    columns = {**cells(range(5)), "key": [f"k{n}" for n in range(5)]}
    return write_parquet(folder / "a.parquet", columns)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tar", "parquet"])
def test_each_row_has_its_key_and_its_prediction(tmp_path, kind):
    (result,) = predict([written(tmp_path, kind)], tmp_path / "out")
    assert (result.num_rows, result.bad, result.skipped) == (5, 0, False)
    assert result.path == tmp_path / "out" / "a.parquet"
    found = rows_of(result.path)
    assert [(row["key"], row["label"]) for row in found] == [(f"k{n}", said(n)) for n in range(5)]
    assert list(found[0]) == ["key", "label", "probability", "p(even)", "p(odd)", "error"]
    assert found[0]["probability"] == 0.75
    assert found[0][f"p({said(0)})"] == 0.75
    assert found[0]["error"] is None


def test_rows_without_a_key_are_numbered(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(3)))
    (result,) = predict([path], tmp_path / "out")
    assert [row["key"] for row in rows_of(result.path)] == [0, 1, 2]
    (result,) = predict([path], tmp_path / "out2", key="label")
    assert [row["label"] for row in rows_of(result.path)] != [0, 1, 2]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_processes_share_the_shards(tmp_path, world_size):
    paths = [write_parquet(tmp_path / f"{n}.parquet", cells(range(n, n + 2))) for n in range(4)]
    results = [
        predict(paths, tmp_path / "out", rank=r, world_size=world_size) for r in range(world_size)
    ]
    assert sorted(r.shard for part in results for r in part) == paths
    assert max(map(len, results)) - min(map(len, results)) <= 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"{n}.parquet" for n in range(4)
    ]


def test_finished_shards_are_not_predicted_again(tmp_path):
    paths = [write_parquet(tmp_path / f"{n}.parquet", cells(range(2))) for n in range(3)]
    first = predict(paths, tmp_path / "out")
    first[1].path.unlink()
    predictor = Fake()
    again = predict(paths, tmp_path / "out", predictor)
    assert [result.skipped for result in again] == [True, False, True]
    assert len(predictor.seen) == 2
    assert again[0] == ShardResult(paths[0], first[0].path, 2, 0, skipped=True)


def test_errors_in_skipped_shards_are_counted(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(3)))
    predict([path], tmp_path / "out", Fake(bad=[1]))
    (again,) = predict([path], tmp_path / "out")
    assert (again.skipped, again.num_rows, again.bad) == (True, 3, 1)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "tar", "parquet"])
def test_a_shard_with_other_rows_is_predicted_again(tmp_path, kind):
    path = written(tmp_path, kind)
    (first,) = predict([path], tmp_path / "out")
    about = path.stat()
    if kind in ("csv", "jsonl"):  # the table is the same, a file that it names is not
        image = tmp_path / "2.png"
        write_png(image, 3)
    else:
        columns = {**cells([0, 1, 3, 3, 4]), "key": [f"k{n}" for n in range(5)]}
        keys = {f"{n:03d}.json": f'{{"key": "k{n}"}}'.encode() for n in range(5)}
        images = {f"{n:03d}.png": png(3 if n == 2 else n) for n in range(5)}
        both = {**members(range(5)), **images, **keys}
        if kind == "tar":
            write_tar(path, dict(sorted(both.items())))
        else:
            write_parquet(path, columns)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    (again,) = predict([path], tmp_path / "out")
    assert (again.skipped, again.changed) == (False, "shard")
    assert [row["label"] for row in rows_of(first.path)][2] == said(3)
    (last,) = predict([path], tmp_path / "out")
    assert last.skipped


def test_other_weights_under_the_same_name_predict_again(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(2)))
    predict([path], tmp_path / "out", model="runs/a")
    (again,) = predict([path], tmp_path / "out", Fake(fingerprint="trained again"), model="runs/a")
    assert (again.skipped, again.changed) == (False, "model")


def test_a_moved_model_and_shard_are_the_same(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(2)))
    predict([path], tmp_path / "out", model="runs/a")
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "a.parquet")
    (again,) = predict([moved], tmp_path / "out", model="runs/b")
    assert again.skipped


def test_a_remote_shard_is_what_its_storage_reports(tmp_path):
    import fsspec

    path = write_parquet(tmp_path / "a.parquet", cells(range(2)))
    files = fsspec.filesystem("memory")
    files.pipe("/shards/a.parquet", path.read_bytes())
    address = "memory://shards/a.parquet"
    predict([address], tmp_path / "out")
    assert predict([address], tmp_path / "out")[0].skipped
    files.pipe("/shards/a.parquet", path.read_bytes())
    assert predict([address], tmp_path / "out")[0].changed == "shard"


def test_an_interruption_leaves_whole_files_only(tmp_path):
    paths = [write_parquet(tmp_path / f"{n}.parquet", cells(range(3))) for n in range(2)]

    class Interrupted(Fake):
        def predict_rows(self, rows):
            for found in super().predict_rows(rows):
                if len(self.seen) == 5:
                    raise KeyboardInterrupt
                yield found

    with pytest.raises(KeyboardInterrupt):
        predict(paths, tmp_path / "out", Interrupted())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.parquet"]


def test_predictions_of_another_model_are_not_taken_for_its_own(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(2)))
    predict([path], tmp_path / "out", model="one")
    with pytest.raises(ValueError, match=r"a\.parquet exists and holds something else"):
        predict([path], tmp_path / "out", Fake(fingerprint="other"), model="two")
    (tmp_path / "out" / "a.parquet").write_bytes(b"?")
    with pytest.raises(ValueError, match="exists and holds something else"):
        predict([path], tmp_path / "out", model="one")


def test_bad_rows_are_written_with_the_reason(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", cells(range(6)))
    monkeypatch.setattr(module, "_GROUP", 2)
    (result,) = predict([path], tmp_path / "out", Fake(bad=(0, 1, 2, 5)))
    assert (result.num_rows, result.bad) == (6, 4)
    found = rows_of(result.path)
    assert [row["label"] for row in found] == [None, None, None, said(3), said(4), None]
    assert found[0]["error"].endswith("row 0 (0.png) is damaged.")
    assert found[3]["error"] is None
    (result,) = predict([path], tmp_path / "out2", Fake(bad=range(6)))
    assert (result.num_rows, result.bad) == (6, 6)
    assert list(rows_of(result.path)[0]) == ["key", "error"]


def test_a_damaged_shard_gives_the_rows_before_and_the_run_goes_on(tmp_path):
    cut = write_jsonl(tmp_path / "a.jsonl", [{"image": f"{n}.png", "key": n} for n in range(4)])
    for n in range(4):
        write_png(tmp_path / f"{n}.png", n)
    cut.write_bytes(cut.read_bytes()[:-8])
    gone = tmp_path / "b.parquet"
    gone.write_bytes(b"PAR1")
    whole = write_parquet(tmp_path / "c.parquet", cells(range(2)))
    results = predict([cut, gone, whole], tmp_path / "out")
    assert [(result.num_rows, result.bad) for result in results] == [(4, 1), (1, 1), (2, 0)]
    last = rows_of(results[0].path)[-1]
    assert (last["key"], last["label"]) == (None, None)
    assert "a.jsonl, line 4 is not JSON" in last["error"]
    assert "cannot be read as Parquet" in rows_of(results[1].path)[0]["error"]


def test_a_modality_may_be_missing_and_its_cells_are_empty(tmp_path):
    columns = {"image": InputColumn("image", "image"), "audio": InputColumn("sound", "audio")}
    predictor = Fake(columns)
    predict([write_parquet(tmp_path / "a.parquet", cells(range(2)))], tmp_path / "out", predictor)
    assert [row["sound"].is_missing for row in predictor.seen] == [True, True]
    assert set(predictor.seen[0]) == {"image", "sound"}
    with pytest.raises(
        ValueError, match=r"has none of the columns that the model reads, sound; its"
    ):
        predict(
            [write_parquet(tmp_path / "b.parquet", cells(range(2)))],
            tmp_path / "out",
            Fake({"audio": InputColumn("sound", "audio")}),
        )


def test_columns_side_by_side_are_all_read(tmp_path):
    columns = {"image": cells(range(2))["image"], "x": [[1.0], [2.0]], "y": [[3.0], [4.0]]}
    parts = {
        "image": InputColumn("image", "image"),
        "series": InputColumn("x", "series", ("x", "y"), ("series", "series")),
    }
    predictor = Fake(parts)
    predict([write_parquet(tmp_path / "a.parquet", columns)], tmp_path / "out", predictor)
    assert [(row["x"].value, row["y"].value) for row in predictor.seen] == [([1], [3]), ([2], [4])]


def test_several_labels_and_numbers_have_their_own_columns(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(4)))
    (result,) = predict([path], tmp_path / "out", Fake(kind="labels"))
    expected = [["odd"] if said(n) == "odd" else [] for n in range(4)]
    assert [row["labels"] for row in rows_of(result.path)] == expected
    (result,) = predict([path], tmp_path / "out2", Fake(kind="number"))
    assert list(rows_of(result.path)[0]) == ["key", "size", "other", "error"]
    assert math.isclose(rows_of(result.path)[0]["other"], 2.0)


def test_shards_of_one_name_are_told_apart(tmp_path):
    paths = [write_parquet(tmp_path / f / "a.parquet", cells(range(2))) for f in "xy"]
    predict(paths, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("00000-a.parquet", "00001-a.parquet")
    ]


def test_ranks_come_from_the_environment(monkeypatch, tmp_path):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert rank_from_environment() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert rank_from_environment() == (3, 8)
    with pytest.raises(ValueError, match="rank from 0 to world_size - 1 = 1, got 2"):
        predict([], tmp_path, rank=2, world_size=2)


def test_shards_are_found_and_other_data_refused(tmp_path):
    paths = [write_parquet(tmp_path / f"train-{n}.parquet", cells(range(2))) for n in range(3)]
    assert shards_of(str(tmp_path)) == paths
    assert shards_of(str(tmp_path / "train-{0..1}.parquet")) == paths[:2]
    assert shards_of([str(path) for path in paths]) == paths
    write_png(tmp_path / "d" / "a" / "1.png", 1)
    write_png(tmp_path / "d" / "b" / "2.png", 2)
    with pytest.raises(
        ValueError, match=r"a folder of classes: expected shards, files of \.parquet"
    ):
        shards_of(tmp_path / "d")


def test_the_example_runs_under_several_processes(tmp_path, monkeypatch, capsys):
    paths = [write_parquet(tmp_path / f"train-{n}.parquet", cells(range(2))) for n in range(3)]
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "predict_shards.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "pv", SimpleNamespace(load=lambda run: Fake()))
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        example.main("runs/a", [str(tmp_path / "train-*.parquet")], str(tmp_path / "out"))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert (
        f"process 1: {paths[1]} -> {tmp_path / 'out' / 'train-1.parquet'}: 2 rows, 0 invalid"
        in told
    )


def test_the_example_says_how_it_is_used():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "predict_shards.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "usage: predict_shards.py RUN SHARDS... OUT" in done.stderr


def test_the_ray_example_compiles_and_is_short():
    text = (EXAMPLES / "predict_shards_ray.py").read_text()
    ast.parse(text)
    assert len(text.splitlines()) < 60


def test_the_ray_example_predicts_shards(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "predict_shards_ray.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--devices" in done.stdout
