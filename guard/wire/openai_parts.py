"""What an endpoint in OpenAI's shape is, and what all of their answers have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from guard.errors import GuardError, UpstreamError
from guard.model.exchange import Call
from guard.model.prediction import Answer
from guard.wire.base import Event, Reading
from guard.wire.body import unreadable
from guard.wire.parameters import Json

if TYPE_CHECKING:
    from guard.wire.openai_texts import Talk

_NAME = re.compile(r"[\w.:/@+-]{1,256}")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


class Part(Protocol):
    """An endpoint. The document of its readings has it as `part`."""

    def read(self, call: Call) -> Reading:
        """As `Codec.read`."""
        ...

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read a whole answer; its `document` is what `render` encodes."""
        ...


@runtime_checkable
class Texts(Part, Protocol):
    """An endpoint that generates text."""

    def events(self, event: Event, talk: Talk) -> list[Answer]:
        """Read one event; `document` of each answer is what `written` gets, None for the stream's end."""
        ...

    def written(self, document: Json | None) -> bytes:
        """Return an event's bytes, once it is released; none of one that says nothing."""
        ...

    def ended(self, talk: Talk, error: GuardError | None) -> bytes:
        """As `Streams.end`."""
        ...


_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_document(error: GuardError) -> Json:
    """Return an error as OpenAI's clients know it."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.path, "code": error.code}}


def check_failed(event: Event, document: Json) -> None:
    """Refuse an event by which upstream says that it failed: its words may hold more.

    Raises:
        UpstreamError: it is one.
    """
    if document.get("error") is not None or event.name == b"error":
        raise UpstreamError("the model failed", code="upstream_failed")


def named(document: Json) -> Json:
    """Return what names an answer: its id, the model, and when it was made."""
    head: Json = {}
    for member in ("id", "model"):
        value = document.get(member)
        if isinstance(value, str) and _NAME.fullmatch(value):
            head[member] = value
    created = document.get("created")
    if type(created) is int:
        head["created"] = created
    return head


def usage_of(document: Json) -> Json | None:
    """Return the counts of tokens that say nothing of what the server remembers."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return None
    return {name: value for name in _COUNTS if type(value := cast("Json", usage).get(name)) is int}


def object_of(value: object, what: str) -> Json:
    """Return a JSON object.

    Raises:
        UpstreamError: it is something else.
    """
    if not isinstance(value, dict):
        raise unreadable(f"{what} is no object")
    return cast("Json", value)


def objects_of(value: object, what: str) -> list[Json]:
    """Return a list of JSON objects; none for null.

    Raises:
        UpstreamError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise unreadable(f"{what} are no list")
    for one in cast("list[object]", value):
        if not isinstance(one, dict):
            raise unreadable(f"{what} are no objects")
    return cast("list[Json]", value)


def name_of(value: object) -> str | None:
    """Return an identifier that a server made; None for what might be a text."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None
