"""The oracle's own part, with a stand-in for opacus: what it asks, and what it makes of refusals and of no numbers.

`tests/real/test_planner_oracle.py` asks opacus itself.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType
from typing import Any

import pytest

from guard.privacy import oracle
from guard.privacy.gaussian import epsilon_of, mu_of

REQUEST: dict[str, Any] = {"noise_multipliers": [20.648], "answers": 1000, "epsilon": 8.0, "delta": 1e-6}
History = list[tuple[float, float, int]]


class Accountant:
    """Answers by the exact formula, and remembers what it was asked."""

    asked: list[tuple[History, float | None]]
    history: History

    def get_epsilon(self, *, delta: float, eps_error: float | None = None) -> float:
        warnings.warn("an order at the end of the list", stacklevel=2)
        type(self).asked.append((self.history, eps_error))
        return epsilon_of(delta, sum(steps / noise**2 for noise, _, steps in self.history) ** 0.5)


@pytest.fixture
def opacus(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package, accountants, utils = (ModuleType(name) for name in ("opacus", "opacus.accountants", "opacus.a.utils"))

    def solve(*, target_epsilon: float, target_delta: float, sample_rate: float, steps: int, **_: object) -> float:
        assert sample_rate == 1.0
        return steps**0.5 / mu_of(target_epsilon, target_delta)

    vars(package).update(__version__="0.1")
    vars(utils).update(get_noise_multiplier=solve)
    for name in ("RDPAccountant", "PRVAccountant"):
        setattr(accountants, name, type(name, (Accountant,), {"asked": []}))
    for name, module in (("opacus", package), ("opacus.accountants", accountants), ("opacus.accountants.utils", utils)):
        monkeypatch.setitem(sys.modules, name, module)
    return accountants


def test_every_figure_is_of_full_batches_of_the_answers_that_were_asked_about(opacus: ModuleType) -> None:
    figures = oracle.answer(REQUEST)
    assert figures["rdp"]["epsilon"] == pytest.approx(8.0, rel=1e-4)
    assert figures["rdp"]["answers"] == 1000
    assert figures["rdp"]["noise_multiplier"] == pytest.approx(20.648, rel=1e-4)
    assert figures["prv"] == {
        "epsilon": figures["rdp"]["epsilon"],
        "error": 0.04,
        "noise_multiplier": pytest.approx(20.648, rel=1e-4),
        "steps": figures["prv"]["steps"],
    }
    assert figures["notes"] == []
    assert opacus.PRVAccountant.asked[0][1] == 0.04
    assert {rate for history, _ in opacus.RDPAccountant.asked for _, rate, _ in history} == {1.0}


def test_steps_that_are_put_together_weigh_as_much(opacus: ModuleType) -> None:
    figures = oracle.answer({**REQUEST, "noise_multipliers": [3e4, 4e4], "answers": 10**7, "epsilon": 1.0})
    (history, _), *_ = opacus.PRVAccountant.asked
    assert history[0][2] == figures["prv"]["steps"] < 10**7
    assert sum(steps / noise**2 for noise, _, steps in history) == pytest.approx(1e7 * (3e4**-2 + 4e4**-2))


def test_no_answer_fits_where_one_costs_too_much(opacus: ModuleType) -> None:
    assert oracle.answer({**REQUEST, "noise_multipliers": [0.1], "answers": 1})["rdp"]["answers"] == 0


def test_a_delta_that_floating_point_cannot_resolve_has_no_numerical_figure(opacus: ModuleType) -> None:
    figures = oracle.answer({**REQUEST, "delta": 1e-12})
    assert figures["prv"]["epsilon"] is None
    assert figures["prv"]["noise_multiplier"] is None
    assert [note.partition(" gives")[0] for note in figures["notes"]] == [
        "the PRV accountant",
        "get_noise_multiplier by PRV",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_figure(value: float, opacus: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Accountant, **_: object) -> float:
        return value

    monkeypatch.setattr(opacus.PRVAccountant, "get_epsilon", broken)
    figures = oracle.answer(REQUEST)
    assert figures["prv"]["epsilon"] is None
    assert figures["notes"] == [f"the PRV accountant gives {value}"]


@pytest.mark.parametrize("error", [ValueError("small"), RuntimeError("mean"), MemoryError(), OverflowError()])
def test_an_accountant_that_gives_up_is_named(
    error: Exception, opacus: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Accountant, **_: object) -> float:
        raise error

    monkeypatch.setattr(opacus.PRVAccountant, "get_epsilon", broken)
    figures = oracle.answer(REQUEST)
    assert figures["prv"]["epsilon"] is None
    assert figures["notes"] == [f"the PRV accountant gives no figure: {type(error).__name__}: {error}"]
    assert figures["rdp"]["answers"] == 1000
