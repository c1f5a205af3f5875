"""Vectors of samples: files, and the most similar ones."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceivers.data.base import atomic_write
from perceivers.optional import require

SUFFIXES = (".parquet", ".npy", ".csv")
_NAME, _VECTOR = "name", "vector"


@dataclass(frozen=True)
class Embedding:
    """Vector of one sample, E, or its latents, N x D."""

    name: str
    vector: npt.NDArray[np.float32]


_SAME = 1 - 1e-4  # cosine similarity of a vector and itself, up to rounding


@dataclass(frozen=True)
class Embeddings:
    """Vectors of samples.

    Attributes:
        names: Names of the samples.
        vectors: S x E, or S x N x D latents.
    """

    names: tuple[str, ...] = ()
    vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.names)

    def similarities(self, other: "Embeddings") -> npt.NDArray[np.float32]:
        """Return the cosine similarity of each sample of `other` to each of these, O x S.

        Raises:
            ValueError: If the vectors are of another width, as those of another model.
        """
        shapes = self.vectors.shape[1:], other.vectors.shape[1:]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Expected vectors of one model, got some of {shapes[0]} and some of {shapes[1]} numbers."
            )
        mine, theirs = (_normalized(one.vectors) for one in (self, other))
        return theirs @ mine.T

    def most_similar(self, other: "Embeddings", *, top: int = 5) -> list[list[tuple[str, float]]]:
        """Return, for each sample of `other`, names and cosine similarities of its nearest ones, best first.

        A sample is not its own neighbor: those of the same name and the same vector are left out.
        """
        found: list[list[tuple[str, float]]] = []
        for name, row in zip(other.names, self.similarities(other), strict=True):
            is_itself = [
                same == name and one > _SAME for same, one in zip(self.names, row, strict=True)
            ]
            order = [place for place in np.argsort(-row) if not is_itself[place]]
            found.append([(self.names[place], float(row[place])) for place in order[:top]])
        return found


def _normalized(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    flat = vectors.reshape(len(vectors), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def write_embeddings(embeddings: Embeddings, path: Path) -> None:
    """Write vectors into a file: Parquet and CSV with the names, or a NumPy array without them.

    Raises:
        ValueError: If the suffix is none of `.parquet`, `.npy` and `.csv`, or latents go into CSV.
    """
    _check_suffix(path)
    vectors = embeddings.vectors
    if path.suffix == ".csv" and vectors.ndim > 2:
        raise ValueError(
            f"Expected one vector for each sample in {path}; latents go into .npy or .parquet."
        )
    with atomic_write(path) as new:
        if path.suffix == ".npy":
            with new.open("wb") as file:
                np.save(file, vectors)
        elif path.suffix == ".csv":
            with new.open("w", newline="", encoding="utf-8") as file:
                rows = csv.writer(file)
                rows.writerow([_NAME, *(f"v{i}" for i in range(vectors.shape[1]))])
                rows.writerows([name, *vector.tolist()] for name, vector in _pairs(embeddings))
        else:
            pyarrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
            columns = {_NAME: list(embeddings.names), _VECTOR: [v.tolist() for v in vectors]}
            parquet.write_table(pyarrow.table(columns), new)


def read_embeddings(path: Path) -> Embeddings:
    """Return the vectors in a file that `write_embeddings` wrote. Rows of a NumPy array are named by their number.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it holds something else.
    """
    _check_suffix(path)
    expected = f"{path} holds no vectors: expected a file that `perceivers embed` wrote"
    if path.suffix == ".npy":
        vectors = np.load(path, allow_pickle=False)
        names = [f"row {i}" for i in range(len(vectors))]
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if header[:1] != [_NAME]:
            raise ValueError(f"{expected}, with a column '{_NAME}', got {', '.join(header[:5])}.")
        names = [row[0] for row in rows]
        vectors = np.array([[float(cell) for cell in row[1:]] for row in rows], dtype=np.float32)
    else:
        table = require("pyarrow.parquet", "data").read_table(path)
        if not {_NAME, _VECTOR} <= set(table.column_names):
            raise ValueError(
                f"{expected}, with the columns '{_NAME}' and '{_VECTOR}', got {', '.join(table.column_names[:5])}."
            )
        names = table.column(_NAME).to_pylist()
        vectors = np.array(table.column(_VECTOR).to_pylist(), dtype=np.float32)
    return Embeddings(tuple(names), vectors.astype(np.float32))


def is_vectors(path: Path) -> bool:
    """Return whether a file holds vectors of `write_embeddings`, by its suffix and columns."""
    if path.suffix not in SUFFIXES or not path.is_file():
        return False
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False).ndim in (2, 3)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(f"{_NAME},v0,")
    return {_NAME, _VECTOR} == set(require("pyarrow.parquet", "data").read_schema(path).names)


def _pairs(embeddings: Embeddings) -> Sequence[tuple[str, npt.NDArray[np.float32]]]:
    return list(zip(embeddings.names, embeddings.vectors, strict=True))


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"Expected a file that ends with {', '.join(SUFFIXES)}, got {path}.")
