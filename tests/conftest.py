"""Seeds, fixtures and the selection of slow tests."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
SLOW = ("compiled", "long")  # folders whose tests are slow unless marked `quick`

# Scripts of tests/support run in processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")])
)

# Workers of pytest-xdist share the cores. Two threads each would fight for them.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

# On a busy machine an example may take any time.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, so a failure comes back when it is run alone."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (other libraries draw from the global state)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _single_splits():
    """Let no rule choose folds: they take five times as long, and most tests have a few dozen rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perceivers.recipes.rules.folds.FEW_ROWS", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_baselines():
    """Runs in this process fit no simple baseline, which takes seconds, unless a test uses `simple_baselines`."""
    from perceivers.training import baseline

    fit_baseline = baseline.fit_baseline
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "fit_baseline", lambda *_, **__: None)
        yield fit_baseline


@pytest.fixture
def simple_baselines(monkeypatch, _without_baselines) -> None:
    """Fit simple baselines in this test."""
    monkeypatch.setattr("perceivers.training.baseline.fit_baseline", _without_baselines)


@pytest.fixture
def without_a_gpu(monkeypatch) -> None:
    """Hide the GPUs of this machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def undrawn_figures(monkeypatch) -> None:
    """Save empty figures: drawing the report takes most of the time of a tiny run."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: file.touch())


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Return a function from the name of a downloaded data set to its folder; it skips the test without it."""
    folder = Path(os.environ.get("PERCEIVERS_DATA", ROOT / "data"))

    def find(name: str) -> Path:
        if not (folder / name).is_dir():
            pytest.skip(
                f"needs the data set {folder / name} (set PERCEIVERS_DATA to the folder of the data sets)"
            )
        return folder / name

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow folders, and skip what the shape checker prevents."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in SLOW and not item.get_closest_marker("quick"):
            item.add_marker(pytest.mark.slow)
        if folder == "compiled" and not os.environ.get("JAXTYPING_DISABLE"):
            item.add_marker(pytest.mark.skip(reason="torch.compile cannot trace the shape checker"))
