"""Privacy events: what is written is read again, and what is unknown is refused, alone and nested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from guard.privacy.events import BoundedRange, Composed, Event, Gaussian, Laplace, NonPrivate, NoOp, Pure, parse, text
from tests.support.events import composed, simple

ALIEN: Any = object()  # Any: what no type checker lets through


@given(simple() | composed())
def test_what_is_written_is_read_again(event: Event) -> None:
    assert parse(text(event)) == event


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (Gaussian(2.5), "gaussian(2.5)"),
        (Gaussian(2), "gaussian(2.0)"),
        (Gaussian(np.float64(2.5)), "gaussian(2.5)"),
        (Gaussian(1e16), "gaussian(1e+16)"),
        (Gaussian(2.5, fine=False), "gaussian(2.5,coarse)"),
        (Laplace(1e-5), "laplace(1e-05)"),
        (BoundedRange(0.5), "bounded_range(0.5)"),
        (NoOp(), "no_op()"),
        (NonPrivate(), "non_private()"),
        (Composed((Gaussian(1e16), Pure(1e-5), NoOp())), "gaussian(1e+16)+pure(1e-05)+no_op()"),
    ],
)
def test_a_ledger_keeps_the_same_words_for_ever(event: Event, written: str) -> None:
    assert text(event) == written
    assert parse(written) == event


@pytest.mark.parametrize(
    "written",
    [
        "",
        "gaussian",
        "gaussian()",
        "gaussian(0)",
        "gaussian(-1)",
        "gaussian(nan)",
        "gaussian(inf)",
        "gaussian(1e999)",
        "gaussian(1,2)",
        "gaussian(1,)",
        "gaussian(1_0)",
        "gaussian( 1)",
        "gaussian(٣)",
        "gaussian(1)\n",
        "gaussian(1,fine)",
        "laplace(1,coarse)",
        "poisson(1)",
        "no_op(1)",
        "non_private(,coarse)",
        "gaussian(1)+",
        "+gaussian(1)",
        "gaussian(1)++pure(1)",
        "gaussian(1)+poisson(1)",
        "gaussian(1)+pure(1)+pure(0)",
        "composed(gaussian(1))",
    ],
)
def test_what_text_never_wrote_is_refused_even_nested(written: str) -> None:
    with pytest.raises(ValueError, match="there is no privacy event"):
        parse(written)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [Gaussian, Laplace, Pure, BoundedRange])
def test_noise_that_is_none_is_refused(kind: type[Gaussian | Laplace | Pure | BoundedRange], number: float) -> None:
    with pytest.raises(ValueError, match="not above 0 and finite"):
        kind(number)


def test_compositions_within_compositions_are_taken_apart() -> None:
    a, b, c = Gaussian(1.0), Pure(2.0), Laplace(3.0)
    assert Composed((Composed((a, b)), c)) == Composed((a, Composed((b, c)))) == Composed((a, b, c))


@pytest.mark.parametrize("parts", [(), (Gaussian(1.0),), (Gaussian(1.0), ALIEN), (ALIEN, ALIEN), (None, None)])
def test_a_composition_of_less_than_two_events_is_refused(parts: Any) -> None:  # Any: see ALIEN
    with pytest.raises(ValueError, match="are not two or more privacy events"):
        Composed(parts)


def test_what_is_no_event_has_no_words() -> None:
    with pytest.raises(ValueError, match="there is no privacy event"):
        text(ALIEN)
