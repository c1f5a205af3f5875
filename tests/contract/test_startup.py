"""What a command waits for: only what it uses is imported.

Speed itself is measured by benchmarks/startup.py; which modules are loaded does not depend on the machine.
"""

import subprocess
import sys

import pytest

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub.checkpoint import save
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from support.runs import make_image_folder, needs_int8, save_run

# Nothing that shows help or labels a picture has a use for these. Most take longer to import than torch.
HEAVY = {
    *("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "tensorboard"),
    *("datasets", "pandas", "pyarrow", "fsspec", "sklearn", "scipy", "matplotlib"),
    *("transformers", "torchvision", "huggingface_hub", "requests", "httpx", "IPython"),
    *(
        "torch._dynamo",
        "torch._inductor",
        "torch.onnx",
        "torch.utils.tensorboard",
        "sympy",
        "triton",
    ),
}


_PRINTING = ("cli.terminal", "console", "escaping", "wording")


def loaded(*args: str, status: int = 0) -> set[str]:
    """Return the modules in memory after a command in a fresh process, the dotted ones too."""
    code = (
        "import sys\nfrom perceivers.cli.main import main\nstatus = 0\n"
        f"status = main({list(args)!r})\n"
        "print('MODULES', *sys.modules, file=sys.stderr)\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, done.stderr
    return set(done.stderr.split("MODULES", 1)[1].split())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("startup")
    pictures = make_image_folder(folder / "birds", count=4)
    return str(save_run(folder / "run", data=pictures)), str(pictures / "dark" / "0.png")


@pytest.fixture(scope="module")
def large_run(tmp_path_factory, run) -> tuple[str, str]:
    """Return a run whose 4,096 elements are read by another path than the few of a tiny one."""
    folder = tmp_path_factory.mktemp("large")
    encoder = PerceiverEncoderConfig(
        num_latents=16, latent_channels=32, num_cross_attends=1, num_blocks=1
    )
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(64, 64))},
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=2),
    )
    save(
        folder,
        build(config),
        preprocess={"image": ImagePreprocessConfig.imagenet(size=(64, 64))},
        task=ClassificationConfig(label_names=("dark", "light")),
    )
    return str(folder), run[1]


@pytest.mark.parametrize("command", [["--help"], ["--version"]])
def test_help_loads_nothing_but_the_standard_library(command):
    modules = loaded(*command)
    assert (
        sorted(modules & ({"torch", "numpy", "PIL", "pydantic", "tyro", "rich", "yaml"} | HEAVY))
        == []
    )
    ours = {name for name in modules if name.startswith("perceivers.")}
    assert ours <= {f"perceivers.{name}" for name in ("cli", "cli.main", *_PRINTING)}


@pytest.mark.parametrize(
    "command", ["predict", "evaluate", "explain", "info", "recipes", "doctor", "quickstart"]
)
def test_the_help_of_a_command_does_not_wait_for_torch(command):
    modules = loaded(command, "--help")
    assert sorted(modules & ({"torch", "numpy", "PIL", "pydantic"} | HEAVY)) == []


@pytest.mark.parametrize(
    "command",
    [["fit"], ["fit", "x", "--bach-size", "3"], ["fit", "x", "--seed", "y"], ["predict", "--tpo"]],
)
def test_wrong_arguments_do_not_wait_for_torch(command):
    modules = loaded(*command, status=2)
    assert sorted(modules & ({"torch", "numpy", "PIL"} | HEAVY)) == []


@pytest.mark.slow
def test_recipes_load_torch_and_nothing_heavier():
    assert sorted(loaded("recipes") & HEAVY) == []
    assert sorted(loaded("recipes", "images") & HEAVY) == []


@pytest.mark.parametrize("size", ["run", pytest.param("large_run", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "flags",
    [[], pytest.param(["--quantize", "int8-always"], marks=[needs_int8, pytest.mark.slow])],
)
def test_a_prediction_loads_torch_and_nothing_heavier(request, size, flags):
    modules = loaded("predict", *request.getfixturevalue(size), *flags)
    assert "torch" in modules
    assert sorted(modules & HEAVY) == []
    assert not any(name.startswith("perceivers.training") for name in modules)


@pytest.mark.slow
def test_an_evaluation_of_a_folder_loads_torch_and_nothing_heavier(run):
    assert sorted(loaded("evaluate", run[0]) & HEAVY) == []


@pytest.mark.slow
def test_inspecting_a_recipe_loads_no_extra():
    # Operations are counted on tensors without memory, which are the compiler's.
    extras = HEAVY - {"sympy", "torch._dynamo", "torch._inductor", "torch.onnx", "triton"}
    assert sorted(loaded("info", "digits") & extras) == []
