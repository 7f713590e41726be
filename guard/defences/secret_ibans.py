"""Bank accounts (IBAN), in any grouping."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from guard.defences.secret_numbers import GAP, SOON

if TYPE_CHECKING:
    from guard.defences.secret_window import Window

_DIGIT = re.compile(r"[0-9]")
_SHORTEST = 15
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
_IBAN = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z]{{2}}(?={GAP}[0-9])")
_IBAN_BEGUN = re.compile(rf"(?<![A-Za-z0-9])(?:([A-Za-z]{{2}}){GAP}|([A-Za-z]))\Z")
_COUNTRIES_BEGUN = {country[:n] for country in IBAN_FORMS for n in (1, 2)}
_IBAN_NEXT = re.compile(rf"{GAP}([A-Za-z0-9])")


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
        return self._at < window.end or len(token) >= _SHORTEST

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
            return 0, SOON.match(text, at) is not None
        if not _FITS[kind](following[1]):
            return 0, False
        chars += following[1].upper()
        at = following.end()
    return (at, False) if len(chars) > 2 and mod97(chars) else (0, False)
