"""Settling and refunds, where the contract suite cannot look: what a refund does when a receipt leaves it open."""

from __future__ import annotations

import pytest

from guard.model.ledger import Admission, Charge
from guard.state.counters import Counter, GivenBack, escaped, given_back, settle


def rows(budget: str, amount: int, limit: int = 10) -> Charge:
    return Charge(budget, "client:a", 0, limit, amount, "label_only")


@pytest.mark.parametrize("before", [5, 10])
def test_a_refund_that_cannot_know_gives_less(before: int) -> None:
    """5 + 5 fitted and 10 + 5 did not, and both leave 10: the receipt is the same."""
    charges = [rows("full", 11), rows("open", 5)]
    counters = [Counter(), Counter(before, before)]
    receipt = settle(charges, counters)
    assert (receipt.admission, receipt.spends[1].spent) == (Admission.LABEL_ONLY, 10)
    assert given_back(charges, receipt)[1] == GivenBack(0, 5)


def test_a_refund_that_knows_gives_everything() -> None:
    charges = [rows("before", 5), rows("full", 11), rows("still fits", 2), rows("over", 12)]
    counters = [Counter(5, 5), Counter(), Counter(), Counter()]
    receipt = settle(charges, counters)
    assert [back.spent for back in given_back(charges, receipt)] == [5, 0, 2, 0]


@pytest.mark.parametrize("name", ["", "%", "a|b", "a{b}", "é", "e\u0301", "\ud800", "a b", "a\nb", "%7C", "a%7Cb"])
def test_an_escaped_name_is_plain_ascii_and_its_own(name: str) -> None:
    text = escaped(name)
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set("|{} \n")
    assert text not in {escaped(other) for other in ["a", "%25", "a%257Cb%"] if other != name}


def test_usual_names_stay_readable() -> None:
    assert escaped("client:alice@example.org") == "client:alice@example.org"
