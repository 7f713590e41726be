"""Payment cards and bank accounts (IBAN), in any grouping.

python-stdnum knows both, and is held against this in the tests. It is no dependency: LGPL, 6 MB, a file to read and an
import for what is a checksum and a table here, and it cannot say what may become a number.
"""

from __future__ import annotations

import re
from functools import cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from guard.defences.secret_window import Window

_DIGIT = re.compile(r"[0-9]")
_GAP = r"[\s._-]{0,3}"
_SOON = re.compile(rf"{_GAP}\Z")

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
_CHAIN = re.compile(rf"(?<![A-Za-z0-9])(?<![0-9][.,])[0-9]++(?:{_GAP}[0-9]++)*+")
"""Groups of digits with no more than a gap between them."""
_GROUP = re.compile(r"[0-9]++")
_SHORTEST_CARD, _SHORTEST_IBAN = 13, 15
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
        return self._at < window.end or len(token) >= _SHORTEST_CARD

    def look(self, window: Window, *, last: bool) -> int:
        """Mark card numbers; let wait what may become one."""
        text, base = window.text, window.base
        waits = end = len(text)
        at = self._at - base
        for chain in _CHAIN.finditer(text, at):
            open_ = not last and (chain.end() == end or _SOON.match(text, chain.end()) is not None)
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


_COUNTRIES = (
    "AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n CY8n16c "
    "CZ20n DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n GE2a16n GI4a15c GL14n "
    "GR7n16c GT24c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c KW4a22c KZ3n13c LB4n20c "
    "LC4a24c LI5n12c LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n MN16n MR23n MT4a5n18c MU4a19n3a "
    "NI4a20n NL4a10n NO11n OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c RS18n RU14n15c SA2n18c SC4a20n3a SD14n "
    "SE20n SI15n SK20n SM1a10n12c SO19n ST21n SV4a20n TL19n TN20n TR6n16c UA6n19c VA18n VG4a16n XK16n YE4a4n18c"
)


def _form(entry: str) -> str:
    return "".join(kind * int(times) for times, kind in re.findall(r"(\d+)([nac])", entry))


IBAN_FORMS = {entry[:2]: "nn" + _form(entry[2:]) for entry in _COUNTRIES.split()}
"""What follows the country, a letter each: n digit, a letter, c either (SWIFT's registry of ISO 13616, release 101)."""
_FITS = {"n": str.isdigit, "a": str.isalpha, "c": str.isalnum}
_IBAN = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z]{{2}}(?={_GAP}[0-9])")
_IBAN_BEGUN = re.compile(rf"(?<![A-Za-z0-9])(?:([A-Za-z]{{2}}){_GAP}|([A-Za-z]))\Z")
_COUNTRIES_BEGUN = {country[:n] for country in IBAN_FORMS for n in (1, 2)}
_IBAN_NEXT = re.compile(rf"{_GAP}([A-Za-z0-9])")


def mod97(iban: str) -> bool:
    """Say whether an IBAN's check digits are right (ISO 7064, mod 97-10).

    >>> mod97("DE89370400440532013000"), mod97("DE88370400440532013000")
    (True, False)
    """
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1


class Ibans:
    """Finds IBANs: a country, its length, right check digits; upper or lower case, in any grouping."""

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
        return self._at < window.end or len(token) >= _SHORTEST_IBAN

    def look(self, window: Window, *, last: bool) -> int:
        """Mark IBANs; let wait what may become one."""
        del last  # the length is known: what is not complete by the end is none
        text, base = window.text, window.base
        waits = end = len(text)
        at = self._at - base
        for begun in _IBAN.finditer(text, at) if _DIGIT.search(text, at) else ():
            start = begun.start()
            stop, open_ = _iban(text, start)
            if stop:
                window.marks.append((base + start, base + stop))
            elif open_ and waits == end:
                waits = start
        if waits == end and (begun := _IBAN_BEGUN.search(text, max(at, end - 5))) is not None:
            waits = begun.start() if (begun[1] or begun[2]).upper() in _COUNTRIES_BEGUN else end
        self._at = base + waits
        return self._at


def _iban(text: str, start: int) -> tuple[int, bool]:
    """Return where the IBAN that begins at a place ends (0: there is none), and whether it may still become one."""
    chars = text[start : start + 2].upper()
    at = start + 2
    for kind in IBAN_FORMS.get(chars, ""):
        following = _IBAN_NEXT.match(text, at)
        if following is None:
            return 0, _SOON.match(text, at) is not None
        if not _FITS[kind](following[1]):
            return 0, False
        chars += following[1].upper()
        at = following.end()
    return (at, False) if len(chars) > 2 and mod97(chars) else (0, False)
