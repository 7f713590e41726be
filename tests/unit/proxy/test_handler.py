"""What the phases do when something fails under them, and budgets that only watch."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guard.errors import StateError, UpstreamError
from guard.model.exchange import Reply
from guard.model.ledger import Charge, Receipt
from guard.state.memory import MemoryState
from tests.support.fakes import Guarded, Seen

PATH = "/v1/models/m:predict"
Json = Any  # Any: JSON


def request(rows: int = 1) -> bytes:
    return json.dumps({"instances": [[float(i), 1.0] for i in range(rows)]}).encode()


def answer(seen: Seen) -> Reply:
    rows = json.loads(seen.body)["instances"]
    return Reply(200, [], json.dumps({"predictions": [[0.2304, 0.7696] for _ in rows]}).encode())


def guarded(folder: Path, route: str, state: MemoryState | None = None) -> Guarded:
    made = Guarded(f"version: 1\nroutes:\n  - {{name: r, api: kserve_v1, {route}}}\n", folder, state=state)
    made.upstream.answer = answer
    return made


async def metric(made: Guarded, name: str) -> float:
    text = b"".join([piece async for piece in made.metrics.expose()]).decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


WATCHED = "budgets: [{kind: rows, per: client, limit: 3, then: deny, mode: shadow}]"


async def test_a_budget_that_only_watches_counts_what_it_would_refuse(tmp_path: Path) -> None:
    made = guarded(tmp_path, WATCHED)
    for _ in range(5):
        assert (await made.ask("POST", PATH, request())).status == 200
    assert await metric(made, "guard_budget_refusals_total{") == 2
    assert await metric(made, 'guard_verdicts_total{action="deny",mode="shadow",route="r"}') == 2


async def test_a_batch_larger_than_a_watching_limit_goes_through(tmp_path: Path) -> None:
    made = guarded(tmp_path, WATCHED)
    assert (await made.ask("POST", PATH, request(4))).status == 200


@pytest.mark.parametrize("then", ["deny", "label_only"])
async def test_a_watching_budget_changes_no_answer(then: str, tmp_path: Path) -> None:
    made = guarded(tmp_path, WATCHED.replace("deny", then))
    answers = {(await made.ask("POST", PATH, request())).body for _ in range(5)}
    assert answers == {b'{"predictions":[[0.2304,0.7696]]}'}


class Lost(MemoryState):
    """A state that is out of reach."""

    def __init__(self, *, charges: bool = True) -> None:
        super().__init__()
        self.charges = charges

    async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
        if self.charges:
            raise StateError("the state is out of reach")
        return await super().charge(ledger, charges, now_s)

    async def refund(self, ledger: str, charges: Sequence[Charge], receipt: Receipt, now_s: float) -> None:
        raise StateError("the state is out of reach")


async def test_a_lost_state_stops_what_is_budgeted_and_not_what_is_watched(tmp_path: Path) -> None:
    watched = guarded(tmp_path, WATCHED, Lost())
    assert (await watched.ask("POST", PATH, request())).status == 200
    assert await metric(watched, "guard_state_errors_total ") == 1
    bound = guarded(tmp_path, "budgets: [{kind: rows, per: client, limit: 3}]", Lost())
    got = await bound.ask("POST", PATH, request())
    assert got.status == 503
    assert bound.upstream.seen == []


async def test_a_refund_that_fails_leaves_the_charge_and_the_answer(tmp_path: Path) -> None:
    made = guarded(tmp_path, "budgets: [{kind: rows, per: client, limit: 3}]", Lost(charges=False))

    def unreached(_: Seen) -> Reply:
        raise UpstreamError("the model cannot be reached", reached=False)

    made.upstream.answer = unreached
    assert (await made.ask("POST", PATH, request())).status == 502
    assert await metric(made, "guard_state_errors_total ") == 1


@pytest.mark.parametrize("status", [201, 204, 206, 299])
async def test_an_answer_that_is_not_200_is_withheld(status: int, tmp_path: Path) -> None:
    made = guarded(tmp_path, "defences: []")
    made.upstream.answer = lambda _: Reply(status, [], b'{"predictions":[[0.2304,0.7696]]}')
    got = await made.ask("POST", PATH, request())
    assert got.status == 502
    assert b"0.23" not in got.body


async def test_a_bug_is_a_500_that_tells_nothing_and_a_log_that_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = guarded(tmp_path, "defences: []")

    def bug(_: Seen) -> Reply:
        raise ZeroDivisionError("secret 0.2304")

    made.upstream.answer = bug
    with caplog.at_level(logging.ERROR):
        got = await made.ask("POST", PATH, request())
    assert (got.status, json.loads(got.body)) == (502, {"error": "internal error"})
    assert "bug in phase forward" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_more_rows_than_the_plan_bears_are_a_413(tmp_path: Path) -> None:
    made = Guarded("version: 1\nlimits: {rows: 2}\nroutes: [{api: torchserve}]\n", tmp_path)
    got = await made.ask("POST", "/predictions/m", b"[[1],[2],[3]]")
    assert got.status == 413
