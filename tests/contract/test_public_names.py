"""What `import perceivers as pv` promises."""

import subprocess
import sys

import pytest

import perceivers as pv

HEAVY = {
    "lightning",
    "pytorch_lightning",
    "datasets",
    "matplotlib",
    "sklearn",
    "pyarrow",
    "pandas",
    "torchmetrics",
    "tensorboard",
    "soundfile",
    "soxr",
    "av",
    "trimesh",
    "h5py",
    "fsspec",
}


def modules_after(code: str) -> set[str]:
    """Return the top-level names in sys.modules after running `code` in a fresh process."""
    code += "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_making_a_model_loads_torch_and_nothing_heavier():
    loaded = modules_after("import perceivers as pv\npv.create_model('digits')\npv.load, pv.fit")
    assert "torch" in loaded
    assert not HEAVY & loaded


def test_version_does_not_wait_for_torch():
    code = "from perceivers.cli.main import main\nmain(['--version'])"
    assert not {"torch", "numpy", "tyro"} & modules_after(code)


@pytest.mark.parametrize("name", pv.__all__)
def test_every_public_name_is_there(name):
    assert getattr(pv, name).__doc__
    assert name in dir(pv)


def test_what_is_not_public_is_not_there():
    with pytest.raises(AttributeError, match="perceivers attribute perceive"):
        pv.perceive  # noqa: B018
    assert pv.__version__.count(".") >= 1
