from __future__ import annotations

import numpy as np
import pytest

from guard.detectors.base import Features, Sample
from guard.detectors.reference import (
    MOST_ROWS,
    MOST_VALUES,
    Surprisal,
    balanced,
    quantiles,
    take,
    vectors_of,
    whitening,
)


def test_clients_weigh_alike_however_much_they_ask() -> None:
    drawn = balanced([np.zeros((3, 2)), np.ones((100_000, 2))], 0)

    assert drawn.shape == (120, 2)
    assert drawn.mean() == 0.5


def test_rows_are_bounded_however_many_clients_there_are() -> None:
    assert len(balanced([np.zeros((2, 1))] * 7000, 0)) <= MOST_ROWS


def test_quantiles_keep_the_tails() -> None:
    kept = quantiles(np.random.default_rng(0).normal(size=60_000))

    assert len(kept) == MOST_VALUES
    assert (np.diff(kept) >= 0).all()
    assert kept[-1] > 3.2


def test_an_honest_value_surprises_by_1_in_the_mean() -> None:
    rng = np.random.default_rng(0)
    surprisal = Surprisal(np.sort(rng.normal(size=2000)))

    assert surprisal(rng.normal(size=20_000)).mean() == pytest.approx(1, abs=0.05)


def test_a_value_in_single_digits_off_counts_as_equal() -> None:
    surprisal = Surprisal(np.sort(np.repeat([1.0, 2.0, 3.0], 100)))

    assert surprisal(np.array([2.0 + 1e-9]))[0] == surprisal(np.array([2.0]))[0]
    assert surprisal.signals(np.array([2.0 + 1e-9]))[0, 0] == surprisal(np.array([2.0]))[0]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_surprisals_are_finite(value: float) -> None:
    surprisal = Surprisal(np.arange(10.0))

    assert np.isfinite(surprisal.signals(np.array([value]))).all()
    assert np.isfinite(surprisal.signals(np.array([value, value]))).all()


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((2, 3)), "has shape"),
        (np.zeros(0), "has shape"),
        (np.array([np.nan]), "finite"),
        (np.array(["a"]), "finite numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        take({"values": array}, "values", -1)


def test_whitened_rows_have_unit_variance_nearly() -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 3)) * [1.0, 2.0, 3.0]
    spread = (rows @ whitening(rows)).std(axis=0)

    assert (spread > 0.7).all()
    assert (spread < 1.2).all()
    assert np.isfinite(whitening(np.ones((50, 2)))).all()


def test_clients_of_other_widths_are_refused() -> None:
    keys = np.zeros((1, 9), dtype=np.uint32)
    mixed = Sample([Features(keys, np.zeros((1, m)), True) for m in (2, 3)], [None, None], 0)
    with pytest.raises(ValueError, match="differ in width"):
        vectors_of(mixed)
    with pytest.raises(ValueError, match="no client"):
        balanced([], 0)


def test_one_honest_value_in_200_is_extreme() -> None:
    rng = np.random.default_rng(0)
    surprisal = Surprisal(np.sort(rng.normal(size=2000)))

    assert surprisal.signals(rng.normal(size=200_000))[:, 1].mean() == pytest.approx(1 / 200, rel=0.35)
    assert surprisal.signals(np.array([9.0])).tolist()[0][1] == 1
