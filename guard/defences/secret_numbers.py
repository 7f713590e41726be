"""Payment cards, in any grouping.

python-stdnum knows the check digits of cards and of accounts (`secret_ibans`), and is held against both in tests. It
is no dependency: LGPL, 6 MB and a file to read for what is a checksum and a table here, and it cannot say what may
become a number.
"""

from __future__ import annotations

import re
from functools import cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.defences.secret_window import Window

GAP = r"[\s._-]{0,3}"
"""What may stand between two groups."""
SOON = re.compile(rf"{GAP}\Z")

_ISSUERS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "659", (16, 17, 18, 19)),
    ("300", "305", (14, 15, 16)),  # Diners Club
    ("3095", "3095", (14, 15, 16)),
    ("36", "36", (14, 15, 16)),
    ("38", "39", (14, 15, 16)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("81", "82", (16, 17, 18, 19)),
    ("5018", "5018", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("5020", "5020", (13, 14, 15, 16, 17, 18, 19)),
    ("5038", "5038", (13, 14, 15, 16, 17, 18, 19)),
    ("5893", "5893", (13, 14, 15, 16, 17, 18, 19)),
    ("6304", "6304", (13, 14, 15, 16, 17, 18, 19)),
    ("6759", "6763", (13, 14, 15, 16, 17, 18, 19)),
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("5060", "5063", (16, 18, 19)),  # Verve
    ("508", "508", (16,)),  # RuPay
    ("60", "60", (16,)),
    ("9792", "9792", (16,)),  # Troy
)
_ALNUM = ascii_letters + digits
_DOUBLED = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))
_CHAIN = re.compile(rf"(?<![A-Za-z0-9])(?<![0-9][.,])[0-9]++(?:{GAP}[0-9]++)*+")
"""Groups of digits with no more than a gap between them."""
_GROUP = re.compile(r"[0-9]++")
_SHORTEST = 13
_MOST_AFTER_POINT = 6
"""Digits of a group behind a point: more are a fraction."""


def luhn(digits: str) -> bool:
    """Say whether the last digit checks the others (ISO/IEC 7812-1).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    return (sum(map(int, digits[-1::-2])) + sum(map(_DOUBLED.__getitem__, digits[-2::-2]))) % 10 == 0


@cache
def lengths(beginning: str) -> frozenset[int]:
    """Return how many digits a card may have that begins so; none when no issuer's cards do.

    Args:
        beginning: one digit to four.
    """
    return frozenset(
        length
        for low, high, of in _ISSUERS
        if low[: len(beginning)] <= beginning[: len(low)] <= high[: len(beginning)]
        for length in of
    )


class Cards:
    """Finds card numbers: whole groups of digits that begin as an issuer's, have its length and a right check digit.

    A group has no letter, digit or decimal point before it, and the last no letter or digit behind it, so that numbers
    with a fraction, hashes and longer numbers are left alone.
    """

    __slots__ = ("_at",)

    def __init__(self) -> None:
        self._at = 0

    def copy(self) -> Self:
        """Return one that can look on by itself."""
        made = type(self)()
        made._at = self._at
        return made

    def may_complete(self, window: Window, token: str) -> bool:
        """Say whether a token could complete one."""
        return self._at < window.end or len(token) >= _SHORTEST

    def look(self, window: Window, *, last: bool) -> int:
        """Mark card numbers; let wait what may become one."""
        text, base = window.text, window.base
        waits = end = len(text)
        at = self._at - base
        for chain in _CHAIN.finditer(text, at):
            open_ = not last and (chain.end() == end or SOON.match(text, chain.end()) is not None)
            for part in _parts(text, chain):
                window.marks += [(base + start, base + stop) for start, stop in part.cards(text, last=last)]
                if open_:
                    waits = part.waits(end)  # the last one counts
        self._at = base + waits
        return self._at


class _Part(NamedTuple):
    """Groups of digits that may be read as one number.

    Args:
        digits: all of them.
        starts: where a number may begin in `digits`, and in the text: at groups that are no fraction.
        ends: where each group ends, likewise.
    """

    digits: str
    starts: dict[int, int]
    ends: dict[int, int]

    def cards(self, text: str, *, last: bool) -> Iterator[tuple[int, int]]:
        """Yield where card numbers stand in the text, of those whose last group is over."""
        for first, start in self.starts.items():
            for length in lengths(self.digits[first : first + 4]):
                if (stop := self.ends.get(first + length)) is None:
                    continue
                over = text[stop] not in _ALNUM if stop < len(text) else last
                if over and luhn(self.digits[first : first + length]):
                    yield start, stop

    def waits(self, end: int) -> int:
        """Return where the first number begins that what follows may complete, or show to be longer; or `end`."""
        count = len(self.digits)
        known = 0 if self.ends.get(count) == end else 1
        return next(
            (
                start
                for first, start in self.starts.items()
                if max(lengths(self.digits[first : first + 4]), default=-1) >= count - first + known
            ),
            end,
        )


def _parts(text: str, chain: re.Match[str]) -> Iterator[_Part]:
    """Split a chain of groups where a point and a long group behind it make a fraction."""
    groups: list[str] = []
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    count, before = 0, chain.start()
    for group in _GROUP.finditer(text, chain.start(), chain.end()):
        point = text[before : group.start()] == "."
        if point and len(group[0]) > _MOST_AFTER_POINT:
            yield _Part("".join(groups), starts, ends)
            groups, starts, ends, count = [], {}, {}, 0
        if not point:
            starts[count] = group.start()
        groups.append(group[0])
        count += len(group[0])
        ends[count] = before = group.end()
    yield _Part("".join(groups), starts, ends)
