"""Names and refunds, where the contract suite cannot look."""

from __future__ import annotations

import pytest

from guard.model.ledger import Admission, Charge, Spend
from guard.state.counters import Counter, escaped, rows_back, settle, take_off, unescaped


def rows(budget: str, amount: int, limit: int = 10) -> Charge:
    return Charge(budget, "client:a", 0, limit, amount, "label_only")


def test_a_receipt_tells_what_each_counter_was_charged() -> None:
    charges = [rows("before", 5), rows("full", 11), rows("still fits", 2), rows("over", 12)]
    receipt = settle(charges, [Counter(5, 5), Counter(), Counter(), Counter()])
    assert receipt.admission is Admission.LABEL_ONLY
    assert receipt.charged == (Spend(5, 5), Spend(0, 11), Spend(2, 2), Spend(0, 12))


def test_a_refund_forgets_only_what_was_still_known() -> None:
    counter = Counter(1, 1, {b"a" * 16})
    assert take_off(counter, Spend(2, 2), (b"a" * 16, b"b" * 16)) == (b"a" * 16,)
    assert (counter.spent, counter.total, counter.digests) == (0, 0, set())


@pytest.mark.parametrize("name", ["", "%", "a|b", "a{b}", "é", "e\u0301", "\ud800", "a b", "a\nb", "%7C", "a%7Cb"])
def test_an_escaped_name_is_plain_ascii_and_its_own(name: str) -> None:
    text = escaped(name)
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set("|{} \n")
    assert unescaped(text) == name
    assert text not in {escaped(other) for other in ["a", "%25", "a%257Cb%"] if other != name}


def test_usual_names_stay_readable() -> None:
    assert escaped("client:alice@example.org") == "client:alice@example.org"


@pytest.mark.parametrize(("taken", "rows"), [(30, 3), (29, 2), (10, 1), (9, 0), (0, 0)])
def test_a_refund_of_less_than_was_charged_is_of_fewer_rows(taken: int, rows: int) -> None:
    assert rows_back(3, 30, taken) == rows
