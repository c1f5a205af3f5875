"""Next token: an autoregressive model predicts each token of a sequence from those before it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy

from perceivers.registry import configclass
from perceivers.tasks.base import PredictionRequest, TaskBatch, forward_task, to_float
from perceivers.tasks.byte_tokens import IGNORED, ByteMeter, ByteTask
from perceivers.tasks.config import BaseTaskConfig
from perceivers.tasks.prediction import Prediction
from perceivers.tasks.registry import register_task
from perceivers.tasks.vocabulary import BaseVocabulary, ByteVocabulary, VocabularyConfig
from perceivers.typing import Bool, Float, Int, Tensor, Tensors


@configclass
class NextTokenTaskConfig(BaseTaskConfig):
    """Prediction of the next token of sequences.

    Attributes:
        modality: Input that is the sequence.
        vocabulary: Tokens of the sequences: bytes of texts, or another registered vocabulary.
        shortest_crop: In training sequences end at a random token, so that contexts of all lengths are learned; at the
            earliest after so many tokens.
        context: Tokens at the start of a sequence that are neither learned nor measured, only those after them.
        z_loss: Weight of the squared logarithm of the sum of exponentials, which keeps logits small. DeepMind's
            release has 1e-4.
    """

    kind: Literal["next_token"] = "next_token"
    modality: str = "text"
    vocabulary: VocabularyConfig = field(default_factory=ByteVocabulary)
    shortest_crop: int = 64
    context: int = 0
    z_loss: float = 1e-4

    def __post_init__(self) -> None:
        if self.shortest_crop < 1 or min(self.context, self.z_loss) < 0:
            raise ValueError(
                "Expected a shortest_crop of at least 1, a context and a z_loss of at least 0, got "
                f"{self.shortest_crop}, {self.context} and {self.z_loss}."
            )

    def fit_to_inputs(
        self,
        inputs: Mapping[str, Any],
        preprocess: Mapping[str, Any],
    ) -> "NextTokenTaskConfig":
        """Return the configuration with a vocabulary of the sequences' sizes.

        Raises:
            ValueError: If the vocabulary does not fit the sequences.
        """
        return replace(self, vocabulary=self.vocabulary.fit_to(preprocess[self.modality]))

    def fit_encoder(self, encoder: Any) -> Any:
        """Return the configuration of the encoder with the sizes that the vocabulary determines."""
        return self.vocabulary.fit_encoder(encoder)

    def check_sample(self, values: Mapping[str, Any], name: str) -> None:
        """Check that the next token of a sample can be predicted.

        Raises:
            ValueError: If its vocabulary refuses.
        """
        self.vocabulary.check_sample(name)

    @property
    def next_commands(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Commands that `fit` names at its end."""
        return "evaluate RUN", f"generate RUN {self.vocabulary.generate_flags}"

    @property
    def chunked_modality(self) -> str | None:
        """Sequences are split into chunks of the model's length if the vocabulary states so."""
        return self.modality if self.vocabulary.is_chunked else None

    @property
    def chunk_step(self) -> int | None:
        """Elements at the end of a chunk that are predicted."""
        return self.vocabulary.chunk_step


