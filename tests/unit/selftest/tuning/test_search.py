"""The search: the cheapest choice that holds every gate, budgets only as tight as needed, an unbeaten front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from guard.policy.gates import Gate
from guard.policy.load import load_plan, load_policy
from guard.policy.schema import Policy, Route
from guard.selftest.results import Figure, Report, Row, Utility
from guard.selftest.rows import judge
from guard.selftest.tuning.search import Found, Point, Wanted, front, search
from guard.selftest.tuning.space import Candidate, Spec, candidates

NONE: tuple[Spec, ...] = ()
GRID: tuple[Spec, ...] = ({"kind": "grid", "step": 0.05},)
COARSE: tuple[Spec, ...] = ({"kind": "grid", "step": 0.2},)
LABELS: tuple[Spec, ...] = ({"kind": "label_only"},)
TABLE = [(NONE, 0.0, 0.0), (GRID, 0.06, 0.03), (COARSE, 0.13, 0.05), (LABELS, 0.26, 0.14)]
PRICES = {str(Candidate(defences)): price for defences, price, _ in TABLE}
DISTANCES = {str(Candidate(defences)): distance for defences, _, distance in TABLE}
BUDGET: dict[float | None, float] = {None: 0.0, 3.0: 0.02, 1.0: 0.05}
CHOICES = [Candidate(d, a) for d, _, _ in TABLE for a in BUDGET if d is not LABELS or a is None]


class Table:
    """A bench that answers from the tables above."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        self.gates = gates
        self.asked: list[str] = []

    def price(self, candidate: Candidate) -> Sequence[Utility]:
        return [Utility("toy", 0.0, PRICES[str(Candidate(candidate.defences))], None, None, 1.0, 2.0, 0.0, 100)]

    def attack(self, candidate: Candidate, names: Sequence[str]) -> Report:
        self.asked.append(str(candidate))
        value = DISTANCES[str(Candidate(candidate.defences))] + BUDGET[candidate.allowance]
        figure = Figure(value, value, value, "surrogate_l1", "", 200, {"surrogate_l1": (value, value, value)})
        judged = [judge(gate, [figure]) for gate in self.gates if gate.attack]
        row = cast("Row", type("Row", (), {"adaptive": figure, "metric": "surrogate_l1", "gates": judged}))
        return cast("Report", type("Report", (), {"attacks": [row], "gates": judged, "partial": False}))


def gate(**bound: float) -> Gate:
    return Gate.model_validate({"attack": "equation_solving_softmax", "metric": "surrogate_l1", **bound})


def found(*gates: Gate, bench: Table | None = None, **wanted: object) -> Found:
    made = Wanted(gates, "equation_solving_softmax", "surrogate_l1", **wanted)  # pyright: ignore[reportArgumentType]  # named by each test
    return search(made, CHOICES, bench or Table(gates))


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (0.0, "no defence"),
        (0.02, "no defence, 3 graded a feature"),
        (0.06, "grid 0.05, 1 graded a feature"),
        (0.1, "grid 0.2, 1 graded a feature"),
        (0.12, "label_only"),
    ],
)
def test_the_cheapest_choice_with_the_loosest_budget_that_holds_is_chosen(least: float, expected: str) -> None:
    result = found(gate(min=least))
    assert result.best is not None
    assert str(result.best.candidate) == expected
    assert result.best.holds is True


def test_nothing_is_chosen_when_nothing_holds() -> None:
    result = found(gate(min=0.5))
    assert result.best is None
    assert not result.partial
    assert sum(p.holds is False for p in result.points) == len(CHOICES)


def test_the_price_has_a_limit() -> None:
    result = found(gate(min=0.12), max_mean_l1=0.2)
    assert result.best is None
    dear = Gate.model_validate({"utility": "mean_l1", "max": 0.1})
    assert found(gate(min=0.08), dear).best is not None
    assert found(gate(min=0.1), dear).best is None


def test_the_least_leakage_within_a_price_is_chosen() -> None:
    result = found(max_mean_l1=0.14, objective="leakage")
    assert result.best is not None
    assert result.best.candidate.defences == COARSE


def test_a_search_that_runs_out_of_time_is_partial() -> None:
    ticks = iter(range(0, 10_000, 40))
    gates = (gate(min=0.12),)
    wanted = Wanted(gates, "equation_solving_softmax", "surrogate_l1", minutes=5)
    result = search(wanted, CHOICES, Table(gates), clock=lambda: float(next(ticks)))
    assert (result.partial, result.best) == (True, None)


