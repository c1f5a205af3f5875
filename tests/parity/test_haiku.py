"""DeepMind's checkpoints, as Haiku pickles them: the same weights as of Hugging Face's models, and DeepMind's settings.

The dictionaries are written as Haiku's modules name and shape their parameters, from the weights of a small model of
Hugging Face's.
"""

import json
import pickle
import re
import sys
import types
import warnings
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.cli.main import main
from perceivers.hub.checkpoint import load
from perceivers.hub.convert import load_any
from perceivers.hub.pystate import read_pystate
from perceivers.recipes.convert import convert
from support.cli import run_command
from support.runs import make_image_folder

transformers = pytest.importorskip("transformers")

SMALL = {"num_latents": 6, "d_latents": 32, "num_self_attends_per_block": 12, "num_blocks": 1}
IMAGES = SMALL | {"num_blocks": 8, "num_self_attends_per_block": 2, "num_labels": 3}
ONE = {"num_cross_attention_heads": 1}
SETTINGS = {
    "PerceiverForImageClassificationFourier": IMAGES | ONE | {"d_model": 261},
    "PerceiverForImageClassificationLearned": IMAGES | ONE | {"d_model": 512, "image_size": 8},
    "PerceiverForImageClassificationConvProcessing": IMAGES | ONE | {"d_model": 322},
    "PerceiverForMaskedLM": SMALL
    | {"d_model": 48, "max_position_embeddings": 64, "v_channels": 32, "qk_channels": 256},
    "PerceiverForOpticalFlow": SMALL | ONE | {"d_model": 322, "num_self_attention_heads": 16},
    "PerceiverForMultimodalAutoencoding": SMALL | ONE | {"d_model": 704, "num_labels": 5},
}


def made(name):
    """Return a small model of Hugging Face's with random weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, name)(transformers.PerceiverConfig(**SETTINGS[name])).eval()
    with torch.no_grad():
        for weight in model.state_dict().values():
            if weight.is_floating_point():
                weight.copy_(0.1 * torch.rand_like(weight) + 0.01)
    return model


class Checkpoint:
    """Parameters in nested dictionaries, as Haiku's modules name them."""

    def __init__(self, state):
        self.theirs = {name: tensor.numpy() for name, tensor in state.items()}
        self.params, self.state = {}, {}

    def put(self, module, name, value, *, state=False):
        (self.state if state else self.params).setdefault(module, {})[name] = value

    def array(self, module, name, theirs):
        self.put(module, name, self.theirs.pop(theirs))

    def linear(self, module, theirs):
        self.put(module, "w", self.theirs.pop(f"{theirs}.weight").T)
        self.put(module, "b", self.theirs.pop(f"{theirs}.bias"))

    def norm(self, module, theirs):
        self.put(module, "scale", self.theirs.pop(f"{theirs}.weight"))
        self.put(module, "offset", self.theirs.pop(f"{theirs}.bias"))

    def layer(self, module, theirs, *, norms):
        for number, norm in enumerate(norms):
            self.norm(f"{module}/layer_norm{f'_{number}' * (number > 0)}", f"{theirs}.{norm}")
        for number, part in enumerate(("self.query", "self.key", "self.value", "output.dense")):
            name = f"{module}/attention/linear{f'_{number}' * (number > 0)}"
            self.linear(name, f"{theirs}.attention.{part}")
        self.linear(f"{module}/mlp/linear", f"{theirs}.mlp.dense1")
        self.linear(f"{module}/mlp/linear_1", f"{theirs}.mlp.dense2")

    def cross(self, module, theirs):
        inner = "attention.self.layernorm"
        self.layer(module, theirs, norms=(f"{inner}1", f"{inner}2", "layernorm"))

    def encoder(self, module, layers):
        latents = "perceiver.embeddings.latents"
        self.array(f"{module}/~/trainable_position_encoding", "pos_embs", latents)
        self.cross(f"{module}/~/cross_attention", "perceiver.encoder.cross_attention")
        for number in range(layers):
            name = f"{module}/~/self_attention{f'_{number}' * (number > 0)}"
            norms = ("attention.self.layernorm1", "layernorm")
            self.layer(name, f"perceiver.encoder.self_attends.{number}", norms=norms)


