"""Detection on the way of requests: what clients see, what operators see, and what lasts. Guard without sockets."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from guard.detectors.profile import encode
from guard.evidence.values import Strength
from guard.model.client import Client
from guard.model.exchange import Reply
from guard.state.memory import MemoryState
from tests.support.fakes import Answered, Guarded, Seen
from tests.support.simulated_profile import client, profile, softmax

if TYPE_CHECKING:
    from pathlib import Path

    from guard.model.arrays import Floats

D, K = 8, 3
PATH = "/v2/models/m/infer"
LADDER = """
    ladder:
      - {tier: structure, false_alarm: 1.0e-2, action: alert}
      - {tier: any, false_alarm: 1.0e-2, action: degrade, hold: 1h, defences: [{kind: label_only}]}
"""
DENY = """
    ladder:
      - {tier: structure, false_alarm: 1.0e-3, action: deny, hold: 1h}
"""
WEIGHTS = np.random.default_rng(3).normal(size=(D, K))


def policy(folder: Path, ladder: str, *, mode: str = "enforce", more: str = "") -> str:
    names = ("thief", "customer", "thief2", *(f"acme{i}" for i in range(40)))
    groups = {name: "@acme" for name in names if name.startswith("acme")}
    keys = [f"{n}{groups.get(n, '')}:{hashlib.sha256(n.encode()).hexdigest()}" for n in names]
    (folder / "keys").write_text("\n".join(keys) + "\n")
    return f"""version: 1
mode: {mode}
identity:
  - {{kind: api_key, header: x-api-key, keys_file: {folder / "keys"}}}
