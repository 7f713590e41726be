r"""The text that finders look at: folded, bounded, with the way back to what the model wrote.

What looks alike is folded to one form before anything is looked for: digits of every script and full-width letters,
dashes, odd spaces, characters that show nothing (they vanish), and the escapes of JSON (`\u0037`, `\n`), behind which
a tool call's arguments could hide. Folding looks at one character, or one escape, at a time, so that it does not
depend on how a text was split.

Positions count folded characters from the first that was ever fed; `raw` leads back to characters as they came.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from guard.defences.secret_normal import normal_places, normal_text

CONTEXT = 64
"""Characters before what waits that finders may still look at."""
_MOST_HIDDEN = 16
"""Characters in a row that show nothing and vanish; then one stands for them, so that they cannot be held for ever."""
_HIDDEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point."""
_PIECE = re.compile(rf"\\u[0-9A-Fa-f]{{4}}|\\[^u]|\\u|[{_HIDDEN}]|[^\\{_HIDDEN}]+|\\", re.DOTALL)
_BEGUN = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_HIDES = re.compile(f"[{_HIDDEN}]")
_SHORT = {"n": "\n", "r": "\n", "t": "\t", "b": " ", "f": " ", '"': '"', "/": "/", "\\": "\\"}
_FILLER = "\0"
_MOST_FOLDS = 4096


class _Folds(dict[int, str]):
    """One character for each: made when it is first met."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MOST_FOLDS:
            self.clear()
        self[code] = folded = _folded(chr(code))
        return folded


def _folded(char: str) -> str:
    r"""Return what a character is looked at as, one character again.

    >>> "".join(map(_folded, "\uff17\u0664\uff21\u2013\u00a0ß"))
    '74A- ß'
    """
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    plain = unicodedata.normalize("NFKC", char)
    if char == "\u0130":
        return "I"  # the only one whose lower case is two
    if len(plain) != 1:
        return char
    match unicodedata.category(plain):
        case "Pd":
            return "-"
        case "Zs":
            return " "
        case "Cs":
            return _FILLER
        case _:
            return "-" if plain == "\u2212" else plain


_FOLDS = _Folds()


class Window:
    """Context, what waits, and what has just come.

    Attributes:
        text: folded characters.
        base: position of the first of them.
        fresh: position of the first that came with the last `add`.
        marks: spans of positions that must not leave, in no order.
    """

    __slots__ = ("_came", "_hidden", "_jumps", "_normal", "_rest", "_shifts", "base", "fresh", "marks", "text")

    def __init__(self) -> None:
        self.text = ""
        self.base = 0
        self.fresh = 0
        self.marks: list[tuple[int, int]] = []
        self._normal: tuple[str, Sequence[int]] | None = None
        self._rest = ""  # an escape that is not complete
        self._hidden = 0  # characters that vanished before the next one
        self._came = 0  # folded characters so far, those included that `text` has not yet
        self._jumps = [0]  # from these positions on ...
        self._shifts = [0]  # ... raw positions are so much greater

    @property
    def end(self) -> int:
        """Position behind the last character."""
        return self.base + len(self.text)

    @property
    def begun(self) -> str:
        """An escape that has begun, and has no position yet."""
        return self._rest

    def copy(self) -> Window:
        """Return one that can be fed by itself, as if no escape had begun."""
        made = Window()
        made.text, made.base, made.fresh, made.marks = self.text, self.base, self.fresh, self.marks.copy()
        made._hidden, made._came = self._hidden, self._came
        made._jumps, made._shifts = self._jumps.copy(), self._shifts.copy()
        return made

    def add(self, raw: str, *, last: bool) -> None:
        """Fold and append.

        Args:
            raw: what came.
            last: nothing follows, so that every character gets a position now.
        """
        self.fresh = self.end
        self._normal = None
        if raw.isascii() and "\\" not in raw and not self._rest and not self._hidden:
            self.text += raw
            self._came += len(raw)
            return
        raw = self._rest + raw
        begun = None if last else _BEGUN.search(raw)
        self._rest = ""
        # Of a row of backslashes the last begins an escape only where their number is odd.
        if begun is not None and (len(raw[: begun.start()]) - len(raw[: begun.start()].rstrip("\\"))) % 2 == 0:
            self._rest, raw = begun[0], raw[: begun.start()]
        parts: list[str] = []
        if "\\" not in raw and not _HIDES.search(raw):
            self._append(parts, raw if raw.isascii() else raw.translate(_FOLDS), len(raw))
        else:
            for piece in _PIECE.findall(raw):
                self._piece(parts, piece)
        if last and self._hidden:
            self._append(parts, _FILLER, 0)
        self.text += "".join(parts)

    def _piece(self, parts: list[str], piece: str) -> None:
        if piece[0] == "\\" and len(piece) > 1:
            char = chr(int(piece[2:], 16)) if len(piece) == 6 else _SHORT.get(piece[1])
            if char is None:
                self._append(parts, piece.translate(_FOLDS), 2)
                return
            self._append(parts, char.translate(_FOLDS) if not _HIDES.match(char) else _FILLER, len(piece))
        elif _HIDES.match(piece):
            self._hidden += 1
            if self._hidden == _MOST_HIDDEN:
                self._append(parts, _FILLER, 0)
        else:
            self._append(parts, piece.translate(_FOLDS), len(piece))

    def _append(self, parts: list[str], folded: str, raw: int) -> None:
        """Append characters of which the first stands for what vanished before it, too."""
        if not folded:
            return
        raw += self._hidden
        self._hidden = 0
        if raw != len(folded):
            self._jumps.append(self._came + 1)
            self._shifts.append(self._shifts[-1] + raw - len(folded))
        self._came += len(folded)
        parts.append(folded)

    def normal(self) -> tuple[str, Sequence[int]]:
        """Return the normal form of what came with the last `add`, and the position of each of its characters."""
        if self._normal is None:
            fresh = self.text[self.fresh - self.base :]
            self._normal = normal_text(fresh), normal_places(fresh, self.fresh)
        return self._normal

    def raw(self, position: int) -> int:
        """Return where a position is in what came: the place before its character."""
        return position + self._shifts[bisect_right(self._jumps, position) - 1]

    def drop(self, before: int) -> None:
        """Forget what lies more than `CONTEXT` before a position."""
        extra = before - CONTEXT - self.base
        if extra > CONTEXT:
            self.text = self.text[extra:]
            self.base += extra
            if len(self._jumps) > 1:
                known = bisect_right(self._jumps, self.base) - 1
                del self._jumps[:known], self._shifts[:known]
