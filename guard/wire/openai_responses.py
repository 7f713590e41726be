"""The Responses API: requests and whole answers; `openai_response_events.py` has its events.

What would go around the guard is refused or not asked for: answers that the server keeps (`store` is always false;
`background`, `previous_response_id` and `conversation` are refused, and so are items that refer to kept ones), and
tools of the provider's own, whose texts nobody looks at.
"""

from __future__ import annotations

from typing import cast

import orjson

from guard.errors import ClientError, UpstreamError
from guard.model.exchange import Call
from guard.model.prediction import Answer
from guard.wire.base import Reader, Reading
from guard.wire.body import encode
from guard.wire.openai_prompts import BEFORE_CHARS, json_request, text_queries, texts_of, with_tools
from guard.wire.openai_requests import apply_rules, context_of, most_of, spread_candidates, streamed, text_rules
from guard.wire.openai_response_events import ResponseEvents
from guard.wire.openai_response_items import Thread, items_of, response_of
from guard.wire.parameters import Json, Known

_LOGPROBS = "message.output_text.logprobs"
_ECHOED = ("instructions", "metadata", "temperature", "top_p", "max_output_tokens", "tools", "tool_choice")
RESPONSE_MEMBERS = (
    *(Known(path) for path in ("model", "input", "instructions", "stream", "store", "user", "metadata", "reasoning")),
    *(Known(path) for path in ("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "truncation")),
    *(Known(path) for path in ("service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")),
    *(Known(path) for path in ("text.verbosity", "stream_options.include_obfuscation", "priority", "include")),
    *(Known(path, path) for path in ("temperature", "top_p", "top_k", "min_p", "seed")),
    Known("text.format", "grammar", number=False),
    Known("max_output_tokens", "max_tokens"),
    Known("logprobs", "logprobs"),
    Known("top_logprobs", "top_logprobs"),
)


class Responses(ResponseEvents):
    """`/v1/responses`.

    Args:
        reader: the route's.
    """

    def __init__(self, reader: Reader) -> None:
        self._rules = text_rules(reader, RESPONSE_MEMBERS, "max_output_tokens")

    def read(self, call: Call) -> Reading:
        """Decode a request: instructions and input are one query.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        _check_tools(document)
        _spread(document)
        text = document.get("text")
        if isinstance(text, dict) and cast("Json", text).get("format") == {"type": "text"}:
            del cast("Json", text)["format"]
        asked = apply_rules(self._rules, document)
        _gather(document)
        stream, _ = streamed(document, counts=False)
        document["store"] = False
        value, before = _input(document)
        most = most_of(asked, 1, len(call.body))
        talk = Thread(self, (before,), 1, most)
        talk.echo = {name: document[name] for name in _ECHOED if name in document}
        talk.tools = frozenset(name for one in _tools(document) if isinstance(name := one.get("name"), str) and name)
        if "logprobs" in asked.values:
            talk.top = asked.number("top_logprobs", 0)
        queries = text_queries([with_tools(value, document)], context_of(document, "input", "instructions"), "input")
        return Reading(queries, encode(document), document=talk, most=most, stream="sse" if stream else None)

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read a whole answer.

        Raises:
            UpstreamError: it cannot be read, or failed.
        """
        talk = cast("Thread", reading.document)
        talk.start()
        fresh, usage = response_of(document, talk)
        if fresh["status"] not in ("completed", "incomplete"):
            raise UpstreamError("the model failed", code="upstream_failed")
        answer = Answer(1, fresh, choices=1, usage=talk.generated(usage))
        fresh["output"] = items_of(document, fresh, talk, answer.pieces, "whole")
        return answer


def _spread(document: Json) -> None:
    """Write what `include` asks for as chat completions do.

    Raises:
        ClientError: 400, it asks for more than log-probabilities.
    """
    include = document.pop("include", None)
    if "logprobs" in document:
        raise ClientError("log-probabilities are asked for by include", path="logprobs")
    for one in cast("list[object]", include) if isinstance(include, list) else [include] if include else []:
        if one != _LOGPROBS:
            raise ClientError("this is not let through", code="unsupported_parameter", path="include")
        document["logprobs"] = True
    spread_candidates(document, counted=False)


def _gather(document: Json) -> None:
    if document.pop("logprobs", None):
        document["include"] = [_LOGPROBS]


def _tools(document: Json) -> list[Json]:
    tools = document.get("tools")
    items = cast("list[object]", tools) if isinstance(tools, list) else []
    return [cast("Json", one) for one in items if isinstance(one, dict)]


def _check_tools(document: Json) -> None:
    if any(one.get("type") not in ("function", "custom") for one in _tools(document)):
        raise ClientError("only the client's own tools are let through", code="unsupported_parameter", path="tools")
    for name in ("background", "previous_response_id", "conversation"):
        if document.pop(name, None):
            raise ClientError(f"{name} is not let through", code="unsupported_parameter", path=name)


def _input(document: Json) -> tuple[str, str]:
    """Return instructions and input as one text, and the end of what the answer goes on from.

    Raises:
        ClientError: 400, no input, or an item that refers to what the server keeps.
    """
    value, instructions = document.get("input"), document.get("instructions")
    if isinstance(value, str):
        texts = [value]
    elif isinstance(value, list) and value:
        texts = list[str]()
        for i, item in enumerate(cast("list[object]", value)):
            if not isinstance(item, dict) or cast("Json", item).get("type") == "item_reference":
                raise ClientError("an item of the input is not let through", path=f"input[{i}]")
            said = cast("Json", item)
            texts += texts_of(said.get("content"), f"input[{i}].content")
            texts += [text for name in ("arguments", "input", "output") if isinstance(text := said.get(name), str)]
    else:
        raise ClientError("input must be a text or a list of items", code="no_rows", path="input")
    before = "".join(texts)[-BEFORE_CHARS:]
    if isinstance(value, str) and not instructions:
        return value, before
    whole: Json = {"instructions": instructions, "input": value}
    return orjson.dumps(whole, option=orjson.OPT_SORT_KEYS).decode(), before
