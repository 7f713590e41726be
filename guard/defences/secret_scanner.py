"""One text on its way past the finders: what may leave, what waits, what is redacted.

A finder's decisions depend on the text alone and never on how it was split: it decides only what no further character
can change, and lets the rest wait. What leaves is therefore the same for every split, and what waits is bounded by what
the finders say they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, Self

from guard.defences.base import Cleared
from guard.defences.secret_window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

BEFORE = 512
"""Characters of the prompt's end that are looked at."""
LONGEST = 200
"""Characters that wait at most, folded. Each was one character of the answer, or an escape of two or six, and may have
up to 16 before it that show nothing."""


class Finder(Protocol):
    """Finds one sort of secret in one text.

    It keeps where it is in the text, and may look at `CONTEXT` characters before what it let wait.
    """

    def look(self, window: Window, *, last: bool) -> int:
        """Mark in the window what certainly must not leave, and return the position from which the text must wait.

        Every character from there on may be part of something that is not decided: at most `LONGEST` of them. A span
        is marked whole or as it comes, and never begins before a position that was returned earlier.

        Args:
            window: what was fed.
            last: nothing follows, so nothing may wait: what is returned is ignored.
        """
        ...

    def may_complete(self, window: Window, token: str) -> bool:
        """Say, in less than a microsecond, whether `look` could mark anything in what a token adds.

        Args:
            window: what was looked at last.
            token: what would be added; folded, it is no longer.
        """
        ...

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        ...


class SecretScanner:
    """Implements `guard.defences.base.Scanner` over finders.

    Args:
        finders: new ones.
        before: the end of what the text goes on from.
        action: what happens to a secret.
        replacement: what stands for it.
    """

    __slots__ = (
        "_action",
        "_ended",
        "_fed",
        "_finders",
        "_held",
        "_open",
        "_origin",
        "_out",
        "_replacement",
        "_window",
    )

    def __init__(
        self, finders: Sequence[Finder], before: str, action: Literal["redact", "end"], replacement: str
    ) -> None:
        self._finders = finders
        self._action = action
        self._replacement = replacement
        self._window = window = Window()
        self._open = False  # what left last was a redaction, and what touches it belongs to it
        self._ended = False
        self._fed = 0  # characters that came, the client's own not counted
        self._held = ""  # those of them that wait
        if before:
            window.add(before[-BEFORE:], last=True)
            for finder in finders:
                finder.look(window, last=False)
        self._out = window.end  # position up to which everything has left, or was the client's own
        self._origin = window.raw(window.end)
        window.marks = [(a, b) for a, b in window.marks if b > self._out]

    def feed(self, text: str, *, last: bool) -> Cleared:
        """Take what is added to the text, and say what may leave."""
        window, fed = self._window, self._fed
        self._fed = fed + len(text)
        if self._ended:
            return Cleared("", self._fed, ((fed, self._fed),) if text else (), ends=True)
        window.add(text, last=last)
        self._held += text
        out = window.end
        for finder in self._finders:
            waits = finder.look(window, last=last)
            out = min(out, waits)
        out = window.end if last else max(out, self._out)
        if window.marks:
            cleared = self._redacted(out)
        else:
            upto = window.raw(out) - self._origin
            count = upto - (self._fed - len(self._held))
            leaves, self._held = self._held[:count], self._held[count:]
            self._open = self._open and not count
            cleared = Cleared(leaves, upto)
        self._out = out
        window.drop(out)
        return cleared

    def completes(self, token: str) -> bool:
        """Say whether a candidate would have completed something that must not leave, or gone on with it."""
        if self._ended:
            return True
        window = self._window
        token = window.begun + token
        finders = [finder for finder in self._finders if finder.may_complete(window, token)]
        if not finders:
            return False
        window = window.copy()
        window.add(token, last=True)
        for finder in finders:
            finder.copy().look(window, last=True)
        return any(b > window.fresh for _, b in window.marks)

    def _redacted(self, out: int) -> Cleared:
        """Let out what lies before a position, but for what is marked."""
        window, at = self._window, self._out
        start = self._fed - len(self._held)

        def raw(position: int) -> int:
            return window.raw(position) - self._origin

        parts: list[str] = []
        spans: list[tuple[int, int]] = []
        for a, b in merged(window.marks, at, out):
            if a > at:
                parts.append(self._held[raw(at) - start : raw(a) - start])
                self._open = False
            if self._action == "end":
                self._ended, self._held, window.marks = True, "", []
                return Cleared("".join(parts), self._fed, ((raw(a), self._fed),), ends=True)
            if not self._open:
                parts.append(self._replacement)
            self._open = True
            spans.append((raw(a), raw(b)))
            at = b
        if out > at:
            parts.append(self._held[raw(at) - start : raw(out) - start])
            self._open = False
        window.marks = [(a, b) for a, b in window.marks if b > out]
        self._held = self._held[raw(out) - start :]
        return Cleared("".join(parts), raw(out), tuple(spans))


def merged(marks: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    """Return the union of spans as far as it lies in [low, high), in order; spans that touch are one.

    >>> merged([(5, 9), (1, 3), (3, 4), (8, 20)], 2, 12)
    [(2, 4), (5, 12)]
    """
    found: list[tuple[int, int]] = []
    for a, b in sorted((max(a, low), min(b, high)) for a, b in marks):
        if a >= b:
            continue
        if found and a <= found[-1][1]:
            found[-1] = (found[-1][0], max(b, found[-1][1]))
        else:
            found.append((a, b))
    return found
