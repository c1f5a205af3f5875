"""Labeled rows, data and table of the benchmark `pretraining`."""

import numpy as np
from benchmarks import pretraining


def test_a_tenth_of_each_class_has_labels():
    labels = ["a"] * 50 + ["b"] * 30 + ["c"] * 2
    rows = pretraining.labeled_rows(labels, None, seed=0)
    assert [labels[row] for row in rows] == ["a"] * 5 + ["b"] * 3 + ["c"]
    assert rows == pretraining.labeled_rows(labels, None, seed=0)
    assert rows != pretraining.labeled_rows(labels, None, seed=1)


def test_all_rows_of_a_tenth_of_the_groups_have_labels():
    groups = np.repeat(np.arange(30), 4)
    rows = pretraining.labeled_rows(["a"] * 120, groups.tolist(), seed=0)
    chosen = np.unique(groups[rows])
    assert len(chosen) == 3
    assert len(rows) == 12


def test_data_are_written_once(tmp_path):
    source = tmp_path / "clouds"
    source.mkdir()
    points, labels = np.zeros((20, 4, 3)), np.arange(20) % 2
    for name in ("train", "test"):
        np.savez(source / f"{name}.npz", points=points, label=labels, label_names=["a", "b"])
    row = pretraining.Row(name="clouds", data="clouds")
    for _ in range(2):
        unlabeled, labeled = pretraining.write_data(row, source, tmp_path / "made", 0)
    assert np.load(unlabeled / "train.npz").files == ["points"]
    assert len(np.load(labeled / "train.npz")["label"]) == 2
    assert len(np.load(labeled / "test.npz")["label"]) == 20


def test_the_table_has_means_and_deviations():
    common = {"scale": 1.0, "budget": 8, "day": "2026-01-01", "processor": "CPU", "threads": 2}
    runs = [
        {"row": "cifar10", "table": "cifar10", "seed": s, "way": w, "accuracy": a, **common}
        for w, values in {"pretrained": (0.5, 0.6), "scratch": (0.4,)}.items()
        for s, a in enumerate(values)
    ]
    runs += [
        {"row": f"esc10-{f}", "table": "esc10", "seed": 0, "way": "probe", "accuracy": f / 10}
        | common
        for f in (1, 2)
    ]
    text = pretraining.render(runs)
    assert "| cifar10 | 8 | 2 | 55.0 ± 5.0 | 40.0 | - |" in text
    assert "| esc10 | 8 each | 1 | - | - | 15.0 |" in text
    assert pretraining.render([]) == "Not measured yet."
