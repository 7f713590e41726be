"""Events of the Responses API: typed, numbered, and with every text three times over.

Events are numbered anew as they leave, since some of them are Guard's own: before an event that says a text is done
goes a delta with what had to wait of it, and a filter's end is told by a response that is incomplete.
"""

from __future__ import annotations

from functools import partial
from typing import cast

from guard.errors import GuardError, UpstreamError
from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.base import Event
from guard.wire.body import decode_reply, encode, unreadable
from guard.wire.openai_logprobs import read_chat, write_chat
from guard.wire.openai_parts import check_failed, error_document, object_of
from guard.wire.openai_response_items import PREFIXES, Thread, item_of, items_of, part_in, response_of
from guard.wire.openai_texts import Talk
from guard.wire.parameters import Json

_TEXTS = {
    "output_text": ("content", "text", "content_index"),
    "refusal": ("refusal", "refusal", "content_index"),
    "reasoning_text": ("reasoning", "text", "content_index"),
    "reasoning_summary_text": ("summary", "text", "summary_index"),
    "function_call_arguments": ("arguments", "arguments", ""),
    "custom_tool_call_input": ("input", "input", ""),
}
"""What `response.NAME.delta` and `.done` add to: the text's key, where `.done` says it again, and what numbers it."""
_NAMES = {texts: name for name, (texts, _, _) in _TEXTS.items()}
_KINDS = {
    **{"content": "message", "refusal": "message", "reasoning": "reasoning", "summary": "reasoning"},
    **{"arguments": "function_call", "input": "custom_tool_call"},
}
"""Which items hold a text."""
_RESPONSES = frozenset({"created", "queued", "in_progress", "completed", "incomplete"})
_ENDS = frozenset({"completed", "incomplete"})
_PARTS = {"content_part": ("content", "content_index"), "reasoning_summary_part": ("summary", "summary_index")}


