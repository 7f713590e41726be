"""What an operator has said must never leave: canaries.

Compared is a normal form: letters and digits alone, without case, accents, width or script of digits. So `7 9-4.7` is
`7947`. A match is any run of so many of a canary's letters and digits, or all of a shorter one.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guard.defences.secret_window import Window

LEAST = 4
"""A canary has at least as many letters and digits."""
MOST_BYTES = 2**16
_WIDEST = 200
"""Characters that a run may be spread over."""
_ASCII: dict[int, str | None] = {code: chr(code).lower() if chr(code).isalnum() else None for code in range(128)}


def normal(char: str) -> str:
    """Return the letters and digits of a character.

    >>> "".join(map(normal, "É7 ﬁ-ẞ"))
    'e7fiss'
    """
    return "".join(c for c in unicodedata.normalize("NFKD", char).casefold() if c.isalnum())


def normal_text(text: str) -> str:
    """Return the normal form of a folded text.

    >>> normal_text("7 9-4.7, Über")
    '7947uber'
    """
    return text.translate(_ASCII) if text.isascii() else "".join(map(normal, text))


def normal_positions(text: str) -> tuple[str, list[int]]:
    """Return the normal form of a folded text, and where each of its characters came from."""
    if text.isascii():
        return text.translate(_ASCII), [i for i, char in enumerate(text) if char.isalnum()]
    parts = [(normal(char), i) for i, char in enumerate(text)]
    return "".join(part for part, _ in parts), [i for part, i in parts for _ in part]


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


class Canaries:
    """Finds canaries in one text: a finder."""

    __slots__ = ("_looked", "_places", "_set", "_text")

    def __init__(self, canaries: CanarySet) -> None:
        self._set = canaries
        self._text = ""  # normal form of what may be the beginning of a run
        self._places: list[int] = []  # where its characters are
        self._looked = 0

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)(self._set)
        made._text, made._places, made._looked = self._text, self._places, self._looked
        return made

    def look(self, window: Window, *, last: bool) -> int:
        """Mark runs; let wait what may become one."""
        del last
        fresh, places = normal_positions(window.text[window.fresh - window.base :])
        text = self._text + fresh
        places = self._places + [window.fresh + i for i in places]
        kept = len(text)
        end = window.end
        for start in range(len(text)):
            length, open_ = self._set.at(text, start)
            if length and places[start + length - 1] - places[start] < _WIDEST:
                window.marks.append((places[start], places[start + length - 1] + 1))
            if open_ and kept == len(text) and end - places[start] < _WIDEST:
                kept = start
        self._text, self._places = text[kept:], places[kept:]
        return self._places[0] if self._places else end
