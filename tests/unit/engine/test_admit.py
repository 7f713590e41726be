from __future__ import annotations

import pytest

from guard.budgets.base import seconds
from guard.budgets.information import Information
from guard.budgets.rows import Rows
from guard.engine.admit import TEXT_DIMENSION, charges, decision, digests, dimension_of
from guard.errors import ClientError, Denied
from guard.evidence.meter import MARGIN
from guard.model.client import Client
from guard.model.ledger import Admission, Receipt, Spend
from guard.model.outputs import Outputs
from guard.model.queries import Queries
from guard.state.memory import MemoryState

CLIENT = Client("ann", "acme", "api_key")
KEY = b"k" * 32


def test_every_row_is_charged_to_every_scope() -> None:
    budgets = (Rows(limit=10, per="client"), Rows(limit=20, per="group", window=60), Rows(limit=30, per="model"))
    made = charges(budgets, CLIENT, 4, 0, None)
    assert [(c.scope, c.amount, c.limit, c.window_s) for c in made] == [
        ("client:ann", 4, 10, 0),
        ("group:acme", 4, 20, 60),
        ("model", 4, 30, 0),
    ]


def test_a_batch_larger_than_its_limit_can_never_fit() -> None:
    with pytest.raises(ClientError) as caught:
        charges((Rows(limit=3),), CLIENT, 4, 0, None)
    assert caught.value.status == 413


def test_a_large_batch_can_still_be_answered_with_labels() -> None:
    made = charges((Information(graded_answers=3),), CLIENT, 4, 64, (b"a", b"b", b"c", b"d"))
    assert made[0].digests == (b"a", b"b", b"c", b"d")
    with pytest.raises(ClientError):
        charges((Information(graded_answers=3, hard_limit=3),), CLIENT, 4, 64, (b"a",))


def test_limits_scale_with_the_dimension() -> None:
    assert charges((Information(per_dimension=3.0),), CLIENT, 1, 64, (b"a",))[0].limit == 192
    assert Information(per_dimension=0.1).limit_for(1) == 1
    assert Information(graded_answers=7).limit_for(1000) == 7


def test_dimension_is_the_number_of_features_or_that_of_a_sketch() -> None:
    assert dimension_of(Queries(2, [1, 2, 3, 4], width=2)) == 2
    assert dimension_of(Queries(1, ["text"])) == TEXT_DIMENSION


def test_digests_follow_values_not_spelling() -> None:
    assert digests(KEY, Queries(1, [[1, 2]])) == digests(KEY, Queries(1, [1.0, 2.0], width=2))
    assert digests(KEY, Queries(1, [[-0.0, 1]])) == digests(KEY, Queries(1, [[0, 1]]))
    assert digests(KEY, Queries(1, [[1, 2]])) != digests(KEY, Queries(1, [[2, 1]]))
    assert digests(b"x" * 32, Queries(1, [[1, 2]])) != digests(KEY, Queries(1, [[1, 2]]))


def test_a_spent_budget_says_when_its_window_ends() -> None:
    made = charges((Rows(limit=1, window=3600),), CLIENT, 1, 0, None)
    denied = Receipt(Admission.DENY, 0, (Spend(1, 1),), (Spend(0, 0),), ((),))
    with pytest.raises(Denied) as caught:
        decision(denied, made, 7200 + 3599.5)
    assert caught.value.status == 429
    assert caught.value.retry_after_s == 1
    forever = charges((Rows(limit=1),), CLIENT, 1, 0, None)
    with pytest.raises(Denied) as caught:
        decision(denied, forever, 0.0)
    assert caught.value.retry_after_s is None


def test_decision_of_a_receipt() -> None:
    made = charges((Rows(limit=1),), CLIENT, 1, 0, None)
    assert decision(Receipt(Admission.LABEL_ONLY, 0, (Spend(1, 2),), (Spend(0, 1),), ((),)), made, 0.0)
    assert not decision(Receipt(Admission.ALLOW, None, (Spend(1, 1),), (Spend(1, 1),), ((),)), made, 0.0)


def test_contradictory_budgets_are_problems() -> None:
    assert [p.path for p in Rows(limit=5, hard_limit=9).check(Outputs())] == ["hard_limit"]
    assert [p.path for p in Rows(limit=5, then="label_only", hard_limit=4).check(Outputs())] == ["hard_limit"]
    assert [p.path for p in Rows(limit=5, then="label_only").check(Outputs(kind="value"))] == ["then"]
    assert [p.path for p in Information(graded_answers=0).check(Outputs())] == ["graded_answers"]
    assert [p.path for p in Information(graded_answers=9, hard_limit=8).check(Outputs())] == ["hard_limit"]
    assert Information(graded_answers=9, hard_limit=9).check(Outputs()) == []


def test_names_never_hold_a_limit() -> None:
    assert Rows(limit=5).name == Rows(limit=6).name == "rows/client"
    assert Information(per="group", window=60).name == "information/group/60s"


def test_durations() -> None:
    assert seconds("7d") == 7 * 86400
    with pytest.raises(ValueError, match="duration"):
        seconds("soon")


METERED = Information(graded_answers=5, meter=0.9, window=3600)
FULL = 0.9 - MARGIN


def test_a_reading_closes_the_budget_of_its_scope_and_no_other() -> None:
    budgets = (METERED, Information(graded_answers=5, meter=0.9, per="group"), Rows(limit=9))
    made = charges(budgets, CLIENT, 1, 4, (b"a",), readings={"client:ann": FULL, "client:bob": 1.0})
    assert [charge.limit for charge in made] == [0, 5, 9]
    made = charges(budgets, CLIENT, 1, 4, (b"a",), readings={"client:ann": FULL - 0.01, "group:acme": FULL})
    assert [charge.limit for charge in made] == [5, 0, 9]
    assert charges((Information(graded_answers=5),), CLIENT, 1, 4, (b"a",), readings={"client:ann": 1.0})[0].limit == 5


async def test_a_closed_budget_leaves_labels_for_repeats_too_and_spends_nothing() -> None:
    state = MemoryState()
    digests_seen = (b"a" * 16,)
    paid = await state.charge("m", charges((METERED,), CLIENT, 1, 4, digests_seen), 0.0)
    assert paid.spends[0] == Spend(1, 1)
    closed = charges((METERED,), CLIENT, 1, 4, digests_seen, readings={"client:ann": FULL})
    receipt = await state.charge("m", closed, 0.0)
    assert decision(receipt, closed, 0.0)
    assert receipt.spends[0] == Spend(1, 2)
    next_window = await state.charge("m", closed, 3600.0)
    assert decision(next_window, closed, 3600.0)
    assert next_window.spends[0] == Spend(0, 1)


async def test_a_closed_budget_that_denies_does_not_say_try_again() -> None:
    budget = Information(graded_answers=5, meter=0.9, window=3600, then="deny")
    closed = charges((budget,), CLIENT, 1, 4, (b"a" * 16,), readings={"client:ann": FULL})
    receipt = await MemoryState().charge("m", closed, 0.0)
    with pytest.raises(Denied) as caught:
        decision(receipt, closed, 0.0)
    assert (caught.value.status, caught.value.retry_after_s) == (429, None)
