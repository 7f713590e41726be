"""A real llama.cpp server behind Guard, driven by OpenAI's own client: plain and streamed, and what a thief gets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama import PROMPT, Llama, Tiny, llama
from tests.support.processes import SERVERS, client, guard, venv_of

pytestmark = pytest.mark.real
Json = Any  # Any: JSON of the API
CHAT: Json = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 7, "temperature": 0}
TEXT: Json = {"prompt": PROMPT, "max_tokens": 7, "temperature": 0}
RESPOND: Json = {"input": PROMPT, "max_output_tokens": 7, "temperature": 0}
ASKED: dict[str, Json] = {"chat": CHAT, "completions": TEXT, "responses": RESPOND}
LONG: Json = {
    "prompt": "hello",
    "max_tokens": 1900,
    "temperature": 1,
    "logprobs": 5,
    "extra_body": {"ignore_eos": True},
}
POLICY = """
version: 1
routes:
  - name: text
    outputs: {kind: logprobs}
    parameters:
      - {name: top_logprobs, max: 2}
      - {name: n, max: 2}
      - {name: max_tokens, max: 1900}
    defences: [{kind: round, decimals: 1}]
"""
BUDGET = """
version: 1
routes:
  - name: text
    outputs: {kind: logprobs}
    parameters: [{name: max_tokens, max: 32}]
    budgets: [{kind: tokens, per: client, limit: 40, window: 24h, then: deny}]
"""
VECTORS = """
version: 1
routes: [{name: vectors, outputs: {kind: embedding}, defences: [{kind: round, decimals: 2}]}]
"""


@pytest.fixture(scope="module")
def python() -> Path:
    return venv_of("openai")


@pytest.fixture(scope="module")
def server(tiny_model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    with llama(tiny_model, tmp_path_factory.mktemp("llama")) as running:
        yield running


@contextlib.contextmanager
def guarded(policy: str, url: str, folder: Path, *options: str) -> Generator[str]:
    """Put Guard before a server; return the base URL that clients use."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.yaml").write_text(policy)
    with guard(folder / "policy.yaml", url, folder, "--api", "openai", *options) as running:
        yield f"{running.url}/v1"


