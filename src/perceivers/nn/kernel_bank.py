"""Bank of fixed dilated kernels over series, and statistics of their responses, standardized over the training data.

The statistics are those that random-kernel methods classify by: the share of a response above some thresholds, its
maximum, and for groups of competing kernels how often and how strongly each of them responds most.

Reference: MiniRocket (arXiv:2012.08791): 84 kernels of length 9 with weights -1 and 2, thresholds at quantiles, shares
of positive values; MultiRocket (arXiv:2102.00457): first differences as a second source; Hydra (arXiv:2203.13652):
groups of competing random kernels.
"""

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv_transpose1d, pad

from perceivers.typing import Bool, Float, Tensor

KERNEL = 9
"""Steps of a kernel."""

_TRIPLES = tuple(combinations(range(KERNEL), 3))
_GROUP = 8  # kernels that compete with each other
_MOST_MIXED = 9  # channels that a kernel sums, at most
_MOST_SUMS = 14  # sums of channels at one dilation: the 84 kernels divide into them
_LARGEST = 5.0  # of a standardized statistic
_NEVER = 1e4  # larger than any response
_NEAR = 1e-4  # responses that differ by less are equal: on a plateau they differ by rounding only
# Batches on which thresholds, and then means and deviations of statistics, are measured; and values of each of them.
_THRESHOLD_BATCHES, _BATCHES, _SAMPLED = 8, 100, 2048


