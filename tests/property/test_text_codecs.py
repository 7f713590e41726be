"""Ollama's, TGI's and TEI's codecs take any request and any answer: what they cannot read they refuse, and no more."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from guard.defences.round import Round
from guard.errors import ClientError, UpstreamError
from guard.model.outputs import Kind
from tests.support.generated import Word
from tests.support.talks import allowed, ask, codec, places, replaced, streamed, whole
from tests.support.text_models import ollama, tei, tgi

Json = Any  # Any: JSON, deliberately wrong
LOGPROBS: Json = {"logprobs": True, "top_logprobs": 2}
CASES: list[tuple[str, Kind, str, Json]] = [
    ("ollama", "logprobs", "/api/chat", {"model": "m", "messages": [{"role": "user", "content": "call"}], **LOGPROBS}),
    ("ollama", "logprobs", "/api/generate", {"model": "m", "prompt": "think", **LOGPROBS, "options": {"seed": 1}}),
    ("ollama", "embedding", "/api/embed", {"model": "m", "input": ["a", "b"]}),
    ("tgi", "logprobs", "/generate", {"inputs": "x", "parameters": {"details": True, "top_n_tokens": 2}}),
    ("tgi", "logprobs", "/", {"inputs": "x", "parameters": {"details": True}, "stream": True}),
    ("tei", "embedding", "/embed", {"inputs": ["a", "b"]}),
    ("tei", "value", "/embed_sparse", {"inputs": ["a", "b"]}),
    ("tei", "probabilities", "/rerank", {"query": "q", "texts": ["a", "b"], "return_text": True}),
    ("tei", "probabilities", "/predict", {"inputs": [["a"], ["b", "c"]]}),
]
MODELS = {"ollama": ollama, "tgi": tgi, "tei": tei}
leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.text(max_size=6),
    st.just("data"),
    st.just("x"),
)
junk = st.recursive(
    leaf, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3))
)


def mutated(draw: st.DrawFn, document: Json) -> Json:
    """Change a few places of a document: another value, a member left out, one said twice."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from([place for place, _ in places(document)]))
        value: Json = document
        for key in at:
            value = value[key]
        match draw(st.integers(0, 2)):
            case 1 if isinstance(value, dict) and value:
                members = cast("dict[str, Json]", value)
                gone = draw(st.sampled_from(list(members)))
                value = {name: members[name] for name in members if name != gone}
            case 2 if isinstance(value, list):
                value = [*cast("list[Json]", value), *cast("list[Json]", value)]
            case _:
                value = draw(junk)
        document = replaced(document, at, value)
    return document


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_request_is_read_or_refused(data: st.DataObject) -> None:
    api, kind, path, body = data.draw(st.sampled_from(CASES))
    broken = data.draw(st.composite(mutated)(body))
    opened = allowed("token_ids", "raw", "echo") if data.draw(st.booleans()) else ()
    try:
        reading = ask(codec(api, *opened, kind=kind), path, broken)
    except ClientError:
        return
    assert len(reading.queries.row_bytes()) == reading.queries.rows >= 1
    json.loads(reading.body)
    assert reading.most is None or min(reading.most) >= 0


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_answer_is_let_out_or_withheld(data: st.DataObject) -> None:
    api, kind, path, body = data.draw(st.sampled_from(CASES))
    made = codec(api, kind=kind)
    events = body.get("stream") or (api == "ollama" and kind == "logprobs" and data.draw(st.booleans()))
    answer = MODELS[api](path, body if events else {**body, "stream": False})
    asked = ask(made, path, body)
    steps = (Round(decimals=1), Word(word="41")) if kind == "logprobs" else (Round(decimals=1),)
    with contextlib.suppress(UpstreamError):
        if events:
            lines = [json.loads(line.removeprefix(b"data:")) for line in answer]
            some = data.draw(st.integers(0, len(lines) - 1))
            lines[some] = data.draw(st.composite(mutated)(lines[some]))
            streamed(made, asked, lines, *steps)
        else:
            whole(made, asked, data.draw(st.composite(mutated)(answer)), *steps)
