"""Answers in OpenAI's shape, as its documentation has them, with everything that must not leave."""

from __future__ import annotations

from typing import Any

Json = Any  # Any: JSON of the API
HEAD: Json = {"id": "chatcmpl-1", "created": 1795720000, "model": "m-2026", "system_fingerprint": "fp_1"}
USAGE: Json = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
TOOLS: Json = [{"type": "function", "function": {"name": "pay", "parameters": {}}}]
CATEGORIES = ("hate", "self-harm/intent", "violence")
MODERATED = ((0.6231, 0.0418, 0.872), (0.1075, 0.2694, 0.0862))


def entry(token: str, score: float, *others: tuple[str, float]) -> Json:
    """Return one token's log-probabilities as chat completions have them."""
    candidates = [(token, score), *others]
    tops = [{"id": 7, "token": t, "logprob": s, "bytes": [*t.encode()]} for t, s in candidates]
    return {**tops[0], "top_logprobs": tops, "rank": 1}


def chat(*messages: Json, **more: Json) -> Json:
    """Return a whole answer of one choice a message."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": None, **m}, "finish_reason": "stop", **more}
        for i, m in enumerate(messages)
    ]
    return {**HEAD, "object": "chat.completion", "choices": choices, "usage": USAGE, "service_tier": "default"}


def chunk(delta: Json | None = None, reason: str | None = None, index: int = 0, **more: Json) -> Json:
    """Return a chunk; of no choice without a delta."""
    choice = {"index": index, "delta": delta, "finish_reason": reason, **more}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [] if delta is None else [choice]}


def completion(text: str, reason: str | None = "stop", index: int = 0, logprobs: Json = None) -> Json:
    """Return a completion of one choice; one without a reason is a chunk."""
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason, "prompt_logprobs": [None]}
    return {**HEAD, "object": "text_completion", "choices": [choice], **({"usage": USAGE} if reason else {})}


LISTS: Json = {
    "tokens": ["Hel", "lo", "bytes:\\xf0\\x9f"],
    "token_logprobs": [None, -0.5, -1.25],
    "top_logprobs": [None, {"lo": -0.5, "p": -2.5, "q": -3.5}, {" x": -0.75, "bytes:\\xf0\\x9f": -1.25}],
    "text_offset": [0, 3, 5],
}


def message(text: str, *, logprobs: Json = ()) -> Json:
    """Return an item of a response."""
    part = {"type": "output_text", "text": text, "annotations": [{"type": "url_citation", "url": "http://x"}]}
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{**part, "logprobs": [*logprobs]}],
    }


CALLED: Json = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "pay",
    "arguments": '{"card": "4111"}',
    "status": "completed",
}
REASONED: Json = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "thinks of it"}],
    "encrypted_content": "gAAAA",
}


def response(*items: Json, status: str = "completed") -> Json:
    """Return a response."""
    return {
        **{"id": "resp_1", "object": "response", "created_at": 1795720000, "model": "m-2026", "status": status},
        **{"output": [*items], "instructions": "theirs", "top_logprobs": 3, "error": None, "incomplete_details": None},
        "usage": {
            **{"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
            "input_tokens_details": {"cached_tokens": 8},
        },
    }


def response_events(text: str, *pieces: str) -> list[Json]:
    """Return a stream: reasoning, a message in pieces, and a call, each begun, said, done, and said once more."""
    texts: Json = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    calls: Json = {"item_id": "fc_1", "output_index": 2}
    summary: Json = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    begun: Json = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    call: Json = {**CALLED, "arguments": "", "status": "in_progress"}
    said = "response.output_text"
    done: Json = {"type": "output_text", "text": text, "annotations": []}
    events: list[Json] = [
        {"type": "response.created", "response": response(status="in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**REASONED, "summary": []}},
        {"type": "response.reasoning_summary_part.added", **summary, "part": {"type": "summary_text", "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **summary, "delta": "thinks of it"},
        {"type": "response.reasoning_summary_text.done", **summary, "text": "thinks of it"},
        {"type": "response.output_item.done", "output_index": 0, "item": REASONED},
        {"type": "response.output_item.added", "output_index": 1, "item": begun},
        {"type": "response.content_part.added", **texts, "part": {"type": "output_text", "text": ""}},
        *({"type": f"{said}.delta", **texts, "delta": piece, "logprobs": [], "obfuscation": "x"} for piece in pieces),
        {"type": f"{said}.annotation.added", **texts, "annotation": {"type": "url_citation", "url": "http://x"}},
        {"type": f"{said}.done", **texts, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **texts, "part": done},
        {"type": "response.output_item.done", "output_index": 1, "item": message(text)},
        {"type": "response.output_item.added", "output_index": 2, "item": call},
        {"type": "response.function_call_arguments.delta", **calls, "delta": CALLED["arguments"]},
        {"type": "response.function_call_arguments.done", **calls, "arguments": CALLED["arguments"]},
        {"type": "response.output_item.done", "output_index": 2, "item": CALLED},
        {"type": "response.completed", "response": response(REASONED, message(text), CALLED)},
    ]
    return [{**event, "sequence_number": i} for i, event in enumerate(events)]


def vectors(*rows: Json) -> Json:
    """Return embeddings, the last one first."""
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return {"object": "list", "data": data[::-1], "model": "m-2026", "usage": {"prompt_tokens": 4, "total_tokens": 4}}


def moderation() -> Json:
    """Return two results, the first of them flagged."""
    results = [
        {
            "flagged": max(row) > 0.5,
            "categories": {name: score > 0.5 for name, score in zip(CATEGORIES, row, strict=True)},
            "category_scores": dict(zip(CATEGORIES, row, strict=True)),
            "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
        }
        for row in MODERATED
    ]
    return {"id": "modr-1", "model": "omni", "results": results}
