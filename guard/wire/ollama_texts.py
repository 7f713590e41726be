"""Generated text in Ollama's answers: a whole one is one object, a stream has one a line, of the same form.

A line adds to `response` or to `message.content`, to `thinking`, or brings whole tool calls; `logprobs` lists the
tokens that it took, those of marks that were cut out of the text included. What is answered is made anew from members
that are known: durations, counts of the prompt's tokens (fewer when another client's prompt is in the cache), the host
of a remote model and whatever else stands there have no way out, and `created_at` is cut to the second, or the time
between tokens would stand in it to the nanosecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import cast

import orjson

from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.body import encode, unreadable
from guard.wire.openai_logprobs import read_chat, write_chat
from guard.wire.openai_parts import name_of, object_of, objects_of
from guard.wire.parameters import Json
from guard.wire.spans import spanning

_SECOND = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,12})?(Z|[+-]\d\d:\d\d)")
_REASONS = frozenset({"stop", "length", "load", "unload"})
_KNOWN = frozenset(
    {"model", "created_at", "message", "response", "thinking", "tool_calls", "done", "done_reason", "eval_count"}
    | {"logprobs", "context"}
)
_MOST_CALLS = 100
_MOST_WAITING = 256


@dataclass(slots=True)
class Talk:
    """One request for generated text under way.

    Args:
        chat: it is a chat.
        before: the end of the prompt.
        top: candidates that were asked for beside each token; -1: no log-probabilities.
        ids: the policy opens token numbers.
    """

    chat: bool
    before: str
    top: int
    ids: bool
    done: bool = False
    begun: set[str] = field(default_factory=set[str])
    """Texts that have begun and not ended."""
    waiting: list[Token] = field(default_factory=list[Token])
    """Tokens that came with no text, half a character say, or that the server keeps back."""
    thoughts: int = 0
    """How often thinking has ended: what follows is a text of its own."""
    calls: int = 0
    said: blake2b = field(default_factory=blake2b)
    """Of the text that upstream has said, and below of what was let out of it."""
    let_out: blake2b = field(default_factory=blake2b)


@dataclass(slots=True)
class Line:
    """One line of an answer, or a whole one, in the making.

    Args:
        out: what is let out beside texts.
        talk: the request's.
        context: token numbers of the conversation so far, let out only if all its text is.
    """

    out: Json
    talk: Talk
    texts: dict[str, str] = field(default_factory=dict[str, str])
    tokens: list[Token] = field(default_factory=list[Token])
    calls: list[Json] = field(default_factory=list[Json])
    context: object = None

    def put(self, member: str, text: str, tokens: list[Token]) -> None:
        """Take what leaves of a text."""
        self.texts[member] = self.texts.get(member, "") + text
        self.tokens += tokens
        self.talk.let_out.update(text.encode())

    def put_call(self, call: Json, text: str, tokens: list[Token]) -> None:
        """Take what leaves of a tool call; one that is no call any more has no arguments left."""
        del tokens
        self.talk.let_out.update(text.encode())
        try:
            function: object = orjson.loads(text)
        except orjson.JSONDecodeError:
            function = None
        said = cast("Json", function) if isinstance(function, dict) else {}
        name, arguments = said.get("name"), said.get("arguments")
        call["function"] = {
            **cast("Json", call["function"]),
            "name": name if isinstance(name, str) else "",
            "arguments": cast("object", arguments) if isinstance(arguments, dict) else {},
        }
        self.calls.append(call)

    def filtered(self) -> None:
        """End the answer."""
        self.out["done"], self.out["done_reason"] = True, "content_filter"

    def says_nothing(self) -> bool:
        """Say whether the line would bring a client nothing."""
        return not (self.out["done"] or any(self.texts.values()) or self.tokens or self.calls)

    def document(self) -> Json:
        """Return what is let out."""
        content, thinking = self.texts.get("content", ""), self.texts.get("thinking", "")
        beside: Json = {"thinking": thinking} if thinking else {}
        if self.calls:
            beside["tool_calls"] = self.calls
        if self.talk.chat:
            beside = {"message": {"role": "assistant", "content": content, **beside}}
        else:
            beside = {"response": content, **beside}
        if self.tokens:
            beside["logprobs"] = write_chat(self.tokens)
        if self.context is not None and self.talk.said.digest() == self.talk.let_out.digest():
            beside["context"] = self.context
        return {**self.out, **beside}

    def encode(self) -> bytes:
        """Return it as JSON."""
        return encode(self.document())


def read_line(value: object, talk: Talk, *, whole: bool) -> Answer:
    """Read one line of a stream, or a whole answer.

    Raises:
        UpstreamError: it is something else, or an error.
    """
    said = object_of(value, "it")
    if said.get("error"):
        raise unreadable("the model failed")
    done = said.get("done") is True or whole
    line = Line(_head(said, done=done), talk)
    answer = Answer(1, line, choices=1, dropped=[name for name in said if name not in _KNOWN])
    place = object_of(said.get("message"), "its message") if talk.chat else said
    content, thinking = _text(place, "response" if not talk.chat else "content"), _text(place, "thinking")
    tokens = read_chat(said.get("logprobs"), talk.top) if talk.top >= 0 else []
    if done:
        count = said.get("eval_count")
        answer.usage = count if type(count) is int and count >= 0 else None
        if talk.ids and not talk.chat:
            line.context = _numbers(said.get("context"))
    thought, told = _parted(talk, thinking, content, tokens, whole=whole)
    _add_thinking(line, answer, thinking, thought, ends=done or bool(content))
    _add(line, answer, "content", content, told, last=done)
    for call in objects_of(place.get("tool_calls"), "tool calls"):
        _add_call(line, answer, call)
    talk.done = done
    return answer


def _head(said: Json, *, done: bool) -> Json:
    out: Json = {}
    if (model := name_of(said.get("model"))) is not None:
        out["model"] = model
    created = said.get("created_at")
    if isinstance(created, str) and (found := _SECOND.fullmatch(created)) is not None:
        out["created_at"] = found[1] + found[2]
    out["done"] = done
    if done:
        reason = said.get("done_reason")
        if isinstance(reason, str):
            out["done_reason"] = reason if reason in _REASONS else "stop"
        if type(count := said.get("eval_count")) is int:
            out["eval_count"] = count
    return out


def _text(place: Json, member: str) -> str:
    value = place.get(member)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unreadable(f"{member} is not a text")
    return value


def _numbers(value: object) -> object:
    whole = isinstance(value, list) and all(type(item) is int for item in cast("list[object]", value))
    return cast("object", value) if whole else None


def _parted(
    talk: Talk, thinking: str, content: str, tokens: list[Token], *, whole: bool
) -> tuple[list[Token], list[Token]]:
    """Return the tokens of what is thought, and those of the answer."""
    tokens, talk.waiting = talk.waiting + tokens, []
    if whole or (thinking and content):
        thought = spanning(thinking, tokens, first=True)
        taken = set(map(id, thought))
        return thought, spanning(content, [token for token in tokens if id(token) not in taken])
    if not thinking and not content:
        talk.waiting = tokens[-_MOST_WAITING:]
        return [], []
    return (tokens, []) if thinking else ([], tokens)


def _add_thinking(line: Line, answer: Answer, text: str, tokens: list[Token], *, ends: bool) -> None:
    """Add to what is thought; it ends where the answer begins, so that nothing of it waits until the answer's end."""
    under_way = bool(text) or "thinking" in line.talk.begun
    _add(line, answer, "thinking", text, tokens, last=ends)
    if ends and under_way:
        line.talk.thoughts += 1