PRE, DEC = "perceiver.input_preprocessor", "perceiver.decoder.decoder"
CLASSIFIER, TABLE = "classification_decoder/~/basic_decoder", "trainable_position_encoding"


def put_decoder(found, module):
    found.cross(f"{module}/cross_attention", f"{DEC}.decoding_cross_attention")
    found.linear(f"{module}/output", f"{DEC}.final_layer")


def put_classifier(found):
    queries = f"{DEC}.output_position_encodings.position_embeddings"
    found.array(f"{CLASSIFIER}/~/{TABLE}", "pos_embs", queries)
    put_decoder(found, CLASSIFIER)


def put_learned(found):
    built = "image_preprocessor/~_build_network_inputs"
    kernel = found.theirs.pop(f"{PRE}.convnet_1x1.weight").transpose(2, 3, 1, 0)
    found.put("image_preprocessor/~/conv2_d", "w", kernel)
    found.array("image_preprocessor/~/conv2_d", "b", f"{PRE}.convnet_1x1.bias")
    found.array(f"{built}/{TABLE}", "pos_embs", f"{PRE}.position_embeddings.position_embeddings")
    found.linear(f"{built}/position_encoding_projector/linear", f"{PRE}.positions_projection")
    put_classifier(found)


def put_convolved(found):
    stem, norm = "image_preprocessor/~/conv2_d_downsample/~", f"{PRE}.convnet.batchnorm"
    kernel = found.theirs.pop(f"{PRE}.convnet.conv.weight").transpose(2, 3, 1, 0)
    found.put(f"{stem}/conv", "w", kernel)
    for ours, theirs in (("scale", "weight"), ("offset", "bias")):
        value = found.theirs.pop(f"{norm}.{theirs}").reshape(1, 1, 1, -1)
        found.put(f"{stem}/batchnorm", ours, value)
    for ours, theirs in (("mean_ema", "running_mean"), ("var_ema", "running_var")):
        value = found.theirs.pop(f"{norm}.{theirs}").reshape(1, 1, 1, -1)
        average = f"{stem}/batchnorm/~/{ours}"
        found.put(average, "average", value, state=True)
        found.put(average, "hidden", value, state=True)
        found.put(average, "counter", np.asarray(7, np.int32), state=True)
    found.theirs.pop(f"{norm}.num_batches_tracked")
    put_classifier(found)


def put_language(found):
    found.array("embed", "embeddings", f"{PRE}.embeddings.weight")
    found.array(TABLE, "pos_embs", f"{PRE}.position_embeddings.weight")
    queries = "perceiver.decoder.output_position_encodings.position_embeddings"
    found.array(f"basic_decoder/~/{TABLE}", "pos_embs", queries)
    found.cross("basic_decoder/cross_attention", "perceiver.decoder.decoding_cross_attention")
    found.array("embedding_decoder", "bias", "embedding_decoder.bias")


def put_flow(found):
    found.linear("image_preprocessor/patches_linear", f"{PRE}.conv_after_patches")
    put_decoder(found, "flow_decoder/~/basic_decoder")


def put_multimodal(found):
    heads = {"audio": "audio", "image": "projection", "label": "classification"}
    inputs, query = "multimodal_preprocessor", "multimodal_decoder/~decoder_query"
    for part, head in heads.items():
        found.array(f"{inputs}/{part}_padding", "pos_embs", f"{PRE}.padding.{part}")
        found.array(f"{inputs}/{part}_mask_token", "pos_embs", f"{PRE}.mask.{part}")
        found.array(f"{query}/{part}_padding", "pos_embs", f"perceiver.decoder.padding.{part}")
        theirs = f"perceiver.output_postprocessor.modalities.{part}.classifier"
        found.linear(f"{head}_postprocessor/linear", theirs)
    label = "perceiver.decoder.modalities.label.decoder.output_position_encodings"
    found.array(f"{CLASSIFIER}/~/{TABLE}", "pos_embs", f"{label}.position_embeddings")
    put_decoder(found, "multimodal_decoder/~/basic_decoder")


