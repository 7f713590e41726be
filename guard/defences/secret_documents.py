"""Finds runs of documents in one text.

The first n - 1 letters and digits of a run are no run: they have left when it becomes one, and nothing waits for them.
What is redacted is each character that completes a run, to its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.defences.secret_ngrams import Ngrams
    from guard.defences.secret_window import Window

_WIDEST = 16
"""What stands between two redacted characters is redacted with them, up to so much."""
_MANY = 48
"""From so many characters on, numpy is faster."""


class Documents:
    """Finds runs of documents in one text: a finder."""

    __slots__ = ("_ngrams", "_rolled", "_text", "_until")

    def __init__(self, ngrams: Ngrams) -> None:
        self._ngrams = ngrams
        self._text = ""  # the last n characters of the normal form
        self._rolled = 0  # their rolling hash, once there are n
        self._until = -1  # position behind the last character, where that is redacted

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)(self._ngrams)
        made._text, made._rolled, made._until = self._text, self._rolled, self._until
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        del window
        return len(self._text) + len(token) >= self._ngrams.n or not token.isascii()

    def look(self, window: Window, *, last: bool) -> int:
        """Mark what completes a run, and what goes on with it."""
        del last
        fresh, places = window.normal()
        if fresh:
            for i in self._complete(fresh):
                place = places[i]
                joined = self._until >= 0 and place - self._until <= _WIDEST and (i == 0 or places[i - 1] < self._until)
                window.marks.append((self._until if joined else place, place + 1))
                self._until = place + 1
            if places[-1] >= self._until:
                self._until = -1
        if self._until >= 0 and window.end - self._until <= _WIDEST:
            return self._until
        return window.end

    def _complete(self, fresh: str) -> Iterator[int]:
        """Yield which of the new characters complete a run."""
        ngrams, kept = self._ngrams, len(self._text)
        text = self._text + fresh
        if kept == ngrams.n and len(fresh) < _MANY:
            found = [i for i in range(len(fresh)) if ngrams.may_hold(self._roll(text[i], fresh[i]))]
        elif len(text) >= ngrams.n:
            # The run that was complete before is rolled again, and not looked up again.
            rolled = ngrams.rolled(text)
            self._rolled = int(rolled[-1])
            ends = ngrams.candidates(rolled) + (ngrams.n - 1 - kept)
            found = [i for i in ends.tolist() if i >= 0]
        else:
            found = []
        self._text = text[-ngrams.n :]
        for i in found:
            if ngrams.holds(text[kept + i + 1 - ngrams.n : kept + i + 1]):
                yield i

    def _roll(self, gone: str, come: str) -> int:
        self._rolled = self._ngrams.roll(self._rolled, gone, come)
        return self._rolled
