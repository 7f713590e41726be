from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from guard.errors import StateError, UpstreamError
from guard.model.client import Client
from guard.model.ledger import Charge, Receipt, Spend
from guard.ports import Headers
from guard.proxy.admin import admin_app
from guard.proxy.admin_access import Access
from guard.proxy.clients import CROWD, RecentClients
from guard.proxy.load import load_active
from guard.proxy.plans import Plans
from guard.state.memory import MemoryState
from guard.telemetry.metrics import Metrics
from tests.support.asgi import AsgiReply, ask

NOW = 1_800_000_000.0
POLICY = """version: 1
name: digits
identity: [{kind: api_key, keys_file: KEYS}]
upstream_headers: [{name: x-upstream, value: {file: SECRET}}]
routes:
  - name: digits
    api: open_inference
    inputs: {kind: vector, size: 3, low: 0, high: 1, step: 0.1}
    defences: [{kind: round, decimals: 2}, {kind: top_k, k: 3, mode: shadow}]
    budgets:
      - {kind: rows, limit: 10, window: 24h}
      - {kind: rows, per: group, limit: 100, mode: shadow}
      - {kind: information, per: group}
  - name: iris
    api: open_inference
    match: {path: "/v2/models/iris/infer"}
    fields: all
    budgets: [{kind: information}]
"""
SECRET = "upstream-s3cret"
ALICE = Client("alice", "acme", "api_key")


