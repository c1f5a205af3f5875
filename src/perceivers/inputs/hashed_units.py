"""Hashed words, phrases and byte runs of a text, and the sums of their learned vectors."""

import torch
from torch import nn
from torch.nn.functional import embedding_bag, pad

from perceivers.nn.init import truncated_normal_
from perceivers.nn.principal import principal_components
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor

_SPECIAL_TOKENS = 6  # ids below the bytes

# Arithmetic of the hashes is that of 64-bit integers with wrap-around.
_MULTIPLIER = 0x9E3779B97F4A7C15
_PHRASE_MULTIPLIER = 0xD1B54A32D192ED03
_BITS = 1 << 64

# Classes of bytes.
_BLANK, _LETTER, _SYMBOL, _WIDE, _CONTINUATION = range(5)
_APOSTROPHE = ord("'")
_CONTINUATION_BYTES = 3  # of a character of UTF-8, at most
# First bytes of characters of UTF-8: punctuation and symbols; of scripts without blanks, and of pictograms.
_SYMBOL_LEADS = (0xC2, 0xE2)
_WIDE_LEADS = (*range(0xE3, 0xEE), *range(0xEF, 0xF8))


@configclass
class HashedUnitsConfig:
    """Learned vectors of hashed words, phrases and byte runs. No vocabulary: a unit's row is its hash.

    Attributes:
        word_rows: Rows of the table of words. 0: no words.
        word_channels: Width of a word's vector.
        phrase_rows: Rows of the table of phrases. 0: no phrases.
        phrase_channels: Width of a phrase's vector.
        phrase_lengths: Words of a phrase, of each kind of phrase; one ends with every word, and the first word of a
            text forms one with the mark of its beginning.
        run_rows: Rows of the table of byte runs. 0: no byte runs.
        run_channels: Width of a byte run's vector.
        run_lengths: Bytes of a run, of each kind of run; one begins at every byte.
        dropout: Share of the units that are left out in training.
        weight_decay: Weight decay of the vectors, in place of the optimizer's. It lets rare units contribute little.
        init_scale: Standard deviation of the vectors at the start.
        gain: Factor of the vectors: a step of the optimizer changes them by so many times the learning rate.
    """

    word_rows: int = 32_768
    word_channels: int = 32
    phrase_rows: int = 65_536
    phrase_channels: int = 16
    phrase_lengths: tuple[int, ...] = (2,)
    run_rows: int = 65_536
    run_channels: int = 16
    run_lengths: tuple[int, ...] = (3, 4, 5)
    dropout: float = 0.5
    weight_decay: float = 2.0
    init_scale: float = 0.005
    gain: float = 8.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"Expected a share of the units in [0, 1), got dropout={self.dropout}."
            )
        if self.channels == 0:
            raise ValueError("Expected rows for words, phrases or byte runs, got none of them.")
        if any(not 1 <= length <= 16 for length in self.run_lengths):
            raise ValueError(f"Expected run_lengths from 1 to 16 bytes, got {self.run_lengths}.")
        if any(not 2 <= length <= 8 for length in self.phrase_lengths):
            raise ValueError(
                f"Expected phrase_lengths from 2 to 8 words, got {self.phrase_lengths}."
            )

    @property
    def channels(self) -> int:
        """Width of the sums of all kinds of units together."""
        return sum(channels for _, channels in self.tables().values())

    def tables(self) -> dict[str, tuple[int, int]]:
        """Return rows and channels of each table that is used."""
        tables = {
            "words": (self.word_rows, self.word_channels),
            "phrases": (self.phrase_rows * bool(self.phrase_lengths), self.phrase_channels),
            "runs": (self.run_rows * bool(self.run_lengths), self.run_channels),
        }
        return {name: sizes for name, sizes in tables.items() if all(sizes)}


