"""Hugging Face text-embeddings-inference: `/embed`, `/embed_sparse`, `/similarity`, `/predict`, `/rerank`, and `/`.

What is guarded depends on the declared kind. `embedding` opens `/embed`, and `/` where such a model serves it; `value`
opens `/similarity` and `/embed_sparse`, whose numbers keep no sense when they are turned; `probabilities` and `logits`
open `/predict` and `/rerank`, and whichever of the two `/` is; `labels` opens `/predict`.

Always closed: `/embed_all`, which answers a vector for every token of a text, so that one row is as many as the client
likes; `/tokenize` and `/decode`; `/vertex` and `/invocations`. `/v1/embeddings` is `api: openai`'s, on a route of its
own. `raw_scores` are for kind `logits`; `normalize: false` (a vector's norm is one more number) must be opened by name,
and so must texts as token numbers (`token_ids`).

Source: `router/src/http/types.rs` and `router/src/http/server.rs` of huggingface/text-embeddings-inference 1.8 (routes,
bodies, the order of ranks, error types).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, cast

from guard.errors import ClientError, GuardError
from guard.model.arrays import Floats
from guard.model.exchange import Call, Reply
from guard.model.outputs import Kind
from guard.model.prediction import Answer
from guard.wire.base import Endpoint, Reader, Reading
from guard.wire.body import decode_reply, encode, encoded_anew
from guard.wire.openai_prompts import json_request, prompt_rows, text_queries
from guard.wire.openai_requests import opened
from guard.wire.parameters import Asked, Json, Known, Rules
from guard.wire.problem import envelope
from guard.wire.tei_answers import read_labels, read_ranks, read_similarities, read_sparse, read_vectors
from guard.wire.tei_requests import classified, compared, ranked

_CUTS = ("truncate", "truncation_direction", "prompt_name", "normalize", "raw_scores")
_MEMBERS = (
    *(Known(name) for name in ("inputs", "query", "texts", "return_text")),
    *(Known(name, name, number=False) for name in _CUTS),
    *(Known(f"parameters.{name}", name, number=False) for name in _CUTS),
    Known("dimensions", "dimensions"),
)
_OPEN: dict[Kind, tuple[str, ...]] = {
    "embedding": ("/embed", "/"),
    "value": ("/similarity", "/embed_sparse"),
    "probabilities": ("/predict", "/rerank", "/"),
    "logits": ("/predict", "/rerank", "/"),
    "labels": ("/predict",),
}
_POSTS = (
    *("/embed", "/embed_sparse", "/similarity", "/predict", "/rerank", "/", "/embed_all", "/tokenize", "/decode"),
    *("/vertex", "/invocations", "/embeddings", "/v1/embeddings"),
)
_GETS = ("/info", "/metrics", "/docs", "/api-doc/openapi.json")


Read = Callable[[object, Reader, Answer], None]
"""Reads an answer of as many rows as the answer's `rows` says, which becomes a function of what to let out."""


@dataclass(frozen=True)
class Tei:
    """The server's own API.

    Args:
        reader: the route's.
    """

    name: ClassVar[str] = "tei"
    reader: Reader
    rules: Rules = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", Rules(self.reader, _MEMBERS, {}))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What answers the declared kind is guarded; health is status; the rest is closed."""
        scoring = _OPEN.get(self.reader.outputs.kind, ())
        return (
            *(Endpoint("POST", path, "scoring" if path in scoring else "closed") for path in _POSTS),
            Endpoint("GET", "/health", "status"),
            Endpoint("GET", "/ping", "status"),
            *(Endpoint("GET", path, "closed") for path in _GETS),
        )

    def read(self, call: Call) -> Reading:
        """Decode texts to embed, to compare, to classify or to rank."""
        document = json_request(call)
        self._hold(document)
        rows, read = self._asked(call.path, document)
        left = {name: value for name, value in document.items() if name not in ("inputs", "query", "texts")}
        return Reading(text_queries(rows, left, "inputs"), encoded_anew(call.body, document), document=read)

    def _hold(self, document: Json) -> Asked:
        parameters = document.get("parameters")
        if not isinstance(parameters, dict | None):
            raise ClientError("parameters must be an object", path="parameters")
        for members in (document, cast("Json", parameters or {})):
            if members.get("raw_scores") and self.reader.outputs.kind != "logits":
                raise _refusal("raw_scores")
            if members.get("normalize", True) is not True and not opened(self.reader, "normalize"):
                raise _refusal("normalize")
        return self.rules.apply(document)

    def _asked(self, path: str, document: Json) -> tuple[list[object], Read]:
        """Return the rows, and how their answer is read."""
        kind = self.reader.outputs.kind
        if path == "/rerank" or (path == "/" and kind != "embedding" and "texts" in document):
            rows, texts = ranked(document)
            return rows, partial(read_ranks, texts=texts if document.get("return_text") is True else None)
        if path == "/predict" or (path == "/" and kind != "embedding"):
            rows, alone = classified(document)
            return rows, partial(read_labels, alone=alone)
        if path == "/similarity":
            return compared(document), read_similarities
        rows = prompt_rows(document, "inputs", self.reader)
        return rows, read_sparse if path == "/embed_sparse" else read_vectors

    def rewrite(self, reading: Reading, snapped: Floats) -> bytes:
        """Return the body as it is: texts are not snapped."""
        del snapped
        return reading.body

    def answer(self, reply: Reply, reading: Reading) -> Answer:
        """Decode vectors, numbers, labels with scores, or ranks."""
        answer = Answer(reading.queries.rows, None)
        cast("Read", reading.document)(decode_reply(reply.body)[0], self.reader, answer)
        return answer

    def render(self, answer: Answer) -> tuple[bytes, bytes]:
        """Encode the answer as JSON."""
        return b"application/json", encode(cast("Callable[[], object]", answer.document)())

    def error(self, error: GuardError) -> tuple[bytes, bytes]:
        """Return `{"error": message, "error_type": type}`."""
        kind = "backend" if error.status >= 500 else "overloaded" if error.status == 429 else "validation"
        return envelope({"error": error.message, "error_type": kind})


def _refusal(name: str) -> ClientError:
    return ClientError(f"{name} is not let through", code="unsupported_parameter", path=name)
