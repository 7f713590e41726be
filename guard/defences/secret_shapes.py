r"""Patterns that can be followed as a text comes: `AKIA[0-9A-Z]{16,}`, the built-in ones and the operator's own.

The language is the part of regular expressions whose matches are found in one pass with no way back: characters,
classes, `\d \w \s` and how often each may stand, one behind the other. Each takes as many characters as it may, and
gives none back. So a try at one place is decided after at most the pattern's width, costs no more than that, and it is
known at each character whether it is still under way; groups, `|`, `.*` and look-around would cost one of the three.
Only the last element may be without bound: what follows of its characters belongs to the match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WIDEST = 200
"""Most characters until a pattern is decided."""
_CLASS = r"\[(?:\\.|[^\]\\])+\]"
_ELEMENT = re.compile(rf"({_CLASS}|\\[dws]|\\[^A-Za-z0-9]|[^][\\(){{}}|.*+?^$])(\{{\d+(?:,\d*)?\}}|[?+*])?")


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern, ready to be followed.

    Args:
        name: what it finds.
        pattern: as it was written.
        first: one character of any that it may begin with.
        beyond: that may be one beyond ASCII.
        opening: what follows up to its sixth character, or the end of what came.
        known: first characters that stay where it begins inside a word: they are no secret, and any word may end so.
        least: characters of the shortest match.
        word: it begins only where no letter or digit stands before.
        whole: matches as soon as it is certain.
        begun: matches what may become one, up to the end of what came.
        tail: characters that belong to it once it is certain; empty when none do.
    """

    name: str
    pattern: str
    first: re.Pattern[str] = field(repr=False)
    beyond: bool
    opening: str
    known: int
    least: int
    word: bool
    whole: re.Pattern[str] = field(repr=False)
    begun: re.Pattern[str] = field(repr=False)
    tail: str


def shape(name: str, pattern: str, known: int = 0) -> Shape:
    r"""Read a pattern.

    Args:
        name: what it finds.
        pattern: in the language above.
        known: as in `Shape`.

    Raises:
        ValueError: it is not in the language; the message says why.

    >>> shape("badge", r"\bEMP-\d{6}").whole.match("EMP-123456")[0]
    'EMP-123456'
    >>> shape("any", "a+b")
    Traceback (most recent call last):
    ...
    ValueError: only the last element may be without bound: a+ needs {1,9}, say
    """
    word = pattern.startswith(r"\b")
    elements = _elements(pattern.removeprefix(r"\b"))
    first = elements[0][0]
    if elements[0][1] == 0:
        raise ValueError("the first element may not be missing")
    if sum(low if i == len(elements) - 1 else high for i, (_, low, high) in enumerate(elements)) > WIDEST:
        raise ValueError(f"it is decided after more than {WIDEST} characters")
    opening = ""
    for chars in reversed(_singles(elements, 6)[1:]):
        opening = rf"(?:{chars}{opening}|\Z)"
    last, low, high = elements[-1]
    whole = "".join(rf"{chars}{{{a},{b}}}+" for chars, a, b in elements[:-1]) + rf"{last}{{{low}}}"
    tail = "" if high == low else last
    if tail and high < _UNBOUND:
        raise ValueError("the last element stands a number of times, {6}, or without bound, {6,}")
    begun = rf"{last}{{0,{max(low - 1, 0)}}}\Z"
    for chars, a, b in reversed(elements[:-1]):
        begun = rf"(?:{chars}{{0,{b}}}+\Z|{chars}{{{a},{b}}}+{begun})"
    return Shape(
        name,
        pattern,
        re.compile(first),
        not first.isascii() or "\\" in first or first.startswith("[^"),
        opening,
        known,
        sum(low for _, low, _ in elements),
        word,
        re.compile(whole),
        re.compile(begun),
        tail,
    )


_UNBOUND = 10**9


def _singles(elements: list[tuple[str, int, int]], most: int) -> list[str]:
    """Return what the first characters must be, as far as that is the same for all matches."""
    found: list[str] = []
    for chars, low, high in elements:
        found += [chars] * low
        if low != high or len(found) >= most:
            break
    return found[:most]


def _elements(pattern: str) -> list[tuple[str, int, int]]:
    """Split a pattern into elements: a class as `re` writes it, and the least and most times that it stands."""
    found: list[tuple[str, int, int]] = []
    at = 0
    while at < len(pattern):
        if (element := _ELEMENT.match(pattern, at)) is None:
            raise ValueError(
                f"{pattern[at]!r} cannot stand in a pattern: it is made of characters, classes such as [A-Z0-9], "
                r"\d \w \s, and {n}, {m,n} or ? behind them; put a backslash before what is meant as it stands"
            )
        if found and found[-1][2] == _UNBOUND:
            raise ValueError(f"only the last element may be without bound: {found[-1][0]}+ needs {{1,9}}, say")
        found.append((element[1], *_times(element[2] or "")))
        at = element.end()
    if not found:
        raise ValueError("it is empty")
    for chars, _, _ in found:
        try:
            re.compile(chars)
        except re.error as error:
            raise ValueError(f"{chars} is no class: {error.msg}") from error
    return found


def _times(said: str) -> tuple[int, int]:
    match said:
        case "":
            return 1, 1
        case "?":
            return 0, 1
        case "+":
            return 1, _UNBOUND
        case "*":
            return 0, _UNBOUND
        case _:
            low, comma, high = said[1:-1].partition(",")
            least = int(low)
            most = int(high) if high else _UNBOUND if comma else least
            if not least <= most or least > WIDEST:
                raise ValueError(f"{said} cannot be kept")
            return least, most
