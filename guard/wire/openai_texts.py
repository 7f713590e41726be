"""Generated text under way: what was asked, what has been answered so far, and where each piece of text goes.

An answer is never changed in place. A fresh document takes what the API defines, member by member and type by type, and
so whatever else an upstream says (times, counts of cached tokens, probabilities under another name) has no way out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from guard.errors import UpstreamError
from guard.model.text import Most, Piece, Token
from guard.wire.body import unreadable
from guard.wire.openai_parts import Texts, named
from guard.wire.parameters import Json

_REASONS = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error"})
MOST_CALLS = 128
"""Tool calls of one choice: each is a text with state of its own."""
Opens = Callable[[], Json]
"""Returns the object that a text stands in, made when it is needed."""


@dataclass(slots=True)
class Talk:
    """One request for generated text under way.

    Args:
        part: the endpoint.
        before: ends of the prompts, one a prompt.
        each: choices a prompt.
        most: what an answer may hold.
        top: candidates that were asked for beside each token; -1: no log-probabilities.
        counts: the client asked for a count of tokens at the stream's end.
        tools: names of the client's own tools, which are no secret.
    """

    part: Texts
    before: tuple[str, ...]
    each: int
    most: Most
    top: int = -1
    counts: bool = False
    tools: frozenset[str] = frozenset()
    head: Json = field(default_factory=dict[str, object])
    """What names the answer: id, created, model."""
    open: dict[int, dict[str, tuple[int, str]]] = field(default_factory=dict[int, dict[str, tuple[int, str]]])
    """Texts that have begun, by choice and key: the tool call that each stands in (-1: none), and its member."""
    ended: set[int] = field(default_factory=set[int])
    listed: bool = True
    """Log-probabilities of completions come in lists, not as chat completions have them."""

    def begin(self) -> None:
        """Forget what was answered: a whole answer is read from its beginning."""
        self.open, self.ended = {}, set()

    def index_of(self, choice: Json) -> int:
        """Return a choice's number.

        Raises:
            UpstreamError: there is none, or more than were asked for.
        """
        index = choice.get("index", 0)
        if type(index) is not int or index < 0:
            raise unreadable("a choice has no number")
        if index >= self.most.choices:
            raise UpstreamError("the model answered more texts than were asked", code="too_many_predictions")
        return index

    def named(self, document: Json) -> Json:
        """Return what names the answer, and remember it for events of Guard's own."""
        self.head = named(document)
        return dict(self.head)

    def made(self, *place: int) -> str:
        """Return an identifier of Guard's own for what stands in a place of the answer.

        Some models write identifiers of calls themselves, where no text is looked through. Nine letters and digits are
        what the strictest of chat templates takes.
        """
        seed = f"{self.head.get('id')}/{place}".encode()
        return base64.b32encode(hashlib.blake2b(seed, digest_size=6).digest())[:9].decode().lower()

    def generated(self, usage: Json | None) -> int | None:
        """Return how many tokens were generated so far; None where that is not said of every choice.

        llama.cpp counts the first of several choices and prompts, and no other.
        """
        count = None if usage is None or self.most.choices > 1 else usage.get("completion_tokens")
        return count if type(count) is int and count >= 0 else None

    def row_of(self, index: int) -> int:
        """Return the prompt that a choice goes on from."""
        return min(index // self.each, len(self.before) - 1)


@dataclass(slots=True)
class Choice:
    """The texts of one choice in one event, or in a whole answer.

    Args:
        talk: the request's.
        fresh: the fresh choice, whose `finish_reason` a filter may set.
        index: its number.
        last: no text of this choice goes on after this.
        pieces: gets what is read.
    """

    talk: Talk
    fresh: Json
    index: int
    last: bool
    pieces: list[Piece]
    seen: set[str] = field(default_factory=set[str])

    def add(
        self,
        key: str,
        text: str,
        member: str,
        opens: Opens,
        tokens: list[Token] | None = None,
        write: Callable[[list[Token]], None] | None = None,
        call: int = -1,
    ) -> None:
        """Take a text that upstream adds to; its place holds an empty text until something is let out."""
        put = partial(_put, member, opens, write)
        if text:
            opens()[member] = ""
        self.seen.add(key)
        self.talk.open.setdefault(self.index, {}).setdefault(key, (call, member))
        row = self.talk.row_of(self.index)
        before = self.talk.before[row]
        self.pieces.append(
            Piece(f"{self.index}/{key}", text, put, tokens or [], self.last, False, before, self._filtered, row)
        )

    def close(self, opens: Callable[[int, str], Opens], write: Callable[[str, list[Token]], None]) -> None:
        """Let what waits of texts that this event does not add to leave with it, if it is their last."""
        if not self.last:
            return
        for key, (call, member) in self.talk.open.get(self.index, {}).items():
            if key not in self.seen:
                self.add(key, "", member, opens(call, key), write=partial(write, key), call=call)

    def _filtered(self) -> None:
        self.fresh["finish_reason"] = "content_filter"


def _put(
    member: str, opens: Opens, write: Callable[[list[Token]], None] | None, text: str, tokens: list[Token]
) -> None:
    if text:
        place = opens()
        place[member] = f"{place.get(member) or ''}{text}"
    if tokens and write is not None:
        write(tokens)


def reason_of(choice: Json) -> str | None:
    """Return why a choice ended; `stop` for reasons that the API does not define."""
    reason = choice.get("finish_reason")
    if reason is None or reason == "":
        return None
    return reason if isinstance(reason, str) and reason in _REASONS else "stop"
