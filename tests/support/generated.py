"""Generated text for tests: pieces that remember what left through them, and a scanner that knows one word."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guard.defences.base import Cleared, Defence, Scanner, TextDefence
from guard.engine.generation import Generation
from guard.engine.randomness import QueryNoise
from guard.model.outputs import Outputs
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.model.text import Most, Piece, Token

SECRET = bytes(range(32))
PLENTY = Most(8, 10_000, 100_000)


class WordScanner:
    """Takes every SECRET out, or ends the answer with it; holds back what may begin one."""

    def __init__(self, redaction: str, word: str, before: str, *, ends: bool) -> None:
        self._redaction, self._word, self._ends = redaction, word, ends
        self._seen, self._base = before, len(before)
        self._upto = self._base
        self._closed = 0

    def feed(self, text: str, *, last: bool) -> Cleared:
        self._seen += text
        out, spans = "", list[tuple[int, int]]()
        while (found := self._seen.find(self._word, self._closed)) >= 0:
            self._closed = found + len(self._word)
            if self._closed > self._base:
                out += self._seen[self._upto : found] + self._redaction
                spans.append((max(found - self._base, 0), self._closed - self._base))
                self._upto = self._closed
                if self._ends:
                    return Cleared(out, self._upto - self._base, tuple(spans), True)
        rest = self._seen[self._closed :]
        held = 0 if last else max(n for n in range(len(self._word)) if rest.endswith(self._word[:n]))
        cut = max(len(self._seen) - held, self._base)
        out += self._seen[self._upto : cut]
        self._upto = cut
        return Cleared(out, cut - self._base, tuple(spans))

    def completes(self, token: str) -> bool:
        return self._word in self._seen[self._closed :][-len(self._word) + 1 :] + token


class Word(TextDefence, frozen=True):
    """A defence for tests: see `WordScanner`."""

    suits = frozenset({"logprobs"})

    kind: Literal["word"] = "word"
    redaction: str = "[-]"
    ends: bool = False
    word: str = "SECRET"

    def scanner(self, before: str) -> Scanner:
        return WordScanner(self.redaction, self.word, before, ends=self.ends)


def token(text: str | bytes, *others: tuple[str, float], score: float = -0.5) -> Token:
    """Make a token that was chosen, with other candidates; `raw` is what the client would see of it."""
    data = text.encode() if isinstance(text, str) else text
    labels = [data.decode("utf-8", "backslashreplace"), *(label for label, _ in others)]
    raw: dict[str, object] = {"bytes": data}

    def write(scores: Sequence[float], kept: Sequence[bool]) -> None:
        raw["chosen"] = scores[0] if kept[0] else -9999.0
        raw["top"] = {label: s for label, s, k in zip(labels[1:], scores[1:], kept[1:], strict=True) if k}

    scores = [score, *(number for _, number in others)]
    write(scores, [True] * len(scores))
    return Token(data, labels, scores, write, raw)


@dataclass
class Client:
    """What one client gets of an answer, text by text."""

    generation: Generation
    texts: dict[str, str] = field(default_factory=dict[str, str])
    tokens: dict[str, list[object]] = field(default_factory=dict[str, list[object]])
    puts: list[tuple[str, list[object]]] = field(default_factory=list[tuple[str, list[object]]])
    filtered: int = 0

    def piece(
        self,
        text: str,
        tokens: Sequence[Token] = (),
        key: str = "0/content",
        *,
        last: bool = False,
        whole: bool = False,
        before: str = "",
        row: int = 0,
    ) -> Piece:
        def put(said: str, left: list[Token]) -> None:
            raws = [one.raw for one in left]
            self.puts.append((said, raws))
            if not whole:
                self.texts[key] = self.texts.get(key, "") + said
                self.tokens.setdefault(key, []).extend(raws)

        def mark() -> None:
            self.filtered += 1

        return Piece(key, text, put, list(tokens), last, whole, before, mark, row)

    def take(self, *pieces: Piece, usage: int | None = None, choices: int = 1) -> None:
        self.generation.take(Answer(1, None, pieces=list(pieces), usage=usage, choices=choices))

    def say(
        self,
        text: str,
        tokens: Sequence[Token] = (),
        key: str = "0/content",
        *,
        last: bool = False,
        whole: bool = False,
        before: str = "",
        row: int = 0,
    ) -> None:
        """Hear one event with one piece."""
        self.take(self.piece(text, tokens, key, last=last, whole=whole, before=before, row=row))

    @property
    def text(self) -> str:
        return self.texts.get("0/content", "")


def client(
    *defences: Defence,
    prompts: Sequence[str] = ("hello",),
    name: str = "ann",
    most: Most = PLENTY,
    trace: bool = False,
    fresh: Callable[[int], bytes] = os.urandom,
) -> Client:
    """Return a client whose answer is about to come."""
    noise = QueryNoise(SECRET, "model", name, Queries(len(prompts), list(prompts)), None, fresh=fresh)
    return Client(Generation(defences, Outputs(kind="logprobs"), noise, most, trace=trace))
