"""Flags of `perceivers fit`: any field of the recipe, and where DATA may stand."""

import re
from dataclasses import replace

import pytest

from perceivers.cli import fit_flags
from perceivers.cli.fit import split_flags
from perceivers.cli.fit_flags import check_flags
from perceivers.cli.fit_help import flags_help
from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.recipes import get_recipe, list_recipes
from perceivers.recipes.files import write_recipe
from perceivers.recipes.overrides import FlagWords, override
from support.runs import make_image_folder


def read(*args: str, recipe: str = "digits"):
    positional, flags = split_flags(args)
    assert positional == []
    assert check_flags(flags) is None
    return override(get_recipe(recipe), {name: FlagWords(words) for name, words in flags.items()})


@pytest.fixture
def fitted(monkeypatch, tmp_path):
    """Return the arguments with which `fit` was called; the recipe is overridden and nothing is trained."""
    from perceivers.training import fit

    calls = []

    def remember(data, recipe, *, size, out, resume, init_from, **overrides):
        changed = override(recipe or get_recipe("digits"), overrides)
        calls.append({"data": data, "size": size, "out": out, "resume": resume, "recipe": changed})
        raise GeneratorExit

    monkeypatch.setattr(fit, "fit", remember)
    monkeypatch.chdir(tmp_path)

    def call(*args: str):
        with pytest.raises(GeneratorExit):
            main(["fit", *args])
        return calls.pop()

    return call


@pytest.mark.parametrize("name", list_recipes())
def test_without_flags_a_recipe_is_as_it_was(name):
    assert read(recipe=name) == get_recipe(name)


def test_training_and_data_need_no_prefix_and_the_rest_does():
    recipe = read(
        *("--batch-size", "7", "--max-time", "10m", "--seed", "3", "--permute", "9"),
        *("--label", "species", "--group", "nest", "--max-bad", "0.5"),
        *("--optim.lr", "0.5", "--encoder.num-latents=5", "--no-progress"),
        *("--inputs.image.positions.num-bands", "2", "--augment.image.mixup", "0.2"),
        *("--modality-dropout", "image:0.25", "--augment.image.no-flip", "--encoder.share-blocks"),
        *(
            "--inputs.image.size",
            "4",
            "6",
            "--logger",
            "wandb",
            "--augment.image.crop-scale",
            "None",
        ),
    )
    assert recipe.training.batch_size == 7
    assert recipe.training.max_time == "10m"
    assert (recipe.training.seed, recipe.training.permute) == (3, 9)
    assert recipe.training.progress is False
    assert recipe.training.logger == ("wandb",)
    assert (recipe.data.label, recipe.data.group, recipe.data.max_bad) == ("species", "nest", 0.5)
    assert recipe.optim.lr == 0.5
    assert recipe.encoder.num_latents == 5
    assert recipe.encoder.share_blocks is True
    assert recipe.inputs["image"].positions.num_bands == 2
    assert recipe.inputs["image"].size == (4, 6)
    assert recipe.augment["image"].mixup == 0.2
    assert recipe.augment["image"].flip is False
    assert recipe.augment["image"].crop_scale is None
    assert recipe.fusion.modality_dropout == {"image": 0.25}


def test_unions_take_either_kind_of_value():
    assert read("--batch", "auto").training.batch == "auto"
    assert read("--batch", "8").training.batch == 8
    assert read("--task.class-weights", "balanced").task.class_weights == "balanced"
    weights = ("--task.class-weights", *map(str, range(10)))
    assert read(*weights).task.class_weights == tuple(map(float, range(10)))


def test_columns_are_pairs():
    columns = {"left": "image", "right": "image"}
    assert read("--columns", "left:image,right:image").data.columns == columns


def test_columns_of_the_recipe_are_shown_as_they_are_typed(capsys, tmp_path):
    recipe = replace(get_recipe("digits"), data=DataConfig(columns={"left": "image"}))
    write_recipe(recipe, tmp_path / "mine.yaml")
    assert main(["fit", "--help-all", "--recipe", str(tmp_path / "mine.yaml")]) == 0
    assert "(default: left:image)" in capsys.readouterr().out


