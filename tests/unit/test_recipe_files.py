import pytest

from perceivers.recipes import get_recipe, list_recipes
from perceivers.recipes.files import (
    dump_recipe,
    parse_recipe,
    read_recipe,
    read_run_recipe,
    write_recipe,
)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_survives_a_file(tmp_path, name):
    recipe = get_recipe(name)
    write_recipe(recipe, tmp_path / "my.yaml")
    assert read_recipe(tmp_path / "my.yaml") == recipe


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weight_decay", "weigth_decay", r"'weigth_decay' is not a key in optim. Did you mean 'weight_decay'\?"),
        ("num_bands", "num_band", r"'num_band' is not a key in inputs.image.*Did you mean 'num_bands'\?"),
        ("num_latents", "latents", r"'latents' is not a key in encoder.*"),
        ("optim:", "optimizer:", r"'optimizer' is not a key. Did you mean 'optim'\?"),
        ("flip:", "zzz:", r"'zzz' is not a key in augment.image. Known here: kind, crop_scale"),
        ("label_smoothing: 0.1", "label_smoothing: abc", r"task.label_smoothing: .*valid number.*got 'abc'"),
        ("kind: residual", "kind: resid", r"inputs.image: .*'resid'.*'pixels', 'patches', 'convolved', 'residual'"),
        ("name: images\n", "", r"'name' is missing"),
        ("num_cross_attends: 2", "num_cross_attends: 99", r"num_cross_attends=99 must lie between"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named(old, new, message):
    text = dump_recipe(get_recipe("images"))
    assert old in text
    with pytest.raises(ValueError, match=message):
        parse_recipe(text.replace(old, new, 1))


def test_many_mistakes_are_counted():
    text = dump_recipe(get_recipe("images"))
    for key in ("lr:", "betas:", "eps:", "milestones:"):
        text = text.replace(f"  {key}", f"  x{key}")
    with pytest.raises(ValueError, match=r"\(and 1 more\)$"):
        parse_recipe(text)


def test_what_is_no_recipe_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"my.yaml is not YAML"):
        parse_recipe("a: [", name="my.yaml")
    with pytest.raises(ValueError, match="holds no recipe"):
        parse_recipe("- 1")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"x.yaml is not a text file"):
        read_recipe(tmp_path / "x.yaml")
    with pytest.raises(OSError, match="nowhere"):
        read_recipe(tmp_path / "nowhere.yaml")


def test_a_run_of_version_0_1_is_refused(tmp_path):
    text = "\n".join(line for line in dump_recipe(get_recipe("digits")).splitlines()[1:])
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"recipe.yaml was written by perceivers 0.1: expected "):
        read_run_recipe(tmp_path)
    assert parse_recipe(text) == get_recipe("digits")  # written by hand it needs no format
    for number, version in ((1, "0.1"), (3, "another version")):
        with pytest.raises(ValueError, match=rf"by perceivers {version}: .*Train again with this"):
            parse_recipe(f"format: {number}\n{text}")
