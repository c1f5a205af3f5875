"""Whether a map is faithful: what becomes of the answer as elements are taken away, or given back, in its order.

Taken away means: not read. An element leaves the softmax of every read as padding does, so no made-up color or sound
has to stand in its place, and every modality can be asked in the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from perceivers.explain.attribution.attribute import MAPS, look, summary_of
from perceivers.explain.attribution.cross_attention_maps import check_single
from perceivers.inputs.elements import Elements
from perceivers.models.decoder import PerceiverDecoder
from perceivers.typing import Bool, Float, Tensor

BESIDE = ("gradients", "random")
"""What maps are held against: the length of the answer's gradient by each element's content, and chance."""

STEPS = 11
BATCH = 64

Array = npt.NDArray[np.float32]
Answer = Callable[[Any], Float[Tensor, " B"]]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """How sure a model stays of one sample.

    Attributes:
        fractions: What part of the real elements was taken away (deletion) or is there (insertion), from 0 to 1.
        deletion: By the name of a map, the probability of the class as its strongest elements go first. The lower, the
            more the map names what the answer rests on.
        insertion: The same as its strongest elements come first, where there were none. The higher, the better.
    """

    fractions: Array
    deletion: dict[str, Array]
    insertion: dict[str, Array]

    def areas(self) -> dict[str, tuple[float, float]]:
        """Return the area under both curves by map: the mean probability, by trapezoids."""
        return {
            name: (
                _area(self.deletion[name], self.fractions),
                _area(self.insertion[name], self.fractions),
            )
            for name in self.deletion
        }


@dataclass(frozen=True, kw_only=True)
class MeanCurves(Curves):
    """The mean of the curves of many samples.

    Attributes:
        samples: How many.
        errors: By map, the standard error of both mean areas, from the spread over samples.
        gains: By map, how much lower the deletion area of a sample is than with the random map, and how much higher
            the insertion area; each with its standard error.
    """

    samples: int
    errors: dict[str, tuple[float, float]]
    gains: dict[str, tuple[tuple[float, float], tuple[float, float]]]


def curves_of(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    answer: Answer,
    maps: Mapping[str, Float[Tensor, " M"]],
    steps: int = STEPS,
) -> Curves:
    """Return the curves of one sample for some maps.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for modalities that were padded, True where an element is real.
        answer: Outputs of the model for a batch -> how sure it is of the class, for each sample of the batch.
        maps: By name, one number for each element, in the order in which they are read.
        steps: Points of each curve.

    Source: deletion and insertion as in Petsiuk, Das and Saenko, "RISE" (arXiv:1806.07421), section 4.2, where pixels
    become gray or blurred instead of being left out.
    """
    check_single(inputs)
    fractions = torch.linspace(0, 1, steps)
    with torch.inference_mode():
        elements = model.elements(inputs, masks)
        real = _real(elements)
        places = real.nonzero()[:, 0]
        counts = (fractions * len(places)).round().long()
        kept = {
            name: _nested(values.to(real.device), real, places, counts)
            for name, values in maps.items()
        }
        # Deletion keeps what insertion does not have yet.
        rows = torch.cat([part for own in kept.values() for part in (real & ~own, own)])
        sure = torch.cat(
            [_asked(model, elements, part, inputs, masks, answer) for part in rows.split(BATCH)]
        )
    found = sure.float().cpu().numpy().reshape(len(maps), 2, steps)
    return Curves(
        fractions=fractions.numpy(),
        deletion={name: found[place, 0] for place, name in enumerate(maps)},
        insertion={name: found[place, 1] for place, name in enumerate(maps)},
    )


def maps_of(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    answer: Answer,
    index: int | None = None,
    output: str | None = None,
    seed: int = 0,
) -> dict[str, Float[Tensor, " M"]]:
    """Return every map of `MAPS`, and of `BESIDE`, for one sample.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality.
        masks: For modalities that were padded.
        answer: As for `curves_of`.
        index: Which number of the answer is the class. By default the largest.
        output: Of several outputs, which.
        seed: Of the random map.
    """
    seen = look(model, inputs, masks, output=output)
    found = {
        kind: summary_of(seen, kind, model, inputs, masks, index=index, output=output)
        for kind in MAPS
    }
    found["gradients"] = input_gradients(model, inputs, masks, answer=answer)
    count = len(found["mean"])
    found["random"] = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return found


def input_gradients(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    answer: Answer,
) -> Float[Tensor, " M"]:
    """Return the length of the gradient of the logarithm of the answer by the content of each element.

    Source: Simonyan, Vedaldi and Zisserman (arXiv:1312.6034), section 3, by element instead of by pixel.
    """
    with torch.no_grad():
        elements = model.elements(inputs, masks)
    contents = [part.content.detach().clone().requires_grad_() for part in elements]
    parts = [replace(part, content=own) for part, own in zip(elements, contents, strict=True)]
    with torch.enable_grad():
        outputs = _outputs(model, model.encoder(parts), inputs, masks)
        sure = answer(outputs)[0].clamp_min(1e-12).log()
        slopes = torch.autograd.grad(sure, contents, allow_unused=True)
        found = cast("Sequence[Tensor | None]", slopes)
    lengths = [
        torch.zeros(own.shape[1]) if slope is None else slope[0].norm(dim=-1).cpu()
        for own, slope in zip(contents, found, strict=True)
    ]
    return torch.cat(lengths)


def mean_curves(found: Sequence[Curves]) -> MeanCurves:
    """Return the mean of the curves of samples, and how sure it is.

    Raises:
        ValueError: If there are none.
    """
    if not found:
        raise ValueError("Expected the curves of at least one sample, got none.")
    names = list(found[0].deletion)
    areas = {name: np.array([one.areas()[name] for one in found]) for name in names}
    gains: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {}
    if "random" in names:
        for name in names:
            lower, higher = (
                (areas["random"] - areas[name])[:, 0],
                (areas[name] - areas["random"])[:, 1],
            )
            gains[name] = (_mean(lower), _mean(higher))
    return MeanCurves(
        fractions=found[0].fractions,
        deletion={name: np.mean([one.deletion[name] for one in found], axis=0) for name in names},
        insertion={name: np.mean([one.insertion[name] for one in found], axis=0) for name in names},
        samples=len(found),
        errors={name: (_mean(own[:, 0])[1], _mean(own[:, 1])[1]) for name, own in areas.items()},
        gains=gains,
    )


def _real(elements: Sequence[Elements]) -> Bool[Tensor, " M"]:
    device = elements[0].content.device
    return torch.cat(
        [
            torch.ones(part.num_elements, dtype=torch.bool, device=device)
            if part.mask is None
            else part.mask[0].expand(part.num_elements)
            for part in elements
        ]
    )


def _nested(
    values: Float[Tensor, " M"], real: Tensor, places: Tensor, counts: Tensor
) -> Bool[Tensor, "S M"]:
    """Return, for each count, which elements are the strongest so many of the real ones. Ties: the first one first."""
    order = places[values[places].argsort(descending=True, stable=True)]
    rank = torch.full_like(real, 0, dtype=torch.long)
    rank[order] = torch.arange(1, len(order) + 1, device=real.device)
    return real & (rank <= counts.to(real.device)[:, None]) & (rank > 0)


def _asked(
    model: Any,
    elements: Sequence[Elements],
    kept: Bool[Tensor, "B M"],
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    answer: Answer,
) -> Float[Tensor, " B"]:
    """Return how sure the model is with some of the elements, for each row of what is kept."""
    batch, begin = len(kept), 0
    parts: list[Elements] = []
    for part in elements:
        end = begin + part.num_elements
        parts.append(_repeated(part, batch, kept[:, begin:end]))
        begin = end
    repeated = {name: x.expand(batch, *x.shape[1:]) for name, x in inputs.items()}
    shown = {name: x.expand(batch, *x.shape[1:]) for name, x in (masks or {}).items()}
    return answer(_outputs(model, model.encoder(parts), repeated, shown))


def _repeated(part: Elements, batch: int, mask: Bool[Tensor, "B M"]) -> Elements:
    positions, hidden = part.positions, part.replaced
    if isinstance(positions, Tensor) and positions.ndim == 3:
        positions = positions.expand(batch, -1, -1)
    if hidden is not None:
        hidden = replace(hidden, where=hidden.where.expand(batch, -1))
    content = part.content.expand(batch, -1, -1)
    return replace(part, content=content, positions=positions, mask=mask, replaced=hidden)


def _outputs(model: Any, states: Tensor, inputs: Any, masks: Any) -> Any:
    if isinstance(model.output, PerceiverDecoder):
        return model.decode(states, inputs, masks)
    return model.output(states)


def _area(curve: Array, fractions: Array) -> float:
    return float(((curve[1:] + curve[:-1]) / 2 * np.diff(fractions)).sum())


def _mean(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread / len(values) ** 0.5