routes:
  - name: m
    api: open_inference
    inputs: {{kind: vector, size: {D}, low: -4, high: 4}}
    detectors: default
{ladder}{more}
"""


def model(seen: Seen) -> Reply:
    """Answer a softmax regression."""
    tensor = json.loads(seen.body)["inputs"][0]
    rows = np.asarray(tensor["data"], dtype=float).reshape(tensor["shape"])
    powers = np.exp(rows @ WEIGHTS)
    scores = powers / powers.sum(axis=1, keepdims=True)
    found = {"name": "p", "shape": list(scores.shape), "datatype": "FP64", "data": scores.ravel().tolist()}
    body = json.dumps({"model_name": "m", "outputs": [found]}).encode()
    return Reply(200, [(b"content-type", b"application/json")], body)


def guarded(folder: Path, ladder: str, **options: str) -> Guarded:
    made = Guarded(policy(folder, ladder, **options), folder)
    made.upstream.answer = model
    made.handler.watching.adopt(made.plans.current.plan)
    return made


async def ask(guard: Guarded, rows: Floats, key: str = "thief") -> Answered:
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    headers = [(b"x-api-key", key.encode()), (b"content-type", b"application/json")]
    return await guard.ask("POST", PATH, json.dumps({"inputs": [tensor]}).encode(), headers)


def scores(answer: Answered) -> Floats:
    tensor = json.loads(answer.body)["outputs"][0]
    return np.asarray(tensor["data"]).reshape(tensor["shape"])


def honest(rng: np.random.Generator, n: int) -> Floats:
    return np.clip(rng.normal(size=(n, D)), -4, 4)


def finite_differences(rng: np.random.Generator, n: int) -> Floats:
    """A point, and steps along one feature after the other from it: what an inversion asks."""
    rows = np.repeat(honest(rng, 1), n, axis=0)
    rows[np.arange(n), np.arange(n) % D] += 0.01 * (1 + np.arange(n) // D)
    return rows


def labels_only(answer: Answered) -> bool:
    return bool(np.isin(scores(answer), (0.0, 1.0)).all())


async def until_degraded(guard: Guarded, rows: Floats, key: str = "thief") -> int:
    for i, row in enumerate(rows):
        if labels_only(await ask(guard, row[None], key)):
            return i
    return -1


async def test_a_thief_is_degraded_silently_and_a_customer_is_not(tmp_path: Path) -> None:
    guard = guarded(tmp_path, LADDER)
    rng = np.random.default_rng(1)
    at = await until_degraded(guard, finite_differences(rng, 200))
    assert 0 < at <= 128
    for rows in np.split(honest(rng, 400), 100):
        assert not labels_only(await ask(guard, rows, "customer"))
    before, after = await ask(guard, honest(rng, 1), "customer"), await ask(guard, honest(rng, 1))
    assert (before.status, after.status) == (200, 200)
    assert before.headers.keys() == after.headers.keys()
    one, other = json.loads(before.body), json.loads(after.body)
    assert [(t["name"], t["shape"], t["datatype"]) for t in one["outputs"]] == [
        (t["name"], t["shape"], t["datatype"]) for t in other["outputs"]
    ]


async def test_the_label_stays_right_where_answers_are_degraded(tmp_path: Path) -> None:
    guard = guarded(tmp_path, LADDER)
    rng = np.random.default_rng(2)
    assert await until_degraded(guard, finite_differences(rng, 200)) > 0
    rows = honest(rng, 50)
    answer = await ask(guard, rows)
    assert (scores(answer).argmax(axis=1) == (rows @ WEIGHTS).argmax(axis=1)).all()
    assert labels_only(answer)


async def test_a_denied_client_gets_403_until_the_hold_has_passed(tmp_path: Path) -> None:
    guard = guarded(tmp_path, DENY)
    rng = np.random.default_rng(3)
    answers = [(await ask(guard, row[None])).status for row in finite_differences(rng, 300)]
    assert answers[0] == 200
    assert answers[-1] == 403
    asked = len(guard.upstream.seen)
    refused = await ask(guard, honest(rng, 1))
    assert refused.status == 403
    assert len(guard.upstream.seen) == asked, "the model was asked for a client that is denied"
    for word in ("structure", "near", "evidence", "1e-3", "0.001", "ladder", "detector"):
        assert word not in refused.body.decode()
    guard.clock.wall += 3700
    assert (await ask(guard, honest(rng, 1))).status == 200


async def test_standing_outlives_a_restart(tmp_path: Path) -> None:
    state = MemoryState()
    rng = np.random.default_rng(4)
    last: list[int] = []
    for _ in range(2):
        guard = Guarded(policy(tmp_path, DENY), tmp_path, state=state)
        guard.upstream.answer = model
        last = [(await ask(guard, row[None])).status for row in finite_differences(rng, 250)]
        await guard.handler.watching.sync()
    assert last[0] == 403


def strength(guard: Guarded, key: str = "thief") -> Strength:
    route = guard.plans.current.plan.routes[0]
    watched = guard.handler.watching.hot.at(route, Client(key, key, "api_key"))
    assert watched is not None
    return watched.tracker.strength()


async def test_evidence_outlives_a_restart(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    state = MemoryState()
    first, second = (Guarded(policy(tmp_path, LADDER), tmp_path, state=state) for _ in range(2))
    first.upstream.answer = second.upstream.answer = model
    for row in finite_differences(rng, 32):
        await ask(first, row[None])
    await first.handler.watching.sync()
    await ask(second, honest(rng, 1))
    assert strength(second) == strength(first)
    assert strength(second).structure > 1
    assert labels_only(await ask(second, honest(rng, 1))), "standing is known, too"


async def test_in_shadow_nothing_changes_and_everything_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = guarded(tmp_path, LADDER + DENY.split("ladder:\n")[1], mode="shadow")
    rng = np.random.default_rng(6)
    with caplog.at_level(logging.WARNING, "guard.audit"):
        for row in finite_differences(rng, 300):
            answer = await ask(guard, row[None])
            assert answer.status == 200
            assert not labels_only(answer)
    events = [json.loads(record.message) for record in caplog.records if record.name == "guard.audit"]
    assert {event["action"] for event in events} == {"alert", "degrade", "deny"}
    text = b"".join([piece async for piece in guard.metrics.expose()]).decode()
    assert 'guard_verdicts_total{action="deny",mode="shadow",route="m"}' in text


async def test_events_say_which_detectors_spoke_and_never_who_in_clear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = guarded(tmp_path, LADDER)
    with caplog.at_level(logging.WARNING, "guard.audit"):
        assert await until_degraded(guard, finite_differences(np.random.default_rng(7), 200)) > 0
    events = [json.loads(record.message) for record in caplog.records if record.name == "guard.audit"]
    entered = [event for event in events if event["event"] == "ladder"]
    assert [event["action"] for event in entered].count("degrade") == 1
    degraded = next(event for event in entered if event["action"] == "degrade")
    assert "near_duplicates" in degraded["spoke"]
    assert degraded["log10_e"] >= 2
    assert "thief" not in json.dumps(events)
    text = b"".join([piece async for piece in guard.metrics.expose()]).decode()
    assert 'guard_detections_total{detector="near_duplicates",route="m"}' in text
    assert 'guard_ladder_clients{action="degrade",route="m"} 1' in text
    assert "thief" not in text


async def test_an_excepted_client_is_left_alone_until_its_day(tmp_path: Path) -> None:
    skip = "skip: [repeats, one_feature_varied, near_duplicates, line_walk]"
    more = f"    exceptions: [{{client: thief, {skip}, until: 2027-01-20, reason: SEC-1}}]\n"
    guard = guarded(tmp_path, LADDER, more=more)
    rng = np.random.default_rng(8)
    assert await until_degraded(guard, finite_differences(rng, 300)) == -1
    assert await until_degraded(guard, finite_differences(rng, 300), "thief2") > 0
    guard.clock.wall += 10 * 86400  # 2027-01-25
    assert await until_degraded(guard, finite_differences(rng, 300)) > 0 or labels_only(
        await ask(guard, honest(rng, 1))
    )


async def test_a_large_batch_is_folded_like_single_rows(tmp_path: Path) -> None:
    guard = guarded(tmp_path, LADDER)
    rng = np.random.default_rng(9)
    await ask(guard, finite_differences(rng, 300))
    assert labels_only(await ask(guard, honest(rng, 1)))


async def test_a_throttled_client_is_told_when_to_come_back(tmp_path: Path) -> None:
    ladder = "    ladder: [{tier: structure, false_alarm: 1.0e-2, action: throttle, rows_per_minute: 10}]\n"
    guard = guarded(tmp_path, ladder)
    rng = np.random.default_rng(10)
    statuses = [(await ask(guard, row[None])).status for row in finite_differences(rng, 200)]
    assert statuses[0] == 200
    refused = await ask(guard, honest(rng, 1))
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert {(await ask(guard, honest(rng, 1), "customer")).status for _ in range(30)} == {200}


async def test_partial_queries_are_offences(tmp_path: Path) -> None:
    ladder = "    ladder: [{tier: protocol, count: 20, action: deny, hold: 1h}]\n"
    guard = guarded(tmp_path, ladder)
    rng = np.random.default_rng(11)
    assert (await ask(guard, honest(rng, 1))).status == 200
    for _ in range(20):
        assert (await ask(guard, np.full((1, D), 99.0))).status == 422
    assert (await ask(guard, honest(rng, 1))).status == 403
    assert (await ask(guard, honest(rng, 1), "customer")).status == 200


async def test_a_bare_address_is_degraded_where_others_are_denied(tmp_path: Path) -> None:
    text = "\n".join(
        line for line in policy(tmp_path, DENY).splitlines() if "identity" not in line and "keys_file" not in line
    )
    guard = Guarded(text + "\n", tmp_path)
    guard.upstream.answer = model
    answers = [await ask(guard, row[None]) for row in finite_differences(np.random.default_rng(12), 300)]
    assert {answer.status for answer in answers} == {200}
    assert labels_only(answers[-1])


def with_meter(folder: Path, meter: str, state: MemoryState | None = None) -> Guarded:
    """A route with a profile whose information budget has a meter."""
    (folder / "m.profile.json").write_bytes(encode(profile(16, 5)))
    names = ("thief", "customer")
    (folder / "keys").write_text("".join(f"{n}:{hashlib.sha256(n.encode()).hexdigest()}\n" for n in names))
    text = f"""version: 1
