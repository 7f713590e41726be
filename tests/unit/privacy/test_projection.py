"""Projections: the nearest point of the domain, whatever the noise was."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from guard.model.arrays import Floats
from guard.privacy import projection
from guard.privacy.measurement import Bounds
from guard.privacy.projection import onto_simplex, project


def reference(point: Floats) -> Floats:
    """The simplex's nearest point by bisection of the threshold, one row at a time."""
    low, high = point.min() - 1.0, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


@pytest.mark.parametrize("k", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("scale", [1e-9, 0.1, 1.0, 30.0])
def test_the_simplex_is_met_at_its_nearest_point(k: int, scale: float) -> None:
    points = np.random.default_rng(k).normal(0, scale, (20, k))
    found = onto_simplex(points)
    assert found == pytest.approx(np.array([reference(point) for point in points]), abs=1e-9)
    assert found.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-12)
    assert (found >= 0).all()


@pytest.mark.parametrize("far", [1e3, 1e9, 1e15, 1e300])
def test_rows_far_out_become_distributions_too(far: float) -> None:
    points = np.random.default_rng(0).normal(0, 1, (50, 10)) * far
    found = onto_simplex(points)
    assert found.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-12)
    assert np.array_equal(found.argmax(axis=1), points.argmax(axis=1))
    assert onto_simplex(np.full((1, 4), far)) == pytest.approx(np.full((1, 4), 0.25))


def test_a_distribution_stays_where_it_is() -> None:
    points = np.random.default_rng(1).dirichlet(np.ones(10), 50)
    assert onto_simplex(points) == pytest.approx(points, abs=1e-15)


def test_no_rows_stay_no_rows() -> None:
    assert onto_simplex(np.zeros((0, 3))).shape == (0, 3)


def test_an_embedding_is_shortened_to_its_norm_and_a_short_one_left() -> None:
    found = project(np.array([[3.0, 4.0], [0.3, 0.4]]), Bounds("embedding", norm=1.0))
    assert found == pytest.approx(np.array([[0.6, 0.8], [0.3, 0.4]]))


def test_doctests_hold() -> None:
    assert not doctest.testmod(projection, extraglobs={"np": np}).failed
