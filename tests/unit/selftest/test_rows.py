"""Rows: the strongest attacker is the headline, a failed control proves nothing, gates are judged on the strongest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from guard.policy.gates import Gate
from guard.selftest.attacks.registry import attack_named
from guard.selftest.base import Outcome, Tally, Try
from guard.selftest.cell import Cell, Done, Way
from guard.selftest.measures import Measure, exact
from guard.selftest.results import Row, Utility
from guard.selftest.rows import make_row, utility_gates

ATTACK = attack_named("equation_solving_softmax")  # undefended it must reach surrogate_l1 <= .01


def done(
    way: Way, *tries: tuple[str, float, bool], wrapper: str = "", seed: int = 0, tally: Tally | None = None
) -> Done:
    made = [Try(how, {"surrogate_l1": Measure(v, v - 0.01, v + 0.02), "agreement": exact(1 - v)}, plain)
            for how, v, plain in tries]  # fmt: skip
    outcome = Outcome(made, 200, [(100, tries[0][1] * 2), (200, tries[0][1])], {"roc": [[0, 0]]}, ["a note"])
    return Done(
        Cell("equation_solving_softmax", way, wrapper, seed, "digits", "http://x"), outcome, "", tally or Tally(), 1
    )


def broken(way: Way, reason: str, wrapper: str = "") -> Done:
    return Done(Cell("equation_solving_softmax", way, wrapper, 0, "digits", "http://x"), None, reason, Tally(), 1)


CONTROL = done("undefended", ("equations", 0.0, True))
PLAIN = done("defended", ("equations", 0.09, True), ("cross-entropy", 0.07, True), ("interval", 0.05, False))
WRAPPED = done("defended", ("equations", 0.04, True), ("interval", 0.06, False), wrapper="averaging")


def row(cells: Sequence[Done], *gates: Gate, reason: str | None = None) -> Row:
    return make_row(ATTACK, cells, gates, reason)


def gate(**bound: float) -> Gate:
    return Gate.model_validate({"attack": "equation_solving_softmax", "metric": "surrogate_l1", **bound})


def test_the_headline_is_the_strongest_attacker_of_all() -> None:
    made = row([CONTROL, PLAIN, WRAPPED])
    assert made.undefended is not None
    assert made.defended is not None
    assert made.adaptive is not None
    assert (made.undefended.value, made.defended.value, made.adaptive.value) == (0.0, 0.07, 0.04)
    assert (made.defended.wrapper, made.adaptive.wrapper) == ("", "averaging")
    assert [f.wrapper for f in made.attackers] == ["averaging", "interval", "averaging + interval", ""]
    assert made.adaptive.measures["agreement"][0] == 0.96


def test_a_gate_is_judged_on_the_strongest_attacker() -> None:
    held, lost = row([CONTROL, PLAIN], gate(min=0.05)), row([CONTROL, PLAIN, WRAPPED], gate(min=0.05))
    assert (held.verdict, held.held, held.gates[0].value) == ("held", True, 0.05)
    assert (lost.verdict, lost.held, lost.gates[0].value) == ("not held", False, 0.04)
    both = row([CONTROL, PLAIN], gate(min=0.04), gate(min=0.06))
    assert both.gate is both.gates[1]
    assert held.gate is held.gates[0]
    assert row([CONTROL, PLAIN]).gate is None


def test_a_row_that_no_gate_promises_is_not_held_and_says_what_helps() -> None:
    made = row([CONTROL, PLAIN])
    assert (made.verdict, made.held, made.gates) == ("not held", None, [])
    assert made.helps


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([done("undefended", ("equations", 0.02, True)), PLAIN], "did not succeed on the undefended model"),
        ([broken("undefended", "no labels"), PLAIN], "undefended: no labels"),
        ([CONTROL, broken("defended", "the API refused")], "through Guard: the API refused"),
        ([CONTROL], "it did not run"),
        ([], "it did not run"),
    ],
)
def test_what_proves_nothing_is_unresolved(cells: list[Done], said: str) -> None:
    made = row(cells, gate(min=0.0))
    assert made.verdict == "unresolved"
    assert made.held is None
    assert said in made.reason
    assert (made.gates[0].held, made.gates[0].value) == (None, None)


def test_an_attack_that_cannot_run_says_why() -> None:
    made = row([], reason="the route's outputs are embeddings")
    assert (made.verdict, made.reason) == ("unresolved", "the route's outputs are embeddings")


def test_a_wrapper_that_cannot_run_leaves_the_row_standing() -> None:
    made = row([CONTROL, PLAIN, broken("defended", "no clock to turn", "slow_pacing")])
    assert made.verdict == "not held"
    assert "defended + slow_pacing: no clock to turn" in made.notes


def test_without_an_undefended_model_there_is_no_control() -> None:
    made = row([PLAIN], gate(min=0.01))
    assert (made.undefended, made.control_met, made.verdict) == (None, None, "held")


def test_seeds_are_averaged_and_their_intervals_spanned() -> None:
    made = row([CONTROL, PLAIN, done("defended", ("equations", 0.11, True), ("interval", 0.01, False), seed=1)])
    assert made.defended is not None
    assert made.adaptive is not None
    assert (round(made.defended.value, 6), made.defended.low, made.defended.high) == (0.09, 0.07 - 0.01, 0.11 + 0.02)
    assert made.adaptive.value == pytest.approx(0.03)


def test_floors_steps_curves_and_artefacts_are_carried() -> None:
    tally = Tally()
    for i in range(100):
        tally.answered("0", label=i >= 64, seen=False)
    tally.first_refusal_at = 90
    floors = [done("zero_query", ("own", 0.17, True)), done("label_only", ("equations", 0.14, True))]
    guarded = done("defended", ("equations", 0.1, True), tally=tally)
    made = row([CONTROL, guarded, *floors, WRAPPED])
    assert {name: figure.value for name, figure in made.floors.items()} == {"zero_query": 0.17, "label_only": 0.14}
    assert made.detected_at == {"label_only": 65, "deny": 90}
    tally.first_denial_at = 95
    assert row([CONTROL, guarded]).detected_at == {"label_only": 65, "deny": 90, "denied": 95}
    tally.first_refusal_at = 95  # the ladder's denial was the first refusal of all
    assert row([CONTROL, guarded]).detected_at == {"label_only": 65, "denied": 95}
    assert set(made.curves) == {"undefended", "defended", "zero_query", "label_only", "adaptive"}
    assert made.artefacts["undefended"] == {"roc": [[0, 0]]}


def test_utility_is_judged_on_the_worst_model() -> None:
    users = [
        Utility(name, changed, 0.05, None, None, 1.0, 2.0, 0.0, 100) for name, changed in (("a", 0.0), ("b", 0.02))
    ]
    gates = [
        Gate.model_validate({"utility": "top1_changed", "max": 0.01}),
        Gate.model_validate({"utility": "mean_l1", "max": 0.06}),
        Gate.model_validate({"utility": "calibration_error", "max": 0.1}),
        gate(min=0.1),
    ]
    judged = utility_gates(gates, users)
    assert [(g.metric, g.value, g.held) for g in judged] == [
        ("top1_changed", 0.02, False),
        ("mean_l1", 0.05, True),
        ("calibration_error", None, None),
    ]
