"""Chat completions: requests, whole answers and chunks."""

from __future__ import annotations

from functools import partial
from typing import cast

from guard.errors import ClientError
from guard.model.exchange import Call
from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.base import Reader, Reading
from guard.wire.body import encode, unreadable
from guard.wire.openai_calls import Place, call_in, call_of, function_in, read_calls, tools_of
from guard.wire.openai_chunks import Chunks
from guard.wire.openai_logprobs import read_chat, write_chat
from guard.wire.openai_parts import object_of, objects_of, usage_of
from guard.wire.openai_prompts import chat_queries, json_request, own_members
from guard.wire.openai_requests import (
    CHAT_MEMBERS,
    apply_rules,
    context_of,
    most_of,
    spread_candidates,
    streamed,
    text_rules,
)
from guard.wire.openai_texts import Choice, Opens, Talk, reason_of
from guard.wire.parameters import Json

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_ROLES = frozenset({"assistant", "tool", "function", "developer", "system", "user"})


class Chat(Chunks):
    """`/v1/chat/completions`.

    Args:
        reader: the route's.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rules = text_rules(reader, CHAT_MEMBERS)

    def read(self, call: Call) -> Reading:
        """Decode a request: all messages are one query.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        modalities = document.get("modalities")
        if modalities is not None and modalities != ["text"]:
            raise ClientError("only text is let through", code="unsupported_parameter", path="modalities")
        spread_candidates(document, counted=False)
        asked = apply_rules(self._rules, document)
        if document.get("store"):
            document["store"] = False
        if self._reader.fields == "known":
            own_members(document)
        stream, counts = streamed(document, counts=True)
        queries, before = chat_queries(document, context_of(document, "messages"))
        talk = Talk(self, (before,), asked.number("n", 1), most_of(asked, 1, len(call.body)), counts=counts)
        talk.tools = tools_of(document)
        if "logprobs" in asked.values:
            talk.top = asked.number("top_logprobs", 0)
        return Reading(queries, encode(document), document=talk, most=talk.most, stream="sse" if stream else None)

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read a whole answer.

        Raises:
            UpstreamError: it cannot be read.
        """
        talk = cast("Talk", reading.document)
        talk.begin()
        pieces: list[Piece] = []
        fresh: Json = talk.named(document)
        choices = [self._choice(raw, talk, "message", pieces) for raw in objects_of(document.get("choices"), "choices")]
        if not choices:
            raise unreadable("it holds no choices")
        fresh |= {"object": "chat.completion", "choices": choices}
        usage = usage_of(document)
        if usage is not None:
            fresh["usage"] = usage
        return Answer(1, fresh, pieces=pieces, choices=len(choices), usage=talk.generated(usage))

    def chunk(self, document: Json, talk: Talk) -> Answer:
        """Read one chunk of a stream.

        Raises:
            UpstreamError: it cannot be read.
        """
        pieces: list[Piece] = []
        fresh: Json = talk.named(document)
        choices = [self._choice(raw, talk, "delta", pieces) for raw in objects_of(document.get("choices"), "choices")]
        fresh |= {"object": "chat.completion.chunk", "choices": choices}
        usage = usage_of(document)
        if usage is not None and talk.counts:
            fresh["usage"] = usage
        return Answer(1, fresh, pieces=pieces, choices=len(talk.open), usage=talk.generated(usage))

    def says(self, document: Json) -> bool:
        """Say whether a fresh chunk says anything."""
        for choice in cast("list[Json]", document["choices"]):
            if choice["finish_reason"] or choice["logprobs"] or any(cast("Json", choice["delta"]).values()):
                return True
        return "usage" in document

    def _choice(self, raw: Json, talk: Talk, place: Place, pieces: list[Piece]) -> Json:
        index, reason = talk.index_of(raw), reason_of(raw)
        body: Json = object_of(raw.get(place) or {}, place)
        out: Json = {}
        fresh: Json = {"index": index, place: out, "logprobs": None, "finish_reason": reason}
        parts = Choice(talk, fresh, index, place == "message" or reason is not None, pieces)
        role = body.get("role")
        if role is not None or place == "message":
            out["role"] = role if isinstance(role, str) and role in _ROLES else "assistant"
        if place == "message":
            out["content"] = None
        tokens = _tokens(raw, body, talk)
        for member in _TEXTS:
            text = body.get(member)
            if isinstance(text, str):
                if not text and member not in tokens:
                    out[member] = ""
                    continue
                parts.add(
                    member, text, member, partial(_same, out), tokens.get(member), partial(_write_tokens, fresh, member)
                )
            elif text is not None:
                raise unreadable(f"{member} is no text")
        read_calls(body, out, parts, place)
        if index in talk.ended and (parts.pieces and parts.seen):
            raise unreadable("a text goes on after its end")
        parts.close(partial(_opened, out), partial(_write_tokens, fresh))
        if parts.last:
            talk.ended.add(index)
        return fresh


def _tokens(raw: Json, body: Json, talk: Talk) -> dict[str, list[Token]]:
    """Return the log-probabilities of a choice by the text that they go with.

    Those of a tool call leave with no text: a forced call says what its schema tells it to, as a grammar would.
    """
    said = raw.get("logprobs")
    if talk.top < 0 or said is None or body.get("tool_calls") or body.get("function_call"):
        return {}
    both = object_of(said, "logprobs")
    found: dict[str, list[Token]] = {}
    content, refusal = read_chat(both.get("content"), talk.top), read_chat(both.get("refusal"), talk.top)
    reasoning = [member for member in _TEXTS[2:] if body.get(member)]
    if content and not reasoning:
        found["content"] = content
    elif content and not body.get("content"):
        found[reasoning[0]] = content
    if refusal:
        found["refusal"] = refusal
    return found


def _write_tokens(fresh: Json, member: str, tokens: list[Token]) -> None:
    """Put tokens where the API has them; those of reasoning stand among the content's."""
    logprobs = cast("Json", fresh["logprobs"] or {"content": None, "refusal": None})
    name = "refusal" if member == "refusal" else "content"
    logprobs[name] = [*cast("list[Json]", logprobs[name] or []), *write_chat(tokens)]
    fresh["logprobs"] = logprobs


def _same(out: Json) -> Json:
    return out


def _opened(out: Json, number: int, key: str) -> Opens:
    """Return where text of an earlier event goes: into a delta that has no such text of its own."""
    if key.startswith("tool_calls/"):
        return partial(call_in, partial(call_of, out, number, "delta"), key.split("/")[2])
    if key.startswith("function_call/"):
        return partial(function_in, out, "function_call")
    return partial(_same, out)
