"""A ledger's terms: what they write, what they read back, and what a policy would change of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guard.privacy.terms import Act, Past, Terms, loads, period_s

TERMS = Terms(
    "rdp(8.0)",
    {"privacy/model": 1e-6, "privacy/client/86400s": 1e-5},
    ("dp_gaussian/l2/90",),
    floors={"privacy/client/86400s": 12},
    acts=(Act("reset", "2027-01-31T10:00:00+00:00", "SEC-412: test traffic", "privacy/model", "model"),),
    until={"privacy/client/86400s": 86_400},
    past=Past(5, 7, {"privacy/model": 3}, ("gaussian(2.5)",), (1e-7,)),
)


def test_terms_come_back_as_they_were_written() -> None:
    assert loads(TERMS.dumps()) == TERMS
    assert loads(TERMS.dumps()).dumps() == TERMS.dumps()


def test_equal_terms_write_equal_bytes_whatever_the_order() -> None:
    other = replace(TERMS, deltas=dict(reversed(TERMS.deltas.items())))
    assert other.dumps() == TERMS.dumps()


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'"gdp"', TERMS.dumps()[:-1], TERMS.dumps().replace(b'"floors"', b'"flaws"')]
)
def test_what_are_no_terms_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="these are no terms of a ledger"):
        loads(data)


def test_a_policy_that_agrees_changes_nothing_whatever_operators_did() -> None:
    assert Terms(TERMS.filter, TERMS.deltas, TERMS.mechanisms).differs(TERMS) == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (replace(TERMS, filter="gdp"), "the accounting changes from rdp(8.0) to gdp"),
        (replace(TERMS, deltas=TERMS.deltas | {"privacy/group": 1e-6}), "the budget privacy/group is new"),
        (replace(TERMS, deltas={"privacy/model": 1e-6}), "the budget privacy/client/86400s is gone"),
        (
            replace(TERMS, deltas=TERMS.deltas | {"privacy/model": 1e-7}),
            "the delta of privacy/model changes from 1e-06 to 1e-07",
        ),
        (
            replace(TERMS, mechanisms=("dp_laplace/l1/90",)),
            "the mechanism changes from dp_gaussian/l2/90 to dp_laplace/l1/90",
        ),
    ],
)
def test_what_a_policy_would_change_is_said(wanted: Terms, said: str) -> None:
    assert wanted.differs(TERMS) == [said]


def test_a_floor_of_a_period_ends_with_it_and_others_never() -> None:
    terms = replace(TERMS, floors={"privacy/model": 3, "privacy/client/86400s": 12})
    assert terms.floors_at(86_399.9) == terms.floors
    assert terms.floors_at(86_400.0) == {"privacy/model": 3}


@pytest.mark.parametrize(
    ("name", "length_s"),
    [("privacy/model", 0), ("privacy/client/60s", 60), ("privacy/client/s", 0), ("privacy/client/60s/x", 0)],
)
def test_a_period_is_read_from_the_name(name: str, length_s: int) -> None:
    assert period_s(name) == length_s