class LostState(MemoryState):
    """A state that is out of reach."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def spend(self, ledger: str, charge: Charge, now_s: float) -> Spend:
        self.asked += 1
        raise StateError("the state is out of reach")

    async def ping(self) -> None:
        raise StateError("the state is out of reach")


class SlowState(MemoryState):
    """A state that never answers."""

    async def ping(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Bench:
    """An admin application, and everything that it shows."""

    folder: Path
    state: MemoryState = field(default_factory=MemoryState)
    upstream: bool | str | Exception = True
    asked: int = 0
    clients: RecentClients = field(default_factory=RecentClients)
    metrics: Metrics = field(default_factory=Metrics)
    token: str | None = None
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        keys, secret, self.file = (self.folder / name for name in ("keys", "secret", "policy.yaml"))
        keys.write_text(f"alice@acme:{'ab' * 32}\n")
        keys.chmod(0o644)
        secret.write_text(SECRET)
        self.file.write_text(POLICY.replace("KEYS", str(keys)).replace("SECRET", str(secret)))
        self.plans = Plans(lambda: load_active(self.file, api=None, env={}), lambda _ok, _message: None)

    async def ready(self) -> bool | str:
        self.asked += 1
        await asyncio.sleep(0)
        if isinstance(self.upstream, Exception):
            raise self.upstream
        return self.upstream

    def app(self) -> Starlette:
        return admin_app(
            self.plans,
            self.metrics,
            self.state,
            self.ready,
            self.clients,
            token=self.token,
            hosts=self.hosts,
            wall_s=lambda: NOW,
            check_timeout_s=0.05,
        )

    async def ask(
        self, method: str, target: str, headers: Headers | None = None, host: bytes | None = b"localhost"
    ) -> AsgiReply:
        return await ask(self.app(), method, target, headers, host=host)

    async def charge(self, *charges: Charge, ledger: str = "digits") -> Receipt:
        return await self.state.charge(ledger, charges, NOW)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class TestHealth:
    async def test_health_needs_nothing(self, bench: Bench) -> None:
        bench.state, bench.upstream = LostState(), False
        assert (await bench.ask("GET", "/healthz")).status == 200

    async def test_ready_when_everything_answers(self, bench: Bench) -> None:
        found = await bench.ask("GET", "/readyz")
        assert (found.status, found.json()["ready"]) == (200, True)
        assert found.json()["checks"] == {"policy": {"ok": True}, "state": {"ok": True}, "upstream": {"ok": True}}

    @pytest.mark.parametrize(
        ("upstream", "why"),
        [
            (False, "the model is not ready"),
            ("", "the model is not ready"),
            ("the model answers 503", "the model answers 503"),
            (UpstreamError("the model is out of reach"), "the model is out of reach"),
            (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
            (OSError(), "out of reach"),
        ],
    )
    async def test_not_ready_when_the_model_is_not(
        self, bench: Bench, upstream: bool | str | Exception, why: str
    ) -> None:
        bench.upstream = upstream
        found = await bench.ask("GET", "/readyz")
        assert (found.status, found.json()["ready"]) == (503, False)
        assert found.json()["checks"]["upstream"] == {"ok": False, "why": why}
        assert found.json()["checks"]["state"] == {"ok": True}

    @pytest.mark.parametrize(
        ("state", "why"), [(LostState, "the state is out of reach"), (SlowState, "no answer in time")]
    )
    async def test_not_ready_when_the_state_is_lost_or_slow(
        self, bench: Bench, state: type[MemoryState], why: str
    ) -> None:
        bench.state = state()
        found = await bench.ask("GET", "/readyz")
        assert found.status == 503
        assert found.json()["checks"]["state"] == {"ok": False, "why": why}

    async def test_many_who_ask_at_once_share_one_round_of_checks(self, bench: Bench) -> None:
        app = bench.app()
        found = await asyncio.gather(*[ask(app, "GET", "/readyz") for _ in range(10)])
        assert ({reply.status for reply in found}, bench.asked) == ({200}, 1)
        await ask(app, "GET", "/readyz")
        assert bench.asked == 2


class TestMetrics:
    async def test_metrics_come_in_pieces(self, bench: Bench) -> None:
        bench.metrics.route("digits").request("ok")
        found = await bench.ask("GET", "/metrics")
        assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert b'guard_requests_total{outcome="ok",route="digits"} 1.0\n' in found.body
        assert len(found.pieces) > 10


class TestPolicy:
    async def test_the_policy_in_force_in_words(self, bench: Bench) -> None:
        found = (await bench.ask("GET", "/policy")).json()
        plan = bench.plans.current.plan
        assert (found["name"], found["digest"], found["mode"]) == ("digits", plan.digest, "enforce")
        assert found["identity"][0].startswith("api_key: keys_file ")
        assert found["identity"][1] == "address"
        digits, iris = found["routes"]
        assert digits["steps"] == [
            "read open_inference",
            "inspect vector: size 3, low 0.0, high 1.0, step 0.1",
            "admit rows: window 86400, limit 10",
            "admit rows: per group, limit 100, only counted",
            "admit information: per group",
            "let out what the API defines and probabilities",
            "release round: decimals 2",
            "release top_k: k 3, only counted",
        ]
        assert "let out every member and probabilities" in iris["steps"]
        assert any(line.startswith("POST ") for line in digits["endpoints"])

    async def test_no_secret_is_printed(self, bench: Bench) -> None:
        found = await bench.ask("GET", "/policy")
        assert SECRET.encode() not in found.body
        assert b"abababab" not in found.body

    async def test_warnings_are_shown(self, bench: Bench) -> None:
        warnings = (await bench.ask("GET", "/policy")).json()["warnings"]
        assert any("can be read by others" in warning for warning in warnings)

    async def test_an_address_source_and_odd_values_in_words(self, bench: Bench) -> None:
        text = bench.file.read_text().replace(
            "}]\nup", "}, {kind: address, trusted_proxies: [10.0.0.0/8, '::1/128']}]\nup"
        )
        bench.file.write_text(text.replace("KEYS}", "KEYS, forward: true}").replace("{kind: round, decimals: 2}, ", ""))
        await bench.plans.reload()
        found = (await bench.ask("GET", "/policy")).json()
        assert found["identity"][1:] == ["address: trusted_proxies 10.0.0.0/8 ::1/128"]


class TestReload:
    async def test_a_sound_policy_is_200(self, bench: Bench) -> None:
        bench.file.write_text(bench.file.read_text().replace("name: digits", "name: second", 1))
        found = await bench.ask("POST", "/reload")
        assert (found.status, found.json()["name"]) == (200, "second")
        assert found.json()["digest"] == bench.plans.current.plan.digest

    async def test_a_bad_policy_is_409_with_its_problems(self, bench: Bench) -> None:
        bench.file.write_text(bench.file.read_text().replace("decimals: 2", "decimal: 2"))
        found = await bench.ask("POST", "/reload")
        assert (found.status, found.json()["ok"]) == (409, False)
        assert any("decimal" in problem for problem in found.json()["problems"])
        assert bench.plans.current.plan.name == "digits"

    async def test_only_post_reloads(self, bench: Bench) -> None:
        before = bench.plans.current
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
            assert (await bench.ask(method, "/reload")).status == 405
        assert bench.plans.current is before

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"sec-fetch-site", b"cross-site")],
            [(b"sec-fetch-site", b"same-site")],
            [(b"origin", b"https://evil.example")],
            [(b"origin", b"null")],
            [(b"origin", b"http://localhost.evil.example")],
            [(b"origin", b"http://localhost"), (b"sec-fetch-site", b"cross-site")],
        ],
    )
    async def test_another_sites_page_cannot_reload(self, bench: Bench, headers: Headers) -> None:
        before = bench.plans.current
        found = await bench.ask("POST", "/reload", headers)
        assert (found.status, found.json()["code"]) == (403, "cross_site")
        assert bench.plans.current is before

    @pytest.mark.parametrize(
        "headers",
        [[(b"origin", b"http://LOCALHOST"), (b"sec-fetch-site", b"same-origin")], [(b"sec-fetch-site", b"none")]],
    )
    async def test_its_own_page_can(self, bench: Bench, headers: Headers) -> None:
        assert (await bench.ask("POST", "/reload", headers)).status == 200


class TestClients:
    async def test_clients_are_shown_with_what_their_budgets_have_left(self, bench: Bench) -> None:
        bench.clients.seen(ALICE, "digits", 3, NOW - 5)
        bench.clients.seen(ALICE, "gone", 1, NOW)
        await bench.charge(Charge("rows/client/86400s", "client:alice", 86400, 10, 4))
        await bench.charge(Charge("rows/group", "group:acme", 0, 100, 7), ledger="shadow:digits")
        await bench.charge(Charge("information/group", "group:acme", 0, 1, 1, "label_only", None, (bytes(16),)))
        found = (await bench.ask("GET", "/clients")).json()
        (alice,) = found["clients"]
        budgets = alice.pop("budgets")
        assert alice == {
            "name": "alice",
            "group": "acme",
            "source": "api_key",
            "last_seen": "2027-01-15T08:00:00+00:00",
            "requests": 2,
            "rows": 4,
            "routes": ["digits", "gone"],
            "evidence": [],
        }
        assert [(b["ledger"], b["budget"], b["spent"], b["limit"], b["left"]) for b in budgets] == [
            ("digits", "rows/client/86400s", 4, 10, 6),
            ("shadow:digits", "rows/group", 7, 100, 93),
            ("digits", "information/group", 1, 1, 0),
        ]
        assert found["known"] == 1

    async def test_a_limit_that_scales_with_an_undeclared_dimension_is_not_made_up(self, bench: Bench) -> None:
        bench.clients.seen(ALICE, "iris", 1, NOW)
        (budget,) = (await bench.ask("GET", "/clients")).json()["clients"][0]["budgets"]
        assert (budget["limit"], budget["left"], budget["spent"]) == (None, None, 0)

    async def test_an_overspent_budget_has_nothing_left(self, bench: Bench) -> None:
        bench.clients.seen(ALICE, "digits", 1, NOW)
        await bench.charge(Charge("rows/client/86400s", "client:alice", 86400, 50, 40))
        budgets = (await bench.ask("GET", "/clients")).json()["clients"][0]["budgets"]
        assert (budgets[0]["spent"], budgets[0]["left"]) == (40, 0)

    async def test_a_lost_state_is_asked_once_and_said(self, bench: Bench) -> None:
        bench.state = state = LostState()
        for name in ("a", "b", "c"):
            bench.clients.seen(Client(name, name, "api_key"), "digits", 1, NOW)
        found = (await bench.ask("GET", "/clients")).json()
        assert [client["budgets"] for client in found["clients"]] == [None] * 3
        assert (found["state"], state.asked) == ("the state is out of reach", 1)

    async def test_limit_bounds_the_list(self, bench: Bench) -> None:
        for n in range(5):
            bench.clients.seen(Client(f"c{n}", "g", "api_key"), "digits", 1, NOW)
        found = (await bench.ask("GET", "/clients?limit=2")).json()
        assert ([client["name"] for client in found["clients"]], found["known"]) == (["c4", "c3"], 5)

    @pytest.mark.parametrize("limit", ["0", "-1", "x", "1001", "", "9" * 5000, "%C2%B2"])
    async def test_a_limit_out_of_bounds_is_refused(self, bench: Bench, limit: str) -> None:
        assert (await bench.ask("GET", f"/clients?limit={limit}")).status == 400

    async def test_one_address_that_sends_everything_is_warned_about(self, bench: Bench) -> None:
        assert "warning" not in (await bench.ask("GET", "/clients")).json()
        for _ in range(CROWD):
            bench.clients.seen(Client("address:10.0.0.1", "address:10.0.0.1", "address"), "digits", 1, NOW)
        assert "trusted_proxies" in (await bench.ask("GET", "/clients")).json()["warning"]


PATHS = ("/metrics", "/policy", "/clients", "/readyz", "/healthz")


class TestAccess:
    @pytest.mark.parametrize("path", PATHS)
    async def test_answers_are_not_cached_sniffed_or_framed(self, bench: Bench, path: str) -> None:
        headers = (await bench.ask("GET", path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")

    async def test_refusals_and_missing_pages_have_the_same_headers(self, bench: Bench) -> None:
        for found in (await bench.ask("GET", "/none"), await bench.ask("GET", "/policy", host=b"evil.example")):
            assert (found.status in (403, 404), found.headers["x-content-type-options"]) == (True, "nosniff")

    @pytest.mark.parametrize(
        "host",
        [
            b"localhost",
            b"LOCALHOST:9001",
            b"127.0.0.1",
            b"127.0.0.1:9001",
            b"[::1]:9001",
            b"[::1]",
            b"10.1.2.3:9001",
            b"guard.svc",
        ],
    )
    async def test_its_own_hosts_are_served(self, bench: Bench, host: bytes) -> None:
        bench.hosts = ("Guard.svc",)
        assert (await bench.ask("GET", "/policy", host=host)).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            None,
            b"",
            b"evil.example",
            b"localhost.evil.example",
            b"127.0.0.1.evil.example",
            b"evil.example:9001",
            b"localhost:9001@evil.example",
            b"[evil]",
            b"localhost,evil.example",
            b"2130706433.example",
        ],
    )
    async def test_a_rebound_name_is_refused(self, bench: Bench, host: bytes | None) -> None:
        for path in PATHS:
            found = await bench.ask("GET", path, host=host)
            assert (found.status, found.json()["code"]) == (403, "host_refused")

    async def test_two_hosts_are_refused(self, bench: Bench) -> None:
        assert (await bench.ask("GET", "/policy", [(b"host", b"localhost")])).status == 403

    async def test_a_token_is_needed_where_there_is_one(self, bench: Bench) -> None:
        bench.token = "t0ken"
        for path in ("/metrics", "/policy", "/clients", "/reload", "/none"):
            found = await bench.ask("POST" if path == "/reload" else "GET", path)
            assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/healthz", "/readyz"):
            assert (await bench.ask("GET", path)).status == 200

    async def test_the_right_token_opens_under_any_host(self, bench: Bench) -> None:
        bench.token = "t0ken"
        for value in (b"Bearer t0ken", b"bearer  t0ken"):
            assert (await bench.ask("GET", "/policy", [(b"authorization", value)], host=b"guard.svc")).status == 200

    @pytest.mark.parametrize(
        "values", [[b"Bearer t0ke"], [b"t0ken"], [b"Bearer "], [b"Bearer t0ken", b"Bearer t0ken"], [b"\xff"]]
    )
    async def test_a_wrong_token_is_refused(self, bench: Bench, values: Sequence[bytes]) -> None:
        bench.token = "t0ken"
        assert (await bench.ask("GET", "/policy", [(b"authorization", value) for value in values])).status == 401

    async def test_a_token_does_not_help_another_sites_page(self, bench: Bench) -> None:
        bench.token = "t0ken"
        headers = [(b"authorization", b"Bearer t0ken"), (b"origin", b"https://evil.example")]
        assert (await bench.ask("POST", "/reload", headers)).status == 403

    def test_an_empty_token_is_a_mistake(self, bench: Bench) -> None:
        with pytest.raises(ValueError, match="empty"):
            Access(bench.app(), token=" ")

    async def test_only_http_is_served(self, bench: Bench) -> None:
        sent: list[Any] = []  # Any: ASGI

        async def receive() -> Any:  # Any: ASGI
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:  # Any: ASGI
            sent.append(message)

        await Access(bench.app())({"type": "websocket", "path": "/policy", "headers": []}, receive, send)
        assert sent == []
