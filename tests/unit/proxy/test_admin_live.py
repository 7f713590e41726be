"""What the console shows, of a Guard without sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette

from guard.budgets import Rows
from guard.errors import StateError
from guard.model.client import Client
from guard.model.exchange import Reply
from guard.model.ledger import Charge, Spend
from guard.ports import Headers
from guard.proxy.admin import admin_app
from guard.proxy.admin_budgets import AT_ONCE, KEPT, BudgetReadings, Reading
from guard.proxy.admin_console import CSP, FILES
from guard.proxy.admin_live import Live
from guard.proxy.clients import CROWD
from guard.state.memory import MemoryState
from tests.support.asgi import AsgiReply, ask
from tests.support.fakes import Guarded, Seen

SIZE = 4
POLICY = """version: 1
name: bank
identity: [{kind: api_key, keys_file: KEYS}]
routes:
  - name: fraud
    api: open_inference
    match: {path: /v2/models/fraud/infer}
    inputs: {kind: vector, size: 4, low: -9, high: 9}
    detectors: default
    ladder: [{tier: structure, false_alarm: 1.0e-2, action: deny, hold: 1h}]
    budgets:
      - {kind: rows, limit: 1000, window: 24h}
      - {kind: rows, per: group, limit: 5000, mode: shadow}
      - {kind: rows, per: model, limit: 100000}
  - name: free
    api: open_inference
    match: {path: /v2/models/free/infer}
    mode: shadow
    budgets: [{kind: information}]