def wrong(capsys, *args: str) -> str:
    """Return the message of wrong arguments."""
    assert main(["fit", "builtin:digits", "--recipe", "digits", *args]) == 2
    return capsys.readouterr().err


def test_columns_that_are_no_pairs_are_refused(capsys):
    assert "--columns: expected NAME:VALUE" in wrong(capsys, "--columns", "left:")


def test_a_misspelled_flag_suggests_the_nearest(capsys):
    text = wrong(capsys, "--encoder.num-latent", "5")
    assert "there is no flag --encoder.num-latent. Did you mean --encoder.num-latents?" in text


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--batch-size", "five"), "--batch-size: Input should be a valid integer"),
        (("--max-time", "0s"), "--max-time: Expected a duration such as 45s"),
        (("--optim.weight-decay", "-1"), "--optim.weight-decay: Input should be greater than or"),
        (("--batch-size",), "--batch-size: expected a value, got none"),
        (("--batch-size", "5", "6"), "--batch-size: expected one value, got 5 6"),
        (("--optim.lr.value", "5"), "--optim.lr.value: 'lr' is 0.002 in this recipe"),
        (("--optim.betas", "0.9"), "--optim.betas: "),
        (("--progress", "maybe"), "--progress: Input should be a valid boolean"),
        (("--size", "huge"), "--size: expected one of tiny, small, base, mini, paper; got huge"),
        (("--out", "a", "b"), "--out: expected one value, got a b"),
    ],
)
def test_a_wrong_value_names_the_flag(capsys, args, expected):
    assert expected in wrong(capsys, *args)


def test_values_that_do_not_fit_each_other_are_wrong_arguments(capsys):
    text = wrong(capsys, "--encoder.num-blocks", "1", "--encoder.num-cross-attends", "3")
    assert "num_cross_attends=3 must lie between 1 and num_blocks" in text


def test_what_the_data_say_has_no_flag():
    text = flags_help(get_recipe("digits"))
    assert "--optim.lr FLOAT" in text
    for name in ("--name", "label-names", ".kind", "num-outputs"):
        assert name not in text


def test_a_part_that_is_absent_in_a_recipe_has_no_flags():
    recipe = get_recipe("digits")
    assert "--inputs.image.positions" in flags_help(recipe)
    bare = replace(recipe.inputs["image"], positions=None, num_channels=3)
    assert "--inputs.image.positions" not in flags_help(replace(recipe, inputs={"image": bare}))


@pytest.mark.parametrize(
    "args",
    [
        ["birds", "--batch-size", "3"],
        ["--batch-size", "3", "birds"],
        ["--encoder.num-latents", "3", "birds"],
        ["birds", "--inputs.image.size", "3", "3", "--resume", "--recipe", "digits"],
        ["--resume", "--out", "x", "birds"],
        ["--encoder.num-latents", "3", "birds", "--encoder.num-blocks", "3"],
        ["--no-progress", "birds"],
        ["--encoder.share-blocks", "user/birds"],
    ],
)
def test_data_is_found_first_or_last(fitted, args):
    if args[2:3] == ["birds"] and len(args) > 3:
        args = [
            "birds",
            *args[:2],
            *args[3:],
        ]  # in the middle it would be a value of the flag before
    assert fitted(*args)["data"].removeprefix("user/") == "birds"


def test_options_of_the_command_are_no_fields_of_the_recipe(fitted):
    call = fitted("birds", "--recipe", "images", "--size", "small", "--resume", "--out", "run")
    assert call["recipe"] == get_recipe("images", size="small")
    assert (call["size"], call["resume"], call["out"]) == ("small", True, "run")


@pytest.mark.parametrize("args", [(), ("--max-epochs", "1"), ("--resume", "--out", "x")])
def test_data_is_needed(capsys, args):
    assert main(["fit", *args]) == 2
    assert "Expected DATA" in capsys.readouterr().err


