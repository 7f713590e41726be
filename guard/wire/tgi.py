"""Hugging Face text-generation-inference: `/generate`, `/generate_stream`, and `/` in both ways.

`details` counts as the parameter `logprobs`, `top_n_tokens` as `top_logprobs`, `return_full_text` as `echo`,
`max_new_tokens` as `max_tokens`; `decoder_input_details` is `prompt_logprobs`, which nothing opens. Where the policy
drops `logprobs`, `details` are asked of the model all the same and let out without tokens: the `text_generation` client
knows no answer without them. `adapter_id` (another model) must be opened by name. On `/` the server's default of
`return_full_text` depends on its model, so the request says it. The `/v1` endpoints are `api: openai`'s, on a route of
their own.

Source: `router/src/server.rs` and `router/src/lib.rs` of huggingface/text-generation-inference 3 (routes, bodies,
events, error types), the `text_generation` 0.7 client in its `clients/python`, and `inference/_common.py` of
huggingface/huggingface_hub 0.36 (an event with a member `error` ends a stream).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

import orjson

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.text import Most
from guard.wire.base import Endpoint, Event, Reader, Reading
from guard.wire.body import decode_reply, encoded_anew
from guard.wire.openai_prompts import json_request, text_queries
from guard.wire.openai_requests import UNBOUNDED, apply_rules, opened
from guard.wire.parameters import Asked, Json, Known, Rules
from guard.wire.problem import envelope
from guard.wire.tgi_events import Happening, read_event
from guard.wire.tgi_texts import Talk, Whole, read_whole

_NUMBERS = (
    *("temperature", "seed", "top_k", "top_p", "typical_p", "truncate"),
    *("repetition_penalty", "frequency_penalty"),
)
_MEMBERS = (
    Known("inputs"),
    Known("stream"),
    *(Known(f"parameters.{name}", name) for name in _NUMBERS),
    *(Known(f"parameters.{name}") for name in ("do_sample", "watermark", "stop")),
    Known("parameters.max_new_tokens", "max_tokens"),
    Known("parameters.best_of", "best_of"),
    Known("parameters.details", "logprobs"),
    Known("parameters.top_n_tokens", "top_logprobs"),
    Known("parameters.decoder_input_details", "prompt_logprobs"),
    Known("parameters.return_full_text", "echo", number=False),
    Known("parameters.grammar", "grammar", number=False),
    Known("parameters.adapter_id", "adapter_id", number=False),
)
_FILLS = {"max_tokens": "parameters.max_new_tokens"}
_SCORING = ("/generate", "/generate_stream", "/")
_CLOSED_POST = (
    *("/tokenize", "/chat_tokenize", "/invocations", "/vertex", "/v1/chat/completions", "/v1/completions"),
    *("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"),
)
_CLOSED_GET = ("/info", "/metrics", "/docs", "/api-doc/openapi.json", "/v1/models")
_WARPS = (
    *("temperature", "repetition_penalty", "frequency_penalty", "top_k", "top_p", "typical_p", "watermark"),
    "truncate",
)
_TYPES = {400: "validation", 413: "validation", 415: "validation", 422: "validation"}


@dataclass(frozen=True)
class Tgi:
    """The server's own API.

    Args:
        reader: the route's; `outputs: {kind: logprobs}` opens its endpoints.
    """

    name: ClassVar[str] = "tgi"
    reader: Reader
    rules: Rules = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", Rules(self.reader, _MEMBERS, _FILLS))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What generates is guarded where the kind is log-probabilities; health is status; the rest is closed."""
        scoring = self.reader.outputs.kind == "logprobs"
        return (
            *(Endpoint("POST", path, "scoring" if scoring else "closed") for path in _SCORING),
            Endpoint("GET", "/health", "status"),
            Endpoint("GET", "/ping", "status"),
            *(Endpoint("POST", path, "closed") for path in _CLOSED_POST),
            *(Endpoint("GET", path, "closed") for path in _CLOSED_GET),
        )

    def read(self, call: Call) -> Reading:
        """Decode a prompt and its parameters."""
        document = json_request(call)
        prompt = document.get("inputs")
        if not isinstance(prompt, str):
            raise ClientError("inputs must be a text", path="inputs")
        if not prompt:
            raise ClientError("inputs is empty", code="no_rows", path="inputs")
        streamed = _streamed(call.path, document)
        parameters = _parameters(document)
        details = _flag(parameters, "details")
        asked = self._hold(document, parameters, call.path)
        if details and "logprobs" not in asked.values:
            document["parameters"] = {**cast("Json", document.get("parameters") or {}), "details": True}
        talk = _talk(prompt, asked, details=details, ids=opened(self.reader, "token_ids"))
        talk.listed = call.path == "/" and not streamed
        left = {name: value for name, value in document.items() if name not in ("inputs", "stream")}
        return Reading(
            text_queries([_asked(prompt, _parameters(document))], left, "inputs"),
            encoded_anew(call.body, document),
            document=talk,
            most=_most(asked, details=details),
            stream="sse" if streamed else None,
        )

    def _hold(self, document: Json, parameters: Json, path: str) -> Asked:
        if parameters.get("adapter_id") and "adapter_id" not in self.reader.parameters:
            raise ClientError(
                "adapter_id is not let through", code="unsupported_parameter", path="parameters.adapter_id"
            )
        if parameters.get("best_of") == 1:
            del parameters["best_of"]  # says nothing
        asked = apply_rules(self.rules, document)
        if path == "/" and "echo" not in asked.values:
            held = document.setdefault("parameters", {})
            cast("Json", held)["return_full_text"] = False
        return asked

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the body as it is: texts are not snapped."""
        del snapped
        return reading.body

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode a whole answer."""
        talk = cast("Talk", reading.document)
        counted = (reply.header(b"x-generated-tokens") or b"") if talk.several == 1 else b""
        generated = int(counted) if counted.isdigit() and len(counted) < 12 else None
        return read_whole(decode_reply(reply.body)[0], talk, generated)

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode a whole answer as JSON."""
        return b"application/json", cast("Whole", answer.document).encode()

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": message, "error_type": type}`."""
        return envelope(_error(error))

    def event(self, event: Event, reading: Reading) -> list[Answer]:
        """Decode one event; what follows the last one is dropped."""
        talk = cast("Talk", reading.document)
        if talk.done or not event.data.strip():
            return []
        return [read_event(decode_reply(event.data)[0], talk)]

    def write_event(self, answer: Answer) -> bytes:
        """Return the events that go out in the place of one."""
        return cast("Happening", answer.document).encode()

    def end(self, reading: Reading, error: GuardError | None) -> bytes:
        """Return an event with the error; nothing behind an answer that a filter has ended."""
        del reading
        return b"" if error is None else b"data:" + orjson.dumps(_error(error)) + b"\n\n"


