"""The form in which canaries and documents are compared: letters and digits, without case, accents or width."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from guard.model.arrays import Longs

_MOST = 2**14


def normal(char: str) -> str:
    """Return the letters and digits of a character.

    >>> "".join(map(normal, "É7 ﬁ-ẞ"))
    'e7fiss'
    """
    return "".join(c for c in unicodedata.normalize("NFKD", char).casefold() if c.isalnum())


class _Normals(dict[int, str]):
    """What is left of each character: made when it is first met."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MOST:
            self.clear()
        self[code] = found = normal(chr(code))
        return found


_NORMALS = _Normals()
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)}
_STAYS = np.array([chr(code).isalnum() for code in range(128)])
_MANY = 64
"""From so many characters on, numpy is faster."""


def normal_text(text: str) -> str:
    """Return the normal form of a folded text.

    >>> normal_text("7 9-4.7, Über")
    '7947uber'
    """
    return text.translate(_ASCII if text.isascii() else _NORMALS)


def normal_places(text: str, at: int) -> Sequence[int]:
    """Return the position of each character of the normal form.

    Args:
        text: folded.
        at: position of its first character.

    >>> list(normal_places("7 9-4.ﬁ", 100))
    [100, 102, 104, 106, 106]
    """
    if not text.isascii():
        return [i for i, char in enumerate(text, at) for _ in _NORMALS[ord(char)]]
    if len(text) < _MANY:
        return [i for i, char in enumerate(text, at) if char.isalnum()]
    kept = _STAYS[np.frombuffer(text.encode("ascii"), np.uint8)]
    return (np.flatnonzero(kept) + at).tolist()


def codes(text: str) -> Longs:
    """Return a text's code points, shape (n,), uint64."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint64)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
