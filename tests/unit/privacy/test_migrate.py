"""Moving a ledger to other terms, case by case; tests/property/test_migration.py does it with random histories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.model.ledger import Account, Entry, Spend
from guard.privacy.events import parse
from guard.privacy.filters import MOST, Filter, parse_filter
from guard.privacy.migrate import migrate
from guard.privacy.replay import discrepancies
from guard.privacy.terms import Act, Terms

ACT = Act("migrate", "2027-01-31T10:00:00+00:00", "a good reason")
NOW_S = 1_000_050.0
EVENT = "gaussian(50.0)"
CLIENT, MODEL, GROUP, DAILY = "privacy/client", "privacy/model", "privacy/group", "privacy/client/100s"
RDP = "rdp(8.0)"


def terms(*budgets: str, filter_: str = "gdp", delta: float = 1e-6) -> Terms:
    return Terms(filter_, dict.fromkeys(budgets, delta), ("dp_gaussian/l2/1",))


def account(
    budget: str, scope: str, rows: int, *, filter_: str = "gdp", event: str = EVENT, at_s: float = 0
) -> Account:
    spent = rows * cost(filter_, event)
    length_s = 100 if budget.endswith("100s") else 0
    window = int(at_s // length_s) if length_s else 0
    return Account(budget, scope, length_s, window, Spend(spent, spent), (Entry(event, rows, spent),))


def cost(filter_: str, event: str = EVENT) -> int:
    return parse_filter(filter_).cost(parse(event))


def test_terms_that_agree_change_no_counter() -> None:
    made = migrate(terms(CLIENT), terms(CLIENT), [account(CLIENT, "client:a", 7)], ACT, NOW_S)
    assert made.accounts == ()
    assert (made.terms.floors, made.terms.acts, made.terms.past.since_s) == ({}, (ACT,), int(NOW_S))


def test_answers_are_priced_anew_from_the_journal() -> None:
    made = migrate(terms(CLIENT), terms(CLIENT, filter_=RDP), [account(CLIENT, "client:a", 7)], ACT, NOW_S)
    assert made.accounts == (account(CLIENT, "client:a", 7, filter_=RDP),)
    assert discrepancies(made.accounts[0], made.terms, parse_filter(RDP)) == []


def test_a_counter_is_raised_where_the_new_accounting_would_say_less() -> None:
    old, new = parse_filter(RDP), parse_filter("gdp")
    (before,) = spent = [account(CLIENT, "client:a", 7, filter_=RDP)]
    live, wanted = terms(CLIENT, filter_=RDP, delta=1e-6), terms(CLIENT, delta=1e-9)
    made = migrate(live, wanted, spent, ACT, NOW_S)
    (after,) = made.accounts
    exact, raised = after.entries
    assert exact == Entry(EVENT, 7, 7 * cost("gdp"))
    assert raised == Entry("migrated", 0, after.spend.spent - exact.amount)
    assert raised.amount > 0
    assert discrepancies(after, made.terms, new) == []
    for delta in (1e-6, 1e-9):
        assert new.epsilon(after.spend.spent, delta) >= old.epsilon(before.spend.spent, delta)
    # No more than that: a unit in a million less would be too little at one of the two.
    less = int(after.spend.spent * (1 - 1e-6))
    assert any(new.epsilon(less, d) < old.epsilon(before.spend.spent, d) for d in (1e-6, 1e-9))


def test_what_the_new_accounting_cannot_price_is_refused() -> None:
    spent = [account(CLIENT, "client:a", 7, filter_=RDP, event="laplace(30.0)")]
    with pytest.raises(ValueError, match="gdp cannot account for"):
        migrate(terms(CLIENT, filter_=RDP), terms(CLIENT), spent, ACT, NOW_S)


def test_what_a_counter_could_not_hold_is_refused() -> None:
    spent = [account(CLIENT, "client:a", 1000)]
    with pytest.raises(ValueError, match="more than a counter holds"):
        migrate(
            terms(CLIENT), terms(CLIENT, filter_=f"rdp({2.0**20})"), [*spent, account(MODEL, "model", 10**5)], ACT, 1
        )


def test_another_delta_changes_no_unit() -> None:
    made = migrate(terms(CLIENT), terms(CLIENT, delta=1e-9), [account(CLIENT, "client:a", 7)], ACT, NOW_S)
    assert made.accounts == ()
    assert made.terms.deltas == {CLIENT: 1e-9}


def test_a_new_model_budget_begins_with_the_sum_over_all_clients() -> None:
    spent = [account(CLIENT, "client:a", 7), account(CLIENT, "client:b", 5)]
    made = migrate(terms(CLIENT), terms(MODEL), spent, ACT, NOW_S)
    assert made.terms.floors == {CLIENT: 0, MODEL: 12 * cost("gdp")}
    assert made.accounts == ()


@pytest.mark.parametrize("new", [CLIENT, GROUP])
def test_a_new_client_or_group_budget_begins_with_the_models_spend(new: str) -> None:
    made = migrate(terms(MODEL), terms(MODEL, new), [account(MODEL, "model", 7)], ACT, NOW_S)
    assert made.terms.floors == {new: 7 * cost("gdp")}


def test_a_reset_of_one_budget_is_no_secret_to_a_new_one() -> None:
    live = replace(terms(MODEL), acts=(Act("reset", "", "test traffic", MODEL, "model"),))
    spent = account(MODEL, "model", 7)
    gone = spent._replace(spend=Spend(0, 0), entries=(*spent.entries, Entry("reset", 0, -7 * cost("gdp"))))
    made = migrate(live, terms(MODEL, CLIENT), [gone], ACT, NOW_S)
    assert made.terms.floors == {CLIENT: 7 * cost("gdp")}


def test_a_budget_that_comes_back_at_once_has_lost_nothing() -> None:
    spent = [account(CLIENT, "client:a", 7), account(CLIENT, "client:b", 5)]
    away = migrate(terms(CLIENT), terms(MODEL), spent, ACT, NOW_S).terms
    back = migrate(away, terms(CLIENT), spent, ACT, NOW_S + 1)
    assert back.terms.floors == {CLIENT: 0, MODEL: 12 * cost("gdp")} | {CLIENT: 0}
    assert back.accounts == ()


def test_a_budget_that_comes_back_counts_what_everybody_was_answered_meanwhile() -> None:
    spent = [account(CLIENT, "client:a", 7)]
    away = migrate(terms(CLIENT), terms(MODEL), spent, ACT, NOW_S).terms
    spent.append(account(MODEL, "model", 3))
    # A migration between, to a budget that is none of the two.
    away = migrate(away, terms(GROUP), spent, ACT, NOW_S + 1).terms
    spent.append(account(GROUP, "group:x", 2))
    back = migrate(away, terms(CLIENT), spent, ACT, NOW_S + 2).terms
    assert back.floors[CLIENT] == 5 * cost("gdp")
    assert back.floors[GROUP] == 10 * cost("gdp")
    assert back.floors[MODEL] == (7 + 2) * cost("gdp")


def test_floors_move_to_other_units_at_the_dearest_ratio() -> None:
    spent = [account(CLIENT, "client:a", 7), account(CLIENT, "client:b", 5, event="gaussian(10.0)")]
    away = migrate(terms(CLIENT), terms(MODEL), spent, ACT, NOW_S).terms
    made = migrate(away, terms(MODEL, filter_=RDP), spent, ACT, NOW_S + 1).terms
    true = 7 * cost(RDP) + 5 * cost(RDP, "gaussian(10.0)")
    assert true <= made.floors[MODEL] <= true * (1 + 1e-6)


def test_a_floor_counts_before_a_counter_is_raised() -> None:
    """Epsilon is of floor and counter together: each by itself would promise less than both."""
    live = replace(terms(CLIENT, filter_=RDP), floors={CLIENT: 40 * cost(RDP)})
    (before,) = spent = [account(CLIENT, "client:a", 50, filter_=RDP)]
    made = migrate(live, terms(CLIENT), spent, ACT, NOW_S)
    after = made.accounts[0].spend.spent + made.terms.floors[CLIENT]
    old, new = Filter("rdp", 8.0), Filter("gdp")
    assert new.epsilon(after, 1e-6) >= old.epsilon(before.spend.spent + 40 * cost(RDP), 1e-6)


def test_a_budget_with_a_period_only_needs_to_know_the_present_one() -> None:
    live = replace(terms(MODEL), past=replace(terms(MODEL).past, since_s=1_000_000, answered=99))
    spent = [account(MODEL, "model", 7)]
    during = migrate(live, terms(MODEL, DAILY), spent, ACT, 1_000_050.0).terms
    assert (during.floors, during.until) == ({DAILY: 7 * cost("gdp") + 99}, {DAILY: 1_000_100})
    later = migrate(live, terms(MODEL, DAILY), spent, ACT, 1_000_150.0).terms
    assert (later.floors, later.until) == ({DAILY: 7 * cost("gdp")}, {DAILY: 1_000_200})


def test_a_floor_ends_with_its_period() -> None:
    live = replace(terms(MODEL, DAILY), floors={DAILY: 5}, until={DAILY: 1_000_100})
    assert migrate(live, terms(MODEL, DAILY), [], ACT, 1_000_099.0).terms.floors == {DAILY: 5}
    assert migrate(live, terms(MODEL, DAILY), [], ACT, 1_000_100.0).terms.floors == {}


def test_after_periods_alone_nobody_knows_what_was_answered() -> None:
    spent = [account(DAILY, "client:a", 7, at_s=NOW_S)]
    assert migrate(terms(DAILY), terms(MODEL), spent, ACT, NOW_S).terms.floors[MODEL] == MOST
    through = migrate(terms(DAILY), terms(GROUP, filter_=RDP), spent, ACT, NOW_S).terms
    assert migrate(through, terms(MODEL), spent, ACT, NOW_S).terms.floors[MODEL] == MOST


def test_a_period_that_no_state_has_forgotten_is_known() -> None:
    """After everything was reset, periods that are still kept say what was answered since."""
    fresh = replace(terms(DAILY), past=replace(terms(DAILY).past, since_s=1_000_010))
    spent = [account(DAILY, "client:a", 7, at_s=1_000_020.0), account(DAILY, "client:a", 5, at_s=1_000_120.0)]
    assert migrate(fresh, terms(MODEL), spent, ACT, 1_000_149.0).terms.floors[MODEL] == 12 * cost("gdp")
    assert migrate(fresh, terms(MODEL), spent, ACT, 1_000_150.0).terms.floors[MODEL] == MOST


def test_without_any_budget_in_force_nobody_knows_what_was_answered() -> None:
    retired = migrate(terms(MODEL), terms(), [account(MODEL, "model", 7)], ACT, NOW_S).terms
    assert retired.floors == {MODEL: 0}
    assert migrate(retired, terms(MODEL), [account(MODEL, "model", 7)], ACT, NOW_S + 1).terms.floors[MODEL] == MOST


def test_acts_are_kept_in_order() -> None:
    live = replace(terms(MODEL), acts=(Act("reset", "", "first"),))
    assert [act.reason for act in migrate(live, terms(MODEL), [], ACT, NOW_S).terms.acts] == ["first", "a good reason"]
