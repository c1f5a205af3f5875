"""Share of hidden bytes that trigrams predict: the baseline of a model of masked bytes.

For every pair of neighbors the commonest byte between them in the training texts is always answered. Neighbors are
taken as the model sees them, where those of a hidden byte are mostly hidden, too; and, for comparison, as they really
are, which no model is shown.

    python -m benchmarks.trigram RUN
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ngrams import all_chunks
from perceivers.data.base import Batch
from perceivers.evaluation.evaluate import choose_split, evaluate_source, loader_for, open_for_run
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.tasks.byte_tokens import IGNORED, VOCAB_SIZE
from perceivers.tasks.masked import MaskedBytesConfig

_PASSES = 5  # over the training texts, with other words hidden each time


def questions(
    predictor: Predictor, batches: Iterator[Batch], *, training: bool
) -> Iterator[tuple[Tensor, ...]]:
    """Yield for each batch the texts as they are, as they are shown, and the targets."""
    task = predictor.config.task
    assert isinstance(task, MaskedBytesConfig)
    for batch in batches:
        batch_queries = predictor.task.prepare_batch(
            batch.inputs, batch.masks, None, training=training
        )
        yield (
            batch.inputs[task.modality],
            batch_queries.inputs[task.modality],
            batch_queries.targets,
        )


def neighbors(texts: Tensor) -> Tensor:
    """Return a number for the pair of neighbors of each byte; nothing stands beyond both ends."""
    padded = torch.nn.functional.pad(texts, (1, 1))
    return padded[:, :-2] * VOCAB_SIZE + padded[:, 2:]


class Trigrams:
    """Counts of bytes between each pair of neighbors.

    Args:
        seen: Which texts neighbors are taken from: (as they are, as they are shown) -> one of them.
    """

    def __init__(self, seen: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.seen = seen
        self.counts = torch.zeros(VOCAB_SIZE**2 * VOCAB_SIZE, dtype=torch.int32)

    def learn(self, real: Tensor, shown: Tensor, targets: Tensor) -> None:
        """Count the hidden bytes of a batch."""
        is_target = targets != IGNORED
        cells = neighbors(self.seen(real, shown))[is_target] * VOCAB_SIZE + targets[is_target]
        self.counts += torch.bincount(cells, minlength=len(self.counts)).int()

    def right(self, real: Tensor, shown: Tensor, targets: Tensor) -> tuple[int, int]:
        """Return the number of correctly predicted hidden bytes of a batch, and the number of all."""
        is_target = targets != IGNORED
        table = self.counts.view(VOCAB_SIZE**2, VOCAB_SIZE)
        cells = neighbors(self.seen(real, shown))[is_target]
        answers = table[cells].argmax(dim=-1)
        never = table[cells].sum(dim=-1) == 0
        answers[never] = table.sum(dim=0).argmax()
        return int((answers == targets[is_target]).sum()), int(is_target.sum())


def main() -> None:
    """Print the shares of hidden bytes that the run and the trigrams predict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", help="by default as `perceivers evaluate`")
    args = parser.parse_args()
    torch.manual_seed(0)
    predictor = load_predictor(args.run, device="cpu")
    # All of the training texts are counted, not only the part of each piece that is read where nothing is random.
    source = all_chunks(predictor, open_for_run(predictor))
    split = choose_split(source, args.split, own=True)
    models = {
        "neighbors as shown": Trigrams(lambda _real, shown: shown),
        "neighbors as they are": Trigrams(lambda real, _shown: real),
    }
    for _ in range(_PASSES):
        for found in questions(
            predictor, iter(loader_for(predictor, source, "train")), training=True
        ):
            for model in models.values():
                model.learn(*found)
    found = {"run": evaluate_source(predictor, source, split).metrics["accuracy"]}
    for name, model in models.items():
        batches = questions(predictor, iter(loader_for(predictor, source, split)), training=False)
        sums = [sum(part) for part in zip(*(model.right(*one) for one in batches), strict=True)]
        found[name] = sums[0] / sums[1]
    print(json.dumps({"split": split, **{name: round(value, 4) for name, value in found.items()}}))


if __name__ == "__main__":
    main()