class NextTokenTask(ByteTask):
    """Language modeling: targets are made from the sequence.

    In evaluation every token of a sequence is predicted from all tokens of it before: the model reads the first N
    tokens, the first 2N, and so on, where N is its number of latents.

    Reference: Perceiver AR (arXiv:2202.07765); crops and z-loss are those of its release.
    """

    config: NextTokenTaskConfig
    higher_is_better = False
    score_name = "accuracy"
    explain_as = "classification"
    explains_outputs = True
    answer_fields = ("text", "probability", "blanks")
    optional_answer_fields = ()

    @property
    def main_metric(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bits for each token, named after what it stands for: `bits_per_byte`."""
        return f"bits_per_{self.config.vocabulary.unit}"

    @property
    def has_classes(self) -> bool:
        """Tokens are no classes: by default the roll-up is shown, and the elements cannot be deleted one by one."""
        return False

    @property
    def generates_text(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the tokens are those of texts."""
        return self.config.vocabulary.is_text

    @property
    def num_outputs(self) -> int:
        """Number of tokens."""
        return self.config.vocabulary.size

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the sequences, shifted behind the start and padded on the left, and the token that follows each."""
        name, vocabulary = self.config.modality, self.config.vocabulary
        read = vocabulary.training_tokens if training else vocabulary.tokens
        ids, real = read(inputs[name], masks.get(name))
        if training and vocabulary.is_cropped:
            first = min(self.config.shortest_crop, ids.shape[1])
            end = int(torch.randint(first, ids.shape[1] + 1, ()))
            ids, real = ids[:, :end], real[:, :end]
        tokens = torch.cat([torch.full_like(ids[:, :1], vocabulary.start), ids[:, :-1]], dim=1)
        following = ids.masked_fill(~vocabulary.measured(ids, real), IGNORED)
        following[:, : self.config.context] = IGNORED
        tokens, following, left = _aligned(tokens, following, real)
        return TaskBatch(
            inputs={**inputs, name: tokens},
            masks=masks if bool(left.all()) and name not in masks else {**masks, name: left},
            targets=following.masked_fill(~left, IGNORED),
        )

    def prediction_batch(self, inputs: Tensors, masks: Tensors) -> TaskBatch:
        """Return whole sequences behind the start, whose next token is predicted."""
        name, vocabulary = self.config.modality, self.config.vocabulary
        ids, real = vocabulary.tokens(inputs[name], masks.get(name))
        tokens = torch.cat([torch.full_like(ids[:, :1], vocabulary.start), ids], dim=1)
        real = torch.cat([torch.ones_like(real[:, :1]), real], dim=1)
        tokens, _, left = _aligned(tokens, tokens, real)
        return TaskBatch(inputs={**inputs, name: tokens}, masks={**masks, name: left}, targets=None)

    def infer(self, model: Any, batch: TaskBatch) -> Float[Tensor, "B L K"]:
        """Return the logits at every token; of a prediction those of the last latents."""
        if batch.targets is None:
            return super().infer(model, batch)
        name = self.config.modality
        tokens, mask = batch.inputs[name], batch.masks.get(name)
        parts: list[Tensor] = []
        end = tokens.shape[1]
        while end > 0:
            part = replace(
                batch,
                inputs={**batch.inputs, name: tokens[:, :end]},
                masks={**batch.masks, **({} if mask is None else {name: mask[:, :end]})},
            )
            parts.append(forward_task(model, part).float())
            end -= parts[-1].shape[1]
        return torch.cat(parts[::-1], dim=1)

    def loss(
        self, outputs: Float[Tensor, "B n K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy over the tokens that are predicted, in nats, plus the z-loss."""
        targets = targets[:, -outputs.shape[1] :]
        kept = targets != IGNORED
        logits = to_float(outputs)[kept]
        if not len(logits):
            return outputs.sum() * 0.0
        loss = cross_entropy(logits, targets[kept])
        if self.config.z_loss:
            loss = loss + self.config.z_loss * logits.logsumexp(dim=-1).square().mean()
        return loss

    def training_score(
        self, outputs: Float[Tensor, "B n K"], targets: Int[Tensor, "B L"]
    ) -> Float[Tensor, ""]:
        """Return the share of tokens that are predicted correctly, times the samples."""
        targets = targets[:, -outputs.shape[1] :]
        kept = targets != IGNORED
        correct = (outputs.argmax(dim=-1) == targets) & kept
        return correct.sum() / kept.sum().clamp_min(1) * outputs.shape[0]

    def meter(self) -> "NextTokenMeter":
        """Return a new meter."""
        return NextTokenMeter(self.config.vocabulary)

    def predictions(
        self, outputs: Float[Tensor, "B n K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield each sequence with its most probable next token; `perceivers generate` continues it."""
        name, vocabulary = self.config.modality, self.config.vocabulary
        tokens = request.batch.inputs[name].cpu()
        mask = request.batch.masks.get(name)
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.cpu()
        shares = self._next_logits(outputs).softmax(dim=-1).cpu()
        for row, title in enumerate(request.names):
            most = min(max(request.top, 1), len(vocabulary.data_tokens), shares.shape[1])
            best = shares[row].topk(most)
            found = best.indices.tolist()
            names = (vocabulary.token_name(token) for token in found)
            listed = tuple(zip(names, best.values.tolist(), strict=True))
            yield Prediction(
                name=title,
                text=vocabulary.text([*tokens[row][real[row]].tolist(), found[0]]),
                probability=listed[0][1],
                blanks=(listed,),
                filled=(listed[0],),
            )

    def check_exportable(self) -> None:
        """Refuse: a graph of one pass has no cache.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "Runs of the next token cannot be exported: they generate token by token with a cache, which a graph of "
            "one pass lacks. `perceivers generate` uses them; config.json and model.safetensors hold their weights."
        )

    def check_explainable(self) -> None:
        """Refuse sequences that are not the bytes of texts, which no view shows.

        Raises:
            ValueError: If the vocabulary is none of bytes.
        """
        vocabulary = self.config.vocabulary
        if not (vocabulary.is_text and vocabulary.is_of_elements):
            raise ValueError(
                f"Predictions of the vocabulary '{vocabulary.kind}' cannot be explained yet: expected a run on the "
                "bytes of texts, or one with labels or masked bytes."
            )

    def explained_output(
        self,
        inputs: Tensors,
        masks: Tensors,
        outputs: Any,
        query: int | None,
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return name and probability of each possible next token."""
        logits = self._next_logits(outputs)[0]
        kept = [token for token in self.config.vocabulary.data_tokens if token < len(logits)]
        names = tuple(self.config.vocabulary.token_name(token) for token in kept)
        return names, logits.softmax(dim=-1)[kept]

    def _next_logits(self, outputs: Float[Tensor, "B n K"]) -> Float[Tensor, "B k"]:
        """Return the logits of the next token, minus infinity for special ones."""
        vocabulary = self.config.vocabulary
        logits = outputs[:, -1, : vocabulary.size].float()
        special = sorted({*range(vocabulary.size)} - {*vocabulary.data_tokens})
        return logits.index_fill(1, torch.tensor(special, device=logits.device), -math.inf)


class NextTokenMeter(ByteMeter):
    """Metrics of all predicted tokens.

    Args:
        vocabulary: Names the tokens.
    """

    def __init__(self, vocabulary: BaseVocabulary) -> None:
        super().__init__()
        self._bits, self._count = f"bits_per_{vocabulary.unit}", vocabulary.units

    def update(self, outputs: Float[Tensor, "B n K"], targets: Int[Tensor, "B L"]) -> None:
        """Add one batch: logits, and the tokens, of which the last are predicted."""
        super().update(outputs, targets[:, -outputs.shape[1] :])

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        `bits_per_byte` for bytes; `loss`: the same in nats; `perplexity`: its exponential; `accuracy`: share of the
        tokens that are the most probable ones; `bytes`: their number; `samples`: sequences.
        """
        nats, correct, count, sequences = self.sums.tolist()
        each = max(count, 1.0)
        return {
            self._bits: nats / each / math.log(2),
            "loss": nats / each,
            "perplexity": math.exp(min(nats / each, 700)),
            "accuracy": correct / each,
            self._count: count,
            "samples": sequences,
        }

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the sequences, whose tokens depend on each other."""
        nats, correct, count = rows.unbind(dim=1)
        return {
            self._bits: nats / count / math.log(2),
            "loss": nats / count,
            "perplexity": (nats / count).exp(),
            "accuracy": correct / count,
        }


def _aligned(
    tokens: Int[Tensor, "B L"], following: Int[Tensor, "B L"], real: Bool[Tensor, "B L"]
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """Return tokens and those that follow them padded on the left instead of at the end, and which are real."""
    # Padding comes first and the order of real tokens stays.
    order = real.to(torch.int8).sort(dim=1, stable=True).indices
    return tokens.gather(1, order), following.gather(1, order), real.gather(1, order)


register_task(NextTokenTaskConfig, NextTokenTask)
