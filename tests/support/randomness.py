"""Randomness for tests of defences: seeded, the same for the same (reuse, width, salt)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from guard.defences.base import Batch, Reuse
from guard.model.arrays import Floats
from guard.model.outputs import Kind


@dataclass(frozen=True)
class Seeded:
    """Uniforms for `rows` rows from a seed."""

    rows: int
    seed: int = 0

    def uniform(self, reuse: Reuse, width: int, salt: bytes) -> Floats:
        generator = np.random.default_rng([self.seed, zlib.crc32(reuse.encode() + salt)])
        return generator.random((self.rows, width)) * (1 - 2.0**-32) + 2.0**-33


@dataclass(frozen=True)
class Constant:
    """The same uniform everywhere."""

    rows: int
    value: float

    def uniform(self, reuse: Reuse, width: int, salt: bytes) -> Floats:
        return np.full((self.rows, width), self.value)


def batch_of(scores: object, kind: Kind = "probabilities", *, complete: bool = True) -> Batch:
    """Make the batch that the engine would make of these scores."""
    matrix = np.array(scores, dtype=np.float64)
    return Batch(matrix, matrix.argmax(axis=1), kind, complete)
