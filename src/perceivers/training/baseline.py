"""Simple baseline beside a run: fitted after training, kept in the report, never an error of the run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perceivers.baselines.fit import fit_baseline
from perceivers.baselines.result import BaselineResult, paired_p_value
from perceivers.data.loading.loader import Loader, MapDataset
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.sentences import baseline_sentence
from perceivers.runs.splits import fingerprint_of
from perceivers.runs.summary import read_summary
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Meter


def measured_baseline(
    run: ResolvedRun,
    folder: Path,
    note: Callable[[str], object],
    *,
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval],
    meter: Meter,
    loaders: Mapping[str, Any] | None = None,
) -> BaselineResult | None:
    """Return the score of a simple baseline on the validation split, or None if there is none.

    That of an earlier report of a resumed run is kept if the rows are the same. An error, and Ctrl-C, becomes a note.

    Args:
        run: The finished run. With folds, the baseline is scored out of fold, too.
        folder: The run folder.
        note: Called with a sentence on the result.
        metrics: Metrics of the run.
        intervals: Their 95 % confidence intervals.
        meter: Meter of the validation of all rows, in order, from which they were computed.
        loaders: Data loaders of the splits, whose caches are used.
    """
    if not run.recipe.training.baseline:
        return None
    rows = fingerprint_of(run.data.identities)
    found, errors = _of_report(folder), dict[int, float]()
    if found is None or found.data != rows:
        known = (loaders or {}).items()
        datasets = {
            name: one.dataset
            for name, one in known
            if isinstance(one, Loader) and isinstance(one.dataset, MapDataset)
        }
        try:
            found = fit_baseline(run, datasets=datasets, data=rows, errors=errors)
        except KeyboardInterrupt:
            note("The simple baseline was interrupted and is left out.")
            return None
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            note(f"There is no simple baseline to compare with: {reason}.")
            return None
    if found is not None:
        name, p_value = found.metric, _p_value(run, meter, errors)
        note(baseline_sentence(found, metrics[name], intervals.get(name), p_value))
    return found


def _p_value(run: ResolvedRun, meter: Meter, errors: Mapping[int, float]) -> float | None:
    """Return the p-value of the difference from a baseline, from the errors of both for the same rows.

    None: the errors are not known, or a row of validation was left out.
    """
    own, folds = meter.errors(), run.data.folds
    rows: Sequence[int] = [row for fold in folds for row in fold]
    if not folds and not run.data.streams:
        rows = range(len(run.data.splits["validation"]))
    if own is None or not errors or len(own) != len(rows):
        return None
    pairs = [
        (mine, errors[row]) for row, mine in zip(rows, own.tolist(), strict=True) if row in errors
    ]
    return paired_p_value(*zip(*pairs, strict=True)) if pairs else None


def _of_report(folder: Path) -> BaselineResult | None:
    """Return the baseline in the report of a run, if there is a report."""
    try:
        summary = read_summary(folder)
    except (OSError, ValueError):
        return None
    return None if summary is None else summary.baseline
