"""Replaying a journal: every kind of disagreement is found, and a sound counter is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.events import parse
from guard.privacy.filters import MOST, Filter
from guard.privacy.replay import discrepancies
from guard.privacy.terms import Act, Terms

GDP = Filter("gdp")
TERMS = Terms("gdp", {"privacy/client": 1e-6}, ("dp_gaussian/l2/1",))
EVENT = "gaussian(50.0)"
COST = GDP.cost(parse(EVENT))


def account(*entries: Entry, spent: int | None = None, budget: str = "privacy/client") -> Account:
    spent = sum(entry.amount for entry in entries) if spent is None else spent
    return Account(budget, "client:a", 0, 0, Spend(spent, spent), entries)


def answered(rows: int, event: str = EVENT, cost: int = COST) -> Entry:
    return Entry(event, rows, rows * cost)


def found(made: Account, terms: Terms = TERMS, filter_: Filter = GDP) -> str:
    return "; ".join(discrepancies(made, terms, filter_))


def acted(what: str, budget: str = "", scope: str = "") -> Terms:
    return replace(TERMS, acts=(Act(what, "2027-01-31T10:00:00+00:00", "because", budget, scope),))


def test_a_sound_counter_is_left_alone() -> None:
    two = account(answered(7), answered(3, "gaussian(10.0)", GDP.cost(parse("gaussian(10.0)"))))
    assert found(two) == ""


def test_composed_events_are_priced_part_by_part() -> None:
    event = "gaussian(50.0)+gaussian(50.0)"
    assert found(account(answered(7, event, GDP.cost(parse(event))))) == ""


@pytest.mark.parametrize("change", [-1, 1])
def test_a_counter_that_differs_from_its_journal_by_one_unit_is_found(change: int) -> None:
    made = account(answered(7), spent=7 * COST + change)
    assert found(made) == f"the journal adds up to {7 * COST}, the counter says {7 * COST + change}"


def test_a_price_that_is_not_the_events_is_found_though_everything_adds_up() -> None:
    made = account(Entry(EVENT, 7, 7 * COST - 1))
    assert found(made) == f"{EVENT}: 7 rows cost {7 * COST}, the journal says {7 * COST - 1}"


@pytest.mark.parametrize("event", ["magic(1.0)", "gaussian(50.0)+magic(1.0)", "gaussian(0.0)", "gaussian(x)", ""])
def test_an_unknown_event_is_refused_even_nested(event: str) -> None:
    assert "so its 7 rows have no price" in found(account(answered(7, event)))


def test_an_event_that_the_ledgers_filter_does_not_know_is_refused() -> None:
    assert "so its 7 rows have no price" in found(account(answered(7, "laplace(50.0)")))


@pytest.mark.parametrize("event", ["non_private()", "gaussian(50.0)+non_private()"])
def test_an_answer_without_noise_costs_infinity(event: str) -> None:
    assert "costs infinity" in found(account(answered(1, event, MOST + 1)))
    assert "costs infinity" in found(account(answered(1, event, 0)))


def test_negative_rows_are_found() -> None:
    assert found(account(answered(7), answered(-2, "gaussian(25.0)", GDP.cost(parse("gaussian(25.0)"))))) == (
        "gaussian(25.0) has -2 rows"
    )


@pytest.mark.parametrize("terms", [acted("reset"), acted("reset", "privacy/client"), acted("reset", scope="client:a")])
def test_a_reset_stands_on_an_operators_act(terms: Terms) -> None:
    assert found(account(answered(7), Entry("reset", 0, -7 * COST)), terms) == ""


@pytest.mark.parametrize(
    "terms", [TERMS, acted("migrate"), acted("reset", "privacy/model"), acted("reset", scope="client:b")]
)
def test_a_reset_without_one_is_found(terms: Terms) -> None:
    said = found(account(answered(7), Entry("reset", 0, -7 * COST)), terms)
    assert said == f"reset of {-7 * COST} units, which no act of an operator explains"


@pytest.mark.parametrize("entry", [Entry("reset", 0, 5), Entry("reset", 1, -5), Entry("migrated", 0, -5)])
def test_an_act_neither_raises_by_a_reset_nor_lowers_by_a_migration(entry: Entry) -> None:
    acts = (*acted("reset").acts, *acted("migrate").acts)
    assert "which no operator's act can" in found(account(answered(7), entry), replace(TERMS, acts=acts))


def test_a_budget_that_the_terms_do_not_know_is_found() -> None:
    made = account(answered(7), budget="privacy/group")
    assert found(made) == "the ledger's terms know no such budget"
    assert found(made, replace(TERMS, floors={"privacy/group": 0})) == ""
