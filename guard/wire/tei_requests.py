"""Requests of text-embeddings-inference: what is a row of each. A row of several texts is their canonical JSON."""

from __future__ import annotations

from typing import cast

import orjson

from guard.errors import ClientError
from guard.wire.parameters import Json


def ranked(document: Json) -> tuple[list[object], list[str]]:
    """Return a row for each text to rank, and the texts.

    Raises:
        ClientError: 400.
    """
    query = document.get("query")
    if not isinstance(query, str):
        raise ClientError("query must be a text", path="query")
    texts = _texts(document.get("texts"), "texts")
    return [_row(query=query, text=text) for text in texts], texts


def compared(document: Json) -> list[object]:
    """Return a row for each sentence to compare.

    Raises:
        ClientError: 400.
    """
    inputs = document.get("inputs")
    members = cast("Json", inputs) if isinstance(inputs, dict) else {}
    source = members.get("source_sentence")
    if not isinstance(source, str) or members.keys() != {"source_sentence", "sentences"}:
        raise ClientError("inputs must have source_sentence and sentences", path="inputs")
    return [_row(source=source, text=text) for text in _texts(members["sentences"], "inputs.sentences")]


def classified(document: Json) -> tuple[list[object], bool]:
    """Return a row for each text, or pair of texts, to classify, and whether one stands alone, not in a batch.

    A list of texts is a pair, and so one row: a batch is a list of lists.

    Raises:
        ClientError: 400.
    """
    inputs = document.get("inputs")
    if isinstance(inputs, str):
        return [inputs], True
    items: list[object] = cast("list[object]", inputs) if isinstance(inputs, list) else []
    if not items:
        raise ClientError("inputs must be a text, a pair of texts, or a list of such lists", path="inputs")
    alone = isinstance(items[0], str)
    return [_sequence(item) for item in ([items] if alone else items)], alone


def _sequence(item: object) -> object:
    texts = _texts(item, "inputs")
    if len(texts) > 2:
        raise ClientError("a row is a text or a pair of texts", path="inputs")
    return texts[0] if len(texts) == 1 else orjson.dumps(texts).decode()


def _texts(value: object, path: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
        raise ClientError(f"{path} must be a list of texts", path=path)
    if not value:
        raise ClientError(f"{path} is empty", code="no_rows", path=path)
    return cast("list[str]", value)


def _row(**texts: str) -> str:
    return orjson.dumps(texts).decode()
