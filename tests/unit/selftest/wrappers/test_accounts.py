"""Accounts, keys and days: each breaks one kind of budget, and not the next one up."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from guard.selftest.api import is_label
from guard.selftest.base import Api, Refused, Rows, Unresolved, World
from guard.selftest.measures import Floats
from guard.selftest.wrappers import WRAPPERS
from tests.unit.selftest.support import ModelApi, linear_victim, world

VICTIM = linear_victim()
X = cast("Floats", VICTIM.test_x)
BUDGET = 40


class Shared(ModelApi):
    """Spends a budget that it shares with others."""

    def __init__(self, purse: list[int], budget: int, then: str) -> None:
        super().__init__(
            VICTIM.predict, graded=budget if then == "labels" else None, limit=None if then == "labels" else budget
        )
        self.purse = purse

    def ask(self, x: Rows) -> Floats:
        """Ask with what is left of the shared budget."""
        self.answered = self.purse[0]
        try:
            return super().ask(x)
        finally:
            self.purse[0] = self.answered


def budgets_per(purse_of: Callable[[int], object], budget: int = BUDGET, *, then: str = "labels") -> World:
    """Return a world whose accounts share budgets when they share a purse."""
    purses: dict[object, list[int]] = {}
    apis: dict[int, Api] = {}

    def account(number: int) -> Api:
        purse = purses.setdefault(purse_of(number), [0])
        return apis.setdefault(number, Shared(purse, budget, then))

    return world(VICTIM, api=account(0), account=account)


def customer(number: int) -> object:
    """Name an account's customer, as the lab's keys do: from 32 on they are one."""
    return number if number < 32 else "shared"


def key(number: int) -> object:
    """Name a key."""
    return number


def everybody(number: int) -> object:
    """Name all accounts alike."""
    del number
    return "everybody"


def graded(around: World, rows: int = 150) -> int:
    """Return how many of some queries are answered with more than a label."""
    try:
        answers = around.api.ask(X[:rows])
    except Refused as error:
        answers = np.empty((0, 3)) if error.answers is None else error.answers
    return int((~is_label(answers)).sum()) if len(answers) else 0


@pytest.mark.parametrize("then", ["labels", "refusal"])
@pytest.mark.parametrize(
    ("wrapper", "broken", "held"), [("split_accounts", customer, everybody), ("split_keys", key, customer)]
)
def test_splitting_breaks_budgets_of_its_level_only(
    wrapper: str, broken: Callable[[int], object], held: Callable[[int], object], then: str
) -> None:
    assert graded(budgets_per(broken, then=then)) == BUDGET
    assert graded(WRAPPERS[wrapper](budgets_per(broken, then=then))) == 150
    assert graded(WRAPPERS[wrapper](budgets_per(held, then=then))) <= BUDGET


def test_split_answers_belong_to_their_rows() -> None:
    around = WRAPPERS["split_accounts"](budgets_per(customer))
    assert np.allclose(around.api.ask(X[:100]), VICTIM.predict(X[:100]))
    assert around.api.asked == 100


def test_split_returns_what_it_had_when_everything_is_spent() -> None:
    around = WRAPPERS["split_accounts"](budgets_per(customer, 10, then="refusal"))
    with pytest.raises(Refused) as caught:
        around.api.ask(X[:150])
    answers = caught.value.answers
    assert answers is None or np.allclose(answers, VICTIM.predict(X[: len(answers)]))


def test_other_accounts_of_an_attack_are_split_too_and_run_out() -> None:
    around = WRAPPERS["split_keys"](budgets_per(customer))
    assert around.account(1).ask(X[:20]).shape == (20, 3)
    with pytest.raises(Unresolved):
        around.account(2)


def windowed(days: list[int], then: str, *, forgets: bool = True) -> World:
    """Return a world whose budget is new every day, or for ever."""
    api = Shared([0], BUDGET, then)

    def pace() -> None:
        days.append(1)
        if forgets:
            api.purse[0] = 0

    return world(VICTIM, api=api, pace=pace)


@pytest.mark.parametrize("then", ["labels", "refusal"])
def test_pacing_breaks_budgets_with_a_window(then: str) -> None:
    days: list[int] = []
    around = WRAPPERS["slow_pacing"](windowed(days, then))
    assert np.allclose(around.api.ask(X[:150]), VICTIM.predict(X[:150]))
    assert 3 <= len(days) <= 5


@pytest.mark.parametrize(("then", "most"), [("labels", 2), ("refusal", 30)])
def test_pacing_does_not_break_budgets_for_ever(then: str, most: int) -> None:
    days: list[int] = []
    around = WRAPPERS["slow_pacing"](windowed(days, then, forgets=False))
    assert graded(around) == BUDGET
    assert len(days) <= most


def test_pacing_needs_a_clock() -> None:
    with pytest.raises(Unresolved):
        WRAPPERS["slow_pacing"](world(VICTIM))
