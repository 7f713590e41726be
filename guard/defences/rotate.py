"""Turn each client's embeddings by a secret rotation of its own."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import shake_256
from threading import Lock
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guard.defences.base import Batch, Defence, Randomness
from guard.model.arrays import Floats
from guard.model.outputs import Kind

_ROUNDS = 3
_SEED_BYTES = 32
_MOST_BYTES = 32 * 2**20


class _Round(NamedTuple):
    """One round: entries change places, pairs of them turn by secret angles, and all are mixed.

    Args:
        order: a permutation, shape (d,).
        cos: of the angles, shape (d // 2,).
        sin: same.
        sign: of an entry that has no partner, 1 or -1.
    """

    order: NDArray[np.intp]
    cos: Floats
    sin: Floats
    sign: float


class Rotate(Defence, frozen=True):
    """Multiplies vectors by an orthogonal matrix that is secret and each client's own.

    One matrix a client, ledger and number of dimensions, for all texts and for ever; so a client's own vectors keep
    their lengths, inner products and cosines (to 1e-12 in float64, 1e-6 where they are sent as float32), and it
    searches, clusters and trains on them as before. Two clients' vectors of one text have a cosine like that of
    unrelated vectors, N(0, 1/d): one client's are not found in another's store (nearest neighbour .00 for 1.00), and
    clients do not pool what they were answered without more work. Three rounds of a secret permutation, secret angles
    and the Hartley transform, which exists for every d: 48 d bytes a client, at most 32 MB in all.

    Costs: vectors of one client only are comparable: what the operator has embedded past Guard, or for another client,
    is no use beside them, and a client that comes by another name or address gets others. Changing the secret or the
    ledger's name changes all vectors.
    Does nothing against whoever has the model, or d pairs of a text's vector and the client's: least squares give the
    matrix exactly, and fewer pairs the part of it in their span (its angles are fewer numbers than a matrix has, so
    take it as known from the first pairs on). Nothing against two stores of nearly the same texts: their principal axes
    align without any pair (recall .99 where 9 texts of 10 are in both, .00 where none is), and a client may ask for the
    texts that it believes to be in the other's. Nothing against extraction: a copy is as good turned as not.
    Source: Liu, Kargupta and Ryan, TKDE 2006 (random projection), and Chen and Liu, ICDM 2005 (rotation perturbation),
    whose attacks those are. Differs: keyed, and without a matrix.

    >>> from types import SimpleNamespace
    >>> rng = SimpleNamespace(own=lambda name, size: bytes(size))
    >>> batch = Batch(np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]), np.array([0, 1]), "embedding")
    >>> turned = Rotate().apply(batch, rng, b"").scores
    >>> bool(abs(turned[0, 0]) < 0.99), (turned @ turned.T).round(9).tolist()
    (True, [[1.0, 0.6], [0.6, 1.0]])
    """

    suits: ClassVar[frozenset[Kind]] = frozenset({"embedding"})
    random: ClassVar[bool] = True
    instead: ClassVar[str] = "outputs: {kind: embedding}, or drop this step"

    kind: Literal["rotate"] = "rotate"

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        """Return the vectors turned; the same for every step and prediction of an answer."""
        del salt
        turned = batch.scores
        for one in _KEPT.of(rng.own(b"rotate", _SEED_BYTES), turned.shape[1]):
            turned = _turned(turned, one)
        return batch._replace(scores=turned)


def _turned(vectors: Floats, one: _Round) -> Floats:
    moved = vectors[:, one.order]
    half = len(one.cos)
    first, second = moved[:, :half], moved[:, half : 2 * half]
    pairs = first * one.cos - second * one.sin
    moved[:, half : 2 * half] = first * one.sin + second * one.cos
    moved[:, :half] = pairs
    if 2 * half < moved.shape[1]:
        moved[:, -1] *= one.sign
    return hartley(moved)


def hartley(vectors: Floats) -> Floats:
    """Return the orthonormal discrete Hartley transform of each row, shape (n, d); it is its own inverse.

    >>> hartley(np.array([[1.0, 0.0, 0.0, 0.0]]))
    array([[0.5, 0.5, 0.5, 0.5]])
    >>> bool(np.allclose(hartley(hartley(np.array([[1.0, 2.0, 4.0]]))), [[1.0, 2.0, 4.0]]))
    True
    """
    d = vectors.shape[1]
    waves = np.fft.rfft(vectors, axis=1)
    result = np.empty_like(vectors)
    known = waves.shape[1]
    np.subtract(waves.real, waves.imag, out=result[:, :known])
    rest = slice(1, d - known + 1)
    result[:, known:] = (waves.real[:, rest] + waves.imag[:, rest])[:, ::-1]
    result *= 1.0 / np.sqrt(d)
    return result


def _derived(seed: bytes, d: int) -> tuple[_Round, ...]:
    """Return the rounds that a client's seed stands for, one set a number of dimensions."""
    each = 8 * d + 4 * (d // 2) + 1
    stream = shake_256(b"%d:%b" % (d, seed)).digest(_ROUNDS * each)
    rounds: list[_Round] = []
    for i in range(_ROUNDS):
        part = stream[i * each : (i + 1) * each]
        order = np.argsort(np.frombuffer(part, "<u8", d), kind="stable")
        angles = np.frombuffer(part, "<u4", d // 2, 8 * d) * (2.0 * np.pi / 2**32)
        rounds.append(_Round(order, np.cos(angles), np.sin(angles), 1.0 if part[-1] & 1 else -1.0))
    return tuple(rounds)


class Rotations:
    """The rotations of clients seen last; the others are derived when they come back.

    Args:
        most_bytes: of all that are kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._known: OrderedDict[tuple[bytes, int], tuple[_Round, ...]] = OrderedDict()
        self._lock = Lock()

    def of(self, seed: bytes, d: int) -> tuple[_Round, ...]:
        """Return the rotation of a seed, of `d` dimensions."""
        with self._lock:
            found = self._known.get((seed, d))
            if found is not None:
                self._known.move_to_end((seed, d))
                return found
        made = _derived(seed, d)
        with self._lock:
            if (seed, d) not in self._known:
                self._known[seed, d] = made
                self.bytes += size_of(made)
            while self.bytes > self.most_bytes:
                self.bytes -= size_of(self._known.popitem(last=False)[1])
        return made


def size_of(rounds: tuple[_Round, ...]) -> int:
    """Return how many bytes a rotation takes."""
    return sum(one.order.nbytes + one.cos.nbytes + one.sin.nbytes for one in rounds)


_KEPT = Rotations(_MOST_BYTES)