"""
NAMES = ("thief", "alice", "bob")
Json = Any  # Any: JSON


def scores(seen: Seen) -> Reply:
    rows = json.loads(seen.body)["inputs"][0]["shape"][0]
    tensor = {"name": "p", "shape": [rows, 2], "datatype": "FP64", "data": [0.25, 0.75] * rows}
    return Reply(200, [(b"content-type", b"application/json")], json.dumps({"outputs": [tensor]}).encode())


class Bench:
    """Guard, its console, and who asks."""

    def __init__(self, folder: Path, policy: str = POLICY, state: MemoryState | None = None) -> None:
        keys = folder / "keys"
        keys.write_text("\n".join(f"{name}@acme:{hashlib.sha256(name.encode()).hexdigest()}" for name in NAMES) + "\n")
        keys.chmod(0o600)
        self.guarded = Guarded(policy.replace("KEYS", str(keys)), folder, state=state)
        self.guarded.upstream.answer = scores
        self.handler = self.guarded.handler
        self.handler.watching.adopt(self.guarded.plans.current.plan)
        self.live = Live(self.guarded.plans, self.handler, folder / "report.json")
        self.checks = {"policy": "", "state": "", "upstream": ""}
        self.asked = 0

    async def check(self) -> dict[str, str]:
        self.asked += 1
        return self.checks

    async def document(self) -> Json:
        self.guarded.clock.monotonic += 2.0
        return json.loads(await self.live.document(self.check))

    async def ask(self, name: str, rows: np.ndarray[Any, Any], route: str = "fraud") -> int:  # Any: numpy's shape
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        headers: Headers = [(b"x-api-key", name.encode()), (b"content-type", b"application/json")]
        body = json.dumps({"inputs": [tensor]}).encode()
        return (await self.guarded.ask("POST", f"/v2/models/{route}/infer", body, headers)).status

    async def steal(self) -> None:
        at = np.repeat(np.ones((1, SIZE)), 256, axis=0)
        at[np.arange(256), np.arange(256) % SIZE] += 0.01 * (1 + np.arange(256) // SIZE)
        for part in np.split(at, 16):
            await self.ask("thief", part)

    def of(self, name: str) -> str:
        return self.handler.pseudonyms.of(name)

    def app(self, token: str | None = None) -> Starlette:
        guarded = self.guarded

        async def ready() -> bool:
            return True

        return admin_app(
            guarded.plans,
            guarded.metrics,
            guarded.state,
            ready,
            self.handler.clients,
            token=token,
            evidence=self.handler.watching.of_client,
            pseudonym=self.of,
            live=self.live,
            wall_s=guarded.clock.wall_s,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def honest(seed: int, rows: int = 3) -> np.ndarray[Any, Any]:  # Any: numpy's shape
    return np.clip(np.random.default_rng(seed).normal(size=(rows, SIZE)), -9, 9)


async def test_a_thief_is_shown_first_under_a_pseudonym_with_what_spoke(bench: Bench) -> None:
    await bench.ask("alice", honest(1))
    await bench.steal()
    evidence = (await bench.document())["evidence"]
    first = evidence["top"][0]
    assert (first["client"], first["group"], first["action"]) == (bench.of("thief"), bench.of("acme"), "deny")
    assert first["until_s"] == pytest.approx(bench.guarded.clock.wall + 3600, abs=1)
    assert first["log10_e"]["structure"] > 2
    assert first["spoke"][0]["tier"] == "structure"
    assert evidence["standing"] == {"alert": 0, "degrade": 0, "throttle": 0, "deny": 1}
    assert evidence["watched"] == 2
    text = await bench.live.document(bench.check)
    assert not any(name.encode() in text for name in ("thief", "alice", "acme"))


async def test_routes_are_shown_with_their_mode_their_ladder_and_what_they_lack(bench: Bench) -> None:
    await bench.steal()
    fraud, free = (await bench.document())["routes"]
    assert (fraud["name"], fraud["mode"], fraud["ladder"], fraud["profile"]) == ("fraud", "enforce", {"deny": 1}, None)
    assert (free["mode"], free["detection"], free["steps"], free["ladder"]) == ("shadow", False, [], {})
    assert (await bench.document())["policy"]["shadow"] == ["free"]


async def test_budgets_are_shown_lowest_first_for_everybody_groups_and_clients(bench: Bench) -> None:
    for name, requests in (("alice", 2), ("bob", 6)):
        for seed in range(requests):
            assert await bench.ask(name, honest(seed, 10)) == 200
    await bench.ask("bob", honest(9), "free")
    budgets = (await bench.document())["budgets"]
    told = [(b["per"], b["of"], b["route"], b["answers_left"], b["shadow"]) for b in budgets["lowest"]]
    assert told == [
        ("model", "", "fraud", 99_920, False),
        ("group", bench.of("acme"), "fraud", 4_920, True),
        ("client", bench.of("bob"), "fraud", 940, False),
        ("client", bench.of("alice"), "fraud", 980, False),
        ("client", bench.of("bob"), "free", None, True),
    ]
    assert (budgets["clients"], budgets["due"]) == (2, 0)
    assert budgets["lowest"][2]["ends_s"] % 86400 == 0


async def test_a_counter_whose_window_has_passed_is_not_shown(bench: Bench) -> None:
    await bench.ask("alice", honest(1))
    assert any(b["per"] == "client" for b in (await bench.document())["budgets"]["lowest"])
    bench.guarded.clock.wall += 86400
    assert not any(b["per"] == "client" for b in (await bench.document())["budgets"]["lowest"])


async def test_a_client_is_read_again_only_when_it_has_asked(tmp_path: Path) -> None:
    state = CountingState()
    bench = Bench(tmp_path, state=state)
    await bench.ask("alice", honest(1))
    bench.guarded.clock.wall += 1
    await bench.document()
    assert state.read == 3
    await bench.document()
    assert state.read == 3
    bench.guarded.clock.wall += 1
    await bench.ask("alice", honest(2))
    await bench.document()
    assert state.read == 6


async def test_a_crowd_of_clients_is_read_in_turns(tmp_path: Path) -> None:
    state = CountingState()
    bench = Bench(tmp_path, state=state)
    plan, readings = bench.guarded.plans.current.plan, readings_of(bench)
    for number in range(600):
        bench.handler.clients.seen(client(number), "fraud", 1, 100.0)
    found = await readings.look(plan, 101.0)
    # A client's own counter, and its group's and everybody's, which all share.
    assert (state.read, found["due"], found["clients"]) == (AT_ONCE, 600 - (AT_ONCE - 2), 600)
    for turn in range(5):
        found = await readings.look(plan, 102.0 + turn)
    assert found["due"] == 0


async def test_what_is_known_of_budgets_is_bounded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    plan, readings = bench.guarded.plans.current.plan, readings_of(bench)
    counters: list[int] = []
    for number in range(KEPT + 500):
        bench.handler.clients.seen(client(number), "fraud", 1, 100.0 + number)
        if number % 120 == 119:
            counters.append((await readings.look(plan, 100.5 + number))["counters"])
    assert max(counters) == counters[-1] == KEPT


async def test_another_policy_begins_with_nothing_known(bench: Bench) -> None:
    await bench.ask("alice", honest(1))
    before = (await bench.document())["budgets"]["lowest"]
    policy = next(path for path in bench.guarded.plans.current.files if path.suffix == ".yaml")
    policy.write_text(policy.read_text().replace("limit: 1000", "limit: 10"))
    await bench.guarded.plans.reload()
    after = (await bench.document())["budgets"]["lowest"]
    assert [b["answers"] for b in before if b["per"] == "client"] == [1000]
    assert [b["answers"] for b in after if b["per"] == "client"] == [10]


@pytest.mark.parametrize(
    ("limit", "closed", "left"),
    [
        (None, False, 1.0),
        (None, True, 0.0),
        (100, False, 0.6),
        (100, True, 0.0),
        (30, False, 0.0),
        (0, False, 0.0),
        (-5, False, 0.0),
    ],
)
def test_what_is_left_of_a_counter(limit: int | None, closed: bool, left: float) -> None:
    assert Reading(Rows(limit=100), "fraud", 40, limit, 0, closed).left == pytest.approx(left)


async def test_a_policy_without_budgets_says_so(tmp_path: Path) -> None:
    policy = POLICY.partition("    budgets:")[0]
    assert (await Bench(tmp_path, policy).document())["budgets"]["none"] is True


class CountingState(MemoryState):
    """Counts how often counters are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        self.read += 1
        return await super().spend(ledger, charge, now_s)


