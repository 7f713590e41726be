"""The way of a request whose answer a mechanism makes private: charged, drawn, remembered, and refused in time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guard.errors import PolicyError, StateError, UpstreamError
from guard.model.exchange import Reply
from guard.model.ledger import TERMS_CHANGED, Charge, Receipt
from guard.ports import State
from guard.privacy.terms import Terms
from guard.state.memory import MemoryState
from tests.support.fakes import Guarded, Seen

PATH = "/v1/models/m:predict"
ACCEPTED = "accept_lost_writes: a test"
Json = Any  # Any: JSON


def policy(
    *,
    per: str = "model",
    extra: str = "",
    outputs: str = "classes: [a, b]",
    noise: str = "",
    sensitivity: str = "0.001",
) -> str:
    noise = noise or "{kind: dp_gaussian, noise_multiplier: 30}"
    return f"""version: 1
routes:
  - name: r
    api: kserve_v1
    outputs: {{kind: probabilities, {outputs}}}
    privacy: {{claim: dp, unit: training_record, adjacency: replace_one, sensitivity: {sensitivity}, {ACCEPTED}}}
    defences: [{noise}]
    budgets:
      - {{kind: privacy, per: {per}, epsilon: 1, delta: 1.0e-5}}
{extra}"""


def body(*rows: Sequence[float]) -> bytes:
    return json.dumps({"instances": [list(row) for row in rows]}).encode()


def answer(seen: Seen) -> Reply:
    rows = json.loads(seen.body)["instances"]
    return Reply(200, [], json.dumps({"predictions": [[0.25, 0.75] for _ in rows]}).encode())


def guarded(folder: Path, text: str, state: State | None = None) -> Guarded:
    made = Guarded(text, folder, state=state)
    made.upstream.answer = answer
    return made


def rows_of(response: Json) -> list[list[float]]:
    return json.loads(response.body)["predictions"]


async def spent(made: Guarded, scope: str = "model", budget: str = "privacy/model") -> float:
    """Return how many answers the ledger has paid for."""
    route = made.plans.current.plan.routes[0]
    (priced,) = [b for b in route.budgets if b.kind == "privacy"]
    spend = await made.state.spend("r", Charge(budget, scope, 0, 1, 1), 0.0)
    return spend.spent / priced.amount_for(1, 1)


async def test_an_answer_is_noise_and_is_charged(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    (row,) = rows_of(await made.ask("POST", PATH, body([1, 2])))
    assert row != [0.25, 0.75]
    assert sum(row) == pytest.approx(1)
    assert await spent(made) == 1


async def test_a_repeat_gets_the_same_release_without_charge_and_without_the_model(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    answers = {(await made.ask("POST", PATH, body([1, 2]))).body for _ in range(5)}
    assert len(answers) == 1
    assert await spent(made) == 1
    assert len(made.upstream.seen) == 1


async def test_a_row_keeps_its_release_in_any_batch(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    (alone,) = rows_of(await made.ask("POST", PATH, body([1, 2])))
    batch = rows_of(await made.ask("POST", PATH, body([3, 4], [1, 2], [3, 4])))
    assert batch[1] == alone
    assert batch[0] == batch[2] != alone
    assert await spent(made) == 2
    again = rows_of(await made.ask("POST", PATH, body([3, 4])))
    assert again == [batch[0]]
    assert await spent(made) == 2


async def test_the_budget_ends_and_what_was_paid_for_stays(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    (budget,) = made.plans.current.plan.routes[0].budgets
    allowed = budget.limit_for(0) // budget.amount_for(1, 1)
    first = await made.ask("POST", PATH, body([0.0]))
    statuses = [(await made.ask("POST", PATH, body([float(i)]))).status for i in range(allowed + 3)]
    assert statuses == [200] * allowed + [429] * 3
    assert (await made.ask("POST", PATH, body([0.0]))).body == first.body
    assert await spent(made) == allowed
    # A batch that only half fits is refused whole, and charges nothing.
    assert (await made.ask("POST", PATH, body([0.0], [1e6]))).status == 429
    assert await spent(made) == allowed


async def test_clients_with_budgets_of_their_own_get_releases_of_their_own(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy(per="client"))
    one = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.1")
    two = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.2")
    assert one.body != two.body
    assert await spent(made, "client:address:192.0.2.1", "privacy/client") == 1
    assert await spent(made, "client:address:192.0.2.2", "privacy/client") == 1


async def test_one_budget_for_all_gives_all_the_same_release(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    one = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.1")
    two = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.2")
    assert one.body == two.body
    assert await spent(made) == 1
    assert "asked the same query" in " ".join(made.plans.current.plan.routes[0].statement)


async def test_releases_of_their_own_are_charged_to_the_budget_of_all(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy().replace("claim: dp", "claim: dp, releases: per_client"))
    one = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.1")
    two = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.2")
    again = await made.ask("POST", PATH, body([1, 2]), peer="192.0.2.1")
    assert one.body == again.body != two.body
    assert await spent(made) == 2
    said = " ".join(made.plans.current.plan.routes[0].statement)
    assert "asked the same query" not in said


async def test_what_is_charged_stays_charged_when_the_model_fails_and_comes_back_when_it_saw_nothing(
    tmp_path: Path,
) -> None:
    made = guarded(tmp_path, policy())

    def fail(seen: Seen) -> Reply:
        raise UpstreamError("broken", reached=True)

    def unseen(seen: Seen) -> Reply:
        raise UpstreamError("nobody there", reached=False)

    made.upstream.answer = fail
    assert (await made.ask("POST", PATH, body([1]))).status == 502
    assert await spent(made) == 1
    made.upstream.answer = unseen
    assert (await made.ask("POST", PATH, body([2]))).status == 502
    assert await spent(made) == 1


@pytest.mark.parametrize(
    "prediction",
    ["[0.2, NaN]", "[0.9, 0.9]", "[-0.5, 1.5]", "[0.1, 0.2, 0.7]", '{"a": 0.5, "b": 0.5}'],
)
async def test_an_answer_outside_the_domain_is_refused_after_charging(tmp_path: Path, prediction: str) -> None:
    made = guarded(tmp_path, policy())
    made.upstream.answer = lambda _: Reply(200, [], f'{{"predictions": [{prediction}]}}'.encode())
    response = await made.ask("POST", PATH, body([1, 2]))
    assert response.status == 502
    assert b"0." not in response.body
    assert await spent(made) == 1


async def test_clip_moves_an_answer_into_the_domain(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy(outputs="classes: [a, b], clip: true, tensors: [predictions]"))
    made.upstream.answer = lambda _: Reply(200, [], b'{"predictions": [[0.9, 0.9]]}')
    assert (await made.ask("POST", PATH, body([1, 2]))).status == 200


async def test_a_lost_state_refuses(tmp_path: Path) -> None:
    class Lost(MemoryState):
        async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
            raise StateError("out of reach")

    made = guarded(tmp_path, policy(), Lost())
    assert (await made.ask("POST", PATH, body([1]))).status == 503
    assert made.upstream.seen == []


async def test_a_release_that_cannot_be_kept_is_charged_again(tmp_path: Path) -> None:
    class Forgetful(MemoryState):
        async def remember(self, ledger: str, releases: Sequence[tuple[bytes, bytes]]) -> None:
            raise StateError("out of reach")

    made = guarded(tmp_path, policy(), Forgetful())
    one, two = [(await made.ask("POST", PATH, body([1]))).body for _ in range(2)]
    assert one != two
    assert await spent(made) == 2


async def test_a_ledger_begun_under_other_terms_refuses_every_request(tmp_path: Path) -> None:
    state = MemoryState()
    await state.agree("r", Terms("rdp(8.0)", {"privacy/model": 1e-5}, ("dp_laplace/l1/1",)).dumps())
    made = guarded(tmp_path, policy(), state)
    response = await made.ask("POST", PATH, body([1]))
    assert response.status == 503
    assert made.upstream.seen == []
    with pytest.raises(PolicyError, match="begun under other terms: the accounting changes"):
        await made.handler.agreements.check(made.plans.current.plan.routes)


async def test_a_policy_that_drops_its_budgets_is_refused_beside_a_live_ledger(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy())
    await made.ask("POST", PATH, body([1]))
    without = policy().partition("    privacy:")[0]
    later = guarded(tmp_path, without, made.state)
    with pytest.raises(PolicyError, match="this policy charges none"):
        await later.handler.agreements.check(later.plans.current.plan.routes)
    elsewhere = guarded(tmp_path, without, MemoryState())
    await elsewhere.handler.agreements.check(elsewhere.plans.current.plan.routes)


async def test_terms_that_cannot_be_read_refuse(tmp_path: Path) -> None:
    state = MemoryState()
    await state.agree("r", b"damaged")
    made = guarded(tmp_path, policy(), state)
    assert (await made.ask("POST", PATH, body([1]))).status == 503


async def test_changed_terms_are_asked_for_again_before_the_next_charge(tmp_path: Path) -> None:
    class Moved(MemoryState):
        asked = 0
        moved = True

        async def agree(self, ledger: str, terms: bytes) -> bytes:
            self.asked += 1
            return await super().agree(ledger, terms)

        async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
            if self.moved:
                self.moved = False
                raise StateError("the ledger's terms have changed", code=TERMS_CHANGED)
            return await super().charge(ledger, charges, now_s)

    state = Moved()
    made = guarded(tmp_path, policy(), state)
    statuses = [(await made.ask("POST", PATH, body([float(i)]))).status for i in range(3)]
    assert statuses == [503, 200, 200]
    assert state.asked == 2


async def test_a_claim_refuses_a_state_that_may_lose_charges(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy().replace(f", {ACCEPTED}", ""))
    assert (await made.ask("POST", PATH, body([1]))).status == 503
    with pytest.raises(PolicyError, match="may lose charges"):
        await made.handler.agreements.check(made.plans.current.plan.routes)


async def test_a_floor_counts_for_every_scope(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy(per="client"))
    route = made.plans.current.plan.routes[0]
    (budget,) = route.budgets
    assert route.private is not None
    floor = budget.limit_for(0) - 2 * budget.amount_for(1, 1)
    live = Terms(
        route.private.terms.filter, route.private.terms.deltas, route.private.terms.mechanisms, {budget.name: floor}
    )
    await made.state.agree("r", live.dumps())
    statuses = [(await made.ask("POST", PATH, body([float(i)]))).status for i in range(4)]
    assert statuses == [200, 200, 429, 429]


async def test_labels_follow_the_release_and_not_the_model(tmp_path: Path) -> None:
    made = guarded(tmp_path, policy(noise="{kind: noisy_max, noise_multiplier: 30}", sensitivity="auto"))
    made.upstream.answer = lambda seen: Reply(
        200,
        [],
        json.dumps(
            {"predictions": [{"label": "b", "probabilities": [0.25, 0.75]} for _ in json.loads(seen.body)["instances"]]}
        ).encode(),
    )
    response = await made.ask("POST", PATH, body(*[[float(i)] for i in range(12)]))
    assert response.status == 200
    rows: Json = json.loads(response.body)["predictions"]
    assert [["a", "b"][row["probabilities"].index(1)] for row in rows] == [row["label"] for row in rows]
    assert {row["label"] for row in rows} == {"a", "b"}


async def test_another_budget_that_leaves_labels_is_not_remembered(tmp_path: Path) -> None:
    extra = "      - {kind: information, per: client, graded_answers: 1, then: label_only}\n"
    made = guarded(tmp_path, policy(extra=extra))
    await made.ask("POST", PATH, body([1]))
    (labels,) = rows_of(await made.ask("POST", PATH, body([2])))
    assert sorted(labels) == [0, 1]
    # The next month's window, or a larger budget, brings the whole release back, which was paid for.
    one = await made.state.recall("r", [])
    assert one == []
    (again,) = rows_of(await made.ask("POST", PATH, body([2])))
    assert again == labels
    assert await spent(made) == 2


async def test_shadow_answers_what_the_model_said_and_counts_apart(tmp_path: Path) -> None:
    text = policy().replace("routes:", "mode: shadow\nroutes:", 1).replace("claim: dp", "claim: none")
    made = guarded(tmp_path, text)
    for _ in range(2):
        assert rows_of(await made.ask("POST", PATH, body([1]))) == [[0.25, 0.75]]
    assert await spent(made) == 0


async def test_the_receipt_of_a_private_answer_names_its_event(tmp_path: Path) -> None:
    seen: list[Charge] = []

    class Watching(MemoryState):
        async def charge(self, ledger: str, charges: Sequence[Charge], now_s: float) -> Receipt:
            seen.extend(charges)
            return await super().charge(ledger, charges, now_s)

    made = guarded(tmp_path, policy(), Watching())
    await made.ask("POST", PATH, body([1], [2]))
    (charge,) = seen
    assert (charge.event, charge.rows) == ("gaussian(30.0)", 2)
