"""Completions: requests of one prompt or several, whole answers and chunks."""

from __future__ import annotations

from functools import partial
from typing import cast

from guard.model.exchange import Call
from guard.model.prediction import Answer
from guard.model.text import Piece, Token
from guard.wire.base import Reader, Reading
from guard.wire.body import encode, unreadable
from guard.wire.openai_chunks import Chunks
from guard.wire.openai_logprobs import read_chat, read_lists, write_chat, write_lists
from guard.wire.openai_parts import object_of, objects_of, usage_of
from guard.wire.openai_prompts import BEFORE_CHARS, json_request, prompt_rows, text_queries, with_tools
from guard.wire.openai_requests import (
    COMPLETION_MEMBERS,
    apply_rules,
    context_of,
    gather_candidates,
    most_of,
    spread_candidates,
    streamed,
    text_rules,
)
from guard.wire.openai_texts import Choice, Opens, Talk, reason_of
from guard.wire.parameters import Json


class Completions(Chunks):
    """`/v1/completions`.

    Args:
        reader: the route's.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rules = text_rules(reader, COMPLETION_MEMBERS)

    def read(self, call: Call) -> Reading:
        """Decode a request: a row a prompt.

        Raises:
            ClientError: 400, 415.
        """
        document = json_request(call)
        spread_candidates(document, counted=True)
        asked = apply_rules(self._rules, document)
        gather_candidates(document)
        rows = prompt_rows(document, "prompt", self._reader)
        stream, counts = streamed(document, counts=True)
        # What is echoed begins with the prompt itself.
        echoed = "echo" in asked.values
        before = tuple("" if echoed or not isinstance(row, str) else row[-BEFORE_CHARS:] for row in rows)
        most = most_of(asked, len(rows), len(call.body))
        talk = Talk(self, before, asked.number("n", 1), most, counts=counts)
        if "logprobs" in asked.values:
            talk.top = asked.number("top_logprobs", 0)
        asked_rows = [with_tools(row, document) if isinstance(row, str) else row for row in rows]
        queries = text_queries(asked_rows, context_of(document, "prompt"), "prompt")
        return Reading(queries, encode(document), document=talk, most=most, stream="sse" if stream else None)

    def answer(self, document: Json, reading: Reading) -> Answer:
        """Read a whole answer.

        Raises:
            UpstreamError: it cannot be read.
        """
        talk = cast("Talk", reading.document)
        talk.begin()
        answer = self._read(document, talk, whole=True)
        if not answer.choices:
            raise unreadable("it holds no choices")
        return answer

    def chunk(self, document: Json, talk: Talk) -> Answer:
        """Read one chunk of a stream.

        Raises:
            UpstreamError: it cannot be read.
        """
        return self._read(document, talk, whole=False)

    def says(self, document: Json) -> bool:
        """Say whether a fresh chunk says anything."""
        for choice in cast("list[Json]", document["choices"]):
            if choice["text"] or choice["finish_reason"] or choice["logprobs"]:
                return True
        return "usage" in document

    def _read(self, document: Json, talk: Talk, *, whole: bool) -> Answer:
        pieces: list[Piece] = []
        choices = [_choice(raw, talk, pieces, whole=whole) for raw in objects_of(document.get("choices"), "choices")]
        fresh: Json = talk.named(document) | {"object": "text_completion", "choices": choices}
        usage = usage_of(document)
        if usage is not None and (whole or talk.counts):
            fresh["usage"] = usage
        seen = len(choices) if whole else len(talk.open)
        return Answer(len(talk.before), fresh, pieces=pieces, choices=seen, usage=talk.generated(usage))


def _choice(raw: Json, talk: Talk, pieces: list[Piece], *, whole: bool) -> Json:
    index, reason = talk.index_of(raw), reason_of(raw)
    fresh: Json = {"index": index, "text": "", "logprobs": None, "finish_reason": reason}
    texts = Choice(talk, fresh, index, whole or reason is not None, pieces)
    text = raw.get("text")
    if text is not None and not isinstance(text, str):
        raise unreadable("a text is none")
    tokens = _tokens(raw, talk)
    write = partial(_write_tokens, fresh, talk)
    opens = partial(_same, fresh)
    if text or tokens:
        texts.add("text", text or "", "text", opens, tokens, write)
        if index in talk.ended:
            raise unreadable("a text goes on after its end")
    texts.close(lambda call, key: cast("Opens", opens), lambda key, tokens: write(tokens))
    if texts.last:
        talk.ended.add(index)
    return fresh


def _same(fresh: Json) -> Json:
    return fresh


def _tokens(raw: Json, talk: Talk) -> list[Token]:
    """Return a choice's log-probabilities; llama.cpp writes them as chat completions do."""
    said = raw.get("logprobs")
    if talk.top < 0 or said is None:
        return []
    both = object_of(said, "logprobs")
    talk.listed = "tokens" in both
    return read_lists(both, talk.top) if talk.listed else read_chat(both.get("content"), talk.top)


def _write_tokens(fresh: Json, talk: Talk, tokens: list[Token]) -> None:
    lists = write_lists(tokens, candidates=talk.top > 0) if talk.listed else {"content": write_chat(tokens)}
    fresh["logprobs"] = lists
