"""What an operator has said must never leave: canaries.

Compared is the normal form, so `7 9-4.7` is `7947`. A match is any run of so many of a canary's letters and digits, or
all of a shorter one. What may become one waits, so nothing of it leaves.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Self

import numpy as np

from guard.defences.secret_normal import codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from guard.defences.secret_window import Window
    from guard.model.arrays import Ints

LEAST = 4
"""A canary has at least as many letters and digits."""
_WIDEST = 200
"""Characters that a run may be spread over."""
_MANY = 64
"""From so many characters on, numpy is faster."""


class CanarySet:
    """Canaries, cut into runs; shared by all texts.

    Args:
        canaries: normal forms, of `LEAST` characters or more.
        run: characters of a run.
    """

    def __init__(self, canaries: Iterable[str], run: int) -> None:
        self.reach = run
        grams = {text[i : i + run] for text in canaries for i in range(max(1, len(text) - run + 1))}
        self._grams = frozenset(grams)
        self._sorted = sorted(grams)
        lengths: dict[str, set[int]] = {}
        for gram in grams:
            lengths.setdefault(gram[:LEAST], set()).add(len(gram))
        self._lengths = {key: tuple(sorted(of, reverse=True)) for key, of in lengths.items()}
        self._begun = frozenset(key[:n] for key in lengths for n in range(1, LEAST))
        self._sketch = np.zeros(2**16, np.bool_)
        self._sketch[np.concatenate([_sketched(key) for key in lengths])] = True

    def starts(self, text: str) -> Sequence[int]:
        """Return where a run may begin in a normal form."""
        if len(text) < _MANY:
            return range(len(text))
        return [*np.flatnonzero(self._sketch[_sketched(text)]).tolist(), *range(len(text) - LEAST + 1, len(text))]

    def at(self, text: str, start: int) -> tuple[int, bool]:
        """Return how long the longest run is that begins at a place (0: none does), and whether a longer one may come.

        Args:
            text: normal form.
            start: a place in it.
        """
        key = text[start : start + LEAST]
        if len(key) < LEAST:
            return 0, key in self._begun
        if (lengths := self._lengths.get(key)) is None:
            return 0, False
        rest = text[start : start + self.reach]
        found = next((n for n in lengths if n <= len(rest) and rest[:n] in self._grams), 0)
        if len(rest) == self.reach:
            return found, False
        after = bisect_left(self._sorted, rest + "\0")
        return found, after < len(self._sorted) and self._sorted[after].startswith(rest)


def _sketched(text: str) -> Ints:
    """Return 16 bits of each `LEAST` characters of a normal form."""
    point = codes(text)
    mixed = ((point[:-3] * np.uint64(31) + point[1:-2]) * np.uint64(37) + point[2:-1]) * np.uint64(41) + point[3:]
    return (mixed * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(48)).astype(np.int64)


class Canaries:
    """Finds canaries in one text: a finder."""

    __slots__ = ("_places", "_set", "_text")

    def __init__(self, canaries: CanarySet) -> None:
        self._set = canaries
        self._text = ""  # normal form of what may be the beginning of a run
        self._places: list[int] = []  # where its characters are

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)(self._set)
        made._text, made._places = self._text, self._places
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        del window
        return bool(self._text) or len(token) >= LEAST or not token.isascii()

    def look(self, window: Window, *, last: bool) -> int:
        """Mark runs; let wait what may become one."""
        del last
        fresh, new = window.normal()
        text, places = self._text + fresh, [*self._places, *new]
        kept = len(text)
        end = window.end
        for start in self._set.starts(text):
            length, open_ = self._set.at(text, start)
            if length and places[start + length - 1] - places[start] < _WIDEST:
                window.marks.append((places[start], places[start + length - 1] + 1))
            if open_ and kept == len(text) and end - places[start] < _WIDEST:
                kept = start
        self._text, self._places = text[kept:], places[kept:]
        return self._places[0] if self._places else end
