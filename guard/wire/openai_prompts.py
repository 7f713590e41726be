"""Prompts and messages of requests for generated text: the queries, and where each answer goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from guard.errors import ClientError
from guard.model.exchange import Call
from guard.model.queries import Queries
from guard.wire.base import Reader
from guard.wire.body import decode_request, require_utf8
from guard.wire.openai_requests import opened
from guard.wire.parameters import Json

BEFORE_CHARS = 4096
"""How much of a prompt's end is told to what looks through the answer."""
_PARTS = frozenset(
    {"text", "refusal", "thinking", "image_url", "image", "input_audio", "audio_url", "video_url", "file"}
    | {"input_text", "output_text", "input_image", "input_file"}
)
_TEXTS = ("text", "refusal", "thinking")
_MEMBERS = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "prefix"}
    | {"reasoning_content", "reasoning", "thinking"}
)
_PROMPTS = ("tools", "functions", "documents", "chat_template_kwargs", "suffix", "truncate_prompt_tokens")


def json_request(call: Call) -> Json:
    """Decode the JSON object of a request.

    Raises:
        ClientError: 400, or 415 for another content type or character set.
    """
    require_utf8(call)
    if call.content_type not in ("", "application/json"):
        raise ClientError("this API takes application/json", code="unsupported_media_type", status=415)
    document: object = decode_request(call.body)
    if not isinstance(document, dict):
        raise ClientError("the request must be a JSON object")
    return cast("Json", document)


def own_members(document: Json) -> None:
    """Leave messages the members that the API knows: one that a template ignores would make one prompt many queries."""
    messages = document.get("messages")
    for message in cast("list[object]", messages) if isinstance(messages, list) else ():
        if isinstance(message, dict):
            for member in cast("Json", message).keys() - _MEMBERS:
                del message[member]


def chat_queries(document: Json, context: Mapping[str, object]) -> tuple[Queries, str]:
    """Return the messages as one query, and the end of their text, which the answer goes on from.

    Raises:
        ClientError: 400, no messages, or parts of another kind than the API's.
    """
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ClientError("messages must be a list of messages", code="no_rows", path="messages")
    texts: list[str] = []
    for i, message in enumerate(cast("list[object]", messages)):
        if not isinstance(message, dict):
            raise ClientError("a message must be an object", path=f"messages[{i}]")
        texts += texts_of(cast("Json", message).get("content"), f"messages[{i}].content")
    only = cast("Json", messages[0])
    alone = len(cast("list[object]", messages)) == 1 and only.keys() == {"role", "content"} and only["role"] == "user"
    plain = only.get("content") if alone else None
    value = plain if isinstance(plain, str) else orjson.dumps(messages, option=orjson.OPT_SORT_KEYS).decode()
    return text_queries([with_tools(value, document)], context, "messages"), "".join(texts)[-BEFORE_CHARS:]


def with_tools(value: str, document: Json) -> str:
    """Return what is asked with what else of the request a server writes into the prompt.

    It is part of what is asked, as the messages are: two prompts that differ in it must not share their noise, or the
    difference of their log-probabilities would be exact.
    """
    beside = {name: document[name] for name in _PROMPTS if document.get(name)}
    return orjson.dumps({"asked": value, **beside}, option=orjson.OPT_SORT_KEYS).decode() if beside else value


def texts_of(content: object, path: str) -> list[str]:
    """Return the texts of a message's content, which is a text, a list of parts, or nothing."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise ClientError("content must be a text or a list of parts", path=path)
    texts: list[str] = []
    for part in cast("list[object]", content):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = cast("Json", part).get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _PARTS:
            raise ClientError("a part of this content is not let through", code="unsupported_parameter", path=path)
        texts += [text for name in _TEXTS if isinstance(text := cast("Json", part).get(name), str)]
    return texts


def prompt_rows(document: Json, member: str, reader: Reader) -> list[object]:
    """Return the prompts of a request: texts, or where the policy opens `token_ids`, lists of token numbers.

    Raises:
        ClientError: 400.
    """
    value = document.get(member)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ClientError(f"{member} must be a text or a list of texts", code="no_rows", path=member)
    rows = cast("list[object]", value)
    if all(isinstance(row, str) for row in rows):
        return rows
    if all(type(row) is int for row in rows):
        rows = [cast("object", rows)]
    if not all(_is_ids(row) for row in rows):
        raise ClientError(f"{member} must be a text or a list of texts", path=member)
    if not opened(reader, "token_ids"):
        raise ClientError("token_ids is not let through", code="unsupported_parameter", path=member)
    return rows


def _is_ids(row: object) -> bool:
    ids = cast("list[object]", row) if isinstance(row, list) else []
    return bool(ids) and all(type(one) is int for one in ids)


def text_queries(rows: Sequence[object], context: Mapping[str, object], path: str) -> Queries:
    """Return queries of one row a prompt."""
    several = len(rows) > 1
    return Queries(
        len(rows),
        rows,
        context=orjson.dumps(context, option=orjson.OPT_SORT_KEYS),
        place=lambda row, _: f"{path}[{row}]" if several else path,
    )
