"""Ollama: `/api/generate` and `/api/chat` in events or whole, `/api/embed` and `/api/embeddings`.

Its other endpoints list, show, pull, push, make and delete models, and stay closed; its OpenAI-compatible ones are
`api: openai`'s, on a route of their own. An answer comes in events unless the request says `stream: false`.

What a client may not say unless the policy names it: `template` and `raw` (round the operator's prompt template and
system message), and `context` (`token_ids`: a conversation as token numbers, in requests and in answers, which no
filter of text can read). `system` may be said: a chat's messages say the same. Options of how the model is loaded
(`num_gpu`, `numa`) are refused, and `keep_alive` leaves the request: both are every client's matter.

Source: `api/types.go`, `server/routes.go` and `docs/api.md` of ollama/ollama, `_types.py` and `_client.py` of
ollama/ollama-python 0.6 (a line with a member `error` ends a stream), as of 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.model.queries import Queries
from guard.wire.base import Endpoint, Event, Reader, Reading
from guard.wire.body import decode_reply, encode, encoded_anew, unreadable
from guard.wire.ollama_requests import (
    CHAT,
    EMBED,
    FILLS,
    GENERATE,
    candidates_of,
    canonical,
    hold,
    most_of,
    own_messages,
    read_object,
)
from guard.wire.ollama_texts import Line, Talk, read_line
from guard.wire.openai_prompts import BEFORE_CHARS, text_queries
from guard.wire.openai_requests import opened
from guard.wire.parameters import Json, Rules
from guard.wire.problem import envelope
from guard.wire.vectors import add_vectors

_TEXTS = ("/api/generate", "/api/chat")
_VECTORS = ("/api/embed", "/api/embeddings")
_CLOSED = (
    *(("POST", f"/api/{name}") for name in ("show", "pull", "push", "create", "copy")),
    *(("GET", f"/api/{name}") for name in ("tags", "ps")),
    ("DELETE", "/api/delete"),
    ("POST", "/api/blobs/{digest}"),
    *(("POST", f"/v1/{name}") for name in ("chat/completions", "completions", "embeddings", "responses")),
    ("GET", "/v1/models"),
)
_ASIDE = frozenset({"model", "prompt", "messages", "input", "stream", "system", "suffix", "images"})


@dataclass(frozen=True)
class Ollama:
    """Ollama's own API.

    Args:
        reader: the route's; `outputs: {kind: logprobs}` opens generated text, `embedding` vectors.
    """

    name: ClassVar[str] = "ollama"
    reader: Reader
    rules: dict[str, Rules] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        known = {"/api/generate": GENERATE, "/api/chat": CHAT}
        rules = {path: Rules(self.reader, members, FILLS) for path, members in known.items()}
        rules |= {path: Rules(self.reader, EMBED, {}) for path in _VECTORS}
        object.__setattr__(self, "rules", rules)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What answers the declared kind is guarded; status; the rest is closed."""
        kind = self.reader.outputs.kind
        return (
            *(Endpoint("POST", path, "scoring" if kind == "logprobs" else "closed") for path in _TEXTS),
            *(Endpoint("POST", path, "scoring" if kind == "embedding" else "closed") for path in _VECTORS),
            Endpoint("GET", "/", "status"),
            Endpoint("HEAD", "/", "status"),
            Endpoint("GET", "/api/version", "closed"),
            *(Endpoint(method, path, "closed") for method, path in _CLOSED),
        )

    def read(self, call: Call) -> Reading:
        """Decode a prompt, a chat, or texts to embed."""
        document = read_object(call)
        rules = self.rules.get(call.path)
        if rules is None:
            raise ClientError("there is no such endpoint", code="closed", status=404)
        if call.path in _VECTORS:
            return self._read_vectors(call, document, rules)
        stream = document.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise ClientError("stream must be true or false", path="stream")
        if call.path == "/api/chat":
            messages = own_messages(document)
            asked = hold(document, rules, self.reader)
            row, end = _conversation(document, messages), cast("str", messages[-1]["content"])
        else:
            asked = hold(document, rules, self.reader)
            row, end = self._prompt(document)
        queries = text_queries([row], _context(document), "messages" if call.path == "/api/chat" else "prompt")
        top = candidates_of(asked) if "logprobs" in asked.values else -1
        talk = Talk(call.path == "/api/chat", end[-BEFORE_CHARS:], top, opened(self.reader, "token_ids"))
        body = encoded_anew(call.body, document)
        return Reading(queries, body, document=talk, most=most_of(asked), stream=None if stream is False else "ndjson")

    def _prompt(self, document: Json) -> tuple[str, str]:
        """Return what a prompt asks as one row, and its end."""
        prompt = document.get("prompt")
        if not isinstance(prompt, str):
            raise ClientError("prompt must be a text", path="prompt")
        if not prompt:
            raise ClientError("prompt is empty", code="no_rows", path="prompt")
        names = ("system", "suffix", "images", "template", "raw", "context")
        beside = {name: document[name] for name in names if document.get(name)}
        return canonical({"prompt": prompt, **beside} if beside else prompt), prompt

    def _read_vectors(self, call: Call, document: Json, rules: Rules) -> Reading:
        member = "input" if call.path == "/api/embed" else "prompt"
        value = document.get(member)
        rows: list[object] = cast("list[object]", value) if isinstance(value, list) else [value]
        if not all(isinstance(row, str) for row in rows) or (member == "prompt" and rows is value):
            raise ClientError(f"{member} must be a text", path=member)
        if not rows or value == "":
            raise ClientError(f"{member} is empty", code="no_rows", path=member)
        hold(document, rules, self.reader)
        queries = text_queries(rows, _context(document), member)
        return Reading(queries, encoded_anew(call.body, document))

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the body as it is: texts are not snapped."""
        del snapped
        return reading.body

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode a whole answer."""
        value, _ = decode_reply(reply.body)
        if isinstance(reading.document, Talk):
            return read_line(value, reading.document, whole=True)
        return self._vectors(value, reading.queries)

    def _vectors(self, value: object, queries: Queries) -> Answer:
        if not isinstance(value, dict):
            raise unreadable("it is no object")
        said = cast("Json", value)
        out: Json = {}
        answer = Answer(queries.rows, out, dropped=[name for name in said if name not in ("embedding", "embeddings")])
        if "embedding" in said:
            out["embedding"] = said["embedding"]
            add_vectors(answer, "embedding", [said["embedding"]], 1, lambda rows: out.update(embedding=rows[0]))
        else:
            model = said.get("model")
            out |= {"model": model} if isinstance(model, str) else {}
            out["embeddings"] = said.get("embeddings")
            add_vectors(answer, "embeddings", out["embeddings"], queries.rows, lambda rows: out.update(embeddings=rows))
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode a whole answer as JSON."""
        if isinstance(answer.document, Line):
            return b"application/json", answer.document.encode()
        return b"application/json", encode(answer.document)

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": message}`."""
        return envelope({"error": error.message})

    def event(self, event: Event, reading: Reading) -> list[Answer]:
        """Decode one line; what follows the last one is dropped."""
        talk = cast("Talk", reading.document)
        if talk.done or not event.data.strip():
            return []
        return [read_line(decode_reply(event.data)[0], talk, whole=False)]

    def write_event(self, answer: Answer) -> bytes:
        """Return the line."""
        line = cast("Line", answer.document)
        return b"" if line.says_nothing() else line.encode() + b"\n"

    def end(self, reading: Reading, error: GuardError | None) -> bytes:
        """Return a line with the error; nothing behind an answer that a filter has ended: its last line says so."""
        del reading
        return b"" if error is None else envelope({"error": error.message})[1] + b"\n"


def _conversation(document: Json, messages: list[Json]) -> str:
    """Return what a conversation asks as one row: tools are written into the prompt, and so part of it."""
    if tools := document.get("tools"):
        return canonical({"messages": messages, "tools": tools})
    only = messages[0]
    alone = len(messages) == 1 and only.keys() == {"role", "content"} and only["role"] == "user"
    return canonical(only["content"] if alone else messages)


def _context(document: Json) -> Json:
    """Return what else the model may look at beside the prompt."""
    return {name: value for name, value in document.items() if name not in _ASIDE or name == "model"}
