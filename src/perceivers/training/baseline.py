"""Simple baseline beside a run: fitted after training, kept in the report, never an error of the run."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceivers.baselines.fit import fit_baseline
from perceivers.baselines.result import BaselineResult
from perceivers.data.loading.loader import Loader
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.splits import fingerprint_of
from perceivers.runs.summary import read_summary

if TYPE_CHECKING:
    from perceivers.training.build import TrainingParts


def measured_baseline(parts: "TrainingParts", run: ResolvedRun) -> BaselineResult | None:
    """Return the score of a simple baseline on the validation split, or None if there is none.

    That of an earlier report of a resumed run is kept if the rows are the same. An error, and Ctrl-C, becomes a note.
    """
    if not run.recipe.training.baseline:
        return None
    rows = fingerprint_of(run.data.identities)
    earlier = _of_report(parts.callback.folder)
    if earlier is not None and earlier.data == rows:
        return earlier
    loaders = {"train": parts.batches.loader, "validation": parts.validation}
    datasets = {name: one.dataset for name, one in loaders.items() if isinstance(one, Loader)}
    try:
        found = fit_baseline(run, datasets=datasets, data=rows)
    except KeyboardInterrupt:
        parts.note("The simple baseline was interrupted and is left out.")
        return None
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        parts.note(f"There is no simple baseline to compare with: {reason}.")
        return None
    return found


def _of_report(folder: Path) -> BaselineResult | None:
    """Return the baseline in the report of a run, if there is a report."""
    try:
        summary = read_summary(folder)
    except (OSError, ValueError):
        return None
    return None if summary is None else summary.baseline
