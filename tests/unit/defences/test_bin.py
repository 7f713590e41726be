"""Bins with a secret offset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from guard.defences.base import Randomness
from guard.defences.bin import Bin
from guard.engine.randomness import QueryNoise
from guard.engine.release import release
from guard.model.arrays import Floats
from guard.model.outputs import Outputs
from guard.model.prediction import Answer, Prediction, Release
from guard.model.queries import Queries
from tests.support.randomness import Constant, Seeded, batch_of


def binned(values: object, width: float, rng: Randomness, salt: bytes = b"0.0") -> Floats:
    return Bin(width=width).apply(batch_of(values, "value"), rng, salt).scores


def noise_of(client: str, query: list[float], ledger: str = "model", secret: bytes = bytes(32)) -> QueryNoise:
    return QueryNoise(secret, ledger, client, Queries(1, [query]), None)


def test_a_value_becomes_the_middle_of_its_bin() -> None:
    # Bins of 10 from -5: with half a bin of offset, [-5, 5), [5, 15), ...
    assert binned([[4.9], [5.0], [14.9], [-5.1]], 10, Constant(4, 0.5)).tolist() == [[0.0], [10.0], [10.0], [-10.0]]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e4), st.integers(0, 999))
def test_no_value_moves_further_than_half_a_bin(value: float, width: float, seed: int) -> None:
    moved = abs(binned([[value]], width, Seeded(1, seed))[0, 0] - value)
    assert moved <= width / 2 * (1 + 1e-9) + abs(value) * 1e-12


def test_values_of_one_bin_are_answered_alike_and_neighbours_a_width_apart() -> None:
    after = binned(np.linspace(0, 50, 501)[:, None], 10, Seeded(501))
    found = np.unique(after.round(9))
    assert 5 <= len(found) <= 7
    assert np.allclose(np.diff(found), 10)


def test_all_clients_and_queries_are_cut_alike() -> None:
    # Two accounts with offsets of their own would know a value to half a bin.
    values = np.linspace(-40, 40, 81)[:, None]
    alice, mallory = noise_of("alice", [1.0]), noise_of("mallory", [2.0])
    assert np.array_equal(binned(values, 7, alice), binned(values, 7, mallory))


def test_a_second_output_of_an_answer_is_cut_as_the_first() -> None:
    # A client may choose which outputs come back, and with them the number in the salt.
    values = np.linspace(-40, 40, 81)[:, None]
    alice = noise_of("alice", [1.0])
    assert np.array_equal(binned(values, 7, alice, b"0.0"), binned(values, 7, alice, b"0.1"))


def test_an_answer_for_some_of_the_rows_is_cut_as_a_whole_one() -> None:
    written: list[Release] = []
    values = np.array([[12.3], [-4.0]])
    prediction = Prediction("p", values, written.append, "fixed", complete=False, rows=np.array([0, 2]))
    answer = Answer(3, None)
    answer.predictions.append(prediction)
    noise = QueryNoise(bytes(32), "model", "alice", Queries(3, [[1.0], [2.0], [3.0]]), None)
    release((Bin(width=7),), Outputs(kind="value"), answer, noise, labels_only=False)
    assert np.array_equal(written[0].scores, binned(values, 7, noise_of("bob", [9.0])))


def test_another_ledger_and_another_secret_are_cut_elsewhere() -> None:
    values = np.linspace(-40, 40, 81)[:, None]
    here = binned(values, 7, noise_of("alice", [1.0]))
    assert not np.allclose(here, binned(values, 7, noise_of("alice", [1.0], "other")))
    assert not np.allclose(here, binned(values, 7, noise_of("alice", [1.0], secret=bytes(31) + b"1")))


def test_rows_are_cut_alone_as_in_a_batch() -> None:
    values = np.random.default_rng(0).normal(0, 100, (50, 2))
    whole = binned(values, 3, Seeded(50))
    assert all(np.array_equal(binned(values[i : i + 1], 3, Seeded(1)), whole[i : i + 1]) for i in range(50))


def test_huge_values_stay_finite() -> None:
    after = binned([[1e300], [-1e300], [1e18]], 1e-6, Seeded(3))
    assert after.tolist() == [[1e300], [-1e300], [1e18]]


def test_probabilities_are_referred_to_other_defences() -> None:
    assert [p.path for p in Bin(width=1).check(Outputs(), None)] == ["kind"]
    assert Bin(width=1).check(Outputs(kind="value"), None) == []


@pytest.mark.parametrize("width", [0, -1, 1e10, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(ValidationError):
        Bin(width=width)
