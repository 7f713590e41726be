"""What a query may be, against clients that spell it so that the check would not see it."""

from __future__ import annotations

from typing import Any

import pytest

from guard.errors import ClientError
from guard.model.domain import Inputs
from guard.model.queries import Queries

Rows = list[Any]  # Any: decoded JSON


def admitted(inputs: Inputs, rows: Rows) -> bool:
    try:
        inputs.admit(Queries(len(rows), rows))
    except ClientError as error:
        return error.status != 422
    return True


@pytest.mark.parametrize(
    "rows",
    [
        [[1, None]],
        [[[1, None], [2, 3]]],
        [{"x": [1, None]}],
        [{"x": {"y": [1.0, float("nan")]}, "z": "text"}],
        [{"a": 1, "b": "x"}, {"a": 1}],
        [["nan", 1]],
        [[" -Infinity", 1]],
        [None],
    ],
    ids=str,
)
def test_no_missing_feature_hides_in_what_is_no_matrix(rows: Rows) -> None:
    assert not admitted(Inputs(), rows)


@pytest.mark.parametrize(
    "rows", [["a text"], [["red", 1]], [{"a": 1, "b": "x"}, {"b": "y", "a": 2}], [[[1, 2], [3, 4]]], [[True, 1]]]
)
def test_complete_queries_of_any_kind_are_inside(rows: Rows) -> None:
    assert admitted(Inputs(), rows)


@pytest.mark.parametrize("bound", [{"size": 2}, {"low": 0}, {"high": 9}, {"step": 1}], ids=str)
@pytest.mark.parametrize("rows", [["a text"], [{"x": [1, 2], "junk": "a"}], [[True, 99]], [["99", 1]]], ids=str)
def test_bounds_hold_for_every_row_however_it_is_spelled(bound: dict[str, float], rows: Rows) -> None:
    assert not admitted(Inputs.model_validate(bound), rows)
    assert admitted(Inputs.model_validate(bound), [[1, 2]])


def test_an_opaque_body_is_outside_bounds_and_inside_none() -> None:
    opaque = Queries(1, None, opaque=b"\x89PNG")
    assert Inputs().admit(opaque) is None
    with pytest.raises(ClientError):
        Inputs(size=2).admit(opaque)
