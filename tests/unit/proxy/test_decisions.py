"""What the audit log says of a request, and what it must not say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guard.model.exchange import Reply
from guard.proxy.decisions import coarse
from guard.proxy.observers import Observers
from tests.support.fakes import Guarded, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guard.ports import Headers

PATH = "/v1/models/m:predict"
SECRETS = ("sk-top-secret", "alice-the-client", "0.2304", "0.7696", "31337.5", "instances")
Json = Any  # Any: JSON


@dataclass
class Sink:
    """An audit log that may have no room."""

    roomy: bool = True
    entries: list[Json] = field(default_factory=list[Json])

    def room(self) -> bool:
        return self.roomy

    def add(self, entry: Mapping[str, object]) -> None:
        self.entries.append(json.loads(json.dumps(entry)))

    def close(self) -> None:
        return


def answer(seen: Seen) -> Reply:
    rows = json.loads(seen.body)["instances"]
    return Reply(200, [], json.dumps({"predictions": [[0.2304, 0.7696] for _ in rows]}).encode())


def guarded(folder: Path, route: str, sink: Sink, head: str = "") -> Guarded:
    policy = f"version: 1\n{head}routes:\n  - {{name: r, api: kserve_v1, {route}}}\n"
    made = Guarded(policy, folder, observers=Observers(audit=sink))
    made.upstream.answer = answer
    return made


async def ask(made: Guarded, rows: int = 1, headers: Headers | None = None) -> int:
    body = json.dumps({"instances": [[31337.5, float(number)] for number in range(rows)]}).encode()
    return (await made.ask("POST", PATH, body, headers)).status


async def test_an_answer_is_put_down_with_what_was_charged_and_changed(tmp_path: Path) -> None:
    sink = Sink()
    made = guarded(
        tmp_path, "defences: [{kind: round, decimals: 1}], budgets: [{kind: rows, per: client, limit: 9}]", sink
    )
    assert await ask(made, 2, [(b"x-request-id", b"request-0001")]) == 200
    (entry,) = sink.entries
    digest = made.plans.current.plan.digest
    assert len(entry.pop("client")) == len(entry.pop("group")) == 16
    assert entry == {
        "kind": "decision",
        "time": "2027-01-15T08:00:00.000+00:00",
        "id": "request-0001",
        "route": "r",
        "mode": "enforce",
        "source": "address",
        "rows": 2,
        "verdict": "allow",
        "outcome": "ok",
        "status": 200,
        "policy": digest[:16],
        "charges": {"rows/client": 2},
        "changed": [{"defence": "round", "mode": "enforce", "l1_below": 0.1, "labels": 0}],
    }


async def test_inputs_scores_names_and_credentials_are_never_put_down(tmp_path: Path) -> None:
    sink = Sink()
    head = "identity: [{kind: api_key, header: x-api-key, keys_file: keys}]\n"
    (tmp_path / "keys").write_text(f"alice-the-client:{hashlib.sha256(b'sk-top-secret').hexdigest()}\n")
    made = guarded(
        tmp_path, "defences: [{kind: noise, mechanism: gaussian, scale: 0.1}], detectors: default", sink, head
    )
    assert await ask(made, 1, [(b"x-api-key", b"sk-top-secret")]) == 200
    assert await ask(made, 1, [(b"x-api-key", b"wrong sk-top-secret")]) == 401
    text = json.dumps(sink.entries)
    assert [entry["outcome"] for entry in sink.entries] == ["ok", "unknown_credential"]
    assert "evidence" in sink.entries[0]
    assert [word for word in SECRETS if word in text] == []


@pytest.mark.parametrize("shift", [0.0, 0.0004, 0.004, 0.04, 0.4, 1.9])
def test_a_shift_is_told_to_a_power_of_ten(shift: float) -> None:
    told = coarse(shift)
    assert told in (0.0, 0.001, 0.01, 0.1, 1.0, 10.0)
    assert shift == told == 0.0 or told / 11 <= max(shift, 0.0001) < told


async def test_a_mechanisms_noise_is_not_told(tmp_path: Path) -> None:
    sink = Sink()
    route = (
        "outputs: {kind: probabilities, classes: [a, b]}, "
        "privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: 0.001, "
        "accept_lost_writes: a test}, "
        "defences: [{kind: dp_gaussian, noise_multiplier: 100}, {kind: round, decimals: 1}], "
        "budgets: [{kind: privacy, per: model, epsilon: 3, delta: 1.0e-5}]"
    )
    assert await ask(guarded(tmp_path, route, sink), 3) == 200
    assert sink.entries[0]["changed"] == [
        {"defence": "dp_gaussian", "mode": "enforce"},
        {"defence": "round", "mode": "enforce"},
    ]
    assert sink.entries[0]["charges"] == {"privacy/model": 3}


async def test_a_refusal_names_the_budget(tmp_path: Path) -> None:
    sink = Sink()
    made = guarded(tmp_path, "budgets: [{kind: rows, per: client, limit: 1, window: 1h}]", sink)
    assert (await ask(made), await ask(made)) == (200, 429)
    first, second = sink.entries
    assert "budget" not in first
    told = {name: second[name] for name in ("verdict", "outcome", "status", "budget", "charges")}
    assert told == {
        "verdict": "deny",
        "outcome": "budget_spent",
        "status": 429,
        "budget": "rows/client/3600s",
        "charges": {"rows/client/3600s": 0},
    }
    assert "changed" not in second


async def test_shadow_says_that_it_is_shadow(tmp_path: Path) -> None:
    sink = Sink()
    made = guarded(tmp_path, "defences: [{kind: label_only}]", sink, "mode: shadow\n")
    assert await ask(made) == 200
    assert (sink.entries[0]["mode"], sink.entries[0]["changed"][0]["defence"]) == ("shadow", "label_only")


@pytest.mark.parametrize(
    "name", [b'x\n{"seq":1}', b'"},{"kind":"forged', b"caf\xc3\xa9-12345678", b"x" * 200, b"\x1b[2J-request"]
)
async def test_a_request_id_that_could_break_a_line_is_replaced(name: bytes, tmp_path: Path) -> None:
    sink = Sink()
    assert await ask(guarded(tmp_path, "defences: []", sink), 1, [(b"x-request-id", name)]) == 200
    assert len(sink.entries[0]["id"]) == 16
    assert int(sink.entries[0]["id"], 16) >= 0


async def test_an_enforcing_route_refuses_while_there_is_no_room(tmp_path: Path) -> None:
    sink = Sink(roomy=False)
    made = guarded(tmp_path, "budgets: [{kind: rows, per: client, limit: 9}]", sink)
    got = await made.ask("POST", PATH, b'{"instances": [[1.0]]}')
    assert (got.status, got.headers["retry-after"]) == (503, "1")
    assert "audit" in got.body.decode()
    assert made.upstream.seen == []
    assert (sink.entries[0]["outcome"], "charges" in sink.entries[0]) == ("audit_unavailable", False)
    sink.roomy = True
    assert await ask(made) == 200


async def test_a_policy_may_rather_drop_lines_than_refuse(tmp_path: Path) -> None:
    sink = Sink(roomy=False)
    made = guarded(tmp_path, "defences: []", sink, "audit: {when_full: drop}\n")
    assert await ask(made) == 200
    assert sink.entries[0]["outcome"] == "ok"


async def test_shadow_answers_whether_there_is_room_or_not(tmp_path: Path) -> None:
    made = guarded(tmp_path, "defences: []", Sink(roomy=False), "mode: shadow\n")
    assert await ask(made) == 200


async def test_what_fails_later_is_put_down_with_its_charge(tmp_path: Path) -> None:
    sink = Sink()
    made = guarded(tmp_path, "budgets: [{kind: rows, per: client, limit: 9}]", sink)
    made.upstream.answer = lambda seen: Reply(200, [], b"no json")
    assert await ask(made) == 502
    assert (sink.entries[0]["outcome"], sink.entries[0]["status"]) == ("unreadable_answer", 502)
    assert sink.entries[0]["charges"] == {"rows/client": 1}


async def test_a_bug_is_put_down_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    made = guarded(tmp_path, "defences: []", sink)

    def broken(seen: Seen) -> Reply:
        raise ZeroDivisionError

    made.upstream.answer = broken
    status = await ask(made)
    assert status >= 500
    assert "bug in phase forward" in caplog.text
    assert sink.entries[0]["status"] == status
    assert sink.entries[0]["outcome"] not in ("ok", "aborted")
