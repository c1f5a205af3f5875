import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import Batch
from perceivers.data.sources.samples import samples_of
from perceivers.evaluation import predict
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.evaluation.predict import save as save_model
from perceivers.explain.attribution.attention import watch_attention
from perceivers.hub.checkpoint import load, save
from perceivers.tasks.prediction import NonFiniteOutputError
from support.models import tiny_model
from support.runs import make_image_folder, needs_int8, save_run


@pytest.fixture
def predictor(tmp_path) -> Predictor:
    return load_predictor(save_run(tmp_path / "run"), device="cpu", batch_size=3)


def test_a_prediction_agrees_with_the_model(predictor, tmp_path):
    path = make_image_folder(tmp_path / "pictures", count=1) / "dark" / "0.png"
    (one,) = predictor.predict(path)
    batch = predictor.read(list(samples_of(path, predictor.columns)))
    with torch.no_grad():
        expected = predictor.model(batch.inputs).softmax(dim=-1)[0]
    assert one.name == str(path)
    assert one.probability == pytest.approx(float(expected.max()), abs=1e-6)
    assert one.label == ("dark", "light")[int(expected.argmax())]
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert one.top[0] == (one.label, one.probability)
    assert [p for _, p in one.top] == sorted(one.probabilities.values(), reverse=True)


def test_batches_change_nothing(predictor, tmp_path):
    folder = make_image_folder(tmp_path / "pictures", count=4)
    together = predictor.predict(folder)
    assert len(together) == 8
    for one in together:
        (alone,) = predictor.predict(one.name)
        assert alone.probability == pytest.approx(one.probability, abs=1e-5)


def test_file_array_and_picture_give_the_same(predictor, tmp_path):
    path = make_image_folder(tmp_path / "pictures", count=1) / "light" / "0.png"
    picture = Image.open(path)
    values = {one.probability for one in predictor.predict([path, np.asarray(picture), picture])}
    assert max(values) - min(values) < 1e-6
    (named,) = predictor.predict({"image": path})
    assert named.probability == pytest.approx(max(values), abs=1e-6)


def test_top_is_cut_to_what_there_is(predictor, tmp_path):
    path = make_image_folder(tmp_path / "pictures", count=1)
    assert len(predictor.predict(path, top=1)[0].top) == 1
    assert len(predictor.predict(path, top=9)[0].top) == 2


def test_a_bad_file_is_raised_or_reported(predictor, tmp_path):
    folder = make_image_folder(tmp_path / "pictures", count=2)
    bad = folder / "dark" / "1.png"
    bad.write_text("text")
    with pytest.raises(ValueError, match=r"1\.png"):
        predictor.predict(folder)
    failed = []
    found = predictor.predict(folder, on_error=lambda name, error: failed.append(name))
    assert len(found) == 3
    assert failed == [str(bad)]


def test_a_model_without_labels_cannot_predict_files(tmp_path):
    save(tmp_path / "bare", tiny_model())
    with pytest.raises(ValueError, match="saved without its labels or its preprocessing"):
        load_predictor(tmp_path / "bare")


def test_weights_of_classes_do_not_count_in_prediction(tmp_path):
    folder = save_run(tmp_path / "run", task={"class_weights": "balanced"})
    assert load_predictor(folder).label_names == ("dark", "light")


def test_what_is_saved_is_what_is_loaded(predictor, tmp_path):
    save_model(predictor, tmp_path / "copy")
    copy = load_predictor(tmp_path / "copy")
    assert copy.config == predictor.config
    save_model(predictor.model, tmp_path / "bare")
    weights = load(tmp_path / "bare").model.state_dict()
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(weights[name], value)


@needs_int8
def test_quantized_predictions_are_close_and_say_what_was_done(tmp_path):
    folder = save_run(tmp_path / "run")
    pictures = make_image_folder(tmp_path / "pictures", count=3)
    plain, int8 = (load_predictor(folder, device="cpu", quantize=q) for q in (None, "int8-always"))
    assert plain.quantization is None
    assert int8.quantization.sentence() == "int8 weights in 8 of 8 linear layers."
    for one, other in zip(plain.predict(pictures), int8.predict(pictures), strict=True):
        assert one.name == other.name
        assert one.probability != other.probability
        for label, probability in one.probabilities.items():
            assert other.probabilities[label] == pytest.approx(probability, abs=0.05)
    with pytest.raises(ValueError, match="Expected a model in float32 to save"):
        save_model(int8, tmp_path / "again")


@needs_int8
def test_a_quantized_model_can_be_watched(tmp_path):
    folder = save_run(tmp_path / "run")
    inputs = {"image": torch.randn(2, 3, 8, 8)}
    found = []
    for how in (None, "int8-always"):
        model = load_predictor(folder, device="cpu", quantize=how).model
        with torch.inference_mode(), watch_attention(model) as maps:
            model(inputs)
        found.append(maps.calls)
    for (name, plain), (other, int8) in zip(*found, strict=True):
        assert name == other
        torch.testing.assert_close(int8.sum(-1), torch.ones_like(int8.sum(-1)))
        assert (plain - int8).abs().max() < 0.05


def test_what_cannot_be_quantized_is_refused(tmp_path, monkeypatch):
    folder = save_run(tmp_path / "run")
    with pytest.raises(ValueError, match="one of int8, int8-always, or None; got 'int9'"):
        load_predictor(folder, device="cpu", quantize="int9")
    monkeypatch.setattr(predict, "pick_device", lambda name: torch.device("meta"))
    with pytest.raises(ValueError, match="prediction on the CPU, and this is on 'meta'"):
        load_predictor(folder, quantize="int8")


def test_predictions_are_made_without_a_graph(predictor):
    found = predictor.outputs(Batch(inputs={"image": torch.randn(2, 3, 8, 8)}))
    assert found.is_inference()


def test_a_sample_without_a_finite_output_is_an_error_of_that_sample(predictor, tmp_path):
    paths = sorted(make_image_folder(tmp_path / "images", count=2).rglob("*.png"))
    forward = predictor.infer

    def infer(batch):
        outputs = forward(batch).clone()
        outputs[1] = torch.nan
        return outputs

    predictor.infer = infer
    reported = []
    predictor.predict(paths[:3], on_error=lambda name, error: reported.append((name, error)))
    ((name, error),) = reported
    assert name == str(paths[1])
    assert isinstance(error, NonFiniteOutputError)
    assert f"{paths[1]}: the model has no finite output for this sample" in str(error)
    with pytest.raises(NonFiniteOutputError):
        predictor.predict(paths[:3])


def test_weights_that_are_not_finite_are_named_as_the_cause(predictor, tmp_path):
    path = make_image_folder(tmp_path / "images", count=1)
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteOutputError, match="The weights of the model are not finite"):
        predictor.predict(path)


def test_other_weights_have_another_fingerprint(predictor, tmp_path):
    assert load_predictor(predictor.folder, device="cpu").fingerprint == predictor.fingerprint
    assert (
        load_predictor(predictor.folder, clips=1, batch_size=1).fingerprint == predictor.fingerprint
    )
    other = load_predictor(predictor.folder, device="cpu")
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-3)
    assert other.fingerprint != predictor.fingerprint
