"""What a server writes into the prompt is part of what is asked: it names noise, and what only chooses tokens does not.

Two prompts with the same noise would give the exact difference of their log-probabilities away; two draws of noise for
one prompt could be averaged.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.talks import ask, codec

Json = Any  # Any: JSON of the API
PATHS = {"openai": "/v1/chat/completions", "ollama": "/api/chat"}
TOOL: Json = {"type": "function", "function": {"name": "pay", "description": "x", "parameters": {"type": "object"}}}


def row(api: str, role: str = "user", **more: Json) -> bytes:
    body = {"model": "m", "messages": [{"role": role, "content": "hello"}], **more}
    return ask(codec(api), PATHS[api], body).queries.row_bytes()[0]


@pytest.mark.parametrize("api", PATHS)
def test_tools_and_roles_are_part_of_the_prompt(api: str) -> None:
    other: Json = {"type": "function", "function": {**TOOL["function"], "description": "y"}}
    rows = [row(api), row(api, "system"), row(api, tools=[TOOL]), row(api, tools=[other])]
    assert len(set(rows)) == len(rows)
    assert row(api, tools=[]) == row(api)


def test_what_stands_behind_a_completion_is_part_of_the_prompt() -> None:
    rows = [
        ask(codec("openai"), "/v1/completions", {"model": "m", "prompt": "hello", **more}).queries.row_bytes()[0]
        for more in ({}, {"suffix": "a"}, {"suffix": "b"})
    ]
    assert len(set(rows)) == 3


def test_tools_are_part_of_what_a_response_answers() -> None:
    tools: list[Json] = [{"type": "function", "name": "pay", "parameters": {}, "description": text} for text in "ab"]
    rows = [
        ask(codec("openai"), "/v1/responses", {"model": "m", "input": "hello", **more}).queries.row_bytes()[0]
        for more in ({}, {"tools": tools[:1]}, {"tools": tools[1:]})
    ]
    assert len(set(rows)) == 3


def test_what_a_servers_log_probabilities_depend_on_is_part_of_what_is_asked() -> None:
    def row_of(**parameters: Json) -> bytes:
        return ask(codec("tgi"), "/generate", {"inputs": "hello", "parameters": parameters}).queries.row_bytes()[0]

    rows = [row_of(), row_of(temperature=0.5), row_of(temperature=0.7), row_of(repetition_penalty=1.1), row_of(top_k=5)]
    assert len(set(rows)) == len(rows)
    assert row_of(seed=1, max_new_tokens=5, stop=["x"], temperature=None) == row_of()


@pytest.mark.parametrize("more", [{"seed": 1}, {"temperature": 0.5}, {"max_tokens": 5}, {"stop": ["x"]}, {"user": "u"}])
def test_what_chooses_tokens_is_not(more: Json) -> None:
    assert row("openai", **more) == row("openai")


@pytest.mark.parametrize("more", [{"seed": 1}, {"temperature": 0.5}, {"num_predict": 5}, {"stop": ["x"]}])
def test_what_chooses_tokens_is_not_in_options_either(more: Json) -> None:
    assert row("ollama", options=more) == row("ollama")
