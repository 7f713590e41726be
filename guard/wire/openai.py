"""OpenAI's API as it and its likes speak it: chat completions, completions, responses, embeddings, moderations.

Which endpoints score depends on the declared kind of outputs: `logprobs` opens those that generate text, `embedding`
and `probabilities` one each. Everything else is closed: stored answers, files, fine-tuning, lists of models, and what
llama.cpp's server has of its own (`/completion`, `/infill`, `/tokenize`, `/slots`, `/props`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.prediction import Answer
from guard.wire.base import Endpoint, Event, Reader, Reading
from guard.wire.body import decode_reply, encode
from guard.wire.openai_chat import Chat
from guard.wire.openai_completions import Completions
from guard.wire.openai_parts import Part, Texts, error_document, object_of
from guard.wire.openai_responses import Responses
from guard.wire.openai_texts import Talk
from guard.wire.openai_vectors import Embeddings, Moderations, Vectors
from guard.wire.parameters import Json
from guard.wire.problem import envelope

_CLOSED_GET = ("/v1/models", "/models", "/props", "/slots", "/metrics", "/lora-adapters", "/version")
_CLOSED_POST = (
    *("/completion", "/completions", "/infill", "/tokenize", "/detokenize", "/apply-template", "/embedding"),
    *("/embeddings", "/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/lora-adapters", "/props"),
    *("/v1/messages", "/v1/files", "/v1/fine_tuning/jobs", "/v1/batches", "/v1/images/generations"),
    *("/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/assistants", "/v1/threads"),
)


@dataclass(slots=True)
class _Written:
    """An event to write."""

    part: Texts
    document: Json | None


@dataclass(frozen=True)
class Openai:
    """Codec of OpenAI's API.

    Args:
        reader: what the route lets out.
    """

    name: ClassVar[str] = "openai"
    closed_get: ClassVar[tuple[str, ...]] = _CLOSED_GET
    closed_post: ClassVar[tuple[str, ...]] = _CLOSED_POST
    reader: Reader

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The API's endpoints under the route's kind of outputs."""
        opened = {path: Endpoint("POST", path) for path in self._parts}
        return (
            *opened.values(),
            Endpoint("GET", "/health", "status"),
            *(Endpoint("GET", path, "closed") for path in self.closed_get),
            *(Endpoint("POST", path, "closed") for path in dict.fromkeys(self.closed_post) if path not in opened),
        )

    @cached_property
    def _parts(self) -> Mapping[str, Part]:
        """Open endpoints by path."""
        return self.parts()

    def parts(self) -> dict[str, Part]:
        """Make the endpoints that answer the declared kind, by path."""
        match self.reader.outputs.kind:
            case "logprobs":
                chat = Chat(self.reader)
                # llama.cpp's own `/completions` answers another shape.
                return {
                    "/v1/chat/completions": chat,
                    "/chat/completions": chat,
                    "/v1/completions": Completions(self.reader),
                    "/v1/responses": Responses(self.reader),
                }
            case "embedding":
                return {"/v1/embeddings": Embeddings(self.reader)}
            case "probabilities" | "labels":
                return {"/v1/moderations": Moderations(self.reader)}
            case _:
                return {}

    def read(self, call: Call) -> Reading:
        """Decode a request on any of the open endpoints."""
        part = self._parts.get(call.path)
        if part is None:
            raise ClientError("there is no such endpoint", code="closed", status=404)
        return part.read(call)

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the request as it is: texts have no numbers to snap."""
        del snapped
        return reading.body

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode a whole answer."""
        value, _ = decode_reply(reply.body)
        asked = cast("Talk | Vectors", reading.document)
        return asked.part.answer(object_of(value, "the answer"), reading)

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        return b"application/json", encode(answer.document)

    def event(self, event: Event, reading: Reading) -> list[Answer]:
        """Read one event of an endpoint that generates text."""
        talk = cast("Talk", reading.document)
        answers = talk.part.events(event, talk)
        for answer in answers:
            answer.document = _Written(talk.part, cast("Json | None", answer.document))
        return answers

    def write_event(self, answer: Answer) -> bytes:
        """Return a released event; nothing of one that says nothing."""
        written = cast("_Written", answer.document)
        return written.part.written(written.document)

    def end(self, reading: Reading, error: GuardError | None) -> bytes:
        """Return an error event, which OpenAI's clients raise, or the stream's usual end."""
        talk = cast("Talk", reading.document)
        return talk.part.ended(talk, error)

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": {message, type, param, code}}`."""
        return envelope(error_document(error))