class ResponseEvents:
    """How `/v1/responses` answers in events."""

    def events(self, event: Event, talk: Talk) -> list[Answer]:
        """Read one event; those of tools that are not the client's own are dropped.

        Raises:
            UpstreamError: it cannot be read, or says that the model failed.
        """
        if event.data == b"[DONE]":
            return [Answer(1, None)]
        value: object = decode_reply(event.data)[0] if event.data else None
        if value is None:
            return []
        document, thread = object_of(value, "an event"), cast("Thread", talk)
        check_failed(event, document)
        said = document.get("type")
        if not isinstance(said, str):
            raise unreadable("an event has no type")
        name, _, what = said.removeprefix("response.").rpartition(".")
        if said in ("error", "response.failed"):
            raise UpstreamError("the model failed", code="upstream_failed")
        if not name:
            return _response(document, said, thread) if what in _RESPONSES else []
        if name in _TEXTS and what in ("delta", "done"):
            return [_delta(document, name, thread)] if what == "delta" else _done(document, name, thread)
        if name == "output_item" and what in ("added", "done"):
            return _item(document, said, thread)
        if name in _PARTS and what in ("added", "done"):
            return _part(document, said, name, thread)
        return []

    def written(self, document: Json | None) -> bytes:
        """Return an event's bytes; none for a delta that says nothing."""
        if document is None or (document.get("delta") == "" and not document.get("logprobs")):
            return b""
        return b"event: %b\ndata: %b\n\n" % (str(document["type"]).encode(), encode(document))

    def ended(self, talk: Talk, error: GuardError | None) -> bytes:
        """Return an error event; or after a filter, the response as far as it was let out."""
        thread = cast("Thread", talk)
        if error is not None:
            said = error_document(error)
            beside = {"code": error.code, "message": error.message, "param": error.path}
            return self.written(_numbered("error", thread, **beside, **said))
        if thread.over:
            return b""
        response: Json = {**thread.head, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
        response["output"] = _released(thread)
        return self.written(_numbered("response.incomplete", thread, response=response))


def _numbered(kind: str, thread: Thread, **members: object) -> Json:
    thread.sequence += 1
    return {"type": kind, "sequence_number": thread.sequence, **members}


def _index(document: Json, member: str) -> int:
    """Return which of an item's texts an event is about; llama.cpp knows one and does not say."""
    index = document.get(member, 0) if member else 0
    if type(index) is not int or not 0 <= index < 10_000:
        raise unreadable("a text has no number")
    return index


def _named(number: int, texts: str, thread: Thread) -> Json:
    """Return what says which item an event is about."""
    return {"item_id": f"{PREFIXES[_KINDS[texts]]}_{thread.made(number)}", "output_index": number}


def _placed(document: Json, texts: str, member: str, thread: Thread) -> tuple[int, Json]:
    """Return the number of an event's item, and what says where the event belongs."""
    number = thread.number_of(document.get("item_id"), document.get("output_index"))
    where = _named(number, texts, thread)
    if member:
        where[member] = _index(document, member)
    return number, where


def _delta(document: Json, name: str, thread: Thread) -> Answer:
    texts, _, member = _TEXTS[name]
    number, where = _placed(document, texts, member, thread)
    text = document.get("delta")
    if not isinstance(text, str):
        raise unreadable("a delta is no text")
    tokens = read_chat(document.get("logprobs"), thread.top) if name == "output_text" and thread.top >= 0 else []
    return _added(f"{number}/{_key(texts, where, member)}", text, tokens, where, name, thread, last=False)


def _key(texts: str, where: Json, member: str) -> str:
    return f"{texts}/{where[member]}" if member else texts


def _added(key: str, text: str, tokens: list[Token], where: Json, name: str, thread: Thread, *, last: bool) -> Answer:
    """Return a delta."""
    if key in thread.closed and text:
        raise unreadable("a text goes on after its end")
    fresh = _numbered(f"response.{name}.delta", thread, **where, delta="")
    if name == "output_text":
        fresh["logprobs"] = []
    piece = thread.piece(key, text, partial(_put, fresh, "delta"), "whole" if last else "begun", tokens)
    return Answer(1, fresh, pieces=[piece], choices=1)


def _put(fresh: Json, member: str, text: str, tokens: list[Token]) -> None:
    fresh[member] = text
    if "logprobs" in fresh:
        fresh["logprobs"] = write_chat(tokens)


def _rest(thread: Thread, only: str = "") -> list[Answer]:
    """Return deltas of what may wait of texts that are about to be said again: of one text, of an item's, or of all."""
    found: list[Answer] = []
    for key in [one for one in thread.open.get(0, {}) if f"{one}/".startswith(only) and one not in thread.closed]:
        number, texts, *place = key.split("/")
        if texts not in _NAMES:
            continue  # the name of a tool, which no delta says
        name = _NAMES[texts]
        where = _named(int(number), texts, thread)
        if place:
            where[_TEXTS[name][2]] = int(place[0])
        found.append(_added(key, "", [], where, name, thread, last=True))
    return found


def _done(document: Json, name: str, thread: Thread) -> list[Answer]:
    texts, member, index = _TEXTS[name]
    number, where = _placed(document, texts, index, thread)
    text = document.get(member)
    if not isinstance(text, str | None):
        raise unreadable(f"{member} is no text")
    key = f"{number}/{_key(texts, where, index)}"
    rest = _rest(thread, f"{key}/")
    tokens = read_chat(document.get("logprobs"), thread.top) if name == "output_text" and thread.top >= 0 else []
    fresh = _numbered(f"response.{name}.done", thread, **where)
    fresh[member] = ""
    if name == "output_text":
        fresh["logprobs"] = []
    piece = thread.piece(key, text or "", partial(_put, fresh, member), "again", tokens)
    return [*rest, Answer(1, fresh, pieces=[piece], choices=1)]


def _item(document: Json, said: str, thread: Thread) -> list[Answer]:
    item = object_of(document.get("item"), "item")
    number = thread.number_of(item.get("id"), document.get("output_index"))
    done = said.endswith(".done")
    rest = _rest(thread, f"{number}/") if done else []
    pieces: list[Piece] = []
    fresh = item_of(item, number, thread, pieces, "again" if done else "begun")
    if fresh is None:
        return []
    return [*rest, Answer(1, _numbered(said, thread, output_index=number, item=fresh), pieces=pieces, choices=1)]


def _part(document: Json, said: str, name: str, thread: Thread) -> list[Answer]:
    texts, member = _PARTS[name]
    part = object_of(document.get("part"), "part")
    if part.get("type") == "reasoning_text":
        texts = "reasoning"
    number, where = _placed(document, texts, member, thread)
    index, done = cast("int", where[member]), said.endswith(".done")
    rest = _rest(thread, f"{number}/") if done else []
    pieces: list[Piece] = []
    fresh = part_in(part, number, index, thread, pieces, "again" if done else "begun")
    if fresh is None:
        return []
    return [*rest, Answer(1, _numbered(said, thread, **where, part=fresh), pieces=pieces, choices=1)]


def _response(document: Json, said: str, thread: Thread) -> list[Answer]:
    """Read an event that brings the response itself."""
    response = object_of(document.get("response"), "response")
    ends = said.rpartition(".")[2] in _ENDS
    rest = _rest(thread) if ends else []
    fresh, usage = response_of(response, thread)
    event = _numbered(said, thread, response=fresh)
    answer = Answer(1, event, choices=1, usage=thread.generated(usage))
    if ends:
        fresh["output"] = items_of(response, fresh, thread, answer.pieces, "last")
        for piece in answer.pieces:
            piece.filtered = partial(_cut, event, fresh)
        thread.over = True
    return [*rest, answer]


def _cut(event: Json, response: Json) -> None:
    event["type"] = "response.incomplete"
    response["status"], response["incomplete_details"] = "incomplete", {"reason": "content_filter"}


def _released(thread: Thread) -> list[Json]:
    """Return messages with the texts that were let out before a filter ended the answer."""
    found: list[Json] = []
    for key, texts in thread.released.items():
        number, kind, *_ = key.split("/")
        if kind == "content":
            part: Json = {"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": []}
            item = {"type": "message", "id": _named(int(number), kind, thread)["item_id"]}
            item |= {"role": "assistant", "status": "incomplete"}
            found.append({**item, "content": [part]})
    return found