def _error(error: GuardError) -> Json:
    """Return an error as clients read it; of a type they know where they would otherwise guess by status."""
    kind = "generation" if error.status >= 500 else _TYPES.get(error.status)
    return {"error": error.message} if kind is None else {"error": error.message, "error_type": kind}


def _streamed(path: str, document: Json) -> bool:
    """Say whether the answer comes in events; `stream` is for `/` alone."""
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ClientError("stream must be true or false", path="stream")
    return path == "/generate_stream" or (path == "/" and bool(stream))


def _parameters(document: Json) -> Json:
    parameters = document.get("parameters")
    if parameters is None:
        document.pop("parameters", None)
        return {}
    if not isinstance(parameters, dict):
        raise ClientError("parameters must be an object", path="parameters")
    return cast("Json", parameters)


def _flag(parameters: Json, member: str) -> bool:
    value = parameters.get(member)
    if value is not None and not isinstance(value, bool):
        raise ClientError(f"{member} must be true or false", path=f"parameters.{member}")
    return bool(value)


def _talk(prompt: str, asked: Asked, *, details: bool, ids: bool) -> Talk:
    values = asked.values
    return Talk(
        prompt,
        echo="echo" in values,
        details=details,
        top=max(asked.number("top_logprobs", 0), 0) if "logprobs" in values else -1,
        ids=ids,
        seed="seed" in values,
        several=max(asked.number("best_of", 1), 1),
    )


def _asked(prompt: str, parameters: Json) -> str:
    """Return what is asked: this server's log-probabilities are those behind temperature, penalties and cuts.

    Two answers that differ in these alone must not share their noise, or their difference would be exact.
    """
    warps = {name: parameters[name] for name in _WARPS if parameters.get(name) is not None}
    return orjson.dumps({"inputs": prompt, **warps}, option=orjson.OPT_SORT_KEYS).decode() if warps else prompt


def _most(asked: Asked, *, details: bool) -> Most:
    """Return what an answer may hold at most; sequences beside the best one stand in its details."""
    several = max(asked.number("best_of", 1), 1)
    tokens = max(asked.number("max_tokens", -1), 0) * several
    scores = 0
    if "logprobs" in asked.values:
        scores = tokens * (1 + max(asked.number("top_logprobs", 0), 0)) if tokens else UNBOUNDED
    return Most(several if details else 1, tokens, scores)
