"""Items of an answer of the Responses API: messages, reasoning, and calls of the client's own tools.

The same item may come four times in a stream: begun, in deltas, done, and in the response at the end. What says a text
again is marked `whole`, so that it says what was let out before and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

from guard.model.text import Piece, Token
from guard.wire.body import unreadable
from guard.wire.openai_logprobs import read_chat, write_chat
from guard.wire.openai_parts import name_of, objects_of
from guard.wire.openai_texts import Talk
from guard.wire.parameters import Json

Pass = Literal["whole", "begun", "again", "last"]
"""How an item comes: in a whole answer; as the beginning of a text; said again; said for the last time."""
MOST_ITEMS = 128
_STATUSES = frozenset({"completed", "incomplete", "in_progress", "queued"})
_REASONS = frozenset({"max_output_tokens", "content_filter"})
_CALLS: dict[str, str] = {"function_call": "arguments", "custom_tool_call": "input"}
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
"""What identifiers begin with: OpenAI's server takes an item back under no other."""
_COUNTS = ("input_tokens", "output_tokens", "total_tokens")


@dataclass(slots=True)
class Thread(Talk):
    """A request of the Responses API under way.

    Args:
        echo: what of the request stands in the answer again.
    """

    echo: Json = field(default_factory=dict[str, object])
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    """Items by their identifiers."""
    closed: set[str] = field(default_factory=set[str])
    """Texts, of those in `open`, that have ended."""
    released: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    sequence: int = -1
    over: bool = False
    """The event that ends the stream is out."""

    def start(self) -> None:
        """Forget what was answered."""
        self.begin()
        self.numbers, self.closed, self.released = {}, set(), {}

    def number_of(self, identifier: object, place: object) -> int:
        """Return an item's number: where it stands among the items, or what its identifier was given first.

        Raises:
            UpstreamError: there are too many items.
        """
        name = identifier if isinstance(identifier, str) else ""
        number = self.numbers.get(name)
        if number is None:
            number = place if type(place) is int else len(self.numbers)
            if not 0 <= number < MOST_ITEMS or len(self.numbers) >= MOST_ITEMS:
                raise unreadable("it holds too many items")
            if name:
                self.numbers[name] = number
        return number

    def piece(
        self,
        key: str,
        text: str,
        put: Callable[[str, list[Token]], None],
        how: Pass,
        tokens: list[Token] | None = None,
        filtered: Callable[[], None] | None = None,
    ) -> Piece:
        """Return a piece of a text; one that is said again though it never began is all of it."""
        known = self.open.setdefault(0, {})
        again = key in known and how in ("again", "last")
        known.setdefault(key, (-1, ""))
        last = how != "begun"
        if last:
            self.closed.add(key)
        made = Piece(
            f"0/{key}", text, partial(self._put, key, put, again=again), tokens or [], last, again, self.before[0]
        )
        if filtered is not None:
            made.filtered = filtered
        return made

    def _put(
        self, key: str, put: Callable[[str, list[Token]], None], text: str, tokens: list[Token], *, again: bool
    ) -> None:
        if again:
            self.released[key] = [text]
        elif text:
            self.released.setdefault(key, []).append(text)
        put(text, tokens)


def response_of(said: Json, talk: Thread) -> tuple[Json, Json | None]:
    """Return a fresh response without its output, and its counts of tokens in chat's words."""
    fresh: Json = {"id": name_of(said.get("id")) or "resp", "object": "response", **talk.echo}
    for member in ("created_at", "completed_at"):
        value = said.get(member)
        if type(value) in (int, float) and 0 <= cast("float", value) < 2**53:
            fresh[member] = int(cast("float", value))
    status, reason = said.get("status"), said.get("incomplete_details")
    fresh["status"] = status if isinstance(status, str) and status in _STATUSES else "failed"
    fresh["model"] = name_of(said.get("model")) or ""
    why = cast("Json", reason).get("reason") if isinstance(reason, dict) else None
    fresh["error"] = None
    fresh["incomplete_details"] = {"reason": why} if isinstance(why, str) and why in _REASONS else None
    fresh.setdefault("tools", [])
    fresh.setdefault("tool_choice", "auto")
    fresh["parallel_tool_calls"] = said.get("parallel_tool_calls") is not False
    fresh["output"] = []
    talk.head = {name: fresh[name] for name in fresh if name not in ("output", "status", "incomplete_details")}
    usage = said.get("usage")
    if not isinstance(usage, dict):
        return fresh, None
    counts = {name: count for name in _COUNTS if type(count := cast("Json", usage).get(name)) is int}
    fresh["usage"] = counts
    return fresh, {"completion_tokens": counts.get("output_tokens")}


