"""One query, one key: whatever its spelling and whatever stands beside it."""

from __future__ import annotations

from typing import Any

import pytest

from guard.model.queries import Queries

Row = Any  # Any: decoded JSON


@pytest.mark.parametrize("beside", [[[3, 4]], [["a", 4]], ["a text"], [[3]], [[None, 4]], [{"x": 1}]], ids=str)
def test_a_row_keeps_its_bytes_whatever_stands_beside_it(beside: list[Row]) -> None:
    alone = Queries(1, [[1, 2]]).row_bytes()
    assert Queries(2, [[1, 2], *beside]).row_bytes()[:1] == alone
    assert Queries(2, [*beside, [1, 2]]).row_bytes()[1:] == alone


@pytest.mark.parametrize("row", [[1.0, 0.0], [True, 0], [1, False], [1, -0.0], [[1], [0]]], ids=str)
def test_a_row_has_the_same_bytes_however_it_is_spelled(row: Row) -> None:
    assert Queries(1, [row]).row_bytes() == Queries(1, [[1, 0]]).row_bytes()
    assert Queries(2, [row, "a text"]).row_bytes()[0] == Queries(1, [[1, 0]]).row_bytes()[0]


@pytest.mark.parametrize("row", [["1", 0], [None, 0], {"a": 1, "b": 0}, [0, 1], [1, 0, 0], "[1,0]"], ids=str)
def test_another_query_has_other_bytes(row: Row) -> None:
    assert Queries(1, [row]).row_bytes() != Queries(1, [[1, 0]]).row_bytes()
