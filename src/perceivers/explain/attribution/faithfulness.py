"""Faithfulness of maps: the probability of a class as elements are deleted, or inserted, in the order of a map.

Deleted elements leave the softmax of every cross-attention, as padding does. No value has to replace them, so that
every modality can be measured in the same way.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.base import nearest
from perceivers.explain.attribution.attention import check_single
from perceivers.explain.attribution.attribute import MAPS, attribute
from perceivers.explain.attribution.rollup import relevance
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved
from perceivers.inputs.elements import Elements
from perceivers.models.ensemble import average_outputs, members_of
from perceivers.tasks.registry import TaskConfig, build_task
from perceivers.typing import Bool, Float, Tensor

BASELINES = ("gradients", "random")
"""Orders that maps are compared with: the norm of the gradient by each element's content, and a random order."""

STEPS = 11
BATCH = 64

Array = npt.NDArray[np.float32]
Probability = Callable[[Any], Float[Tensor, " B"]]
"""Function from a batch of outputs of the model to the probability of a class."""
MeanAndError = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Deletion and insertion curves of one sample.

    Attributes:
        fractions: Fraction of the real elements that is deleted, or inserted, from 0 to 1.
        deletion: By map, probability of the class as its strongest elements are deleted first. Lower is better.
        insertion: By map, the same as its strongest elements are inserted first. Higher is better.
    """

    fractions: Array
    deletion: dict[str, Array]
    insertion: dict[str, Array]

    def areas(self) -> dict[str, tuple[float, float]]:
        """Return the areas under the deletion and the insertion curve of each map, by trapezoids."""

        def area(curve: Array) -> float:
            return float(((curve[1:] + curve[:-1]) / 2 * np.diff(self.fractions)).sum())

        return {
            name: (area(self.deletion[name]), area(self.insertion[name])) for name in self.deletion
        }


@dataclass(frozen=True, kw_only=True)
class MeanCurves(Curves):
    """Mean of the curves of several samples.

    Attributes:
        samples: Number of samples.
        errors: By map, standard errors of both mean areas over samples.
        gains: By map, mean and standard error of the difference to the random map: how much lower the deletion area of
            a sample is, and how much higher its insertion area.
    """

    samples: int
    errors: dict[str, tuple[float, float]]
    gains: dict[str, tuple[MeanAndError, MeanAndError]]


def deletion_curves(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    probability: Probability,
    maps: Mapping[str, Float[Tensor, " M"]],
    steps: int = STEPS,
) -> Curves:
    """Return the deletion and insertion curves of one sample.

    Args:
        model: A `Perceiver` or an `Ensemble`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for padded modalities, True where an element is real.
        probability: Function from a batch of outputs to the probability of the class.
        maps: By name, one number for each element.
        steps: Number of points of each curve.

    Reference: Petsiuk, Das and Saenko, "RISE" (arXiv:1806.07421), section 4.2, where pixels become gray or blurred
    instead of being left out.
    """
    check_single(inputs)
    fractions = torch.linspace(0, 1, steps)
    with torch.inference_mode():
        elements = [member.elements(inputs, masks) for member in members_of(model)]
        real = _real_elements(elements[0])
        counts = (fractions * int(real.sum())).round().long()
        top = [_top_masks(values.to(real.device), real, counts) for values in maps.values()]
        # Deletion keeps the elements that are not yet inserted.
        rows = torch.cat([part for inserted in top for part in (real & ~inserted, inserted)])
        batches = [
            probability(_masked_outputs(model, elements, part, inputs, masks))
            for part in rows.split(BATCH)
        ]
    found = torch.cat(batches).float().cpu().numpy().reshape(len(maps), 2, steps)
    return Curves(
        fractions=fractions.numpy(),
        deletion={name: found[place, 0] for place, name in enumerate(maps)},
        insertion={name: found[place, 1] for place, name in enumerate(maps)},
    )


def all_maps(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    probability: Probability,
    index: int | None = None,
    output: str | None = None,
    seed: int = 0,
) -> dict[str, Float[Tensor, " M"]]:
    """Return every map of `MAPS` and `BASELINES` for one sample."""
    found = attribute(model, inputs, masks, output=output)
    maps = {kind: found.summary(kind) for kind in MAPS if kind != "class"}
    maps["class"] = relevance(model, inputs, masks, index=index, output=output)
    maps["gradients"] = input_gradients(model, inputs, masks, probability=probability)
    maps["random"] = torch.rand(len(maps["mean"]), generator=torch.Generator().manual_seed(seed))
    return maps


def input_gradients(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    probability: Probability,
) -> Float[Tensor, " M"]:
    """Return the norm of the gradient of the log probability by the content of each element, the mean over members.

    Reference: Simonyan, Vedaldi and Zisserman (arXiv:1312.6034), section 3, by element instead of by pixel.
    """
    how: dict[str, Any] = {"probability": probability}
    norms = [_member_gradients(one, inputs, masks, **how) for one in members_of(model)]
    return torch.stack(norms).mean(dim=0)


def _member_gradients(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    *,
    probability: Probability,
) -> Float[Tensor, " M"]:
    """Return the norms of the gradients of a single model, as `input_gradients` does."""
    with torch.no_grad():
        elements = model.elements(inputs, masks)
    contents = [part.content.detach().clone().requires_grad_() for part in elements]
    parts = [replace(part, content=x) for part, x in zip(elements, contents, strict=True)]
    with torch.enable_grad():
        outputs = model.decode(model.encoder(parts), inputs, masks, elements=parts)
        score = probability(outputs)[0].clamp_min(1e-12).log()
        gradients: Any = torch.autograd.grad(score, contents, allow_unused=True)
    norms = [
        torch.zeros(x.shape[1]) if gradient is None else gradient[0].norm(dim=-1).cpu()
        for x, gradient in zip(contents, gradients, strict=True)
    ]
    return torch.cat(norms)


def mean_curves(found: Sequence[Curves]) -> MeanCurves:
    """Return the mean of the curves of at least one sample, with standard errors."""
    if not found:
        raise ValueError("Expected the curves of at least one sample, got none.")
    names = list(found[0].deletion)
    areas = {name: np.array([one.areas()[name] for one in found]) for name in names}
    gains: dict[str, tuple[MeanAndError, MeanAndError]] = {}
    if "random" in names:
        for name in names:
            lower = (areas["random"] - areas[name])[:, 0]
            higher = (areas[name] - areas["random"])[:, 1]
            gains[name] = (_mean_and_error(lower), _mean_and_error(higher))
    return MeanCurves(
        fractions=found[0].fractions,
        deletion={name: np.mean([one.deletion[name] for one in found], axis=0) for name in names},
        insertion={name: np.mean([one.insertion[name] for one in found], axis=0) for name in names},
        samples=len(found),
        errors={
            name: (_mean_and_error(both[:, 0])[1], _mean_and_error(both[:, 1])[1])
            for name, both in areas.items()
        },
        gains=gains,
    )


def curves_of_files(
    saved: Saved, files: Iterable[Any], *, about: str | None = None, task: str | None = None
) -> Iterator[Curves]:
    """Yield the curves of each sample, of all maps and baselines.

    Args:
        saved: Result of `perceivers.hub.checkpoint.load`.
        files: Samples as in `perceivers.explain.attribution.sample.read_sample`.
        about: Class whose probability is measured. By default the predicted one.
        task: Name of the task, of several. By default the first.

    Raises:
        ValueError: If the run has no classes, or no such class or task, or a sample cannot be decoded.
    """
    config = saved.config.task
    if config is None:
        raise ValueError(
            f"The model in {saved.folder} was saved without its labels, so it has no class to measure."
        )
    output, config = config.select_subtask(task)
    wanted, model = class_index(config, about), saved.model.eval()
    device = next(model.parameters()).device
    class_probability(config, 0, output)
    for place, file in enumerate(files):
        sample = read_sample(saved, file)
        inputs, masks = sample.to(device)
        index = wanted
        if index is None:
            with torch.inference_mode():
                outputs: Any = model(inputs, masks)
            index = int((outputs[output] if output else outputs)[0].argmax())
        probability = class_probability(config, index, output)
        how: dict[str, Any] = {"index": index, "output": output, "seed": place}
        maps = all_maps(model, inputs, masks, probability=probability, **how)
        yield deletion_curves(model, inputs, masks, probability=probability, maps=maps)


def class_index(task: TaskConfig, name: str | None) -> int | None:
    """Return the index of a class in the output, or None if no class was named."""
    if name is None:
        return None
    names = task.output_names
    if name not in names:
        known = f"{len(names)} classes" if len(names) > 12 else ", ".join(names) or "none"
        raise ValueError(
            f"There is no class '{name}' to explain; the run learned {known}.{nearest(name, names)}"
        )
    return names.index(name)


def class_probability(task: TaskConfig, index: int, output: str | None) -> Probability:
    """Return the function from a batch of outputs of the model to the probability of one class."""
    learned = build_task(task)
    if not learned.has_classes:
        raise ValueError(
            "Deletion and insertion curves show the probability of a class, and this run learned "
            f"{task.kind.replace('_', ' ')}: expected a task of classes or labels."
        )
    return lambda outputs: learned.probabilities(outputs if output is None else outputs[output])[
        :, index
    ]


def _real_elements(elements: Sequence[Elements]) -> Bool[Tensor, " M"]:
    device = elements[0].content.device
    return torch.cat(
        [
            torch.ones(part.num_elements, dtype=torch.bool, device=device)
            if part.mask is None
            else part.mask[0].expand(part.num_elements)
            for part in elements
        ]
    )


def _top_masks(
    values: Float[Tensor, " M"], real: Bool[Tensor, " M"], counts: Tensor
) -> Bool[Tensor, "S M"]:
    """Return the mask of the strongest real elements for each count. Of equal elements, the first comes first."""
    places = real.nonzero()[:, 0]
    order = places[values[places].argsort(descending=True, stable=True)]
    rank = torch.full_like(real, 0, dtype=torch.long)
    rank[order] = torch.arange(1, len(order) + 1, device=real.device)
    return real & (rank <= counts.to(real.device)[:, None]) & (rank > 0)


def _masked_outputs(
    model: Any,
    elements: Sequence[Sequence[Elements]],
    kept: Bool[Tensor, "B M"],
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
) -> Any:
    """Return the outputs of the model with a part of the elements of each member, for each row of `kept`."""
    batch, counts = len(kept), [part.num_elements for part in elements[0]]
    repeated = {name: x.expand(batch, *x.shape[1:]) for name, x in inputs.items()}
    shown = {name: x.expand(batch, *x.shape[1:]) for name, x in (masks or {}).items()}
    outputs: list[Any] = []
    for member, own in zip(members_of(model), elements, strict=True):
        parts = [
            _repeat_elements(part, batch, mask)
            for part, mask in zip(own, kept.split(counts, dim=1), strict=True)
        ]
        outputs.append(member.decode(member.encoder(parts), repeated, shown, elements=parts))
    return average_outputs(model, outputs)


def _repeat_elements(part: Elements, batch: int, mask: Bool[Tensor, "B M"]) -> Elements:
    positions, hidden = part.positions, part.masked
    if isinstance(positions, Tensor) and positions.ndim == 3:
        positions = positions.expand(batch, -1, -1)
    if hidden is not None:
        hidden = replace(hidden, where=hidden.where.expand(batch, -1))
    content = part.content.expand(batch, -1, -1)
    return replace(part, content=content, positions=positions, mask=mask, masked=hidden)


def _mean_and_error(values: npt.NDArray[np.float64]) -> MeanAndError:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread / len(values) ** 0.5
