"""Looking back on runs: compare and report."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from perceivers.cli.main import main
from perceivers.hub.checkpoint import load, save
from support.runs import make_finished_run, make_image_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of which one has ended, and a folder that is none."""
    folder = tmp_path_factory.mktemp("runs")
    data = make_image_folder(folder / "birds")
    make_finished_run(folder / "a", data=data)
    make_finished_run(folder / "b", data=data, ended=False)
    (folder / "empty").mkdir()
    return folder


class TestCompare:
    def test_tells_measures_cost_and_what_has_not_ended(self, runs, tmp_path, capsys):
        out = tmp_path / "compare.png"
        assert main(["compare", str(runs / "a"), str(runs / "b"), "--out", str(out)]) == 0
        told, said = capsys.readouterr()
        assert re.search(r"^validation accuracy +75\.0 % +75\.0 %$", told, re.MULTILINE)
        assert re.search(r"^samples a second +80 +80$", told, re.MULTILINE)
        assert "b has not ended: unfinished, 20 steps done." in told
        assert str(out) in said
        assert out.read_bytes().startswith(b"\x89PNG")

    def test_json_and_csv_hold_the_numbers(self, runs, capsys):
        names = [str(runs / "a"), str(runs / "b")]
        assert main(["compare", *names, "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [one["metrics"]["validation"]["accuracy"] for one in told["runs"]] == [0.75, 0.75]
        assert main(["compare", *names, "--format", "csv"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["run"] for row in rows] == names
        assert rows[0]["validation/loss"] == "0.1"
        assert int(rows[0]["parameters"]) == told["runs"][0]["parameters"] > 1000

    def test_a_run_that_cannot_be_read_is_told_and_the_others_kept(self, runs, capsys):
        assert main(["compare", str(runs / "a"), str(runs / "empty")]) == 1
        told, said = capsys.readouterr()
        assert "75.0 %" in told
        assert said.count("\n") == 1
        assert "left out" in said
        assert "is not a run" in said

    def test_one_run_is_too_few(self, runs, capsys):
        assert main(["compare", str(runs / "a")]) == 2
        assert "at least two run folders, got 1" in capsys.readouterr().err


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.sources += [known[k] for k in ("src", "href", "xlink:href") if known.get(k)]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


class TestReport:
    def test_a_page_needs_nothing_else(self, runs, tmp_path, capsys):
        out = tmp_path / "a.html"
        how = ["--examples", "1", "--mistakes", "0"]
        assert main(["report", str(runs / "a"), "--out", str(out), *how]) == 0
        assert str(out) in capsys.readouterr().out
        page = Page(out.read_text())
        assert page.open == []
        assert all(source.startswith(("data:", "#")) for source in page.sources)
        assert sum(source.startswith("data:image/png") for source in page.sources) == 1
        for words in (
            "75.0 %",
            f"perceivers fit {runs / 'birds'}",
            "Classes on validation",
            "50.0 % (15.0 to 85.0)",
            "The validation split has only 8 rows: its metrics are uncertain",
            "dark (2)",
            "validation split, in truth",
            "Recognized a folder of classes.",
            "it is truncated",
            "No test split was measured.",
            "num_latents: 4",
            "2.11",
        ):
            assert words in page.words, words
        assert "width=device-width" in out.read_text()
        assert "prefers-color-scheme: dark" in out.read_text()

    def test_the_worst_mistakes_have_their_image_and_escaped_names(self, tmp_path, capsys):
        folder = make_finished_run(tmp_path / "a")
        for path in (tmp_path / "birds").rglob("*.png"):
            path.rename(path.with_name(f"<b>&{path.name}"))
        saved = load(folder)
        for _ in range(2):  # with its head negated, a model is wrong where it was right
            with torch.no_grad():
                saved.model.output.to_logits.weight.neg_()
            known = {"task": saved.config.task, "columns": saved.config.columns}
            save(folder, saved.model, preprocess=saved.config.preprocess, **known)
            assert main(["evaluate", str(folder)]) == 0
            kept = json.loads((folder / "evaluation-validation.json").read_text())
            if kept["metrics"]["accuracy"] < 1:
                break
        assert kept["mistakes"]
        assert all(one["name"] == "" for one in kept["mistakes"])  # names may be private
        assert main(["report", str(folder), "--examples", "0", "--mistakes", "1"]) == 0
        text = (folder / "report.html").read_text()
        assert len(re.findall("<figure><img [^>]*data:image/png", text)) == 1
        assert re.search(r"predicted (dark|light) \(\d+\.\d&nbsp;%\), in truth (dark|light)", text)
        assert "&lt;b&gt;&amp;" in text
        assert "<b>&" not in text
        assert main(["report", str(folder), "--examples", "0", "--mistakes", "0"]) == 0
        assert "Worst mistakes" not in (folder / "report.html").read_text()
        assert main(["report", str(folder), "--mistakes", "13"]) == 2

    def test_what_was_evaluated_stands_beside(self, runs, capsys):
        folder = runs / "a"
        known = {
            "intervals": {"accuracy": [0.15, 0.85]},
            "metrics": {"accuracy": 0.5, "samples": 4},
        }
        told = {"split": "test", **known}
        (folder / "evaluation-test.json").write_text(json.dumps(told))
        assert main(["report", str(folder), "--examples", "0"]) == 0
        text = (folder / "report.html").read_text()
        assert '<span class="big">50.0 %</span> test accuracy' in text
        assert "(95 % interval 15.0 % to 85.0 %, 4 rows)" in text
        assert "The test split has only 4 rows" in text
        assert "No test split was measured" not in text
        (folder / "evaluation-test.json").unlink()

    def test_a_run_that_has_not_ended_says_so(self, runs, capsys):
        assert main(["report", str(runs / "b")]) == 0
        assert "No examples are shown" in capsys.readouterr().err
        assert "This run has not ended" in (runs / "b" / "report.html").read_text()

    def test_what_is_no_run_is_one_sentence(self, runs, capsys):
        assert main(["report", str(runs / "empty")]) == 1
        assert "is not a run" in capsys.readouterr().err
        assert main(["report", str(runs / "a"), "--examples", "-1"]) == 2


def test_an_evaluation_on_the_runs_own_data_is_kept(tmp_path, capsys):
    folder = make_finished_run(tmp_path / "a")
    assert main(["evaluate", str(folder), "--permute", "1"]) == 0
    assert not list(folder.glob("evaluation-*.json"))
    assert main(["evaluate", str(folder)]) == 0
    kept = json.loads((folder / "evaluation-validation.json").read_text())
    assert kept["metrics"]["samples"] == 2