PARTS = {
    "PerceiverForImageClassificationFourier": put_classifier,
    "PerceiverForImageClassificationLearned": put_learned,
    "PerceiverForImageClassificationConvProcessing": put_convolved,
    "PerceiverForMaskedLM": put_language,
    "PerceiverForOpticalFlow": put_flow,
    "PerceiverForMultimodalAutoencoding": put_multimodal,
}


def checkpoint(model):
    """Return the parameters and the state of a model as DeepMind's release has them."""
    name, found = type(model).__name__, Checkpoint(model.state_dict())
    prefix = "encoder" if name == "PerceiverForMultimodalAutoencoding" else "perceiver_encoder"
    found.encoder(prefix, model.config.num_self_attends_per_block)
    PARTS[name](found)
    assert not found.theirs  # nothing was left out
    return {"params": found.params, "state": found.state} if "Image" in name else found.params


def written(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_are_those_of_hugging_faces_model(tmp_path, name):
    model = made(name)
    model.save_pretrained(tmp_path / "theirs")
    file = written(tmp_path / "release.pystate", checkpoint(model))
    found = convert(file, tmp_path / "run")
    assert found.architecture == name
    assert found.predicts
    run, theirs = load(tmp_path / "run"), load_any(tmp_path / "theirs")
    expected = theirs.model.state_dict()
    assert run.model.state_dict().keys() == expected.keys()
    for key, weight in run.model.state_dict().items():
        assert torch.equal(weight, expected[key]), key
    assert run.config.preprocess == theirs.config.preprocess
    assert type(run.config.task) is type(theirs.config.task)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_deepminds(tmp_path, name):
    model = made(name)
    model.save_pretrained(tmp_path / "theirs")
    file = written(tmp_path / "release.pystate", checkpoint(model))
    found, theirs = load_any(file).config.model, load_any(tmp_path / "theirs").config.model
    expected = replace(
        theirs,
        encoder=replace(theirs.encoder, gelu="tanh"),
        output=replace(theirs.output, gelu="tanh"),
    )
    if name.endswith("Learned"):
        expected = replace(expected, output=replace(expected.output, use_query_residual=False))
    if name.endswith("ConvProcessing"):
        stem = replace(expected.inputs["image"], padding="same")
        expected = replace(expected, inputs={"image": stem})
    assert found == expected


def test_a_checkpoint_is_fine_tuned_by_one_command(tmp_path):
    model = made("PerceiverForImageClassificationLearned")
    file = written(tmp_path / "release.pystate", checkpoint(model))
    data = make_image_folder(tmp_path / "images", labels=("a", "b"), count=6)
    flags = ["--max-steps", "1", "--no-baseline", "--no-progress", "--workers", "0"]
    status, _, err = run_command(
        "fit", data, "--init-from", file, "--out", tmp_path / "run", *flags
    )
    assert status == 0, err
    assert json.loads((tmp_path / "run" / "init.json").read_text())["from"] == str(file)


def mapping_class(name):
    """Return a class that is pickled as Haiku's mappings are: its name, and a dictionary."""

    class Mapping(dict):
        def __reduce__(self):
            return (type(self), (dict(self),))

    Mapping.__module__, Mapping.__qualname__ = "haiku._src.data_structures", name
    Mapping.__name__ = name
    return Mapping


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_mappings_and_arrays_of_every_protocol_are_read(tmp_path, monkeypatch, protocol):
    module = types.ModuleType("haiku._src.data_structures")
    module.FlatMapping = mapping_class("FlatMapping")
    for name in ("haiku", "haiku._src"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "haiku._src.data_structures", module)
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "big": np.arange(3, dtype=">f8"),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        "scalar": np.float32(2.5),
        "counter": np.asarray(4, np.int32),
        "flag": np.array([True, False]),
        "number": 3,
    }
    content = module.FlatMapping({"linear": OrderedDict(arrays)})
    found = read_pystate(written(tmp_path / "a.pystate", content, protocol))
    assert found.keys() == {f"linear/{name}" for name in arrays}
    for name, array in arrays.items():
        got = found[f"linear/{name}"]
        assert got.dtype == np.asarray(array).dtype
        assert np.array_equal(got, array)


