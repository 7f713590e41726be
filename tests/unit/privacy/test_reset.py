"""Resets: what they take off, what they leave, and what they cannot hide."""

from __future__ import annotations

from dataclasses import replace

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.events import parse
from guard.privacy.filters import Filter
from guard.privacy.migrate import migrate
from guard.privacy.replay import discrepancies
from guard.privacy.reset import reset
from guard.privacy.terms import Act, Terms

EVENT = "gaussian(50.0)"
GDP = Filter("gdp")
COST = GDP.cost(parse(EVENT))
TERMS = Terms(
    "gdp", {"privacy/client": 1e-6, "privacy/model": 1e-6}, ("dp_gaussian/l2/1",), floors={"privacy/client": 9}
)
ROWS = Account("rows/client", "client:a", 0, 0, Spend(12, 15), ())


def account(budget: str, scope: str, rows: int) -> Account:
    return Account(budget, scope, 0, 0, Spend(rows * COST, rows * COST), (Entry(EVENT, rows, rows * COST),))


ACCOUNTS = [
    account("privacy/client", "client:a", 7),
    account("privacy/client", "client:b", 5),
    account("privacy/model", "model", 12),
    ROWS,
]


def act(budget: str = "", scope: str = "") -> Act:
    return Act("reset", "2027-01-31T10:00:00+00:00", "test traffic", budget, scope)


def test_a_reset_takes_off_what_it_names_and_the_journal_still_adds_up() -> None:
    made = reset(TERMS, ACCOUNTS, act("privacy/client", "client:a"), 100.0)
    (changed,) = made.accounts
    assert (changed.scope, changed.spend) == ("client:a", Spend(0, 0))
    assert changed.entries == (Entry(EVENT, 7, 7 * COST), Entry("reset", 0, -7 * COST))
    assert discrepancies(changed, made.terms, GDP) == []
    assert made.terms == replace(TERMS, acts=made.terms.acts)
    assert made.terms.acts == (act("privacy/client", "client:a"),)


def test_a_second_reset_adds_to_the_first() -> None:
    (once,) = reset(TERMS, ACCOUNTS[:1], act(), 100.0).accounts
    later = once._replace(
        spend=Spend(2 * COST, 2 * COST), entries=(Entry(EVENT, 9, 9 * COST), Entry("reset", 0, -7 * COST))
    )
    (twice,) = reset(TERMS, [later], act(), 200.0).accounts
    assert twice.entries == (Entry(EVENT, 9, 9 * COST), Entry("reset", 0, -9 * COST))


def test_a_counter_without_a_journal_is_emptied() -> None:
    assert reset(TERMS, ACCOUNTS, act("rows/client"), 100.0).accounts == (ROWS._replace(spend=Spend(0, 0)),)


def test_what_is_empty_is_left_alone() -> None:
    assert reset(TERMS, [ROWS._replace(spend=Spend(0, 0))], act(), 100.0).accounts == ()


def test_a_floor_goes_with_its_whole_budget_only() -> None:
    assert reset(TERMS, ACCOUNTS, act("privacy/client", "client:a"), 1.0).terms.floors == {"privacy/client": 9}
    assert reset(TERMS, ACCOUNTS, act("privacy/model"), 1.0).terms.floors == {"privacy/client": 9}
    assert reset(TERMS, ACCOUNTS, act("privacy/client"), 1.0).terms.floors == {"privacy/client": 0}
    assert reset(TERMS, ACCOUNTS, act(), 1.0).terms.floors == {"privacy/client": 0}


def test_only_a_reset_of_everything_is_forgotten_by_budgets_to_come() -> None:
    wanted = Terms("gdp", {"privacy/group": 1e-6}, TERMS.mechanisms)
    known: dict[str, int] = {}
    for what in ("privacy/model", ""):
        made = reset(TERMS, ACCOUNTS, act(what), 100.0)
        kept = {(a.budget, a.scope): a for a in ACCOUNTS} | {(a.budget, a.scope): a for a in made.accounts}
        accounts = [a for a in kept.values() if a.entries]
        known[what] = migrate(made.terms, wanted, accounts, act(), 101.0).terms.floors["privacy/group"]
    assert known == {"privacy/model": 12 * COST, "": 0}