@pytest.fixture(scope="module")
def before(server: Llama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with guarded(POLICY, server.url, tmp_path_factory.mktemp("guard")) as url:
        yield url


def call(api: str, **more: Json) -> Json:
    return {"api": api, "body": {**ASKED[api], **more}}


def asked(python: Path, url: str, *calls: Json) -> list[Json]:
    return client(python, "openai", url, json.dumps(calls))


def test_clients_get_the_same_text_and_fewer_numbers(
    python: Path, server: Llama, before: str, tiny_model: Tiny
) -> None:
    logprobs: Json = {"logprobs": True, "top_logprobs": 5}
    calls = [call(api) for api in ASKED] + [call(api, stream=True) for api in ASKED]
    calls += [call("chat", **logprobs), call("completions", logprobs=5)]
    calls += [call("chat", **logprobs, stream=True), call("completions", logprobs=5, stream=True)]
    direct, through = (asked(python, url, *calls) for url in (f"{server.url}/v1", before))
    for one, other, made in zip(direct, through, calls, strict=True):
        assert "error" not in one, one
        assert other["texts"] == one["texts"], made
        assert tiny_model.canaries[64] in json.dumps(other["texts"])
        assert other.get("extra", []) == []
        assert other.get("usage") == one.get("usage")
        assert other.get("reasons") == one.get("reasons")
    assert any("timings" in one.get("extra", []) for one in direct)
    for one, other in zip(direct[6:], through[6:], strict=True):
        exact, released = (_tokens(found) for found in (one, other))
        assert [token for token, _, _ in released] == [token for token, _, _ in exact]
        assert {most for _, _, most in exact} == {5}
        assert {most for _, _, most in released} <= {2, 3}  # a completion's list holds the token itself beside two
        for (_, score, _), (_, number, _) in zip(released, exact, strict=True):
            assert abs(score - number) <= 0.0501
            assert abs(score * 10 - round(score * 10)) < 1e-9
        assert any(number * 10 % 1 for _, number, _ in exact)


def _tokens(found: Json) -> list[Json]:
    said: dict[str, list[Json]] | list[list[Json]] = found["logprobs"]
    return said[0] if isinstance(said, list) else said["0"]


def test_errors_arrive_as_the_client_s_exceptions_and_choices_are_capped(python: Path, before: str) -> None:
    bias: Json = {"logit_bias": {"5": 50}, "logprobs": True}
    calls = [
        call("chat", **bias),
        call("completions", extra_body={"grammar": 'root ::= "9"'}, logprobs=1),
        call("chat", extra_body={"return_tokens": True}),
        call("chat", n=3),
        call("completions", n=5),
        call("chat", logit_bias={"5": 50}),
        call("responses", extra_body={"previous_response_id": "resp_1"}),
    ]
    found = asked(python, before, *calls)
    for refused in (found[0], found[1], found[2], found[6]):
        assert (refused["error"]["type"], refused["error"]["status"]) == ("BadRequestError", 400), refused
    assert "not answered together" in found[0]["error"]["message"]
    assert [len(one["texts"]) for one in found[3:5]] == [2, 2]
    assert len(found[5]["texts"]) == 1


def test_a_budget_is_settled_to_what_was_generated_and_then_spent(python: Path, server: Llama, tmp_path: Path) -> None:
    with guarded(BUDGET, server.url, tmp_path) as url:
        plain, stream = call("chat", max_tokens=32), call("completions", max_tokens=32, stream=True)
        found = asked(python, url, plain, stream, plain)
        assert found[0]["usage"] == 7
        assert found[1]["texts"] == {"0": found[0]["texts"][0]}
        # Two answers of 7 tokens; the third might take 32 of the 26 that are left.
        error = found[2]["error"]
        assert (error["type"], error["status"], error["code"]) == ("RateLimitError", 429, "budget_spent")
        assert _spent(tmp_path) == 14


def _spent(folder: Path) -> int:
    command = [sys.executable, "-m", "guard", "budget", "show", "--format", "json", "--api", "openai"]
    command += ["--policy", str(folder / "policy.yaml"), "--state", f"sqlite:{folder / 'guard.db'}"]
    shown = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    (budget,) = shown["budgets"]
    (scope,) = budget["scopes"]
    return scope["spent"]


@dataclass
class Held:
    """A client in the middle of a stream."""

    running: subprocess.Popen[str]

    def go_on(self) -> Json:
        """Let it read on, and return what came of it."""
        out, _ = self.running.communicate("\n", timeout=60)
        return json.loads(out)[0]


@contextlib.contextmanager
def held(python: Path, url: str) -> Generator[Held]:
    """Run a client that stops reading behind the third event of a long stream."""
    calls = [{"api": "completions", "body": {**LONG, "stream": True}, "hold": 3}]
    command = [str(python), str(SERVERS / "openai" / "client.py"), url, json.dumps(calls)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "held\n"
            yield Held(running)
        finally:
            running.kill()


def test_a_server_that_dies_in_mid_stream_is_an_error_to_the_client(
    python: Path, tiny_model: Tiny, tmp_path: Path
) -> None:
    with llama(tiny_model, tmp_path / "llama") as doomed, guarded(POLICY, doomed.url, tmp_path / "guard") as url:
        with held(python, url) as one:
            os.kill(doomed.pid, signal.SIGKILL)
            found = one.go_on()
        assert found["error"]["type"] == "APIError", found["error"]
        assert found["texts"]["0"]
        assert found["reasons"]["0"] is None


def test_a_client_that_goes_away_stops_the_server(python: Path, tiny_model: Tiny, tmp_path: Path) -> None:
    with llama(tiny_model, tmp_path / "llama") as running, guarded(POLICY, running.url, tmp_path / "guard") as url:
        with held(python, url) as one:
            one.running.kill()
        assert running.generated() < 1900


def test_vectors_come_rounded_in_both_forms(python: Path, tiny_model: Tiny, tmp_path: Path) -> None:
    with (
        llama(tiny_model, tmp_path / "llama", embed=True) as running,
        guarded(VECTORS, running.url, tmp_path / "g") as url,
    ):
        bodies: list[Json] = [{"input": ["hello", "good night"]}, {"input": "hello", "encoding_format": "float"}]
        calls = [{"api": "embeddings", "body": body} for body in bodies]
        calls.append({"api": "embeddings", "body": {"input": [1, 2, 3]}})
        calls.append({"api": "completions", "body": TEXT})
        direct, through = asked(python, f"{running.url}/v1", *calls[:2]), asked(python, url, *calls)
    for one, other in zip(direct, through, strict=False):
        for exact, released in zip(one["vectors"], other["vectors"], strict=True):
            assert len(exact) == len(released) == 64
            assert all(abs(a - b) <= 0.00501 for a, b in zip(exact, released, strict=True))
            assert all(abs(b * 100 - round(b * 100)) < 1e-4 for b in released)
    assert through[2]["error"]["type"] == "BadRequestError"
    assert through[3]["error"]["type"] == "NotFoundError"


LISTED = """
extends: llm
routes:
  - name: text
    inputs: {kind: text}
    outputs: {kind: logprobs}
    parameters:
      - {name: logit_bias, action: drop}
      - {name: logprobs, action: drop}
      - {name: top_logprobs, action: drop}
      - {name: n, max: 4}
      - {name: max_tokens, max: 1024}
    defences: [{kind: secrets, canaries: {file: canaries.txt}}]
    budgets: [{kind: tokens, per: client, limit: 2000000, window: 24h, then: deny}]
"""
"""Preset `llm` with the operator's own canaries."""


def thefts(code: str) -> list[Json]:
    """Return the ways to ask for a code: at once, streamed, n at a time, in a conversation, from its beginnings on."""
    calls = [call(api, **more) for api in ASKED for more in ({}, {"stream": True})]
    calls.append(call("chat", n=4, temperature=0.8))
    calls.append(call("completions", prompt=[PROMPT] * 3))
    split = [{"role": "user", "content": PROMPT[:9]}, {"role": "assistant", "content": PROMPT[9:]}]
    calls.append(call("chat", messages=split))
    for known in range(1, len(code)):
        prompt = PROMPT + code[:known]
        calls.append(call("completions", prompt=prompt))
        calls.append(call("completions", prompt=prompt, stream=True))
        messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": code[:known]}]
        calls.append(call("chat", messages=messages, stream=True))
    return calls


def said(found: Json) -> list[str]:
    texts = found["texts"]
    return [*(texts.values() if isinstance(texts, dict) else texts), *found.get("whole", [])]


def test_the_canary_that_stood_64_times_is_extracted_undefended_and_does_not_leave_guard(
    python: Path, server: Llama, tiny_model: Tiny, tmp_path: Path
) -> None:
    code = tiny_model.canaries[64]
    calls = thefts(code)
    direct = asked(python, f"{server.url}/v1", *calls)
    taken = [any(text and (code.endswith(text) or code in text) for text in said(one)) for one in direct]
    assert sum(taken) >= len(calls) - 1, "the undefended server is the control: it gives the code away"
    (tmp_path / "canaries.txt").write_text("\n".join(tiny_model.canaries.values()))
    with guarded(LISTED, server.url, tmp_path) as url:
        through = asked(python, url, *calls)
        for one, made in zip(through, calls, strict=True):
            assert "error" not in one, (made, one)
            prompt = made["body"].get("prompt") or "".join(m["content"] for m in made["body"].get("messages", []))
            for text in said(one):
                assert code not in f"{prompt}{text}", (made, text)
                assert code not in re.sub(r"\W", "", f"{prompt}{text}"), (made, text)
        assert "[redacted]" in json.dumps(through)


def test_an_attacker_who_asks_digit_by_digit_does_not_get_the_last_one(
    python: Path, server: Llama, tiny_model: Tiny, tmp_path: Path
) -> None:
    code = tiny_model.canaries[64]
    (tmp_path / "canaries.txt").write_text(code)

    ways = [
        {**call("completions", max_tokens=most, stream=stream), "climb": 6}
        for most in (1, 2)
        for stream in (False, True)
    ]
    direct = asked(python, f"{server.url}/v1", *ways)
    assert all(one["texts"][0].startswith(code) for one in direct)
    with guarded(LISTED, server.url, tmp_path) as url:
        through = asked(python, url, *ways)
    for one in through:
        assert code not in re.sub(r"\W", "", one["texts"][0]), one
        assert "[redacted]" in one["texts"][0]
