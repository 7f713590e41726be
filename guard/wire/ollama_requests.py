"""Requests of Ollama's API: its members, and the names that its server would read as them.

The server is written in Go, whose JSON decoder takes `Logprobs` and `LOGPROBS` for `logprobs` and lets the last one
win; so members that are no lower-case ASCII are refused, whatever the policy's `fields`. A member of a message that the
server ignores leaves the request: with it, one prompt could be sent as many queries, each with noise of its own.
"""

from __future__ import annotations

from typing import cast

import orjson

from guard.errors import ClientError
from guard.model.exchange import Call
from guard.model.text import Most
from guard.wire.base import Reader
from guard.wire.body import decode_request, require_utf8
from guard.wire.openai_requests import UNBOUNDED, apply_rules
from guard.wire.parameters import Asked, Json, Known, Rules, shown

_NUMBERS = (
    *("temperature", "seed", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "num_ctx", "num_keep"),
    *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("mirostat", "mirostat_tau", "mirostat_eta"),
)
_OPTIONS = (
    Known("options.num_predict", "max_tokens"),
    *(Known(f"options.{name}", name) for name in _NUMBERS),
    Known("options.penalize_newline"),
    Known("options.stop"),
)
_SHARED = (
    *(Known(name) for name in ("model", "stream")),
    *(Known(name, name, number=False) for name in ("truncate", "shift", "think", "keep_alive")),
    Known("format", "grammar", number=False),
    Known("logprobs", "logprobs"),
    Known("top_logprobs", "top_logprobs"),
    *_OPTIONS,
)
GENERATE = (
    *(Known(name) for name in ("prompt", "images")),
    *(Known(name, name, number=False) for name in ("system", "suffix", "template", "raw")),
    Known("context", "token_ids", number=False),
    *_SHARED,
)
CHAT = (*(Known(name) for name in ("messages", "tools")), *_SHARED)
EMBED = (
    *(Known(name) for name in ("model", "input", "prompt")),
    *(Known(name, name, number=False) for name in ("truncate", "keep_alive")),
    Known("dimensions", "dimensions"),
    *_OPTIONS,
)
FILLS = {"max_tokens": "options.num_predict"}
_MESSAGE = ("role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")
_OWN = ("template", "raw")
"""Ways round the operator's prompt template and system message: they must be opened by name."""
_NEVER = "_debug_render_only"
"""Answers the rendered prompt, the operator's system message included."""
_MOST_CANDIDATES = 20
"""Of the server, whatever more is asked for."""


def read_object(call: Call) -> Json:
    """Decode a request; its Content-Type may be anything, as `curl -d` in Ollama's documentation sends a form's.

    Raises:
        ClientError: 400, or 415 for another character set.
    """
    require_utf8(call)
    body: object = decode_request(call.body)
    if not isinstance(body, dict):
        raise ClientError("the request must be a JSON object")
    document = cast("Json", body)
    plain_names(document)
    if document.get(_NEVER):
        raise refusal(_NEVER)
    return document


def plain_names(members: Json) -> None:
    """Refuse members that the server might read as others.

    Raises:
        ClientError: 400.
    """
    for name in members:
        if not name.isascii() or name != name.lower():
            raise refusal(name)


def refusal(member: str) -> ClientError:
    """Return the refusal of a parameter."""
    return ClientError(f"{shown(member)} is not let through", code="unsupported_parameter", path=shown(member))


def own_messages(document: Json) -> list[Json]:
    """Return the messages of a chat, without what the API does not know; they are written into the request.

    Raises:
        ClientError: 400.
    """
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ClientError("messages must be a list of messages", code="no_rows", path="messages")
    found: list[Json] = []
    for i, message in enumerate(cast("list[object]", messages)):
        if not isinstance(message, dict):
            raise ClientError("a message must be an object", path=f"messages[{i}]")
        members = cast("Json", message)
        plain_names(members)
        role, content = members.get("role"), members.get("content", "")
        if not isinstance(role, str) or not isinstance(content, str | None):
            raise ClientError("a message must have a role and a text", path=f"messages[{i}]")
        known = {name: members[name] for name in _MESSAGE if members.get(name) not in (None, [])}
        if "tool_calls" in known:
            known["tool_calls"] = _own_calls(known["tool_calls"], f"messages[{i}].tool_calls")
        found.append({**known, "role": role.lower(), "content": content or ""})
    document["messages"] = found
    return found


def canonical(value: object) -> str:
    """Return a row's text: itself, or the canonical JSON of what it is made of."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _own_calls(calls: object, path: str) -> list[Json]:
    """Return a message's tool calls without what the server ignores."""
    found: list[Json] = []
    for call in cast("list[object]", calls) if isinstance(calls, list) else [None]:
        function = cast("Json", call).get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise ClientError("a tool call must have a function", path=path)
        said = cast("Json", function)
        plain_names(said)
        identifier = cast("Json", call).get("id")
        own: Json = {"function": {name: said[name] for name in ("index", "name", "arguments") if name in said}}
        found.append(own if identifier is None else {"id": identifier, **own})
    return found


def hold(document: Json, rules: Rules, reader: Reader) -> Asked:
    """Hold a request against the policy, in place.

    Raises:
        ClientError: 400, a parameter is refused.
    """
    if "keep_alive" in document and "keep_alive" not in reader.parameters:
        del document["keep_alive"]  # how long the model stays loaded is everybody's matter, and changes no answer
    for name in _OWN:
        if document.get(name) and name not in reader.parameters:
            raise refusal(name)
    options = document.get("options")
    if isinstance(options, dict):
        _unlimited(cast("Json", options))
    return apply_rules(rules, document)


def _unlimited(options: Json) -> None:
    """Write every way to say `as many tokens as there are` as -1: the server cuts fractions off, and 0 is no bound."""
    value = options.get("num_predict")
    if type(value) in (int, float) and cast("float", value) < 1:
        options["num_predict"] = -1


def most_of(asked: Asked) -> Most:
    """Return what an answer may hold at most."""
    tokens = max(asked.number("max_tokens", -1), 0)
    if "logprobs" not in asked.values:
        return Most(1, tokens, 0)
    return Most(1, tokens, tokens * (1 + candidates_of(asked)) if tokens else UNBOUNDED)


def candidates_of(asked: Asked) -> int:
    """Return how many candidates are asked for beside each token."""
    return min(max(asked.number("top_logprobs", 0), 0), _MOST_CANDIDATES)
