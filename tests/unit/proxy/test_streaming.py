"""Answers in events on their way through the phases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from guard.errors import UpstreamError
from guard.model.exchange import Reply
from guard.model.ledger import Charge
from tests.support.fakes import Answered, Guarded, ScriptedStream, Seen

PATH = "/v1/chat/completions"
SSE = [(b"content-type", b"text/event-stream"), (b"transfer-encoding", b"chunked"), (b"x-secret", b"1")]
ROUTE = """
    outputs: {kind: logprobs}
    parameters: [{name: max_tokens, max: 100}]
    budgets: [{kind: tokens, per: client, limit: 250}]
"""
Json = dict[str, Any]  # Any: JSON
Message = MutableMapping[str, Any]  # Any: ASGI


def guarded(folder: Path, mode: str = "enforce", limits: str = "", route: str = ROUTE) -> Guarded:
    policy = f"version: 1\nmode: {mode}\nlimits: {{{limits}}}\nroutes:\n  - name: chat\n    api: openai{route}"
    return Guarded(policy, folder)


def asked(**more: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, **more}).encode()


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def chunk(text: str | None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def scripted(*pieces: bytes, error: UpstreamError | None = None) -> Callable[[Seen], ScriptedStream]:
    return lambda _: ScriptedStream(list(pieces), error, headers=SSE)


def documents(body: bytes) -> list[Any]:  # Any: JSON
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(body: bytes) -> str:
    return "".join(c["delta"].get("content") or "" for d in documents(body) for c in d.get("choices", ()))


async def spent(made: Guarded) -> int:
    charge = Charge("tokens/client", "client:address:192.0.2.1", 0, 250, 1)
    ledger = "shadow:chat" if made.plans.current.plan.mode == "shadow" else "chat"
    return (await made.state.spend(ledger, charge, made.clock.wall)).spent


async def metric(made: Guarded, name: str) -> float:
    text = b"".join([piece async for piece in made.metrics.expose()]).decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def ask(made: Guarded, body: bytes | None = None) -> Answered:
    return await made.ask("POST", PATH, asked() if body is None else body)


WHOLE = (chunk("Hel"), chunk("lo"), chunk(None, "stop"), b"data: [DONE]\n\n")


async def test_events_reach_the_client_in_the_apis_shape(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*WHOLE)
    got = await ask(made)
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in got.headers
    assert "x-secret" not in got.headers
    assert "x-request-id" in got.headers
    assert text_of(got.body) == "Hello"
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert made.upstream.opened[0].closes
    assert await metric(made, 'guard_requests_total{outcome="ok",route="chat"}') == 1


async def test_tokens_are_charged_before_and_settled_after(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    during: list[int] = []

    async def look() -> None:
        during.append(await spent(made))

    used = event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}})
    made.upstream.stream = lambda _: ScriptedStream([*WHOLE[:3], used, WHOLE[3]], headers=SSE, wait=look)
    await ask(made)
    assert set(during) == {100}
    assert await spent(made) == 7
    assert json.loads(made.upstream.seen[0].body)["max_tokens"] == 100
    assert await metric(made, "guard_budget_charges_total{") == 7


async def test_without_a_count_no_more_is_given_back_than_the_texts_bytes(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*WHOLE)
    await ask(made)
    assert 2 <= await spent(made) <= 10


async def test_n_choices_count_n_times(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*WHOLE)
    assert (await ask(made, asked(n=2))).status == 200
    assert (await ask(made, asked(n=3))).status == 413  # 300 tokens never fit into 250


async def test_a_spent_budget_refuses_before_the_model_is_asked(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = lambda _: ScriptedStream([], UpstreamError("cut", code="upstream_broken"), headers=SSE)
    statuses = [(await ask(made, asked(n=2))).status for _ in range(3)]
    assert statuses[0] == 200
    assert len(made.upstream.seen) == statuses.count(200)


async def test_a_client_that_leaves_cancels_the_model_and_pays_for_what_was_generated(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    never = asyncio.Event()
    sent: list[Message] = []
    first = asyncio.Event()

    async def wait() -> None:
        if made.upstream.opened[0].reads:
            first.set()
            await never.wait()

    made.upstream.stream = lambda _: ScriptedStream([chunk("Hel")], headers=SSE, wait=wait)
    connection = Connection()
    task = asyncio.create_task(made.app(scope(connection), receive(asked()), sent_to(sent)))
    await first.wait()
    connection.transport.closing = True
    task.cancel()
    await task
    assert made.upstream.opened[0].closes
    assert 1 <= await spent(made) <= 10
    assert await metric(made, 'guard_requests_total{outcome="aborted",route="chat"}') == 1


async def test_a_client_that_leaves_before_the_first_event_is_recorded_all_the_same(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*WHOLE)

    async def send(message: Message) -> None:
        del message
        raise asyncio.CancelledError

    connection = Connection()
    connection.transport.closing = True
    await made.app(scope(connection), receive(asked()), send)
    assert made.upstream.opened[0].closes
    assert made.app.in_flight == 0
    assert await metric(made, 'guard_requests_total{outcome="aborted",route="chat"}') == 1


async def test_a_shutdown_ends_a_stream_in_words(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    sent: list[Message] = []
    first = asyncio.Event()

    async def wait() -> None:
        if made.upstream.opened[0].reads:
            first.set()
            await asyncio.Event().wait()

    made.upstream.stream = lambda _: ScriptedStream([chunk("Hel")], headers=SSE, wait=wait)
    task = asyncio.create_task(made.app(scope(Connection()), receive(asked()), sent_to(sent)))
    await first.wait()
    task.cancel()
    await task
    body = b"".join(m.get("body", b"") for m in sent)
    assert text_of(body) == "Hel"
    assert "shutting down" in documents(body)[-1]["error"]["message"]
    assert not sent[-1].get("more_body", False)


async def test_a_model_that_breaks_off_ends_the_stream_with_an_error(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(chunk("Hel"), error=UpstreamError("it broke off", code="upstream_broken"))
    got = await ask(made)
    assert got.status == 200
    assert text_of(got.body) == "Hel"
    assert documents(got.body)[-1]["error"]["message"] == "it broke off"
    assert await metric(made, 'guard_requests_total{outcome="upstream_broken",route="chat"}') == 1


@pytest.mark.parametrize(
    "bad", [b"data: {]\n\n", b"data: [1]\n\n", b"data: " + b"x" * 2000 + b"\n\n", event({"error": {"message": "sk-1"}})]
)
async def test_an_event_that_cannot_be_let_out_ends_the_stream(bad: bytes, tmp_path: Path) -> None:
    made = guarded(tmp_path, limits="event_bytes: 1024")
    made.upstream.stream = scripted(chunk("Hel"), bad, chunk("never"), *WHOLE)
    got = await ask(made)
    assert text_of(got.body) == "Hel"
    assert "error" in documents(got.body)[-1]
    assert b"sk-1" not in got.body
    assert made.upstream.opened[0].closes


async def test_more_tokens_than_were_charged_end_the_stream(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*[chunk(f"{i},") for i in range(50)], *WHOLE)
    got = await ask(made, asked(max_tokens=10))
    assert text_of(got.body).count(",") <= 12
    assert "error" in documents(got.body)[-1]


async def test_more_choices_than_were_charged_end_the_stream(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(chunk("a"), chunk("b", index=1), *WHOLE)
    got = await ask(made)
    assert text_of(got.body) == "a"


async def test_a_stream_has_a_time_to_end(tmp_path: Path) -> None:
    made = guarded(tmp_path, limits="stream_s: 0.001")

    async def wait() -> None:
        await asyncio.sleep(0.002)

    made.upstream.stream = lambda _: ScriptedStream([chunk("x")] * 10_000, headers=SSE, wait=wait)
    got = await ask(made)
    assert "error" in documents(got.body)[-1]
    assert made.upstream.opened[0].reads < 10_000


async def test_a_whole_answer_to_a_request_for_events_is_released_whole(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    message = {"role": "assistant", "content": "Hello"}
    document = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    made.upstream.answer = lambda _: Reply(200, [(b"content-type", b"application/json")], json.dumps(document).encode())
    got = await ask(made)
    assert json.loads(got.body)["choices"][0]["message"]["content"] == "Hello"


async def test_events_that_nobody_asked_for_are_withheld(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.answer = lambda _: Reply(200, SSE, b"".join(WHOLE))
    got = await ask(made, asked(stream=False))
    assert got.status == 502
    assert b"Hel" not in got.body


async def test_compressed_events_are_withheld(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = lambda _: ScriptedStream([b"\x1f\x8b"], headers=[*SSE, (b"content-encoding", b"gzip")])
    assert (await ask(made)).status == 502
    assert made.upstream.opened[0].closes


async def test_a_models_refusal_of_a_stream_is_a_clean_error(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.answer = lambda _: Reply(400, [], b'{"error": "a traceback with hi in it"}')
    got = await ask(made)
    assert got.status == 400
    assert b"traceback" not in got.body
    assert "error" in json.loads(got.body)


@pytest.mark.parametrize("pieces", [WHOLE, (b"data: {]\n\n", *WHOLE), (b"".join(WHOLE)[:77], b"".join(WHOLE)[77:])])
async def test_shadow_changes_no_byte_of_a_stream(pieces: tuple[bytes, ...], tmp_path: Path) -> None:
    made = guarded(tmp_path, mode="shadow")
    made.upstream.stream = scripted(*pieces)
    got = await ask(made, asked(top_logprobs=20, logprobs=True, logit_bias={"5": 1}, junk=1))
    assert got.body == b"".join(pieces)
    assert got.headers["x-secret"] == "1"
    assert made.upstream.seen[0].body == asked(top_logprobs=20, logprobs=True, logit_bias={"5": 1}, junk=1)


async def test_shadow_counts_what_it_lets_through(tmp_path: Path) -> None:
    made = guarded(tmp_path, mode="shadow")
    made.upstream.stream = scripted(*WHOLE)
    await ask(made)
    assert 2 <= await spent(made) <= 10


async def test_shadow_streams_what_no_route_opens(tmp_path: Path) -> None:
    made = guarded(tmp_path, mode="shadow")
    made.upstream.stream = scripted(*WHOLE)
    got = await made.ask("POST", "/v1/unheard-of", b"{}")
    assert got.body == b"".join(WHOLE)


async def test_no_more_is_read_than_the_client_has_taken(tmp_path: Path) -> None:
    made = guarded(tmp_path)
    made.upstream.stream = scripted(*[chunk("x")] * 20, *WHOLE)
    taken = 0
    reads: list[tuple[int, int]] = []

    async def send(message: Message) -> None:
        nonlocal taken
        await asyncio.sleep(0)
        if message.get("more_body"):
            taken += 1
            reads.append((made.upstream.opened[0].reads, taken))

    await made.app(scope(Connection()), receive(asked()), send)
    assert reads
    assert all(read == sent for read, sent in reads)


CANARY = "my locker code is 794772"


def preset(folder: Path) -> Guarded:
    """Guard under preset `llm`, which is told of a canary."""
    document = yaml.safe_load((Path(__file__).parents[3] / "policies" / "llm.yaml").read_text())
    document["routes"][0]["defences"] = [{"kind": "secrets", "canaries": {"env": "CANARIES"}}]
    return Guarded(yaml.safe_dump(document), folder, api="openai", env={"CANARIES": CANARY})


@pytest.mark.parametrize("asks", ["what is it?", "my locker code is", "my locker code is 79477"])
async def test_under_llm_a_canary_does_not_leave_wherever_chunks_are_cut(asks: str, tmp_path: Path) -> None:
    made = preset(tmp_path)
    said = CANARY.removeprefix(asks) if asks in CANARY else f"Well, {CANARY}, as you know."
    body = asked(messages=[{"role": "user", "content": asks}])
    for cut in range(len(said) + 1):
        made.upstream.stream = scripted(chunk(said[:cut]), chunk(said[cut:]), *WHOLE[2:])
        got = text_of((await ask(made, body)).body)
        assert "794772" not in asks + got
        assert "[redacted]" in got


async def test_under_llm_a_canary_does_not_leave_wherever_bytes_are_cut(tmp_path: Path) -> None:
    made = preset(tmp_path)
    stream = b"".join([chunk("Well, my locker"), chunk(" code is 79"), chunk("4772."), *WHOLE[2:]])
    answers: set[str] = set()
    for cut in range(len(stream) + 1):
        made.upstream.stream = scripted(*[part for part in (stream[:cut], stream[cut:]) if part])
        answers.add(text_of((await ask(made)).body))
    assert answers == {"Well, [redacted]."}


async def test_under_llm_a_whole_answer_holds_no_canary(tmp_path: Path) -> None:
    made = preset(tmp_path)
    message = {"role": "assistant", "content": f"Well, {CANARY}."}
    document = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    made.upstream.answer = lambda _: Reply(200, [], json.dumps(document).encode())
    got = json.loads((await ask(made, asked(stream=False))).body)
    assert got["choices"][0]["message"]["content"] == "Well, [redacted]."
    assert await metric(made, 'guard_redactions_total{mode="enforce",route="text"}') == 1


class Transport:
    closing = False

    def is_closing(self) -> bool:
        return self.closing


class Connection:
    """What Guard sees of uvicorn's connection."""

    certificate = None
    stalled_s = None
    request_task: object = None

    def __init__(self) -> None:
        self.transport = Transport()


def scope(connection: Connection) -> Message:
    return {
        "type": "http",
        "method": "POST",
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 40000),
        "http_version": "1.1",
        "guard.connection": connection,
    }


def receive(body: bytes) -> Any:  # Any: ASGI
    async def once() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def sent_to(sent: list[Message]) -> Any:  # Any: ASGI
    async def send(message: Message) -> None:
        sent.append(message)

    return send
