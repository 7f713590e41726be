"""Which keys a client has used in its last `HORIZON` queries."""

from __future__ import annotations

import numpy as np
from numpy import typing as npt

from guard.detectors.base import HORIZON, Keys
from guard.model.arrays import Bools

_FIRST = 64
"""Queries that a new index has room for."""
_ONE_BY_ONE = 12
"""Up to so many rows each is compared with all that is held; beyond, sorting is cheaper."""
_TIME = np.uint64(2**32 - 1)
_KEY = np.uint64(32)


class Index:
    """A ring of the keys of the last `HORIZON` queries; grows to 4 bytes a column and query.

    A horizon keeps hit rates from drifting up with the length of a client's history.

    Args:
        columns: keys a row.
    """

    __slots__ = ("_held", "_next", "_ring")

    def __init__(self, columns: int) -> None:
        # One row a column of keys: what is compared lies side by side.
        self._ring: Keys = np.zeros((columns, _FIRST), dtype=np.uint32)
        self._held = 0
        self._next = 0

    def look(self, keys: Keys) -> Bools:
        """Look rows up, in order, and remember them.

        Args:
            keys: shape (n, columns).

        Returns:
            Shape (n, columns): True where the same column of one of the `HORIZON` queries before that row, those of
            this batch included, held the same key.

        >>> index = Index(1)
        >>> index.look(np.array([[7], [8], [7]], dtype=np.uint32)).ravel(), index.look(np.array([[8]], dtype=np.uint32))
        (array([False, False,  True]), array([[ True]]))
        """
        n, columns = keys.shape
        if not columns:
            return np.zeros((n, 0), dtype=bool)
        if n == 1:
            return self._one(keys)
        if n <= _ONE_BY_ONE:
            return np.concatenate([self._one(keys[row : row + 1]) for row in range(n)])
        hits = self._many(keys)
        self._extend(keys)
        return hits

    def _one(self, keys: Keys) -> Bools:
        ring, at = self._ring, self._next
        same = (ring if self._held == ring.shape[1] else ring[:, : self._held]) == keys.T
        hits = same.any(axis=1)[None] if np.count_nonzero(same) else np.zeros(keys.shape, dtype=bool)
        if at == ring.shape[1]:
            ring = self._room(at + 1)
            at = self._next
        ring[:, at] = keys[0]
        self._next = at + 1 if at + 1 < HORIZON else 0
        if self._held < HORIZON:
            self._held += 1
        return hits

    def _many(self, keys: Keys) -> Bools:
        """Look up a batch: what all its rows see needs no times, only what leaves the horizon meanwhile does."""
        ordered = self._ordered()
        leaving = min(max(0, self._held + len(keys) - HORIZON), self._held)
        hits = _in_time(keys, ordered[:, :leaving], self._held)
        stays = np.sort(ordered[:, leaving:], axis=1)
        if stays.shape[1]:
            rows = np.ascontiguousarray(keys.T)
            places = np.array([there.searchsorted(row) for there, row in zip(stays, rows, strict=True)])
            np.minimum(places, stays.shape[1] - 1, out=places)
            places += (np.arange(len(stays)) * stays.shape[1])[:, None]
            hits |= (stays.ravel()[places] == rows).T
        return hits

    def _ordered(self) -> npt.NDArray[np.uint32]:
        """Return the keys that are held, oldest first, shape (columns, held)."""
        held, at = self._held, self._next
        if held < HORIZON or not at:
            return self._ring[:, :held]
        return np.concatenate([self._ring[:, at:], self._ring[:, :at]], axis=1)

    def _extend(self, keys: Keys) -> None:
        keys = keys[-HORIZON:]
        n = len(keys)
        ring = self._room(min(self._held + n, HORIZON))
        first = min(n, ring.shape[1] - self._next)
        ring[:, self._next : self._next + first] = keys[:first].T
        ring[:, : n - first] = keys[first:].T
        self._next = (self._next + n) % HORIZON
        self._held = min(self._held + n, HORIZON)

    def _room(self, queries: int) -> Keys:
        """Return the ring, made larger if it has no room for so many queries; it has not yet been full."""
        ring = self._ring
        if queries > ring.shape[1]:
            size = min(HORIZON, 1 << (queries - 1).bit_length())
            self._ring = np.zeros((len(ring), size), dtype=np.uint32)
            self._ring[:, : ring.shape[1]] = ring
        return self._ring


def _in_time(keys: Keys, before: Keys, at: int) -> Bools:
    """Sort (key, time): a row's last use of a key stands right before it.

    Args:
        keys: rows of times `at`, `at` + 1, .., shape (n, columns).
        before: of times 0, 1, .., shape (columns, k).
        at: time of the first row.
    """
    n, columns = keys.shape
    k = before.shape[1]
    both = np.empty((columns, k + n), dtype=np.uint64)
    both[:, :k] = before
    both[:, k:] = keys.T
    both <<= _KEY
    both[:, :k] |= np.arange(k, dtype=np.uint64)
    both[:, k:] |= np.arange(at, at + n, dtype=np.uint64)
    both.sort(axis=1)
    hits = np.zeros((n, columns), dtype=bool)
    column, place = np.nonzero((both[:, 1:] ^ both[:, :-1]) <= _TIME)
    if len(column):
        now, last = both[column, place + 1] & _TIME, both[column, place] & _TIME
        found = (now >= at) & (now - last <= HORIZON)
        hits[now[found].astype(np.intp) - at, column[found]] = True
    return hits
