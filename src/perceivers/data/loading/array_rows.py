"""Rows whose inputs are arrays that were computed before, such as the latents of a frozen encoder."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from perceivers.data.base import Batch
from perceivers.data.loading.sampler import BatchPlan
from perceivers.data.loading.transform import WorkerResult
from perceivers.typing import Tensor


class ArrayRows(Dataset[WorkerResult]):
    """Reads batches of precomputed arrays by index, in place of `MapDataset`.

    Args:
        name: Name of the input.
        arrays: Copies x rows x ...: an epoch reads one copy of all rows, the next epoch the next copy.
        targets: Targets of the rows, as batches have them; by name for several tasks.
        rows: Index of each row in its split.
        bad: Name and reason of each row of the split that could not be read.
    """

    def __init__(
        self,
        name: str,
        arrays: npt.NDArray[np.float32],
        targets: Tensor | Mapping[str, Tensor],
        rows: npt.NDArray[np.int64],
        bad: Mapping[str, str],
    ) -> None:
        self.name, self.arrays, self.targets, self.rows = name, arrays, targets, rows
        self.bad = dict(bad)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, plan: BatchPlan) -> WorkerResult:
        """Return the batch of a plan; with the first one of an epoch, the rows that could not be read."""
        index = torch.from_numpy(np.asarray(plan.rows))
        found = self.arrays[plan.epoch % len(self.arrays)][plan.rows]
        targets = self.targets
        batch = Batch(
            inputs={self.name: torch.from_numpy(np.ascontiguousarray(found))},
            targets=targets[index]
            if isinstance(targets, Tensor)
            else {name: part[index] for name, part in targets.items()},
            rows=tuple(self.rows[plan.rows].tolist()),
        )
        return WorkerResult(
            batch=batch,
            num_rows=len(plan.rows),
            bad=tuple(self.bad.items()) if plan.number == 0 else (),
            notes=Counter(),
        )
