"""One generated text on its way through text defences, with the tokens that stand in it. Pure, bounded.

Theory of operation. Tokens are found in the text by their bytes: a token stands where its bytes stand, right behind the
token before it, and one whose bytes do not stand there never leaves. So every token that leaves is made of text that
leaves, whatever upstream says. A token may come before its text (half a character, a held stop word), so text that it
has begun to cover waits for the rest of it; text that no token covers just goes on.

Each enforced scanner takes the text up to a token, is asked about the token's other candidates, and takes on. Tokens
leave when all of their text has left, and never when a redaction touches it. Between two scanners, text of a token that
has not left waits, so that the second is asked at the token's beginning as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from guard.defences.base import Cleared, Scanner, TextDefence
from guard.engine.token_scores import Placed

_MOST_WAITING = 256
"""Tokens that may come before their text; of more, the oldest never leave."""
_NEAR = 1024
"""Characters of a text behind which nothing can go on that its prompt has begun: more than any scanner holds back."""


_SOME = 256
"""More than mostly waits."""


class Aligner:
    """Finds where tokens stand in a text."""

    __slots__ = ("_back", "_claimed", "_fed", "_waiting")

    def __init__(self) -> None:
        self._fed = 0
        self._waiting: deque[Placed] = deque()
        self._back = ""
        self._claimed = 0  # bytes at the beginning of `_back` that a token before covers

    def take(self, text: str, tokens: Iterable[Placed], *, last: bool) -> tuple[str, list[Placed]]:
        """Take what is added, and return the text that goes on, and the tokens that begin in it."""
        self._waiting.extend(tokens)
        if self._back:
            text = self._back + text
        if not self._waiting:
            self._fed += len(text)
            self._back, self._claimed = "", 0
            return text, []
        while len(self._waiting) > _MOST_WAITING and not text:
            self._waiting.popleft()
        data = text.encode("utf-8", "surrogatepass")
        at = self._claimed
        begun = _characters(data[:at])
        found: list[Placed] = []
        while self._waiting:
            one = self._waiting[0]
            size = self._size(one.token.data, data, at, last=last)
            if size is None:
                break
            self._waiting.popleft()
            if size >= 0:
                one.start = self._fed + begun - _inside(data, at)
                begun += _characters(data[at : at + size])
                at += size
                one.end = self._fed + begun
                found.append(one)
        cut = begun - _inside(data, at) if self._waiting and at < len(data) else len(text)
        self._back = text[cut:]
        self._claimed = at - len(text[:cut].encode("utf-8", "surrogatepass")) if self._back else 0
        self._fed += cut
        return text[:cut], found

    def _size(self, token: bytes, data: bytes, at: int, *, last: bool) -> int | None:
        """Return how many bytes of the text a token covers from `at` on; -1: none; None: its text is still to come."""
        rest = data[at : at + len(token)]
        if rest == token:
            return len(token)
        if not last and token.startswith(rest) and at + len(rest) == len(data):
            return None
        if not self._fed and not at:
            # Servers strip white space from the beginning of a text, and not from its tokens.
            bare = token.lstrip()
            if data.startswith(bare):
                return len(bare)
        return -1


def _characters(data: bytes) -> int:
    """Count the characters that begin in a piece of UTF-8."""
    return len(data) if data.isascii() else sum((byte & 0xC0) != 0x80 for byte in data)


def _inside(data: bytes, at: int) -> bool:
    """Say whether a place of UTF-8 is inside a character."""
    return at < len(data) and (data[at] & 0xC0) == 0x80


class Stage:
    """One text defence at work on one text.

    Args:
        scanner: its own.
        enforced: in shadow, text goes on as it came, and what would have happened is counted.
        near: it looks behind the prompt, for as long as the text is near to it.
    """

    __slots__ = (
        "_back",
        "_held",
        "_left",
        "_open",
        "_scanner",
        "_shift",
        "_tail",
        "_upto",
        "ended",
        "enforced",
        "fed",
        "final",
        "near",
        "redacted",
    )

    def __init__(self, scanner: Scanner, *, enforced: bool, near: bool = False) -> None:
        self._scanner = scanner
        self.near = near
        self._tail = ""
        self.enforced = enforced
        self.final = True  # nothing behind it looks at tokens
        self.fed = 0
        self._upto = 0
        self._left = 0
        self._shift = 0  # from the count of characters that came to that of characters that left
        self._held: deque[Placed] = deque()
        self._back = ""
        self._open = -1  # where a redaction ended that may go on
        self.ended = False
        self.redacted = 0

    def take(self, text: str, tokens: list[Placed], *, last: bool) -> tuple[str, list[Placed]]:
        """Take what is added, and return what goes on; sets `ended`."""
        if not self.enforced:
            if not self.ended:
                self._count(self._scanner.feed(text, last=last))
            self.fed += len(text)
            return text, tokens
        parts: list[str] = []
        out: list[Placed] = []
        base, done = self.fed, 0
        for one in tokens:
            others = {label for label in one.token.labels if label != one.token.labels[0]}
            if others:
                upto = one.start - base
                if upto > done:
                    self._feed(text[done:upto], parts, out, last=False)
                    done = upto
                if self.ended:
                    break
                one.barred = one.barred | {label for label in others if self._scanner.completes(label)}
            self._held.append(one)
        if not self.ended and (last or done < len(text)):
            self._feed(text[done:], parts, out, last=last)
        self.fed = base + len(text)
        if self.near:
            self._tail = (self._tail + text)[-_NEAR:]
        return self._parted("".join(parts)), out

    def let_go(self) -> tuple[str, list[Placed]]:
        """Return everything that waits, as it came."""
        if not self.enforced:
            return "", []
        text = self._back + self._tail[len(self._tail) - (self.fed - self._upto) :]
        tokens = [*self._held]
        if not self.final:
            for one in tokens:
                one.start += self._shift
                one.end += self._shift
        self._held.clear()
        self._back, self._upto = "", self.fed
        return text, tokens

    @property
    def far(self) -> bool:
        """Nothing that waits here, and no redaction that may go on, can have begun in the prompt."""
        return self._upto > _NEAR and self._open < 0

    def _feed(self, text: str, parts: list[str], out: list[Placed], *, last: bool) -> None:
        cleared = self._scanner.feed(text, last=last)
        self._count(cleared)
        parts.append(cleared.text)
        self._left += len(cleared.text)
        before, self._shift = self._shift, self._left - cleared.upto
        spans = cleared.redacted
        if spans:
            self._held = deque([one for one in self._held if not _touched(one, spans)])
        while self._held and self._held[0].end <= cleared.upto:
            one = self._held.popleft()
            if not self.final:
                if not spans or one.start >= spans[-1][1]:
                    shift = self._shift
                elif one.end <= spans[0][0]:
                    shift = before
                else:
                    continue  # where it stands between two redactions is not known
                one.start += shift
                one.end += shift
            out.append(one)
        if self.ended:
            self._held.clear()

    def _count(self, cleared: Cleared) -> None:
        """Count redactions, of which a long one may come in parts."""
        spans = cleared.redacted
        self._upto = cleared.upto
        self.redacted += max(len(spans) - bool(spans and spans[0][0] == self._open), cleared.ends)
        self._open = spans[-1][1] if spans and spans[-1][1] == cleared.upto else -1
        self.ended = cleared.ends

    def _parted(self, text: str) -> str:
        """Hold back, for the scanner behind this one, the text of a token of which only a part may leave."""
        if self.final:
            return text
        text = self._back + text
        part = max(self._upto - self._held[0].start, 0) if self._held else 0
        cut = len(text) - part
        self._back = text[cut:]
        return text[:cut]


def _touched(one: Placed, spans: Iterable[tuple[int, int]]) -> bool:
    return any(one.start < end and one.end > start for start, end in spans)


class Passage:
    """One text on its way through a route's text defences.

    Each looks at the text twice: by itself, and as what the prompt goes on with. Whoever writes the prompt must neither
    begin a secret there for the model to complete, nor end it so that the model's own text looks like a part of
    something harmless, a longer number say.

    Args:
        defences: they, in order.
        before: the end of the text that it goes on from.
    """

    __slots__ = ("_aligner", "_alone", "_counts", "_joined", "_stages", "ended", "released")

    def __init__(self, defences: tuple[TextDefence, ...], before: str) -> None:
        self._aligner = Aligner()
        self._alone = [Stage(d.scanner(""), enforced=d.mode == "enforce") for d in defences]
        self._joined = (
            [Stage(d.scanner(before), enforced=d.mode == "enforce", near=True) for d in defences] if before else []
        )
        self._counts = [0] * len(self._joined)
        self._stages = self._in_order()
        self.released: list[str] = []
        self.ended = False

    def take(self, text: str, tokens: list[Placed], *, last: bool) -> tuple[str, list[Placed]]:
        """Take what is added, and return what leaves; sets `ended`."""
        if self._joined and not tokens and len(text) > 2 * _NEAR:
            # Of a long text all but the beginning is looked at once.
            said, left = self._take(text[: _NEAR + _SOME], tokens, last=False)
            more, later = ("", list[Placed]()) if self.ended else self._take(text[_NEAR + _SOME :], [], last=last)
            return said + more, [*left, *later]
        return self._take(text, tokens, last=last)

    def _take(self, text: str, tokens: list[Placed], *, last: bool) -> tuple[str, list[Placed]]:
        text, tokens = self._aligner.take(text, tokens, last=last)
        for stage in self._stages:
            text, tokens = stage.take(text, tokens, last=last)
            if stage.enforced and stage.ended:
                self.ended = last = True
        if text:
            self.released.append(text)
        if self._joined and all(stage.far for stage in self._joined):
            more, left = self._part()
            text, tokens = text + more, [*tokens, *left]
        return text, tokens

    def _part(self) -> tuple[str, list[Placed]]:
        """Stop looking behind the prompt, and return what leaves with it.

        What its scanners hold has passed the one that looks at the text by itself, which knew what followed.
        """
        text, tokens = "", list[Placed]()
        for stage in self._stages:
            text, tokens = stage.take(text, tokens, last=False)
            if stage.enforced and stage.ended:
                self.ended = True
            if stage.near:
                more, left = stage.let_go()
                text, tokens = text + more, [*tokens, *left]
        if text:
            self.released.append(text)
        self._counts = [stage.redacted for stage in self._joined]
        self._joined = []
        self._stages = self._in_order()
        return text, tokens

    def redacted(self) -> list[int]:
        """Return how many redactions each defence has made, or would have."""
        counts = [stage.redacted for stage in self._joined] or self._counts or [0] * len(self._alone)
        # In shadow both have seen the same; enforced, the second sees what the first has left.
        return [
            stage.redacted + more if stage.enforced else max(stage.redacted, more)
            for stage, more in zip(self._alone, counts, strict=True)
        ]

    def _in_order(self) -> list[Stage]:
        stages = (
            [s for pair in zip(self._alone, self._joined, strict=True) for s in pair] if self._joined else self._alone
        )
        enforced = [i for i, stage in enumerate(stages) if stage.enforced]
        for i, stage in enumerate(stages):
            stage.final = not enforced or i >= enforced[-1]
        return stages
