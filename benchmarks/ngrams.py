"""Loss of n-grams of tokens with Kneser-Ney smoothing: the baseline of a model of the next token.

They learn from the training split of a run and predict the tokens that the run predicts, each from the tokens before it
in its chunk. Probabilities of all tokens add up to one.

    python -m benchmarks.ngrams RUN [--order 5] [--transpose 5] [--split test]

Reference: interpolated Kneser-Ney smoothing as in Chen and Goodman (1998), with one discount for each order.
"""

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from perceivers.data.modalities.music.events import transpose_events
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.chunking import chunk_samples
from perceivers.evaluation.evaluate import choose_split, evaluate_source, loader_for, open_for_run
from perceivers.evaluation.generation_formats import vocabulary_of
from perceivers.evaluation.predict import Predictor, load_predictor

Context = tuple[int, ...]


class KneserNey:
    """Interpolated Kneser-Ney n-grams.

    Args:
        sequences: Tokens of the training data, each sequence behind the token of its start.
        order: Tokens of an n-gram.
        size: Number of tokens that may follow.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], *, order: int, size: int) -> None:
        self.order, self.size = order, size
        self.counts = [defaultdict[Context, Counter[int]](Counter) for _ in range(order)]
        longest = self.counts[-1]
        for tokens in sequences:
            for place in range(1, len(tokens)):
                context = tuple(tokens[max(place - order + 1, 0) : place])
                if len(context) == order - 1:
                    longest[context][tokens[place]] += 1
                else:  # at the start of a sequence there is nothing before
                    self.counts[len(context)][context][tokens[place]] += 1
        # Of shorter contexts, each different token before them counts once.
        for shorter, longer in pairwise(self.counts[::-1]):
            for context, following in shorter.items():
                for token in following:
                    longer[context[1:]][token] += 1
        self.totals = [{c: f.total() for c, f in table.items()} for table in self.counts]
        self.discounts = [_discount(table.values()) for table in self.counts]

    def probability(self, context: Context, token: int) -> float:
        """Return the probability of a token after a context of less than `order` tokens."""
        lower = 1 / self.size
        for length in range(len(context) + 1):
            part = context[len(context) - length :]
            following = self.counts[length].get(part)
            if following is None:
                continue
            total, discount = self.totals[length][part], self.discounts[length]
            kept = max(following.get(token, 0) - discount, 0.0)
            lower = (kept + discount * len(following) * lower) / total
        return lower

    def nats(self, tokens: Sequence[int]) -> Iterator[float]:
        """Yield the loss of each token after the start."""
        for place in range(1, len(tokens)):
            context = tuple(tokens[max(place - self.order + 1, 0) : place])
            yield -math.log(self.probability(context, tokens[place]))


def _discount(tables: Iterable[Counter[int]]) -> float:
    """Return the discount of an order, from its n-grams that occur once and twice."""
    seen = Counter(count for following in tables for count in following.values())
    return seen[1] / (seen[1] + 2 * seen[2]) if seen[1] and seen[2] else 0.5


def all_chunks(predictor: Predictor, source: DatasetBundle) -> DatasetBundle:
    """Return the data of a run with its training samples cut into chunks, too, so that all of their tokens are read."""
    ((name, preprocess),) = predictor.preprocess.items()
    chunking = preprocess.chunking()
    assert chunking is not None
    return chunk_samples(source, name, preprocess.max_length, chunking)


def sequences(predictor: Predictor, source: DatasetBundle, split: str) -> Iterator[list[int]]:
    """Yield the tokens of each chunk of a split, behind the start."""
    vocabulary = vocabulary_of(predictor)
    (name,) = predictor.preprocess
    for batch in loader_for(predictor, source, split):
        ids, real = vocabulary.tokens(batch.inputs[name], batch.masks.get(name))
        for row, kept in zip(ids, real, strict=True):
            yield [vocabulary.start, *row[kept].tolist()]


def transposed(tokens: list[int], most: int) -> Iterator[list[int]]:
    """Yield the events of music in all keys up to so many semitones away."""
    for semitones in range(-most, most + 1):
        moved = transpose_events(np.array(tokens[1:], dtype=np.int16), semitones)
        yield [tokens[0], *moved.tolist()]


def main() -> None:
    """Print the losses of the run and of n-grams in nats per token."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--order", type=int, default=5, help="tokens of the longest n-gram")
    parser.add_argument("--transpose", type=int, default=0, help="semitones, of music")
    parser.add_argument("--split", help="by default as `perceivers evaluate`")
    args = parser.parse_args()
    predictor = load_predictor(args.run, device="cpu")
    source = all_chunks(predictor, open_for_run(predictor))
    split = choose_split(source, args.split, own=True)
    train = [*sequences(predictor, source, "train")]
    if args.transpose:
        train = [moved for one in train for moved in transposed(one, args.transpose)]
    found = {"run": evaluate_source(predictor, source, split).metrics["loss"]}
    held_out = [*sequences(predictor, source, split)]
    size = len(vocabulary_of(predictor).data_tokens)
    for order in range(1, args.order + 1):
        model = KneserNey(train, order=order, size=size)
        losses = [loss for tokens in held_out for loss in model.nats(tokens)]
        found[f"{order}-grams"] = sum(losses) / len(losses)
    rounded = {name: round(value, 4) for name, value in found.items()}
    print(json.dumps({"split": split, "tokens": sum(len(one) - 1 for one in held_out), **rounded}))


if __name__ == "__main__":
    main()
