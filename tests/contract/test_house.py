"""The house rules that a linter cannot see. A new file is tested by existing."""

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import perceivers

SOURCE = Path(perceivers.__file__).parent
ROOT = SOURCE.parent.parent
FILES = sorted(SOURCE.rglob("*.py"))
# What torch.export sees.
EXPORTED = [p for p in FILES if p.parent.name in ("nn", "inputs", "outputs", "models")]
OTHER = sorted(
    path for folder in ("tests", "benchmarks", ".ci") for path in (ROOT / folder).rglob("*.py")
)
EXTRAS = {
    "lightning",
    "torchmetrics",
    "tensorboard",
    "datasets",
    "pyarrow",
    "pandas",
    "matplotlib",
    "sklearn",
    "transformers",
    "soundfile",
    "soxr",
    "av",
    "trimesh",
    "h5py",
}

# Importable only where Triton is; what decides about them, triton_dispatch, is importable everywhere.
WITH_TRITON = {
    f"perceivers.cross_attention.triton.{name}" for name in ("cells", "kernels", "cross_attention")
}


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def configs() -> list[type]:
    """Every dataclass that is saved or chosen."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(perceivers.__path__, "perceivers."):
        if module.name == "perceivers.__main__":
            continue
        if module.name in WITH_TRITON and importlib.util.find_spec("triton") is None:
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            is_config = name.endswith("Config") or name == "Recipe"
            if is_config and isinstance(value, type) and dataclasses.is_dataclass(value):
                found[value.__qualname__] = value
    return list(found.values())


def untagged_unions(hint: object, *, tagged: bool = False) -> Iterator[object]:
    """Yield the unions of several dataclasses in which no field says which of them it is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        tagged = any(getattr(extra, "discriminator", None) for extra in inner[1:])
        yield from untagged_unions(inner[0], tagged=tagged)
        return
    if origin in (typing.Union, types.UnionType):
        choices = [part for part in inner if dataclasses.is_dataclass(part)]
        if len(choices) > 1 and not tagged:
            yield hint
    for part in inner:
        yield from untagged_unions(part)


@pytest.mark.parametrize("path", FILES + OTHER, ids=short)
def test_functions_fit_on_a_screen(path):
    for function in functions(path):
        body = function.end_lineno - function.body[0].lineno + 1  # without the signature
        assert body <= 60, f"{function.name} has {body} lines"


@pytest.mark.parametrize("path", FILES, ids=short)
def test_file_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the first line says which idea the file holds"


@pytest.mark.parametrize("path", EXPORTED, ids=short)
def test_batch_size_is_never_a_constant(path):
    """`len(tensor)` makes one of it for torch.export; `tensor.shape[0]` does not."""
    for function in functions(path):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        shapes = ("Float[", "Int[", "Bool[", "UInt8[", "Tensor")
        tensors = {
            a.arg
            for a in arguments
            if a.annotation and ast.unparse(a.annotation).startswith(shapes)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "len":
                assert getattr(node.args[0], "id", "") not in tensors, f"line {node.lineno}"


def test_there_are_configs_to_check():
    assert {"Recipe", "PerceiverConfig", "OptimConfig"} <= {c.__name__ for c in configs()}


@pytest.mark.parametrize("config", configs(), ids=lambda c: c.__name__)
class TestEveryConfig:
    def test_cannot_be_changed_and_takes_keywords_only(self, config):
        assert config.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(config))

    def test_refuses_unknown_keys(self, config):
        assert getattr(config, "__pydantic_config__", {}).get("extra") == "forbid"

    def test_says_in_every_union_which_choice_it_is(self, config):
        hints = typing.get_type_hints(config, include_extras=True)
        assert [u for hint in hints.values() for u in untagged_unions(hint)] == []

    def test_explains_each_field(self, config):
        described = "".join(base.__doc__ or "" for base in config.__mro__)
        for field in dataclasses.fields(config):
            assert field.name == "kind" or f"    {field.name}: " in described, field.name


def test_unions_without_a_tag_are_found():
    @dataclasses.dataclass
    class Left:
        pass

    @dataclasses.dataclass
    class Right:
        pass

    assert list(untagged_unions(dict[str, Left | Right | None]))
    assert not list(untagged_unions(dict[str, Left | None]))


def loaded(code: str) -> set[str]:
    """Return the top-level modules in memory after running some code in a fresh process."""
    code += "; import sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_free():
    assert "torch" not in loaded("import perceivers")


def test_using_a_name_loads_torch_and_nothing_heavier():
    names = "; ".join(f"perceivers.{name}" for name in perceivers.__all__)
    modules = loaded(f"import perceivers; {names}")
    assert "torch" in modules
    assert modules.isdisjoint(EXTRAS)


def test_help_does_not_wait_for_torch():
    modules = loaded("import perceivers.cli.main; perceivers.cli.main.main(['--help'])")
    assert "torch" not in modules


@pytest.mark.parametrize("name", perceivers.__all__)
def test_public_names_exist_and_are_explained(name):
    value = getattr(perceivers, name)
    assert name in dir(perceivers)
    assert isinstance(value, str) or value.__doc__


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="perceiverz"):
        perceivers.perceiverz  # noqa: B018


def test_version_is_that_of_the_package():
    from importlib.metadata import version

    assert perceivers.__version__ == version("perceivers")