class LostState(MemoryState):
    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        raise StateError("the state is out of reach")


class HangingState(MemoryState):
    """Never says what was spent."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        self.waiting += 1
        await asyncio.Event().wait()
        raise AssertionError("it never returns")


def client(number: int) -> Client:
    return Client(f"c{number}", "acme", "api_key")


def readings_of(bench: Bench, patience_s: float = 5.0) -> BudgetReadings:
    h = bench.handler
    return BudgetReadings(h.state, h.clients, h.watching.meters, h.agreements, h.pseudonyms, patience_s)


async def test_a_state_that_is_lost_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, state=LostState())
    await bench.ask("alice", honest(1))
    budgets = (await bench.document())["budgets"]
    assert (budgets["state"], budgets["lowest"], budgets["due"]) == ("the state is out of reach", [], 1)


async def test_a_state_that_hangs_is_asked_once_and_keeps_no_page_waiting(tmp_path: Path) -> None:
    state = HangingState()
    bench = Bench(tmp_path, state=state)
    await bench.ask("alice", honest(1))
    plan, readings = bench.guarded.plans.current.plan, readings_of(bench, 0.001)
    for _ in range(2):
        assert (await readings.look(plan, 1.0))["state"] == "the state is slow"
    assert state.waiting == 1


async def test_traffic_has_rates_by_outcome_and_verdicts_of_the_last_minute(bench: Bench) -> None:
    take = bench.live.samples.take
    await take()
    for seed in range(4):
        await bench.ask("alice", honest(seed))
    await bench.ask("nobody", honest(1))
    bench.guarded.clock.monotonic += 2.0
    await take()
    document = await bench.document()
    traffic = document["traffic"]
    assert traffic["minute"] == {"answered": 4, "refused": 0, "bad": 1, "model": 0, "closed": 0, "left": 0}
    assert traffic["rates"]["answered"] == [pytest.approx(2.0, abs=0.1)]
    assert traffic["verdicts"]["allow"] == 4
    assert traffic["ages_s"] == [0.0]
    assert document["latency"]["added"]["n"] == 5


async def test_before_the_first_sample_there_is_a_page_too(bench: Bench) -> None:
    document = await bench.document()
    assert (document["traffic"]["ages_s"], document["latency"]["added"]["n"], document["recent"]) == ([], 0, [])
    assert document["selftest"] == {"problem": "report.json cannot be read: No such file or directory"}


async def test_decisions_come_newest_first_and_those_that_were_not_allowed_by_themselves(bench: Bench) -> None:
    await bench.ask("nobody", honest(1))
    for seed in range(60):
        await bench.ask("alice", honest(seed))
    document = await bench.document()
    assert len(document["recent"]) == 50
    assert {one["client"] for one in document["recent"]} == {bench.of("alice")}
    (refused,) = document["recent_other"]
    assert (refused["client"], refused["status"], refused["outcome"]) == (None, 401, "unknown_credential")


async def test_what_went_wrong_since_the_start_is_counted(bench: Bench) -> None:
    bench.guarded.metrics.state_error()
    bench.guarded.metrics.reload(False)
    document = await bench.document()
    assert (document["counters"]["state_errors"], document["counters"]["reloads_failed"]) == (1, 1)
    assert "crowd" not in document


async def test_one_address_that_sends_everything_is_told_without_its_name(bench: Bench) -> None:
    for _ in range(CROWD):
        bench.handler.clients.seen(Client("address:10.0.0.1", "address:10.0.0.1", "address"), "fraud", 1, 1.0)
    assert (await bench.document())["crowd"] == bench.of("address:10.0.0.1")


async def test_pages_that_ask_within_a_second_share_a_document(bench: Bench) -> None:
    found = await asyncio.gather(*[bench.live.document(bench.check) for _ in range(8)])
    assert (len(set(map(id, found))), bench.asked) == (1, 1)
    assert await bench.live.document(bench.check) is found[0]
    await bench.document()
    assert bench.asked == 2


async def test_a_page_that_leaves_takes_no_document_along(bench: Bench) -> None:
    first = asyncio.ensure_future(bench.live.document(bench.check))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(bench.live.document(bench.check))
    await asyncio.sleep(0)
    first.cancel()
    assert json.loads(await second)["policy"]["name"] == "bank"


async def test_not_ready_is_said_with_its_reason(bench: Bench) -> None:
    bench.checks["upstream"] = "the model answers 503"
    ready = (await bench.document())["ready"]
    assert (ready["ready"], ready["checks"]["upstream"]) == (False, "the model answers 503")


async def reply(bench: Bench, target: str, headers: Headers | None = None, token: str | None = None) -> AsgiReply:
    return await ask(bench.app(token), "GET", target, headers, host=b"localhost")


async def test_the_page_and_its_files_come_with_a_strict_policy(bench: Bench) -> None:
    for path in ("/", *(f"/console/{name}" for name in FILES)):
        found = await reply(bench, path)
        assert (found.status, found.headers["content-security-policy"]) == (200, CSP)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-store"
    assert "unsafe" not in CSP
    assert (await reply(bench, "/")).headers["content-type"].startswith("text/html")
    assert (await reply(bench, "/console/console.js")).headers["content-type"].startswith("text/javascript")


def test_no_file_of_the_page_runs_or_styles_inline_or_names_another_place() -> None:
    folder = Path(__file__).parents[3] / "guard" / "console"
    texts = {name: (folder / name).read_text() for name in ("index.html", *FILES)}
    page = texts["index.html"]
    assert page.count("<script") == page.count('<script type="module" src="console/') == 1
    for mark in ("style=", "<style", " onclick", " onload", "javascript:"):
        assert mark not in page
    for name, text in texts.items():
        for mark in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert mark not in text, name
        bare = text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in bare, name
        assert "https:" not in bare, name


async def test_files_need_no_token_and_figures_do(bench: Bench) -> None:
    for path in ("/", "/console/console.js"):
        assert (await reply(bench, path, token="t0ken")).status == 200
    for path in ("/live", "/live/policy", "/console", "/console/", "/console/../live", "/console/x.js", "/clients"):
        assert (await reply(bench, path, token="t0ken")).status == 401
    right: Headers = [(b"authorization", b"Bearer t0ken")]
    assert (await reply(bench, "/live", right, token="t0ken")).status == 200
    assert (await reply(bench, "/console/../live", right, token="t0ken")).status == 404


async def test_a_rebound_name_gets_not_even_the_page(bench: Bench) -> None:
    assert (await ask(bench.app(), "GET", "/", host=b"evil.example")).status == 403


async def test_the_policy_in_words_is_made_once_and_names_no_client(tmp_path: Path) -> None:
    excepted = "    exceptions: [{client: alice, until: 2099-01-31, reason: a scan}]\n  - name: free"
    bench = Bench(tmp_path, POLICY.replace("  - name: free", excepted))
    first = (await reply(bench, "/live/policy")).json()
    assert first["revision"] == (await bench.document())["policy"]["revision"]
    assert "alice" not in json.dumps(first)
    assert bench.of("alice") in first["routes"][0]["detection"]["exceptions"][0]
    assert await bench.live.policy() is await bench.live.policy()
    assert "alice" in (await reply(bench, "/policy")).body.decode()


async def test_the_clients_page_says_which_pseudonym_is_whose(bench: Bench) -> None:
    await bench.ask("alice", honest(1))
    (alice,) = (await reply(bench, "/clients")).json()["clients"]
    assert (alice["name"], alice["pseudonym"]) == ("alice", bench.of("alice"))


async def test_the_page_shares_the_checks_of_readiness(bench: Bench) -> None:
    app = bench.app()
    found = (await ask(app, "GET", "/live", host=b"localhost")).json()["ready"]
    assert found == {"ready": True, "checks": {"policy": "", "state": "", "upstream": ""}}


async def test_a_check_that_hangs_keeps_no_page_waiting(bench: Bench) -> None:
    guarded = bench.guarded

    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    ready: Callable[[], Any] = never  # Any: an awaitable
    app = admin_app(
        guarded.plans, guarded.metrics, guarded.state, ready, bench.handler.clients, token=None, live=bench.live
    )
    found = (await ask(app, "GET", "/live", host=b"localhost")).json()["ready"]
    assert found == {"ready": False, "checks": {"state": "not checked yet", "upstream": "not checked yet"}}
