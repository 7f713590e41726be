"""The Python clients of Ollama, TGI and TEI, directly at servers that answer as those do, and through Guard.

The servers are fakes (`tests.support.text_models`): none of the real ones can be installed from a package registry. The
clients are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import text_models
from tests.support.processes import client, guard, venv_of
from tests.support.text_models import DURATION, LOGPROBS, OTHER, TOKENS

pytestmark = pytest.mark.real
Json = Any  # Any: what the clients got, as JSON
TEXT = """  - name: text
    api: {api}
    inputs: {{kind: text}}
    outputs: {{kind: logprobs}}
    parameters: [{{name: max_tokens, max: 12}}{more}]
    defences: [{{kind: round, decimals: 1}}]
    budgets: [{{kind: tokens, per: client, limit: 2000, window: 24h}}]
"""
SCORES = """  - name: {kind}
    api: {api}
    outputs: {{kind: {kind}}}
    defences: [{{kind: round, decimals: 1}}]
    budgets: [{{kind: rows, per: client, limit: 1000, window: 24h}}]
"""
EXACT = [str(abs(number))[2:] for number in (*LOGPROBS, OTHER, -0.0321, -8.7654)]
"""What no answer may hold: each log-probability to its fourth decimal."""


def both(api: str, answer: Callable[[str, Json], Json], routes: str, folder: Path) -> tuple[Json, Json]:
    """Return what the client got from the server itself, and through Guard."""
    python = venv_of("textclients")
    (folder / "policy.yaml").write_text(f"version: 1\nname: {api}\nroutes:\n{routes}")
    with text_models.serving(answer) as url:
        direct = client(python, "textclients", api, url)
        with guard(folder / "policy.yaml", url, folder / "guard") as guarded:
            return direct, client(python, "textclients", api, guarded.url)


@pytest.fixture(scope="module")
def of_ollama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Json]:
    routes = TEXT.format(api="ollama", more="") + SCORES.format(api="ollama", kind="embedding")
    return both("ollama", text_models.ollama, routes, tmp_path_factory.mktemp("ollama"))


@pytest.fixture(scope="module")
def of_tgi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Json]:
    routes = TEXT.format(api="tgi", more="")
    return both("tgi", text_models.tgi, routes, tmp_path_factory.mktemp("tgi"))


@pytest.fixture(scope="module")
def of_tgi_without_logprobs(tmp_path_factory: pytest.TempPathFactory) -> Json:
    routes = TEXT.format(api="tgi", more=", {name: logprobs, action: drop}")
    return both("tgi", text_models.tgi, routes, tmp_path_factory.mktemp("tgi-dropped"))[1]


@pytest.fixture(scope="module")
def of_tei(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Json]:
    kinds = ("embedding", "value", "probabilities")
    routes = "".join(SCORES.format(api="tei", kind=kind) for kind in kinds)
    return both("tei", text_models.tei, routes, tmp_path_factory.mktemp("tei"))


def tenths(value: Json) -> None:
    """Check that every fractional number is a multiple of 0.1."""
    if isinstance(value, dict | list):
        items = cast("Json", value)
        for item in items.values() if isinstance(value, dict) else items:
            tenths(item)
    if isinstance(value, float):
        assert value * 10 == pytest.approx(round(value * 10), abs=1e-5), value


def lets_no_exact_number_out(through: Json) -> None:
    said = json.dumps(through)
    for number in (*EXACT, str(DURATION)[:6]):
        assert number not in said, number
    assert "/usr/lib" not in said
    assert "/opt" not in said


def test_ollama_answers_the_same_text_whole_and_in_events(of_ollama: tuple[Json, Json]) -> None:
    direct, through = of_ollama
    assert "4172" in direct["generate"]["response"]
    assert through["generate"]["response"] == direct["generate"]["response"]
    parts = [part["response"] for part in through["generate_stream"]]
    assert "".join(parts) == "".join(TOKENS[:5])
    assert len([part for part in parts if part]) == 5, "each token leaves in an event of its own"
    assert through["generate_stream"][-1]["done"]
    assert through["generate_stream"][-1]["eval_count"] == 5
    for name in ("thinking", "content"):
        said = [part["message"][name] or "" for part in through["chat_stream"]]
        assert "".join(said) == direct["chat"]["message"][name] == through["chat"]["message"][name]


def test_ollama_s_log_probabilities_are_defended_and_nothing_else_has_numbers(of_ollama: tuple[Json, Json]) -> None:
    direct, through = of_ollama
    assert EXACT[0] in json.dumps(direct)
    assert [entry["token"] for entry in through["generate_logprobs"]["logprobs"]] == list(TOKENS[:5])
    assert through["generate_logprobs"]["logprobs"][3]["logprob"] == -0.5
    assert len(through["generate_logprobs"]["logprobs"][0]["top_logprobs"]) == 2
    streamed = list(chain.from_iterable(part["logprobs"] or () for part in through["generate_stream"]))
    assert streamed == through["generate_logprobs"]["logprobs"]
    assert len(through["chat"]["logprobs"]) == 3 + 7
    tenths(through)
    lets_no_exact_number_out(through)
    assert direct["generate"]["context"] == [1, 2, 3]
    assert through["generate"]["context"] is None
    assert through["generate"]["created_at"] == "2026-11-26T18:52:00Z"


def test_ollama_s_tools_vectors_and_errors_reach_its_client(of_ollama: tuple[Json, Json]) -> None:
    direct, through = of_ollama
    assert through["call"]["message"]["tool_calls"] == direct["call"]["message"]["tool_calls"]
    assert [len(row) for row in through["embed"]["embeddings"]] == [8, 8]
    assert through["embeddings"]["embedding"] == through["embed"]["embeddings"][0]
    assert through["failing"]["parts"] == direct["failing"]["parts"] == ["The", " code"]
    assert "runner" in direct["failing"]["error"]
    assert through["failing"]["error"]
    assert through["refused"]["raised"] == through["listed"]["raised"] == "ResponseError"
    assert "raw" in through["refused"]["text"]
    assert through["alive"] == direct["alive"] == 200


def test_tgi_answers_the_same_text_whole_and_in_events(of_tgi: tuple[Json, Json]) -> None:
    direct, through = of_tgi
    text = "".join(TOKENS[:5])
    assert through["generate"]["generated_text"] == through["hub"] == through["hub_details"]["generated_text"] == text
    assert direct["hub"] == f"my code?{text}", "the server's default on / repeats the prompt"
    assert through["hub_stream"] == direct["hub_stream"]
    assert through["generate_stream"][-1]["generated_text"] == text
    assert through["hub_stream_details"][-1]["details"]["generated_tokens"] == 6
    assert through["failing"]["raised"] == direct["failing"]["raised"] == "GenerationError"
    assert through["hub_full"]["raised"] == through["prefill"]["raised"] == "ValidationError"


def test_tgi_s_log_probabilities_are_defended(of_tgi: tuple[Json, Json]) -> None:
    direct, through = of_tgi
    assert EXACT[0] in json.dumps(direct)
    tokens = through["generate"]["details"]["tokens"]
    assert [token["text"] for token in tokens] == [*TOKENS[:5], "</s>"]
    assert tokens[1]["logprob"] == -0.2
    assert {token["id"] for token in tokens} == {0}
    assert [event["token"] for event in through["generate_stream"]] == tokens
    assert [len(row) for row in through["generate"]["details"]["top_tokens"]] == [2] * 6
    assert through["generate"]["details"]["seed"] is None
    tenths(through)
    lets_no_exact_number_out(through)


def test_tgi_s_clients_work_where_log_probabilities_are_dropped(of_tgi_without_logprobs: Json) -> None:
    through = of_tgi_without_logprobs
    assert through["generate"]["generated_text"] == "".join(TOKENS[:5])
    assert through["generate"]["details"]["finish_reason"] == "eos_token"
    assert through["generate"]["details"]["tokens"] == []
    assert {event["token"]["logprob"] for event in through["hub_stream_details"]} == {-9999.0}
    assert "".join(event["token"]["text"] for event in through["generate_stream"][:-1]) == "".join(TOKENS[:5])
    lets_no_exact_number_out(through)


def test_tei_s_numbers_are_defended_wherever_they_stand(of_tei: tuple[Json, Json]) -> None:
    direct, through = of_tei
    tenths(through)
    assert direct["embed"] != through["embed"] == through["root"]
    assert through["similarity"] == [0.8, -0.1]
    assert [pair["index"] for pair in through["sparse"][0]] == [17, 4]
    assert [rank["index"] for rank in direct["rerank"]] == [2, 0, 3, 1]
    assert through["rerank"] == [
        {"index": 2, "score": 0.9, "text": "c"},
        {"index": 0, "score": 0.6, "text": "a"},
        {"index": 3, "score": 0.6, "text": "d"},
        {"index": 1, "score": 0.1, "text": "b"},
    ]
    assert "joy" in through["predict"]
    assert through["raw"]["error_type"] == "validation"
    assert (direct["all"], through["all"]) == (200, 404)