class UnitHashes(nn.Module):
    """Hashes of the words, phrases and byte runs of a text, computed in exact integer arithmetic.

    A word is a maximal run of alphanumeric characters and apostrophes between them, with A to Z in lower case, or one
    of other visible characters. Characters of scripts without blanks are a word each. The polynomial hash of any range
    of bytes is a difference of cumulative sums times a power of the multiplier's inverse, in integers that wrap around.

    Args:
        max_length: Bytes of a text, at most.
        vocab_size: Different numbers that a text may hold.
    """

    powers: Tensor
    inverses: Tensor
    classes: Tensor
    values: Tensor

    def __init__(self, max_length: int, vocab_size: int) -> None:
        super().__init__()
        inverse = pow(_MULTIPLIER, -1, _BITS)
        powers, inverses = [1], [1]
        for _ in range(max_length):
            powers.append(powers[-1] * _MULTIPLIER % _BITS)
            inverses.append(inverses[-1] * inverse % _BITS)
        units = [_class_and_value(number - _SPECIAL_TOKENS) for number in range(vocab_size)]
        tables = {
            "powers": [_signed(power) for power in powers],
            "inverses": [_signed(power) for power in inverses],
            "classes": [kind for kind, _ in units],
            "values": [value for _, value in units],
        }
        for name, numbers in tables.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.int64), persistent=False)

    def forward(
        self,
        ids: Int[Tensor, "B L"],
        real: Bool[Tensor, "B L"],
        phrase_lengths: tuple[int, ...],
        run_lengths: tuple[int, ...],
    ) -> dict[str, Int[Tensor, "B L _"]]:
        """Return the hashes of the word that begins at each byte, its phrases and the byte runs. 0: there is none."""
        length = ids.shape[1]
        values = torch.where(real, self.values[ids], 0)
        sums = pad((values * self.powers[:length]).cumsum(1), (1, 0))  # of the bytes before each
        runs: list[Tensor] = []
        for count in run_lengths:
            found = sums[:, count:] - sums[:, :-count]
            found = found * self.inverses[: max(length - count + 1, 0)]
            found = torch.where(real[:, count - 1 :], found, 0)
            runs.append(pad(found, (0, length - found.shape[1])))
        words, *phrases = self._words(self._word_starts(ids, real), sums, phrase_lengths)
        units = {"words": [words], "phrases": phrases, "runs": runs}
        return {name: torch.stack(found, dim=2) for name, found in units.items() if found}

    def _word_starts(self, ids: Tensor, real: Tensor) -> Tensor:
        """Return a mask of the first bytes of words."""
        classes = torch.where(real, self.classes[ids], _BLANK)
        apostrophe = ids == _APOSTROPHE + _SPECIAL_TOKENS
        near = (_before(classes) == _LETTER) & (pad(classes[:, 1:], (0, 1)) == _LETTER)
        classes = torch.where(apostrophe & near, _LETTER, classes)
        first = classes != _CONTINUATION
        for _ in range(_CONTINUATION_BYTES):
            classes = torch.where(classes == _CONTINUATION, _before(classes), classes)
        changes = (classes != _before(classes)) | (classes == _WIDE)
        return first & changes & (classes != _BLANK)

    def _words(self, starts: Tensor, sums: Tensor, phrase_lengths: tuple[int, ...]) -> list[Tensor]:
        """Return the hashes of the word that begins at each byte, and of the phrases that end with it."""
        batch, length = starts.shape
        number = starts.cumsum(1)  # of the word, from 1
        places = torch.arange(length, device=starts.device).expand(batch, -1)
        # Where word 1, 2, ... begins; behind the last, where the text ends. Other bytes are written to slot 0.
        begins = torch.full((batch, length + 2), length, device=starts.device)
        begins = begins.scatter(1, torch.where(starts, number, 0), places)[:, 1:]
        before = sums.gather(1, begins)
        words = (before[:, 1:] - before[:, :-1]) * self.inverses[begins[:, :-1]]
        found = [words]
        for count in phrase_lengths:
            phrase = words
            for distance in range(1, count):
                earlier = pad(words, (distance, 0))[:, :length]
                phrase = phrase + earlier * _signed(_PHRASE_MULTIPLIER**distance % _BITS)
            # Of several phrases that begin before the text, all are the same but one.
            found.append(torch.where(places >= count - 2, phrase, 0))
        at = (number - 1).clamp(min=0)
        return [torch.where(starts, hashes.gather(1, at), 0) for hashes in found]


