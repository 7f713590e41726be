"""Randomness for noise: a pseudo-random function of secret, ledger, client and query.

Theory of operation. Every row of words is the output of a keyed hash over the row's canonical bytes (after
snapping), under a key derived from (secret, ledger, client) and the salt of the step that asks. So the same client
gets the same noise for the same query, alone or in a batch, in any order, on every replica with the secret; another
client, ledger, step or query gets independent noise; and without the secret nothing can be predicted, since keyed
BLAKE2b and SHAKE-256 are pseudo-random functions. Names are hashed with their length, so that no two pairs of names
run together. Fewer numbers a row are the beginning of more: the client may choose how many classes come back, and every
choice would be another draw to average.

Words have 16 bits, which bounds gaussian noise at 4.3 standard deviations: enough to perturb, not a sampler for
differential privacy.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b, shake_256

import numpy as np

from guard.defences.base import Reuse
from guard.errors import InvariantError
from guard.model.arrays import Floats, Words
from guard.model.domain import Bound, Inputs
from guard.model.queries import Queries

_WORD = np.dtype("<u2")
_BYTES = _WORD.itemsize
_BLAKE_BYTES = 64
"""Up to here one BLAKE2b digest is a whole row."""
_PROJECTIONS = 2
_CELL_STEP = 2.0
"""Width of a cell along a projection, in standard deviations of a feature."""


class QueryNoise:
    """`Randomness` for the rows of one request.

    Args:
        secret: at least 32 bytes.
        ledger: the ledger's name, so that two models do not share their noise.
        client: the client's name; one noise for all clients would fingerprint records.
        queries: the request's queries, snapped.
        inputs: their domain; `cell` takes the features' spread from it.
        fresh: source of bytes for `reuse: none`.

    >>> noise = QueryNoise(bytes(32), "model", "alice", Queries(2, [[1, 2], [1.0, 2.0]]), None)
    >>> words = noise.words("query", 3, b"step 0")
    >>> bool((words[0] == words[1]).all()), words.shape
    (True, (2, 3))
    """

    __slots__ = ("_fresh", "_inputs", "_key", "_ledger", "_queries", "_rows", "_secret")

    def __init__(
        self,
        secret: bytes,
        ledger: str,
        client: str,
        queries: Queries,
        inputs: Inputs | None,
        *,
        fresh: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if len(secret) < 32:
            raise InvariantError("the noise secret is shorter than 32 bytes")
        self._secret = secret
        self._ledger = ledger
        self._queries = queries
        self._inputs = inputs
        self._fresh = fresh
        self._key = _client_key(secret, ledger, client)
        self._rows: dict[Reuse, list[bytes]] = {}

    def words(self, reuse: Reuse, width: int, salt: bytes) -> Words:
        """Return uniform words, shape (rows, width): see `guard.defences.base.Randomness`."""
        n = self._queries.rows
        if reuse == "none":
            data = self._fresh(_BYTES * n * width)
        else:
            data = _expand(self._key, reuse.encode() + b"\0" + salt, self._named(reuse), _BYTES * width)
        return np.ndarray((n, width), _WORD, data)

    def begun(self, salt: bytes, row: int) -> blake2b:
        """Return a keyed hash that has taken a step's salt and one row, for what is finer than rows: tokens.

        Args:
            salt: the step's own.
            row: one of the request's.
        """
        name = self._named("query")[row]
        state = _keyed(self._key, b"within\0" + salt).copy()
        state.update(b"%d:%b" % (len(name), name))
        return state

    def _named(self, reuse: Reuse) -> list[bytes]:
        """Return what names each row: its bytes, or its cell's."""
        rows = self._rows.get(reuse)
        if rows is None:
            rows = self._rows[reuse] = self._queries.row_bytes() if reuse == "query" else self._cells()
        return rows

    def fresh(self, size: int) -> bytes:
        """Return bytes that no key and no query determines: see `guard.defences.base.Randomness`."""
        return self._fresh(size)

    def constant(self, name: bytes) -> float:
        """Return a secret number of the ledger: see `guard.defences.base.Randomness`."""
        return _constant(self._secret, self._ledger, name)

    def own(self, name: bytes, size: int) -> bytes:
        """Return secret bytes of the client's own: see `guard.defences.base.Randomness`."""
        return shake_256(_derive(self._key, b"own", name)).digest(size)

    def _cells(self) -> list[bytes]:
        """Name each row's coarse cell; a row that has none (no declared range, not a text) is a cell of its own."""
        queries, inputs = self._queries, self._inputs
        matrix = queries.matrix()
        if matrix is not None:
            if inputs is None or inputs.size != matrix.shape[1] or inputs.low is None or inputs.high is None:
                return queries.row_bytes()
            directions, offsets = _projections(self._secret, inputs.size, inputs.low, inputs.high)
            # Sums, not a matrix product: that rounds a row differently alone and in a batch.
            along = [np.add.reduce(matrix * direction, axis=1) for direction in directions]
            cells = np.floor(np.stack(along, axis=1) + offsets) + 0.0
            return [cell.tobytes() for cell in cells]
        rows = queries.row_bytes()
        if queries.values is not None and len(queries.values) == len(rows):
            for i, value in enumerate(queries.values):
                if isinstance(value, str):
                    rows[i] = normal_form(value).encode("utf-8", "surrogatepass")
        return rows