def test_an_interrupt_keeps_what_was_found() -> None:
    class Interrupted(Table):
        def attack(self, candidate: Candidate, names: Sequence[str]) -> Report:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().attack(candidate, names)

    result = found(gate(min=0.12), bench=Interrupted([gate(min=0.12)]))
    assert result.partial
    assert len([p for p in result.points if p.leakage is not None]) == 2


def test_nothing_on_the_front_is_beaten() -> None:
    def point(price: float, leakage: float) -> Point:
        return Point(Candidate(()), [Utility("toy", 0.0, price, None, None, 0, 0, 0, 1)], leakage)

    points = [point(0.0, 0.0), point(0.05, 0.03), point(0.06, 0.02), point(0.1, 0.09), point(0.2, 0.09)]
    assert [(p.price[1], p.leakage) for p in front(points, "surrogate_l1")] == [(0.0, 0.0), (0.05, 0.03), (0.1, 0.09)]
    assert [(p.price[1], p.leakage) for p in front(points, "auc")] == [(0.0, 0.0)]


def test_candidates_suit_the_route_and_keep_its_other_budgets() -> None:
    policy = load_policy("balanced", env={}).policy
    (route,) = policy.routes
    made = list(candidates(policy, route))
    assert Candidate(LABELS) in made
    assert not any(c.allowance for c in made if c.defences == LABELS)
    changed = Candidate(GRID, 1.0).applied(policy, route).routes[0]
    assert [(b.kind, b.per, b.mode) for b in changed.budgets] == [
        ("rows", "client", "enforce"),
        ("information", "client", "shadow"),
        ("information", "client", "enforce"),
        ("information", "group", "enforce"),
    ]
    assert changed.inputs == route.inputs


def test_a_route_that_answers_values_is_tried_with_what_suits_values() -> None:
    policy = load_policy("balanced", env={}).policy
    outputs = policy.routes[0].outputs.model_copy(update={"kind": "value"})
    route = policy.routes[0].model_copy(update={"outputs": outputs, "defences": (), "budgets": ()})
    made = list(candidates(policy.model_copy(update={"routes": (route,)}), route, [None]))
    kinds = {str(spec["kind"]) for c in made for spec in c.defences}
    assert kinds == {"round"}
    spread = list(candidates(policy.model_copy(update={"routes": (route,)}), route, [None], spread=140.0))
    assert [spec["width"] for c in spread for spec in c.defences if spec["kind"] == "bin"] == [14.0, 35.0, 70.0]


def kinds_of(policy: Policy, route: Route, *, answers: bool | None = None) -> set[str]:
    return {str(c) for c in candidates(policy, route, [None], answers=answers)}


def test_what_learns_from_calibration_answers_is_tried_where_there_are_some() -> None:
    policy = load_policy("balanced", env={}).policy
    (route,) = policy.routes
    learning = {"codebook 0.1", "codebook 0.2", "grid auto"}
    assert not learning & kinds_of(policy, route)
    assert not learning & kinds_of(policy, route, answers=True)  # there is no profile that they could come from
    profiled = route.model_copy(update={"profile": "p.json"})
    policy = policy.model_copy(update={"routes": (profiled,)})
    assert learning <= kinds_of(policy, profiled)
    assert not learning & kinds_of(policy, profiled, answers=False)  # the lab


def test_labels_are_changed_near_the_boundary_where_classes_are_declared_and_what_is_dominated_is_not_tried() -> None:
    policy = load_policy("balanced", env={}).policy
    (route,) = policy.routes
    changed = "boundary_response 0.05 > label_only"
    assert changed not in kinds_of(policy, route)
    named = route.model_copy(update={"outputs": route.outputs.model_copy(update={"classes": ("a", "b")})})
    found = kinds_of(policy.model_copy(update={"routes": (named,)}), named)
    assert changed in found
    assert not any("bounded_shift" in one or "reverse_sigmoid" in one for one in found)


def test_a_ladder_stays_as_it_is() -> None:
    policy = load_policy("strict", env={}).policy
    (route,) = policy.routes
    assert route.ladder
    assert {c.applied(policy, route).routes[0].ladder for c in candidates(policy, route, [None])} == {route.ladder}
    assert load_plan("balanced", api="mlflow", env={})
