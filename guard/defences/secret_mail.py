"""E-mail addresses.

Any word may become one, so the last word of what came always waits for the character behind it: with e-mail addresses
among what is found, text leaves a word late.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from guard.defences.secret_window import Window

_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-" + "".join(map(chr, range(0xC0, 0x250)))
_MOST = 64
"""Characters before the @ (RFC 5321): of a longer run the last 64 count."""
_RUN = re.compile(r"@[A-Za-z0-9.-]{0,64}")
_SURE = re.compile(r"@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*?\.[A-Za-z]{2}")
_MORE = re.compile(r"(?:[A-Za-z0-9-]|\.(?=[A-Za-z0-9]))*+")


class Mails:
    """Finds e-mail addresses."""

    __slots__ = ("_at", "_inside")

    def __init__(self) -> None:
        self._at = 0
        self._inside = False  # a domain goes on

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)()
        made._at, made._inside = self._at, self._inside
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        return self._inside or "@" in token or window.text.find("@", self._at - window.base) >= 0

    def look(self, window: Window, *, last: bool) -> int:
        """Mark addresses; let wait the last word, and what stands before an @."""
        text, base = window.text, window.base
        at, end = self._at - base, len(text)
        waits = end
        if self._inside:
            at = self._rest(window, at)
        sign = text.find("@", at)
        while sign >= 0:
            local = _word(text, sign)
            start = sign - local
            run = _RUN.match(text, sign)
            stop = sign + 1 if run is None else run.end()
            if not local:
                stop = sign + 1
            elif (sure := _SURE.match(text, sign, stop)) is not None:
                window.marks.append((base + start, base + sure.end()))
                stop = self._rest(window, sure.end())
            elif stop == end and stop - sign <= _MOST:
                waits = min(waits, start)
            sign = text.find("@", max(stop, sign + 1))
        if not self._inside:
            waits = min(waits, end - _word(text, end))
        elif not last and text.endswith("."):
            waits = min(waits, end - 1)  # the end of a sentence, or of a label
        self._at = base + waits
        return self._at

    def _rest(self, window: Window, start: int) -> int:
        """Mark what goes on belonging to a domain; return where it ends, as far as that is known."""
        text = window.text
        run = _MORE.match(text, start)
        stop = start if run is None else run.end()
        if stop > start:
            window.marks.append((window.base + start, window.base + stop))
        self._inside = stop == len(text) or (stop + 1 == len(text) and text[stop] == ".")
        return stop


def _word(text: str, end: int) -> int:
    """Return how many characters before a place may stand before an @."""
    tail = text[max(end - _MOST, 0) : end]
    return len(tail) - len(tail.rstrip(_LOCAL))