def items_of(said: Json, fresh: Json, talk: Thread, pieces: list[Piece], how: Pass) -> list[Json]:
    """Return the fresh items of a response; a filter that ends one of them makes the response incomplete."""

    def filtered() -> None:
        fresh["status"], fresh["incomplete_details"] = "incomplete", {"reason": "content_filter"}

    found: list[Json] = []
    for place, item in enumerate(objects_of(said.get("output"), "output")):
        number = talk.number_of(item.get("id"), place)
        made = item_of(item, number, talk, pieces, how, filtered)
        if made is not None:
            found.append(made)
    return found


def item_of(
    item: Json, number: int, talk: Thread, pieces: list[Piece], how: Pass, filtered: Callable[[], None] | None = None
) -> Json | None:
    """Return a fresh item; None for one of a kind that no client's own tools bring about.

    Raises:
        UpstreamError: it cannot be read.
    """
    kind, status = item.get("type"), item.get("status")
    if not isinstance(kind, str) or kind not in PREFIXES:
        return None
    fresh: Json = {"type": kind, "id": f"{PREFIXES[kind]}_{talk.made(number)}"}
    if isinstance(status, str) and status in _STATUSES:
        fresh["status"] = status
    adds = _Adds(talk, pieces, number, how, filtered)
    if kind == "message":
        fresh["role"] = "assistant"
        fresh["content"] = [
            part
            for i, one in enumerate(objects_of(item.get("content"), "content"))
            if (part := part_of(one, i, adds)) is not None
        ]
    elif kind == "reasoning":
        for member, name in (("summary", "summary_text"), ("content", "reasoning_text")):
            if member == "summary" or item.get(member):
                listed = objects_of(item.get(member), member)
                texts = "summary" if member == "summary" else "reasoning"
                fresh[member] = [adds.text(one, "text", f"{texts}/{i}", {"type": name}) for i, one in enumerate(listed)]
    else:
        fresh["call_id"] = f"call_{talk.made(number)}"
        for member in ("name", _CALLS[kind]):
            name = item.get(member)
            if member == "name" and isinstance(name, str) and name in talk.tools:
                fresh["name"] = name
            else:
                adds.text(item, member, member, fresh)
    return fresh


@dataclass(slots=True)
class _Adds:
    """Reads texts of one item."""

    talk: Thread
    pieces: list[Piece]
    number: int
    how: Pass
    filtered: Callable[[], None] | None

    def text(self, said: Json, member: str, key: str, fresh: Json, tokens: list[Token] | None = None) -> Json:
        """Read a text into a fresh object, which holds none until it is let out; return the object."""
        text = said.get(member)
        if not isinstance(text, str | None):
            raise unreadable(f"{member} is no text")
        fresh[member] = ""
        if text or tokens or self.how != "begun":
            put = partial(_put, fresh, member)
            piece = self.talk.piece(f"{self.number}/{key}", text or "", put, self.how, tokens, self.filtered)
            self.pieces.append(piece)
        return fresh


def part_of(said: Json, place: int, adds: _Adds) -> Json | None:
    """Return a fresh part of a message; None for one of an unknown kind."""
    kind = said.get("type")
    if kind == "refusal":
        return adds.text(said, "refusal", f"refusal/{place}", {"type": kind})
    if kind != "output_text":
        return None
    top = adds.talk.top
    tokens = read_chat(said.get("logprobs"), top) if top >= 0 else []
    fresh: Json = {"type": kind, "annotations": [], "logprobs": []}
    return adds.text(said, "text", f"content/{place}", fresh, tokens)


def part_in(part: Json, number: int, place: int, talk: Thread, pieces: list[Piece], how: Pass) -> Json | None:
    """Return a fresh part of an event that brings one alone."""
    adds = _Adds(talk, pieces, number, how, None)
    if part.get("type") == "summary_text":
        return adds.text(part, "text", f"summary/{place}", {"type": "summary_text"})
    if part.get("type") == "reasoning_text":
        return adds.text(part, "text", f"reasoning/{place}", {"type": "reasoning_text"})
    return part_of(part, place, adds)


def _put(fresh: Json, member: str, text: str, tokens: list[Token]) -> None:
    fresh[member] = text
    if "logprobs" in fresh:
        fresh["logprobs"] = write_chat(tokens)
