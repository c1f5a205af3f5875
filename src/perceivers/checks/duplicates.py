"""Duplicates within and between splits: equal contents, nearly equal images, and texts that differ in form only."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.checks.finding import Finding, RowName
from perceivers.checks.scan import ScannedRow
from perceivers.wording import counted

_SIDE = 32  # of the thumbnails of images
_LOW = 8  # frequencies of each axis in a perceptual hash
_BANDS = 8  # of 8 bits, one of which must be equal for a pair to be compared
_MOST_BITS = 6  # by which the hashes of near duplicates differ
_CORRELATION = 0.98  # of their thumbnails
_FLAT = 2.0  # gray levels: images of less contrast have no structure to compare
_FULL_BAND = 2000  # rows of a band beyond which only equal hashes are compared


def find_duplicates(rows: Sequence[ScannedRow]) -> Iterator[Finding]:
    """Yield findings about rows that are the same, and about rows that are nearly the same."""
    readable = [row for row in rows if not row.error]
    exact = _groups(readable, lambda row: row.fingerprint or None)
    yield from _findings(exact, is_exact=True)
    pairs: list[tuple[int, int]] = []
    for modality in dict.fromkeys(name for row in readable for name in row.inputs):
        pairs += _similar_texts(readable, modality)
        pairs += _similar_images(readable, modality)
    copies = {row.fingerprint for group in exact for row in group}
    near = [
        group
        for group in _connected(readable, pairs)
        if len({row.fingerprint for row in group}) > 1
        or not {row.fingerprint for row in group} <= copies
    ]
    yield from _findings(near, is_exact=False)


def _findings(groups: Sequence[Sequence[ScannedRow]], *, is_exact: bool) -> Iterator[Finding]:
    """Yield a finding each for copies on both sides of a split, with different labels, and within a split."""
    word, kind = ("equal", "duplicate") if is_exact else ("nearly equal", "near_duplicate")
    between: dict[tuple[str, str], list[Sequence[RowName]]] = defaultdict(list)
    within: list[Sequence[RowName]] = []
    conflicting: list[Sequence[RowName]] = []
    for group in groups:
        names = [row.name for row in group]
        splits = list(dict.fromkeys(name.split for name in names))
        for one, other in combinations(
            sorted(splits, key=("train", "validation", "test").index), 2
        ):
            between[one, other].append(names)
        if len(splits) == 1:
            within.append(names)
        if len({row.target for row in group} - {None}) > 1:
            conflicting.append(names)
    for (one, other), found in between.items():
        count = sum(1 for names in found for name in names if name.split == other)
        yield Finding(
            kind=kind,
            severity="error" if other == "test" and is_exact else "warning",
            message=f"{counted(count, 'row')} of {other} {_are(count)} {word} to a row of {one}, so its figures are "
            "too good. Remove the copies from one of the splits, or keep them together with --group.",
            groups=found,
        )
    if conflicting:
        yield Finding(
            kind="label",
            severity="warning",
            message=f"{counted(len(conflicting), 'group')} of {word} rows "
            f"{'has' if len(conflicting) == 1 else 'have'} different labels: at most one of them can be right.",
            groups=conflicting,
        )
    if within:
        count = sum(len(names) - 1 for names in within)
        yield Finding(
            kind=kind,
            severity="warning",
            message=f"{counted(count, 'row')} {_are(count)} {word} to another row of the same split and "
            f"{'counts' if count == 1 else 'count'} twice or more.",
            groups=within,
        )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _groups(
    rows: Iterable[ScannedRow], key: Callable[[ScannedRow], Hashable | None]
) -> list[list[ScannedRow]]:
    """Return the rows that share a key, where several do."""
    found: dict[Hashable, list[ScannedRow]] = defaultdict(list)
    for row in rows:
        if (value := key(row)) is not None:
            found[value].append(row)
    return [group for group in found.values() if len(group) > 1]


def _similar_texts(rows: Sequence[ScannedRow], modality: str) -> list[tuple[int, int]]:
    """Return pairs of rows whose texts have one normal form."""
    first: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for place, row in enumerate(rows):
        described = row.inputs.get(modality)
        if described is None or not described.text:
            continue
        if described.text in first:
            pairs.append((first[described.text], place))
        else:
            first[described.text] = place
    return pairs


def _similar_images(rows: Sequence[ScannedRow], modality: str) -> list[tuple[int, int]]:
    """Return pairs of rows whose images differ by size, compression or brightness only."""
    described = [(place, row.inputs.get(modality)) for place, row in enumerate(rows)]
    images = [(p, one.thumbnail) for p, one in described if one and one.thumbnail is not None]
    if len(images) < 2:
        return []
    places = np.array([place for place, _ in images])
    pixels = np.stack([thumbnail for _, thumbnail in images]).astype(np.float32)
    pixels = pixels.reshape(len(pixels), -1)
    contrast = pixels.std(axis=1)
    structured = np.flatnonzero(contrast > _FLAT)
    if len(structured) < 2:
        return []
    pixels = (pixels - pixels.mean(axis=1, keepdims=True))[structured] / contrast[structured, None]
    hashes = perceptual_hashes(pixels.reshape(-1, _SIDE, _SIDE))
    left, right = _near_hashes(hashes)
    alike = np.einsum("ij,ij->i", pixels[left], pixels[right]) / pixels.shape[1] >= _CORRELATION
    named = places[structured]
    return list(zip(named[left[alike]].tolist(), named[right[alike]].tolist(), strict=True))


def perceptual_hashes(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the hash of each gray image as 8 bytes: the signs of its 64 lowest frequencies against their median.

    Args:
        images: n x 32 x 32.
    """
    steps = np.arange(_SIDE)
    cosines = np.cos(np.pi * (steps + 0.5) * steps[:_LOW, None] / _SIDE).astype(np.float32)
    spectrum = np.einsum("uy,nyx,vx->nuv", cosines, images, cosines, optimize=True)
    flat = spectrum.reshape(len(images), -1)
    return np.packbits(flat > np.median(flat, axis=1, keepdims=True), axis=1)


def _near_hashes(
    hashes: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return pairs of hashes that differ by a few bits: one of their bytes must then be equal."""
    bits = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)
    found: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(hashes[:, band], kind="stable")
        starts = np.flatnonzero(np.diff(hashes[order, band].astype(np.int16))) + 1
        for members in np.split(order, starts):
            found |= set(_pairs_of_band(hashes, members, bits))
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _pairs_of_band(
    hashes: npt.NDArray[np.uint8], members: npt.NDArray[Any], bits: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, int]]:
    if len(members) > _FULL_BAND:
        whole: dict[bytes, int] = {}
        for one in members.tolist():
            other = whole.setdefault(hashes[one].tobytes(), one)
            if other != one:
                yield min(one, other), max(one, other)
        return
    for place, one in enumerate(members[:-1]):
        rest = members[place + 1 :]
        distances = bits[hashes[rest] ^ hashes[one]].sum(axis=1)
        for other in rest[distances <= _MOST_BITS].tolist():
            yield min(int(one), other), max(int(one), other)


def _connected(
    rows: Sequence[ScannedRow], pairs: Iterable[tuple[int, int]]
) -> list[list[ScannedRow]]:
    """Return the groups of rows that pairs connect."""
    parent = list(range(len(rows)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        parent[root(other)] = root(one)
    members: dict[int, list[ScannedRow]] = defaultdict(list)
    for place, row in enumerate(rows):
        members[root(place)].append(row)
    return [group for group in members.values() if len(group) > 1]
