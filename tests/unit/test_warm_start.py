"""What is taken over from another run, and what is said about it."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate

from perceivers.data.sources.identity import RowIdentity
from perceivers.hub.checkpoint import save
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.text import ConvTextInputConfig, TextInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig, MeanPoolConfig, TiedHeadConfig
from perceivers.outputs.queries import FourierQueriesConfig, LearnedQueriesConfig
from perceivers.runs.splits import write_splits
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.training.finetune import leak_sentence, plan_warm_start
from support.models import tiny_encoder
from support.training import PREPROCESS, small_recipe

RECIPE = small_recipe(max_epochs=1)
ENCODER = tiny_encoder()


def pictures(size, *, outputs=3, positions=None):
    positions = positions or LearnedPositionsConfig(channels=5)
    return PerceiverConfig(
        inputs={"image": PixelInputConfig(size=size, num_channels=1, positions=positions)},
        encoder=ENCODER,
        output=MeanPoolConfig(num_outputs=outputs),
    )


def masked_texts(length, *, channels=8):
    queries = LearnedQueriesConfig(num_queries=length, channels=channels, follows="text")
    return PerceiverConfig(
        inputs={"text": TextInputConfig(max_length=length, channels=channels)},
        encoder=ENCODER,
        output=DecoderConfig(
            outputs={"text": OutputConfig(queries=queries, head=TiedHeadConfig(modality="text"))}
        ),
    )


def saved(folder, config):
    model = build(config).eval()
    save(folder, model)
    return model


def begun(config, folder):
    model = build(config).eval()
    plan = plan_warm_start(config, folder)
    plan.apply(model)
    return model, plan


def test_validation_rows_that_the_other_run_learned_are_a_warning(tmp_path):
    rows = [RowIdentity(f"{n}", f"{n}", "", "train" if n < 6 else "validation") for n in range(8)]
    write_splits(tmp_path, rows, held_out=True)
    assert leak_sentence(tmp_path, rows, folds=0, streamed=False) == ""
    assert leak_sentence(None, rows, folds=0, streamed=False) == ""
    folds = [replace(row, split=f"fold-{n % 2}") for n, row in enumerate(rows)]
    text = leak_sentence(tmp_path, folds, folds=2, streamed=False)
    assert text.startswith(
        "Warning: 6 of the 8 rows, each held out by its fold, were training rows of"
    )
    other = [replace(row, split="validation") for row in rows]
    assert "6 of the 8 validation rows" in leak_sentence(tmp_path, other, folds=0, streamed=False)
    for source, streamed in ((tmp_path, True), ("someone/model", False)):
        assert leak_sentence(source, rows, folds=0, streamed=streamed).startswith(f"If {source}")
    (tmp_path / "splits.jsonl.gz").write_bytes(b"no")
    assert leak_sentence(tmp_path, rows, folds=0, streamed=False).startswith("If ")


def test_everything_is_taken_over_where_everything_fits(tmp_path):
    other = saved(tmp_path, RECIPE.model_config())
    model, plan = begun(RECIPE.model_config(), tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert plan.sentences() == [f"Began from the weights of {tmp_path}: all {count:,} of them."]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])


def test_what_has_another_shape_begins_anew_and_is_named(tmp_path):
    saved(tmp_path, pictures((4, 4)))
    model, plan = begun(pictures((4, 4), outputs=7), tmp_path)
    count = sum(p.numel() for p in model.parameters())
    assert plan.sentences() == [
        f"Began from the weights of {tmp_path}: {count - 7 * 17:,} of this model's {count:,}.",
        f"Taken over: encoder ({count - 7 * 17 - 80:,}); inputs (80).",
        "Fresh: output (119, another shape).",
    ]
    plan.write(tmp_path)
    told = json.loads((tmp_path / "init.json").read_text())
    assert (
        told["fresh"]["output.to_logits.weight"]
        == "another shape: 3 x 16 in the other model, 7 x 16 in this one"
    )
    assert told["taken"]["inputs.image.positions.table"] == [16, 5]


def test_a_head_for_other_classes_begins_anew(tmp_path):
    mine = ClassificationConfig(label_names=("a", "b", "c"))
    other = ClassificationConfig(label_names=("a", "b", "d"))
    save(tmp_path, build(pictures((4, 4))), task=mine)
    plan = plan_warm_start(pictures((4, 4)), tmp_path, task=other)
    heads = {"output.to_logits.weight", "output.to_logits.bias"}
    assert dict.fromkeys(heads, "for other classes or numbers") == plan.fresh
    assert "Fresh: output (51, for other classes or numbers)." in plan.sentences()
    for task in (mine, None):
        assert not plan_warm_start(pictures((4, 4)), tmp_path, task=task).fresh


def test_of_several_tasks_the_heads_for_the_same_classes_are_taken_over(tmp_path):
    def tasks(*names):
        parts = {"one": ("a", "b"), "two": names}
        return MultiTaskConfig(
            parts={
                name: ClassificationConfig(label_names=classes) for name, classes in parts.items()
            }
        )

    head = OutputConfig(queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=2))
    config = replace(
        pictures((4, 4)), output=DecoderConfig(outputs=dict.fromkeys(("one", "two"), head))
    )
    save(tmp_path, build(config), task=tasks("x", "y"))
    plan = plan_warm_start(config, tmp_path, task=tasks("x", "z"))
    assert {name.rpartition(".")[0] for name in plan.fresh} == {"output.heads.two.to_logits"}
    assert not plan_warm_start(config, tmp_path, task=tasks("x", "y")).fresh


def test_learned_positions_are_interpolated_for_another_resolution(tmp_path):
    other = saved(tmp_path, pictures((4, 4)))
    model, plan = begun(pictures((6, 8)), tmp_path)
    cells = other.inputs["image"].positions.table.T.view(1, 5, 4, 4)
    expected = interpolate(cells, size=(6, 8), mode="bilinear", align_corners=True)
    table = model.inputs["image"].positions.table
    torch.testing.assert_close(table, expected[0].flatten(1).T)
    assert "Resized: inputs.image.positions.table (16 places to 48)." in plan.sentences()
    # So it reads larger pictures as the other does, which interpolates at run time.
    picture = {"image": torch.randn(2, 1, 6, 8)}
    torch.testing.assert_close(model(picture), other(picture))


def test_a_grid_of_as_many_cells_but_other_sides_is_interpolated_too(tmp_path):
    other = saved(tmp_path, pictures((4, 6)))
    model, plan = begun(pictures((6, 4)), tmp_path)
    cells = other.inputs["image"].positions.table.T.view(1, 5, 4, 6)
    expected = interpolate(cells, size=(6, 4), mode="bilinear", align_corners=True)
    torch.testing.assert_close(model.inputs["image"].positions.table, expected[0].flatten(1).T)
    assert list(plan.resized) == ["inputs.image.positions.table"]


def test_fourier_positions_need_nothing(tmp_path):
    fourier = FourierPositionsConfig(num_bands=3, max_resolution=(8, 8))
    saved(tmp_path, pictures((4, 4), positions=fourier))
    _, plan = begun(pictures((8, 8), positions=fourier), tmp_path)
    assert len(plan.sentences()) == 1
    assert not plan.resized


def test_settings_that_change_the_function_are_named(tmp_path):
    theirs = replace(pictures((4, 4)), encoder=replace(ENCODER, gelu="exact"))
    image = PREPROCESS["image"]
    save(tmp_path, build(theirs), preprocess={"image": replace(image, mean=(0.25,))})
    plan = plan_warm_start(pictures((4, 4)), tmp_path, preprocess=PREPROCESS)
    assert plan.taken == plan.total
    assert plan.settings == {
        "encoder.gelu": ("tanh", "exact"),
        "preprocess.image.mean": (image.mean, (0.25,)),
    }
    warning = plan.sentences()[-1]
    assert warning.startswith(
        "Warning: with the settings of this run the same weights compute another"
    )
    assert "encoder.gelu is tanh, there exact; preprocess.image.mean is" in warning
    plan.write(tmp_path)
    written = json.loads((tmp_path / "init.json").read_text())["other_settings"]
    assert written["encoder.gelu"] == {"here": "'tanh'", "there": "'exact'"}


def test_resolution_of_fourier_positions_counts_as_a_setting(tmp_path):
    saved(tmp_path, pictures((4, 4), positions=FourierPositionsConfig(num_bands=2)))
    plan = plan_warm_start(
        pictures((8, 8), positions=FourierPositionsConfig(num_bands=2)), tmp_path
    )
    name = "inputs.image.positions.max_resolution"
    assert plan.settings == {name: ((8, 8), (4, 4))}
    same = pictures((4, 4), positions=FourierPositionsConfig(num_bands=2), outputs=7)
    assert plan_warm_start(same, tmp_path).settings == {}


def test_positions_of_another_width_begin_anew(tmp_path):
    saved(tmp_path, pictures((4, 4)))
    wide = LearnedPositionsConfig(channels=6)
    _, plan = begun(pictures((6, 6), positions=wide), tmp_path)
    assert plan.fresh["inputs.image.positions.table"] == "another shape"


@pytest.mark.parametrize(("length", "kept"), [(8, 8), (32, 0)])
def test_places_of_a_text_are_cut_or_interpolated_and_so_are_its_queries(tmp_path, length, kept):
    other = saved(tmp_path, masked_texts(16))
    model, plan = begun(masked_texts(length), tmp_path)
    for name in ("inputs.text.places", "output.queries.text.table"):
        theirs, mine = other.get_parameter(name), model.get_parameter(name)
        if kept:
            assert torch.equal(mine, theirs[:kept])
        else:
            rows = interpolate(theirs.T[None], size=length, mode="linear", align_corners=True)
            torch.testing.assert_close(mine, rows[0].T)
        assert plan.resized[name] == (16, 8)
    if kept:  # what is short enough is read and answered as before
        text = {"text": torch.randint(6, 262, (2, 8))}
        torch.testing.assert_close(model(text), other(text))


def test_places_of_texts_of_another_kind_or_width_begin_anew(tmp_path):
    saved(tmp_path, masked_texts(16))
    _, plan = begun(masked_texts(32, channels=12), tmp_path)
    assert plan.fresh["inputs.text.places"] == "another shape"
    assert plan.fresh["output.queries.text.table"] == "another shape"
    for positions in ("learned", "fourier"):
        convolved = ConvTextInputConfig(
            max_length=32, embedding_channels=8, stem_channels=(8,), positions=positions
        )
        config = replace(pictures((4, 4)), inputs={"text": convolved})
        assert "inputs.text.places" not in begun(config, tmp_path)[1].resized


def test_queries_that_follow_nothing_are_questions_of_their_own(tmp_path):
    config = masked_texts(16)
    saved(tmp_path, config)
    queries = LearnedQueriesConfig(num_queries=3, channels=8)
    answer = replace(config.output.outputs["text"], queries=queries)
    _, plan = begun(
        replace(config, output=replace(config.output, outputs={"text": answer})), tmp_path
    )
    assert plan.fresh == {"output.queries.text.table": "another shape"}
    cells = replace(answer, queries=FourierQueriesConfig(size=(2,), num_bands=2))
    output = replace(
        config.output, outputs={"text": replace(cells, head=answer.head)}, min_padding=3
    )
    assert build(replace(config, output=output)) is not None
    assert "output.queries.text.table" in begun(replace(config, output=output), tmp_path)[1].left


def test_what_only_the_other_has_is_told(tmp_path):
    saved(tmp_path, masked_texts(16))
    config = replace(masked_texts(16), output=MeanPoolConfig(num_outputs=2))
    _, plan = begun(config, tmp_path)
    assert plan.sentences()[-1] == "Not used: output (1,422, not in this model)."


def test_modules_of_which_a_part_fits_are_told_as_such(tmp_path):
    saved(tmp_path, masked_texts(16))
    wider = replace(ENCODER, cross_attend_qk_channels=4, num_self_attends_per_block=3)
    _, plan = begun(replace(masked_texts(16), encoder=wider), tmp_path)
    taken, fresh, warning = plan.sentences()[1:]
    assert "encoder.num_self_attends_per_block is 3, there 1" in warning
    assert "parts of encoder.cross_attends.0 (" in taken
    assert fresh.startswith("Fresh: parts of encoder.blocks.0 (")
    assert "parts of encoder.cross_attends.0" in fresh


@pytest.mark.parametrize(
    "encoder",
    [
        replace(ENCODER, latent_channels=24),
        TransformerEncoderConfig(channels=16, num_self_attends=1),
    ],
    ids=["another width", "another architecture"],
)
def test_a_model_that_shares_nothing_is_refused_in_one_paragraph(tmp_path, encoder):
    save(tmp_path, build(RECIPE.model_config()), preprocess=PREPROCESS, task=RECIPE.task)
    with pytest.raises(
        ValueError, match=r"weights of .* do not fit the model of this recipe"
    ) as caught:
        plan_warm_start(replace(pictures((4, 4)), encoder=encoder), tmp_path)
    assert "\n" not in str(caught.value)


def ramps(size, count=64):
    """Return images that get brighter in one of four directions, at different brightness, and their classes."""
    classes = torch.arange(count) % 4
    rows = torch.linspace(0, 1, size).expand(size, size)
    directions = torch.stack([rows, rows.flip(1), rows.T, rows.T.flip(0)])
    brightness = torch.linspace(-0.2, 0.2, count // 4).repeat_interleave(4)
    return directions[classes][:, None] + brightness[:, None, None, None], classes


def losses(model, images, classes, *, steps, lr):
    """Train, and return the loss before each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    found = []
    for _ in range(steps):
        loss = cross_entropy(model({"image": images}), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_at_another_resolution_it_learns_faster_than_from_random_weights(tmp_path):
    """The classes do not depend on the resolution, and over seeds and processors the losses are apart threefold."""
    torch.manual_seed(0)
    coarse = build(pictures((4, 4), outputs=4))
    losses(coarse, *ramps(4), steps=80, lr=1e-2)
    save(tmp_path, coarse)
    model, plan = begun(pictures((8, 8), outputs=4), tmp_path)
    assert list(plan.resized) == ["inputs.image.positions.table"]
    theirs = coarse.state_dict()
    for name, weight in model.state_dict().items():
        assert name in plan.resized or torch.equal(weight, theirs[name])
    started = losses(model, *ramps(8), steps=8, lr=1e-3)
    scratch = losses(build(pictures((8, 8), outputs=4)), *ramps(8), steps=8, lr=1e-3)
    assert started[0] < 0.5 * scratch[0]
    assert started[-1] < 0.5 * scratch[-1]
