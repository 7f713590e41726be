"""Calls of tools in chat completions: their names and arguments are texts, their identifiers Guard's own."""

from __future__ import annotations

from functools import partial
from typing import Literal, cast

from guard.wire.body import unreadable
from guard.wire.openai_parts import object_of, objects_of
from guard.wire.openai_texts import MOST_CALLS, Choice, Opens
from guard.wire.parameters import Json

_CALLS: dict[str, str] = {"function": "arguments", "custom": "input"}
Place = Literal["message", "delta"]


def tools_of(document: Json) -> frozenset[str]:
    """Return the names of a request's tools, as far as they are names."""
    found: list[object] = []
    for tool in (*_listed(document.get("tools")), *_listed(document.get("functions"))):
        inner = tool.get("function") or tool.get("custom")
        found.append(cast("Json", inner).get("name") if isinstance(inner, dict) else tool.get("name"))
    return frozenset(name for name in found if isinstance(name, str) and name)


def _listed(value: object) -> list[Json]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Json", item) for item in items if isinstance(item, dict)]


def read_calls(body: Json, out: Json, parts: Choice, place: Place) -> None:
    """Read tool calls, and the older function call."""
    function = body.get("function_call")
    if function is not None:
        _called(
            object_of(function, "function_call"),
            "function_call",
            "arguments",
            partial(function_in, out, "function_call"),
            parts,
            -1,
        )
    for position, call in enumerate(objects_of(body.get("tool_calls"), "tool_calls")):
        number = call.get("index", position) if place == "delta" else position
        if type(number) is not int or not 0 <= number < MOST_CALLS:
            raise unreadable("a tool call has no number")
        kind = "custom" if "custom" in call or call.get("type") == "custom" else "function"
        opens = partial(call_of, out, number, place)
        fresh = opens()
        if call.get("id") is not None:
            fresh["id"] = parts.talk.made(parts.index, number)
        if call.get("type") is not None:
            fresh["type"] = kind
        inner = call.get(kind)
        if inner is not None:
            key = f"tool_calls/{number}/{kind}"
            _called(object_of(inner, kind), key, _CALLS[kind], partial(call_in, opens, kind), parts, number)


def _called(call: Json, key: str, member: str, opens: Opens, parts: Choice, number: int) -> None:
    """Read the name and the arguments of a call; a name that the client gave itself needs no look."""
    opens()
    for name in ("name", member):
        text = call.get(name)
        if text is None:
            continue
        if not isinstance(text, str):
            raise unreadable("a tool call is no text")
        if not text or (name == "name" and text in parts.talk.tools):
            opens()[name] = text
        else:
            parts.add(f"{key}/{name}", text, name, opens, call=number)


def function_in(out: Json, member: str) -> Json:
    """Return an object inside a fresh message or delta."""
    return cast("Json", out.setdefault(member, {}))


def call_of(out: Json, number: int, place: Place) -> Json:
    """Return the call of a number in a fresh message or delta."""
    calls = cast("list[Json]", out.setdefault("tool_calls", []))
    if place == "message":
        calls += [{} for _ in range(len(calls), number + 1)]
        return calls[number]
    for call in calls:
        if call["index"] == number:
            return call
    calls.append({"index": number})
    return calls[-1]


def call_in(opens: Opens, kind: str) -> Json:
    """Return what is called by a fresh call."""
    return cast("Json", opens().setdefault(kind, {}))
