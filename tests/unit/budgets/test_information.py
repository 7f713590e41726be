from __future__ import annotations

import pytest

from guard.budgets.information import Information
from guard.errors import InvariantError
from guard.evidence.meter import MARGIN
from guard.model.outputs import Outputs

DIGITS = Outputs(classes=tuple(range(10)))
BARE = Outputs()


def paths(budget: Information, outputs: Outputs = DIGITS) -> list[str]:
    """Return where `budget` is refused on a route with `outputs`."""
    return [problem.path for problem in budget.check(outputs)]


@pytest.mark.parametrize(("per_dimension", "dimension", "unknowns"), [(1 / 3, 21, 24), (1, 64, 72), (3, 192, 216)])
def test_with_parameters_the_limit_follows_the_unknowns_and_not_the_query(
    per_dimension: float, dimension: int, unknowns: int
) -> None:
    by_dimension = Information(per_dimension=per_dimension)
    by_unknowns = Information(per_dimension=per_dimension, parameters=650).on(DIGITS)
    assert by_dimension.scales
    assert not by_unknowns.scales
    assert [by_dimension.limit_for(64), by_unknowns.limit_for(64), by_unknowns.limit_for(6400)] == [
        dimension,
        unknowns,
        unknowns,
    ]


def test_a_network_of_a_million_leaves_room_that_a_regression_does_not() -> None:
    assert Information(parameters=10**6).on(DIGITS).limit_for(64) == 37037
    assert Information(parameters=2).on(DIGITS).limit_for(64) == 1


@pytest.mark.parametrize(
    ("outputs", "equations"),
    [
        (DIGITS, 9),
        (Outputs(kind="logprobs", classes=("a", "b")), 1),
        (Outputs(kind="logits", classes=("a", "b")), 2),
        (Outputs(kind="value"), 1),
    ],
)
def test_an_answer_reveals_what_its_outputs_declare(outputs: Outputs, equations: int) -> None:
    assert Information(parameters=650).on(outputs).equations == equations
    assert Information(parameters=650, equations=4).on(outputs).equations == 4
    assert Information().on(outputs).equations is None


def test_what_an_answer_reveals_must_be_known() -> None:
    then = "deny"
    for outputs in (BARE, Outputs(kind="embedding", norm=1.0)):
        problems = Information(parameters=650, then=then).check(outputs)
        assert [problem.path for problem in problems] == ["equations"]
        assert "outputs.classes" in problems[0].hint
        assert Information(parameters=650, equations=9, then=then).check(outputs) == []
    with pytest.raises(InvariantError):
        Information(parameters=650).limit_for(64)


def test_keys_that_would_do_nothing_are_refused() -> None:
    assert paths(Information(equations=9)) == ["equations"]
    assert paths(Information(parameters=650, graded_answers=10)) == ["parameters"]
    assert paths(Information(parameters=650, graded_answers=10, meter=0.9)) == []
    assert paths(Information(parameters=650)) == []


def test_a_hard_limit_may_not_lie_below_a_limit_that_is_known() -> None:
    assert paths(Information(parameters=650, hard_limit=23)) == ["hard_limit"]
    assert paths(Information(parameters=650, hard_limit=24)) == []
    assert paths(Information(parameters=650, hard_limit=23), BARE) == ["equations"]


def test_the_meter_closes_when_its_reading_with_the_margin_reaches_it() -> None:
    budget = Information(meter=0.75)
    assert budget.needs_profile
    assert not budget.closes(0.75 - MARGIN - 0.01)
    assert budget.closes(0.75 - MARGIN)
    assert not budget.closes(0.0)
    assert not Information().closes(1.0)
    assert not Information().needs_profile


def test_equations_revealed_count_against_the_meter_in_the_ledger() -> None:
    budget = Information(parameters=650, meter=0.9, per_dimension=3).on(DIGITS)
    limit = budget.limit_for(64)
    assert limit == 65
    assert budget.charged(0.0, limit) == pytest.approx(0.9)
    assert budget.charged(0.0, limit + 1) > 0.9
    assert Information(parameters=650, meter=0.9, graded_answers=10).on(DIGITS).limit_for(64) == 10


def test_the_charge_is_the_worse_of_reading_and_equations() -> None:
    budget = Information(parameters=650, meter=0.9).on(DIGITS)
    assert budget.charged(0.0, 0) == 0.0
    assert budget.charged(0.3, 13) == pytest.approx(0.3 + MARGIN)
    assert budget.charged(0.01, 65) == pytest.approx(0.9)
    assert budget.charged(0.95, 650) == 1.0
    assert Information(meter=0.9).charged(0.3, 10**6) == pytest.approx(0.3 + MARGIN)


def test_a_meter_needs_probabilities_and_room_above_its_margin() -> None:
    assert paths(Information(meter=0.9), Outputs(kind="logits")) == ["then", "meter"]
    assert paths(Information(meter=MARGIN)) == ["meter"]
    assert paths(Information(meter=0.9)) == []


def test_no_edit_of_a_limit_changes_the_counters_name() -> None:
    edits = (
        Information(),
        Information(graded_answers=5),
        Information(parameters=650),
        Information(parameters=650, equations=3).on(DIGITS),
        Information(meter=0.9, per_dimension=3),
    )
    assert {budget.name for budget in edits} == {"information/client"}
