"""Salted keys of rows: of the whole row, and of the row without each of eight groups of its members.

A row becomes codes below 2**32, one a member; a key is the upper half of (sum of factor * code + offset) modulo 2**64,
with secret random factors: two different rows share a key with a probability of some 2**-32 (vector multiply-shift;
Dietzfelbinger, STACS 1996), and nobody who does not know the salt can look for such rows. Keys never leave the
process but into recordings, so factors need not come from a cryptographic generator.

The code of a number is its sign, exponent and 7 bits of its mantissa, rounded: 8 significant bits. What is less than
2**-10 of the row's greatest, and less than 2**-14, counts as 0. So a jitter of one in a million changes a key only
where it carries a number over the border of a cell, which happens to about one number in 5,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import cast
from zlib import crc32

import numpy as np
import orjson
from numpy import typing as npt

from guard.detectors.base import GROUPS, Keys
from guard.model.arrays import Floats

Codes = npt.NDArray[np.uint64]
MOST_MEMBERS = 2**18
"""Longer rows have a key of their bytes alone."""
_FEW = 64
"""Up to so many members the groups are drawn at random; beyond, member j belongs to group j modulo 8."""
_SHIFT, _HALF = np.array(45, dtype=np.uint64), np.array(1 << 44, dtype=np.uint64)
_SIZE = np.array(2**18 - 1, dtype=np.uint64)
_EXPONENTS = 10 << 7
_SMALL = (1023 - 14) << 7
_UPPER = np.array(32, dtype=np.uint64)
_WORD = np.uint64(2**32 - 1)
_MOST_ONES = 2048


def number_codes(matrix: Floats) -> Codes:
    """Return the codes of numbers.

    Args:
        matrix: shape (n, d).

    Returns:
        Shape (n, d), below 2**19.

    >>> number_codes(np.array([[1.0, 0.0], [1.000001, 1e-6]])).tolist()
    [[130944, 0], [130944, 0]]
    """
    bits = np.ascontiguousarray(matrix).view(np.uint64) + _HALF
    bits >>= _SHIFT
    size = bits & _SIZE
    if len(size) == 1:
        top = int(np.maximum.reduce(size, axis=None))
        bits *= size > np.array(min(max(top - _EXPONENTS, 0), _SMALL), dtype=np.uint64)
        return bits
    top = np.maximum(size.max(axis=1, keepdims=True), np.uint64(_EXPONENTS)) - np.uint64(_EXPONENTS)
    bits *= size > np.minimum(top, np.uint64(_SMALL))
    return bits


class RowKeys:
    """Makes keys of rows.

    Args:
        salt: secret; any length.
    """

    __slots__ = ("_factors", "_few", "_seed", "_word")

    def __init__(self, salt: bytes) -> None:
        digest = blake2b(salt, digest_size=24, person=b"guard row keys").digest()
        self._seed = int.from_bytes(digest[:16], "big")
        self._word = int.from_bytes(digest[16:20], "big")
        self._factors: Codes = _draw(self._seed, 2 * _FEW)
        self._few: dict[int, tuple[Codes, Codes]] = {}

    def of_codes(self, codes: Codes) -> Keys:
        """Return keys of rows of codes.

        Args:
            codes: shape (n, d), below 2**32; 1 <= d <= `MOST_MEMBERS`.

        Returns:
            Shape (n, 1 + GROUPS). With fewer than three members nothing is left out: two rows of two members would
            nearly always agree in one of them.
        """
        width = codes.shape[1]
        if width <= _FEW:
            few = self._few.get(width)
            if few is None:
                few = self._few[width] = self._table(width)
            sums = np.dot(codes, few[0])
            sums += few[1]
        else:
            sums = self._many(codes)
        return (sums >> _UPPER).astype(np.uint32)

    def _table(self, width: int) -> tuple[Codes, Codes]:
        """Return factors, shape (width, 1 + GROUPS), 0 where a member is left out, and offsets, shape (1 + GROUPS,)."""
        rng = np.random.Generator(np.random.PCG64([self._seed, width]))
        table = np.repeat(self._factors[:width, None], 1 + GROUPS, axis=1)
        if width > 2:
            table[np.arange(width), 1 + rng.permutation(width) % GROUPS] = 0
        return table, self._factors[_FEW : _FEW + 1 + GROUPS] + np.uint64(width)

    def _many(self, codes: Codes) -> Codes:
        n, width = codes.shape
        if width > len(self._factors):
            self._factors = _draw(self._seed, 1 << (width - 1).bit_length())
        padded = np.zeros((n, -(-width // GROUPS) * GROUPS), dtype=np.uint64)
        np.multiply(codes, self._factors[:width], out=padded[:, :width])
        groups = padded.reshape(n, -1, GROUPS).sum(axis=1)
        sums = np.empty((n, 1 + GROUPS), dtype=np.uint64)
        sums[:, 0] = groups.sum(axis=1) + np.uint64(width)
        np.subtract(sums[:, :1], groups, out=sums[:, 1:])
        return sums

    def of_numbers(self, matrix: Floats) -> Keys:
        """Return keys of rows of numbers, shape (n, d) -> (n, 1 + GROUPS).

        >>> one, two = RowKeys(b"s").of_numbers(np.array([[1.0, 2, 3, 4], [1.0, 2, 3, 9]]))
        >>> int((one == two).sum())
        1
        """
        return self.of_codes(number_codes(matrix))

    def of_words(self, rows: Sequence[Sequence[bytes]]) -> Keys:
        """Return keys of texts by their words: groups hold every eighth word, so one replaced word is one group.

        Args:
            rows: each text's words, in order.
        """
        seed = self._word
        return np.concatenate(
            [self.of_codes(np.array([[crc32(word, seed) for word in row] or [0]], dtype=np.uint64)) for row in rows]
        )

    def of_tokens(self, rows: Sequence[Codes]) -> Keys:
        """Return keys of rows of tokens, at least one each; what follows the 2,048th is one more."""
        found: list[Keys] = []
        for row in rows:
            codes = row[:_MOST_ONES] & _WORD
            if len(row) > _MOST_ONES:
                codes = np.append(codes, np.uint64(crc32(row[_MOST_ONES:].tobytes(), self._word)))
            found.append(self.of_codes(codes[None]))
        return np.concatenate(found)

    def of_members(self, rows: Sequence[Sequence[object]]) -> Keys:
        """Return keys of rows whose members are not all numbers, such as categories.

        Args:
            rows: at least one member each; what follows the 2,048th is one more.
        """
        return np.concatenate([self.of_codes(self._member_codes(row)) for row in rows])

    def _member_codes(self, row: Sequence[object]) -> Codes:
        if len(row) > _MOST_ONES:
            row = [*row[:_MOST_ONES], list(row[_MOST_ONES:])]
        plain = [item if isinstance(item, int | float) and not isinstance(item, bool) else None for item in row]
        codes = number_codes(np.array([[_float(item) for item in plain]]))
        for column, item in enumerate(plain):
            if item is None:
                codes[0, column] = crc32(canonical(row[column]), self._word)
        return codes

    def of_bytes(self, rows: Sequence[bytes]) -> Keys:
        """Return keys of opaque rows: the same in every column, so that nothing counts as left out."""
        seed = self._seed.to_bytes(16, "big")
        found = [blake2b(row, digest_size=4, key=seed).digest() for row in rows]
        return np.repeat(np.frombuffer(b"".join(found), dtype=np.uint32)[:, None], 1 + GROUPS, axis=1)


def canonical(value: object) -> bytes:
    """Return bytes for one member of a row, whatever it is.

    >>> canonical("a"), canonical(True), canonical({"b": 1, "a": None})
    (b'"a"', b'true', b'{"a":null,"b":1}')
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates, integers of more than 64 bits, what is nested too deep.
        try:
            return repr(value).encode("utf-8", "surrogatepass")
        except RecursionError:
            return b""


def _float(value: object) -> float:
    try:
        return 0.0 if value is None else float(cast("float", value)) + 0.0
    except OverflowError:
        return float("inf")


def _draw(seed: int, size: int) -> Codes:
    """Return odd numbers below 2**64; fewer are the beginning of more."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.integers(0, 2**64 - 1, size=size, dtype=np.uint64, endpoint=True) | np.uint64(1)
