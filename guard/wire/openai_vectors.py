"""Embeddings: vectors as lists of numbers, or as base64 of little-endian float32; moderations: a score a category.

Whatever form a vector comes in, it is decoded, defended as any other, and written in the form that was asked for.

A moderation's categories are scored each by itself, so its scores are no distribution. Its labels are the booleans:
what the model makes of each score at a threshold of its own. They stay as the model said them, as labels do; where only
labels may leave, the scores say what the booleans say.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import numpy as np

from guard.errors import ClientError
from guard.model.arrays import Floats
from guard.model.exchange import Call
from guard.model.nested import floats
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, LabelSlot, Prediction, Release
from guard.wire.base import Reader, Reading
from guard.wire.body import encode, unreadable
from guard.wire.openai_parts import Part, named, object_of, objects_of, usage_of
from guard.wire.openai_prompts import json_request, prompt_rows, text_queries
from guard.wire.openai_requests import context_of
from guard.wire.parameters import Json, Known, Rules

Form = Literal["float", "base64"]
EMBEDDING_MEMBERS = (
    *(Known(path) for path in ("input", "model", "user", "encoding_format")),
    Known("dimensions", "dimensions"),
)
"""How a text is cut is not among them: every long text would be another way to ask for its beginning's vector."""
_CATEGORY = re.compile(r"[\w/ .-]{1,64}")


@dataclass(frozen=True, slots=True)
class Vectors:
    """A request for vectors or scores: where it was asked, and in which form the numbers shall come."""

    part: Part
    form: Form = "float"


class Embeddings:
    """`/v1/embeddings`, and whatever answers as it does.

    Args:
        reader: the route's.
        member: where a vector stands in its entry.
    """

    def __init__(self, reader: Reader, member: Literal["embedding", "data"] = "embedding") -> None:
        self._reader = reader
        self._member = member
        self._rules = Rules(reader, EMBEDDING_MEMBERS, {})

    def read(self, call: Call) -> Reading:
        """Decode a request: a row an input.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        self._rules.apply(document)
        form = document.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise ClientError("encoding_format must be float or base64", path="encoding_format")
        rows = prompt_rows(document, "input", self._reader)
        queries = text_queries(rows, context_of(document, "input", "encoding_format"), "input")
        return Reading(queries, encode(document), document=Vectors(self, form))

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read vectors.

        Raises:
            UpstreamError: not one for each input, or not of one length.
        """
        rows, asked = reading.queries.rows, cast("Vectors", reading.document)
        data = by_index(document.get("data"), rows)
        scores = matrix_of([_vector(one.get(self._member)) for one in data])
        kind = "embedding" if self._member == "embedding" else "pooling"
        fresh: list[Json] = [{"object": kind, "index": i, self._member: None} for i in range(rows)]
        shown: Json = {**named(document), "object": "list", "data": fresh}
        usage = usage_of(document)
        if usage is not None:
            shown["usage"] = usage
        write = partial(_write, fresh, self._member, asked.form)
        write(Release(scores))
        return Answer(rows, shown, [Prediction("embedding", scores, write)])


def by_index(value: object, rows: int) -> list[Json]:
    """Return the members of a list that has one for each row, in the order of their numbers.

    Raises:
        UpstreamError: it has not.
    """
    data = objects_of(value, "data")
    found = {place: one for i, one in enumerate(data) if type(place := one.get("index", i)) is int}
    if len(data) != rows or found.keys() != set(range(rows)):
        raise unreadable("it does not hold one entry for each input")
    return [found[i] for i in range(rows)]


def _vector(value: object) -> Floats:
    if isinstance(value, str):
        try:
            return np.frombuffer(b64decode(value, validate=True), dtype="<f4").astype(np.float64)
        except (binascii.Error, ValueError):
            raise unreadable("a vector is not base64 of 32-bit numbers") from None
    vector = floats(cast("list[object]", value)) if isinstance(value, list) else None
    if vector is None:
        raise unreadable("a vector is not a list of numbers")
    return vector