class KernelBank(nn.Module):
    """Statistics of the responses of fixed kernels at each dilation, of series and of their first differences.

    The kernels are the same in every bank of a configuration. Thresholds are quantiles of the responses, measured on
    the first batches of training, and statistics are standardized by means and deviations measured on the first
    hundred; both are constant afterwards, so that training and evaluation compute the same.

    Args:
        length: Steps of a series at most.
        channels: Channels.
        thresholds: Thresholds of each of the 84 kernels.
        groups: Groups of eight competing kernels; a multiple of 4, 0 for none.
        windows: Equal windows of the configured length whose statistics are taken besides those of the whole.
        places: Steps at which a response is computed, at most; of a longer series every second, third, ... step.
    """

    parts = 4
    """Into how many groups of kernels the statistics of one source, dilation and window divide."""

    def __init__(
        self,
        length: int,
        channels: int,
        *,
        thresholds: int,
        groups: int,
        windows: int,
        places: int,
    ) -> None:
        super().__init__()
        self.length, self.thresholds, self.groups = length, thresholds, groups
        self.dilations = dilations(length)
        self.stride = -(-length // places)
        self.places = -(-length // self.stride)
        cuts = [round(self.places * n / windows) for n in range(windows + 1)] if windows > 1 else []
        self.windows = ((0, self.places), *pairwise(cuts))
        self.num_scales = 2 * len(self.dilations)
        generator = torch.Generator("cpu").manual_seed(0)
        weights = [[2.0 if n in at else -1.0 for n in range(KERNEL)] for at in _TRIPLES]
        first = torch.tensor(weights, device="cpu")
        kernels, sums = list[Tensor](), list[Tensor]()
        for _ in range(self.num_scales):
            random = torch.randn(groups * _GROUP, KERNEL, generator=generator, device="cpu")
            random = random - random.mean(dim=1, keepdim=True)
            random = random * (9 / random.abs().sum(dim=1, keepdim=True).clamp_min(1e-6))
            kernels.append(torch.cat([first, random]))
            sums.append(_sums(channels, generator))
        self.register_buffer("kernels", torch.stack(kernels))
        self.register_buffer("sums", torch.stack(sums))
        self.num_statistics = len(_TRIPLES) * (thresholds + 1) + 2 * groups * _GROUP
        elements = self.num_scales * len(self.windows)
        shape = (elements, self.parts, self.num_statistics // self.parts)
        self.register_buffer(
            "cutoffs", torch.zeros(self.num_scales, len(_TRIPLES), max(thresholds, 1))
        )
        self.register_buffer("means", torch.zeros(shape))
        self.register_buffer("variances", torch.ones(shape))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))
        self._seen = 0  # batches; `num_batches` without a synchronization
        self.register_load_state_dict_post_hook(_count)

    def take_count(self) -> None:
        """Take the number of measured batches from the buffer."""
        count = self.get_buffer("num_batches")
        self._seen = 0 if count.device.type == "meta" else int(count.item())

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B E G F"], Bool[Tensor, "B E"] | None]:
        """Return standardized statistics of E pairs of scale and window, and which have a real step.

        Args:
            x: Series of float32 or float64, zeros where nothing is real.
            mask: True where a step is real.
        """
        if x.device.type == "meta":
            return self._standardized(x, mask)
        with torch.autocast(x.device.type, enabled=False):  # shares of a step in many need float32
            return self._standardized(x, mask)

    def _standardized(
        self, x: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B E G F"], Bool[Tensor, "B E"] | None]:
        # Subclasses are tensors without data, of which memory and operations are computed.
        measures = self.training and self._seen < _BATCHES and type(x) is Tensor and not x.is_meta
        found, real = list[Tensor](), list[Tensor]()
        for number, (first, rest, there) in enumerate(self.responses(x, mask)):
            if measures and self._seen < _THRESHOLD_BATCHES:
                self._measure_cutoffs(number, first, there)
            is_real = mask is None and number < len(self.dilations)
            for begin, end in self.windows:
                window = there[:, begin:end]
                parts = first[..., begin:end], rest[..., begin:end], None if is_real else window
                found.append(self._statistics(number, *parts))
                real.append(window.any(dim=1))
        statistics, exists = torch.stack(found, dim=1), torch.stack(real, dim=1)
        if measures:
            self._measure(statistics, exists)
        scale = torch.rsqrt(self.get_buffer("variances") + 1e-6)
        statistics = (statistics - self.get_buffer("means")) * scale
        statistics = statistics.clamp(-_LARGEST, _LARGEST).masked_fill(
            ~exists[..., None, None], 0.0
        )
        # In any window of two or more places the differences have a real one, too.
        shortest = min(end - begin for begin, end in self.windows)
        is_whole = mask is None and x.shape[1] == self.length and shortest > 1
        return statistics, None if is_whole else exists

    def responses(
        self, x: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L"] | None
    ) -> Iterator[tuple[Float[Tensor, "K B P"], Float[Tensor, "R W B P"], Bool[Tensor, "B P"]]]:
        """Yield the responses of the 84 and of groups of competing kernels at each scale, and where the source is real.

        Kernels come first and places last, so that statistics over places and over competing kernels read memory in
        its order. A convolution would return another order: on a CPU its statistics took three times as long.
        """
        changes = pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        changed = mask & pad(mask[:, :-1], (1, 0), value=False)
        changes = changes.masked_fill(~changed[..., None], 0.0)
        kernels = self.get_buffer("kernels").to(x.dtype)
        sums = self.get_buffer("sums").to(x.dtype)
        for number in range(self.num_scales):
            source, real = (x, mask) if number < len(self.dilations) else (changes, changed)
            mixed = (source @ sums[number]).movedim(2, 0)
            shifted = self._shifted(mixed, self.dilations[number % len(self.dilations)])
            first, rest = kernels[number].split([len(_TRIPLES), self.groups * _GROUP])
            responses = self._convolved(shifted, first).flatten(0, 1)
            competing = responses.new_zeros(0, _GROUP, *responses.shape[1:])
            if self.groups:
                competing = self._convolved(self._for_groups(shifted), rest)
                competing = competing.reshape(self.groups, _GROUP, *shifted.shape[2:])
            yield responses, competing, real[:, :: self.stride]

    @torch.no_grad()
    def steps(
        self, x: Float[Tensor, "1 L C"], mask: Bool[Tensor, "1 L"] | None
    ) -> Float[Tensor, "E G L"]:
        """Return the share of each step in the statistics of a group: how far responses near it lie from their mean.

        Shares sum to one over the real steps of a window, or to zero if it has none.
        """
        found = list[Tensor]()
        window = x.new_ones(1, 1, KERNEL)
        for number, (first, rest, there) in enumerate(self.responses(x, mask)):
            dilation = self.dilations[number % len(self.dilations)]
            for begin, end in self.windows:
                real = there.clone()
                real[:, :begin], real[:, end:] = False, False
                kinds = list[Tensor]()
                for response in (first[:, 0], rest.flatten(0, 1)[:, 0]):
                    if response.shape[0]:
                        values = response * real
                        values = values - values.sum(dim=1, keepdim=True) / real.sum().clamp(min=1)
                        spread = values.abs() * real
                        spread = spread / spread.sum(dim=1, keepdim=True).clamp_min(1e-6)
                        kinds.append(
                            spread.unflatten(0, (self.parts, -1)).mean(dim=1) + 1e-6 * real
                        )
                places = torch.stack(kinds).mean(dim=0)[:, None]
                margin = (KERNEL // 2) * dilation
                steps = conv_transpose1d(places, window, stride=self.stride, dilation=dilation)
                steps = pad(steps, (0, self.stride))[:, 0, margin : margin + x.shape[1]]
                steps = steps if mask is None else steps * mask
                found.append(steps / steps.sum(dim=1, keepdim=True).clamp_min(1e-12))
        return torch.stack(found)

    def _shifted(self, x: Float[Tensor, "S B L"], dilation: int) -> Float[Tensor, "S W B P"]:
        """Return the value under each step of a kernel at each place; zeros around."""
        length, margin = x.shape[2], (KERNEL // 2) * dilation
        padded = pad(x, (margin, margin))
        starts = range(0, KERNEL * dilation, dilation)
        return torch.stack([padded[..., n : n + length : self.stride] for n in starts], dim=1)

    def _for_groups(self, shifted: Float[Tensor, "S W B P"]) -> Float[Tensor, "G W B P"]:
        """Return the shifted sums of channels for each group; groups go through the sums in turn."""
        sums = shifted.shape[0]
        if sums == 1:
            return shifted
        if self.groups <= sums:
            return shifted[: self.groups]
        return shifted[torch.arange(self.groups, device=shifted.device) % sums]

    def _convolved(
        self, shifted: Float[Tensor, "S W B P"], kernels: Float[Tensor, "K W"]
    ) -> Float[Tensor, "S N B P"]:
        """Return the responses of kernels that divide evenly into the sums of channels."""
        kernels = kernels.reshape(shifted.shape[0], -1, KERNEL)
        return torch.bmm(kernels, shifted.flatten(2)).unflatten(2, shifted.shape[2:])

    def _statistics(
        self,
        number: int,
        first: Float[Tensor, "K B P"],
        rest: Float[Tensor, "R W B P"],
        real: Bool[Tensor, "B P"] | None,
    ) -> Float[Tensor, "B G F"]:
        """Return the statistics of one scale in one window, by group of kernels."""
        batch, places = first.shape[1:]
        if places == 0:
            return first.new_zeros(batch, self.parts, self.num_statistics // self.parts)
        # Comparisons into floats: a conversion from bool costs several times as much on CPUs.
        there = None if real is None else real.to(first.dtype)
        count: Tensor | int = places if there is None else there.sum(dim=1).clamp(min=1)
        if there is not None:
            first = first + (there - 1) * _NEVER  # padding is above no threshold
        found = [first.amax(dim=2).clamp(min=-_NEVER / 2)]
        cutoffs = self.get_buffer("cutoffs")[number].to(first.dtype) + _NEAR
        found += [
            _compared(torch.gt, first, cutoff[:, None, None]).sum(dim=2) / count
            for cutoff in cutoffs.T[: self.thresholds]
        ]
        parts = [torch.stack(found, dim=-1).movedim(1, 0).reshape(batch, self.parts, -1)]
        if self.groups:
            high, low = rest.amax(dim=1, keepdim=True), rest.amin(dim=1, keepdim=True)
            strongest, wins = high.relu(), _compared(torch.le, rest, low + _NEAR)
            if there is not None:
                strongest, wins = strongest * there, wins.mul_(there)
            strength = _compared(torch.ge, rest, high - _NEAR).mul_(strongest).sum(dim=3)
            both = torch.cat([strength, wins.sum(dim=3)], dim=1) / count
            parts.append(both.sqrt().movedim(2, 0).reshape(batch, self.parts, -1))
        return torch.cat(parts, dim=-1)

    def _measure_cutoffs(
        self, number: int, response: Float[Tensor, "K B P"], real: Bool[Tensor, "B P"]
    ) -> None:
        """Average the quantiles of the responses of a batch into the thresholds of one scale."""
        if not self.thresholds:
            return
        values = response.movedim(0, 2)[real]
        if not len(values):
            return
        chosen = torch.linspace(0, len(values) - 1, min(_SAMPLED, len(values))).long()
        levels = (torch.arange(self.thresholds, device=values.device) + 0.5) / self.thresholds
        levels = levels.to(values.dtype)
        quantiles = torch.quantile(values[chosen.to(values.device)], levels, dim=0).T
        self.get_buffer("cutoffs")[number].lerp_(
            quantiles.to(self.get_buffer("cutoffs")), 1 / (self._seen + 1)
        )

    def _measure(self, statistics: Float[Tensor, "B E G F"], exists: Bool[Tensor, "B E"]) -> None:
        """Average the means and deviations of a batch into those that statistics are standardized by."""
        weight = exists.to(statistics.dtype)[..., None, None]
        count = weight.sum(dim=0)
        if not bool(exists.any()):
            return
        # The thresholds change in the first batches, so that later ones count more.
        share = max(1 / (self._seen + 1), 0.05)
        rate = torch.where(count > 0, share, 0.0)
        before, variances = self.get_buffer("means"), self.get_buffer("variances")
        mean = (statistics * weight).sum(dim=0) / count.clamp(min=1)
        center = mean if self._seen == 0 else before
        square = ((statistics - center).square() * weight).sum(dim=0) / count.clamp(min=1)
        variances.copy_(torch.lerp(variances, square.to(variances), rate.to(variances)))
        before.copy_(torch.lerp(before, mean.to(before), rate.to(before)))
        self._seen += 1
        self.get_buffer("num_batches").fill_(self._seen)


def _compared(
    compare: Callable[..., Tensor], x: Float[Tensor, "*n"], other: Tensor
) -> Float[Tensor, "*n"]:
    """Return 1.0 where a comparison holds."""
    return compare(x, other, out=torch.empty_like(x))


def dilations(length: int) -> tuple[int, ...]:
    """Return dilations 1, 2, 3, 4, 6, 8, 11, ... in half octaves, of which a kernel spans no more than a series."""
    most = max((length - 1) / (KERNEL - 1), 1.0)
    found = [round(2 ** (n / 2)) for n in range(2 * int(math.log2(most)) + 2)]
    return tuple(sorted({dilation for dilation in found if dilation <= most}))


def _sums(channels: int, generator: torch.Generator) -> Float[Tensor, "C S"]:
    """Return sums of random channels, few of them more often than many."""
    if channels == 1:
        return torch.ones(1, 1, device="cpu")
    sums = torch.zeros(channels, _MOST_SUMS, device="cpu")
    most = min(channels, _MOST_MIXED)
    for n in range(_MOST_SUMS):
        share = torch.rand((), generator=generator, device="cpu").item()
        count = max(min(int(2 ** (share * math.log2(most + 1))), most), 1)
        chosen = torch.randperm(channels, generator=generator, device="cpu")[:count]
        sums[chosen, n] = 1.0
    return sums


def _count(module: nn.Module, keys: Any) -> None:  # noqa: ARG001
    """Take over the number of measured batches after weights are loaded."""
    assert isinstance(module, KernelBank)
    module.take_count()
