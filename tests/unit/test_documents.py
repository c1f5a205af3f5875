import pytest
import yaml

from perceivers.data.formats.documents import load_json, load_yaml
from perceivers.recipes.files import dump_recipe
from perceivers.recipes.registry import get_recipe, list_recipes

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "aliases"),
        ("a: &a [1, *a]\n", "aliases"),
        ("a: &a {x: 1}\n" + "b: {<<: [" + ",".join(["*a"] * 40_000) + "]}", "aliases"),
        ("[" * 100_000, "nested too deep"),
        ("a: " + "9" * 5000, "expected an integer"),
        ("a: !!int '" + "1:" * 300 + "1'", "expected an integer"),
        ("a: !!float 1:30", "expected a number"),
        ("a: " + "x" * 2**20, "too large"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_documents_that_are_refused_at_once(text, message):
    with pytest.raises(ValueError, match=rf"(?s)^my\.yaml .*{message}"):
        load_yaml(text, "my.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("59:" * 20_000 + "1", "59:" * 20_000 + "1"),
        ("1_000", 1000),
        ("0x1f", 31),
        ("017", 15),
        ("-3", -3),
        ("0", 0),
        ("1e-4", 1e-4),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("2001-x", "2001-x"),
        ("yes", True),
        ("null", None),
        ("", None),
        ("&a [1, 2]", [1, 2]),
    ],
)
def test_values(text, value):
    assert load_yaml(text, "my.yaml") == value


def test_every_recipe_is_read_as_by_pyyaml():
    for name in list_recipes():
        text = dump_recipe(get_recipe(name))
        assert load_yaml(text, name) == yaml.safe_load(text)


@pytest.mark.parametrize("raw", [b"{", b"[" * 100_000, b"\xff", b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_is_refused(raw):
    with pytest.raises(ValueError, match=r"^config\.json"):
        load_json(raw, "config.json")
