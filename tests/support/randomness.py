"""Randomness for tests of defences: seeded, the same for the same (reuse, width, salt)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from guard.defences.base import Batch, Reuse
from guard.model.arrays import Words
from guard.model.outputs import Kind


@dataclass(frozen=True)
class Seeded:
    """Words for `rows` rows from a seed."""

    rows: int
    seed: int = 0

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        generator = np.random.default_rng([self.seed, zlib.crc32(reuse.encode() + salt)])
        return generator.integers(0, 2**16, (self.rows, width), dtype=np.uint16)


@dataclass(frozen=True)
class Constant:
    """The same word everywhere; `value` lies between 0 and 1."""

    rows: int
    value: float

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        return np.full((self.rows, width), int(self.value * 2**16), dtype=np.uint16)


def batch_of(scores: object, kind: Kind = "probabilities", *, complete: bool = True) -> Batch:
    """Make the batch that the engine would make of these scores."""
    matrix = np.array(scores, dtype=np.float64)
    return Batch(matrix, matrix.argmax(axis=1), kind, complete)
