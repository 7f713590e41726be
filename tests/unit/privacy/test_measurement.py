"""Domains: what lies inside is no further apart than their diameter, and what lies outside is clipped or refused."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.errors import UpstreamError
from guard.model.arrays import Floats
from guard.model.outputs import Kind
from guard.privacy.measurement import Bounds, Norm

NORMS: dict[Norm, float] = {"l1": 1, "l2": 2, "linf": np.inf}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SIMPLEX = Bounds("probabilities")
CLIPPED = Bounds("probabilities", clip=True)


def matrix(*rows: list[float]) -> Floats:
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (SIMPLEX, {"l1": 2.0, "l2": 2**0.5, "linf": 1.0}),
        (Bounds("value", -1.0, 4.0), {"l1": 5.0, "l2": 5.0, "linf": 5.0}),
        (Bounds("embedding", norm=3.0), {"l1": None, "l2": 6.0, "linf": 6.0}),
        (Bounds("value", low=0.0), {"l1": None, "l2": None, "linf": None}),
        (Bounds("embedding"), {"l1": None, "l2": None, "linf": None}),
        (Bounds("logits"), {"l1": None, "l2": None, "linf": None}),
        (Bounds("logprobs"), {"l1": None, "l2": None, "linf": None}),
        (Bounds("labels"), {"l1": None, "l2": None, "linf": None}),
    ],
)
def test_a_domain_has_the_diameter_that_its_kind_implies(bounds: Bounds, expected: dict[Norm, float | None]) -> None:
    assert {norm: bounds.diameter(norm) for norm in NORMS} == expected


@given(FINITE, FINITE)
def test_the_diameter_of_an_interval_is_never_rounded_down(a: float, b: float) -> None:
    low, high = sorted((a, b))
    diameter = Bounds("value", low, high).diameter("l2")
    assert diameter is not None
    assert diameter == float("inf") or Fraction(high) - Fraction(low) <= Fraction(diameter)


@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=2, max_size=6))
@settings(deadline=None)
def test_whatever_is_clipped_is_within_the_diameter(rows: list[list[float]]) -> None:
    for bounds in (CLIPPED, Bounds("embedding", norm=2.0)):
        inside = bounds.fit(matrix(*rows))
        for norm, order in NORMS.items():
            diameter = bounds.diameter(norm)
            apart = [float(np.linalg.norm(a - b, order)) for a, b in pairwise(inside)]
            assert diameter is None or max(apart) <= diameter * (1.0 + 1e-12)


@given(st.lists(FINITE, min_size=1, max_size=6))
def test_a_clipped_value_lies_in_its_interval(values: list[float]) -> None:
    inside = Bounds("value", -1.0, 2.0, clip=True).fit(matrix(*([value] for value in values)))
    assert inside[:, 0].tolist() == [min(2.0, max(-1.0, value)) for value in values]


def test_a_domain_that_the_clip_did_not_keep_would_be_seen() -> None:
    """The negative control: without a clip these rows are further apart than the simplex is wide."""
    rows = matrix([3.0, 0.0, -1.0], [0.0, 3.0, -1.0])
    assert np.linalg.norm(rows[0] - rows[1]) > 2**0.5
    inside = CLIPPED.fit(rows)
    assert np.linalg.norm(inside[0] - inside[1]) <= 2**0.5


def test_sums_near_one_are_made_one_and_others_refused() -> None:
    assert SIMPLEX.fit(matrix([0.5, 0.49], [0.51, 0.509])).sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-15)
    for row in ([0.5, 0.4], [0.5, 0.6], [1.1, -0.1], [0.0, 0.0], [1.0, 1.0], [1e308, 1e308]):
        with pytest.raises(UpstreamError) as refused:
            SIMPLEX.fit(matrix([0.5, 0.5], row))
        assert refused.value.code == "outside_outputs"


def test_a_clip_keeps_what_can_be_kept() -> None:
    found = CLIPPED.fit(matrix([-1.0, 3.0], [0.2, 0.2], [0.0, 0.0], [1e308, 1e308], [-5.0, -6.0], [0.25, 0.75]))
    assert found.tolist() == [[0, 1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.25, 0.75]]


def test_values_beyond_their_range_are_refused() -> None:
    bounds = Bounds("value", -1.0, 2.0)
    assert bounds.fit(matrix([2.0], [-1.0])).tolist() == [[2.0], [-1.0]]
    for value in (2.0000001, -1.1, 1e308):
        with pytest.raises(UpstreamError, match="outside"):
            bounds.fit(matrix([0.0], [value]))


def test_embeddings_are_clipped_to_their_norm_whatever_their_size() -> None:
    rows = matrix([3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [1e300, 1e300], [5e-324, 0.0])
    found = Bounds("embedding", norm=1.0).fit(rows)
    assert found[0] == pytest.approx([0.6, 0.8])
    assert found[1:3].tolist() == rows[1:3].tolist()
    assert found[3] == pytest.approx([0.5**0.5, 0.5**0.5])
    assert found[4].tolist() == [5e-324, 0.0]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["probabilities", "value", "embedding"])
def test_what_is_no_number_is_refused_and_never_clipped(kind: Kind, bad: float, clip: bool) -> None:
    with pytest.raises(UpstreamError, match="outside"):
        Bounds(kind, 0.0, 1.0, 1.0, clip).fit(matrix([bad]))


@pytest.mark.parametrize(
    "bounds", [Bounds("logits"), Bounds("logprobs"), Bounds("labels"), Bounds("value", low=0.0), Bounds("embedding")]
)
def test_what_nothing_bounds_fits_nowhere(bounds: Bounds) -> None:
    with pytest.raises(UpstreamError, match="outside"):
        bounds.fit(matrix([0.5]))


def test_an_interval_bounds_one_number_and_no_vector() -> None:
    with pytest.raises(UpstreamError, match="outside"):
        Bounds("value", 0.0, 1.0, clip=True).fit(matrix([0.5, 0.5]))