def normal_form(text: str) -> str:
    r"""Fold compatibility characters, case and white space, so that respellings of a text are one text.

    >>> normal_form(" Stra\u00dfe\n\uff21 ")
    'strasse a'
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def _derive(secret: bytes, *parts: bytes) -> bytes:
    framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    # BLAKE2b takes keys of up to 64 bytes; a longer secret is hashed first.
    key = secret if len(secret) <= 64 else blake2b(secret).digest()
    return blake2b(framed, key=key).digest()


def _expand(key: bytes, salt: bytes, rows: list[bytes], size: int) -> bytes:
    """Return `size` pseudo-random bytes for each row, joined; fewer are the beginning of more."""
    keyed = _keyed(key, salt)
    more = size - _BLAKE_BYTES
    row_key = _derive(key, b"wide", salt) if more > 0 else b""
    parts: list[bytes] = []
    for row in rows:
        state = keyed.copy()
        state.update(row)
        parts.append(state.digest() if more >= 0 else state.digest()[:size])
        if more > 0:
            parts.append(shake_256(row_key + row).digest(more))
    return b"".join(parts)


@lru_cache(maxsize=4096)
def _client_key(secret: bytes, ledger: str, client: str) -> bytes:
    return _derive(secret, b"noise", ledger.encode(), client.encode())


@lru_cache(maxsize=256)
def _constant(secret: bytes, ledger: str, name: bytes) -> float:
    word = int.from_bytes(_derive(secret, b"constant", ledger.encode(), name)[:8], "little")
    return float(word >> 11) * 2.0**-53 + 2.0**-54


@lru_cache(maxsize=4096)
def _keyed(key: bytes, salt: bytes) -> blake2b:
    """Return a hash that has taken its key and salt; rows carry on from copies, at half the cost of keying anew."""
    return blake2b(b"%d:%b" % (len(salt), salt), key=key)


@lru_cache(maxsize=64)
def _projections(secret: bytes, size: int, low: Bound, high: Bound) -> tuple[Floats, Floats]:
    """Return two secret unit vectors scaled to cells, shape (2, size), and their offsets in (0, 1), shape (2,).

    A feature's standard deviation is that of a uniform between its bounds, (high - low) / sqrt 12. The projections are
    secret but the same for all clients; the noise in a cell is each client's own.
    """
    seed = _derive(secret, b"cells", b"%d" % size)
    data = shake_256(seed).digest(8 * (2 * _PROJECTIONS * size + _PROJECTIONS))
    u = (np.frombuffer(data, dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
    offsets, pairs = u[:_PROJECTIONS], u[_PROJECTIONS:].reshape(2, _PROJECTIONS, size)
    vectors = np.sqrt(-2.0 * np.log(pairs[0])) * np.cos(2.0 * np.pi * pairs[1])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    spread = (np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)) / np.sqrt(12.0)
    return vectors / (spread * _CELL_STEP), offsets