def test_a_checkpoint_of_dill_is_read(tmp_path):
    dill = pytest.importorskip("dill")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    file = tmp_path / "a.pystate"
    file.write_bytes(dill.dumps({"params": {"linear": {"w": array}}, "state": {}}))
    assert np.array_equal(read_pystate(file)["linear/w"], array)


class RunsCode:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was allowed to run code')",))


class Named:
    """Content that is pickled as a name alone, or as a call of it."""

    def __init__(self, module, name, *arguments):
        self.text = f"c{module}\n{name}\n".encode()
        self.text += b"(" + b"".join(b"V%b\n" % a.encode() for a in arguments) + b"tR."


def repeated(depth):
    """Return mappings in each other, each of which has a hundred names for the next one."""
    found = 1.0
    for _ in range(depth):
        found = dict.fromkeys(map(str, range(100)), found)
    return found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (pickle.dumps({"params": RunsCode()}), r"was refused: it names builtins.exec"),
        (Named("os", "system", "exit 3").text, r"names (os|posix).system"),
        (Named("builtins", "eval", "1/0").text, r"names builtins.eval"),
        (Named("numpy", "load", "a.npy").text, r"names numpy.load"),
        (Named("_codecs", "encode", "a", "zip").text, r"names the encoding zip"),
        (Named("numpy.core.multiarray", "_reconstruct").text, r"is no array of numbers"),
        (pickle.dumps({"a": {"b": "text"}}), r"a/b is no array of numbers \(got str\)"),
        (Named("numpy", "dtype", "f4").text, r"is no array of numbers"),
        (b"cnumpy\ndtype\n(I3\ntR.", r"is no array of numbers"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(I3\ntRC\x01ztR.", r"\(type 3\)"),
        (pickle.dumps(repeated(4)), r"was refused: it holds more than 100,000 arrays"),
        (pickle.dumps(repeated(7)), r"is no array of numbers \(got dict\)"),
        (pickle.dumps({"a": np.array(["text"])}), r"a is no array of numbers"),
        (pickle.dumps({"a": np.array([{}, 3], dtype=object)}), r"a is no array of numbers"),
        (pickle.dumps({"a": {"b": np.zeros(3)}})[:-20], r"truncated or another kind of file"),
        (b"no pickle", r"truncated or another kind of file"),
        (b"", r"truncated or another kind of file"),
        (pickle.dumps({"linear": {"w": np.zeros(3)}}), r"none of DeepMind's .* holds linear/w"),
        (pickle.dumps({}), r"none of DeepMind's checkpoints of Perceiver IO: it holds nothing"),
    ],
)
def test_other_content_is_refused_and_nothing_runs(tmp_path, capsys, content, told):
    file = tmp_path / "bad.pystate"
    file.write_bytes(content)
    assert main(["convert", str(file), "--out", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert re.search(told, message)
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_incomplete_checkpoint_names_the_array(tmp_path):
    content = checkpoint(made("PerceiverForImageClassificationLearned"))
    name = "perceiver_encoder/~/cross_attention/mlp/linear"
    removed = content["params"].pop(name)
    with pytest.raises(ValueError, match=r"cross_attention/mlp/linear/w is missing"):
        convert(written(tmp_path / "a.pystate", content), tmp_path / "run")
    content["params"] |= {name: removed, "more": {"w": np.zeros(2)}}
    with pytest.raises(ValueError, match=r"more/w is not part of it"):
        convert(written(tmp_path / "a.pystate", content), tmp_path / "run")
    del content["params"]["more"]
    content["params"][name] = {"w": np.zeros((3, 3), np.float32), "b": removed["b"]}
    with pytest.raises(ValueError, match=r"mlp.0.weight is \(3, 3\), expected \(32, 32\)"):
        convert(written(tmp_path / "a.pystate", content), tmp_path / "run")