def _add(line: Line, answer: Answer, member: str, text: str, tokens: list[Token], *, last: bool) -> None:
    talk = line.talk
    if not text and not (last and member in talk.begun):
        return
    key = f"0/{member}/{talk.thoughts}" if member == "thinking" else f"0/{member}"
    if last:
        talk.begun.discard(member)
    else:
        talk.begun.add(member)
    talk.said.update(text.encode())
    answer.pieces.append(Piece(key, text, partial(line.put, member), tokens, last, False, talk.before, line.filtered))


def _add_call(line: Line, answer: Answer, call: Json) -> None:
    """Add a tool call, which comes whole: its name and arguments are one text."""
    talk = line.talk
    function = object_of(call.get("function"), "a tool call's function")
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise unreadable("a tool call has no name or arguments")
    if talk.calls >= _MOST_CALLS:
        raise unreadable("it holds too many tool calls")
    index = function.get("index")
    made: Json = {"function": {"index": index} if type(index) is int else {}}
    if (identifier := name_of(call.get("id"))) is not None:
        made = {"id": identifier, **made}
    text = orjson.dumps({"name": name, "arguments": arguments}).decode()
    talk.said.update(text.encode())
    put: Callable[[str, list[Token]], None] = partial(line.put_call, made)
    answer.pieces.append(
        Piece(f"0/call/{talk.calls}", text, put, [], last=True, before=talk.before, filtered=line.filtered)
    )
    talk.calls += 1