def matrix_of(vectors: list[Floats]) -> Floats:
    """Return vectors of one length as a matrix.

    Raises:
        UpstreamError: they are empty, or of several lengths.
    """
    if not vectors[0].size or len({vector.size for vector in vectors}) != 1:
        raise unreadable("its vectors are not of one length")
    return np.array(vectors)


def _write(fresh: list[Json], member: str, form: Form, release: Release) -> None:
    for one, row in zip(fresh, release.scores, strict=True):
        one[member] = b64encode(row.astype("<f4").tobytes()).decode() if form == "base64" else row.tolist()


class Moderations:
    """`/v1/moderations`.

    Args:
        reader: the route's.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rules = Rules(reader, tuple(Known(path) for path in ("input", "model")), {})

    def read(self, call: Call) -> Reading:
        """Decode a request: a row a text; parts of one input (a text and an image) are one.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        self._rules.apply(document)
        value = document.get("input")
        parts = cast("list[object]", value) if isinstance(value, list) else []
        if parts and all(isinstance(part, dict) for part in parts):
            rows: list[object] = [encode(parts).decode()]
        else:
            rows = prompt_rows(document, "input", self._reader)
        queries = text_queries(rows, context_of(document, "input"), "input")
        return Reading(queries, encode(document), document=Vectors(self))

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read results: scores in one matrix, booleans as labels.

        Raises:
            UpstreamError: not one for each input, or not all of the same categories.
        """
        rows = reading.queries.rows
        results = objects_of(document.get("results"), "results")
        if len(results) != rows:
            raise unreadable("it does not hold one result for each input")
        fresh = [_result(one) for one in results]
        said = [object_of(one.get("category_scores"), "category_scores") for one in results]
        names = list(said[0])
        if not names or any(one.keys() != said[0].keys() for one in said) or not all(map(_CATEGORY.fullmatch, names)):
            raise unreadable("its results are not of the same categories")
        vectors = [floats([one[name] for name in names]) for one in said]
        if any(vector is None for vector in vectors):
            raise unreadable("a score is not a number")
        scores = np.array(vectors, dtype=np.float64)
        if not Outputs().accepts(scores, complete=False, named=True):
            raise unreadable("the scores are not probabilities")
        answer = Answer(rows, {**named(document), "results": fresh})
        write = partial(_write_scores, fresh, names)
        if self._reader.outputs.kind == "labels":
            write(Release(scores, labels_only=True))
            answer.labels.append(LabelSlot("categories", lambda tops: None))
        else:
            write(Release(scores))
            answer.predictions.append(Prediction("category_scores", scores, write, complete=False))
        return answer


def _result(said: Json) -> Json:
    """Return a fresh result with the booleans of what the model said."""
    flagged = said.get("flagged")
    if not isinstance(flagged, bool):
        raise unreadable("a result is neither flagged nor not")
    categories = object_of(said.get("categories"), "categories")
    if not all(isinstance(one, bool) for one in categories.values()):
        raise unreadable("a category is neither true nor false")
    result: Json = {
        "flagged": flagged,
        "categories": {name: one for name, one in categories.items() if _CATEGORY.fullmatch(name)},
        "category_scores": {},
    }
    kinds = said.get("category_applied_input_types")
    if isinstance(kinds, dict):
        result["category_applied_input_types"] = {
            name: [kind for kind in ("text", "image") if kind in cast("list[object]", found)]
            for name, found in cast("Json", kinds).items()
            if isinstance(found, list) and _CATEGORY.fullmatch(name)
        }
    return result


def _write_scores(fresh: list[Json], names: list[str], release: Release) -> None:
    rows = cast("list[list[float]]", release.scores.tolist())
    for one, row in zip(fresh, rows, strict=True):
        categories = cast("Json", one["categories"])
        said = [float(categories.get(name) is True) for name in names]
        one["category_scores"] = dict(zip(names, said if release.labels_only else row, strict=True))
