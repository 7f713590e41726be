"""Asks a codec as the handler does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, Release
from guard.wire.base import Codec, Fields, Reader, Reading

Json = Any  # JSON of a foreign API, deliberately wrong in many cases


def reader(fields: Fields = "known", **outputs: Json) -> Reader:
    """Make a reader for a route with these `outputs`."""
    return Reader(Outputs.model_validate(outputs), fields)


def call(path: str, document: Json, **headers: str) -> Call:
    """Make a call of a JSON document, or of raw bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Call(path, {}, headers.get("content_type", "application/json"), body, named)


def reply(document: Json, **headers: str) -> Reply:
    """Make an answer of a JSON document, or of raw bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Reply(
        200, [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()], body
    )


def asked(codec: Codec, path: str, document: Json, answer: Json) -> Answer:
    """Read a request and the answer to it."""
    return codec.answer(reply(answer), codec.read(call(path, document)))


def rendered(codec: Codec, answer: Answer) -> Json:
    """Return the decoded body of an answer."""
    kind, body = codec.render(answer)
    assert kind == b"application/json"
    return json.loads(body)


def rewritten(codec: Codec, reading: Reading, snapped: Floats) -> Json:
    """Return the decoded body of a rewritten request."""
    return json.loads(codec.rewrite(reading, snapped))


def one_hot(scores: Floats) -> Release:
    """Reduce scores to their label."""
    hot = np.zeros_like(scores)
    hot[np.arange(len(scores)), scores.argmax(axis=1)] = 1.0
    return Release(hot, hot > 0, labels_only=True)


def release_labels(answer: Answer) -> None:
    """Write labels only, as `label_only` does."""
    for prediction in answer.predictions:
        prediction.write(one_hot(prediction.scores))