class HashedUnits(nn.Module):
    """Sums of the learned vectors of words, phrases and byte runs in each cell of bytes.

    The sum of each kind is divided by the square root of the number of its units in the cell.

    Args:
        config: Tables of vectors.
        cell: Bytes of a cell.
        max_length: Bytes of a text, at most.
        vocab_size: Different numbers that a text may hold.

    Reference: hashed byte runs as in BLT (arXiv:2412.09871), section 3.2; words, phrases and character runs by
    the hashing trick as in fastText (arXiv:1607.01759).
    """

    channels: int

    def __init__(
        self, config: HashedUnitsConfig, *, cell: int, max_length: int, vocab_size: int
    ) -> None:
        super().__init__()
        self.config, self.cell, self.channels = config, cell, config.channels
        self.weight_decay = config.weight_decay  # see `training.optim.parameter_groups`
        self.hashes = UnitHashes(max_length, vocab_size)
        self.tables = nn.ParameterDict()
        for name, (rows, channels) in config.tables().items():
            self.tables[name] = nn.Parameter(torch.empty(rows, channels))
            truncated_normal_(self.tables[name], config.init_scale)

    def forward(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B M C"]:
        """Return the sums of the vectors of each cell."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        units = self._hashes(ids, real)
        return torch.cat([self._summed(name, units[name]) for name in self.tables], dim=2)

    def mean_weights(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B R"]:
        """Return the weight of each row of all tables in the mean of the sums over cells, a sparse tensor."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        units = self._hashes(ids, real)
        padding = -ids.shape[1] % self.cell
        cells = pad(real, (0, padding)).reshape(ids.shape[0], -1, self.cell).any(dim=2).sum(dim=1)
        weight = self.config.gain / cells.clamp(min=1)
        first = 0
        places: list[Tensor] = []
        weights: list[Tensor] = []
        for name, table in self.tables.items():
            hashes = self._by_cell(units[name])
            some = hashes != 0
            scale = weight[:, None] * some.sum(dim=2).clamp(min=1).rsqrt()
            sample, cell, unit = some.nonzero(as_tuple=True)
            row = hashes[sample, cell, unit].remainder(len(table)) + first
            places.append(torch.stack([sample, row]))
            weights.append(scale[sample, cell])
            first += len(table)
        found = torch.sparse_coo_tensor(
            torch.cat(places, dim=1),
            torch.cat(weights),
            (ids.shape[0], first),
            check_invariants=False,  # without the argument there is a warning
        )
        return found.coalesce()

    @torch.no_grad()
    def write_vectors(self, weights: Float[Tensor, "R K"]) -> Float[Tensor, "K C"]:
        """Write vectors whose projection, which is returned, has the given weights for each row of all tables.

        The vectors of a table are the principal components of its weights, as many as its channels. Other channels
        stay as they are.
        """
        projection = weights.new_zeros(weights.shape[1], self.channels)
        parts = weights.split([len(table) for table in self.tables.values()])
        channel = 0
        for table, part in zip(self.tables.values(), parts, strict=True):
            coordinates, axes = principal_components(part, table.shape[1])
            table[:, : axes.shape[1]] = coordinates
            projection[:, channel : channel + axes.shape[1]] = axes
            channel += table.shape[1]
        return projection

    def _hashes(self, ids: Int[Tensor, "B L"], real: Bool[Tensor, "B L"]) -> dict[str, Tensor]:
        """Return the hashes of the units of each table."""
        used = {"phrases": self.config.phrase_lengths, "runs": self.config.run_lengths}
        return self.hashes(ids, real, *[used[one] if one in self.tables else () for one in used])

    def _by_cell(self, hashes: Int[Tensor, "B L U"]) -> Int[Tensor, "B M V"]:
        """Return the hashes of one kind of units that begin in each cell."""
        batch, length, kinds = hashes.shape
        return pad(hashes, (0, 0, 0, -length % self.cell)).reshape(batch, -1, self.cell * kinds)

    def _summed(self, name: str, hashes: Int[Tensor, "B L U"]) -> Float[Tensor, "B M C"]:
        """Return the sums of one kind of units."""
        table = self.tables[name]
        hashes = self._by_cell(hashes)
        some = hashes != 0
        scale = self.config.gain * some.sum(dim=2).clamp(min=1).to(table.dtype).rsqrt()
        if self.training and self.config.dropout:
            some = some & (torch.rand(some.shape, device=some.device) >= self.config.dropout)
            scale = scale / (1 - self.config.dropout)
        rows = hashes.remainder(table.shape[0])
        if torch.compiler.is_compiling() or rows.is_meta or type(rows) is not Tensor:
            # The number of units is unknown to a graph, and without values.
            summed = torch.where(some[..., None], table[rows], 0.0).sum(dim=2)
        else:
            counts = some.sum(dim=2).flatten()
            summed = embedding_bag(rows[some], table, counts.cumsum(0) - counts, mode="sum")
            summed = summed.reshape(*some.shape[:2], table.shape[1])
        return summed * scale[..., None]


def _before(x: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Return the number before each, 0 before the first."""
    return pad(x[:, :-1], (1, 0))


def _class_and_value(byte: int) -> tuple[int, int]:
    """Return the class of a byte, and the number that stands for it in hashes: 0 for blanks."""
    if byte <= ord(" ") or byte == 0x7F:
        return _BLANK, 0
    folded = byte + 32 if ord("A") <= byte <= ord("Z") else byte
    kind = _LETTER if byte >= 0x80 or chr(byte).isalnum() else _SYMBOL
    if 0x80 <= byte < 0xC0:
        kind = _CONTINUATION
    elif byte in _SYMBOL_LEADS:
        kind = _SYMBOL
    elif byte in _WIDE_LEADS:
        kind = _WIDE
    return kind, _signed(_mixed(folded))


def _mixed(number: int) -> int:
    """Return 64 well mixed bits of a small number.

    Reference: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    mixed = (number + 1) * _MULTIPLIER % _BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % _BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % _BITS
    return mixed ^ mixed >> 31


def _signed(number: int) -> int:
    """Return an integer modulo 2^64 as a signed one."""
    return number - _BITS if number >= _BITS >> 1 else number
