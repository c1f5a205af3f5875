"""Flow from files to a run and back to files: fit, evaluate, predict, explain, and what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.flow.decode import read_flow
from perceivers.data.sources.open import open_data
from perceivers.data.sources.samples import join_frame_pairs
from perceivers.evaluation.predict import load_predictor
from perceivers.evaluation.save import save_flows
from perceivers.recipes import get_recipe
from perceivers.recipes.resolve import choose_recipe
from perceivers.tasks.flow import FlowTask
from perceivers.tasks.prediction import Prediction
from perceivers.training.batch_size_finder import open_memory_probe
from perceivers.training.dataloaders import ProcessInfo
from support import flow_data
from support.resolved import specialize

SMALL = [
    *("--encoder.num-latents", "4", "--encoder.latent-channels", "16"),
    *("--encoder.num-self-attends-per-block", "1", "--encoder.num-self-attend-heads", "2"),
    *("--encoder.cross-attend-qk-channels", "16", "--output.qk-channels", "16"),
    *("--inputs.frame-pair.stem-channels", "6", "8", "--workers", "0", "--no-progress"),
    *("--max-steps", "3", "--batch-size", "4"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chairs")
    return flow_data.make_chairs(folder, count=10, size=(40, 52), marks="1" * 7 + "2" * 3)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "flow"
    assert main(["fit", str(data), "--size", "tiny", "--out", str(out), *SMALL]) == 0
    return out


def command(capsys, *args):
    status = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_data_choose_the_recipe_and_the_model_has_no_input_of_the_answer(run):
    config = json.loads((run / "config.json").read_text())
    assert list(config["model"]["inputs"]) == ["frame_pair"]
    assert set(config["preprocess"]) == {"frame_pair", "flow"}
    assert config["task"]["kind"] == "flow"


def test_measures_stand_beside_saying_that_nothing_moves(run, data, capsys):
    status, out, _ = command(capsys, "evaluate", run, "--format", "json")
    assert status == 0
    found = json.loads(out)
    assert (found["split"], found["num_samples"]) == ("validation", 3)
    flows = [flow_data.pair(number, (40, 52)).flow for number in (7, 8, 9)]
    zero = np.mean([np.linalg.norm(flow, axis=-1).mean() for flow in flows])
    assert found["metrics"]["zero_epe"] == pytest.approx(zero, rel=1e-5)
    status, out, _ = command(capsys, "evaluate", run, data, "--split", "train")
    assert out.splitlines()[-1].startswith("train epe: ")
    assert "(saying zero: " in out


def test_every_pair_becomes_a_file_of_flow_and_a_picture(run, data, tmp_path, capsys):
    first, second = data / "00001_img1.ppm", data / "00001_img2.ppm"
    status, out, _ = command(capsys, "predict", run, first, second, "--save", tmp_path / "one")
    assert status == 0
    assert "mean motion" in out
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "00001_img1.flo",
        "00001_img1.png",
    ]
    told = read_flow(EncodedItem("it", path=tmp_path / "one" / "00001_img1.flo"))
    assert told.shape == (40, 52, 3)
    status, out, _ = command(capsys, "predict", run, data, "--format", "json")
    each = json.loads(out)
    assert len(each) == 10
    mean = np.linalg.norm(told[..., :2], axis=-1).mean()
    assert each[1]["values"]["mean motion"] == pytest.approx(mean, rel=1e-4)


def test_prediction_needs_no_flow(run, data, tmp_path, capsys):
    for path in data.glob("0000[12]_img*.ppm"):
        shutil.copy(path, tmp_path)
    status, out, _ = command(capsys, "predict", run, tmp_path)
    assert status == 0
    assert len(out.splitlines()) == 4
    status, _, err = command(capsys, "evaluate", run, tmp_path)
    assert status == 1
    assert "the flow of none of them, so there is nothing to learn or measure" in err


def test_one_file_or_a_folder_without_pairs_says_what_is_missing(run, data, tmp_path, capsys):
    status, _, err = command(capsys, "predict", run, data / "00001_img1.ppm")
    assert status == 1
    assert "Expected two frames, the first and the second" in err
    status, _, err = command(capsys, "predict", run, tmp_path)
    assert "Expected pairs of frames in the folder" in err
    status, _, err = command(capsys, "evaluate", run, data / "00001_img1.ppm")
    assert status == 1


def field_of(predictor, frames):
    batch = predictor.task.prediction_batch({"frame_pair": frames}, {})
    return predictor.task.field(predictor.infer(batch), tuple(frames.shape[-2:])).float()


def test_frames_of_any_size_are_read_in_tiles(run):
    predictor = load_predictor(run, device="cpu")
    assert isinstance(predictor.task, FlowTask)
    size = predictor.model.config.inputs["frame_pair"].size
    assert size == (32, 32)
    frames = torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        alone = predictor.task.field(predictor.model({"frame_pair": frames}), size)
    assert torch.equal(field_of(predictor, frames), alone)  # one tile suffices
    for shape in ((20, 9), (32, 70), (75, 33)):
        field = field_of(predictor, torch.randn(1, 2, 3, *shape))
        assert field.shape == (1, *shape, 2)
        assert field.isfinite().all()


def test_arrays_pairs_and_dicts_are_taken(run, data):
    predictor = load_predictor(run, device="cpu")
    made = flow_data.pair(1, (40, 52))
    both = np.stack([made.first, made.second])
    one, other = predictor.predict([both, (made.first, made.second)])
    third, *_ = predictor.predict({"first": made.first, "second": made.second})
    files = predictor.predict([data / "00001_img1.ppm", str(data / "00001_img2.ppm")])
    for found in (other, third, files[0]):
        assert np.array_equal(found.flow, one.flow)
    with pytest.raises(TypeError, match="This model reads pairs of frames: give two files"):
        predictor.predict([7.5])


def test_pairs_are_found_among_items():
    assert join_frame_pairs(["a.png", "b.png", "c=d"]) == [("a.png", "b.png"), "c=d"]
    frame = np.zeros((4, 4, 3))
    assert len(join_frame_pairs([frame, frame])) == 1
    with pytest.raises(ValueError, match="'ndarray' has no second one"):
        join_frame_pairs([frame])


def test_equal_names_are_numbered(tmp_path):
    flow = np.zeros((2, 2, 2), np.float32)
    said = [Prediction(name=name, flow=flow) for name in ("a/x.png -> b", "b/x.png", "item 0")]
    written = save_flows([*said, Prediction(name="none")], tmp_path / "out")
    assert [path.name for path in written if path.suffix == ".flo"] == [
        "x.flo",
        "x-2.flo",
        "item 0.flo",
    ]


def test_attention_is_drawn_over_the_first_frame(run, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pair = f"first={data / '00001_img1.ppm'},second={data / '00001_img2.ppm'}"
    status, _, _ = command(capsys, "explain", run, pair, "--out", tmp_path / "a.npz")
    assert status == 0
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["image"].shape == (32, 32, 3)
    assert (arrays["image"] == flow_data.pair(1, (40, 52)).first[4:36, 10:42]).all()
    assert arrays["attention"].shape == (1, 8, 8)
    assert arrays["label_names"].tolist()[:2] == ["mean motion", "largest motion"]
    status, _, _ = command(capsys, "explain", run, data, "--row", "2", "--out", tmp_path / "b.png")
    assert status == 0
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_save_is_for_what_can_be_looked_at(tmp_path, capsys):
    from perceivers.cli.predict import _save

    with pytest.raises(ValueError, match="--save is for runs that predict images, flow or"):
        _save([Prediction(name="a", label="cat")], tmp_path)


def test_bad_rows_are_counted_and_too_many_stop(data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "bad")
    (tmp_path / "bad" / "00009_flow.flo").write_bytes(b"PIEH")
    out = tmp_path / "run"
    status, _, err = command(capsys, "fit", tmp_path / "bad", "--out", out, *SMALL)
    assert status == 1
    assert "00009_flow.flo' is no .flo file" in err
    status, _, _ = command(
        capsys, "fit", tmp_path / "bad", "--out", tmp_path / "kept", *SMALL, "--max-bad", "0.5"
    )
    assert status == 0
    assert "00009_flow.flo" in (tmp_path / "kept" / "report.md").read_text()


def test_data_without_flow_are_not_learned_from(tmp_path, capsys):
    flow_data.make_kitti(tmp_path)
    status, _, err = command(capsys, "fit", tmp_path / "testing", "--recipe", "flow")
    assert status == 1
    assert "the flow of none of them" in err


@pytest.mark.usefixtures("without_a_gpu")
def test_queries_can_be_drawn_and_memory_is_measured(data):
    source = open_data(data, DataConfig())
    recipe, why = choose_recipe(source)
    assert recipe.name == "flow"
    assert "Recipe flow in size tiny" in why
    drawn = replace(recipe, task=replace(recipe.task, num_train_queries=8))
    filled, preprocess = specialize(drawn, source)
    assert preprocess["flow"].size == preprocess["frame_pair"].size == (32, 32)
    task = FlowTask(filled.task)
    with open_memory_probe(
        filled, task, device=torch.device("cpu"), process=ProcessInfo()
    ) as probe:
        batch = probe._synthetic_batch(2)
    assert batch.inputs["flow"].shape == (2, 3, 32, 32)
    asked = task.prepare_batch(batch.inputs, {}, None, training=True)
    assert asked.targets.shape == (2, 8, 16, 3)


def test_the_published_recipes_have_the_published_sizes_and_schedule():
    large, small = get_recipe("flow"), get_recipe("flow_small")
    for recipe, latents, layers in ((large, 2048, 24), (small, 1024, 16)):
        assert recipe.encoder.num_latents == latents
        assert recipe.encoder.num_self_attends_per_block == layers
        assert recipe.optim.name == "lamb"
        assert recipe.training.batch_size == 512
