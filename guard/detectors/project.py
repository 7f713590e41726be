"""From many numbers to at most 64: random projections, and means over blocks of an image."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from guard.model.arrays import Floats, Ints

WIDTH = 64
"""Most numbers in a sketch."""
_DENSE = 4096
"""Beyond so many features each goes into one sum with a random sign (count sketch): 64 factors each would be slow."""


def tame(rows: Floats, most: float) -> Floats:
    """Return rows with what is no number as 0 and the rest within +-most; the same array when nothing is wrong.

    >>> tame(np.array([[1.0, np.nan], [-np.inf, 2.0]]), 10.0)
    array([[  1.,   0.],
           [-10.,   2.]])
    """
    if np.maximum.reduce(np.abs(rows), axis=None) <= most:
        return rows
    return np.clip(np.nan_to_num(rows, nan=0.0, posinf=most, neginf=-most), -most, most)


class Fold:
    """A salted projection to `WIDTH` numbers that keeps distances: in the mean exactly, in a draw within some 15%.

    Gaussian up to 4,096 features (Johnson and Lindenstrauss, 1984; Indyk and Motwani, 1998); beyond, a count sketch
    (Charikar, Chen and Farach-Colton, 2002): one random sign and one of the sums for each feature.

    Args:
        salt: chooses the projection; any length.
        size: features of rows that are declared, 0 for none.
    """

    __slots__ = ("_factors", "_order", "_seed", "_signs", "_starts")

    def __init__(self, salt: bytes, size: int) -> None:
        self._seed = int.from_bytes(blake2b(salt, digest_size=16, person=b"guard projection").digest(), "big")
        self._factors: Floats = np.zeros((0, WIDTH))
        self._signs: Floats = np.zeros(0)
        if size > _DENSE:
            rng = np.random.Generator(np.random.PCG64([self._seed, size]))
            self._order = rng.permutation(size)
            self._signs = np.asarray(rng.integers(0, 2, size) * 2.0 - 1.0, dtype=np.float64)
            self._starts = np.arange(WIDTH) * size // WIDTH
        elif size > WIDTH:
            self._grow(size)

    def _grow(self, size: int) -> None:
        # In single precision: half the time to draw, and the same numbers whatever is asked for first.
        rng = np.random.Generator(np.random.PCG64(self._seed))
        drawn = rng.standard_normal((size, WIDTH), dtype=np.float32)
        self._factors = drawn.astype(np.float64) / np.sqrt(WIDTH)

    def apply(self, matrix: Floats) -> Floats:
        """Project rows, shape (n, d) -> (n, WIDTH); d is the declared size, or at most 4,096."""
        size = matrix.shape[1]
        if len(self._signs):
            return np.add.reduceat((matrix * self._signs)[:, self._order], self._starts, axis=1)
        if size > len(self._factors):
            self._grow(1 << (size - 1).bit_length())
        return np.dot(matrix, self._factors[:size])

    def variances(self, variances: Floats) -> Floats:
        """Return the variances of the sums of independent features, shape (d,) -> (WIDTH,)."""
        if len(self._signs):
            return np.add.reduceat(variances[self._order], self._starts)
        return np.dot(variances, self._factors[: len(variances)] ** 2)


def blocks(matrix: Floats, shape: tuple[int, int, int]) -> Floats:
    """Return means over blocks of images, channels averaged.

    Args:
        matrix: shape (n, height * width * channels), channels last.
        shape: (height, width, channels).

    Returns:
        Shape (n, min(height, 8) * min(width, 8)).

    >>> blocks(np.arange(256.0)[None], (16, 16, 1))[0, :3]
    array([ 8.5, 10.5, 12.5])
    """
    height, width, channels = shape
    across = min(width, 8)
    images = matrix.reshape(len(matrix), height, width * channels)
    rows, row_sizes = _parts(height)
    columns, column_sizes = _parts(width)
    # Channels lie next to each other, so a block of columns is a run of width * channels; the first sum leaves little.
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=1), columns * channels, axis=2)
    return (sums / (row_sizes[:, None] * column_sizes * channels)).reshape(len(matrix), len(rows) * across)


def _parts(size: int) -> tuple[Ints, Ints]:
    """Return where each of at most eight nearly equal parts begins, and how large it is."""
    parts = min(size, 8)
    starts = np.arange(parts) * size // parts
    return starts, np.diff(np.append(starts, size))
