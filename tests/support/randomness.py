"""Randomness for tests of defences: seeded, the same for the same (reuse, width, salt)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from guard.defences.base import Batch, Reuse
from guard.model.arrays import Words
from guard.model.outputs import Kind


@dataclass(frozen=True)
class Seeded:
    """Words for `rows` rows from a seed."""

    rows: int
    seed: int = 0
    generator: np.random.Generator = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", np.random.default_rng([self.seed, 1]))

    def fresh(self, size: int) -> bytes:
        return self.generator.bytes(size)

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        generator = np.random.default_rng([self.seed, zlib.crc32(reuse.encode() + salt)])
        return generator.integers(0, 2**16, (self.rows, width), dtype=np.uint16)

    def constant(self, name: bytes) -> float:
        return float(np.random.default_rng([self.seed, zlib.crc32(name), 2]).uniform(0.01, 0.99))

    def own(self, name: bytes, size: int) -> bytes:
        return np.random.default_rng([self.seed, zlib.crc32(name), 3]).bytes(size)


@dataclass(frozen=True)
class Constant:
    """The same word everywhere; `value` lies between 0 and 1."""

    rows: int
    value: float

    def fresh(self, size: int) -> bytes:
        return int(self.value * 256).to_bytes(1, "big") * size

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        return np.full((self.rows, width), int(self.value * 2**16), dtype=np.uint16)

    def constant(self, name: bytes) -> float:
        return self.value

    def own(self, name: bytes, size: int) -> bytes:
        return self.fresh(size)


def batch_of(scores: object, kind: Kind = "probabilities", *, complete: bool = True) -> Batch:
    """Make the batch that the engine would make of these scores."""
    matrix = np.array(scores, dtype=np.float64)
    return Batch(matrix, matrix.argmax(axis=1), kind, complete)
