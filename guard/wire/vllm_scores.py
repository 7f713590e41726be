"""vLLM's endpoints that answer one score or one distribution an input: classify, score, rerank."""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np
import orjson

from guard.errors import ClientError
from guard.model.arrays import Floats, Ints
from guard.model.exchange import Call
from guard.model.nested import floats
from guard.model.prediction import Answer, LabelSlot, Prediction, Release
from guard.wire.base import Reader, Reading
from guard.wire.body import encode, unreadable
from guard.wire.openai_parts import named, objects_of, usage_of
from guard.wire.openai_prompts import json_request, prompt_rows, text_queries
from guard.wire.openai_requests import context_of
from guard.wire.openai_vectors import Vectors, by_index, matrix_of
from guard.wire.parameters import Json, Known, Rules
from guard.wire.rows import label_of

_COMMON = tuple(Known(path) for path in ("model", "user"))


class Classify:
    """`/classify`: a label and a distribution an input.

    Args:
        reader: the route's.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rules = Rules(reader, (*_COMMON, Known("input")), {})

    def read(self, call: Call) -> Reading:
        """Decode a request: a row an input.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        self._rules.apply(document)
        rows = prompt_rows(document, "input", self._reader)
        queries = text_queries(rows, context_of(document, "input"), "input")
        return Reading(queries, encode(document), document=Vectors(self))

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read labels and distributions.

        Raises:
            UpstreamError: not one for each input, or no distributions of one length.
        """
        rows = reading.queries.rows
        data = by_index(document.get("data"), rows)
        fresh: list[Json] = [{"index": i} for i in range(rows)]
        answer = Answer(rows, _shown(document, "list", "data", fresh))
        for one, said in zip(fresh, data, strict=True):
            if not isinstance(label := said.get("label"), str | None):
                raise unreadable("a label is no text")
            if label is not None:
                one["label"] = label
        answer.labels.append(LabelSlot("label", partial(_relabel, fresh, self._reader)))
        if self._reader.outputs.kind == "labels":
            if any("label" not in one for one in fresh):
                raise unreadable("it holds no labels")
            return answer
        scores = matrix_of([_floats(said.get("probs")) for said in data])
        complete = self._reader.outputs.accepts(scores, complete=True, named=False)
        if not complete and not self._reader.outputs.accepts(scores, complete=False, named=True):
            raise unreadable(f"the scores are not {self._reader.outputs.kind}")
        write = partial(_write_row, fresh, "probs")
        write(Release(scores))
        answer.predictions.append(Prediction("probs", scores, write, complete=complete))
        for one in fresh:
            one["num_classes"] = scores.shape[1]
        return answer


class Pairs:
    """`/score`: a number for each pair of texts; `/rerank`: one for each document, the greatest first.

    Args:
        reader: the route's.
        ranked: it is the second.
    """

    def __init__(self, reader: Reader, *, ranked: bool) -> None:
        self._reader = reader
        self._ranked = ranked
        members = ("query", "documents", "top_n", "return_documents") if ranked else ("text_1", "text_2")
        self._rules = Rules(reader, (*_COMMON, *(Known(path) for path in members)), {})

    def read(self, call: Call) -> Reading:
        """Decode a request: a row a pair.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        self._rules.apply(document)
        first, second = ("query", "documents") if self._ranked else ("text_1", "text_2")
        left, right = _texts(document, first), _texts(document, second)
        if len(left) not in (1, len(right)) or (self._ranked and len(left) != 1):
            raise ClientError(f"{first} and {second} are not as many", path=first)
        left = left * len(right) if len(left) == 1 else left
        rows = [orjson.dumps(pair).decode() for pair in zip(left, right, strict=True)]
        queries = text_queries(rows, context_of(document, first, second, "top_n", "return_documents"), second)
        return Reading(queries, encode(document), document=Vectors(self))

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read one number a row.

        Raises:
            UpstreamError: a row twice, or numbers of another kind than was declared.
        """
        rows = reading.queries.rows
        list_, member = ("results", "relevance_score") if self._ranked else ("data", "score")
        data = objects_of(document.get(list_), list_)
        places = [place if type(place := one.get("index", i)) is int else -1 for i, one in enumerate(data)]
        if not data or len(set(places)) != len(places) or not set(places) <= set(range(rows)):
            raise unreadable("it does not hold one score for each input")
        scores = _floats([one.get(member) for one in data])[:, None]
        if not self._reader.outputs.accepts(scores, complete=False, named=True):
            raise unreadable(f"the scores are not {self._reader.outputs.kind}")
        fresh: list[Json] = [{"index": place} for place in places]
        shown = _shown(document, None if self._ranked else "list", list_, fresh)
        write = partial(_write_score, [*fresh], fresh if self._ranked else None, member)
        write(Release(scores))
        covered: Ints | None = None if places == list(range(rows)) else np.array(places, dtype=np.int64)
        prediction = Prediction(member, scores, write, complete=False, rows=covered)
        return Answer(rows, shown, [prediction])


def _shown(document: Json, kind: str | None, member: str, fresh: list[Json]) -> Json:
    shown: Json = {**named(document), **({"object": kind} if kind else {}), member: fresh}
    usage = usage_of(document)
    return shown if usage is None else {**shown, "usage": usage}


def _texts(document: Json, member: str) -> list[object]:
    """Return texts, or documents of one text."""
    value = document.get(member)
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    found: list[object] = []
    for item in items:
        document = cast("Json", item) if isinstance(item, dict) else {"text": item}
        text = document.get("text")
        if not isinstance(text, str) or len(document) != 1:
            raise ClientError(f"{member} must be a text or a list of texts", path=member)
        found.append(text)
    if not found:
        raise ClientError(f"{member} is empty", code="no_rows", path=member)
    return found


def _floats(value: object) -> Floats:
    vector = floats(cast("list[object]", value)) if isinstance(value, list) else None
    if vector is None:
        raise unreadable("a score is not a number")
    return vector


def _relabel(fresh: list[Json], reader: Reader, tops: Ints) -> None:
    for one, top in zip(fresh, tops.tolist(), strict=True):
        one["label"] = label_of(reader, top)


def _write_row(fresh: list[Json], member: str, release: Release) -> None:
    for one, row in zip(fresh, release.scores.tolist(), strict=True):
        one[member] = row


def _write_score(read: list[Json], shown: list[Json] | None, member: str, release: Release) -> None:
    for one, row in zip(read, cast("list[list[float]]", release.scores.tolist()), strict=True):
        one[member] = row[0]
    if shown is not None:
        # By what is let out alone: upstream's order would tell ranks that a defence has hidden.
        shown[:] = sorted(read, key=lambda one: (-cast("float", one[member]), cast("int", one["index"])))
