"""The way of `--optim.lr` from the command line to the optimizer: which files a reader must open.

`cli/main` finds the command, `cli/fit` splits flags from their words, `training/fit` is what the command and `pv.fit`
share, `recipes/resolve` lists the steps from recipe and data to a run, `recipes/overrides` sets the field,
`training/build` puts the parts together, `training/module` is the training step, `training/optim` the optimizer.
"""

import traceback
from pathlib import Path

import pytest

import perceivers
from perceivers.cli.main import main
from perceivers.recipes import overrides
from perceivers.training import module, optim

ROOT = Path(perceivers.__file__).parent


def files_on_the_stack() -> set[str]:
    """Return the package's files that the current call passes through."""
    paths = (Path(frame.filename) for frame in traceback.extract_stack())
    return {str(p.relative_to(ROOT).with_suffix("")) for p in paths if p.is_relative_to(ROOT)}


def test_a_learning_rate_passes_eight_files_from_argv_to_the_optimizer(tmp_path, monkeypatch):
    seen, rates = set(), []
    set_field, init, optimizer = overrides._set, module.PerceiverModule.__init__, optim.AdamW

    def watched_set(plain, key, name, value):
        seen.update(files_on_the_stack())
        set_field(plain, key, name, value)

    def watched_init(self, *args, **kwargs):
        seen.update(files_on_the_stack())
        init(self, *args, **kwargs)

    def watched_optimizer(*args, lr, **kwargs):
        seen.update(files_on_the_stack())
        rates.append(lr)
        return optimizer(*args, lr=lr, **kwargs)

    monkeypatch.setattr(overrides, "_set", watched_set)
    monkeypatch.setattr(module.PerceiverModule, "__init__", watched_init)
    monkeypatch.setattr(optim, "AdamW", watched_optimizer)
    args = ["--out", str(tmp_path / "run"), "--max-steps", "1", "--no-progress", "--workers", "0"]
    pytest.importorskip("sklearn")
    assert main(["fit", "builtin:digits", "--optim.lr", "0.0123", *args]) == 0
    assert rates == [0.0123]
    assert seen == {
        "cli/main",
        "cli/fit",
        "training/fit",
        "recipes/resolve",
        "recipes/overrides",
        "training/build",
        "training/module",
        "training/optim",
    }
