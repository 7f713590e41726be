"""Takes a text API's requests and answers through a codec and the engine, as the handler does, and breaks them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from guard.defences.base import Defence
from guard.engine.generation import Generation
from guard.engine.randomness import QueryNoise
from guard.engine.release import release
from guard.errors import UpstreamError
from guard.model.outputs import Kind, Outputs
from guard.model.parameters import Parameter
from guard.model.text import Most
from guard.wire.base import Codec, Event, Fields, Reader, Reading, Streams
from guard.wire.registry import codec_class
from tests.support.codecs import call, reply

Json = Any  # Any: JSON of a foreign API, deliberately wrong in many cases
SECRET = bytes(range(32))
MOST = Parameter(name="max_tokens", max=64)


class _Known(Protocol):
    """What every codec is made of."""

    reader: Reader


def codec(api: str, *parameters: Parameter, kind: Kind = "logprobs", fields: Fields = "known") -> Codec:
    """Make the codec of a route; one of generated text has a bound on tokens."""
    named = {p.name: p for p in (*([MOST] if kind == "logprobs" else []), *parameters)}
    return codec_class(api)(Reader(Outputs(kind=kind), fields, parameters=named))


def allowed(*names: str) -> tuple[Parameter, ...]:
    """Let parameters through by name."""
    return tuple(Parameter(name=name) for name in names)


def whole(api: Codec, reading: Reading, answer: Json, *defences: Defence) -> Json:
    """Take a whole answer through, and return what the client gets."""
    read = api.answer(reply(answer), reading)
    noise = QueryNoise(SECRET, "model", "alice", reading.queries, None)
    if reading.most is not None:
        Generation(defences, Outputs(kind="logprobs"), noise, reading.most).take(read)
    else:
        release(defences, cast("_Known", api).reader.outputs, read, noise, labels_only=False)
    return json.loads(api.render(read)[1])


def streamed(api: Codec, reading: Reading, events: Sequence[Json], *defences: Defence) -> bytes:
    """Take an answer in events through, and return what the client gets, which a filter may end."""
    assert isinstance(api, Streams)
    noise = QueryNoise(SECRET, "model", "alice", reading.queries, None)
    generation = Generation(defences, Outputs(kind="logprobs"), noise, reading.most or Most())
    parts: list[bytes] = []
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        for answer in api.event(Event(data), reading):
            generation.take(answer)
            parts.append(api.write_event(answer))
            if generation.ended:
                return b"".join([*parts, api.end(reading, None)])
    return b"".join(parts)


def events_of(written: bytes) -> list[Json]:
    """Return the JSON documents of server-sent events, or of lines."""
    lines = [line.removeprefix(b"data:") for line in written.split(b"\n") if line.strip()]
    return [json.loads(line) for line in lines]


def ask(api: Codec, path: str, body: Json) -> Reading:
    """Read a request."""
    return api.read(call(path, body))


def places(document: Json, at: tuple[Json, ...] = ()) -> Iterator[tuple[tuple[Json, ...], Json]]:
    """Yield every value of a document, containers included, and where it is."""
    yield at, document
    if isinstance(document, dict | list):
        items = cast("Json", document)
        for key in list(items) if isinstance(document, dict) else range(len(items)):
            yield from places(items[key], (*at, key))


def replaced(document: Json, at: tuple[Json, ...], value: Json) -> Json:
    """Return a copy with one value replaced."""
    if not at:
        return value
    copy: Json = {**cast("Json", document)} if isinstance(document, dict) else [*document]
    copy[at[0]] = replaced(document[at[0]], at[1:], value)
    return copy


def let_out(work: Callable[[], bytes | Json]) -> str:
    """Return what the work lets out, as text; nothing where it withholds the answer."""
    try:
        made = work()
    except UpstreamError:
        return ""
    return made.decode() if isinstance(made, bytes) else json.dumps(made)


def planted(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield (digits, the document with a number of these digits in one more place) for every place and object."""
    for n, (at, value) in enumerate(places(document)):
        digits = f"{7_310_000 + n * 7}"
        number = float(f"-0.{digits}")
        if at:
            yield digits, replaced(document, at, number)
            yield digits, replaced(document, at, [number])
        if isinstance(value, dict):
            for more in (number, [number], {"a": {"b": number}}, str(number)):
                yield digits, replaced(document, at, {**cast("Json", value), "surplus": more})