@pytest.mark.parametrize("name", list_recipes())
def test_no_flag_of_a_recipe_is_refused_early(name):
    found = re.findall(r"^  --([\w.-]+)", flags_help(get_recipe(name)), flags=re.MULTILINE)
    message = check_flags({flag.replace("-", "_"): () for flag in found})
    assert "there is no flag" not in (message or "")


@pytest.mark.parametrize("name", list_recipes())
def test_every_default_is_a_value_or_an_effect(name):
    text = flags_help(get_recipe(name))
    assert "default: None" not in text
    assert "default: )" not in text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"bach_size": ("3",)}, "no flag --bach-size. Did you mean --batch-size?"),
        ({"optm.lr": ("3",)}, "no flag --optm.lr. Did you mean --optim.lr?"),
        ({"optim.lrr": ("3",)}, "no flag --optim.lrr. Did you mean --optim.lr?"),
        ({"xyzzyx": ()}, "no flag --xyzzyx. `perceivers fit --help-all`"),
        ({"seed": ("x",)}, "--seed: Input should be a valid integer"),
        (
            {"device": ("tpu",)},
            "--device: Input should be 'auto', 'cpu', 'cuda' or 'mps', got 'tpu'",
        ),
        ({"batch": ("all",)}, "--batch: Input should be"),
        ({"batch": ("0",)}, "--batch: Input should be greater than 0, got '0'"),
        ({"folds": ("0",)}, "--folds: Input should be greater than 0, got '0'"),
        ({"workers": ("-1",)}, "--workers: Input should be greater than or equal to 0"),
        ({"ema": ("1",)}, "--ema: Input should be less than 1"),
        ({"validation_fraction": ("1",)}, "--validation-fraction: Input should be less than 1"),
    ],
)
def test_wrong_flags_are_found_before_the_data_is_opened(flags, expected):
    assert expected in (check_flags(flags) or "")


def test_flags_of_plugins_and_modules_are_left_to_their_recipe(monkeypatch):
    deep = {"inputs.events.zzyzx": ("3",)}
    assert "no flag" in check_flags(deep)
    assert check_flags({**deep, "recipe": ("mine:recipe",)}) is None
    monkeypatch.setattr(fit_flags, "entry_points", lambda group: ["one"])
    assert check_flags(deep) is None


@pytest.mark.parametrize(
    ("make", "shown", "hidden"),
    [
        ("images", "--augment.image.flip", "--inputs.audio"),
        ("texts", "--inputs.text.", "--augment.image"),
    ],
)
def test_the_help_of_data_has_its_flags_in_two_screens(tmp_path, capsys, make, shown, hidden):
    if make == "images":
        data = make_image_folder(tmp_path / "birds", count=4)
    else:
        data = tmp_path / "reviews.csv"
        rows = [f"{'a good long review of a place ' * 5},{label}" for label in ("yes", "no") * 8]
        data.write_text("\n".join(["text,label", *rows]))
    assert main(["fit", str(data), "--help", "--batch-size", "7"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80 or str(tmp_path) in text
    assert shown in text
    assert hidden not in text
    assert text.index("--max-time") < text.index(shown)
    assert re.search(r"--batch-size INT .*\n.*\[7\]", text)
    assert re.search(r"--max-epochs INT .*\[400\]", text)
    assert "--help-all" in lines[-1]
    assert main(["fit", str(data), "--help-all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 100


def test_the_help_of_unknown_data_names_the_reason(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["fit", str(tmp_path / "empty"), "--help"]) == 0
    text = capsys.readouterr().out
    assert "is not recognized" in " ".join(text.split())
    assert "--batch-size" in text


def test_help_fits_two_screens_and_help_all_lists_every_flag(capsys):
    assert main(["fit", "--help"]) == 0
    brief = capsys.readouterr().out.splitlines()
    assert len(brief) <= 60
    assert max(map(len, brief)) <= 80
    assert main(["fit", "-h", "--help-all", "--recipe", "audio"]) == 0
    everything = capsys.readouterr().out
    for flag in ("--preprocess.audio.num-mels", "--encoder.num-latents", "--optim.warmup-steps"):
        assert flag in everything
