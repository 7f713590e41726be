"""Streams of chunks, as chat completions and completions have them: one shape of event, and `[DONE]` at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod

from guard.errors import GuardError
from guard.model.prediction import Answer
from guard.wire.base import Event
from guard.wire.body import decode_reply, encode
from guard.wire.openai_parts import check_failed, error_document, object_of
from guard.wire.openai_texts import Talk
from guard.wire.parameters import Json

_DONE = b"data: [DONE]\n\n"


class Chunks(ABC):
    """An endpoint whose events are chunks."""

    @abstractmethod
    def chunk(self, document: Json, talk: Talk) -> Answer:
        """Read one chunk.

        Raises:
            UpstreamError: it cannot be read.
        """

    @abstractmethod
    def says(self, document: Json) -> bool:
        """Say whether a fresh chunk says anything."""

    def events(self, event: Event, talk: Talk) -> list[Answer]:
        """Read one event; before the stream's end goes that of choices whose end upstream did not say.

        Raises:
            UpstreamError: it cannot be read, or says that the model failed.
        """
        if event.data == b"[DONE]":
            due: list[Json] = [{"index": i, "finish_reason": "stop"} for i in talk.open if i not in talk.ended]
            closing = [self.chunk({**talk.head, "choices": due}, talk)] if due else []
            return [*closing, Answer(len(talk.before), None)]
        value: object = decode_reply(event.data)[0] if event.data else None
        if value is None:  # llama.cpp says so where it has nothing to say yet
            return []
        document = object_of(value, "an event")
        check_failed(event, document)
        return [self.chunk(document, talk)]

    def written(self, document: Json | None) -> bytes:
        """Return an event's bytes; none for a chunk that says nothing."""
        if document is None:
            return _DONE
        return b"data: %b\n\n" % encode(document) if self.says(document) else b""

    def ended(self, talk: Talk, error: GuardError | None) -> bytes:
        """Return an error event, which OpenAI's clients raise, or the stream's usual end."""
        del talk
        return _DONE if error is None else b"data: %b\n\n" % encode(error_document(error))