identity: [{{kind: api_key, header: x-api-key, keys_file: {folder / "keys"}}}]
routes:
  - name: m
    api: open_inference
    profile: m.profile.json
    ladder: [{{false_alarm: 1.0e-9, action: alert}}]
    budgets: [{{kind: information, per: client, graded_answers: 5000, meter: {meter}, then: label_only}}]
"""
    made = Guarded(text, folder, state=state)
    made.handler.watching.adopt(made.plans.current.plan)

    def answer(seen: Seen) -> Reply:
        tensor = json.loads(seen.body)["inputs"][0]
        found = softmax(np.asarray(tensor["data"], dtype=float).reshape(tensor["shape"]), 5)
        out = {"name": "p", "shape": list(found.shape), "datatype": "FP64", "data": found.ravel().tolist()}
        body = json.dumps({"model_name": "m", "outputs": [out]}).encode()
        return Reply(200, [(b"content-type", b"application/json")], body)

    made.upstream.answer = answer
    return made


@pytest.mark.lab
async def test_a_meter_closes_the_budget_of_who_learns_too_much_and_of_nobody_else(tmp_path: Path) -> None:
    guard = with_meter(tmp_path, "0.95")
    rows = client(np.random.default_rng(1), 16, 600)
    closed = await until_degraded(guard, rows)
    assert 8 < closed < 400
    assert labels_only(await ask(guard, rows[:1])), "a repeat is free, and is not graded either"
    assert not labels_only(await ask(guard, rows[:1], "customer"))
    text = b"".join([piece async for piece in guard.metrics.expose()]).decode()
    assert 'guard_information_meter_count{route="m"} 1' in text
    assert 'guard_budget_remaining_ratio{budget="information/client",route="m"} 0' in text


@pytest.mark.lab
async def test_a_reading_outlives_a_restart(tmp_path: Path) -> None:
    state = MemoryState()
    rows = client(np.random.default_rng(1), 16, 600)
    first = with_meter(tmp_path, "0.95", state)
    assert await until_degraded(first, rows) > 0
    await first.handler.watching.sync()
    assert labels_only(await ask(with_meter(tmp_path, "0.95", state), rows[-1:]))


async def test_the_policy_says_how_many_clients_are_watched_at_once(tmp_path: Path) -> None:
    guard = guarded(tmp_path, LADDER)
    assert (guard.handler.watching.hot.limit, guard.handler.watching.meters.limit) == (2048, 4096)
    few = Guarded("limits: {watched_clients: 64}\n" + policy(tmp_path, LADDER), tmp_path)
    guard.handler.watching.adopt(few.plans.current.plan)
    assert (guard.handler.watching.hot.limit, guard.handler.watching.meters.limit) == (64, 128)
