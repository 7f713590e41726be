"""Values beside words such as password or token, by how random they look."""

from __future__ import annotations

import re
from math import log2
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from guard.defences.secret_window import Window

_WORD = re.compile(
    r"(?:(?:api|access|secret|private|auth|encryption|signing|account|master|service)[\s_-]?key"
    r"|pass(?:word|wd|phrase|code)|pwd|secret|token|credential|bearer)[a-z0-9_]{0,8}+"
    r"(?P<said>[\"'`*\])]{0,3}+\s{0,3}+(?:[:=]{1,2}+>?|is\b:?))?(?:(?<!\w)|[\s\"'`*])[\s\"'`*(]{0,4}+(?=[a-z0-9+/_!@#$%^&~-])",
    re.ASCII,
)
"""Looked for in lower case: a search that minds no case takes ten times as long."""
_LONGEST_WORD = 56
"""No more characters than these lie between the beginning of a word and the value beside it."""
_VALUE = re.compile(r"[A-Za-z0-9+/_=.~!@#$%^&-]{1,20}")
_MORE = re.compile(r"[A-Za-z0-9+/_=~@#$%^&-]*+")
_SURE = 20
"""Characters of a value by which a long one is judged."""
_LEAST_BITS = 3.2
"""Shannon entropy a character of those 20, where all are of one case: 20 random hexadecimal digits have 3.4."""
_LEAST_MIXED_BITS = 3.8
"""Where both cases occur: 20 random base64 characters have 4.1, names such as `Base64EncoderFactory` less."""
_SHORTEST = 8
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-", re.IGNORECASE)
_CALLED = "([{"


class Words:
    """Finds values beside words: 20 characters that look random, or 8 and more that look like a password."""

    __slots__ = ("_at", "_inside")

    def __init__(self) -> None:
        self._at = 0  # values that begin before are decided
        self._inside = False  # a long value goes on

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)()
        made._at, made._inside = self._at, self._inside
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        return self._inside or self._at < window.end or len(token) >= _SHORTEST

    def look(self, window: Window, *, last: bool) -> int:
        """Mark values; let wait what may be one."""
        text, base = window.text, window.base
        at, end = self._at - base, len(text)
        if self._inside:
            at = self._rest(window, at)
        waits = end
        before = max(at - _LONGEST_WORD, 0)
        near = text[before:].lower()
        word = _WORD.search(near)
        while word is not None:
            start = word.end() + before
            if start >= at:
                stop, open_ = judge(text, start, said=word["said"] is not None, last=last)
                if stop:
                    window.marks.append((base + start, base + stop))
                    if stop - start == _SURE:
                        at = self._rest(window, stop)
                elif open_:
                    waits = min(waits, start)
            word = _WORD.search(near, word.start() + 1)
        self._at = base + waits
        return self._at

    def _rest(self, window: Window, start: int) -> int:
        """Mark what goes on belonging to a long value; return where it ends."""
        run = _MORE.match(window.text, start)
        stop = start if run is None else run.end()
        if stop > start:
            window.marks.append((window.base + start, window.base + stop))
        self._inside = stop == len(window.text)
        return stop


def judge(text: str, start: int, *, said: bool, last: bool) -> tuple[int, bool]:
    """Return where the secret that begins at a place ends, or is certain (0: it is none), and whether that is open.

    Args:
        text: what came.
        start: where a value begins.
        said: `:`, `=` or `is` stands between the word and the value.
        last: nothing follows.
    """
    value = _VALUE.match(text, start)
    if value is None:
        return 0, False
    if len(value[0]) == _SURE:
        return (value.end(), False) if random(value[0]) else (0, False)
    if value.end() == len(text) and not last:
        return 0, True
    called = text[value.end() : value.end() + 1] in _CALLED and value.end() < len(text)
    chosen = value[0].rstrip(".!=")
    return (start + len(chosen), False) if said and not called and password(chosen) else (0, False)


def random(value: str) -> bool:
    """Say whether 20 characters look random: letters and digits, no identifier, no UUID.

    >>> random("9f86d081884c7d659a2f"), random("wJalrXUtnFEMI/K7MDEN"), random("get_parameter_named_")
    (True, True, False)
    """
    digits = sum(char.isdigit() for char in value)
    mixed = any(char.islower() for char in value) and any(char.isupper() for char in value)
    if not (1 if mixed else 4) <= digits < len(value) or _UUID.match(value) is not None:
        return False
    counts = [value.count(char) for char in set(value)]
    bits = -sum(n / len(value) * log2(n / len(value)) for n in counts)
    return bits >= (_LEAST_MIXED_BITS if mixed else _LEAST_BITS)


def password(value: str) -> bool:
    """Say whether a short value looks like a password: upper, lower and digit, or letter, digit and sign.

    >>> password("Tr0ub4dor"), password("h0rse&staple"), password("horses12"), password("sha256.new")
    (True, True, False, False)
    """
    if len(value) < _SHORTEST or not any(char.isdigit() for char in value):
        return False
    mixed = any(char.islower() for char in value) and any(char.isupper() for char in value)
    return mixed or (any(char.isalpha() for char in value) and any(char in "!@#$%^&~" for char in value))
