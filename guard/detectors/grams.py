"""Vectors of texts and tokens: counts of salted hashed n-grams, their square roots, at unit length."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy import typing as npt

from guard.model.arrays import Floats

BUCKETS = 64
MOST_BYTES = 16_384
"""Of a longer text the beginning is looked at."""
MOST_TOKENS = 8_192
_GAP = b"\0\0"


class Grams:
    """Counts n-grams into `BUCKETS` buckets.

    Args:
        salt: chooses the hashes; any length.
    """

    __slots__ = ("_pairs", "_three", "_two", "_words")

    def __init__(self, salt: bytes) -> None:
        drawn = np.frombuffer(blake2b(salt, digest_size=32, person=b"guard n-grams").digest(), dtype=np.uint64) | 1
        self._two, self._three = np.uint32(drawn[0] >> 32 | 1), np.uint32(drawn[1] >> 32 | 1)
        self._words, self._pairs = drawn[2], drawn[3]

    def of_texts(self, texts: Sequence[bytes]) -> Floats:
        """Return vectors of texts' 2- and 3-grams of bytes, shape (n, BUCKETS).

        >>> grams = Grams(b"salt")
        >>> same, other = grams.of_texts([b"ring me later", b"RING ME NOW !!"]) @ grams.of_texts([b"ring me later!"])[0]
        >>> bool(same > 0.85 > 0.6 > other)
        True
        """
        texts = [text[:MOST_BYTES] for text in texts]
        joined = _GAP.join(texts) + _GAP
        bytes_ = np.frombuffer(joined, dtype=np.uint8).astype(np.uint32)
        two = bytes_[:-2] << 8
        two |= bytes_[1:-1]
        three = two << 8
        three |= bytes_[2:]
        # A gap of two zeros keeps a gram from reaching into the next text; those that begin in a gap are left out.
        both = np.concatenate([two * self._two, three * self._three])
        both >>= np.uint32(26)
        if len(texts) == 1:
            return _unit(np.bincount(both, minlength=BUCKETS)[None])
        rows = np.repeat(np.arange(len(texts)), [len(text) + 2 for text in texts])[:-2]
        rows[_in_gap(texts)] = len(texts)
        counts = np.bincount(np.concatenate([rows, rows]) * BUCKETS + both, minlength=(len(texts) + 1) * BUCKETS)
        return _unit(counts.reshape(-1, BUCKETS)[: len(texts)])

    def of_tokens(self, rows: Sequence[npt.NDArray[np.uint64]]) -> Floats:
        """Return vectors of rows of whole numbers, by 1- and 2-grams, shape (n, BUCKETS)."""
        counts = np.zeros((len(rows), BUCKETS), dtype=np.int64)
        for row, tokens in enumerate(rows):
            ones = tokens[:MOST_TOKENS] * self._words
            twos = ones[:-1] * self._pairs + ones[1:]
            counts[row] = np.bincount(np.concatenate([ones, twos]) >> np.uint64(58), minlength=BUCKETS)
        return _unit(counts)


def _in_gap(texts: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return the places in the joined texts that belong to gaps, but for the last gap."""
    ends = np.cumsum([len(text) + 2 for text in texts[:-1]])
    return np.concatenate([ends - 2, ends - 1])


def _unit(counts: npt.NDArray[np.int64]) -> Floats:
    """Square roots of shares: unit length, and 0 for what has no grams."""
    return np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
